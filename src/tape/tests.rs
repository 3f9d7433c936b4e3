//! The rules of a writer and a reader, on a drive in memory with every fault of a real one.

use super::fake::{FakeDrive, FakeReel, Record};
use super::*;
use crate::base::limits::REEL_BLOCK_MIN;
use crate::base::{Epoch, Prng, Seq};
use crate::format::PairId;
use crate::format::reel::{ReelBlock, ReelKind, ReelLabel};
use crate::format::set::SetId;
use std::sync::{Arc, Mutex};

const SET: SetId = SetId([3; 16]);
const SESSION: SetId = SetId([4; 16]);
const SIZE: u32 = 64 << 10;
const _: () = assert!(SIZE as usize == REEL_BLOCK_MIN);

/// Reels in a row: written ones are put away, and found again by their label.
#[derive(Clone, Default)]
struct Rack(Arc<Mutex<Racked>>);

#[derive(Default)]
struct Racked {
    /// To be written to, in order.
    blank: Vec<FakeReel>,
    drives: Vec<FakeDrive>,
    refused: Vec<Refusal>,
    events: Vec<Event>,
    allowed: Allowed,
    /// What the next drives will do wrong.
    faults: Vec<fake::Faults>,
    /// Flags that drives set.
    alerts: Vec<u8>,
}

impl Rack {
    fn with(blank: Vec<FakeReel>) -> Self {
        let this = Self::default();
        {
            let mut racked = this.0.lock().unwrap();
            (racked.blank, racked.allowed.blank) = (blank, true);
        }
        this
    }

    /// Everything that is on reels, in the order in which they were written.
    fn reels(&self) -> Vec<FakeReel> {
        let racked = self.0.lock().unwrap();
        let of = |drive: &FakeDrive| {
            let state = drive.state();
            state.out.first().or(state.reel.as_ref()).cloned().expect("a reel")
        };
        racked.drives.iter().map(of).collect()
    }

    fn kept(&self) -> Vec<u64> {
        let racked = self.0.lock().unwrap();
        let kept =
            |event: &Event| if let Event::Kept(header, _) = event { Some(header.sequence) } else { None };
        racked.events.iter().filter_map(kept).collect()
    }

    fn failed(&self) -> usize {
        let racked = self.0.lock().unwrap();
        racked.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count()
    }

    fn own_marks(&self) -> u32 {
        let racked = self.0.lock().unwrap();
        racked.drives.iter().map(|drive| drive.state().own_marks).sum()
    }

    fn catalogue(&self) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for event in &self.0.lock().unwrap().events {
            match event {
                Event::Began(header, label) => catalogue.set_mut(SET, label).note_label(header, label),
                Event::Kept(header, position) => {
                    catalogue.set_mut(SET, &label()).note_block(header, *position);
                }
                Event::Full { trailer: Some(trailer), .. } => {
                    catalogue.set_mut(SET, &label()).note_block(trailer, 0);
                }
                Event::Full { .. } | Event::Failed { .. } | Event::Alerts(_) => {}
            }
        }
        catalogue
    }
}

impl Shelf for Rack {
    fn mount(&mut self, want: &Want) -> Result<(Box<dyn Drive>, Found), ShelfError> {
        let missing = |why: &str| ShelfError::Missing {
            what: format!("reel {} of set {}", want.reel, want.set),
            why: why.to_owned(),
        };
        let mut racked = self.0.lock().unwrap();
        let candidates: Vec<FakeReel> = match want.purpose {
            Purpose::Write => std::mem::take(&mut racked.blank),
            _ => {
                drop(racked);
                let reels = self.reels();
                racked = self.0.lock().unwrap();
                reels
            }
        };
        for (at, reel) in candidates.iter().enumerate() {
            let mut drive = FakeDrive::with(reel.clone());
            drive.state().alerts.clone_from(&racked.alerts);
            let (found, protected) = identify(&mut drive).unwrap();
            match judge(&found, protected, want, racked.allowed) {
                Err(refusal) => racked.refused.push(refusal),
                Ok(()) => {
                    if want.purpose == Purpose::Write {
                        racked.blank = candidates[at + 1..].to_vec();
                        if !racked.faults.is_empty() {
                            drive.state().faults = racked.faults.remove(0);
                        }
                        racked.drives.push(drive.clone());
                    }
                    return Ok((Box::new(drive), found));
                }
            }
        }
        Err(missing("none is left"))
    }

