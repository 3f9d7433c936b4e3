//! A node alone whose store applies what the test lets it apply.

use super::*;
use crate::base::FileId;
use crate::doors::{BlockBackend as _, IfCold, Payload, Refusal, Unread};
use crate::engine::Fetched;
use crate::engine::test_kit::{self, CLIENT, Node, PAIR, config};
use crate::engine::{ClientEvent, Effect, Event, StartState, VolumeEffect};
use crate::format::control::{Control, Role};
use crate::store::memory::MemoryStore;
use crate::store::{Fits, StoreSnapshot, Tried};
use bytes::Bytes;

/// What the door for volumes is told that writes a block.
fn write_block(node: &mut Node) -> Result<(), Refusal> {
    let file = node.engine.core.namespace.resolve(b"app,disk").unwrap();
    node.engine.core.write_blocks(file, 0, Payload::Borrowed(&[1; 512])).map(|_| ())
}

/// The items that the store was given.
fn ids(node: &Node) -> Vec<Vec<u8>> {
    let batches = node.given.iter().map(|(.., batch)| batch);
    batches
        .flat_map(|batch| batch.entries().map(|(_, entry)| entry.id.to_vec()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_store_without_room_is_told_as_that_although_more_was_given_behind_what_failed() {
    let mut bench = Node::with_waiting_store();
    assert_eq!(bench.set("1"), "+OK\r\n");
    assert_eq!(bench.set("2"), "+OK\r\n");
    assert_eq!(ids(&bench), [b"1", b"2"]);
    let (journal, round, _) = bench.given[0];
    bench.given.clear();
    // The second cannot follow the first, which is no reason of its own.
    for fault in [Fault::NoSpace, Fault::Errno(22)] {
        bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault }));
        assert_eq!(bench.engine.core.store_fault(), Some(Fault::NoSpace));
        assert!(bench.set("3").starts_with("-OOM "));
        assert_eq!(write_block(&mut bench), Err(Refusal::NoSpace));
    }
    assert!(bench.given.is_empty(), "given again at once");
    // Later both are given again, in order; fails the first again for another reason, that is told.
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!(ids(&bench), [b"1", b"2"]);
    bench.given.clear();
    for fault in [Fault::Errno(5), Fault::Errno(22)] {
        bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round: round.next(), fault }));
        assert_eq!(bench.engine.core.store_fault(), Some(Fault::Errno(5)));
        assert!(bench.set("3").starts_with("-MISCONF "));
        assert_eq!(write_block(&mut bench), Err(Refusal::DiskFailed));
    }
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!(ids(&bench), [b"1", b"2"]);
    bench.apply();
    assert_eq!(bench.set("3"), "+OK\r\n");
    assert_eq!(write_block(&mut bench), Ok(()));
    let told = bench.told.iter().map(|(kind, _)| *kind);
    let of_store: Vec<_> = told.filter(|kind| kind.starts_with("store-")).collect();
    assert_eq!(of_store, ["store-failed", "store-failed", "store-back"]);
    bench.input(Event::Tick);
    bench.apply();
    let file = bench.store.namespace().resolve(b"app,orders").unwrap();
    let ids: Vec<_> = bench.store.items(file).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [&b"1"[..], b"2", b"3"]);
}

#[test]
fn what_is_told_of_an_earlier_round_counts_for_nothing() {
    let mut bench = Node::with_waiting_store();
    bench.set("1");
    bench.set("2");
    let (journal, round, _) = bench.given[0];
    let seqs: Vec<Seq> = bench.given.drain(..).map(|(.., batch)| batch.header().last_seq()).collect();
    bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault: Fault::NoSpace }));
    // Late, before anything was given again, and again after the first of it was.
    bench.input(Event::Store(StoreEvent::Applied { journal, round, seq: seqs[1] }));
    assert!(!bench.engine.core.all_applied(journal));
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!(ids(&bench), [b"1", b"2"]);
    bench.input(Event::Store(StoreEvent::Applied { journal, round, seq: seqs[1] }));
    bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault: Fault::Errno(22) }));
    assert!(!bench.engine.core.all_applied(journal));
    assert_eq!(ids(&bench), [b"1", b"2"], "nothing is taken back");
    bench.apply();
    assert!(bench.engine.core.all_applied(journal));
    assert_eq!(bench.set("3"), "+OK\r\n");
}

/// A store in which nothing can be read.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Rotten {
    error: fn() -> crate::store::StoreError,
    /// Whether that is seen only when the disk was read.
    cold: bool,
}

