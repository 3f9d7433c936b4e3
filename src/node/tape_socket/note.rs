//! What a listener tells of itself in a file beside what it takes, and the word that ends it.

use super::listen::Keep;
use super::{SocketError, own};
use crate::base::limits::{ANSWER_MAX, SOCKET_LOOK_MS};
use crate::base::read_at_most;
use crate::io::Own;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerView {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub listen: String,
    /// Where it keeps what it takes.
    pub place: String,
    /// What is under way.
    pub stream: Option<StreamView>,
    /// Sets that it took.
    pub taken: u64,
    /// Whether it ends when that is done.
    pub draining: bool,
}

/// A stream under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// What the set is called.
    pub name: String,
    /// Its number (hexadecimal).
    pub set: String,
    /// The node that is saved.
    pub node: String,
    /// Where it comes from.
    pub from: String,
    /// Whether its sender is connected.
    pub connected: bool,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that count.
    pub counts: u64,
}

/// The files of a listener.
pub(super) struct Notes {
    view: Own,
    word: Own,
}

impl Notes {
    pub(super) fn of(keep: &Keep) -> Self {
        let (dir, stem) = keep.notes();
        let (view, word) = (format!("{stem}tape-socket.json"), format!("{stem}tape-socket.drain"));
        Self { view: own(&dir, &view), word: own(&dir, &word) }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> SocketError + use<> {
        let what = self.view.path().display().to_string();
        move |source| SocketError::Io { doing, what: what.clone(), source }
    }

    /// What the listener says that is there now; none if none is.
    pub(super) fn read(&self) -> Result<Option<ListenerView>, SocketError> {
        let bytes = match File::open(self.view.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| read_at_most(file, ANSWER_MAX)).map_err(self.failed("reading"))?,
        };
        let view: Option<ListenerView> = serde_json::from_slice(&bytes).ok();
        // One that was killed listens no more.
        Ok(view.filter(|view| Path::new(&format!("/proc/{}", view.pid)).exists()))
    }

    pub(super) fn write(&self, view: &ListenerView) -> Result<(), SocketError> {
        let bytes = serde_json::to_vec(view).unwrap_or_default();
        self.view.replace(&bytes).map_err(self.failed("writing"))
    }

    /// Whether somebody said that it shall end.
    pub(super) fn take_word(&self) -> bool {
        matches!(self.word.remove(), Ok(true))
    }

    pub(super) fn remove(&self) {
        for file in [&self.view, &self.word] {
            // What is left says a process that is no more.
            let _ = file.remove();
        }
    }
}

/// What the listener of this place does; none if there is none.
///
/// # Errors
/// [`SocketError::Io`].
pub fn status(keep: &Keep) -> Result<Option<ListenerView>, SocketError> {
    Notes::of(keep).read()
}

/// Tells the listener of this place to take nothing new and to end when what is under way is done, and waits for that. A stream
/// whose sender is away is not waited for: what counts of it stays. False if there is no listener.
///
/// # Errors
/// [`SocketError::Io`].
pub fn drain(keep: &Keep) -> Result<bool, SocketError> {
    let notes = Notes::of(keep);
    let Some(there) = notes.read()? else { return Ok(false) };
    notes.word.replace(b"drain\n").map_err(notes.failed("writing"))?;
    while notes.read()?.is_some_and(|now| now.pid == there.pid) {
        std::thread::sleep(Duration::from_millis(SOCKET_LOOK_MS));
    }
    Ok(true)
}