    fn tell(&mut self, event: &Event) {
        self.0.lock().unwrap().events.push(event.clone());
    }
}

fn label() -> ReelLabel {
    ReelLabel {
        pair: PairId([9; 16]),
        epoch: Epoch(1),
        seq: Seq(5),
        wall_ms: 7,
        block_size: SIZE,
        key: 0,
        name: "test".to_owned(),
        node: "a".to_owned(),
    }
}

fn order() -> WriteOrder {
    WriteOrder { set: SET, session: SESSION, label: label(), cap: None, unflushed: 5 * u64::from(SIZE) }
}

fn stream(len: usize) -> Vec<u8> {
    let mut prng = Prng::new(5);
    (0..len).map(|_| prng.next_u64().to_le_bytes()[0]).collect()
}

/// Writes a stream as one session.
fn write<S: Shelf>(
    mut writer: SpanWriter<S>,
    session: SetId,
    bytes: &[u8],
    key: Option<SessionKey>,
) -> Result<S, SpanError> {
    let mut packer = Packer::new((SET, session), writer.next(), SIZE, key);
    let mut rest = bytes;
    while let Some(block) = packer.push(&mut rest) {
        writer.put(block)?;
    }
    let (last, end) = packer.finish();
    for block in last.into_iter().chain([end]) {
        writer.put(block)?;
    }
    writer.flush(1)?;
    Ok(writer.close())
}

fn locate(catalogue: &Catalogue) -> Box<dyn Fn(u64) -> Option<(u32, u64)> + Send> {
    let set = catalogue.set(SET).cloned();
    Box::new(move |at| set.as_ref()?.locate(at).map(|(reel, position)| (reel.number, position)))
}

/// Reads a session back, by its catalogue or without one.
fn read(
    rack: &Rack,
    wanted: std::ops::Range<u64>,
    by: Option<&Catalogue>,
    lenient: bool,
) -> Result<(Vec<u8>, Vec<Loss>), ReadError> {
    let find = by.map_or_else(|| Box::new(|_| None) as Box<dyn Fn(u64) -> _ + Send>, locate);
    let mut reader = SpanReader::new(rack.clone(), SET, wanted, find, lenient);
    let mut bytes = Vec::new();
    while let Some(header) = reader.next_block()? {
        if header.kind == ReelKind::Data {
            bytes.extend_from_slice(reader.payload());
        }
    }
    Ok((bytes, reader.losses().to_vec()))
}

/// All blocks are there once, in order, whatever happened.
#[track_caller]
fn holds(rack: &Rack, bytes: &[u8]) {
    let catalogue = rack.catalogue();
    let save = &catalogue.sets[0].saves[0];
    assert!(save.bytes.is_some(), "it is complete");
    let expected: Vec<u64> = (0..save.next).collect();
    assert_eq!(rack.kept(), expected, "each block counts once, in order");
    for by in [None, Some(&catalogue)] {
        let (found, losses) = read(rack, 0..save.next, by, false).unwrap();
        assert!(losses.is_empty() && found == bytes, "{losses:?}, {} of {}", found.len(), bytes.len());
    }
}

fn reels(count: usize, warn_at: usize, end_at: usize) -> Vec<FakeReel> {
    vec![FakeReel { warn_at, end_at, ..FakeReel::default() }; count]
}

#[test]
fn a_stream_goes_over_reels_at_early_warning_and_each_says_where_it_goes_on() {
    let bytes = stream(40 * SIZE as usize);
    let rack = Rack::with(reels(6, 12 * SIZE as usize, 15 * SIZE as usize));
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    holds(&rack, &bytes);
    let reels = rack.reels();
    assert_eq!(reels.len(), 4);
    for (at, reel) in reels.iter().enumerate() {
        let block = |record: &Record| match record {
            Record::Block(bytes) => Some(ReelBlock::decode(bytes).unwrap().0),
            _ => None,
        };
        let blocks: Vec<ReelBlock> = reel.records.iter().filter_map(block).collect();
        assert_eq!((blocks[0].kind, blocks[0].reel as usize), (ReelKind::Label, at + 1));
        let ends = blocks.iter().any(|block| block.kind == ReelKind::ReelEnd);
        assert_eq!(ends, at < 3, "a full reel ends with a trailer");
    }
    assert_eq!((rack.own_marks(), rack.failed()), (0, 0));
}

