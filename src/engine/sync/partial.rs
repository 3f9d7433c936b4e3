//! A takeover with a part of a copy: the last resort where the primary is lost while its standby was incomplete.
//!
//! What is here then is less than what the old primary has, and its epoch is higher. Ordinarily that would have the old primary
//! rewound to it when it is back. So the control file says that this was a takeover with a part of a copy
//! ([`PeerRecord::partial`](crate::format::control::PeerRecord::partial)), and hellos do
//! ([`FEATURE_PARTIAL`](crate::format::frame::FEATURE_PARTIAL)):
//!
//! - Invariant: such a primary gives its content to nobody who has anything, whatever the program there is, unless its hello says
//!   that an operator accepts it.
//! - Invariant: a node that is whole stops serving when it meets such a primary, and keeps what it has. It may take over from
//!   there, though it has diverged.
//! - Invariant: what such a node has in common with another one says nothing of content: it is never made whole by the journal
//!   or a list of ranges, but by a copy.

use super::taker::{State, Taking};
use crate::base::FileId;
use crate::base::shown::bytes;
use crate::engine::core::Core;
use crate::engine::effect::StoreEffect;
use crate::format::chunk::{Chunk, Content, Next, Progress};
use crate::format::dptr::DptrKind;
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;

impl Taking {
    /// What of a file is not whole, for people; none if all of it is.
    fn lacks(&self, file: FileId, info: &FileInfo) -> Option<String> {
        if self.ranges.as_ref().is_some_and(|ranges| ranges.files_from(file).next() != Some(file)) {
            return None;
        }
        let blocks = info.dptr.kind == DptrKind::Blocks;
        let key = &info.key;
        match &self.stored.next {
            Next::Items(next, after) if !blocks && file == *next && !after.is_empty() => {
                let id = String::from_utf8_lossy(after).escape_debug().to_string();
                Some(format!("{key} (behind item {id})"))
            }
            Next::Items(next, _) if blocks || file >= *next => Some(key.clone()),
            Next::Blocks(next, offset) if blocks && file == *next && *offset > 0 => {
                Some(format!("{key} (from byte {offset} on)"))
            }
            Next::Blocks(next, _) if blocks && file >= *next => Some(key.clone()),
            _ => None,
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// Why this node, which is incomplete, cannot even take over with what it has.
    ///
    /// # Errors
    /// In words.
    pub(in crate::engine) fn check_partial(&self) -> Result<(), String> {
        match self.resync.taking.as_ref().filter(|_| !self.resync.is_leaving()).map(|taking| &taking.state) {
            Some(State::Taking) => Ok(()),
            Some(State::Checkpoint | State::Control(_) | State::Again(_)) => {
                Err("its copy is about to be whole".to_owned())
            }
            _ => {
                Err("it is incomplete, and its copy has not begun: there is nothing to take over with"
                    .to_owned())
            }
        }
    }

    /// The files that the copy has not made whole yet, for people.
    pub(in crate::engine) fn lacking_files(&self) -> Vec<String> {
        let Some(taking) = &self.resync.taking else { return Vec::new() };
        let replicated = self.namespace.files().filter(|(_, info)| info.replicated);
        replicated.filter_map(|(file, info)| taking.lacks(file, info)).collect()
    }

    /// How far the copy is.
    pub(in crate::engine) fn lacking_in_words(&self) -> String {
        let Some(taking) = &self.resync.taking else { return "nothing of it has come".to_owned() };
        let Progress { bytes: came, size, .. } = taking.stored;
        let (came, files) = (bytes(came), self.lacking_files().len());
        let of = if size > 0 { format!(" of about {}", bytes(size)) } else { String::new() };
        format!("{came}{of} came, and {files} files are not whole")
    }

    /// This node serves with what came: its store takes no more of the copy, and holds blocks to their checksums again.
    pub(in crate::engine) fn copy_ends_here(&mut self) {
        self.resync.taking = None;
        let (id, round) = (self.fresh_id(), self.appliers.replicated().round());
        let at = self.appliers.replicated().applied();
        let progress = Progress { next: Next::Nothing, ..Progress::at(self.control.origin().at) };
        let chunk = Chunk { id, file: FileId(0), at, until: at, content: Content::Gone, ends: true };
        self.effect(StoreEffect::TakeChunk { round, chunk, progress });
    }
}
