//! A node alone on a disk that can refuse, and what it tells and answers then.

use super::*;
use crate::base::limits::{UNWRITTEN_MS, WRITE_HANGS_MS};
use crate::engine::admin::{AdminReply, AdminRequest, Status};
use crate::engine::test_kit::{self, BLOCKER, CLIENT, Node};
use crate::engine::{ClientDoor, ClientEvent, EngineConfig, Event, Tls};
use std::ops::{Deref, DerefMut};

fn config(ack_level: AckLevel, on_peer_loss: PeerLoss) -> EngineConfig {
    EngineConfig { ack_level, on_peer_loss, ..test_kit::config(0) }
}

struct Bench(Node);

impl Deref for Bench {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.0
    }
}

impl Bench {
    fn serving(config: EngineConfig) -> Self {
        Self(Node::serving(config))
    }

    /// A client is there again.
    fn opens(&mut self) {
        self.0.closed.clear();
        self.0.opens(CLIENT);
    }

    /// Whether the node has ended the connection of a client.
    fn has_closed(&self) -> bool {
        self.closed.contains(&CLIENT) || self.closed.contains(&BLOCKER)
    }

    /// State, reason, what to do.
    #[track_caller]
    fn tells(&mut self) -> Status {
        self.status()
    }

    /// How often an incident was told.
    fn told(&self, kind: &str) -> usize {
        self.times(kind)
    }

    fn set(&mut self, value: usize) -> String {
        self.said.clear();
        let line = format!("SET app,orders,1 {}\r\n", "x".repeat(value));
        self.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
        self.said.clone()
    }

    /// Sets items until one is refused although what can make room has done so, with what it is told.
    #[track_caller]
    fn fills(&mut self) -> String {
        for _ in 0..1000 {
            if self.set(4000) != "+OK\r\n" {
                self.pass(300);
                let told = self.set(4000);
                if told != "+OK\r\n" {
                    return told;
                }
            }
        }
        panic!("it is full one day");
    }

    /// A client of a volume that has chosen it.
    fn opens_volume(&mut self) {
        self.input(Event::Client(ClientEvent::Opened {
            conn: BLOCKER,
            door: ClientDoor::Blocks { tls: Tls::Off },
        }));
        // Fixed newstyle without zeros, then the export by name.
        let mut hello = 3_u32.to_be_bytes().to_vec();
        hello.extend_from_slice(b"IHAVEOPT\0\0\0\x01\0\0\0\x08app/disk");
        self.blocks(hello);
    }

    fn blocks(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.told_blocks.clear();
        self.input(Event::Client(ClientEvent::Bytes { conn: BLOCKER, bytes }));
        self.told_blocks.clone()
    }

    fn pass(&mut self, ms: u64) {
        self.passes(ms);
    }
}

fn alone() -> Bench {
    Bench::serving(config(AckLevel::Local, PeerLoss::Block))
}

#[test]
fn a_status_says_what_an_update_is_answered_whatever_of_the_disk_refuses() {
    for (fault, word, code) in [
        (Fault::NoSpace, "no-space", "-OOM "),
        (Fault::Errno(EROFS), "read-only", "-MISCONF "),
        (Fault::Errno(EMFILE), "no-descriptors", "-OOM "),
    ] {
        let mut bench = alone();
        bench.ills.segments = Some(fault);
        let refused = bench.fills();
        assert!(refused.starts_with(code), "{refused}");
        let status = bench.tells();
        assert_eq!(status.state, word);
        assert!(status.reason.contains(&fault.to_string()) && !status.next.is_empty(), "{status:?}");
        let kind = if fault == Fault::NoSpace { "journal-no-space" } else { "journal-unmade" };
        assert!(status.troubles.iter().any(|trouble| trouble.kind == kind), "{:?}", status.troubles);
        // It goes on by itself, and the second time is told like the first.
        for _ in 0..2 {
            let before = bench.told(kind);
            bench.ills.segments = None;
            bench.pass(300);
            assert_eq!((bench.set(4000), bench.tells().state), ("+OK\r\n".into(), "serving".to_owned()));
            bench.ills.segments = Some(fault);
            bench.fills();
            assert_eq!(bench.told(kind), before + 1);
        }
    }
}

