//! What people are told of, each matter by its fixed word: that it began, that it is over, that it began anew.
//!
//! A **trouble** lasts: it is told when it begins and when it ends, not in between, and a second one is told like the
//! first. An **event** happens and is told. Nothing decides by what was told. Warnings and criticals that repeat are
//! paced by [`Repeats`], so that a disk or a link that fails many times a second makes a line a minute.

use super::core::Core;
use super::effect::{Effect, Incident, Severity};
use crate::base::limits::{INCIDENT_BURST, INCIDENTS_MAX, REPEAT_KEYS_MAX, REPEAT_QUIET_MS};
use crate::base::shown::Grouped;
use crate::base::{Mono, Now, Repeats, Telling};
use crate::store::StoreRead;
use std::collections::VecDeque;

/// One row of the table of matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The fixed word for programs.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The words under which its end is told; of a trouble without one the end is not told, or as another matter.
    pub ends: &'static [&'static str],
    /// What people can do.
    pub advice: &'static str,
}

macro_rules! matters {
    ($($name:ident $code:literal $severity:ident [$($end:literal)*] $advice:literal;)*) => {
        /// What an incident is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each has its row, with its word and what to do")]
        pub enum Matter { $($name),* }

        impl Matter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its row.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        code: $code,
                        severity: Severity::$severity,
                        ends: &[$($end),*],
                        advice: $advice,
                    },)*
                }
            }
        }
    };
}

