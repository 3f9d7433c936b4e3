//! Numbers that others follow: every decoder that reads one refuses those above the limit, by name.

use super::batch::BatchHeader;
use super::chunk::{Chunk, Content, CopyBegin, Definitions, Next, Progress, Want, WantFrom};
use super::control::{Control, EpochMark, Origin, PeerRecord, Role};
use super::dptr::{Dptr, DptrKind, FileState, Flags};
use super::entry::{Entry, EntryKind, EpochStart};
use super::frame::{Ack, Begin, FrameFields, FrameHeader, FrameKind, Hello, encode_header};
use super::handover::Handover;
use super::rewind::{Ranges, Rewind};
use super::segment::SegmentHeader;
use super::{DecodeError, PairId};
use crate::base::limits::NUMBER_MAX;
use crate::base::{Chain, Epoch, FileId, JournalKind, Ordinal, Position, SegmentIndex, Seq};
use bytes::Bytes;

/// Encodes something with this number in one of its fields, and reads it back.
type Trip = fn(u64) -> Result<(), DecodeError>;

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(u64::MAX) }
}

fn batch(at: usize, number: u64) -> Result<(), DecodeError> {
    let mut bytes = include_bytes!("../../tests/data/batch-v1.bin").to_vec();
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    BatchHeader::decode(&bytes).map(drop)
}

fn segment(index: u64, base: Position) -> Result<(), DecodeError> {
    let (journal, index, pair) = (JournalKind::Local, SegmentIndex(index), PairId([5; 16]));
    SegmentHeader::decode(&SegmentHeader { journal, index, base, pair, wall_ms: u64::MAX }.encode()).map(drop)
}

fn control(epoch: u64, mark: [u64; 2], peer: PeerRecord) -> Result<(), DecodeError> {
    let table = vec![EpochMark { epoch: Epoch(mark[0]), first_seq: Seq(mark[1]), prev_chain: Chain(9) }];
    let file = Control { epoch: Epoch(epoch), table, peer, ..Control::new(Role::Primary, PairId([1; 16])) };
    Control::decode(&file.encode()).map(drop)
}

fn peer(change: impl Fn(&mut PeerRecord)) -> Result<(), DecodeError> {
    let mut peer = PeerRecord::default();
    change(&mut peer);
    control(1, [1, 1], peer)
}

fn hello(change: impl Fn(&mut Hello)) -> Result<(), DecodeError> {
    let mut hello = Hello {
        version: 2,
        floor: 1,
        features: 0,
        pair: PairId([1; 16]),
        ordinal: Ordinal(1),
        role: Role::Standby,
        serving: false,
        end: at(1, 1),
        applied: Seq(1),
        table: Vec::new(),
        name: "a".to_owned(),
        known: Seq(1),
        relied_on: Seq(1),
        door: None,
        copied: false,
    };
    change(&mut hello);
    Hello::decode(&hello.encode()).map(drop)
}

fn mark(epoch: u64, first_seq: u64) -> Vec<EpochMark> {
    vec![EpochMark { epoch: Epoch(epoch), first_seq: Seq(first_seq), prev_chain: Chain(9) }]
}

fn frame(epoch: u64, durable: u64) -> Result<(), DecodeError> {
    let fields = FrameFields { epoch: Epoch(epoch), durable: Seq(durable), ..FrameFields::default() };
    FrameHeader::decode(&encode_header(FrameKind::Heartbeat, &fields, &[]), 0).map(drop)
}

fn ack(received: u64, durable: u64, applied: u64) -> Result<(), DecodeError> {
    let ack = Ack { received: Seq(received), durable: Seq(durable), applied: Seq(applied) };
    Ack::decode(&ack.encode()).map(drop)
}

fn dptr(account: u64) -> Result<(), DecodeError> {
    let (kind, flags, state) = (DptrKind::Records, Flags::L, FileState::Whole);
    let (account, name) = (FileId(account), "orders".to_owned());
    let dptr = Dptr { kind, flags, state, generation: 3, account, blocks: 0, ack: None, name };
    Dptr::decode(&dptr.encode()).map(drop)
}

fn epoch_start(epoch: u64) -> Result<(), DecodeError> {
    let start = EpochStart { epoch: Epoch(epoch), ordinal: Ordinal(0), name: "a".to_owned() };
    EpochStart::decode(&start.encode()).map(drop)
}

fn entry(file: u64) -> Result<(), DecodeError> {
    let (kind, file) = (EntryKind::Put, FileId(file));
    let entry = Entry { kind, file, id: b"1", value: b"2" };
    Entry::decode(&[&entry.header()[..], b"12"].concat()).map(drop)
}

