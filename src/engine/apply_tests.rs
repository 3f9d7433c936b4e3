//! A node alone whose driver does everything at once, but for what the store applies: that is the test's to do.

use super::*;
use crate::base::{ConnId, Now, Ordinal};
use crate::doors::{BlockBackend as _, Payload, Refusal};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::{ClientDoor, Engine, EngineConfig, Event, PeerLoss, StartState};
use crate::format::PairId;
use crate::format::control::{Control, Role};
use crate::journal::Recovered;
use crate::store::StoreWrite as _;
use crate::store::memory::MemoryStore;
use crate::store::namespace::Namespace;

const PAIR: PairId = PairId([1; 16]);
const CLIENT: ConnId = ConnId(1);

fn config() -> EngineConfig {
    EngineConfig {
        name: "a".to_owned(),
        ordinal: Ordinal(0),
        pair: PAIR,
        segment_bytes: 64 << 10,
        quota_bytes: 1 << 30,
        ack_level: crate::base::AckLevel::Local,
        on_peer_loss: PeerLoss::Block,
        serve_alone: false,
        heartbeat_ms: 500,
        peer_timeout_ms: 5000,
        checkpoint_ms: 10_000,
        checkpoint_bytes: 1 << 30,
        resp_default: None,
        resp_password: None,
        peer_host: String::new(),
        peer_port: 0,
        seed: 1,
    }
}

struct Bench {
    engine: Engine<MemoryStore>,
    store: MemoryStore,
    now: Now,
    /// Given to the store, and neither applied nor failed yet.
    given: VecDeque<(JournalKind, Batch)>,
    /// Kinds of incidents.
    told: Vec<&'static str>,
    /// Answers to the client.
    said: Vec<u8>,
    /// What an operator was answered.
    answered: Vec<AdminReply>,
}

impl Bench {
    /// Serving, with the files `app,orders` and `app,disk`.
    fn serving() -> Self {
        let store = MemoryStore::new(Ordinal(0));
        let control = Control::new(Role::Primary, PAIR);
        let start = StartState {
            control,
            journals: [Recovered::default(), Recovered::default()],
            store: store.clone(),
            namespace: Namespace::new(),
            applied: [Seq(0); 2],
            replay_from: [Seq(0); 2],
        };
        let mut bench = Self {
            engine: Engine::new(config(), start),
            store,
            now: Now::default(),
            given: VecDeque::new(),
            told: Vec::new(),
            said: Vec::new(),
            answered: Vec::new(),
        };
        bench.input(Event::Tick);
        bench.asks(AdminRequest::StartAlone);
        bench.asks(AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
        for (name, kind, bytes) in
            [("app,orders", DptrKind::Records, None), ("app,disk", DptrKind::Blocks, Some(1 << 20))]
        {
            let (name, flags) = (name.to_owned(), None);
            bench.asks(AdminRequest::FileCreate { name, kind, flags, bytes, ack: None });
        }
        bench.input(Event::ClientOpened { conn: CLIENT, door: ClientDoor::Items { trusted: true } });
        bench
    }

    fn input(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.engine.input(self.now, event);
            while let Some(effect) = self.engine.output() {
                match effect {
                    Effect::PrepareSegment { journal, index, .. } => {
                        events.push_back(Event::SegmentReady { journal, index });
                    }
                    Effect::Write { write, .. } => events.push_back(Event::Written { write }),
                    Effect::WriteControl { write, .. } => events.push_back(Event::ControlWritten { write }),
                    Effect::Apply { journal, batch } => self.given.push_back((journal, batch)),
                    Effect::ClientSend { conn, bytes } => {
                        self.said.extend_from_slice(&bytes);
                        events.push_back(Event::ClientSent { conn });
                    }
                    Effect::LinkConnect { conn } => {
                        events.push_back(Event::LinkClosed { conn, why: "nobody is there".to_owned() });
                    }
                    Effect::Incident(incident) => self.told.push(incident.kind),
                    Effect::Admin { reply, .. } => self.answered.push(reply),
                    _ => {}
                }
            }
        }
    }

