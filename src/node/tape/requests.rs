//! Requests to people: which reel, why, since when. A request stands in a file beside the reels as long as somebody waits, and
//! is answered by bringing the reel, or by a word in another file.

use super::catalogue::own;
use super::{TapeError, TapeOptions};
use crate::base::limits::ANSWER_MAX;
use crate::base::{read_at_most, text_at_most};
use serde::{Deserialize, Serialize};
use std::fs::File;

const REQUEST: &str = "request.json";
const ANSWER: &str = "answer";
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
pub(in crate::node) enum Answer {
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
    let bytes = match File::open(dir.join(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.and_then(|file| read_at_most(file, ANSWER_MAX)),
    };
    let bytes = bytes.map_err(failed("reading", options, REQUEST))?;
    let request: Option<Request> = serde_json::from_slice(&bytes).ok();
    // Who was killed waits no more.
    Ok(request.filter(|request| std::path::Path::new(&format!("/proc/{}", request.pid)).exists()))
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
pub(in crate::node) fn ask(options: &TapeOptions, request: &Request) -> Result<(), TapeError> {
    let (dir, name) = options.note(REQUEST);
    let bytes = serde_json::to_vec(request).unwrap_or_default();
    own(&dir, &name).replace(&bytes).map_err(failed("writing", options, REQUEST))
}

/// Takes the answer, if there is one.
pub(in crate::node) fn take_answer(options: &TapeOptions) -> Option<Answer> {
    let (dir, name) = options.note(ANSWER);
    let text = File::open(dir.join(&name)).and_then(|file| text_at_most(file, ANSWER_MAX)).ok()?;
    own(&dir, &name).remove().ok()?;
    Some(if text.trim() == GIVE_UP { Answer::GiveUp } else { Answer::Mounted })
}

/// The request is over.
pub(in crate::node) fn close(options: &TapeOptions) {
    for what in [REQUEST, ANSWER] {
        let (dir, name) = options.note(what);
        let _ = own(&dir, &name).remove();
    }
}