fn origin(at: Position, first_segment: u64) -> Result<(), DecodeError> {
    let origin = Origin { at, first_segment: SegmentIndex(first_segment) };
    Control::decode(&Control { origin, ..Control::new(Role::Standby, PairId([1; 16])) }.encode()).map(drop)
}

fn begin(origin: Position, table: Vec<EpochMark>, id: u64) -> Result<(), DecodeError> {
    begin_of(origin, table, id, 1)
}

fn begin_of(origin: Position, table: Vec<EpochMark>, id: u64, size: u64) -> Result<(), DecodeError> {
    let namespace = Definitions { meta: Bytes::new(), records: vec![(FileId(id), Bytes::new())] };
    CopyBegin::decode(&CopyBegin { origin, size, table, namespace }.encode().unwrap().into()).map(drop)
}

fn progress(until: u64, next: Next) -> Result<(), DecodeError> {
    progress_of(until, next, 1, 1)
}

fn progress_of(until: u64, next: Next, bytes: u64, size: u64) -> Result<(), DecodeError> {
    let progress = Progress { until: Seq(until), next, bytes, size, ..Progress::at(at(1, 1)) };
    Progress::decode(&progress.encode().into()).map(drop)
}

fn give(at: Position) -> Result<(), DecodeError> {
    Handover::decode(&Handover::Give { at, paused_us: 0 }.encode()).map(drop)
}

fn want(file: u64, from: WantFrom) -> Result<(), DecodeError> {
    Want::decode(&Want { id: 1, file: FileId(file), from, most: 4096, unless: None }.encode().into())
        .map(drop)
}

fn chunk(file: u64, at: u64, until: u64) -> Result<(), DecodeError> {
    let (file, at, until) = (FileId(file), Seq(at), Seq(until));
    Chunk::decode(&Chunk { id: 1, file, at, until, content: Content::Gone, ends: true }.encode().into())
        .map(drop)
}

fn blocks(offset: u64, len: u64, runs: Vec<(u64, Bytes)>) -> Result<(), DecodeError> {
    let (file, at, content) = (FileId(1), Seq(1), Content::Blocks { offset, len, runs });
    Chunk::decode(&Chunk { id: 1, file, at, until: at, content, ends: true }.encode().into()).map(drop)
}

fn ranges(file: u64) -> Result<(), DecodeError> {
    let mut ranges = Ranges::default();
    ranges.whole(FileId(file));
    Rewind::decode(&Rewind { common: at(1, 1), ranges: Some(ranges) }.encode().into()).map(drop)
}