matters! {
    // Troubles of this node's disk.
    JournalPoisoned "journal-poisoned" Critical []
        "check the disk (`dmesg`); nothing acknowledged is lost";
    JournalFailed "journal-failed" Critical []
        "check the disk (`dmesg`), then restart the node; if the disk is lost, take over on the peer";
    JournalNoSpace "journal-no-space" Critical ["journal-space"]
        "make room on the disk of the journal; updates go on by themselves";
    JournalUnmade "journal-unmade" Critical ["journal-space"]
        "let the node write into its directory (mount, permissions, open files); updates go on by themselves";
    JournalHangs "journal-hangs" Critical ["journal-moves"]
        "check the disk of the journal (`dmesg`); updates go on by themselves, or take over on the peer";
    StoreFailed "store-failed" Critical ["store-back"]
        "check the disk of the store (`dmesg`, `df`); it is tried again by itself, after a failed sync at a restart";
    ReplayFailed "replay-failed" Critical ["replay-back"]
        "check the disk of the journal (`dmesg`); it is tried again by itself";
    CheckpointFailed "checkpoint-failed" Warning ["checkpoint-back"]
        "check the disk of the store (`dmesg`, `df`); the journal grows until it succeeds";
    ControlFailed "control-failed" Critical ["control-back"]
        "let the node write into its directory; it is tried again by itself";
    DivergedUnsaved "diverged-unsaved" Critical []
        "make room in the node's directory; it is tried again by itself";
    DefinitionRefused "definition-refused" Critical []
        "keep both directories and ask for help: the two nodes may differ";
    ItemDamaged "item-damaged" Critical []
        "check the disk (`dmesg`); it comes again from the peer by itself, if that has it whole";
    VolumeDamaged "volume-damaged" Critical ["volume-whole"]
        "check the disk (`dmesg`); it comes again from the peer by itself, if that has it whole";
    BothDamaged "both-damaged" Critical []
        "write these blocks or items again from a backup or by the program that uses them";
    ChecksumsLost "checksums-lost" Critical []
        "check the disk (`dmesg`); run `hot-backup scrub`: until then the volume's reads are not checked";
    SpoolFull "spool-full" Critical ["spool-room"]
        "make room on the disk of the spool, raise spool_limit, or bring the peer back; `hot-backup status` says how long there is room";
    SpoolFailed "spool-failed" Critical ["spool-back"]
        "check the disk of the spool (`dmesg`, mount, permissions); it is tried again by itself";
    SpoolDamaged "spool-damaged" Critical []
        "run `hot-backup spool verify` and check the disk of the spool (`dmesg`)";
    SpoolStray "spool-stray" Warning []
        "see `hot-backup spool list`; remove the files of that history when nobody needs them any more";
    ReelWanted "reel-wanted" Critical ["reel-there"]
        "bring the reel that it names; it is seen by itself. See `hot-backup spool status`, docs/runbooks/tape.md";
    TapeFailed "tape-failed" Critical ["tape-back"]
        "check the drive (`dmesg`, its display) and clean it; it is tried again by itself";
    TapeAlert "tape-alert" Critical []
        "do what it says: the drive set that flag by itself (TapeAlert); the spool goes on as long as the drive takes blocks";
    TapeWarning "tape-warning" Warning []
        "do what it says: the drive set that flag by itself (TapeAlert)";
    TapeNote "tape-note" Notice [] "";
    Spooling "spooling" Warning []
        "bring the peer back; `hot-backup status` says how long there is room";
    // Troubles of the pair.
    NodesDiffer "nodes-differ" Critical ["nodes-agree"]
        "see `hot-backup status`; `hot-backup compare --repair` gives the standby the primary's content where they differ";
    PeerLost "peer-lost" Warning ["peer-follows" "following"]
        "look at the peer and the network between; the nodes connect by themselves";
    PeerStuck "peer-stuck" Warning ["peer-moves"]
        "look at the peer's disk and at the network; see `hot-backup status` there";
    PeerDropped "peer-dropped" Critical []
        "the peer is given a copy of everything when it is back; a larger quota of the journal prevents that";
    PeerRefused "peer-refused" Warning []
        "see whether both nodes are of one pair (`hot-backup identity`, `hot-backup trust`)";
    RefusedByPeer "refused-by-peer" Warning []
        "see `hot-backup incidents` on the peer";
    EntriesMissing "entries-missing" Critical ["entries-back"]
        "let the primary catch this node up, or set it up anew; do not take over if the primary can be had";
    PeerSetBack "peer-set-back" Critical ["peer-whole"]
        "let the peer catch up, or set it up anew; until then this node's disk is the only one";
    PeerTwice "peer-twice" Critical []
        "stop the copy of the peer's directory that is served at the other address";
    NeedsFullSync "needs-full-sync" Critical []
        "run `hot-backup resync` on the primary; a peer of an older version that takes no copy is upgraded first";
    HistoryDiffers "history-differs" Critical []
        "stop the node that holds the wrong history and set it up anew";
    StateSetBack "state-set-back" Critical []
        "if the peer has the newer state, stop this node and take over there";
    CatchUpFailed "catch-up-failed" Critical []
        "check the disk of the journal (`dmesg`); the peer is caught up anew";
    CopyFailed "copy-failed" Warning []
        "check the disk of the store; the copy begins anew";
    WaitingForPeer "waiting-for-peer" Warning ["serving"]
        "start the peer; if it is gone for good: `hot-backup start --alone`";
    Degraded "degraded" Warning ["restored"]
        "bring the peer back; until then updates are safe on this disk alone";
    NoEpoch "no-epoch" Critical []
        "keep the node's directory and ask for help: its numbers are used up";
    // Troubles of the licence.
    LicenceEnds "licence-ends" Warning ["licence-good"]
        "ask the distributor for the next licence; `hot-backup license install` takes it while the node runs";
    LicenceBad "licence-bad" Warning ["licence-good"]
        "see `hot-backup license show`; ask the distributor for a licence of these two nodes and install it";
    LicenceOver "licence-over" Critical ["licence-good"]
        "ask the distributor for a licence and install it; until then a link that ends is not begun anew";
    ClockBack "clock-back" Warning ["clock-right"]
        "set the clock of the machine right; if it was ahead before, ask the distributor for a new licence";
    // What the watches see.
    CanaryLate "canary-late" Warning ["canary-back"]
        "look at the part that is named: the disk here, the network, the peer's disk, the peer's store";
    PeerLags "peer-lags" Warning ["peer-keeps-up"]
        "give the standby a faster disk or link, or the primary less to write: what it lacks is lost if this disk is";
    LinkQuiet "link-quiet" Warning ["link-speaks"]
        "look at the network between the nodes and at the load of the peer";
    NotAnnounced "not-announced" Warning ["announced"]
        "look at the disk of the primary, and at `hot-backup incidents` there";
    ApplyStalled "apply-stalled" Warning ["apply-moves"]
        "check the disk of the store (`dmesg`, `iostat`); what clients change is in the journal meanwhile";
    ClocksDiffer "clocks-differ" Warning ["clocks-agree"]
        "set the clocks of both machines (`timedatectl`): nothing depends on them but what people read";
    VersionsDiffer "versions-differ" Warning ["versions-agree"]
        "give both nodes the same version; until then they do what both know";
    JournalFilling "journal-filling" Warning ["journal-drained"]
        "bring the peer back, or set a larger `journal_quota_bytes`: at the quota the peer needs a copy of everything";
    DiskFilling "disk-filling" Warning ["disk-roomy"]
        "make room on the file system of the node's directory";
    NotifyFailed "notify-failed" Warning ["notify-works"]
        "see `hot-backup notify list`, correct the entry, and prove it with `hot-backup notify test`";
    LeaseOver "lease-over" Critical ["lease-back"]
        "see `hot-backup status` on both nodes; let `hot-backup watch` run here and reach etcd";
    // Events.
    LinkRefused "link-refused" Warning []
        "see whether the peer runs the same version, and who else calls at the link's port";
    ClientRefused "client-refused" Warning []
        "see who calls, and whether clients have the right address, name, password or certificate";
    AdminRefused "admin-refused" Warning []
        "see who asks at the admin socket: only the node's user and root may, and its directory is private";
    AcceptFailed "accept-failed" Warning []
        "let the process open more files (LimitNOFILE), or close clients";
    ViewEnded "view-ended" Warning []
        "open it again, with more room (`hot-backup view open --room`) or for a shorter time";
    Alone "alone" Warning []
        "make sure that the peer does not serve";
    Takeover "takeover" Warning []
        "keep the old primary from serving, then start it again as the standby";
    Fenced "fenced" Critical []
        "nothing: this node becomes the standby";
    SwitchoverGivenUp "switchover-given-up" Warning []
        "see `hot-backup switchover --dry-run`, then try again";
    HandoverUnanswered "handover-unanswered" Warning []
        "let the nodes reach each other: they settle it; if the peer is gone for good: `hot-backup start --alone`";
    Diverged "diverged" Critical []
        "nothing, or `hot-backup resync` here if on_diverged is \"wait\"; `hot-backup diverged list` has what the pair never kept";
    Renamed "renamed" Warning []
        "rename one of the two";
    Epoch "epoch" Notice [] "";
    Standby "standby" Notice [] "";
    Logging "logging" Notice [] "";
    Switchover "switchover" Notice [] "";
    TailCut "tail-cut" Notice [] "";
    Copied "copied" Notice [] "";
    Copying "copying" Notice [] "";
    Whole "whole" Notice [] "";
    Rewinding "rewinding" Notice [] "";
    Rewound "rewound" Notice [] "";
    ChecksumMended "checksum-mended" Notice [] "";
    Scrubbed "scrubbed" Notice [] "";
    Compared "compared" Notice [] "";
    Repaired "repaired" Notice [] "";
    Healed "healed" Notice [] "";
    Unspooled "unspooled" Notice [] "";
}

