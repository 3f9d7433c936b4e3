//! What the command line asks of tape sockets.

use super::failure::Failure;
use super::glue;
use crate::base::Seq;
use crate::format::set::Trailer;
use crate::node::peer_address::PeerAddress;
use crate::node::set::SetError;
use crate::node::tape::read_key;
use crate::node::tape_socket::{self, SocketError, SocketKeys};
pub(crate) use crate::node::tape_socket::{
    Keep, ListenOrder, Listened, ListenerView, SocketOrder, SocketSource,
};
use std::path::Path;

/// Where something goes: behind `tcp:`, a host and a port, and what it is called there.
pub(crate) type Remote = (PeerAddress, Option<String>);

/// Of `HOST:PORT` or `HOST:PORT/NAME`.
pub(crate) fn remote(text: &str) -> Result<Remote, String> {
    let (place, name) = match text.split_once('/') {
        Some((place, name)) => (place, Some(name.to_owned())),
        None => (text, None),
    };
    if name.as_ref().is_some_and(|name| !crate::format::socket::is_stream_name(name)) {
        return Err(
            "a name has letters, digits, '.', '_' and '-', 64 at most, and no '.' in front".to_owned()
        );
    }
    match place.parse() {
        Ok(address) => Ok((address, name)),
        Err(_) => Err("expected tcp:HOST:PORT or tcp:HOST:PORT/NAME".to_owned()),
    }
}

/// The keys that a side proves: those of a token in a file, else those of the node in `dir`.
pub(crate) fn socket_keys(dir: Option<&Path>, token: Option<&Path>) -> Result<SocketKeys, Failure> {
    match (token, dir) {
        (Some(file), _) => Ok(SocketKeys::Token(read_key(file).map_err(|error| glue::tape_failure(&error))?)),
        (None, Some(dir)) => Ok(SocketKeys::Node(dir.to_owned())),
        (None, None) => Err(Failure::error(
            "choosing keys for the way to the other machine: no node and no token is named",
            "say --dir DIR for the keys of the pair, or --token FILE for a secret that both sides have",
        )),
    }
}

fn socket_failure(error: &SocketError) -> Failure {
    Failure::error(error.to_string(), error.next())
}

/// Takes sets until it is told to end.
pub(crate) fn listen(order: ListenOrder) -> Result<Listened, Failure> {
    tape_socket::listen(order).map_err(|error| socket_failure(&error))
}

/// What the listener of a place does.
pub(crate) fn listener(keep: &Keep) -> Result<Option<ListenerView>, Failure> {
    tape_socket::status(keep).map_err(|error| socket_failure(&error))
}

/// Ends the listener of a place; false if there is none.
pub(crate) fn drain(keep: &Keep) -> Result<bool, Failure> {
    tape_socket::drain(keep).map_err(|error| socket_failure(&error))
}

/// Sends the parts of a spool; their first and last entry, and whether anything was to be sent.
pub(crate) fn send_parts(
    dir: &Path,
    order: &SocketOrder,
    progress: impl FnMut(u64),
) -> Result<((Seq, Seq), bool), Failure> {
    tape_socket::send_parts(dir, order, progress).map_err(|error: SetError| glue::set_failure(&error))
}

/// Whether a directory holds parts of a spool.
pub(crate) fn holds_parts(dir: &Path) -> bool {
    dir.is_dir() && glue::SpoolDir::at(dir.to_owned()).list().is_ok_and(|found| !found.parts.is_empty())
}

/// Sends a set; whether anything was to be sent.
pub(crate) fn send_set(
    source: &glue::Source,
    order: &SocketOrder,
    progress: impl FnMut(u64),
) -> Result<(Trailer, bool), Failure> {
    tape_socket::send_set(source, order, progress).map_err(|error: SetError| glue::set_failure(&error))
}
