//! Updates of a pair: of one that runs, in an account made for this, or of one that is started for this.

use super::super::demo::cleanup::{Guard, Leftovers};
use super::super::demo::pair::Pair;
use super::super::failure::Failure;
use super::super::glue;
use super::super::out::say;
use crate::base::AckLevel;
use crate::base::shown::bytes;
use crate::engine::admin::{AccountView, AdminAnswer, AdminRequest, StatsView, Status};
use crate::format::dptr::DptrKind;
use crate::measure::disk::{self, DiskOptions};
use crate::measure::load::{LoadPlan, run};
use crate::measure::report::{Figure, Report, Used};
use crate::measure::usage::Look;
use crate::measure::{Course, float, link};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The account that is made and removed.
const ACCOUNT: &str = "bench";
/// Updates at once.
const AT_ONCE: [usize; 3] = [1, 64, 256];
const LEVELS: [AckLevel; 4] = [AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied];
/// Different keys of a file, and bytes of their values, so that space is bounded.
const KEYS: u64 = 100_000;
const VALUES: u64 = 128 << 20;
/// What must be free for a pair of its own (bytes).
const ROOM: u64 = 2 << 30;
/// How long a verb may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A store that applied less than this share of what was journalled does not keep up.
const KEEPS_UP: f64 = 0.9;
/// Shares of the time: raw disk and loopback beside a pair of its own.
const RAW_SECONDS: u64 = 3;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seconds: u64,
    pub(super) value: u64,
}

/// Where the updates go.
struct Target<'a> {
    dir: &'a Path,
    door: SocketAddr,
    password: Option<String>,
}

/// The account, as long as it is measured with.
struct Account<'a>(&'a Path);

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let request = AdminRequest::AccountDelete { name: ACCOUNT.to_owned(), dry_run: false };
        if let Err(failure) = ask(self.0, &request) {
            say(format_args!(
                "removing the account {ACCOUNT}: {failure}; remove it: hot-backup account delete {ACCOUNT}"
            ));
        }
    }
}

fn ask(dir: &Path, request: &AdminRequest) -> Result<AdminAnswer, Failure> {
    super::super::ask::answer_of(glue::call(dir, request, PATIENCE)?)
}

fn ask_for<T: TryFrom<AdminAnswer, Error = AdminAnswer>>(
    dir: &Path,
    request: &AdminRequest,
) -> Result<T, Failure> {
    super::super::ask::read(ask(dir, request)?)
}

/// The pair of a node that runs: the node must be the primary, and have a door over TCP.
pub(super) fn running(
    dir: &Path,
    plan: Plan,
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (door, password) = glue::resp_door(dir)?;
    // The way to the peer cannot be measured from here, and this machine's own is another one.
    raw_disk(dir, plan, course, report)?;
    updates(&Target { dir, door, password }, plan, course, report)
}

/// A pair of its own, below `root`.
pub(super) fn temporary(
    root: &Path,
    plan: Plan,
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::io(format_args!("measuring in {}", root.display()), error);
    let has = disk::free(root).map_err(|error| failed(&error))?;
    if has < ROOM {
        let message = format!(
            "starting a pair in {}: {} are free, and {} are needed",
            root.display(),
            bytes(has),
            bytes(ROOM)
        );
        return Err(Failure::error(message, "name another directory: --dir"));
    }
    let root = std::fs::canonicalize(root).map_err(|error| failed(&error))?;
    let scratch = disk::Scratch::new(&root).map_err(|error| failed(&error))?;
    raw_disk(&scratch.0, plan, course, report)?;
    link::loopback(raw_time(plan), course, report)?;
    course.expect(1);
    course.step("starting a pair")?;
    // On the main thread: nodes end with the thread that started them.
    let guard = Guard(Leftovers::without_signals(&scratch.0));
    let mut pair = Pair::set_up(&scratch.0, AckLevel::Local, &guard.0, &|_| {})?;
    pair.start_b()?;
    pair.start_a()?;
    pair.wait_for(&pair.a, "serving with its peer", |s| {
        s.state == "serving" && s.peer.connected && !s.degraded
    })?;
    let dir = pair.a.dir.clone();
    updates(&Target { dir: &dir, door: pair.a.resp, password: None }, plan, course, report)
}

fn raw_time(plan: Plan) -> Duration {
    Duration::from_secs(RAW_SECONDS.min(plan.seconds.div_ceil(4)))
}

/// What the disk gives, in short.
fn raw_disk(dir: &Path, plan: Plan, course: &Course<'_>, report: &mut Report) -> Result<(), Failure> {
    let (dir, time) = (dir.to_owned(), raw_time(plan));
    Ok(disk::disk(&DiskOptions { dir, time, size: 64 << 20, every_way: false, brief: true }, course, report)?)
}

