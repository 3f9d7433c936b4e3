//! A loop on its own thread with real sockets and files and a script in the engine's place, for tests.

use super::super::config::Encryption;
use super::super::disk;
use super::super::identity::{NewKey, NodeKey};
use super::super::inbox::{Inbox, Message};
use super::super::peer_address::LookUp;
use super::super::tls::LinkIdentity;
use super::*;
use crate::base::JournalKind;
use crate::io::{IoChoice, open};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
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
        // It comes by the clock alone, at any moment: no script counts it.
        if !matches!(event, Event::Measured { .. }) {
            (self.play)(event, &mut self.effects);
        }
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
    /// The RESP door for other machines.
    pub(in crate::node) public: SocketAddr,
    pub(in crate::node) nbd: SocketAddr,
    pub(in crate::node) link: SocketAddr,
    pub(in crate::node) layout: Layout,
    _dir: tempfile::TempDir,
    pub(in crate::node) core: JoinHandle<Ending>,
    pub(in crate::node) incidents: Receiver<Incident>,
}

pub(in crate::node) struct Setting {
    pub(in crate::node) choice: IoChoice,
    pub(in crate::node) identity: LinkIdentity,
    pub(in crate::node) peer: PeerAddress,
    /// The name service.
    pub(in crate::node) names: LookUp,
    pub(in crate::node) clients_max: usize,
    pub(in crate::node) patience: Patience,
}

impl Setting {
    pub(in crate::node) fn of(choice: IoChoice) -> Self {
        let peer = "127.0.0.1:1".parse::<SocketAddr>().unwrap().into();
        let patience = Patience { stop_ms: 300, linger_ms: 300, handshake_ms: 300, ended_ms: 300 };
        Self {
            choice,
            identity: identities(Encryption::Tls).0,
            peer,
            names: Arc::new(PeerAddress::look_up),
            clients_max: 100,
            patience,
        }
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
    let (resp, link, public, nbd) = (bind(), bind(), bind(), bind());
    let [at_resp, at_link, at_public, at_nbd] =
        [&resp, &link, &public, &nbd].map(|listener| listener.local_addr().unwrap());
    let listeners = vec![
        Listener { socket: Arc::new(resp.into()), door: Door::Resp { trusted: false, rank: Rank::Near } },
        Listener { socket: Arc::new(link.into()), door: Door::Link },
        Listener { socket: Arc::new(public.into()), door: Door::Resp { trusted: false, rank: Rank::Public } },
        Listener { socket: Arc::new(nbd.into()), door: Door::Nbd { tls: Tls::Off, rank: Rank::Near } },
    ];
    let ends = CoreParts {
        layout: layout.clone(),
        listeners,
        volumes: VolumeReads::new(&layout).0,
        door_tls: Box::new(|_| Err("no TLS in this test".to_owned())),
        keys: Box::new(move || Ok(setting.identity.clone())),
        peer: setting.peer,
        identity: "hb1:own".to_owned(),
        clients_max: setting.clients_max,
        patience: setting.patience,
    };
    let names = setting.names;
    let (tell, told) = sync_channel(1);
    let (note, incidents) = channel();
    let at = layout.clone();
    let core = thread::spawn(move || {
        let driver = open(setting.choice, 64).unwrap();
        let (inbox, outbox) = Inbox::new(driver.waker());
        tell.send(inbox.clone()).unwrap();
        let script = Script { play: Box::new(play), effects: VecDeque::new() };
        let ending =
            CoreThread::new(script, driver, outbox, workers(&at, &inbox, note, names), ends).run().unwrap();
        drop(inbox);
        ending
    });
    let inbox = told.recv_timeout(TIMEOUT).unwrap();
    let (resp, link, public, nbd) = (at_resp, at_link, at_public, at_nbd);
    Some(Node { inbox, resp, public, nbd, link, layout, _dir: dir, core, incidents })
}

fn workers(layout: &Layout, inbox: &Inbox, note: Sender<Incident>, names: LookUp) -> Workers {
    let (bulk, bulk_work) = channel();
    let (files, files_work) = channel();
    let (apply, _unused) = channel();
    let (scrub, _) = channel();
    use super::super::incidents::Note;
    let (notes, recorder) = Notes::new();
    let stop = Arc::new(AtomicBool::new(false));
    let (at, to, halt) = (layout.clone(), inbox.clone(), Arc::clone(&stop));
    thread::spawn(move || disk::run_bulk(&at, &bulk_work, &to, &halt));
    let (at, to) = (layout.clone(), inbox.clone());
    thread::spawn(move || disk::run_files(at, 4 << 20, &files_work, &to, &stop));
    thread::spawn(move || {
        let tell = |told: &Note| match told {
            Note::Told(incident) => note.send(incident.clone()).unwrap_or_default(),
            Note::Ended(..) => {}
        };
        recorder.each(tell, || ());
    });
    let (manager, _unheard) = manager::channel();
    let resolver = Resolver::with(inbox, names);
    let starting = Arc::new(super::super::starting::Starting::new());
    // Nothing is cold in a store in memory.
    let (fetches, _) = channel();
    let (copies, _) = channel();
    let (compares, _) = channel();
    let (stats, _) = channel();
    let (spool, _) = channel();
    Workers {
        bulk,
        files,
        spool,
        apply,
        scrub,
        fetches,
        copies,
        compares,
        notes,
        desk: None,
        manager,
        resolver,
        starting,
        stats,
    }
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

/// A connection that comes from this host.
pub(in crate::node) fn connect_from(host: [u8; 4], address: SocketAddr) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, socket,
    };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let [a, b, c, d] = host;
    bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    TcpStream::from(socket)
}

pub(in crate::node) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}
