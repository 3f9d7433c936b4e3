//! A small set: written, read back, damaged at every bit and cut off at every byte.

use super::*;
use crate::base::{Chain, Epoch, FileId, JournalKind, Ordinal, Position, Seq};
use crate::format::PairId;
use crate::format::alone::{Alone, AloneFiles};
use crate::format::batch::{Batch, BatchBuilder, Seal};
use crate::format::chunk::{Chunk, Content, CopyBegin};
use crate::format::control::{EpochMark, Role};
use crate::format::dptr::{DptrKind, Flags};
use crate::format::entry::{Entry, EntryKind};
use crate::format::set::{BLOCK_HEADER, SetBegin, SetId, Trailer};
use crate::format::since::{Same, SetBase};
use crate::store::namespace::{Change, Namespace, NewFile};
use std::path::Path;

pub(in crate::node) const PAIR: PairId = PairId([9; 16]);
const SET: SetId = SetId([7; 16]);

/// A history of which a set is made.
pub(in crate::node) struct Sample {
    pub(in crate::node) set: SetId,
    pub(in crate::node) begin: SetBegin,
    pub(in crate::node) steps: Vec<Step>,
    pub(in crate::node) orders: FileId,
    pub(in crate::node) disk: FileId,
}

#[derive(Clone)]
pub(in crate::node) enum Step {
    Batch(Batch),
    Chunk(Chunk),
    Same(Same),
    Alone(Alone),
}

fn apply(ns: &mut Namespace, change: Change) {
    for new in &change.entries {
        let entry = Entry { kind: new.kind, file: new.file, id: &[], value: &new.value };
        ns.apply(Ordinal(0), change.journal, &entry).unwrap();
    }
}

fn batch(after: Position, epoch: u64, entries: &[(EntryKind, FileId, &[u8], &[u8])]) -> Batch {
    let mut builder = BatchBuilder::new(after.seq.next(), 0);
    for (kind, file, id, value) in entries {
        builder.push(&Entry { kind: *kind, file: *file, id, value });
    }
    let (prev_chain, durable, journal) = (after.chain, after.seq, JournalKind::Replicated);
    builder.seal(&Seal { epoch: Epoch(epoch), prev_chain, durable, wall_ms: 0, pair: PAIR, journal })
}

pub(in crate::node) fn sample(account: &str) -> Sample {
    let mut ns = Namespace::new();
    let change = ns.create_account("app", Flags::L, Ordinal(0)).unwrap();
    apply(&mut ns, change);
    for (name, kind, blocks) in [("orders", DptrKind::Records, 0), ("disk", DptrKind::Blocks, 4)] {
        let new = NewFile { account: "app", name, kind, flags: None, blocks, ack: None };
        let change = ns.create_file(&new, Ordinal(0)).unwrap();
        apply(&mut ns, change);
    }
    let file = |name: &[u8]| ns.resolve(name).unwrap();
    let (orders, disk) = (file(b"app,orders"), file(b"app,disk"));
    let origin = Position { epoch: Epoch(2), seq: Seq(3), chain: Chain(77) };
    let table = vec![EpochMark { epoch: Epoch(2), first_seq: Seq(1), prev_chain: Chain(0) }];
    let copy = CopyBegin { origin, size: 3 << 20, table, namespace: ns.definitions() };
    let begin = SetBegin {
        base: None,
        role: Role::Primary,
        node: "a".to_owned(),
        account: account.to_owned(),
        left_out: vec!["app,scratch".to_owned()],
        copy,
    };
    let first =
        batch(origin, 2, &[(EntryKind::Put, orders, b"k1", b"one"), (EntryKind::Put, orders, b"k2", b"two")]);
    let item = |id: &'static str, value: &'static str| (Bytes::from(id), Bytes::from(value));
    let items = |id, at: &Batch, (after, through): (&'static str, &'static str), items, ends| {
        let content = Content::Items { after: Bytes::from(after), through: Bytes::from(through), items };
        let at = at.header().last_seq();
        Step::Chunk(Chunk { id, file: orders, at, until: at, content, ends })
    };
    let second = batch(first.end(), 4, &[(EntryKind::Put, orders, b"k1", b"uno")]);
    let last = batch(second.end(), 4, &[(EntryKind::Delete, orders, b"k2", b"")]);
    let runs = vec![(4096, Bytes::from(vec![5; 4096]))];
    let blocks = Chunk {
        id: 3,
        file: disk,
        at: second.header().last_seq(),
        until: last.header().last_seq(),
        content: Content::Blocks { offset: 0, len: 4 * 4096, runs },
        ends: true,
    };
    let steps = vec![
        Step::Batch(first.clone()),
        items(0, &first, ("", "k1"), vec![item("k1", "one")], false),
        items(1, &first, ("k1", "k2"), vec![item("k2", "two")], false),
        Step::Batch(second.clone()),
        items(2, &second, ("k2", ""), vec![item("k9", "nine")], true),
        Step::Chunk(blocks),
        Step::Batch(last),
    ];
    Sample { set: SET, begin, steps, orders, disk }
}

