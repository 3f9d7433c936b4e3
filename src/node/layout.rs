//! Where everything of a node lies. No other file of the crate spells these names.

use crate::base::limits::{NUMBER_MAX, VIEW_NAME_MAX};
use crate::base::{JournalKind, SegmentIndex};
use crate::io::{Access, Demand, Distrust, Own, check_dir, read_trusted, read_trusted_text};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Ending of a segment's file name.
const SEGMENT: &str = ".seg";
/// Ending of the names of files that wait to become segments again.
const RETIRED: &str = ".old";
/// Ending of a segment's file name while it is being made.
const UNFINISHED: &str = ".seg.tmp";

/// Every file that this program replaces, renames or removes in a node's directory. What is not in this list is somebody
/// else's and stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum OwnName {
    /// See [`Layout::config`].
    Config,
    /// See [`Layout::control`].
    Control,
    /// See [`Layout::identity_key`].
    IdentityKey,
    /// See [`Layout::identity_certificate`].
    IdentityCertificate,
    /// See [`Layout::peers`].
    Peers,
    /// See [`Layout::lock`].
    Lock,
    /// See [`Layout::licence`].
    Licence,
    /// See [`Layout::licence_record`].
    LicenceRecord,
    /// See [`Layout::scrub`].
    Scrub,
    /// See [`Layout::compare`].
    Compare,
    /// See [`Layout::spool`].
    Spool,
    /// See [`Layout::resync_plan`].
    ResyncPlan,
    /// See [`Layout::saves`].
    Saves,
    /// See [`Layout::incidents`].
    Incidents,
    /// The incidents before those.
    OldIncidents,
    /// See [`Layout::stats`].
    Stats,
    /// See [`Layout::audit`].
    Audit,
    /// What was changed before that.
    OldAudit,
    /// See [`Layout::records`].
    Records,
    /// See [`Layout::admin_socket`].
    AdminSocket,
    /// See [`Layout::segment`].
    Segment(JournalKind, SegmentIndex),
    /// See [`Layout::retired`].
    Retired(JournalKind, SegmentIndex),
    /// See [`Layout::restoring`].
    Restoring,
    /// Entries that the pair never kept, in [`Layout::diverged`].
    Diverged(String),
    /// See [`Layout::view_file`].
    View(String, ViewFile),
}

/// A file of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum ViewFile {
    /// What volumes held before they were changed.
    Kept,
    /// What clients of the view wrote to volumes.
    Written,
    /// Its RESP door.
    Resp,
    /// Its NBD door.
    Nbd,
    /// What volumes held before they were changed during a save. It has its name for a moment alone.
    Saved,
}

impl ViewFile {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Kept, "kept"),
        (Self::Written, "written"),
        (Self::Resp, "resp.sock"),
        (Self::Nbd, "nbd.sock"),
        (Self::Saved, "saved"),
    ];

    fn end(self) -> &'static str {
        Self::ALL.iter().find(|(file, _)| *file == self).map_or("", |(_, end)| end)
    }
}

/// Whether this is the name of a view: it stands in names of files.
pub(in crate::node) fn is_view_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=VIEW_NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// A node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

/// File name of the admin socket.
pub(in crate::node) const ADMIN_SOCKET: &str = "admin.sock";
/// The socket of the RESP door for the node's own user.
pub(crate) const RESP_SOCKET: &str = "resp.sock";
/// The door for volumes of the node's own user.
pub(crate) const NBD_SOCKET: &str = "nbd.sock";
const CONFIG: &str = "config.toml";
const CONTROL: &str = "control";
const IDENTITY_KEY: &str = "identity.key";
const IDENTITY_CERTIFICATE: &str = "identity.crt";
const PEERS: &str = "peers";
const LOCK: &str = "lock";
const LICENCE: &str = "licence";
const LICENCE_RECORD: &str = "licence.record";
const SCRUB: &str = "scrub";
const COMPARE: &str = "compare";
const SPOOL: &str = "spool";
const RESYNC_PLAN: &str = "resync-plan.json";
const SAVES: &str = "saves";
const INCIDENTS: &str = "incidents.jsonl";
const STATS: &str = "stats";
const AUDIT: &str = "audit.jsonl";
const OLD_AUDIT: &str = "audit.jsonl.old";
const RECORDS: &str = "records";
const RESTORING: &str = "restoring";
const OLD_INCIDENTS: &str = "incidents.jsonl.old";

