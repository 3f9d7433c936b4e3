//! A loop on its own thread with real sockets and files and a script in the engine's place, for tests.

use super::super::config::Encryption;
use super::super::disk;
use super::super::identity::{NewKey, NodeKey};
use super::super::inbox::{Inbox, Message};
use super::super::tls::LinkIdentity;
use super::*;
use crate::base::JournalKind;
use crate::io::{IoChoice, open};
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Both; a test skips what the kernel forbids.
pub(in crate::node) const DRIVERS: [IoChoice; 2] = [IoChoice::Uring, IoChoice::Epoll];
/// Far more than anything here takes.
pub(in crate::node) const TIMEOUT: Duration = Duration::from_secs(20);

type Play = Box<dyn FnMut(Event, &mut VecDeque<Effect>) + Send>;

/// An engine whose decisions are a closure.
struct Script {
    play: Play,
    effects: VecDeque<Effect>,
}

impl Brain for Script {
    fn input(&mut self, _now: Now, event: Event) {
        (self.play)(event, &mut self.effects);
    }

    fn output(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }

    fn is_up(&self) -> bool {
        true
    }
}

/// A core on its own thread, with everything around it.
pub(in crate::node) struct Node {
    pub(in crate::node) inbox: Inbox,
    pub(in crate::node) resp: SocketAddr,
    pub(in crate::node) link: SocketAddr,
    pub(in crate::node) layout: Layout,
    _dir: tempfile::TempDir,
    pub(in crate::node) core: JoinHandle<Ending>,
    pub(in crate::node) incidents: Receiver<Incident>,
}

pub(in crate::node) struct Setting {
    pub(in crate::node) choice: IoChoice,
    pub(in crate::node) identity: LinkIdentity,
    pub(in crate::node) peer: SocketAddr,
    pub(in crate::node) clients_max: usize,
    pub(in crate::node) patience: Patience,
}

impl Setting {
    pub(in crate::node) fn of(choice: IoChoice) -> Self {
        let peer = "127.0.0.1:1".parse().unwrap();
        let patience = Patience { stop_ms: 300, linger_ms: 300, handshake_ms: 300 };
        Self { choice, identity: identities(Encryption::Tls).0, peer, clients_max: 100, patience }
    }
}

/// The two nodes of a pair.
pub(in crate::node) fn identities(encryption: Encryption) -> (LinkIdentity, LinkIdentity) {
    let key = |name| NodeKey::from_pem(&NewKey::generate(name).unwrap()).unwrap();
    let (a, b) = (key("a"), key("b"));
    let (of_a, of_b) = (a.fingerprint, b.fingerprint);
    (
        LinkIdentity::new(a, vec![of_b], encryption).unwrap(),
        LinkIdentity::new(b, vec![of_a], encryption).unwrap(),
    )
}

/// `None` where the kernel does not let io_uring be used, which is said.
pub(in crate::node) fn start(
    setting: Setting,
    play: impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static,
) -> Option<Node> {
    if let Err(error) = open(setting.choice, 8) {
        eprintln!("skipped: {:?} cannot be used here: {error}", setting.choice);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    for journal in JournalKind::ALL {
        std::fs::create_dir_all(layout.journal(journal)).unwrap();
    }
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (resp, link) = (bind(), bind());
    let addresses = (resp.local_addr().unwrap(), link.local_addr().unwrap());
    let listeners = vec![
        Listener { socket: Arc::new(resp.into()), door: Door::Resp { trusted: false } },
        Listener { socket: Arc::new(link.into()), door: Door::Link },
    ];
    let ends = Ends {
        layout: layout.clone(),
        listeners,
        volumes: Volumes::new(&layout).0,
        door_tls: Box::new(|| Err("no TLS in this test".to_owned())),
        keys: Box::new(move || Ok(setting.identity.clone())),
        peer: setting.peer,
        clients_max: setting.clients_max,
        patience: setting.patience,
    };
    let (tell, told) = sync_channel(1);
    let (note, incidents) = channel();
    let at = layout.clone();
    let core = thread::spawn(move || {
        let driver = open(setting.choice, 64).unwrap();
        let (inbox, outbox) = Inbox::new(driver.waker());
        tell.send(inbox.clone()).unwrap();
        let script = Script { play: Box::new(play), effects: VecDeque::new() };
        let ending = Core::new(script, driver, outbox, workers(&at, &inbox, note), ends).run().unwrap();
        drop(inbox);
        ending
    });
    let inbox = told.recv_timeout(TIMEOUT).unwrap();
    Some(Node { inbox, resp: addresses.0, link: addresses.1, layout, _dir: dir, core, incidents })
}

fn workers(layout: &Layout, inbox: &Inbox, note: Sender<Incident>) -> Workers {
    let (bulk, bulk_work) = channel();
    let (files, files_work) = channel();
    let (apply, _unused) = channel();
    let (notes, recorder) = Notes::new();
    let stop = Arc::new(AtomicBool::new(false));
    let (at, to, halt) = (layout.clone(), inbox.clone(), Arc::clone(&stop));
    thread::spawn(move || disk::run_bulk(&at, &bulk_work, &to, &halt));
    let (at, to) = (layout.clone(), inbox.clone());
    thread::spawn(move || disk::run_files(at, 4 << 20, &files_work, &to, &stop));
    thread::spawn(move || recorder.each(|incident| note.send(incident.clone()).unwrap_or_default()));
    let (manager, _unheard) = manager::channel();
    let starting = Arc::new(super::super::starting::Starting::new());
    Workers { bulk, files, apply, notes, manager, starting }
}

impl Node {
    pub(in crate::node) fn stop(self) -> Ending {
        self.inbox.send(Message::Stop).unwrap();
        self.core.join().unwrap()
    }

    pub(in crate::node) fn client(&self) -> TcpStream {
        connect(self.resp)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}