/// A set that was made since that of all accounts.
pub(in crate::node) fn sample_since() -> Sample {
    let before = sample("");
    let base = verified(before.bytes()).unwrap().trailer.unwrap();
    let content = before.steps.iter().filter_map(|step| match step {
        Step::Chunk(chunk) => Some(chunk),
        _ => None,
    });
    let [.., items, blocks] = content.collect::<Vec<_>>()[..] else { panic!("it has less") };
    let (origin, table) = (base.end, {
        let mark = |epoch, first_seq, prev_chain| EpochMark {
            epoch: Epoch(epoch),
            first_seq: Seq(first_seq),
            prev_chain,
        };
        vec![mark(2, 1, Chain(0)), mark(4, 6, Chain(1))]
    });
    let put = batch(origin, 4, &[(EntryKind::Put, before.orders, b"k1", b"eins")]);
    let last = batch(put.end(), 4, &[(EntryKind::Delete, before.orders, b"k9", b"")]);
    let first = Content::Items {
        after: Bytes::new(),
        through: Bytes::from("k2"),
        items: vec![(Bytes::from("k1"), Bytes::from("uno"))],
    };
    let at = put.header().last_seq();
    let same = |chunk: &Chunk, id| Step::Same(Same::of(&Chunk { id, at, until: at, ..chunk.clone() }));
    let steps = vec![
        Step::Chunk(Chunk {
            id: 0,
            file: before.orders,
            at: origin.seq,
            until: origin.seq,
            content: first,
            ends: false,
        }),
        Step::Batch(put.clone()),
        same(items, 1),
        same(blocks, 2),
        Step::Batch(last),
    ];
    let base = SetBase { set: SET, end: base.end, wall_ms: base.wall_ms, digest: base.digest };
    let copy = CopyBegin { origin, table, ..before.begin.copy.clone() };
    let begin = SetBegin { base: Some(base), copy, ..before.begin.clone() };
    Sample { set: SetId([8; 16]), begin, steps, ..before }
}

/// A set with what its node has alone: items, of another file the definition, and of a third nothing.
pub(in crate::node) fn sample_alone() -> Sample {
    let mut sample = sample("");
    let mut ns = Namespace::of(&sample.begin.copy.namespace).unwrap();
    let change = ns.create_account("own", Flags::T, Ordinal(0)).unwrap();
    apply(&mut ns, change);
    for (account, name, flags) in
        [("own", "list", Flags::T), ("app", "views", Flags::Y), ("own", "not", Flags::X)]
    {
        let new =
            NewFile { account, name, kind: DptrKind::Records, flags: Some(flags), blocks: 0, ack: None };
        let change = ns.create_file(&new, Ordinal(0)).unwrap();
        apply(&mut ns, change);
    }
    let Some(Step::Batch(last)) = sample.steps.last() else { panic!("it ends with a batch") };
    let (end, file) = (last.end(), ns.resolve(b"own,list").unwrap());
    let (namespace, left_out) = ns.alone("");
    let copy = CopyBegin { origin: end, namespace, ..CopyBegin::default() };
    let items = vec![(Bytes::from("n1"), Bytes::from("alone")), (Bytes::from("n2"), Bytes::from("too"))];
    let content = Content::Items { after: Bytes::new(), through: Bytes::new(), items };
    let chunk = Chunk { id: 4, file, at: end.seq, until: end.seq, content, ends: true };
    sample.begin.left_out.clear();
    sample.steps.extend([Step::Alone(Alone { at: Seq(12), left_out, copy }), Step::Chunk(chunk)]);
    Sample { set: SetId([6; 16]), ..sample }
}