/// The segment whose file name is `name`, with `end` behind its number.
fn index_before(name: &str, end: &str) -> Option<SegmentIndex> {
    let digits = name.strip_suffix(end)?;
    let index = u64::from_str_radix(digits, 16).ok()?;
    (format!("{index:016x}") == digits && index <= NUMBER_MAX).then_some(SegmentIndex(index))
}

impl Layout {
    /// Of the node in `dir`. Touches nothing.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Reads a file of the node, whose directory and owner must be believed.
    ///
    /// # Errors
    /// [`Distrust`].
    pub(in crate::node) fn read(&self, path: &Path, secret: bool, most: usize) -> Result<Vec<u8>, Distrust> {
        check_dir(&self.dir, Access::Read)?;
        read_trusted(path, Demand { most, secret, linked: false })
    }

    /// The same as text.
    ///
    /// # Errors
    /// [`Distrust`].
    pub(in crate::node) fn read_text(
        &self,
        path: &Path,
        secret: bool,
        most: usize,
    ) -> Result<String, Distrust> {
        check_dir(&self.dir, Access::Read)?;
        read_trusted_text(path, Demand { most, secret, linked: false })
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file of the node's own, which may be replaced and removed.
    pub(in crate::node) fn own(&self, name: OwnName) -> Own {
        let here = |name| Own::new(&self.dir, name);
        let segment = |journal, index: SegmentIndex, end| {
            Own::new(&self.journal(journal), &format!("{:016x}{end}", index.0))
        };
        match name {
            OwnName::Config => here(CONFIG),
            OwnName::Control => here(CONTROL),
            OwnName::IdentityKey => here(IDENTITY_KEY),
            OwnName::IdentityCertificate => here(IDENTITY_CERTIFICATE),
            OwnName::Peers => here(PEERS),
            OwnName::Lock => here(LOCK),
            OwnName::Licence => here(LICENCE),
            OwnName::LicenceRecord => here(LICENCE_RECORD),
            OwnName::Scrub => here(SCRUB),
            OwnName::Compare => here(COMPARE),
            OwnName::Spool => here(SPOOL),
            OwnName::ResyncPlan => here(RESYNC_PLAN),
            OwnName::Saves => here(SAVES),
            OwnName::Incidents => here(INCIDENTS),
            OwnName::OldIncidents => here(OLD_INCIDENTS),
            OwnName::Stats => here(STATS),
            OwnName::Audit => here(AUDIT),
            OwnName::OldAudit => here(OLD_AUDIT),
            OwnName::Records => here(RECORDS),
            OwnName::Restoring => here(RESTORING),
            OwnName::AdminSocket => here(ADMIN_SOCKET),
            OwnName::Segment(journal, index) => segment(journal, index, SEGMENT),
            OwnName::Retired(journal, index) => segment(journal, index, RETIRED),
            OwnName::Diverged(name) => Own::new(&self.diverged(), &name),
            OwnName::View(name, file) => here(&format!("view-{name}.{}", file.end())),
        }
    }

    /// What a process that was killed may have left and nobody needs: a control file that did not get its name, segments
    /// in the making, and files that wait to become segments again. To be asked by the holder of the directory's lock.
    ///
    /// # Errors
    /// A journal's directory cannot be listed.
    pub(in crate::node) fn leftovers(&self) -> io::Result<Vec<Own>> {
        let replaced = [
            OwnName::Control,
            OwnName::Scrub,
            OwnName::Compare,
            OwnName::LicenceRecord,
            OwnName::Stats,
            OwnName::Spool,
            OwnName::Records,
        ];
        let mut found: Vec<Own> = replaced.into_iter().map(|name| self.own(name).temporary()).collect();
        for journal in JournalKind::ALL {
            for (file, _) in self.segments_named(journal, UNFINISHED)? {
                found.push(file);
            }
            found.extend(self.retired_files(journal)?);
        }
        found.extend(self.view_files()?);
        Ok(found)
    }

    /// What views left: they are gone with the process that had them.
    fn view_files(&self) -> io::Result<Vec<Own>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix("view-")?.split_once('.'));
            let Some((name, end)) = name.filter(|(name, _)| is_view_name(name)) else { continue };
            let Some((file, _)) = ViewFile::ALL.into_iter().find(|(_, known)| *known == end) else {
                continue;
            };
            let socket = matches!(file, ViewFile::Resp | ViewFile::Nbd);
            if entry.file_type().is_ok_and(|kind| if socket { kind.is_socket() } else { kind.is_file() }) {
                found.push(self.own(OwnName::View(name.to_owned(), file)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// A file of a view, which is there as long as that is open.
    #[must_use]
    pub(in crate::node) fn view_file(&self, name: &str, file: ViewFile) -> PathBuf {
        self.own(OwnName::View(name.to_owned(), file)).path().to_owned()
    }

    /// The files of a journal that wait to become segments again, oldest first.
    ///
    /// # Errors
    /// The journal's directory cannot be listed.
    pub(in crate::node) fn retired_files(&self, journal: JournalKind) -> io::Result<Vec<Own>> {
        Ok(self.segments_named(journal, RETIRED)?.into_iter().map(|(file, _)| file).collect())
    }

    /// The regular files of a journal with exactly the name of a segment but for its end, in order.
    fn segments_named(&self, journal: JournalKind, end: &str) -> io::Result<Vec<(Own, SegmentIndex)>> {
        let dir = self.journal(journal);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(index) = index_before(name, end) else { continue };
            // Gone since it was listed: the other thread took it.
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                found.push((Own::new(&dir, name), index));
            }
        }
        found.sort();
        Ok(found)
    }

    /// What was counted, see [`super::kept_stats`].
    #[must_use]
    pub fn stats(&self) -> PathBuf {
        self.dir.join(STATS)
    }

    /// Who changed what, see [`super::audit`].
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.dir.join(AUDIT)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// Role and epochs, see [`crate::format::control`].
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join(CONTROL)
    }

