//! Where everything of a node lies. No other file of the crate spells these names.

use crate::base::limits::NUMBER_MAX;
use crate::base::{JournalKind, SegmentIndex};
use std::path::{Path, PathBuf};

/// Ending of the names of files that wait to become segments again.
pub(in crate::node) const RETIRED: &str = "old";

/// A node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

/// File name of the admin socket.
pub(in crate::node) const ADMIN_SOCKET: &str = "admin.sock";

impl Layout {
    /// Of the node in `dir`. Touches nothing.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Role and epochs, see [`crate::format::control`].
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// The node's private key (PKCS#8 PEM, mode 0600).
    #[must_use]
    pub fn identity_key(&self) -> PathBuf {
        self.dir.join("identity.key")
    }

    /// The node's certificate (PEM).
    #[must_use]
    pub fn identity_certificate(&self) -> PathBuf {
        self.dir.join("identity.crt")
    }

    /// The keys that this node accepts: one identity string a line.
    #[must_use]
    pub fn peers(&self) -> PathBuf {
        self.dir.join("peers")
    }

    /// The segments of a journal.
    #[must_use]
    pub fn journal(&self, journal: JournalKind) -> PathBuf {
        self.dir.join("journal").join(journal.name())
    }

    /// One segment.
    #[must_use]
    pub fn segment(&self, journal: JournalKind, index: SegmentIndex) -> PathBuf {
        self.journal(journal).join(Self::segment_name(index))
    }

    /// A segment that was released, while its file waits to become another.
    #[must_use]
    pub fn retired(&self, journal: JournalKind, index: SegmentIndex) -> PathBuf {
        self.segment(journal, index).with_extension(RETIRED)
    }

    /// A segment's file name.
    #[must_use]
    pub fn segment_name(index: SegmentIndex) -> String {
        format!("{:016x}.seg", index.0)
    }

    /// The segment of that file name, if it is one.
    #[must_use]
    pub fn segment_index(file_name: &str) -> Option<SegmentIndex> {
        let index = SegmentIndex(u64::from_str_radix(file_name.strip_suffix(".seg")?, 16).ok()?);
        (Self::segment_name(index) == file_name && index.0 <= NUMBER_MAX).then_some(index)
    }

    /// The record store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// What the volumes hold.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    /// What this node had and the pair never kept.
    #[must_use]
    pub fn diverged(&self) -> PathBuf {
        self.dir.join("diverged")
    }

    /// What people should know, newest last: one JSON object a line.
    #[must_use]
    pub fn incidents(&self) -> PathBuf {
        self.dir.join("incidents.jsonl")
    }

    /// Where the command line reaches the daemon.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join(ADMIN_SOCKET)
    }

    /// The RESP door for the node's own user.
    #[must_use]
    pub fn resp_socket(&self) -> PathBuf {
        self.dir.join("resp.sock")
    }

    /// The NBD door for the node's own user.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }

    /// Held by whoever may change the directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// A path of the config file: relative ones start here.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_segment_names_are_segments() {
        let name = Layout::segment_name(SegmentIndex(0x1f));
        assert_eq!(name, "000000000000001f.seg");
        assert_eq!(Layout::segment_index(&name), Some(SegmentIndex(0x1f)));
        for bad in
            ["1f.seg", "000000000000001F.seg", "+00000000000001f.seg", "000000000000001f.seg.new", ".seg", ""]
        {
            assert_eq!(Layout::segment_index(bad), None, "{bad}");
        }
    }
}