fn updates(target: &Target<'_>, plan: Plan, course: &Course<'_>, report: &mut Report) -> Result<(), Failure> {
    let status: Box<Status> = ask_for(target.dir, &AdminRequest::Status)?;
    if status.role != "primary" {
        let message =
            format!("measuring the pair of {}: it is {}, not primary", target.dir.display(), status.role);
        return Err(Failure::error(message, "run it on the primary"));
    }
    let accounts: Vec<AccountView> = ask_for(target.dir, &AdminRequest::AccountList)?;
    if accounts.iter().any(|account| account.name == ACCOUNT) {
        let message =
            format!("measuring the pair of {}: it has an account {ACCOUNT} already", target.dir.display());
        return Err(Failure::error(
            message,
            "nothing that it did not make is touched: rename or delete that account",
        ));
    }
    ask(target.dir, &AdminRequest::AccountCreate { name: ACCOUNT.to_owned(), flags: "L".to_owned() })?;
    let _account = Account(target.dir);
    let levels: &[AckLevel] = if status.peer.connected { &LEVELS } else { &LEVELS[..1] };
    if !status.peer.connected {
        report.fact("peer", "away: only the level local is measured");
    }
    let cells = levels.len() * AT_ONCE.len();
    course.expect(cells);
    let each = Duration::from_secs(plan.seconds) / u32::try_from(cells).unwrap_or(u32::MAX);
    for level in levels {
        make_file(target.dir, *level)?;
        for at_once in AT_ONCE {
            course.step(&format!("updates at level {}, {at_once} at once", level.name()))?;
            cell(target, (*level, at_once, each, plan.value), course, report)?;
        }
    }
    Ok(())
}

fn make_file(dir: &Path, level: AckLevel) -> Result<(), Failure> {
    let name = format!("{ACCOUNT},{}", level.name());
    let (kind, ack) = (DptrKind::Records, Some(level));
    ask(dir, &AdminRequest::FileCreate { name, kind, flags: None, bytes: None, ack }).map(drop)
}

/// What a node has counted, and when.
struct Count {
    at: Instant,
    look: Look,
    stats: Box<StatsView>,
    status: Box<Status>,
}

impl Count {
    fn of(dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            stats: ask_for(dir, &AdminRequest::Stats)?,
            status: ask_for(dir, &AdminRequest::Status)?,
            look: Look::now(dir),
            at: Instant::now(),
        })
    }
}

fn cell(
    target: &Target<'_>,
    (level, at_once, time, value): (AckLevel, usize, Duration, u64),
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let plan = LoadPlan {
        address: target.door,
        password: target.password.clone(),
        clients: at_once,
        time,
        value: usize::try_from(value).unwrap_or(usize::MAX),
        keys: KEYS.min(VALUES / value.max(1)),
        prefix: format!("{ACCOUNT},{},", level.name()),
        wait: false,
    };
    let before = Count::of(target.dir)?;
    let times = run(&plan, &|| course.is_stopped()).map_err(|error| {
        let next = "see whether the node still runs: hot-backup status";
        Failure::error(format!("updating {ACCOUNT},{} at {}: {error}", level.name(), target.door), next)
    })?;
    let [per_second, p50_us, p99_us, _] = times.told();
    let after = Count::of(target.dir)?;
    course.check()?;
    let (way, at_once) = (level.name().to_owned(), at_once as u64);
    report.used.push(used(&before, &after, (&way, at_once), report));
    let (part, what) = ("pair".to_owned(), "set".to_owned());
    report.figures.push(Figure { part, what, way, bytes: value, at_once, per_second, p50_us, p99_us });
    Ok(())
}

/// What the updates between two counts took of each part.
fn used(before: &Count, after: &Count, (way, at_once): (&str, u64), report: &Report) -> Used {
    let took = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-9);
    let most = |part, what| report.of(part, what).map(Figure::bytes_per_second).fold(0.0, f64::max);
    let share = |rate: f64, most: f64| (most > 0.0).then(|| rate / most);
    let between = before.look.until(&after.look);
    let sent = float(after.stats.batch_bytes.saturating_sub(before.stats.batch_bytes)) / took;
    let positions = |count: &Count| (count.status.positions.appended, count.status.positions.applied);
    let ((appended, applied), (appended_before, applied_before)) = (positions(after), positions(before));
    let journalled = float(appended.saturating_sub(appended_before));
    let stored = float(applied.saturating_sub(applied_before));
    Used {
        way: way.to_owned(),
        at_once,
        processor: Some(between.processor),
        // One that keeps up does not say what it could take.
        store: (stored < journalled * KEEPS_UP).then_some(1.0),
        disk: between.written.and_then(|written| share(written, most("disk", "write"))),
        wire: share(sent, most("link", "stream")).filter(|_| after.status.peer.connected),
        disk_us: stage(before, after, "disk"),
        peer_us: stage(before, after, "peer"),
    }
}

/// What half of the entries between two counts took to a stage at most (microseconds).
fn stage(before: &Count, after: &Count, name: &str) -> Option<f64> {
    let buckets = |count: &Count| {
        let found = count.stats.stages.iter().find(|stage| stage.name == name);
        found.map(|stage| stage.buckets.clone()).unwrap_or_default()
    };
    let earlier: std::collections::BTreeMap<u64, u64> = buckets(before).into_iter().collect();
    let more =
        |(most, count): (u64, u64)| (most, count.saturating_sub(earlier.get(&most).copied().unwrap_or(0)));
    median(buckets(after).into_iter().map(more).collect())
}

/// Of a histogram: the longest time of each bucket, and how many are in it.
fn median(mut buckets: Vec<(u64, u64)>) -> Option<f64> {
    buckets.sort_unstable();
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    let half = buckets.into_iter().find(|(_, count)| {
        seen += count;
        *count > 0 && seen * 2 >= all
    });
    half.map(|(most, _)| float(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_histogram_is_found_and_none_of_an_empty_one() {
        assert_eq!(median(vec![(200, 6), (100, 4), (50, 0)]), Some(200.0));
        assert_eq!(median(vec![(100, 5), (200, 5)]), Some(100.0));
        assert_eq!(median(vec![(100, 0)]), None);
        assert_eq!(median(Vec::new()), None);
    }
}