    /// The node's private key (PKCS#8 PEM, mode 0600).
    #[must_use]
    pub fn identity_key(&self) -> PathBuf {
        self.dir.join(IDENTITY_KEY)
    }

    /// The node's certificate (PEM).
    #[must_use]
    pub fn identity_certificate(&self) -> PathBuf {
        self.dir.join(IDENTITY_CERTIFICATE)
    }

    /// The keys that this node accepts: one identity string a line.
    #[must_use]
    pub fn peers(&self) -> PathBuf {
        self.dir.join(PEERS)
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
        self.own(OwnName::Retired(journal, index)).path().to_owned()
    }

    /// A segment's file name.
    #[must_use]
    pub fn segment_name(index: SegmentIndex) -> String {
        format!("{:016x}{SEGMENT}", index.0)
    }

    /// The segment of that file name, if it is one.
    #[must_use]
    pub fn segment_index(file_name: &str) -> Option<SegmentIndex> {
        index_before(file_name, SEGMENT)
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

    /// How far scrubs are, see [`crate::format::scrub`].
    #[must_use]
    pub fn scrub(&self) -> PathBuf {
        self.dir.join(SCRUB)
    }

    /// What is known of the last compare, see [`crate::format::compare`].
    #[must_use]
    pub fn compare(&self) -> PathBuf {
        self.dir.join(COMPARE)
    }

    /// The spool that an operator chose, see [`crate::node::spool`].
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.dir.join(SPOOL)
    }

