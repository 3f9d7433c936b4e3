//! A peer made of test code: it proves a real node's key, and then says what that node never would.

use super::{Node, wait_until};
use hot_backup::base::{ConnId, Mono, Now};
use hot_backup::format::frame::{FrameHeader, FrameKind, Hello, PROTOCOL_FLOOR, PROTOCOL_VERSION};
use hot_backup::node::config::{Config, Encryption};
use hot_backup::node::layout::Layout;
use hot_backup::node::tls::{LinkIdentity, SecureLink};
use hot_backup::pair::{Frame, Head, LinkSession};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// One connection of the link.
pub(crate) struct Impostor {
    stream: TcpStream,
    secure: SecureLink,
    session: LinkSession,
}

fn identity(node: &Node) -> LinkIdentity {
    LinkIdentity::load(&Layout::new(&node.dir), Encryption::Tls).unwrap()
}

impl Impostor {
    /// Calls `to` with the key of `node`.
    #[track_caller]
    pub(crate) fn calls(node: &Node, to: &Node) -> Self {
        let stream = TcpStream::connect(config(to).link_listen).unwrap();
        let secure = SecureLink::dial(&identity(node)).unwrap();
        Self { stream, secure, session: LinkSession::dialed(ConnId(1), 7, Mono(0)) }.proven()
    }

    /// Is called where `node` would be, with its key.
    #[track_caller]
    pub(crate) fn is_called(node: &Node, at: &TcpListener) -> Self {
        let (stream, _) = wait_until("a call", || at.accept().ok());
        let secure = SecureLink::accept(&identity(node)).unwrap();
        Self { stream, secure, session: LinkSession::accepted(ConnId(1), Mono(0)) }.proven()
    }

    fn proven(mut self) -> Self {
        self.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        self.session.admit();
        self.write();
        while !self.secure.is_established() {
            assert!(self.read(), "the node does not accept the key");
        }
        self
    }

    fn write(&mut self) {
        for bytes in self.secure.take_wire() {
            // The node may have ended the connection; what it said before is still read.
            let _ = self.stream.write_all(&bytes);
        }
    }

    /// Takes in what comes next; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = vec![0; 64 << 10];
        let len = match self.stream.read(&mut bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("waiting for the node: {error}"),
        };
        if len == 0 {
            return false;
        }
        self.secure.wire_input(&bytes[..len]).unwrap();
        while let Some(plain) = self.secure.take_plain() {
            self.session.feed(Mono(0), &plain);
        }
        self.write();
        true
    }

    /// Says something.
    pub(crate) fn says(&mut self, kind: FrameKind, head: Head, payload: Vec<u8>) {
        self.session.send(Now::default(), kind, head, payload.into());
        self.secure.send_plain(&self.session.take_out()).unwrap();
        self.write();
    }

    /// What the node says next, but for signs of life; nothing if it ended the connection.
    #[track_caller]
    pub(crate) fn hears(&mut self) -> Option<(FrameHeader, Frame)> {
        loop {
            match self.session.poll().unwrap() {
                Some((_, Frame::Heartbeat)) => {}
                Some(frame) => return Some(frame),
                None if self.read() => {}
                None => return None,
            }
        }
    }
}

fn config(node: &Node) -> Config {
    Config::load(&node.dir).unwrap()
}

/// What `node` would say of itself if it had nothing.
pub(crate) fn hello_of(node: &Node) -> Hello {
    let config = config(node);
    Hello {
        version: PROTOCOL_VERSION,
        floor: PROTOCOL_FLOOR,
        features: 0,
        pair: config.engine.pair,
        ordinal: config.engine.ordinal,
        role: config.initial_role,
        serving: false,
        end: Default::default(),
        applied: Default::default(),
        table: Vec::new(),
        name: config.engine.name,
        known: Default::default(),
        relied_on: Default::default(),
        door: None,
        copied: false,
    }
}

/// Where `node` would be called.
pub(crate) fn in_place_of(node: &Node) -> TcpListener {
    let listener = TcpListener::bind(config(node).link_listen).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}
