//! How far a start is: told to operators who ask and to the service manager, by whoever looks, while it goes on.

use crate::base::limits::START_EXTEND_MS;
use crate::engine::admin::ReplayView;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// What a start does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Looks at the directory, the keys, the control file.
    Files,
    /// Opens the store.
    Store,
    /// Reads through the journals (bytes).
    Walk,
    /// Gives the store what it lacks (entries).
    Replay,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Files, Self::Store, Self::Walk, Self::Replay];

    fn text(self) -> &'static str {
        match self {
            Self::Files => "looking at its files",
            Self::Store => "opening the store",
            Self::Walk => "reading the journal",
            Self::Replay => "replaying the journal into the store",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Files | Self::Store => "",
            Self::Walk => "bytes",
            Self::Replay => "entries",
        }
    }
}

/// Shared by who starts and who tells.
#[derive(Debug)]
pub(crate) struct Starting {
    begun: Instant,
    stage: AtomicU8,
    /// When the stage began (milliseconds).
    since: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    role: OnceLock<&'static str>,
}

impl Starting {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            stage: AtomicU8::new(0),
            since: AtomicU64::new(0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            role: OnceLock::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A stage begins that has so much to do, or an unknown amount (0).
    pub(crate) fn enter(&self, stage: Stage, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.since.store(self.now_ms(), Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// So much more of it is done.
    pub(crate) fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// So much of so much of a stage is done in all.
    pub(crate) fn set(&self, stage: Stage, done: u64, total: u64) {
        if self.stage() != stage {
            self.enter(stage, total);
        }
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// The role that the control file tells.
    pub(crate) fn set_role(&self, role: &'static str) {
        // It does not change while the node starts.
        let _ = self.role.set(role);
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role.get().copied().unwrap_or("unknown")
    }

    fn stage(&self) -> Stage {
        Stage::ALL.get(usize::from(self.stage.load(Ordering::Relaxed))).copied().unwrap_or(Stage::Replay)
    }

    /// How far it is.
    pub(crate) fn view(&self) -> ReplayView {
        let stage = self.stage();
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let millis = self.now_ms().saturating_sub(self.since.load(Ordering::Relaxed));
        ReplayView::new(stage.text(), stage.unit(), done, total, millis)
    }

    /// Seconds since it began, for people.
    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}

/// What the service manager is told while a node starts. It is asked for more time only when something was done since
/// it was asked last: a disk that hangs is to be noticed.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    last: Option<(Stage, u64, u64)>,
}

impl Extension {
    /// The lines to send now; `disk` counts what the process has moved from and to its disk. The store does not tell how
    /// far it is while it opens, which after a crash may take minutes: there it is known to get on by that.
    pub(crate) fn lines(&mut self, starting: &Starting, disk: u64) -> String {
        let view = starting.view();
        let stage = starting.stage();
        let at = (stage, view.done, if stage == Stage::Store { disk } else { 0 });
        let mut lines = format!("STATUS={}\n", view.text());
        if self.last.replace(at) != Some(at) {
            lines.push_str(&format!("EXTEND_TIMEOUT_USEC={}\n", START_EXTEND_MS * 1000));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_stage_is_told_by_what_was_done_in_it_alone() {
        let hour = Duration::from_secs(3600);
        let starting = Starting { begun: Instant::now().checked_sub(hour).unwrap(), ..Starting::new() };
        starting.enter(Stage::Walk, 4000);
        starting.add(1000);
        let view = starting.view();
        assert!(
            view.seconds_left.is_some_and(|left| left < 3000.0),
            "the hour before it says nothing: {view:?}"
        );
        starting.enter(Stage::Replay, 70);
        assert_eq!((starting.view().done, starting.view().total), (0, 70));
        starting.set(Stage::Replay, 7, 90);
        assert_eq!((starting.view().done, starting.view().total), (7, 90), "more came meanwhile");
    }

    #[test]
    fn the_manager_is_asked_for_time_while_a_start_gets_on_and_not_when_it_hangs() {
        let starting = Starting::new();
        let mut extension = Extension::default();
        let extends =
            |lines: &str| lines.contains(&format!("\nEXTEND_TIMEOUT_USEC={}\n", START_EXTEND_MS * 1000));
        assert_eq!(extension.lines(&starting, 0).lines().next(), Some("STATUS=looking at its files"));
        assert!(!extends(&extension.lines(&starting, 0)), "nothing was done");
        starting.enter(Stage::Store, 0);
        assert!(extends(&extension.lines(&starting, 0)));
        assert!(extends(&extension.lines(&starting, 4096)), "the store reads");
        assert!(!extends(&extension.lines(&starting, 4096)), "it does no more");
        starting.enter(Stage::Walk, 4 << 30);
        starting.add(1 << 30);
        let lines = extension.lines(&starting, 0);
        assert!(
            lines.starts_with("STATUS=reading the journal: 1,073,741,824 of 4,294,967,296 bytes (25 %)"),
            "{lines}"
        );
        assert!(extends(&lines));
        assert!(!extends(&extension.lines(&starting, 0)));
        starting.set(Stage::Replay, 10, 40);
        let lines = extension.lines(&starting, 0);
        assert!(
            lines.starts_with("STATUS=replaying the journal into the store: 10 of 40 entries"),
            "{lines}"
        );
        assert!(extends(&lines));
        starting.set(Stage::Replay, 11, 40);
        assert!(extends(&extension.lines(&starting, 0)));
    }
}