/// The table of all matters, as documents show it.
#[must_use]
pub fn reference() -> String {
    let mut table = "| code | severity | ends with | what to do |\n|---|---|---|---|\n".to_owned();
    for Row { code, severity, ends, advice } in Matter::ALL.iter().map(|matter| matter.row()) {
        let ends: Vec<String> = ends.iter().map(|end| format!("`{end}`")).collect();
        let cells = [format!("`{code}`"), severity.name().to_owned(), ends.join(", "), advice.to_owned()];
        for cell in cells {
            table.push_str(if cell.is_empty() { "|" } else { "| " });
            table.push_str(&cell);
            table.push(' ');
        }
        table.push_str("|\n");
    }
    table
}

/// What is over once one node follows the other.
pub(super) const FOLLOWED: [Matter; 7] = [
    Matter::NeedsFullSync,
    Matter::PeerDropped,
    Matter::PeerRefused,
    Matter::RefusedByPeer,
    Matter::HistoryDiffers,
    Matter::StateSetBack,
    Matter::CatchUpFailed,
];

impl Matter {
    /// The matter with this word.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|matter| matter.row().code == code)
    }

    /// Whether each is told, however often it comes: notices, and what a promise to clients depends on.
    fn is_always_told(code: &str) -> bool {
        let rare = |matter: Self| matter == Self::Degraded || matter.row().severity == Severity::Notice;
        Self::of(code).is_some_and(rare)
    }
}

impl From<Matter> for &'static str {
    fn from(matter: Matter) -> Self {
        matter.row().code
    }
}

/// A trouble that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) text: String,
    pub(super) since: Mono,
}

