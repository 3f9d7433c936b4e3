//! A plan of the long way round, as it is kept in the node's directory: what was done of it, and what comes next. The
//! arithmetic is in [`crate::engine::long_way`]; what a step does, the command line does with what there is for it.
//!
//! - Invariant: a step counts when the plan that says so is durable. Interrupted, a step is done again, and finds what was
//!   written already.

use super::layout::{Layout, OwnName};
use super::setup::{self, SetupError, distrusted, replace};
use super::spool::FILE;
use super::tape::Place;
use crate::base::limits::RESYNC_PLAN_MAX;
pub use crate::engine::long_way::{Endless, Forecast, Next, Pace, Round, takes};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What this program writes.
const VERSION: u32 = 1;

/// Why there is no plan to go on with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The directory or the file cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It cannot be understood.
    #[error("reading {}: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// What is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A directory on a disk.
    Dir(PathBuf),
    /// Reels.
    Reels(Place),
}

/// The steps, in order; the last two of a round come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The spool is begun, so that nothing is lost that comes after the save.
    #[default]
    Spool,
    /// The node is saved.
    Save,
    /// A person carries the save, and restores it there.
    CarrySave,
    /// What came since is written.
    Round,
    /// A person carries that, and restores it there.
    CarryRound,
    /// The link does the rest.
    Link,
    /// The spool is as it was.
    Release,
    /// Both are level.
    Done,
}

impl Step {
    /// Whether a person has to do something.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::CarrySave | Self::CarryRound)
    }
}

/// What is on its way, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its place, as `restore --from` takes it.
    pub place: String,
    /// The first entry behind a save; 0 of a save.
    pub from: u64,
    /// The last entry.
    pub to: u64,
    /// Its size (bytes).
    pub bytes: u64,
    /// How long it took to write (milliseconds).
    pub write_ms: u64,
    /// How long it was on its way, until a person said that it is there (milliseconds); 0 before that.
    pub way_ms: u64,
    /// Its reels; none for a disk.
    pub reels: Vec<u32>,
}

/// Which figures a person gave; the others are measured as the plan goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// What users change in a second.
    pub updates: bool,
    /// What the drive or disk takes.
    pub write: bool,
    /// What it gives.
    pub read: bool,
    /// How long the way is.
    pub carry: bool,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: u32,
    /// Where to: `file:/directory` or `tape:..`.
    pub to: String,
    /// Where the spool is.
    pub spool: String,
    /// What the spool was before: off, auto or always.
    pub spool_before: String,
    /// What is known.
    pub pace: Pace,
    /// What of it was given.
    pub given: Given,
    /// What the save takes (bytes).
    pub stored: u64,
    /// What comes next.
    pub step: Step,
    /// Since when (ms since 1970).
    pub since_ms: u64,
    /// What users changed since then is not carried yet (ms since 1970).
    pub cut_ms: u64,
    /// The round, from 1; 0 is the save.
    pub round: u32,
    /// How often the save was begun.
    pub attempt: u32,
    /// What was carried goes up to this entry.
    pub has: u64,
    /// What is on its way.
    pub carried: Carried,
    /// What arrived.
    pub arrived: Vec<Carried>,
}

/// Now (ms since 1970).
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Carrier {
    /// Of `file:/directory` or `tape:PLACE`.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let dir = text.strip_prefix(FILE).filter(|dir| dir.starts_with('/'));
        match (dir, text.strip_prefix(super::spool::TAPE)) {
            (Some(dir), _) => Ok(Self::Dir(dir.into())),
            (None, Some(place)) => Place::parse(place).map(Self::Reels),
            _ => Err("expected file:/directory or tape:PLACE".to_owned()),
        }
    }

    /// Where a save goes that was begun so often.
    #[must_use]
    pub fn save(&self, attempt: u32) -> Self {
        match self {
            Self::Dir(dir) => Self::Dir(dir.join(format!("resync-save-{attempt}.hbs"))),
            Self::Reels(place) => Self::Reels(beside(place, &format!("resync-save-{attempt}-"))),
        }
    }

    /// Where a round goes. Reels of all rounds are one set.
    #[must_use]
    pub fn round(&self, round: u32) -> Self {
        match self {
            Self::Dir(dir) => Self::Dir(dir.join(format!("resync-round-{round}"))),
            Self::Reels(place) => Self::Reels(beside(place, "resync-spool-")),
        }
    }

    /// How it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Dir(dir) => format!("{FILE}{}", dir.display()),
            Self::Reels(place) => place.name(),
        }
    }
}