#[test]
fn a_hard_end_without_a_warning_and_without_room_for_a_trailer_loses_nothing() {
    let bytes = stream(40 * SIZE as usize);
    for end in [8, 9, 13] {
        // The trailer is short: it does not fit only where no byte is left.
        let end_at = end * SIZE as usize + crate::base::limits::REEL_LABEL;
        let rack = Rack::with(reels(8, 0, end_at));
        write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
        holds(&rack, &bytes);
    }
}

#[test]
fn whichever_write_fails_late_early_or_by_a_reset_every_block_counts_once() {
    let bytes = stream(20 * SIZE as usize);
    for at in 0..20 {
        for fault in ["write", "deferred", "reset"] {
            let rack = Rack::with(reels(5, 0, 0));
            let faults = match fault {
                "write" => fake::Faults { write: Some(at), ..fake::Faults::default() },
                "deferred" => fake::Faults { deferred: Some(at), ..fake::Faults::default() },
                _ => fake::Faults { reset: Some((at, true)), ..fake::Faults::default() },
            };
            rack.0.lock().unwrap().faults = vec![faults];
            let written = write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None);
            assert!(written.is_ok(), "{fault} at {at}: {:?}", written.err());
            holds(&rack, &bytes);
            assert_eq!((rack.failed(), rack.own_marks()), (1, 0), "{fault} at {at}");
        }
    }
}

#[test]
fn a_reset_that_only_another_program_saw_is_found_by_the_position_before_anything_counts() {
    let bytes = stream(20 * SIZE as usize);
    for at in 0..20 {
        let rack = Rack::with(reels(5, 0, 0));
        rack.0.lock().unwrap().faults =
            vec![fake::Faults { reset: Some((at, false)), ..fake::Faults::default() }];
        match write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None) {
            // Nothing on it counted yet: all is on the other reels. Else the beginning of the reel is overwritten, and it says so.
            Ok(_) => {
                // Of the very first write it takes nothing away.
                assert_eq!(rack.failed(), usize::from(at > 0), "at {at}");
                holds(&rack, &bytes);
            }
            Err(SpanError::Lost { reel: 1, fault: Fault::Moved { .. }, why }) => {
                assert!(at > 5 && why.contains("label"), "at {at}: {why}");
            }
            Err(error) => panic!("at {at}: {error}"),
        }
    }
}

#[test]
fn wherever_reels_end_and_whatever_fails_on_them_every_block_counts_once() {
    let bytes = stream(24 * SIZE as usize);
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let mut below = |bound: u64| usize::try_from(prng.below(bound)).unwrap();
        let mut blank = reels(40, 0, 0);
        for reel in &mut blank {
            reel.end_at = (4 + below(9)) * SIZE as usize + below(1 << 16);
            // Some drives warn, and some of those too late for a trailer.
            reel.warn_at = if below(3) == 0 { 0 } else { reel.end_at - below(2 << 17).min(reel.end_at) };
        }
        let faults = (0..40).map(|_| {
            let at = Some(u32::try_from(below(14)).unwrap());
            match below(8) {
                0 => fake::Faults { write: at, ..fake::Faults::default() },
                1 => fake::Faults { deferred: at, ..fake::Faults::default() },
                2 => fake::Faults { reset: at.map(|at| (at, true)), ..fake::Faults::default() },
                _ => fake::Faults::default(),
            }
        });
        let rack = Rack::with(blank);
        rack.0.lock().unwrap().faults = faults.collect();
        match write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None) {
            Ok(_) => holds(&rack, &bytes),
            // Three in a row may well fail here.
            Err(SpanError::GivenUp { .. }) => assert!(rack.failed() >= 3, "seed {seed}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert_eq!(rack.own_marks(), 0, "seed {seed}");
    }
}

#[test]
fn a_flush_that_fails_takes_what_it_did_not_keep_to_the_next_reel() {
    let bytes = stream(20 * SIZE as usize);
    let rack = Rack::with(reels(5, 0, 0));
    rack.0.lock().unwrap().faults = vec![fake::Faults { flush: true, ..fake::Faults::default() }];
    // The first flush is that of the label.
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    holds(&rack, &bytes);
    assert_eq!(rack.failed(), 1);
}

