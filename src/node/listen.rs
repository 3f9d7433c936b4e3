//! Opens the listening sockets: the link port, the RESP doors, and the node's own Unix socket.

use super::admin::bind_in_dir;
use super::config::{Config, DoorAddress};
use super::core::{Door, Listener};
use super::layout::{Layout, ViewFile};
use crate::base::Rank;
use crate::base::limits::{ACCEPT_BACKLOG, LISTEN_AGAIN_MS};
use crate::base::plainly;
use crate::engine::Tls;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a listening socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("opening {place} for {whom}: {}", plainly(error))]
pub struct ListenError {
    /// Address or path.
    pub place: String,
    /// The config key, or what the socket is for.
    pub whom: &'static str,
    /// What came back.
    pub error: io::Error,
    /// What to do.
    pub next: &'static str,
}

/// All listening sockets, and the files to remove at the end.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// In the order of [`Config`].
    pub(crate) all: Vec<Listener>,
    files: Vec<SocketFile>,
}

/// A Unix socket's file; dropping removes it, unless it is another's by now.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Listeners {
    /// Opens everything that the config names.
    ///
    /// # Errors
    /// The first that cannot be opened; none is left open then.
    pub(crate) fn open(config: &Config, layout: &Layout) -> Result<Self, ListenError> {
        let mut listeners = Self::default();
        listeners.tcp(config.link_listen, "link_listen", Door::Link)?;
        let rank = Rank::Own;
        let (resp, nbd) = (Door::Resp { trusted: true, rank }, Door::Nbd { tls: Tls::Off, rank });
        listeners.own(layout, layout.resp_socket(), resp)?;
        listeners.own(layout, layout.nbd_socket(), nbd)?;
        for address in &config.resp {
            let door = Door::Resp { trusted: false, rank: rank_of(address) };
            match address {
                DoorAddress::Tcp(address) => listeners.tcp(*address, "resp", door)?,
                DoorAddress::Unix(path) => listeners.unix(layout.resolve(path), "resp", door, 0o660)?,
            }
        }
        for place in &config.nbd {
            match place {
                DoorAddress::Tcp(address) => {
                    let tls = if place.is_private() { Tls::Offered } else { Tls::Required };
                    listeners.tcp(*address, "nbd", Door::Nbd { tls, rank: rank_of(place) })?;
                }
                DoorAddress::Unix(path) => {
                    let door = Door::Nbd { tls: Tls::Off, rank: rank_of(place) };
                    listeners.unix(layout.resolve(path), "nbd", door, 0o660)?;
                }
            }
        }
        Ok(listeners)
    }

    /// Opens the doors of a view, RESP and NBD: each at its address, or at a socket of the node's own user.
    ///
    /// # Errors
    /// The first that cannot be opened; none is left open then.
    pub(crate) fn of_view(
        layout: &Layout,
        view: &str,
        at: [Option<SocketAddr>; 2],
    ) -> Result<Self, ListenError> {
        let mut listeners = Self::default();
        let [resp, nbd] = at;
        match resp {
            Some(address) => {
                let rank = rank_of(&DoorAddress::Tcp(address));
                listeners.tcp(address, "the view", Door::Resp { trusted: false, rank })?;
            }
            None => {
                let door = Door::Resp { trusted: true, rank: Rank::Own };
                listeners.own(layout, layout.view_file(view, ViewFile::Resp), door)?;
            }
        }
        match nbd {
            Some(address) => {
                let place = DoorAddress::Tcp(address);
                let tls = if place.is_private() { Tls::Offered } else { Tls::Required };
                listeners.tcp(address, "the view", Door::Nbd { tls, rank: rank_of(&place) })?;
            }
            None => {
                let door = Door::Nbd { tls: Tls::Off, rank: Rank::Own };
                listeners.own(layout, layout.view_file(view, ViewFile::Nbd), door)?;
            }
        }
        Ok(listeners)
    }

    fn tcp(&mut self, address: SocketAddr, whom: &'static str, door: Door) -> Result<(), ListenError> {
        let failed = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program has that port: stop it (`ss -ltnp` names it), or use another port in config.toml"
                }
                io::ErrorKind::AddrNotAvailable => "use an address of this machine in config.toml",
                io::ErrorKind::PermissionDenied => "use a port above 1023 in config.toml",
                _ => "change it in config.toml",
            };
            ListenError { place: address.to_string(), whom, error, next }
        };
        let socket = match when_free(|| TcpListener::bind(address)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(
                    "{address} ({whom}) is not an address of this machine yet: nobody reaches the node there before \
                     it is; if it is wrong, correct it in config.toml"
                );
                bind_early(address).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        let bound = socket.local_addr().map_err(failed)?;
        self.take(socket.into(), door).map_err(failed)?;
        tracing::info!("listening on {bound} ({whom})");
        Ok(())
    }

    /// The socket of the node's own user. Its directory is locked, so one that is there was left by a killed process.
    fn own(&mut self, layout: &Layout, path: PathBuf, door: Door) -> Result<(), ListenError> {
        let failed = |error: io::Error| ListenError {
            place: path.display().to_string(),
            whom: "the node's own user",
            error,
            next: "are path and permissions right?",
        };
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let socket = bind_in_dir(layout.dir(), name).map_err(failed)?;
        self.files.push(SocketFile::of(&path).map_err(failed)?);
        self.take(socket.into(), door).map_err(failed)?;
        tracing::info!("listening on {} (the node's own user)", path.display());
        Ok(())
    }

    fn unix(&mut self, path: PathBuf, whom: &'static str, door: Door, mode: u32) -> Result<(), ListenError> {
        let place = path.display().to_string();
        let failed = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens there: stop it, or use another path in config.toml"
                }
                io::ErrorKind::AlreadyExists => {
                    "that path is a file of something else: use another one in config.toml"
                }
                io::ErrorKind::NotFound => {
                    "make the directory of that path first, or use another one in config.toml"
                }
                io::ErrorKind::InvalidInput => {
                    "the path of a Unix socket has at most 107 bytes: use a shorter one"
                }
                _ => "are path and permissions right?",
            };
            ListenError { place: place.clone(), whom, error, next }
        };
        when_free(|| remove_stale(&path)).map_err(failed)?;
        let socket = UnixListener::bind(&path).map_err(failed)?;
        self.files.push(SocketFile::of(&path).map_err(failed)?);
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        self.take(socket.into(), door).map_err(failed)?;
        tracing::info!("listening on {place} ({whom})");
        Ok(())
    }

    fn take(&mut self, socket: OwnedFd, door: Door) -> io::Result<()> {
        listen(&socket.as_fd(), Backlog::new(ACCEPT_BACKLOG)?)?;
        self.all.push(Listener { socket: Arc::new(socket), door });
        Ok(())
    }
}

