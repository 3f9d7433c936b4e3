//! Requests to people: which reel, why, since when. A request stands in a file beside the reels as long as somebody waits, and
//! is answered by bringing the reel, or by a word in another file.

use super::catalogue::own;
use super::{TapeError, TapeOptions};
use crate::base::limits::ANSWER_MAX;
use crate::base::{read_at_most, text_at_most};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;

const REQUEST: &str = "request.json";
const ANSWER: &str = "answer";
/// Drives whose requests are looked for in a directory.
const REQUESTS_MAX: usize = 16;
/// The word that ends the waiting.
const GIVE_UP: &str = "end";

/// A reel that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number, one more than that of the request before it.
    pub number: u64,
    /// Where the reel is wanted.
    pub place: String,
    /// Which reel.
    pub wanted: String,
    /// What for: read, append or write.
    pub purpose: String,
    /// Why.
    pub why: String,
    /// Why the reel that is there is not taken, if there is one.
    pub refused: Option<String>,
    /// Since when (ms since 1970).
    pub since_ms: u64,
    /// The process that waits.
    pub pid: u32,
}

/// An answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Mounted,
    GiveUp,
}

fn failed(doing: &'static str, options: &TapeOptions, what: &str) -> impl Fn(std::io::Error) -> TapeError {
    let (dir, name) = options.note(what);
    move |source| TapeError::Io { doing, what: dir.join(&name).display().to_string(), source }
}

/// The request that is open, if there is one.
///
/// # Errors
/// [`TapeError::Io`].
pub fn open_request(options: &TapeOptions) -> Result<Option<Request>, TapeError> {
    let (dir, name) = options.note(REQUEST);
    read(&dir.join(name)).map_err(failed("reading", options, REQUEST))
}

fn read(path: &Path) -> std::io::Result<Option<Request>> {
    let bytes = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => read_at_most(file?, ANSWER_MAX)?,
    };
    let request: Option<Request> = serde_json::from_slice(&bytes).ok();
    // Who was killed waits no more.
    Ok(request.filter(|request| Path::new(&format!("/proc/{}", request.pid)).exists()))
}

/// The open requests of all drives whose notes are kept in a node's directory, in the order of their names. Those that
/// cannot be read are left out.
#[must_use]
pub fn requests_in(dir: &Path) -> Vec<Request> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("tape-") && name.ends_with(REQUEST)).collect();
    names.sort();
    names.iter().take(REQUESTS_MAX).filter_map(|name| read(&dir.join(name)).ok().flatten()).collect()
}

/// Answers the open request: the reel is there, or nobody shall wait for it any more. False if nobody waits.
///
/// # Errors
/// [`TapeError::Io`].
pub fn answer(options: &TapeOptions, give_up: bool) -> Result<bool, TapeError> {
    if open_request(options)?.is_none() {
        return Ok(false);
    }
    let (dir, name) = options.note(ANSWER);
    let word = if give_up { GIVE_UP } else { "mounted" };
    own(&dir, &name).replace(word.as_bytes()).map_err(failed("writing", options, ANSWER))?;
    Ok(true)
}

/// Writes a request down.
pub(super) fn ask(options: &TapeOptions, request: &Request) -> Result<(), TapeError> {
    let (dir, name) = options.note(REQUEST);
    let bytes = serde_json::to_vec(request).unwrap_or_default();
    own(&dir, &name).replace(&bytes).map_err(failed("writing", options, REQUEST))
}

/// Takes the answer, if there is one.
pub(super) fn take_answer(options: &TapeOptions) -> Option<Answer> {
    let (dir, name) = options.note(ANSWER);
    let text = File::open(dir.join(&name)).and_then(|file| text_at_most(file, ANSWER_MAX)).ok()?;
    own(&dir, &name).remove().ok()?;
    Some(if text.trim() == GIVE_UP { Answer::GiveUp } else { Answer::Mounted })
}

/// The request is over.
pub(super) fn close(options: &TapeOptions) {
    for what in [REQUEST, ANSWER] {
        let (dir, name) = options.note(what);
        let _ = own(&dir, &name).remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tape::Place;

    #[test]
    fn the_open_requests_of_a_nodes_drives_are_found_and_those_of_the_dead_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let options = |drive: &str| TapeOptions {
            dir: Some(dir.path().to_owned()),
            ..TapeOptions::new(Place::Device(drive.into()))
        };
        let request = |place: &str, pid| Request {
            number: 1,
            place: place.to_owned(),
            wanted: "reel 2".to_owned(),
            purpose: "write".to_owned(),
            why: "the one before is full".to_owned(),
            refused: None,
            since_ms: 5,
            pid,
        };
        assert_eq!(requests_in(dir.path()), []);
        let living = std::process::id();
        ask(&options("/dev/nst1"), &request("/dev/nst1", living)).unwrap();
        ask(&options("/dev/nst0"), &request("/dev/nst0", living)).unwrap();
        ask(&options("/dev/nst2"), &request("/dev/nst2", u32::MAX)).unwrap();
        std::fs::write(dir.path().join("tape-nst3-request.json"), "no JSON").unwrap();
        let places: Vec<_> = requests_in(dir.path()).into_iter().map(|request| request.place).collect();
        assert_eq!(places, ["/dev/nst0", "/dev/nst1"]);
        close(&options("/dev/nst0"));
        assert_eq!(requests_in(dir.path()).len(), 1);
        assert_eq!(requests_in(&dir.path().join("nowhere")), []);
    }
}
