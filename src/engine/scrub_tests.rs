//! Scrubs of a node that serves one volume, and what is told of it, while nobody reads.

use super::super::blocks::tests::{DISK, core};
use super::*;
use crate::doors::{BlockBackend as _, Payload};
use crate::engine::Effect;
use crate::engine::admin::{AdminAnswer, AdminReply};
use crate::store::memory::MemoryStore;
use crate::store::volumes::{BadPlace, Wrong};

const SIZE: u64 = 1 << 30;

fn scrubbed() -> Core<MemoryStore> {
    let mut core = core();
    core.now.wall_ms = 1_000_000_000;
    core.scrub_event(ScrubEvent::Found { record: ScrubRecord::default() });
    core
}

/// What came out: parts begun (job, where), stops, records kept, answers, incidents.
#[derive(Debug, Default)]
struct Out {
    begun: Vec<(u64, (FileId, u64), u64)>,
    stops: usize,
    kept: Vec<ScrubRecord>,
    replies: Vec<AdminReply>,
    told: Vec<(&'static str, String)>,
}

fn pump(core: &mut Core<MemoryStore>) -> Out {
    core.pump_scrub();
    let mut out = Out::default();
    while let Some(effect) = core.out.pop_front() {
        match effect {
            Effect::Scrub(ScrubEffect::Begin { job, part, rate, .. }) => {
                out.begun.push((job, part.place(), rate));
            }
            Effect::Scrub(ScrubEffect::Stop) => out.stops += 1,
            Effect::Scrub(ScrubEffect::Keep { bytes }) => {
                out.kept.push(ScrubRecord::decode(&bytes).expect("as encoded"));
            }
            Effect::Admin { reply, .. } => out.replies.push(reply),
            Effect::Incident(incident) => out.told.push((incident.kind, incident.text)),
            _ => {}
        }
    }
    out
}

fn done(core: &mut Core<MemoryStore>, job: u64) -> Out {
    core.scrub_event(ScrubEvent::Done { job, read: 100, result: Ok(true) });
    pump(core)
}

/// All that was to be kept is.
fn kept(core: &mut Core<MemoryStore>) {
    for _ in 0..core.scrubs.keeping {
        core.scrub_event(ScrubEvent::Kept);
    }
}

#[test]
fn a_scrub_reads_volumes_then_items_and_says_how_far_it_is_and_what_came_of_it() {
    let mut core = scrubbed();
    core.scrub(1, &Wanted { rate: Some(7), ..Wanted::default() });
    let out = pump(&mut core);
    assert!(matches!(&out.replies[..], [AdminReply::Ok { value: AdminAnswer::Scrub(view) }] if view.running));
    let [(job, place, rate)] = out.begun[..] else { panic!("{out:?}") };
    assert_eq!((place, rate), ((DISK, 0), 7));
    // A second one waits for no end.
    core.scrub(2, &Wanted::default());
    assert!(matches!(&pump(&mut core).replies[..], [AdminReply::No { .. }]));
    core.now.mono = core.now.mono.plus_ms(2000);
    core.scrub_event(ScrubEvent::Progress { job, at: SIZE / 4, of: SIZE, read: 50 });
    let view = core.scrub_view();
    assert_eq!((view.done, view.total, view.read, view.seconds_left), (SIZE / 4, SIZE, 50, Some(6.0)));
    let place = BadPlace { file: DISK, offset: 8192, len: 4096, wrong: Wrong::Content };
    core.volumes_wrong(&[place]);
    let out = done(&mut core, job);
    assert_eq!(out.told[0].0, "volume-damaged");
    let [(items, (file, _), _)] = out.begun[..] else { panic!("{out:?}") };
    assert!(file > DISK, "the items come last");
    core.now.wall_ms += 5000;
    let out = done(&mut core, items);
    assert_eq!(out.told.last().map(|(kind, _)| *kind), Some("scrubbed"));
    let record = out.kept.last().copied().expect("it is kept");
    assert_eq!((record.ended_ms, record.wrong, record.file), (1_000_005_000, 1, FileId(0)));
    // Nobody hears of the end before it is kept.
    assert!(core.scrub_view().running);
    kept(&mut core);
    assert!(!core.scrub_view().running);
    let end = core.scrub_view().end.expect("it has ended");
    assert_eq!((end.what.as_str(), end.wrong, end.read, end.stopped), ("everything", 1, 250, false));
}

#[test]
fn a_scrub_is_due_some_days_after_the_last_one_and_goes_on_where_a_stop_of_the_node_left_it() {
    let mut core = scrubbed();
    assert_eq!(core.scrub_deadline(), Some(Mono(SCRUB_FIRST_MS * 1000)), "none was made yet");
    let ended_ms = core.now.wall_ms;
    core.scrub_event(ScrubEvent::Found { record: ScrubRecord { ended_ms, ..ScrubRecord::default() } });
    assert_eq!(core.scrub_deadline(), Some(Mono(7 * DAY_MS * 1000)));
    // A wall clock that was set back makes it no later than that.
    core.now.wall_ms = 5;
    assert_eq!(core.scrub_deadline(), Some(Mono(7 * DAY_MS * 1000)));
    core.config.scrub_every_days = 0;
    assert_eq!(core.scrub_deadline(), None);
    core.config.scrub_every_days = 7;
    core.now.mono = Mono(7 * DAY_MS * 1000);
    core.now.wall_ms = ended_ms + 7 * DAY_MS;
    let [(job, place, rate)] = pump(&mut core).begun[..] else { panic!("it is due") };
    assert_eq!((place, rate), ((DISK, 0), core.config.scrub_rate));
    core.now.mono = core.now.mono.plus_ms(SCRUB_KEEP_MS);
    core.scrub_event(ScrubEvent::Progress { job, at: 4 << 20, of: SIZE, read: 9 });
    core.stopping = true;
    let out = pump(&mut core);
    assert_eq!(out.stops, 1);
    let kept = *out.kept.last().expect("where it is");
    assert_eq!((kept.file, kept.offset, kept.read), (DISK, 4 << 20, 9));
    let mut next = core_with(kept);
    assert_eq!(next.scrub_deadline(), Some(Mono(SCRUB_FIRST_MS * 1000)));
    next.now.mono = Mono(SCRUB_FIRST_MS * 1000);
    let [(job, place, _)] = pump(&mut next).begun[..] else { panic!("it goes on") };
    assert_eq!(place, (DISK, 4 << 20));
    let out = done(&mut next, job);
    done(&mut next, out.begun[0].0);
    assert_eq!(next.scrub_view().end.expect("ended").read, 209);
}

fn core_with(record: ScrubRecord) -> Core<MemoryStore> {
    let mut core = core();
    core.scrub_event(ScrubEvent::Found { record });
    core
}

#[test]
fn a_scrub_that_an_operator_stops_ends_and_does_not_begin_again_by_itself() {
    let mut core = scrubbed();
    core.stop_scrub(1);
    assert!(matches!(&pump(&mut core).replies[..], [AdminReply::No { .. }]), "there is none");
    core.now.mono = Mono(SCRUB_FIRST_MS * 1000);
    let [(job, ..)] = pump(&mut core).begun[..] else { panic!("it is due") };
    core.stop_scrub(2);
    let out = pump(&mut core);
    assert_eq!((out.stops, out.begun.len()), (1, 0));
    core.scrub_event(ScrubEvent::Done { job, read: 5, result: Ok(false) });
    assert!(pump(&mut core).begun.is_empty());
    assert!(core.scrub_view().end.expect("ended").stopped);
    assert_eq!(core.scrub_deadline(), Some(core.now.mono.plus_ms(7 * DAY_MS)));
    // What is told late of a part that is over counts for nothing.
    core.scrub_event(ScrubEvent::Done { job, read: 5, result: Ok(true) });
    kept(&mut core);
    assert!(!core.scrub_view().running);
}

#[test]
fn a_damaged_block_is_told_once_with_its_place_until_it_is_written_anew() {
    let mut core = scrubbed();
    let place = |block: u64, wrong| BadPlace { file: DISK, offset: block * BLOCK_U64, len: BLOCK_U64, wrong };
    core.volumes_wrong(&[place(2, Wrong::Content)]);
    core.volumes_wrong(&[place(2, Wrong::Content)]);
    let told = pump(&mut core).told;
    let [(kind, text)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*kind, "volume-damaged");
    for part in ["acc,disk", "bytes 8192 to 12287", "file 11, part 0, blocks 2 to 2", "entries 1 to"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    core.volumes_wrong(&[place(3, Wrong::Checksum)]);
    assert_eq!(pump(&mut core).told.len(), 1, "another block");
    assert_eq!(core.status(0).troubles.len(), 1);
    let write = |core: &mut Core<MemoryStore>, offset: u64, len: usize| {
        core.write_blocks(DISK, offset, Payload::Borrowed(&vec![7; len])).expect("there is room");
        pump(core).told
    };
    assert!(write(&mut core, 2 * BLOCK_U64, 4096).is_empty(), "one is left");
    assert!(write(&mut core, 3 * BLOCK_U64 + 1, 4095).is_empty(), "a part of it makes it no whole one");
    let told = write(&mut core, 0, 8 * 4096);
    assert_eq!(told.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["volume-whole"]);
    assert!(core.status(0).troubles.is_empty());
    core.volumes_wrong(&[place(2, Wrong::Content)]);
    assert_eq!(pump(&mut core).told[0].0, "volume-damaged", "a second time like the first");
    // Of a file that is gone nothing is told.
    let gone = BadPlace { file: FileId(99), ..place(1, Wrong::Content) };
    core.volumes_wrong(&[gone]);
    assert!(pump(&mut core).told.is_empty());
    // What was mended is a notice, lost checksums last until they are made again.
    core.volumes_wrong(&[place(5, Wrong::Mended), place(6, Wrong::AllChecksums)]);
    let kinds: Vec<_> = pump(&mut core).told.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["checksum-mended", "checksums-lost"]);
    assert_eq!(core.status(0).troubles.len(), 2);
}