#[test]
fn a_status_says_that_the_store_or_the_journal_failed() {
    for (fault, word) in [(Fault::NoSpace, "no-space"), (Fault::Errno(5), "store-failed")] {
        let mut bench = alone();
        bench.ills.store = Some(fault);
        assert_eq!(bench.set(1), "+OK\r\n", "it is in the journal");
        assert_ne!(bench.set(1), "+OK\r\n");
        assert_eq!(bench.tells().state, word);
        // Nor does a definition wait for a store that may never be back.
        let made = bench.asks(AdminRequest::AccountCreate { name: "b".to_owned(), flags: "L".to_owned() });
        assert!(matches!(&made, AdminReply::No { message, .. } if message.contains("store")), "{made:?}");
        bench.ills.store = None;
        bench.pass(300);
        assert_eq!((bench.set(1), bench.tells().state), ("+OK\r\n".to_owned(), "serving".to_owned()));
    }
    // Room helps nothing after a sync that found none.
    let mut bench = alone();
    bench.ills.store = Some(Fault::NoSpace.at_sync());
    bench.set(1);
    assert!(bench.set(1).starts_with("-MISCONF "), "it is not the room");
    let status = bench.tells();
    assert_eq!(status.state, "store-failed");
    assert!(status.reason.contains("until this node is restarted"), "{status:?}");
    assert!(status.next.contains("restart the node"), "{status:?}");
    assert!(!bench.engine.core.room.is_wanted(), "no claim of the peer is given up for it");
    let mut bench = alone();
    bench.ills.writes = Some(Fault::Errno(5));
    let said = bench.set(1);
    assert!(said.starts_with("-IOERR ") && bench.has_closed(), "no answer will come: {said}");
    bench.opens();
    assert!(bench.set(1).starts_with("-MISCONF "));
    let status = bench.tells();
    assert_eq!((status.state.as_str(), status.troubles[0].kind.as_str()), ("read-only", "journal-failed"));
    assert!(status.reason.contains("Input/output error"), "{status:?}");
}

#[test]
fn an_update_that_waits_for_a_segment_that_cannot_be_made_is_let_go_in_time() {
    let mut bench = alone();
    bench.ills.segments = Some(Fault::Errno(EROFS));
    // What was made ahead is used up; the one in use has room.
    while bench.engine.core.disk.unmade().is_none() {
        assert_eq!(bench.set(4000), "+OK\r\n");
    }
    assert_eq!(bench.tells().state, "serving");
    // A write to it fails.
    bench.ills.writes = Some(Fault::Errno(EROFS));
    assert_eq!(bench.set(10), "", "it may still become durable");
    assert!(!bench.has_closed());
    bench.pass(UNWRITTEN_MS - 1);
    assert!(!bench.has_closed());
    bench.pass(1);
    let said = bench.said.clone();
    assert!(
        said.starts_with("-IOERR it is not known whether this is kept: the journal's disk failed"),
        "{said}"
    );
    assert!(bench.has_closed(), "what came behind it has no answer");
    assert_eq!(bench.tells().state, "read-only");
    // It is kept after all.
    (bench.ills.writes, bench.ills.segments) = (None, None);
    bench.pass(300);
    assert_eq!(bench.tells().state, "serving");
    bench.opens();
    bench.said.clear();
    bench.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: b"GET app,orders,1\r\n".to_vec() }));
    assert_eq!(bench.said, "$10\r\nxxxxxxxxxx\r\n");
}

#[test]
fn a_status_says_that_updates_wait_for_a_peer_that_is_away_if_they_wait_for_good() {
    let mut bench = Bench::serving(config(AckLevel::Local, PeerLoss::Block));
    assert_eq!(bench.tells().state, "serving", "nobody waits for it");
    bench.engine.core.config.ack_level = AckLevel::Durable;
    let status = bench.tells();
    assert_eq!(status.state, "peer-away");
    assert!(status.reason.contains("updates at level durable wait"), "{}", status.reason);
    bench.engine.core.config.on_peer_loss = PeerLoss::Degrade { after_ms: 1000 };
    assert_eq!(bench.tells().state, "serving", "they are answered in time");
}

