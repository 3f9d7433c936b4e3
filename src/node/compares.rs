//! The thread that reads and hashes for a compare what the apply thread has looked at between two batches, and keeps the
//! certificate of the last one. It gives way to all others.

use super::apply::fault;
use super::inbox::{CoreEnded, Inbox};
use super::layout::{Layout, OwnName};
use crate::base::{JournalKind, Seq};
use crate::engine::CompareEvent;
use crate::engine::view::listing_of;
use crate::format::compare::{Found, Span, What};
use crate::format::compared::{COMPARED_MAX, Compared};
use crate::store::tree_store::Moment;
use crate::store::{LookRead, StoreError};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// How far this thread gives way.
const COMPARE_NICE: i32 = 19;

/// What it is to do.
pub(crate) enum CompareJob {
    /// Read what was looked at, and tell what is wanted of it.
    Read(Reading),
    /// Keep a certificate.
    Keep(Vec<u8>),
    /// Carry out a read command at a moment.
    List {
        /// The look.
        look: u64,
        /// The command.
        query: Bytes,
        /// The moment.
        moment: Box<Moment>,
    },
}

/// A look between two batches.
pub(crate) struct Reading {
    /// Its number.
    pub(crate) look: u64,
    /// The last entry that it shows.
    pub(crate) at: Seq,
    /// What was looked at.
    pub(crate) span: Span,
    /// What is wanted of it.
    pub(crate) what: What,
    /// Reads it.
    pub(crate) read: LookRead,
}

impl std::fmt::Debug for CompareJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(reading) => write!(f, "Read({})", reading.look),
            Self::List { look, .. } => write!(f, "List({look})"),
            Self::Keep(bytes) => write!(f, "Keep({} bytes)", bytes.len()),
        }
    }
}

/// Reads until the core is gone or `stop` is set.
pub(crate) fn run(layout: &Layout, work: &Receiver<CompareJob>, inbox: &Inbox, stop: &AtomicBool) {
    let _ = crate::io::give_way(COMPARE_NICE);
    let kept = Box::new(found(layout));
    if inbox.event(CompareEvent::Known { kept }) == Err(CoreEnded) {
        return;
    }
    while let Ok(job) = work.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match job {
            CompareJob::Keep(bytes) => {
                if let Err(error) = layout.own(OwnName::Compare).replace(&bytes) {
                    tracing::warn!("writing {}: {error}", layout.compare().display());
                }
                if inbox.event(CompareEvent::Kept) == Err(CoreEnded) {
                    return;
                }
            }
            CompareJob::List { look, query, moment } => {
                let at = moment.applied[JournalKind::Replicated.index()];
                let found = listed_at(*moment, &query);
                if inbox.event(CompareEvent::Looked { look, at, found }) == Err(CoreEnded) {
                    return;
                }
            }
            CompareJob::Read(Reading { look, at, span, what, read }) => {
                let found = match read() {
                    Ok(chunk) => Found::of(chunk, &span, what),
                    Err(error) => unread(&error),
                };
                if inbox.event(CompareEvent::Looked { look, at, found }) == Err(CoreEnded) {
                    return;
                }
            }
        }
    }
}

/// The lines that a command answers.
fn listed_at(moment: Moment, query: &[u8]) -> Found {
    listing_of(moment.namespace, moment.items, query).map_or_else(
        |why| {
            tracing::warn!(
                "carrying out {} to compare it: {why}",
                String::from_utf8_lossy(query).escape_debug()
            );
            Found::Unread
        },
        Found::Details,
    )
}

/// What is told of a look that failed.
pub(super) fn unread(error: &StoreError) -> Found {
    tracing::warn!("looking at a range to compare it: {error} ({})", fault(error));
    Found::Unread
}

/// What is kept of compares; if that cannot be read, none is known of.
fn found(layout: &Layout) -> Compared {
    let path = layout.compare();
    if !path.exists() {
        return Compared::default();
    }
    let read = layout.read(&path, false, COMPARED_MAX + 1).map_err(|error| error.to_string());
    let found = read.and_then(|bytes| Compared::decode(&bytes).map_err(|error| error.to_string()));
    found.unwrap_or_else(|error| {
        tracing::warn!("reading {}: {error}; the last compare is not known", path.display());
        Compared::default()
    })
}
