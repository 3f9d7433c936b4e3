//! What a node has alone, as it was at one moment, for as long as a save reads it: while it goes on, items are held by the tables
//! of the moment, and what its volumes lose is kept in a file, which has no name.

use super::layout::{Layout, OwnName, ViewFile};
use super::views::{NotHeld, ViewDesk};
use super::volumes::read_once;
use crate::base::{Seq, shown};
use crate::format::chunk::{Chunk, Want};
use crate::store::StoreError;
use crate::store::tree_store::Moment;
use crate::store::volumes::{KeepEnd, Kept, Room};
use nix::sys::statvfs::statvfs;
use std::path::PathBuf;
use std::sync::Arc;

/// What is kept may take this of the disk at most (bytes), and a quarter of what is free.
const ROOM: u64 = 1 << 30;

/// A moment. What it holds goes with it.
pub(super) struct AloneMoment {
    moment: Moment,
    kept: Arc<Kept>,
    room: Arc<Room>,
    volumes: PathBuf,
}

impl Drop for AloneMoment {
    fn drop(&mut self) {
        self.kept.close();
    }
}

impl AloneMoment {
    /// The moment as soon as the store shows these entries, by journal.
    pub(super) fn hold(layout: &Layout, views: &ViewDesk, at_least: [Seq; 2]) -> Result<Self, NotHeld> {
        let disk = statvfs(layout.dir());
        let free = disk.map_or(0, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        let room = Arc::new(Room::new(ROOM.min(free / 4)));
        let own = layout.own(OwnName::View("save".to_owned(), ViewFile::Saved));
        let file = own.remove().and_then(|_| own.make()).and_then(|file| own.remove().map(|_| file));
        let unmade = "the file for what volumes held cannot be made";
        let next = "check the disk of the node (`df`, `dmesg`), then begin it again";
        let file = file.map_err(|error| NotHeld::Not(format!("{unmade}: {error}"), next))?;
        let kept = Arc::new(Kept::new(file, Arc::clone(&room), |_| ()));
        let moment = views.hold(&kept, true, at_least).inspect_err(|_| kept.close())?;
        Ok(Self { moment, kept, room, volumes: layout.volumes() })
    }

    /// The definitions, and what they show.
    pub(super) fn shows(&self) -> &Moment {
        &self.moment
    }

    /// What a range held.
    ///
    /// # Errors
    /// Why not, and what people can do.
    pub(super) fn range(&self, want: &Want) -> Result<Chunk, (String, &'static str)> {
        let read = self.moment.range(want, &self.kept, (&self.volumes, read_once));
        read.map_err(|error: StoreError| match self.kept.end() {
            Some(KeepEnd::Room) => (
                format!(
                    "what volumes of this node alone held is overwritten too fast: the room of {} for that is used up",
                    shown::bytes(self.room.size())
                ),
                "save when less is written to them, or flag them Y to leave their content out",
            ),
            Some(KeepEnd::Failed(fault)) => (
                format!("keeping what volumes of this node alone held failed: {fault}"),
                "check the disk of the node (`df`, `dmesg`), then begin it again",
            ),
            _ => (error.to_string(), "hot-backup scrub tells what is damaged"),
        })
    }
}