/// Images with this before their names; a drive is itself.
fn beside(place: &Place, prefix: &str) -> Place {
    let Place::Images(before, width, behind) = place else { return place.clone() };
    let (dir, name) = match before.rsplit_once('/') {
        Some((dir, name)) => (format!("{dir}/"), name),
        None => (String::new(), before.as_str()),
    };
    Place::Images(format!("{dir}{prefix}{name}"), *width, behind.clone())
}

impl Plan {
    /// A new one.
    #[must_use]
    pub fn new(to: &Carrier, spool: String, spool_before: String, now_ms: u64) -> Self {
        Self {
            version: VERSION,
            to: to.name(),
            spool,
            spool_before,
            since_ms: now_ms,
            cut_ms: now_ms,
            ..Self::default()
        }
    }

    /// What is to be expected of the rest of it, where the peer lacks so much.
    #[must_use]
    pub fn forecast(&self, lacks: u64) -> Forecast {
        match self.step {
            Step::Spool | Step::Save => self.pace.forecast(self.stored),
            Step::CarrySave | Step::CarryRound => self.pace.forecast(self.carried.bytes),
            _ => match self.pace.next(lacks) {
                Next::Round(_) => self.pace.forecast(lacks),
                end => Forecast { rounds: Vec::new(), end },
            },
        }
    }

    /// Goes on to a step.
    pub fn go(&mut self, step: Step, now_ms: u64) {
        (self.step, self.since_ms) = (step, now_ms);
    }

    /// A save or a round is written, which was begun at `begun_ms`, when what comes later was not in it.
    pub fn written(&mut self, carried: Carried, begun_ms: u64, now_ms: u64) {
        let fast = takes_per_second(carried.bytes, carried.write_ms);
        if let Some(rate) = fast.filter(|_| !self.given.write) {
            self.pace.write = rate;
            if !self.given.read {
                // Who writes so fast reads about as fast, until somebody knows better.
                self.pace.read = rate;
            }
        }
        self.cut_ms = begun_ms;
        self.carried = carried;
        let step = if self.step == Step::Save { Step::CarrySave } else { Step::CarryRound };
        self.go(step, now_ms);
    }

    /// A person says that what was carried is restored there.
    pub fn arrived(&mut self, now_ms: u64) {
        self.carried.way_ms = now_ms.saturating_sub(self.since_ms);
        if !self.given.carry {
            let read = takes(self.carried.bytes, self.pace.read);
            self.pace.carry_ms = self.carried.way_ms.saturating_sub(read);
        }
        self.has = self.carried.to;
        self.arrived.push(std::mem::take(&mut self.carried));
        self.round = self.round.saturating_add(1);
        self.go(Step::Round, now_ms);
    }

    /// So much came since the last cut.
    pub fn measured(&mut self, lacks: u64, now_ms: u64) {
        let rate = takes_per_second(lacks, now_ms.saturating_sub(self.cut_ms));
        if let Some(rate) = rate.filter(|_| !self.given.updates) {
            self.pace.updates = rate;
        }
    }
}