#[test]
fn reels_that_take_nothing_are_given_up_after_three() {
    let rack = Rack::with(reels(9, 0, 40 << 10));
    let error = write(SpanWriter::new(rack.clone(), order()), SESSION, &stream(1 << 20), None).err();
    assert!(matches!(error, Some(SpanError::GivenUp { fault: Fault::NoSpace, .. })), "{error:?}");
    assert_eq!(rack.reels().len(), 3);
}

#[test]
fn a_size_cap_ends_a_reel_as_its_end_does() {
    let bytes = stream(40 * SIZE as usize);
    let rack = Rack::with(reels(9, 0, 0));
    let cap = Some(10 * u64::from(SIZE));
    write(SpanWriter::new(rack.clone(), WriteOrder { cap, ..order() }), SESSION, &bytes, None).unwrap();
    holds(&rack, &bytes);
    let reels = rack.reels();
    assert_eq!(reels.len(), 5);
    assert!(reels.iter().all(|reel| reel.bytes() <= 10 * SIZE as usize));
}

#[test]
fn only_reels_that_may_be_written_to_are_and_each_other_one_is_named() {
    let ours = |reel, set| FakeReel {
        records: vec![Record::Block(
            Block::label(set, reel, (0, crate::base::Chain(0)), &label()).on_reel(reel).to_vec(),
        )],
        ..FakeReel::default()
    };
    let foreign = FakeReel { records: vec![Record::Block(b"VOL1ABCDEF".to_vec())], ..FakeReel::default() };
    let protected = FakeReel { protected: true, ..FakeReel::default() };
    let mut blank_damaged = foreign.clone();
    blank_damaged.records = vec![Record::Bad, Record::Mark];
    let shown = vec![
        ours(1, SetId([8; 16])),
        foreign,
        protected,
        blank_damaged,
        FakeReel::default(),
        ours(0, SetId([0; 16])),
    ];
    let rack = Rack::with(shown.clone());
    rack.0.lock().unwrap().allowed = Allowed::default();
    let bytes = stream(10);
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    let told: Vec<String> = rack.0.lock().unwrap().refused.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    for (told, word) in
        told.iter().zip(["another one", "VOL1", "nothing is written", "cannot be read", "nothing is written"])
    {
        assert!(told.contains(word), "{told}");
    }
    // With the operator's word the first one is taken, and of a protected one nothing is written.
    let rack = Rack::with(vec![shown[2].clone(), shown[1].clone()]);
    rack.0.lock().unwrap().allowed = Allowed { blank: true, relabel: true };
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    assert_eq!(rack.0.lock().unwrap().refused, [Refusal::Protected]);
    holds(&rack, &bytes);
    // The set's own reels are never overwritten by it.
    let want = Want { set: SET, reel: 2, purpose: Purpose::Write, why: String::new() };
    let (found, _) = identify(&mut FakeDrive::with(ours(1, SET))).unwrap();
    let refused = judge(&found, false, &want, Allowed { blank: true, relabel: true });
    assert_eq!(refused, Err(Refusal::Wrong { found: 1, wanted: 2 }));
    // What was labelled and holds nothing more is told from what holds something.
    for (marks, block, alone) in [(1, None, true), (0, None, true), (1, Some([7; 4096]), false)] {
        let mut drive = FakeDrive::with(FakeReel::default());
        let mut label = Block::label(SET, 2, (0, crate::base::Chain::default()), &label());
        drive.write(label.on_reel(2)).unwrap();
        drive.marks(marks).unwrap();
        if let Some(block) = block {
            drive.write(&block).unwrap();
            drive.marks(0).unwrap();
        }
        let (found, _) = identify(&mut drive).unwrap();
        assert!(matches!(found, Found::Labelled(_)), "{found:?}");
        assert_eq!(is_label_alone(&mut drive), Ok(alone), "{marks} marks, {}", block.is_some());
    }
}