/// A request of an NBD client.
fn request(command: u16, cookie: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&0_u64.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// Its reply without content.
fn reply(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = 0x6744_6698_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&error.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes
}

#[test]
fn clients_of_a_disk_that_hangs_are_told_so_in_time_and_all_goes_on_with_the_disk() {
    const EIO: u32 = 5;
    let mut bench = alone();
    bench.opens_volume();
    bench.ills.disk_hangs = true;
    let write = [request(1, 1, 512), vec![7; 512]].concat();
    assert_eq!(bench.blocks(write.clone()), reply(0, 1), "a write promises nothing");
    assert_eq!(bench.blocks(request(3, 2, 0)), b"", "a flush does");
    assert_eq!(bench.set(3), "");
    bench.pass(WRITE_HANGS_MS - 1);
    assert!(!bench.has_closed() && bench.tells().state == "serving", "a disk may be slow");
    bench.said.clear();
    bench.told_blocks.clear();
    bench.pass(1);
    assert_eq!(bench.told_blocks, reply(EIO, 2));
    let said = bench.said.clone();
    assert!(
        said.starts_with("-IOERR it is not known whether this is kept: the journal's disk hangs"),
        "{said}"
    );
    assert!(bench.has_closed());
    let status = bench.tells();
    assert_eq!(status.state, "disk-hangs");
    assert!(status.reason.contains("10 s") && status.next.contains("take over"), "{status:?}");
    assert_eq!(bench.told("journal-hangs"), 1);
    // Whoever asks now is told at once, also for what was accepted before.
    bench.opens();
    assert!(bench.set(1).starts_with("-MISCONF the journal's disk hangs"));
    assert!(bench.says("GET app,orders,1").starts_with("-MISCONF "), "whether it is kept is not known");
    assert_eq!(bench.says("GET app,orders,2"), "$-1\r\n");
    assert_eq!(bench.blocks([request(1, 3, 512), vec![8; 512]].concat()), reply(EIO, 3));
    assert_eq!(bench.blocks(request(3, 4, 0)), reply(EIO, 4));
    bench.goes_on();
    assert_eq!(bench.tells().state, "serving");
    assert_eq!(bench.told("journal-moves"), 1);
    assert_eq!(bench.says("GET app,orders,1"), "$3\r\nxxx\r\n", "it is kept after all");
    assert_eq!(bench.blocks(request(3, 5, 0)), reply(0, 5));
    assert_eq!(bench.set(1), "+OK\r\n");
    // The second time is told like the first.
    bench.ills.disk_hangs = true;
    bench.set(1);
    bench.pass(WRITE_HANGS_MS);
    assert_eq!((bench.told("journal-hangs"), bench.tells().state.as_str()), (2, "disk-hangs"));
}

#[test]
fn clients_are_told_that_the_disk_hangs_also_where_it_makes_no_segment() {
    let mut bench = alone();
    // Fills the segment in use and the one made ahead, while writes end and no other segment is made.
    bench.ills.segments_hang = true;
    let mut waits = false;
    for _ in 0..1000 {
        waits = bench.set(4000) != "+OK\r\n";
        if waits {
            break;
        }
    }
    assert!(waits && !bench.has_closed(), "it is full one day");
    // The mark of a journal that goes idle is the last that its disk does.
    bench.pass(100);
    bench.pass(WRITE_HANGS_MS);
    assert_eq!(bench.tells().state, "disk-hangs");
    bench.opens();
    assert!(bench.set(1).starts_with("-MISCONF the journal's disk hangs"));
    bench.goes_on();
    assert_eq!((bench.set(1).as_str(), bench.tells().state.as_str()), ("+OK\r\n", "serving"));
}

#[test]
fn an_operator_and_clients_that_wait_behind_a_definition_are_told_that_the_disk_hangs() {
    let mut bench = alone();
    bench.ills.disk_hangs = true;
    bench.answered.clear();
    let request = AdminRequest::AccountCreate { name: "b".to_owned(), flags: "L".to_owned() };
    bench.input(Event::Admin { token: 1, request });
    // It moves a file to the other journal: both have to be empty.
    bench.input(Event::Admin { token: 2, request: becomes_local() });
    assert!(bench.answered.is_empty());
    assert_eq!(bench.set(1), "", "all wait for the operator");
    bench.pass(WRITE_HANGS_MS);
    let [begun, waits] = &bench.answered[..] else { panic!("{:?}", bench.answered) };
    assert!(matches!(begun, AdminReply::Error { message, .. } if message.contains("not known")), "{begun:?}");
    let nothing = |message: &String| message.contains("nothing was changed: the journal's disk hangs");
    assert!(matches!(waits, AdminReply::No { message, .. } if nothing(message)), "{waits:?}");
    let said = bench.said.clone();
    assert!(said.starts_with("-MISCONF the journal's disk hangs"), "{said}");
}

/// The file of the items is replicated no more: it moves to the other journal.
fn becomes_local() -> AdminRequest {
    AdminRequest::SetDptr {
        set: String::new(),
        clear: "L".to_owned(),
        accounts: false,
        names: vec!["app,orders".to_owned()],
        ack: None,
    }
}

#[test]
fn who_waits_for_a_checkpoint_that_fails_is_told_and_the_state_says_so() {
    for (fault, word) in [(Fault::NoSpace, "no-space"), (Fault::Errno(5), "store-failed")] {
        // The first checkpoint is before the change, the second behind it.
        for before in [0, 1] {
            let mut bench = alone();
            assert_eq!(bench.set(1), "+OK\r\n");
            bench.ills.checkpoints = Some((before, fault));
            bench.answered.clear();
            bench.input(Event::Admin { token: 1, request: becomes_local() });
            bench.pass(1000);
            let [answer] = &bench.answered[..] else { panic!("{:?}", bench.answered) };
            if before == 0 {
                let nothing = |message: &String| message.starts_with("nothing was changed: ");
                assert!(matches!(answer, AdminReply::No { message, .. } if nothing(message)), "{answer:?}");
                assert_eq!((bench.set(2).as_str(), bench.tells().state.as_str()), ("+OK\r\n", "serving"));
                continue;
            }
            assert!(matches!(answer, AdminReply::Ok { .. }), "{answer:?}");
            let (said, status) = (bench.set(2), bench.tells());
            assert!(said.starts_with('-'), "{said:?}");
            assert_eq!(status.state, word);
            assert!(status.reason.contains("a change of files waits for that"), "{status:?}");
            assert_eq!(bench.says("GET app,orders,1"), "$1\r\nx\r\n", "reads go on");
            bench.ills.checkpoints = None;
            bench.pass(1000);
            assert_eq!((bench.set(2).as_str(), bench.tells().state.as_str()), ("+OK\r\n", "serving"));
        }
    }
}