impl StoreRead for Rotten {
    type Snapshot = Self;

    fn snapshot(&self) -> Self {
        *self
    }
}

fn item(core: &mut Core<Rotten>, file: FileId, id: &[u8]) -> Result<Option<Bytes>, Unread> {
    core.item(file, id, IfCold::Fetch).map(|(value, _)| value)
}

impl StoreSnapshot for Rotten {
    fn applied(&self) -> [Seq; 2] {
        [Seq(0); 2]
    }

    fn items_at_most(&self, _: FileId, _: u32) -> u64 {
        0
    }

    fn estimate(&self, _: FileId, _: u32, _: Fits) -> Result<u64, crate::store::StoreError> {
        Err((self.error)())
    }

    fn get(&self, _: FileId, _: u32, _: &[u8]) -> Result<Option<Bytes>, crate::store::StoreError> {
        Err((self.error)())
    }

    fn scan(
        &self,
        _: FileId,
        _: u32,
        _: Option<&[u8]>,
        _: usize,
        _: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, crate::store::StoreError> {
        Err((self.error)())
    }

    fn try_get(
        &self,
        file: FileId,
        generation: u32,
        id: &[u8],
    ) -> Result<Tried<Option<Bytes>>, crate::store::StoreError> {
        if self.cold { Ok(Tried::Cold) } else { self.get(file, generation, id).map(Tried::Done) }
    }
}

/// A core with the file `app,orders` on a store that fails so.
pub(in crate::engine) fn rotten(error: fn() -> crate::store::StoreError) -> (Core<Rotten>, FileId) {
    let bench = Node::with_waiting_store();
    let namespace = (*bench.store.namespace()).clone();
    let file = namespace.resolve(b"app,orders").unwrap();
    let control = Control::new(Role::Primary, PAIR);
    let start = StartState { namespace, ..test_kit::empty(control, Rotten { error, cold: false }) };
    (Core::new(config(0), start), file)
}

/// What people are told.
fn told(core: &mut Core<Rotten>) -> Vec<(&'static str, String)> {
    core.tell_damage();
    core.incidents.take_recent().into_iter().map(|incident| (incident.kind, incident.text)).collect()
}

#[test]
fn a_read_whose_fetch_failed_is_refused_with_the_reason_and_told_to_people_once() {
    use crate::store::StoreError;
    let (mut core, file) = rotten(|| unreachable!("nobody waits for the disk"));
    core.store.cold = true;
    let damaged = || StoreError::Damaged { what: "a table", why: "its checksum differs".to_owned() };
    for _ in 0..2 {
        let Err(Unread::Cold(fetch)) = item(&mut core, file, b"17") else { panic!("it is cold") };
        let asked = core.out.pop_back();
        assert!(
            matches!(asked, Some(Effect::Store(StoreEffect::Fetch { fetch: it, .. })) if it == fetch.0),
            "{asked:?}"
        );
        core.fetched(fetch.0, Err(damaged()));
        assert_eq!(core.fetches.done.pop_front(), Some(fetch));
        let refused = item(&mut core, file, b"17").unwrap_err();
        assert!(
            matches!(&refused, Unread::Refused(Refusal::Store(why)) if why.contains("its checksum differs")),
            "{refused:?}"
        );
    }
    let told = told(&mut core);
    assert!(told.len() == 1 && told[0].0 == "item-damaged", "{told:?}");
    // What nobody asks for again is forgotten, and an answer that comes twice is none.
    for n in 0..2 * crate::base::limits::FETCHES_FAILED_MAX {
        let Err(Unread::Cold(fetch)) = item(&mut core, file, &n.to_le_bytes()) else { panic!("it is cold") };
        core.fetched(fetch.0, Err(damaged()));
        core.fetched(fetch.0, Ok(Fetched::InMemory));
    }
    assert_eq!(core.fetches.kept(), [0, crate::base::limits::FETCHES_FAILED_MAX]);
}

#[test]
fn damage_of_a_stored_item_is_told_once_with_its_name_and_not_only_to_its_client() {
    use crate::store::StoreError;
    let (mut core, file) =
        rotten(|| StoreError::Damaged { what: "a table", why: "its checksum differs".to_owned() });
    for _ in 0..3 {
        assert!(matches!(item(&mut core, file, b"17"), Err(Unread::Refused(Refusal::Store(_)))));
    }
    let first = told(&mut core);
    assert!(matches!(&first[..], [("item-damaged", text)] if text.starts_with("item app,orders,17 cannot")));
    assert!(item(&mut core, file, b"17").is_err() && told(&mut core).is_empty(), "it was told");
    assert!(
        item(&mut core, file, b"18").is_err()
            && core.merged(file, Some(b"2"), 10, (false, IfCold::Fetch)).is_err()
    );
    let more = told(&mut core);
    assert!(more[0].1.contains("app,orders,18") && more[1].1.contains("of app,orders after 2"), "{more:?}");
    for n in 0..2 * crate::base::limits::DAMAGE_TOLD_MAX {
        assert!(item(&mut core, file, n.to_string().as_bytes()).is_err());
    }
    assert!(
        told(&mut core).len() < crate::base::limits::DAMAGE_TOLD_MAX,
        "whoever reads it all fills no disk"
    );
}

#[test]
fn damage_is_not_told_where_the_store_can_only_not_be_reached() {
    use crate::store::StoreError;
    let shortage = || StoreError::Disk { doing: "reading the store", fault: Fault::Errno(24) };
    let (mut core, file) = rotten(shortage);
    assert!(item(&mut core, file, b"17").is_err());
    assert_eq!(told(&mut core), []);
    let (mut core, file) = rotten(|| StoreError::Disk { doing: "reading the store", fault: Fault::Errno(5) });
    assert!(item(&mut core, file, b"17").is_err());
    assert_eq!(told(&mut core).len(), 1, "a sector that cannot be read is damage");
}

#[test]
fn damage_of_a_volume_is_told_with_its_name_and_place() {
    let mut bench = Node::with_waiting_store();
    let file = bench.engine.core.namespace.resolve(b"app,disk").unwrap();
    let read = |bench: &mut Node, result| {
        let asker = super::super::blocks::Asker::Door(1);
        bench.engine.core.begin_read(asker, file, 8192, 512).unwrap();
        let Some(Effect::Volume(VolumeEffect::Read { read, .. })) = bench.engine.core.out.pop_back() else {
            panic!("the store is asked")
        };
        bench.engine.core.volume_read(read, result);
        bench.engine.core.tell_damage();
        bench
            .engine
            .core
            .incidents
            .take_recent()
            .into_iter()
            .map(|incident| (incident.kind, incident.text))
            .collect::<Vec<_>>()
    };
    bench.engine.core.incidents.take_recent();
    assert_eq!(read(&mut bench, Err(Fault::Errno(24))), []);
    let told = read(&mut bench, Err(Fault::Errno(5)));
    assert!(matches!(&told[..], [("volume-damaged", text)] if text.contains("volume app,disk at byte 8192")));
    assert_eq!(read(&mut bench, Err(Fault::Errno(5))), [], "it was told");
}

/// Sets so many items of so many bytes, each some milliseconds after the other; the answers that are no OK.
fn sets(bench: &mut Node, count: usize, bytes: usize) -> Vec<String> {
    let value = "v".repeat(bytes);
    let mut refused = Vec::new();
    for n in 0..count {
        bench.said.clear();
        let line = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,{}\r\n${bytes}\r\n{value}\r\n", n % 10);
        bench.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
        // A client that is not read on waits for its answer.
        for _ in 0..20 {
            bench.apply();
            if bench.said.ends_with("\r\n") {
                break;
            }
            bench.now.mono = bench.now.mono.plus_ms(10);
            bench.input(Event::Tick);
        }
        let said = bench.said.clone();
        if said != "+OK\r\n" {
            refused.push(said);
        }
        bench.now.mono = bench.now.mono.plus_ms(5);
        bench.input(Event::Tick);
    }
    refused
}

#[test]
fn a_full_disk_beside_an_absent_peer_stops_nobody_at_level_local() {
    let mut bench = Node::with_waiting_store();
    bench.ills.room = Some(bench.segments.len() + 4);
    // Far below the quota; ten times what the disk has room for.
    assert_eq!(sets(&mut bench, 600, 4000), [] as [String; 0]);
    let dropped = bench.times("peer-dropped");
    assert_eq!(dropped, 1, "people are told once: {:?}", bench.told);
    let text = bench.engine.core.incidents.recent().find(|incident| incident.kind == "peer-dropped");
    assert!(text.is_some_and(|incident| incident.text.starts_with("the disk is full: ")), "{text:?}");
}

#[test]
fn a_journal_at_its_quota_stays_there_and_says_once_that_the_peer_has_lost_its_claim() {
    let mut bench = Node::with_waiting_store();
    bench.engine.core.config.quota_bytes = 4 * (64 << 10);
    let before = bench.segments.len();
    assert_eq!(sets(&mut bench, 600, 4000), [] as [String; 0]);
    assert!(bench.segments.len() <= before + 4, "{} segments", bench.segments.len());
    assert_eq!(bench.times("peer-dropped"), 1);
    let core = &bench.engine.core;
    assert!(
        core.journals[0].disk_use().0 <= 4 * (64 << 10),
        "{:?} second base {:?} {:?} pace {:?}",
        core.journals[0].disk_use(),
        core.journals[0].second_base(),
        core.checkpoint,
        core.journals[0].pace(),
    );
}

#[test]
fn a_checkpoint_that_failed_is_tried_again_after_a_moment_whoever_wants_it_at_once() {
    let mut bench = Node::with_waiting_store();
    bench.set("1");
    bench.apply();
    bench.engine.core.config.checkpoint_ms = 1 << 40;
    for fault in [Fault::NoSpace, Fault::Errno(24), Fault::Errno(5)] {
        (bench.checkpoints, bench.ills.checkpoints) = (0, Some((0, fault)));
        for round in 0..1000 {
            // A barrier and a journal at its quota ask for one in each round.
            bench.now.mono = bench.now.mono.plus_ms(1);
            bench.input(Event::Tick);
            bench.engine.core.checkpoint.want();
            let due = bench.engine.deadline();
            assert!(due.is_some_and(|due| due <= bench.now.mono.plus_ms(RETRY_MS)), "{round}: {due:?}");
        }
        assert!((4..=5).contains(&bench.checkpoints), "{fault}: {} times in a second", bench.checkpoints);
    }
    (bench.checkpoints, bench.ills.checkpoints) = (0, None);
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!((bench.checkpoints, bench.engine.core.lacks_checkpoint()), (1, false));
}

#[test]
fn a_journal_comes_back_to_its_quota_as_soon_as_one_segment_follows_what_may_go() {
    let mut bench = Node::with_waiting_store();
    bench.engine.core.config.quota_bytes = 4 * (64 << 10);
    bench.engine.core.checkpoint.want();
    bench.input(Event::Tick);
    let core = &bench.engine.core;
    assert_eq!(core.checkpoint.covered(JournalKind::Replicated), core.replicated().pace().durable);
    assert_eq!(core.replicated().second_base(), None, "all is in one segment");
    // One that is larger than the quota by itself. The store has nothing of it yet.
    let value = "v".repeat(260 << 10);
    bench.says(&format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,1\r\n${}\r\n{value}", value.len()));
    let core = &bench.engine.core;
    assert!(core.checkpoint.covered(JournalKind::Replicated) < core.replicated().pace().durable);
    assert_eq!(core.replicated().oldest(), core.replicated().pace().durable, "what was before it is gone");
}

#[test]
fn what_a_standby_has_in_memory_alone_does_not_leave_the_journal_without_a_word() {
    let mut bench = Node::with_waiting_store();
    bench.engine.core.config.quota_bytes = 4 * (64 << 10);
    // Its hello told where its journal ends; nothing of that was on its disk.
    bench.engine.core.peer.record_mut().holds = Seq(10_000);
    assert_eq!(sets(&mut bench, 600, 4000), [] as [String; 0]);
    assert_eq!(bench.times("peer-dropped"), 1);
    assert!(bench.engine.core.peer.record().apart);
}

#[test]
fn a_journal_at_its_quota_keeps_where_an_epoch_began_until_the_control_file_tells_of_it() {
    let mut bench = Node::with_waiting_store();
    let quota = 4 * (64 << 10);
    let core = &mut bench.engine.core;
    core.config.quota_bytes = quota;
    // The table was learned from the peer's batches, and a write of the control file is under way that began before.
    core.control.forget_saved_epochs();
    core.control.hang(true);
    assert_eq!(sets(&mut bench, 300, 4000), [] as [String; 0]);
    let core = &mut bench.engine.core;
    assert_eq!(core.replicated().oldest(), Seq(1), "after a crash nothing would tell of the epoch any more");
    core.control.hang(false);
    assert_eq!(sets(&mut bench, 60, 4000), [] as [String; 0]);
    let core = &bench.engine.core;
    assert!(core.control.knows_all_epochs());
    assert!(core.replicated().oldest() > Seq(1));
    assert!(core.replicated().disk_use().0 <= quota);
}

/// Makes one consumer need the oldest segment.
type Claims = fn(&mut Core<MemoryStore>);

/// A primary whose journal has more than one segment, none of which anybody needs, and none of which went so far.
fn nobody_needs_the_journal() -> Node {
    let mut bench = Node::with_waiting_store();
    bench.engine.core.peer.retain(Seq(u64::MAX));
    // While the control file is written, nothing goes.
    bench.engine.core.control.hang(true);
    assert_eq!(sets(&mut bench, 60, 4000), [] as [String; 0]);
    bench.engine.core.checkpoint.want();
    bench.input(Event::Tick);
    let core = &mut bench.engine.core;
    core.control.hang(false);
    assert!(core.replicated().oldest() == Seq(1) && core.replicated().second_base().is_some());
    bench
}

#[test]
fn a_segment_stays_for_each_of_its_consumers_alone_where_there_is_room() {
    let mut bench = nobody_needs_the_journal();
    bench.engine.core.release_journals();
    assert!(bench.engine.core.replicated().oldest() > Seq(1), "nobody needs it");
    let recorded_first: [(&str, Claims); 2] = [
        ("where an epoch began", |core| core.control.forget_saved_epochs()),
        ("what the peer has", |core| {
            core.peer.record_mut().on_disk = core.peer.saved_record().on_disk.next()
        }),
    ];
    let all: [(&str, Claims); 6] = [
        ("the store", |core| core.checkpoint.cover(Seq(0))),
        ("a role", |core| core.roles.place(crate::engine::roles::Stage::Replaying)),
        ("the peer", |core| core.peer.retain(Seq(0))),
        ("a listing", |core| {
            core.peer.retain(Seq(0));
            core.start_listing(7, 5);
            core.peer.retain(Seq(u64::MAX));
            assert!(core.listing.is_some());
        }),
        recorded_first[0],
        recorded_first[1],
    ];
    for (who, claims) in all {
        let mut bench = nobody_needs_the_journal();
        let core = &mut bench.engine.core;
        claims(core);
        core.release_journals();
        assert_eq!(core.replicated().oldest(), Seq(1), "{who} needs it");
        let written = recorded_first.iter().any(|(name, _)| *name == who);
        assert_eq!(core.control.is_being_written(), written, "{who}: the control file is written first");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_checkpoint_of_what_an_earlier_life_left_in_the_store() {
    let mut bench = Node::with_waiting_store();
    bench.set("1");
    bench.apply();
    // The store of a standby that was killed may show more than the standby may give it again so far.
    bench.engine.core.appliers.replicated_mut().show_one_more();
    assert!(bench.engine.core.lacks_checkpoint());
    bench.input(Event::Stop);
    assert!(bench.engine.core.roles.stage() == crate::engine::roles::Stage::Stopped);
    assert!(!bench.engine.core.lacks_checkpoint());
}

#[test]
fn a_store_without_room_takes_the_claim_of_an_absent_peer_for_it() {
    let mut bench = Node::with_waiting_store();
    assert_eq!(sets(&mut bench, 60, 4000), [] as [String; 0]);
    bench.engine.core.checkpoint.want();
    bench.input(Event::Tick);
    let before = bench.segments.len();
    bench.set("1");
    let (journal, round, _) = bench.given[0];
    bench.given.clear();
    bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault: Fault::NoSpace }));
    assert_eq!(bench.segments.len(), before - 1, "one segment each time");
    assert_eq!(bench.times("peer-dropped"), 1);
    // Nobody is refused meanwhile; who comes now waits.
    assert_eq!(bench.set("2"), "");
    bench.now.mono = bench.now.mono.plus_ms(ROOM_RETRY_MS);
    bench.input(Event::Tick);
    bench.apply();
    assert_eq!(bench.said, "+OK\r\n");
    // Where that does not help, people are told after all.
    bench.set("1");
    for _ in 0..200 {
        let Some((journal, round, _)) = bench.given.front().cloned() else { break };
        bench.given.clear();
        bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault: Fault::NoSpace }));
        bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
        bench.input(Event::Tick);
    }
    let refused = bench.set("3");
    assert!(refused.starts_with("-OOM "), "{refused}");
    let before = bench.segments.len();
    // What failed for another reason takes nothing.
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    let (journal, round, _) = bench.given[0];
    bench.given.clear();
    bench.input(Event::Store(StoreEvent::ApplyFailed { journal, round, fault: Fault::Errno(5) }));
    assert_eq!(bench.segments.len(), before);
}