impl Sample {
    pub(in crate::node) fn write(&self, target: Target, pack: Pack) -> Result<(), SetError> {
        let alone = self.steps.iter().any(|step| matches!(step, Step::Alone(_)));
        let head = Head { set: self.set, pair: PAIR, wall_ms: 5, alone };
        let mut writer = SetWriter::begin(target, pack, &head, &self.begin)?;
        for step in &self.steps {
            match step {
                Step::Batch(batch) => writer.batch(batch)?,
                Step::Chunk(chunk) => writer.chunk(chunk, &chunk.encode().into())?,
                Step::Same(same) => writer.same(same, &same.encode().into())?,
                Step::Alone(alone) => writer.alone(alone, &alone.encode().unwrap().into())?,
            }
        }
        writer.finish(6).map(drop)
    }

    pub(in crate::node) fn bytes(&self) -> Bytes {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        self.write(Target::File(path.clone()), Pack::None).unwrap();
        std::fs::read(path).unwrap().into()
    }
}

/// Reads to the end, as a restore does, and gives what was read.
fn read(source: Source) -> Result<Vec<Block>, SetError> {
    let mut reader = SetReader::open(source)?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block()? {
        blocks.push(block);
    }
    Ok(blocks)
}

fn verified(bytes: impl Into<Bytes>) -> Result<Verified, SetError> {
    verify(Source::Bytes(bytes.into()), |_| {})
}

fn holds_all(sample: &Sample, blocks: &[Block]) {
    let Some((Block::Begin(begin), rest)) = blocks.split_first() else { panic!("no beginning") };
    assert_eq!(**begin, sample.begin);
    let Some((Block::Trailer(trailer), rest)) = rest.split_last() else { panic!("no trailer") };
    assert_eq!((trailer.end.seq, trailer.end.epoch, trailer.wall_ms), (Seq(7), Epoch(4), 6));
    let more = u64::from(trailer.alone.is_some());
    let counts = (trailer.counts.batches, trailer.counts.chunks, trailer.counts.items);
    assert_eq!(counts, (3, 4 + more, 3 + 2 * more));
    assert_eq!(rest.len(), sample.steps.len());
    for (block, step) in rest.iter().zip(&sample.steps) {
        match (block, step) {
            (Block::Batch(found), Step::Batch(batch)) => assert_eq!(found.wire(), batch.wire()),
            (Block::Chunk(found), Step::Chunk(chunk)) => assert_eq!(found, chunk),
            (Block::Same(found), Step::Same(same)) => assert_eq!(found, same),
            (Block::Alone(found), Step::Alone(alone)) => assert_eq!(**found, *alone),
            other => panic!("{:?} stands in its place", other.0),
        }
    }
}

