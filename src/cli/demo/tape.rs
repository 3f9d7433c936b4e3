//! An outage that outgrows journal and disk, in seconds instead of days: reels, and the way back.

use super::super::failure::Failure;
use super::FILE;
use super::audit::Check;
use super::cleanup::Leftovers;
use super::pair::{self, Pair};
use super::report::Narrator;
use super::run::{look_up_updates, wait_for_each_other};
use super::writers::{REFUSED, WriterLog, Writers};
use crate::base::AckLevel;
use crate::base::shown::{bytes, count};
use crate::engine::admin::Status;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the state of the ladder is told.
const TICK: Duration = Duration::from_secs(1);
/// More than this takes the ladder too long to climb up (seconds).
const MOST: u64 = 120;
/// Parts on reels that the demo waits for.
const PARTS: u64 = 20;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct TapeRun {
    /// Whether everything was as promised.
    pub(super) ok: bool,
    /// Updates that were answered with "ok" while the standby was away.
    acknowledged: u64,
    /// Those that it lacks afterwards.
    missing: u64,
    /// What the ladder held at the end of the outage (parts; bytes).
    parts: u64,
    reel_parts: u64,
    bytes: u64,
    reels: u64,
    /// How long the standby was away, and how long it took to bring it level (seconds).
    outage_seconds: f64,
    return_seconds: f64,
    checks: Vec<Check>,
}

/// A journal and a directory that are small, and reels behind them.
fn lines(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "segment_bytes = \"256K\"\njournal_quota_bytes = \"2M\"\nspool = \"file:{dir}/spool\"\nspool_limit = \"2M\"\n\
         spool_tape = \"tape:{dir}/reel-%03d.tap\"\ntape_reel_size = \"3M\"\n"
    )
}

fn configure(pair: &Pair<'_>, dir: &Path, narrator: &Narrator<'_>) -> Result<(), Failure> {
    let path = pair.a.dir.join("config.toml");
    let failed = |e: &std::io::Error| Failure::io(format_args!("changing {}", path.display()), e);
    super::make_dir(&dir.join("spool"))?;
    let text = crate::base::text_at_most(
        std::fs::File::open(&path).map_err(|e| failed(&e))?,
        crate::base::limits::CONFIG_FILE_MAX,
    );
    let text = text.map_err(|e| failed(&e))?;
    let (before, after) = text.split_at(text.rfind("# end\n").unwrap_or(text.len()));
    std::fs::write(&path, format!("{before}{}{after}", lines(dir))).map_err(|e| failed(&e))?;
    for line in lines(dir).lines() {
        narrator.line(&format!("  config of a: {line}"));
    }
    Ok(())
}

/// Runs it all.
pub(super) fn run(
    dir: &Path,
    (seconds, writers): (u64, usize),
    leftovers: &Leftovers,
    narrator: &Narrator<'_>,
) -> Result<TapeRun, Failure> {
    narrator.line("An outage of days: journal, then a directory, then reels (images of them)");
    let tell = |text: &str| narrator.line(&format!("  {text}"));
    let mut pair = Pair::set_up(dir, AckLevel::Local, leftovers, &tell)?;
    configure(&pair, dir, narrator)?;
    pair.start_a()?;
    pair.start_b()?;
    wait_for_each_other(&pair)?;
    pair.run(&pair.a, &["account", "create", "app", "--flags", "L"])?;
    pair.run(&pair.a, &["file", "create", FILE, "--records"])?;
    pair.kill_b();
    narrator.line("  kill -9: the standby is gone, and its primary goes on");
    let (begin, load) = (Instant::now(), Writers::start(writers, pair.a.resp));
    let status = climb(&pair, seconds, narrator);
    let logs = load.finish();
    let (status, outage) = (status?, begin.elapsed());
    narrator.line(pair.run(&pair.a, &["spool", "status"])?.trim_end());
    let reels = (1_u64..).take_while(|at| dir.join(format!("reel-{at:03}.tap")).exists()).count() as u64;
    let back = Instant::now();
    pair.start_b()?;
    narrator.line("  the standby is back: reels, directory, journal, and what users do now, in this order");
    pair.wait_for(&pair.a, "level again", |status| status.spool.parts == 0 && status.serves())?;
    pair.wait_for(&pair.b, "level again", |there| {
        pair::status(&pair.a).is_ok_and(|here| there.positions.applied == here.positions.applied)
    })?;
    let return_seconds = back.elapsed().as_secs_f64();
    let (found, altered) = look_up_updates(&pair.b, &logs)?;
    let (acknowledged, missing, refused) = tally(&logs, &found);
    let told = pair.run(&pair.a, &["incidents"])?;
    let check = |name, ok, detail| Check { name, ok, detail };
    let checks = vec![
        check("no update was refused while the standby was away", refused == 0, format!("{refused} were")),
        check("the outage went to several reels", reels > 1, format!("{reels} reels")),
        check(
            "each update is on the standby, as it was sent",
            missing == 0 && altered == 0,
            format!("{} acknowledged, {missing} missing, {altered} altered", count(acknowledged)),
        ),
        check(
            "no full copy was needed",
            !told.contains("peer-dropped"),
            "the peer kept its claim".to_owned(),
        ),
    ];
    pair.stop();
    let run = TapeRun {
        ok: checks.iter().all(|check| check.ok),
        acknowledged,
        missing,
        parts: status.spool.parts,
        reel_parts: status.spool.reel_parts,
        bytes: status.spool.bytes,
        reels,
        outage_seconds: outage.as_secs_f64(),
        return_seconds,
        checks,
    };
    for check in &run.checks {
        narrator.line(&format!(
            "  {} {}: {}",
            if check.ok { "yes" } else { "NO " },
            check.name,
            check.detail
        ));
    }
    Ok(run)
}

/// Until enough is on reels, and so many seconds passed; each of them stands for hours.
fn climb(pair: &Pair<'_>, seconds: u64, narrator: &Narrator<'_>) -> Result<Status, Failure> {
    let begin = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let status = pair::status(&pair.a)?;
        let (spool, second) = (&status.spool, begin.elapsed().as_secs());
        narrator.live(&format!(
            "  hour {:>4}  journal {:>9}  directory {:>3} parts  reels {:>3} parts, {}",
            second * 4,
            bytes(status.journal.bytes),
            spool.parts - spool.reel_parts.min(spool.parts),
            spool.reel_parts,
            bytes(spool.reel_bytes)
        ));
        narrator.check()?;
        if second >= seconds && spool.reel_parts >= PARTS {
            return Ok(status);
        }
        if second > MOST.max(seconds) {
            let message =
                format!("filling reels: {} parts are there after {second} seconds", spool.reel_parts);
            return Err(Failure::error(message, "use --writers to write more"));
        }
    }
}

/// Updates that were acknowledged, those of them that are not there, and those that were refused.
fn tally(logs: &[WriterLog], found: &[Vec<bool>]) -> (u64, u64, u64) {
    let (mut acknowledged, mut missing, mut refused) = (0, 0, 0);
    for (log, found) in logs.iter().zip(found) {
        for (n, at) in log.answered_at.iter().enumerate() {
            if *at == REFUSED {
                refused += 1;
                continue;
            }
            acknowledged += 1;
            missing += u64::from(!found.get(n).copied().unwrap_or_default());
        }
    }
    (acknowledged, missing, refused)
}