/// Every field that is read as such a number, by the name that a refusal tells.
const FIELDS: &[(&str, Trip)] = &[
    ("batch epoch", |n| batch(16, n)),
    ("batch first seq", |n| batch(24, n)),
    ("batch durable head", |n| batch(48, n)),
    ("segment index", |n| segment(n, at(1, 1))),
    ("segment base epoch", |n| segment(1, at(n, 1))),
    ("segment base", |n| segment(1, at(1, n))),
    ("epoch", |n| control(n, [1, 1], PeerRecord::default())),
    ("epoch in the table", |n| control(1, [n, 1], PeerRecord::default())),
    ("first entry of an epoch", |n| control(1, [1, n], PeerRecord::default())),
    ("epoch in the table", |n| hello(|hello| hello.table = mark(n, 1))),
    ("first entry of an epoch", |n| hello(|hello| hello.table = mark(1, n))),
    ("epoch of the peer", |n| peer(|peer| peer.epoch = Epoch(n))),
    ("entry of the peer", |n| peer(|peer| peer.on_disk = Seq(n))),
    ("entry of the peer", |n| peer(|peer| peer.holds = Seq(n))),
    ("entry of the peer", |n| peer(|peer| peer.offered = Seq(n))),
    ("entry of the peer", |n| peer(|peer| peer.offered_epoch = Epoch(n))),
    ("entry of the peer", |n| peer(|peer| peer.shared = Seq(n))),
    ("entry of the peer", |n| peer(|peer| peer.known_here = Seq(n))),
    ("entry of the peer", |n| peer(|peer| peer.relied_on = Seq(n))),
    ("epoch of a position", |n| hello(|hello| hello.end = at(n, 1))),
    ("entry of a position", |n| hello(|hello| hello.end = at(1, n))),
    ("epoch of a position", |n| Begin::decode(&Begin { common: at(n, 1) }.encode()).map(drop)),
    ("epoch of a handover", |n| give(at(n, 1))),
    ("entry of a handover", |n| give(at(1, n))),
    ("entry of a position", |n| Begin::decode(&Begin { common: at(1, n) }.encode()).map(drop)),
    ("applied entry of a hello", |n| hello(|hello| hello.applied = Seq(n))),
    ("entry known to be here", |n| hello(|hello| hello.known = Seq(n))),
    ("entry relied on", |n| hello(|hello| hello.relied_on = Seq(n))),
    ("epoch of the origin", |n| origin(at(n, 1), 1)),
    ("entry of the origin", |n| origin(at(1, n), 1)),
    ("first segment", |n| origin(at(1, 1), n)),
    ("epoch of a copy's origin", |n| begin(at(n, 1), Vec::new(), 1)),
    ("entry of a copy's origin", |n| begin(at(1, n), Vec::new(), 1)),
    ("epoch in the table", |n| begin(at(1, 1), mark(n, 1), 1)),
    ("first entry of an epoch", |n| begin(at(1, 1), mark(1, n), 1)),
    ("id of a definition", |n| begin(at(1, 1), Vec::new(), n)),
    ("size of a copy", |n| begin_of(at(1, 1), Vec::new(), 1, n)),
    ("end of a copy", |n| progress(n, Next::Nothing)),
    ("content of a copy", |n| progress_of(1, Next::Nothing, n, 1)),
    ("size of a copy", |n| progress_of(1, Next::Nothing, 1, n)),
    ("file of a copy", |n| progress(1, Next::Items(FileId(n), Bytes::new()))),
    ("file of a copy", |n| progress(1, Next::Blocks(FileId(n), 0))),
    ("offset of a copy", |n| progress(1, Next::Blocks(FileId(1), n))),
    ("file of a want", |n| want(n, WantFrom::Items(Bytes::new()))),
    ("offset of a want", |n| want(1, WantFrom::Blocks(n))),
    ("end of a want", |n| want(1, WantFrom::BlocksTo(0, n))),
    ("file of a range", ranges),
    ("file of a chunk", |n| chunk(n, 1, 1)),
    ("position of a chunk", |n| chunk(1, n, NUMBER_MAX)),
    ("end of a chunk", |n| chunk(1, 1, n)),
    ("offset of a chunk", |n| blocks(n, 8, Vec::new())),
    ("length of a chunk", |n| blocks(0, n, Vec::new())),
    ("offset of a run", |n| blocks(NUMBER_MAX, NUMBER_MAX, vec![(n, Bytes::from_static(b"1"))])),
    ("epoch of a frame", |n| frame(n, 1)),
    ("durable head of a frame", |n| frame(1, n)),
    ("entry of an ack", |n| ack(n, 1, 1)),
    ("entry of an ack", |n| ack(1, n, 1)),
    ("entry of an ack", |n| ack(1, 1, n)),
    ("D-pointer account", dptr),
    ("entry file id", entry),
    ("epoch that begins", epoch_start),
];

#[test]
fn a_number_that_nothing_can_follow_is_refused_by_name_in_every_field_of_every_decoder() {
    for (what, trip) in FIELDS {
        assert_eq!(trip(NUMBER_MAX), Ok(()), "{what}: the largest number that is taken has a successor");
        for found in [NUMBER_MAX + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(trip(found), Err(DecodeError::Limit { what, limit: NUMBER_MAX, found }));
        }
    }
}

/// Fields of eight bytes that are no such numbers: checksums, times, sizes, what is compared and never counted on.
const OTHERS: &[(&str, usize)] = &[
    ("batch", 2),
    ("chunk", 3),
    ("control", 2),
    ("dptr", 1),
    ("entry", 2),
    ("frame", 5),
    ("handover", 4),
    ("rewind", 1),
    ("segment", 2),
];

#[test]
fn every_decoder_that_reads_such_a_number_is_among_them() {
    let sources = [
        ("batch", include_str!("batch.rs")),
        ("chunk", include_str!("chunk.rs")),
        ("control", include_str!("control.rs")),
        ("dptr", include_str!("dptr.rs")),
        ("entry", include_str!("entry.rs")),
        ("frame", include_str!("frame.rs")),
        ("handover", include_str!("handover.rs")),
        ("rewind", include_str!("rewind.rs")),
        ("segment", include_str!("segment.rs")),
    ];
    for (name, source) in sources {
        let product = source.split("#[cfg(test)]").next().unwrap();
        for call in product.split("number(\"").skip(1) {
            let what = call.split('"').next().unwrap();
            assert!(FIELDS.iter().any(|(known, _)| *known == what), "{name}: {what} is not tried");
        }
        let plain = product.matches(".u64()?").count();
        let known = OTHERS.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(plain, known, "{name}: is the new field of eight bytes a number that others follow?");
    }
}