#[test]
fn a_set_reads_back_from_one_file_from_many_and_packed_and_says_what_it_holds() {
    let sample = sample("");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let targets = [
        (Target::File(path("one")), Pack::None, 1),
        (Target::File(path("packed")), Pack::Lz4, 1),
        (Target::Dir(path("many"), 300), Pack::None, 4),
    ];
    for (target, pack, parts) in targets {
        sample.write(target.clone(), pack).unwrap();
        let source = Source::of(Path::new(&target.name()));
        holds_all(&sample, &read(source.clone()).unwrap());
        let found = contents(&source).unwrap();
        assert!(found.parts >= parts && (parts > 1) == (found.parts > 1), "{} files", found.parts);
        assert_eq!((found.header.pair, &found.begin), (PAIR, &sample.begin));
        let names: Vec<_> = found.trailer.files.iter().map(|file| (file.name.as_str(), file.items)).collect();
        assert_eq!(names, [("app,orders", 3), ("app,disk", 0)]);
        assert_eq!(Some(found.bytes), source.bytes());
        // A save never overwrites another.
        assert!(matches!(sample.write(target, pack), Err(SetError::Exists { .. })));
        assert!(read(source).is_ok(), "it is as it was");
    }
    let (one, packed) = (std::fs::read(path("one")).unwrap(), std::fs::read(path("packed")).unwrap());
    assert!(packed.len() < one.len() - 3000, "a block of equal bytes packs well");
}

#[test]
fn the_golden_set_is_byte_for_byte_what_this_version_writes() {
    let golden = include_bytes!("../../../tests/data/set-v1.hbs");
    assert!(sample("").bytes() == golden[..], "it differs");
    holds_all(&sample(""), &read(Source::Bytes(Bytes::from_static(golden))).unwrap());
}

#[test]
fn every_bit_flip_and_every_cut_is_named_and_nothing_behind_it_is_given_as_whole() {
    no_flip_or_cut_goes_unnoticed(sample("").bytes());
}

#[test]
fn the_same_holds_for_a_set_that_was_made_since_another() {
    no_flip_or_cut_goes_unnoticed(sample_since().bytes());
}

#[test]
fn the_same_holds_for_a_set_with_what_its_node_has_alone() {
    no_flip_or_cut_goes_unnoticed(sample_alone().bytes());
}

#[test]
fn the_golden_set_with_what_its_node_has_alone_is_byte_for_byte_what_this_version_writes() {
    let golden = include_bytes!("../../../tests/data/set-v3.hbs");
    let made = sample_alone();
    assert!(made.bytes() == golden[..], "it differs");
    let source = Source::Bytes(Bytes::from_static(golden));
    holds_all(&made, &read(source.clone()).unwrap());
    let found = contents(&source).unwrap();
    let AloneFiles { files, defined, left_out } = alone_files(&found.begin, &found.trailer);
    let held: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.items)).collect();
    assert_eq!(
        (held, defined, left_out),
        (vec![("own,list", 2)], vec!["app,views".to_owned()], vec!["own,not".to_owned()])
    );
    assert_eq!(found.trailer.files.len(), 2);
    // Of an older set the definitions tell.
    let before = contents(&Source::Bytes(sample("").bytes())).unwrap();
    let told = alone_files(&before.begin, &before.trailer);
    assert_eq!((told.files.len(), told.left_out), (0, vec!["app,scratch".to_owned()]));
}

#[test]
fn what_a_node_has_alone_stands_behind_all_else_once_and_where_the_set_says_that_it_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = |change: fn(&mut Vec<Step>)| {
        let mut sample = sample_alone();
        change(&mut sample.steps);
        let written = sample.write(Target::File(dir.path().join("set")), Pack::None);
        written.unwrap_err().to_string()
    };
    let behind = told(|steps| {
        let batch = steps.remove(6);
        steps.push(batch);
    });
    assert!(behind.contains("not in its place") || behind.contains("stands behind"), "{behind}");
    assert!(told(|steps| steps.swap(5, 7)).contains("not in its place"));
    assert!(told(|steps| steps.push(steps[7].clone())).contains("not in its place"));
    assert!(told(|steps| drop(steps.pop())).contains("ends before the items of own,list"));
    let other = told(|steps| {
        if let Some(Step::Alone(alone)) = steps.get_mut(7) {
            alone.copy.origin.chain = Chain(1);
        }
    });
    assert!(other.contains("content that belongs behind entry 7"), "{other}");
}