#[test]
fn sessions_follow_each_other_on_one_reel_whatever_the_last_writer_left_at_its_end() {
    let (first, second) = (stream(7 * SIZE as usize), stream(9 * SIZE as usize + 5));
    for left in ["nothing", "a torn block", "two marks", "an unfinished session"] {
        let rack = Rack::with(reels(1, 0, 0));
        write(SpanWriter::new(rack.clone(), order()), SESSION, &first, None).unwrap();
        let drive = rack.0.lock().unwrap().drives[0].clone();
        let end = drive.state().reel.as_ref().unwrap().records.len();
        match left {
            "a torn block" => drive.state().reel.as_mut().unwrap().records.push(Record::Bad),
            "two marks" => drive.state().reel.as_mut().unwrap().records.extend([Record::Mark, Record::Mark]),
            "an unfinished session" => drive.state().reel.as_mut().unwrap().records.truncate(end - 4),
            _ => {}
        }
        let mut mounted = drive.clone();
        let (Found::Labelled(found), _) = identify(&mut mounted).unwrap() else { panic!("no label") };
        let tail = find_tail(&mut mounted, &found.0).unwrap();
        let session = SetId([5; 16]);
        let next = WriteOrder { session, ..order() };
        write(SpanWriter::resume(rack.clone(), next, Box::new(mounted), &tail), session, &second, None)
            .unwrap();
        let torn = drive.state().reel.as_ref().unwrap().records.contains(&Record::Bad);
        assert!(!torn, "{left}: it is written over, or no one could read past it");
        let catalogue = rack.catalogue();
        let save = catalogue.save(None).unwrap().1;
        assert_eq!((save.id.as_str(), save.first), (session.to_string().as_str(), tail.next.0), "{left}");
        let (found, _) = read(&rack, save.first..save.next, Some(&catalogue), false).unwrap();
        assert!(found == second, "{left}");
        let wanted = if left == "an unfinished session" { 6 } else { 9 };
        assert_eq!(tail.next.0, wanted, "{left}");
    }
}

#[test]
fn a_block_is_proven_only_by_itself_at_its_place() {
    let rack = Rack::with(reels(1, 0, 0));
    write(SpanWriter::new(rack.clone(), order()), SESSION, &stream(5 * SIZE as usize), None).unwrap();
    let mut drive = rack.0.lock().unwrap().drives[0].clone();
    let kept: Vec<(u64, u64)> = {
        let racked = rack.0.lock().unwrap();
        let places = racked.events.iter().filter_map(|event| match event {
            Event::Kept(header, position) => Some((header.sequence, *position)),
            _ => None,
        });
        places.collect()
    };
    assert!(kept.len() > 4, "{kept:?}");
    for (sequence, position) in &kept {
        for (other, _) in &kept {
            assert_eq!(span::proven(&mut drive, *other, *position).is_ok(), other == sequence, "{position}");
        }
    }
    assert!(span::proven(&mut drive, kept[0].0, 1).is_err(), "a filemark");
}

#[test]
fn what_cannot_be_read_is_named_with_its_reel_and_its_blocks_and_the_rest_is_read() {
    let bytes = stream(30 * SIZE as usize);
    let rack = Rack::with(reels(4, 12 * SIZE as usize, 0));
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    let catalogue = rack.catalogue();
    let all = 0..catalogue.sets[0].saves[0].next;
    let second = rack.0.lock().unwrap().drives[1].clone();
    let first_of_second = catalogue.sets[0].reels[1].first;
    second.state().out[0].records[4] = Record::Bad;
    let error = read(&rack, all.clone(), Some(&catalogue), false).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("reel 2, position 4, block {} of the set", first_of_second + 2)),
        "{error}"
    );
    let (found, losses) = read(&rack, all.clone(), None, true).unwrap();
    assert_eq!(
        (losses.len(), losses[0].first, losses[0].next - losses[0].first),
        (1, first_of_second + 2, 1)
    );
    assert!(found.len() > 28 * SIZE as usize && found.len() < bytes.len());
    // A reel that is gone.
    rack.0.lock().unwrap().drives.remove(1);
    let error = read(&rack, all.clone(), Some(&catalogue), false).unwrap_err().to_string();
    assert!(error.contains("reel 2 of set"), "{error}");
    let (_, losses) = read(&rack, all, Some(&catalogue), true).unwrap();
    let reel = &catalogue.sets[0].reels[1];
    assert_eq!((losses[0].reel, losses[0].first, losses[0].next), (2, reel.first, reel.next), "{losses:?}");
}