    /// The store applies all that it was given.
    fn apply(&mut self) {
        while let Some((journal, batch)) = self.given.pop_front() {
            self.store.apply(journal, std::slice::from_ref(&batch)).unwrap();
            self.input(Event::Applied { journal, seq: batch.header().last_seq() });
        }
    }

    /// An operator asks for something, and gets it.
    fn asks(&mut self, request: AdminRequest) {
        self.answered.clear();
        self.input(Event::Admin { token: 1, request });
        self.apply();
        assert!(matches!(&self.answered[..], [AdminReply::Ok { .. }]), "{:?}", self.answered);
    }

    /// What a client is told that sets an item.
    fn set(&mut self, id: &str) -> String {
        self.said.clear();
        let line = format!("SET app,orders,{id} x\r\n");
        self.input(Event::ClientBytes { conn: CLIENT, bytes: line.into_bytes() });
        String::from_utf8(self.said.clone()).unwrap()
    }

    /// What the door for volumes is told that writes a block.
    fn write_block(&mut self) -> Result<(), Refusal> {
        let file = self.engine.core.namespace.resolve(b"app,disk").unwrap();
        self.engine.core.write_blocks(file, 0, Payload::Borrowed(&[1; 512])).map(|_| ())
    }

    fn ids(&self) -> Vec<Vec<u8>> {
        self.given
            .iter()
            .flat_map(|(_, batch)| batch.entries().map(|(_, entry)| entry.id.to_vec()).collect::<Vec<_>>())
            .collect()
    }
}

#[test]
fn a_store_without_room_is_told_as_that_although_more_was_given_behind_what_failed() {
    let mut bench = Bench::serving();
    assert_eq!(bench.set("1"), "+OK\r\n");
    assert_eq!(bench.set("2"), "+OK\r\n");
    assert_eq!(bench.ids(), [b"1", b"2"]);
    let journal = bench.given[0].0;
    bench.given.clear();
    // The second cannot follow the first, which is no reason of its own.
    for fault in [Fault::NoSpace, Fault::Errno(22)] {
        bench.input(Event::ApplyFailed { journal, fault });
        assert_eq!(bench.engine.core.store_fault(), Some(Fault::NoSpace));
        assert!(bench.set("3").starts_with("-OOM "));
        assert_eq!(bench.write_block(), Err(Refusal::NoSpace));
    }
    assert!(bench.given.is_empty(), "given again at once");
    // Later both are given again, in order; fails the first again for another reason, that is told.
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!(bench.ids(), [b"1", b"2"]);
    bench.given.clear();
    for fault in [Fault::Errno(5), Fault::Errno(22)] {
        bench.input(Event::ApplyFailed { journal, fault });
        assert_eq!(bench.engine.core.store_fault(), Some(Fault::Errno(5)));
        assert!(bench.set("3").starts_with("-MISCONF "));
        assert_eq!(bench.write_block(), Err(Refusal::DiskFailed));
    }
    bench.now.mono = bench.now.mono.plus_ms(RETRY_MS);
    bench.input(Event::Tick);
    assert_eq!(bench.ids(), [b"1", b"2"]);
    bench.apply();
    assert_eq!(bench.set("3"), "+OK\r\n");
    assert_eq!(bench.write_block(), Ok(()));
    let of_store: Vec<_> = bench.told.iter().filter(|kind| kind.starts_with("store-")).collect();
    assert_eq!(of_store, [&"store-failed", &"store-failed", &"store-back"]);
    bench.input(Event::Tick);
    bench.apply();
    let file = bench.store.namespace().resolve(b"app,orders").unwrap();
    let ids: Vec<_> = bench.store.items(file).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [&b"1"[..], b"2", b"3"]);
}