fn no_flip_or_cut_goes_unnoticed(bytes: Bytes) {
    let found = verified(bytes.clone()).unwrap();
    assert!(found.damages.is_empty() && found.trailer.is_some());
    for bit in 0..bytes.len() * 8 {
        // Of the block of equal bytes some are enough.
        let at = bit / 8;
        if bytes[at] == 5 && bytes[at - 1] == 5 && bytes[at + 1] == 5 && at % 97 != 0 {
            continue;
        }
        let mut bad = bytes.to_vec();
        bad[at] ^= 1 << (bit % 8);
        let strict = read(Source::Bytes(bad.clone().into()));
        assert!(strict.is_err(), "bit {bit} went unnoticed");
        match verified(bad) {
            Ok(found) => assert!(!found.damages.is_empty(), "bit {bit} is not named"),
            Err(error) => assert!(!error.to_string().is_empty() && at < 64, "bit {bit}: {error}"),
        }
    }
    for end in 0..bytes.len() {
        let cut = bytes.slice(..end);
        assert!(read(Source::Bytes(cut.clone())).is_err(), "cut at {end}");
        // What was interrupted is no save, and not a damaged one.
        let told = verified(cut.clone());
        let named = matches!(&told, Err(SetError::NoTrailer { .. } | SetError::NoSet { .. }));
        assert!(named, "cut at {end}: {told:?}");
        assert!(contents(&Source::Bytes(cut)).is_err(), "cut at {end}");
    }
    let behind = [bytes, Bytes::from_static(b"x")].concat();
    assert!(verified(behind).unwrap().damages[0].why.contains("something stands behind it"));
}

/// The offsets of the blocks of a set.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"HBsb")).collect()
}

#[test]
fn a_damaged_block_is_told_with_what_it_held_and_the_rest_is_read_on() {
    let bytes = sample("").bytes();
    let offsets = blocks(&bytes);
    let told = |at: usize| {
        let mut bad = bytes.to_vec();
        bad[at] ^= 1;
        let damages = verified(bad).unwrap().damages;
        let told: Vec<_> = damages.iter().map(|damage| (damage.block, damage.held.clone())).collect();
        assert_eq!(told.len(), 1, "{damages:?}");
        assert_eq!(damages[0].offset, offsets[usize::try_from(told[0].0).unwrap()] as u64);
        told.into_iter().next().unwrap()
    };
    let payload = |block: usize| offsets[block] + 40;
    assert_eq!(told(payload(1)), (1, "entries 4 to 5".to_owned()));
    assert_eq!(told(payload(3)), (3, "the items of app,orders behind k1, up to k2".to_owned()));
    assert_eq!(told(payload(5)), (5, "the items of app,orders behind k2".to_owned()));
    assert_eq!(told(payload(6)), (6, "the blocks of app,disk from byte 0 on".to_owned()));
    // A damaged header: what follows is found again.
    let (block, held) = told(offsets[3] + 17);
    assert_eq!(
        (block, held.as_str()),
        (3, "the items of app,orders behind k1, or entries behind 5, up to k2")
    );
}

#[test]
fn a_part_that_is_missing_or_of_another_set_and_a_file_that_is_no_set_are_refused_by_name() {
    let sample = sample("");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many");
    sample.write(Target::Dir(path.clone(), 300), Pack::None).unwrap();
    let part = |n: u32| path.join(format!("part-{n:05}.hbs"));
    let told = || verify(Source::of(&path), |_| {}).unwrap_err().to_string();
    let second = std::fs::read(part(2)).unwrap();
    std::fs::remove_file(part(2)).unwrap();
    assert!(told().contains("part 2 is missing"), "{}", told());
    std::fs::copy(part(3), part(2)).unwrap();
    assert!(told().contains("it is part 3, and part 2 was wanted"), "{}", told());
    let mut other = second.clone();
    other[16] ^= 1;
    let crc = crate::base::crc32c(&other[8..64]);
    other[4..8].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(part(2), other).unwrap();
    assert!(told().contains("it is of another set"), "{}", told());
    std::fs::write(part(2), second).unwrap();
    assert!(verify(Source::of(&path), |_| {}).unwrap().damages.is_empty());
    let text = dir.path().join("letter");
    std::fs::write(&text, "dear").unwrap();
    let error = verify(Source::of(&text), |_| {}).unwrap_err();
    assert!(error.to_string().contains("it is not a save set"), "{error}");
    let newer = [&b"HBs1"[..], &[0; 4], &[4, 0], &[0; 54]].concat();
    let crc = crate::base::crc32c(&newer[8..]);
    let newer = [&newer[..4], &crc.to_le_bytes(), &newer[8..]].concat();
    let error = verified(newer).unwrap_err();
    assert!(error.to_string().contains("version of a save set: expected 1, found 4"), "{error}");
    assert!(error.next().contains("newer one"), "{}", error.next());
}