#[test]
fn a_reel_of_another_history_with_the_same_numbers_is_not_taken_for_the_next_one() {
    let rack = Rack::with(reels(4, 12 * SIZE as usize, 0));
    write(SpanWriter::new(rack.clone(), order()), SESSION, &stream(30 * SIZE as usize), None).unwrap();
    let other = Rack::with(reels(4, 12 * SIZE as usize, 0));
    let mut bytes = stream(30 * SIZE as usize);
    bytes[7] ^= 1;
    write(SpanWriter::new(other.clone(), order()), SESSION, &bytes, None).unwrap();
    let swapped = other.0.lock().unwrap().drives[1].clone();
    rack.0.lock().unwrap().drives[1] = swapped;
    let all = 0..rack.catalogue().sets[0].saves[0].next;
    let error = read(&rack, all, None, false).unwrap_err().to_string();
    assert!(error.contains("reel 2") && error.contains("another history"), "{error}");
}

#[test]
fn an_encrypted_block_opens_with_its_key_alone_and_only_as_it_was_written() {
    let key = Key::parse(&"0123456789abcdef".repeat(4)).unwrap();
    let other = Key::parse(&"1123456789abcdef".repeat(4)).unwrap();
    assert_ne!(key.id(), other.id());
    assert!(Key::parse("0123").is_err() && Key::parse(&"g".repeat(64)).is_err());
    assert_eq!(format!("{key:?}"), "Key(..)");
    let bytes = stream(3 * SIZE as usize);
    let rack = Rack::with(reels(1, 0, 0));
    let sealing = key.of_session(SESSION);
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, Some(sealing)).unwrap();
    let mut reader = SpanReader::new(rack, SET, 0..4, Box::new(|_| None), false);
    let mut opened = Vec::new();
    while let Some(mut header) = reader.next_block().unwrap() {
        if header.kind == ReelKind::Data {
            assert!(header.sealed && !bytes.windows(32).any(|part| reader.payload().starts_with(part)));
            let session = key.of_session(SESSION);
            opened.extend(session.open(&header, reader.payload()).unwrap());
            assert!(other.of_session(SESSION).open(&header, reader.payload()).is_none());
            assert!(key.of_session(SET).open(&header, reader.payload()).is_none());
            header.reel += 1;
            assert!(session.open(&header, reader.payload()).is_some(), "it may stand on any reel");
            header.first += 1;
            header.last += 1;
            assert!(session.open(&header, reader.payload()).is_none(), "but in no other place");
        }
    }
    assert!(opened == bytes);
}

#[test]
fn flags_of_a_drive_are_asked_for_at_the_end_of_each_reel_and_after_each_error_when_nothing_waits_to_be_told()
{
    let bytes = stream(20 * SIZE as usize);
    let rack = Rack::with(reels(6, 8 * SIZE as usize, 11 * SIZE as usize));
    {
        let mut racked = rack.0.lock().unwrap();
        racked.alerts = vec![20];
        racked.faults = vec![fake::Faults { deferred: Some(2), ..fake::Faults::default() }];
    }
    write(SpanWriter::new(rack.clone(), order()), SESSION, &bytes, None).unwrap();
    let asked = |rack: &Rack| {
        let racked = rack.0.lock().unwrap();
        let order = racked.events.iter().filter_map(|event| match event {
            Event::Alerts(flags) => Some(format!("{flags:?}")),
            Event::Full { reel, .. } => Some(format!("full {reel}")),
            Event::Failed { reel, .. } => Some(format!("failed {reel}")),
            _ => None,
        });
        order.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked(&rack), "[20] failed 1 full 2 [20] full 3 [20]");
    holds(&rack, &bytes);
    // Of a reel with a block that cannot be read, too.
    rack.0.lock().unwrap().events.retain(|event| !matches!(event, Event::Alerts(_)));
    let catalogue = rack.catalogue();
    let next = catalogue.sets[0].saves[0].next;
    {
        let racked = rack.0.lock().unwrap();
        racked.drives[1].state().out[0].records[3] = Record::Bad;
    }
    read(&rack, 0..next, Some(&catalogue), true).unwrap();
    let told = rack.0.lock().unwrap().events.iter().filter(|event| matches!(event, Event::Alerts(_))).count();
    assert!(told >= 2, "{told}");
}