/// What was told, and what troubles there are.
#[derive(Debug)]
pub(super) struct Incidents {
    recent: VecDeque<Incident>,
    count: u64,
    troubles: Vec<Trouble>,
    /// By the word of the matter, so that a beginning and its end are told as one.
    repeats: Repeats<&'static str, Incident>,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            count: 0,
            troubles: Vec::new(),
            repeats: Repeats::new(INCIDENT_BURST, REPEAT_QUIET_MS, REPEAT_KEYS_MAX),
        }
    }
}

impl Incidents {
    /// The newest ones that were told, newest last.
    pub(super) fn recent(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.recent.iter()
    }

    /// Whether this trouble has begun and not ended.
    pub(super) fn lasts(&self, matter: Matter) -> bool {
        self.troubles.iter().any(|trouble| trouble.code == matter.row().code)
    }

    #[cfg(test)]
    pub(super) fn take_recent(&mut self) -> Vec<Incident> {
        self.recent.drain(..).collect()
    }

    /// How many were told.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What has begun and not ended, oldest first.
    pub(super) fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Something happened.
    fn tell(&mut self, now: Now, matter: &'static str, incident: Incident) -> Option<Incident> {
        if Matter::is_always_told(matter) {
            return Some(self.told(Telling { what: incident, unsaid: 0 }));
        }
        let telling = self.repeats.say(now.mono, matter, incident)?;
        Some(self.told(telling))
    }

    fn told(&mut self, telling: Telling<Incident>) -> Incident {
        let Telling { what: mut incident, unsaid } = telling;
        if unsaid > 0 {
            incident.text.push_str(&format!(" ({} more of this before it)", Grouped(unsaid)));
        }
        self.count += 1;
        self.recent.push_back(incident.clone());
        if self.recent.len() > INCIDENTS_MAX {
            self.recent.pop_front();
        }
        incident
    }

    /// A trouble begins, or goes on; it is told if it was not there, or if the text is another.
    fn begin(&mut self, now: Now, incident: Incident) -> Option<Incident> {
        let Incident { kind: code, severity, .. } = incident;
        if let Some(trouble) = self.troubles.iter_mut().find(|trouble| trouble.code == code) {
            if trouble.text == incident.text {
                return None;
            }
            trouble.text.clone_from(&incident.text);
        } else {
            let (text, since) = (incident.text.clone(), now.mono);
            self.troubles.push(Trouble { code, severity, text, since });
        }
        self.tell(now, code, incident)
    }

    /// A trouble is over; false if there was none.
    fn end(&mut self, code: &str) -> bool {
        let before = self.troubles.len();
        self.troubles.retain(|trouble| trouble.code != code);
        self.troubles.len() < before
    }

    /// What was held back and may be told now.
    fn due(&mut self, now: Mono) -> Vec<Incident> {
        let mut due = self.repeats.due(now);
        for telling in &mut due {
            // It may have ended without a word meanwhile.
            telling.what.lasts = self.troubles.iter().any(|trouble| trouble.code == telling.what.kind);
        }
        due.into_iter().map(|telling| self.told(telling)).collect()
    }

    /// When [`Self::due`] has something.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.repeats.deadline()
    }
}

impl<S: StoreRead> Core<S> {
    /// Tells of an event.
    pub(super) fn incident(&mut self, severity: Severity, kind: impl Into<&'static str>, text: String) {
        let kind = kind.into();
        let incident = Incident { severity, kind, text, wall_ms: self.now.wall_ms, lasts: false };
        let told = self.incidents.tell(self.now, kind, incident);
        self.out.extend(told.map(Effect::Incident));
    }

    /// A trouble begins, or goes on: tells so once.
    pub(super) fn incident_once(&mut self, severity: Severity, kind: impl Into<&'static str>, text: String) {
        let incident = Incident { severity, kind: kind.into(), text, wall_ms: self.now.wall_ms, lasts: true };
        let told = self.incidents.begin(self.now, incident);
        self.out.extend(told.map(Effect::Incident));
    }

    /// The trouble is over, if there was one: tells so under the word `over`.
    pub(super) fn incident_over(&mut self, kind: impl Into<&'static str>, over: &'static str, text: String) {
        let kind = kind.into();
        if self.incidents.end(kind) {
            self.tell_end(kind, over, text);
            self.ended(kind);
        }
    }

    /// All is well, and told so under the word `over` whether there was the trouble or not.
    pub(super) fn all_well(&mut self, kind: Matter, over: &'static str, text: String) {
        let kind = kind.into();
        let lasted = self.incidents.end(kind);
        self.tell_end(kind, over, text);
        if lasted {
            self.ended(kind);
        }
    }

