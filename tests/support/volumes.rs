//! Pairs with a volume, and what stands between them and their clients.

use super::node::loopback_addresses;
use super::{Node, Pair, Plan};
use nix::sys::signal::Signal;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The volume as an export.
pub(crate) const EXPORT: &str = "app/disk1";

/// Lets clients of volumes connect to `address`.
#[track_caller]
pub(crate) fn serves_volumes_at(node: &Node, address: SocketAddr) {
    node.configure(&[format!("nbd = \"{address}\"")]);
}

/// Makes the volume, in an account of its own if there is none yet.
#[track_caller]
pub(crate) fn make_volume(node: &Node, size: &str) {
    node.verb(&["account", "create", "app"]);
    node.done(&["file", "create", "app,disk1", "--blocks", "--size", size, "--flags", "L"]);
}

/// A pair that serves the volume `app,disk1`.
pub(crate) struct Volumes {
    pub(crate) pair: Pair,
    /// Where the two nodes serve it.
    pub(crate) at: [SocketAddr; 2],
}

impl Volumes {
    /// Both nodes serving.
    #[track_caller]
    pub(crate) fn start(plan: &Plan, size: &str) -> Self {
        let mut pair = Pair::set_up(plan);
        let at = loopback_addresses();
        serves_volumes_at(&pair.a, at[0]);
        serves_volumes_at(&pair.b, at[1]);
        pair.serve();
        make_volume(&pair.a, size);
        let volumes = Self { pair, at };
        volumes.pair.converges();
        volumes
    }

    /// The volume at the primary.
    pub(crate) fn a(&self) -> String {
        format!("nbd://{}/{EXPORT}", self.at[0])
    }

    /// The volume at the standby.
    pub(crate) fn b(&self) -> String {
        format!("nbd://{}/{EXPORT}", self.at[1])
    }

    /// The primary dies when the standby has heard nothing for so long: what does not fit into the buffers of the link
    /// is lost with it.
    #[track_caller]
    pub(crate) fn dies_unheard(&mut self, last: Duration) {
        self.pair.b.signal(Signal::SIGSTOP);
        thread::sleep(last);
        self.pair.a.kill();
        self.pair.b.signal(Signal::SIGCONT);
    }

    /// The primary dies, the standby takes over.
    #[track_caller]
    pub(crate) fn take_over(&mut self) {
        self.pair.a.kill();
        self.pair.b.status("to miss its peer", |status| status["peer"]["connected"] == false);
        self.pair.b.done(&["takeover", "--peer-is-down"]);
        self.pair.b.serves();
    }
}

/// Carries connections to a node that may change.
pub(crate) struct Detour {
    pub(crate) address: SocketAddr,
    state: Arc<DetourState>,
    thread: Option<JoinHandle<()>>,
}

struct DetourState {
    to: Mutex<SocketAddr>,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Detour {
    /// Connections are carried to `to`.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let [address] = loopback_addresses();
        let listener = TcpListener::bind(address).unwrap();
        let (to, ended, open) = (Mutex::new(to), AtomicBool::new(false), Mutex::new(Vec::new()));
        let state = Arc::new(DetourState { to, ended, open });
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                // A node that is not there hangs up, as it would without us.
                let _ = carry(&client, &shared);
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// From now on to this node.
    pub(crate) fn lead_to(&self, node: SocketAddr) {
        *self.state.to.lock().unwrap() = node;
    }
}

fn carry(client: &TcpStream, state: &DetourState) -> io::Result<()> {
    let node = TcpStream::connect(*state.to.lock().unwrap())?;
    for (from, to) in [(client, &node), (&node, client)] {
        from.set_nodelay(true)?;
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        state.open.lock().unwrap().push(from.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to).and_then(|_| to.flush());
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // It wakes up, and goes.
        let _ = TcpStream::connect(self.address);
        self.thread.take().map(JoinHandle::join);
        self.state.open.lock().unwrap().iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}