    /// The long way round that is under way, see [`crate::node::resync_plan`].
    #[must_use]
    pub fn resync_plan(&self) -> PathBuf {
        self.dir.join(RESYNC_PLAN)
    }

    /// Saves of this node, see [`crate::node::saves`].
    #[must_use]
    pub fn saves(&self) -> PathBuf {
        self.dir.join(SAVES)
    }

    /// Incidents as records, and what waits to be told of them.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.dir.join(RECORDS)
    }

    /// What people should know, newest last: one JSON object a line.
    #[must_use]
    pub fn incidents(&self) -> PathBuf {
        self.dir.join(INCIDENTS)
    }

    /// There while a save is restored to this directory: it is no whole node then.
    #[must_use]
    pub fn restoring(&self) -> PathBuf {
        self.dir.join(RESTORING)
    }

    /// Where the command line reaches the daemon.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join(ADMIN_SOCKET)
    }

    /// The RESP door for the node's own user.
    #[must_use]
    pub fn resp_socket(&self) -> PathBuf {
        self.dir.join(RESP_SOCKET)
    }

    /// The NBD door for the node's own user.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.dir.join(NBD_SOCKET)
    }

    /// The licence, as it was installed; see [`crate::format::licence`].
    #[must_use]
    pub fn licence(&self) -> PathBuf {
        self.dir.join(LICENCE)
    }

    /// What is known of the tests of the licence.
    #[must_use]
    pub fn licence_record(&self) -> PathBuf {
        self.dir.join(LICENCE_RECORD)
    }

    /// Held by whoever may change the directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join(LOCK)
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

    #[test]
    fn only_what_a_node_itself_left_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let own = ["000000000000001f.old", "000000000000001f.seg.tmp"];
        let foreign = [
            "000000000000001f.seg",
            "1f.old",
            "000000000000001F.old",
            "notes.old",
            "x.tmp",
            ".old",
            "000000000000001f.seg.old",
            "000000000000001f.tmp",
        ];
        for journal in JournalKind::ALL {
            let place = layout.journal(journal);
            std::fs::create_dir_all(place.join("00000000000000aa.old")).unwrap();
            own.iter().chain(&foreign).for_each(|name| std::fs::write(place.join(name), "x").unwrap());
            let victim = dir.path().join("victim");
            std::os::unix::fs::symlink(victim, place.join("00000000000000bb.old")).unwrap();
        }
        let views = ["view-a-1.kept", "view-a-1.written"];
        let not_views = [
            "view-a-1.kept.old",
            "view-A.kept",
            "view-.kept",
            "view-a.sums",
            "xview-a.kept",
            "view-a.resp.sock",
        ];
        views.iter().chain(&not_views).for_each(|name| std::fs::write(dir.path().join(name), "x").unwrap());
        std::os::unix::net::UnixListener::bind(dir.path().join("view-a.nbd.sock")).unwrap();
        for name in ["config.toml.old", "incidents.jsonl.old", "config.toml.tmp", "control.tmp", "peers.new"]
        {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let found = layout.leftovers().unwrap();
        let mut expected =
            [".control", ".scrub", ".compare", ".licence.record", ".stats", ".spool", ".records"]
                .map(|name| dir.path().join(format!("{name}.hot-backup-tmp")))
                .to_vec();
        for journal in JournalKind::ALL {
            expected.extend(own.iter().rev().map(|name| layout.journal(journal).join(name)));
        }
        expected.extend(views.iter().chain(&["view-a.nbd.sock"]).map(|name| dir.path().join(name)));
        assert!(found.iter().map(Own::path).eq(expected.iter().map(PathBuf::as_path)), "{found:#?}");
    }
}
