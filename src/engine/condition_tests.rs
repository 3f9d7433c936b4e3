//! A node alone on a disk that can refuse, and what it tells and answers then.

use super::*;
use crate::base::limits::UNWRITTEN_MS;
use crate::base::{ConnId, Now, Ordinal};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::engine::{
    ClientDoor, ClientEffect, ClientEvent, Effect, Event, FileEffect, FileEvent, JournalEffect, JournalEvent,
    LinkEffect, LinkEvent, PrepareSegment, StoreEffect, StoreEvent,
};
use crate::engine::{Engine, EngineConfig, StartState};
use crate::format::PairId;
use crate::format::control::{Control, Role};
use crate::format::dptr::DptrKind;
use crate::journal::Recovered;
use crate::store::StoreWrite as _;
use crate::store::memory::MemoryStore;
use crate::store::namespace::Namespace;
use std::collections::VecDeque;

const CLIENT: ConnId = ConnId(1);

fn config(ack_level: AckLevel, on_peer_loss: PeerLoss) -> EngineConfig {
    EngineConfig {
        name: "a".to_owned(),
        ordinal: Ordinal(0),
        pair: PairId([1; 16]),
        segment_bytes: 64 << 10,
        quota_bytes: 1 << 30,
        ack_level,
        on_peer_loss,
        checkpoint_bytes: 1 << 30,
        ..EngineConfig::default()
    }
}

/// What of the disk refuses now.
#[derive(Default)]
struct Ills {
    segments: Option<Fault>,
    writes: Option<Fault>,
    store: Option<Fault>,
}

struct Bench {
    engine: Engine<MemoryStore>,
    store: MemoryStore,
    now: Now,
    ills: Ills,
    said: Vec<u8>,
    closed: bool,
    answered: Vec<AdminReply>,
}

impl Bench {
    fn serving(config: EngineConfig) -> Self {
        let store = MemoryStore::new(Ordinal(0));
        let epoch = crate::base::Epoch(0);
        let start = StartState {
            control: Control { epoch, ..Control::new(Role::Primary, config.pair) },
            journals: [Recovered::default(), Recovered::default()],
            store: store.clone(),
            namespace: Namespace::new(),
            applied: [crate::base::Seq(0); 2],
            replay_from: [crate::base::Seq(0); 2],
        };
        let engine = Engine::new(config, start);
        let (ills, now) = (Ills::default(), Now::default());
        let (said, answered) = (Vec::new(), Vec::new());
        let mut bench = Self { engine, store, now, ills, said, closed: false, answered };
        bench.input(Event::Tick);
        bench.asks(AdminRequest::StartAlone);
        bench.asks(AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
        let name = "app,orders".to_owned();
        bench.asks(AdminRequest::FileCreate {
            name,
            kind: DptrKind::Records,
            flags: None,
            bytes: None,
            ack: None,
        });
        bench.opens();
        bench
    }

    fn opens(&mut self) {
        self.closed = false;
        self.input(Event::Client(ClientEvent::Opened {
            conn: CLIENT,
            door: ClientDoor::Items { trusted: true },
        }));
    }

    fn input(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.engine.input(self.now, event);
            while let Some(effect) = self.engine.output() {
                events.extend(self.carry_out(effect));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        Some(match effect {
            Effect::Journal(JournalEffect::Prepare(PrepareSegment { journal, index, .. })) => {
                match self.ills.segments {
                    Some(fault) => Event::Journal(JournalEvent::SegmentFailed { journal, index, fault }),
                    None => Event::Journal(JournalEvent::SegmentReady { journal, index }),
                }
            }
            Effect::Journal(JournalEffect::Write { write, .. }) => match self.ills.writes {
                Some(fault) => Event::Journal(JournalEvent::WriteFailed { write, fault }),
                None => Event::Journal(JournalEvent::Written { write }),
            },
            Effect::Store(StoreEffect::Checkpoint) => {
                Event::Store(StoreEvent::Checkpointed { applied: self.store.checkpoint().unwrap() })
            }
            Effect::File(FileEffect::WriteControl { write, .. }) => {
                Event::File(FileEvent::ControlWritten { write })
            }
            Effect::Store(StoreEffect::Apply { journal, round, batch }) => match self.ills.store {
                Some(fault) => Event::Store(StoreEvent::ApplyFailed { journal, round, fault }),
                None => {
                    self.store.apply(journal, std::slice::from_ref(&batch)).unwrap();
                    Event::Store(StoreEvent::Applied { journal, round, seq: batch.header().last_seq() })
                }
            },
            Effect::Client(ClientEffect::Send { conn, bytes }) => {
                self.said.extend_from_slice(&bytes);
                Event::Client(ClientEvent::Sent { conn })
            }
            Effect::Client(ClientEffect::Close { .. }) => {
                self.closed = true;
                return None;
            }
            Effect::Link(LinkEffect::Connect { conn }) => {
                Event::Link(LinkEvent::Closed { conn, why: "nobody is there".to_owned() })
            }
            Effect::Admin { reply, .. } => {
                self.answered.push(reply);
                return None;
            }
            _ => return None,
        })
    }

    fn asks(&mut self, request: AdminRequest) -> AdminReply {
        self.answered.clear();
        self.input(Event::Admin { token: 1, request });
        self.answered.pop().expect("an answer at once")
    }

    /// State, reason, what to do.
    #[track_caller]
    fn tells(&mut self) -> Status {
        let AdminReply::Ok { value: AdminAnswer::Status(status) } = self.asks(AdminRequest::Status) else {
            panic!("a status")
        };
        *status
    }

    /// How often an incident was told.
    fn told(&mut self, kind: &str) -> usize {
        let AdminReply::Ok { value: AdminAnswer::Incidents(list) } = self.asks(AdminRequest::Incidents)
        else {
            panic!("a list")
        };
        list.iter().filter(|incident| incident.kind == kind).count()
    }

    fn set(&mut self, value: usize) -> String {
        self.said.clear();
        let line = format!("SET app,orders,1 {}\r\n", "x".repeat(value));
        self.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
        String::from_utf8(self.said.clone()).unwrap()
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

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.input(Event::Tick);
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
    let mut bench = alone();
    bench.ills.writes = Some(Fault::Errno(5));
    bench.set(1);
    assert!(bench.closed, "no answer will come");
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
    while bench.engine.core.unmade.is_none() {
        assert_eq!(bench.set(4000), "+OK\r\n");
    }
    assert_eq!(bench.tells().state, "serving");
    // A write to it fails.
    bench.ills.writes = Some(Fault::Errno(EROFS));
    assert_eq!(bench.set(10), "", "it may still become durable");
    assert!(!bench.closed);
    bench.pass(UNWRITTEN_MS - 1);
    assert!(!bench.closed);
    bench.pass(1);
    assert!(bench.closed, "whether it is kept is not known, and the client hears so");
    assert_eq!(bench.tells().state, "read-only");
    // It is kept after all.
    (bench.ills.writes, bench.ills.segments) = (None, None);
    bench.pass(300);
    assert_eq!(bench.tells().state, "serving");
    bench.opens();
    bench.said.clear();
    bench.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: b"GET app,orders,1\r\n".to_vec() }));
    assert_eq!(String::from_utf8_lossy(&bench.said), "$10\r\nxxxxxxxxxx\r\n");
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