#[test]
fn a_set_is_durable_before_its_trailer_and_with_its_name_and_every_failed_sync_is_told() {
    use crate::io::calls::{Act, assert_syncs, record};
    let sample = sample("");
    let targets: [fn(&Path) -> Target; 2] =
        [|dir| Target::File(dir.join("set")), |dir| Target::Dir(dir.join("set"), 300)];
    for target in targets {
        assert_syncs(3, |_| {}, |dir| sample.write(target(dir), Pack::None).map_err(std::io::Error::other));
        let dir = tempfile::tempdir().unwrap();
        let (written, acts) = record(None, || sample.write(target(dir.path()), Pack::None));
        written.unwrap();
        // The trailer's head, the trailer, and the footer: all before them is synced, and nothing else comes between.
        let wrote = acts.iter().enumerate().filter(|(_, act)| matches!(act, Act::Wrote(..)));
        let behind = wrote.map(|(at, _)| at).rev().nth(2).unwrap();
        assert!(matches!(acts[behind - 1], Act::Synced(_)), "{acts:?}");
    }
}

#[test]
fn a_trailer_with_another_digest_or_another_checksum_is_none() {
    let bytes = sample("").bytes();
    let trailer = verified(bytes.clone()).unwrap().trailer.unwrap();
    let at = *blocks(&bytes).last().unwrap();
    let head = BlockHeader::decode(&bytes[at..at + BLOCK_HEADER], SET).unwrap();
    let changed = |trailer: &Trailer, fits: bool| {
        let payload = trailer.encode();
        let crc = if fits { crate::base::crc32c(&payload) } else { head.crc };
        let stored = u32::try_from(payload.len()).unwrap();
        let head = BlockHeader { stored, raw: stored, crc, ..head };
        let mut set = [&bytes[..at], &head.encode(SET), &payload].concat();
        set.extend_from_slice(&crate::format::set::footer(at as u64));
        set
    };
    assert!(changed(&trailer, true) == bytes);
    let mut other = trailer.clone();
    other.digest[7] ^= 1;
    let found = verified(changed(&other, true)).unwrap();
    let why = &found.damages.first().unwrap().why;
    assert!(found.trailer.is_none() && why.contains("digest"), "{why}");
    // Who looks at the end alone is told of a checksum that does not fit.
    let error = contents(&Source::Bytes(changed(&other, false).into())).unwrap_err().to_string();
    assert!(error.contains("the trailer's checksum does not fit"), "{error}");
}

#[test]
fn what_does_not_follow_is_no_set_and_half_a_set_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set");
    let told = |change: fn(&mut Vec<Step>)| {
        let mut sample = sample("");
        change(&mut sample.steps);
        let error = sample.write(Target::File(path.clone()), Pack::None).unwrap_err().to_string();
        assert!(!path.exists(), "{error}");
        error
    };
    let lost = told(|steps| drop(steps.remove(2)));
    assert!(lost.contains("content of file"), "{lost}");
    assert!(told(|steps| drop(steps.remove(0))).contains("stands behind entry 3"));
    assert!(told(|steps| drop(steps.remove(3))).contains("stands behind entry 5"));
    assert!(told(|steps| steps.swap(0, 3)).contains("do not follow entry 3"));
    // Blocks that were read at a later state need its entries too.
    assert!(told(|steps| drop(steps.pop())).contains("ends before nothing more"));
    assert!(told(|steps| steps.truncate(5)).contains("ends before the blocks of app,disk"));
    // No room is taken beyond what the definitions say.
    let beyond = told(|steps| {
        for step in steps.iter_mut() {
            if let Step::Chunk(Chunk { content: Content::Blocks { len, .. }, .. }) = step {
                *len += 4096;
            }
        }
    });
    assert!(
        beyond.contains("which has 16,384 bytes") || beyond.contains("which has 16384 bytes"),
        "{beyond}"
    );
}