/// So much in a second (bytes); none for no time.
fn takes_per_second(bytes: u64, ms: u64) -> Option<u64> {
    let rate = (u128::from(bytes) * 1000).checked_div(u128::from(ms))?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Reads the plan of the node in `dir`; none if there is none.
///
/// # Errors
/// [`PlanError`].
pub fn load(dir: &Path) -> Result<Option<Plan>, PlanError> {
    let layout = Layout::new(dir);
    setup::check_own(&layout)?;
    let path = layout.resync_plan();
    if !path.exists() {
        return Ok(None);
    }
    let text = layout.read_text(&path, false, RESYNC_PLAN_MAX).map_err(distrusted(&path))?;
    decode(text.as_bytes()).map(Some).map_err(|why| PlanError::Unfit { path, why })
}

fn decode(bytes: &[u8]) -> Result<Plan, String> {
    let plan: Plan = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if plan.version != VERSION {
        return Err(format!("it is of version {}, and this program knows {VERSION}", plan.version));
    }
    Carrier::parse(&plan.to)?;
    Ok(plan)
}

/// Keeps the plan of the node in `dir`.
///
/// # Durability
/// It is synced.
///
/// # Errors
/// [`PlanError`].
pub fn keep(dir: &Path, plan: &Plan) -> Result<(), PlanError> {
    let layout = Layout::new(dir);
    let path = layout.resync_plan();
    let unfit = |error: serde_json::Error| PlanError::Unfit { path, why: error.to_string() };
    let text = serde_json::to_vec(plan).map_err(unfit)?;
    Ok(replace(&layout, OwnName::ResyncPlan, &text)?)
}

/// Takes any bytes as a plan, and goes on with it.
pub fn fuzz_plan(bytes: &[u8]) {
    let Ok(mut plan) = decode(bytes) else { return };
    let lacks = plan.carried.bytes;
    let _ = plan.forecast(lacks);
    plan.measured(lacks, plan.since_ms);
    plan.written(Carried { bytes: lacks, ..Carried::default() }, plan.cut_ms, plan.since_ms);
    plan.arrived(plan.cut_ms);
    let _ = plan.forecast(lacks);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let to = Carrier::parse("tape:/x/reel-%03d.tap").unwrap();
        let mut plan = Plan::new(&to, "file:/spool".into(), "off".into(), 1000);
        plan.pace = Pace { updates: 100, write: 1, read: 1, link: 0, carry_ms: 60_000, reel: 0 };
        plan
    }

    #[test]
    fn saves_and_rounds_have_names_of_their_own_beside_each_other_and_a_drive_is_itself() {
        let images = Carrier::parse("tape:/x/reel-%03d.tap").unwrap();
        assert_eq!(images.save(2).name(), "tape:/x/resync-save-2-reel-%03d.tap");
        assert_eq!(images.round(7).name(), "tape:/x/resync-spool-reel-%03d.tap");
        let disk = Carrier::parse("file:/mnt/usb").unwrap();
        assert_eq!(disk.save(1), Carrier::Dir("/mnt/usb/resync-save-1.hbs".into()));
        assert_eq!(disk.round(3).name(), "file:/mnt/usb/resync-round-3");
        let drive = Carrier::parse("tape:/dev/nst0").unwrap();
        assert_eq!((drive.save(1), drive.round(1)), (drive.clone(), drive.clone()));
        for bad in ["", "file:x", "/mnt", "tape:", "tcp:host"] {
            assert!(Carrier::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_nobody_gave_is_measured_as_the_plan_goes_on() {
        let mut plan = plan();
        plan.go(Step::Save, 1000);
        let save = Carried { to: 50, bytes: 4000, write_ms: 2000, ..Carried::default() };
        plan.written(save.clone(), 1000, 3000);
        assert_eq!((plan.step, plan.pace.write, plan.pace.read), (Step::CarrySave, 2000, 2000));
        assert_eq!(plan.forecast(0).rounds.first().map(|round| round.bytes), Some(4000));
        plan.arrived(3000 + 10_000);
        // Two of the ten seconds were to read it.
        assert_eq!((plan.pace.carry_ms, plan.has, plan.round, plan.step), (8000, 50, 1, Step::Round));
        plan.measured(1200, 13_000);
        assert_eq!(plan.pace.updates, 100, "1200 bytes in twelve seconds");
        assert_eq!(plan.arrived.len(), 1);
        // What was given stays.
        plan.given = Given { updates: true, write: true, read: true, carry: true };
        let before = plan.pace;
        plan.written(Carried { to: 60, bytes: 9, write_ms: 1, ..save }, 13_000, 13_001);
        plan.arrived(99_000);
        plan.measured(1 << 30, 100_000);
        assert_eq!((plan.pace, plan.step, plan.round), (before, Step::Round, 2));
    }

    #[test]
    fn a_plan_is_kept_as_it_is_and_another_version_is_refused() {
        let mut plan = plan();
        plan.go(Step::CarryRound, 77);
        plan.arrived.push(Carried { reels: vec![1, 2], ..Carried::default() });
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(decode(text.as_bytes()), Ok(plan));
        let kept = include_str!("../../tests/data/resync-plan-v1.json");
        let old = decode(kept.as_bytes()).unwrap();
        assert_eq!((old.step, old.round, old.has, old.pace.link), (Step::CarryRound, 2, 4711, 0));
        assert_eq!(serde_json::to_string(&old).unwrap(), kept.trim_end());
        for (good, bad) in [
            ("\"version\":1", "\"version\":2"),
            ("tape:/x", "nfs:/x"),
            ("carry-round", "jump"),
            ("\"has\"", "\"had\""),
        ] {
            assert!(text.contains(good), "{text}");
            assert!(decode(text.replacen(good, bad, 1).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_bytes_are_a_plan_or_none() {
        let text = serde_json::to_vec(&plan()).unwrap();
        for at in 0..text.len() {
            for with in [0, b'9', b'"', b'}'] {
                let mut bytes = text.clone();
                bytes[at] = with;
                fuzz_plan(&bytes);
            }
            fuzz_plan(&text[..at]);
        }
    }
}