    fn ended(&mut self, code: &'static str) {
        self.out.push_back(Effect::Ended { code, wall_ms: self.now.wall_ms });
    }

    fn tell_end(&mut self, kind: &'static str, over: &'static str, text: String) {
        let incident = Incident {
            severity: Severity::Notice,
            kind: over,
            text,
            wall_ms: self.now.wall_ms,
            lasts: false,
        };
        let told = self.incidents.tell(self.now, kind, incident);
        self.out.extend(told.map(Effect::Incident));
    }

    /// These troubles are over, which another incident tells or makes plain.
    pub(super) fn settled(&mut self, matters: &[Matter]) {
        for matter in matters {
            let code = matter.row().code;
            if self.incidents.end(code) {
                self.ended(code);
            }
        }
    }

    /// Tells what was held back.
    pub(super) fn pump_incidents(&mut self) {
        let due = self.incidents.due(self.now.mono);
        self.out.extend(due.into_iter().map(Effect::Incident));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * SECOND), wall_ms: seconds * 1000 }
    }

    fn full(text: &str) -> Incident {
        let Row { code: kind, severity, .. } = Matter::JournalNoSpace.row();
        Incident { severity, kind, text: text.to_owned(), wall_ms: 0, lasts: true }
    }

    fn room() -> Incident {
        Incident {
            severity: Severity::Notice,
            kind: "journal-space",
            text: "room".into(),
            wall_ms: 0,
            lasts: false,
        }
    }

    fn kinds(incidents: &Incidents) -> Vec<&'static str> {
        incidents.recent().map(|incident| incident.kind).collect()
    }

    #[test]
    fn a_second_outage_is_told_like_the_first_and_what_goes_on_is_told_once() {
        let mut incidents = Incidents::default();
        for outage in 0..3 {
            for tenth in 0..50 {
                let told = incidents.begin(at(outage * 100 + tenth), full("the disk is full"));
                assert_eq!(told.is_some(), tenth == 0);
            }
            assert_eq!(incidents.troubles().len(), 1);
            assert!(incidents.end("journal-no-space") && !incidents.end("journal-no-space"));
            assert!(incidents.tell(at(outage * 100 + 60), "journal-no-space", room()).is_some());
        }
        assert_eq!(kinds(&incidents), ["journal-no-space", "journal-space"].repeat(3));
    }

    #[test]
    fn a_trouble_that_comes_and_goes_all_the_time_makes_a_line_a_minute_and_the_last_word_is_true() {
        let mut incidents = Incidents::default();
        for second in 0..331 {
            if second % 2 == 0 {
                incidents.begin(at(second), full("the disk is full"));
            } else {
                incidents.end("journal-no-space");
                incidents.tell(at(second), "journal-no-space", room());
            }
            incidents.due(at(second).mono);
        }
        let told = incidents.count();
        assert!((9..=16).contains(&told), "{told} lines in five minutes");
        assert!(incidents.deadline().is_some(), "the last one was held back");
        assert_eq!(incidents.due(at(400).mono).len(), 1);
        let last = incidents.recent().next_back().unwrap();
        assert_eq!(last.kind, "journal-no-space");
        assert!(last.text.contains("more of this before it"), "{}", last.text);
    }

    #[test]
    fn a_promise_that_is_lowered_is_told_each_time() {
        let mut incidents = Incidents::default();
        let Row { code: kind, severity, .. } = Matter::Degraded.row();
        for n in 0..100 {
            let incident = Incident { severity, kind, text: format!("number {n}"), wall_ms: 0, lasts: true };
            assert!(incidents.tell(at(0), kind, incident).is_some());
        }
    }

    #[test]
    fn each_matter_has_a_word_of_its_own_and_says_what_to_do() {
        let mut words: Vec<&str> = Vec::new();
        for matter in Matter::ALL {
            let row = matter.row();
            assert_eq!(Matter::of(row.code), Some(*matter));
            assert!(row.code.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.code);
            assert_eq!(row.advice.is_empty(), row.severity == Severity::Notice, "{}", row.code);
            words.push(row.code);
        }
        let ends = Matter::ALL.iter().flat_map(|matter| matter.row().ends);
        assert!(ends.clone().all(|end| !words.contains(end)), "an end is no beginning");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Matter::ALL.len());
        assert!(words.len() <= REPEAT_KEYS_MAX, "none is too many to be told");
    }
}