#[test]
fn a_set_of_one_account_has_no_content_of_others() {
    let mut other = sample("elsewhere");
    other.steps.retain(|step| matches!(step, Step::Batch(_)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set");
    other.write(Target::File(path.clone()), Pack::None).unwrap();
    assert!(contents(&Source::of(&path)).unwrap().trailer.files.is_empty());
    assert!(sample("elsewhere").write(Target::File(dir.path().join("two")), Pack::None).is_err());
}

#[test]
fn the_golden_set_since_another_is_byte_for_byte_what_this_version_writes() {
    let golden = include_bytes!("../../../tests/data/set-v2.hbs");
    let made = sample_since().bytes();
    assert!(made == golden[..], "it differs");
    let blocks = read(Source::Bytes(Bytes::from_static(golden))).unwrap();
    let same = blocks.iter().filter(|block| matches!(block, Block::Same(_))).count();
    assert_eq!((same, blocks.len()), (2, 7));
    assert!(matches!(&blocks[0], Block::Begin(begin) if **begin == sample_since().begin));
}

#[test]
fn sets_that_continue_each_other_are_told_from_those_that_do_not() {
    let of = |sample: &Sample| Source::Bytes(sample.bytes());
    let (full, since) = (of(&sample("")), of(&sample_since()));
    let told = |sources: &[&Source]| {
        let found: Vec<_> = sources.iter().map(|source| contents(source).unwrap()).collect();
        let named: Vec<_> = ["one", "two", "three"].map(str::to_owned).into_iter().zip(&found).collect();
        check_chain(&named).map_err(|error| error.to_string())
    };
    assert_eq!(told(&[&full]), Ok(()));
    assert_eq!(told(&[&full, &since]), Ok(()));
    let id = "07070707070707070707070707070707";
    let alone = told(&[&since]).unwrap_err();
    assert_eq!(
        alone,
        format!(
            "reading one: it holds only what changed since set {id}, which ended with entry 7 at 1970-01-01 00:00:00Z"
        )
    );
    assert!(told(&[&since, &full]).unwrap_err().contains("reading one: it holds only what changed"));
    assert!(told(&[&full, &full]).unwrap_err().contains("reading two: it holds everything"));
    assert!(told(&[&full, &since, &since]).unwrap_err().contains("reading three: it was made since set"));
    // The same number, and another content: a set that was made again.
    let mut other = sample_since();
    other.begin.base.as_mut().unwrap().digest[0] ^= 1;
    assert!(told(&[&full, &of(&other)]).unwrap_err().contains("reading two: it was made since set"));
    // Ranges that the earlier set does not hold just so.
    let whole = verify_chain(vec![full.clone(), since], |_| {}).unwrap();
    assert!(whole.iter().all(|found| found.damages.is_empty() && found.trailer.is_some()));
    let mut lies = sample_since();
    for step in &mut lies.steps {
        if let Step::Same(same) = step {
            same.hash[0] ^= 1;
        }
    }
    let found = verify_chain(vec![full, of(&lies)], |_| {}).unwrap();
    assert!(found[0].damages.is_empty());
    let why: Vec<_> = found[1].damages.iter().map(|damage| damage.why.as_str()).collect();
    assert_eq!(why[..2], ["the earlier set holds something else there"; 2], "{why:?}");
}