/// From where clients of a configured address can come.
fn rank_of(place: &DoorAddress) -> Rank {
    if place.is_private() { Rank::Near } else { Rank::Public }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_path_buf(), inode: (found.st_dev(), found.st_ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.st_dev(), found.st_ino()) == self.inode);
        if ours {
            // What stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes an address, and tries again for [`LISTEN_AGAIN_MS`] while somebody listens there: the kernel lets go of what the
/// ring of a killed process held a moment after that process is gone.
fn when_free<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + Duration::from_millis(LISTEN_AGAIN_MS);
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Binds to an address that the machine may get later: at a boot the network is often configured after this.
fn bind_early(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket.as_fd(), Backlog::new(ACCEPT_BACKLOG)?)?;
    Ok(socket.into())
}

/// Removes a socket file that nobody listens on, as a killed process leaves it. Anything else stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has this name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_by_a_killed_process_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resp.sock");
        let door = Door::Resp { trusted: true, rank: Rank::Own };
        drop(UnixListener::bind(&path).unwrap());
        let mut first = Listeners::default();
        first.unix(path.clone(), "a test", door, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Listeners::default().unix(path.clone(), "a test", door, 0o600).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, b"precious").unwrap();
        Listeners::default().unix(path.clone(), "a test", door, 0o600).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_address_that_the_machine_does_not_have_yet_is_listened_on_all_the_same() {
        // Documentation addresses, which no machine has.
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            if address.is_ipv6() && TcpListener::bind("[::1]:0").is_err() {
                continue;
            }
            let mut listeners = Listeners::default();
            listeners.tcp(address, "link_listen", Door::Link).expect("bound before the address is there");
            let socket = TcpListener::from(listeners.all.remove(0).socket.try_clone().unwrap());
            let bound = socket.local_addr().unwrap();
            assert_eq!(bound.ip(), address.ip());
            // It is held as any other is: nobody else gets it.
            let second = Listeners::default().tcp(bound, "resp", Door::Link).unwrap_err();
            assert_eq!(second.error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn an_address_that_a_killed_process_holds_for_a_moment_is_waited_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let freed = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(taken);
        });
        Listeners::default().tcp(address, "resp", Door::Link).expect("it is free soon");
        freed.join().unwrap();
    }

    #[test]
    fn a_port_in_use_is_refused_with_its_address_and_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refused = Listeners::default().tcp(address, "link_listen", Door::Link).unwrap_err().to_string();
        assert!(refused.contains(&format!("opening {address} for link_listen: ")), "{refused}");
    }
}
