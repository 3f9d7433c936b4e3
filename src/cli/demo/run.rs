//! One run at one level, step by step.

use super::super::failure::Failure;
use super::super::out::seconds;
use super::audit::{self, Check, Counts, Facts};
use super::circle;
use super::cleanup::Leftovers;
use super::input::{self, Input};
use super::pair::{self, Node, Pair};
use super::report::{self, Imported, Narrator, OldPrimary, Run};
use super::volume::{self, VolumeLog};
use super::writers::{self, WriterLog, Writers};
use super::{FILE, NOTES};
use crate::base::limits::JSON_LINE_MAX;
use crate::base::shown::{bytes, counted};
use crate::base::{AckLevel, Line, next_line};
use crate::client::{Pipeline, Reply, RespClient, RespError};
use crate::engine::admin::{Status, TakeoverAccount};
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the live line is drawn; on a pipe, each fifth time.
const TICK: Duration = Duration::from_millis(200);
/// How long the survivor may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What to do.
pub(super) struct Plan {
    pub(super) level: AckLevel,
    pub(super) seconds: u64,
    pub(super) freeze: u64,
    pub(super) writers: usize,
    pub(super) dir: PathBuf,
}

/// What is on the survivor.
struct Survey {
    found: Vec<Vec<bool>>,
    altered: u64,
    imported: Imported,
}

/// Runs it all, and gives back the account.
pub(super) fn run(plan: &Plan, leftovers: &Leftovers, narrator: &Narrator<'_>) -> Result<Run, Failure> {
    let promise = match plan.level {
        AckLevel::Local => "\"ok\" means: on the primary's disk; the last moments may be lost",
        _ => "\"ok\" means: on both disks; nothing may be lost",
    };
    narrator.line(&format!("Ack level {}: {promise}", plan.level.name()));
    let tell = |text: &str| narrator.line(&format!("  {text}"));
    let mut pair = Pair::set_up(&plan.dir, plan.level, leftovers, &tell)?;
    pair.start_a()?;
    pair.start_b()?;
    wait_for_each_other(&pair)?;
    let input = input::prepare(&plan.dir)?;
    let before = import(&pair, &input, narrator)?;

    let (logs, volume_log, load) = load_and_kill(plan, &pair, narrator)?;
    let killed = Instant::now();
    let printed = pair.run(&pair.b, &["takeover", "--peer-is-down", "--json"])?;
    let outage = killed.elapsed();
    let account: TakeoverAccount = serde_json::from_str(&printed)
        .map_err(|e| Failure::error(format!("reading what takeover printed: {e}"), ""))?;
    narrator.check()?;
    narrator.line(&format!(
        "  b is primary, {} after the kill; looking up every update ...",
        seconds(outage.as_secs_f64())
    ));

    let survey = survey(&pair, &logs, input)?;
    let blocks = volume::survey(pair.b.nbd, volume_log)?;
    let (altered, kept) = (survey.altered, blocks.kept);
    let facts =
        Facts { level: plan.level, found: &survey.found, altered, before, blocks: kept, account: &account };
    let updates = Counts::of(&logs, &survey.found);
    let mut checks = audit::checks(&logs, &facts);
    checks.extend(volume::checks(plan.level, blocks));
    checks.push(imported_check(&survey.imported));
    checks.push(serves(&pair)?);
    let (old_primary, refused) = return_of_the_old(&mut pair)?;
    let listed = listed(&pair, &old_primary.diverged)?;
    checks.push(audit::list_agrees(&logs, &survey.found, &listed));
    checks.push(refused);
    let (circle, whole_again) = circle::go_round(&mut pair, &logs, &survey.found, narrator)?;
    checks.extend(whole_again);
    pair.stop();

    let run = Run {
        level: plan.level.name(),
        ok: checks.iter().all(|check| check.ok),
        writers: plan.writers,
        load_seconds: load.as_secs_f64(),
        acknowledged_per_second: report::rate(updates.acknowledged, load),
        outage_seconds: outage.as_secs_f64(),
        imported: survey.imported,
        updates,
        blocks,
        account,
        old_primary,
        circle,
        checks,
    };
    narrator.line(&report::text(&run));
    narrator.line("");
    narrator.check()?;
    Ok(run)
}

pub(super) fn wait_for_each_other(pair: &Pair<'_>) -> Result<(), Failure> {
    let a = |s: &Status| s.state == "serving" && s.peer.connected && !s.degraded;
    pair.wait_for(&pair.a, "serving with its peer", a)?;
    pair.wait_for(&pair.b, "standing by", |s| s.state == "standby" && s.peer.connected)?;
    Ok(())
}

/// Makes account and files, imports the real input, and gives back the last entry before the load.
fn import(pair: &Pair<'_>, input: &Input, narrator: &Narrator<'_>) -> Result<u64, Failure> {
    pair.run(&pair.a, &["account", "create", "app", "--flags", "L"])?;
    for file in ["app,docs", "app,inventory", FILE] {
        pair.run(&pair.a, &["file", "create", file, "--records"])?;
    }
    pair.run(&pair.a, &["file", "create", volume::VOLUME, "--blocks", "--size", volume::SIZE])?;
    // Alone, a node that has promised both disks lets clients of that promise wait: this file promises less.
    pair.run(&pair.a, &["file", "create", NOTES, "--records", "--ack", "local"])?;
    let (docs, table) = (input.docs.display().to_string(), input.table.display().to_string());
    for (file, path) in [("app,docs", docs), ("app,inventory", table)] {
        let told = pair.run(&pair.a, &["item", "import", file, &path])?;
        narrator.line(&format!("  {}", told.trim()));
    }
    let level =
        pair.wait_for(&pair.a, "in step with its standby", |s| s.positions.acked == s.positions.appended)?;
    narrator.check()?;
    Ok(level.positions.appended)
}

/// Lets the writers write, shows how it goes, and kills the primary under load.
fn load_and_kill(
    plan: &Plan,
    pair: &Pair<'_>,
    narrator: &Narrator<'_>,
) -> Result<(Vec<WriterLog>, VolumeLog, Duration), Failure> {
    narrator.line(&format!("  {} writers write items, one writes blocks of a volume ...", plan.writers));
    let start = Instant::now();
    let writers = Writers::start(plan.writers, pair.a.resp);
    let blocks = volume::start(pair.a.nbd);
    let mut last = (start, 0);
    let ticks = plan.seconds * 5;
    for tick in 1..=ticks {
        if plan.freeze > 0 && tick == ticks - plan.freeze * 5 + 1 {
            narrator.line("  the standby is frozen: it receives nothing more");
            pair.freeze_b(true);
        }
        let due = start + TICK * u32::try_from(tick).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if !narrator.is_live() && !tick.is_multiple_of(5) {
            continue;
        }
        let (now, acknowledged) = (Instant::now(), writers.acknowledged());
        let rate = report::rate(acknowledged - last.1, now - last.0);
        last = (now, acknowledged);
        let status = pair::status(&pair.a).ok();
        narrator.live(&report::live_line(now - start, acknowledged, rate, status.as_ref()));
        narrator.check()?;
    }
    pair.kill_a();
    pair.freeze_b(false);
    let load = start.elapsed();
    narrator.line("  kill -9: the primary is gone, in the middle of its work");
    let logs = writers.finish();
    let blocks = blocks.join().expect("a panic ends the whole process");
    if logs.iter().all(|log| log.answered_at.is_empty()) {
        let why = logs.iter().find_map(|log| log.refusal.clone()).unwrap_or_else(|| "no answer".to_owned());
        return Err(Failure::error(format!("loading the primary: no update was accepted: {why}"), ""));
    }
    Ok((logs, blocks, load))
}

/// Looks up every update on a node; gives which are there, and how many of them with another value than was sent.
pub(super) fn look_up_updates(node: &Node, logs: &[WriterLog]) -> Result<(Vec<Vec<bool>>, u64), Failure> {
    let mut client = pair::client(node, PATIENCE)?;
    let failed =
        |e: RespError| Failure::resp(format_args!("looking up the updates on node {}", node.name), &e);
    let mut found = Vec::with_capacity(logs.len());
    let mut altered = 0;
    for log in logs {
        let keys = (0..log.sent_at.len()).map(|n| format!("{FILE},{}", writers::id(log.writer, n)));
        let mut there = vec![false; log.sent_at.len()];
        look_up(&mut client, keys, |n, value| {
            let sent = log.sent_at.get(n).copied().unwrap_or_default();
            if let Some(flag) = there.get_mut(n) {
                *flag = value.is_some();
            }
            altered += u64::from(value.is_some_and(|value| value != writers::value(log.writer, n, sent)));
        })
        .map_err(failed)?;
        found.push(there);
    }
    Ok((found, altered))
}

/// Looks up every update and every imported item on the survivor.
fn survey(pair: &Pair<'_>, logs: &[WriterLog], input: Input) -> Result<Survey, Failure> {
    let (found, altered) = look_up_updates(&pair.b, logs)?;
    let mut client = pair::client(&pair.b, PATIENCE)?;
    let failed = |e: RespError| Failure::resp("looking up what was imported on the survivor", &e);
    let mut imported = Imported { origin: input.origin, ..Imported::default() };
    let keys = input.items.iter().map(|(path, _)| format!("app,docs,{path}"));
    look_up(&mut client, keys, |n, value| {
        let expected = input.items.get(n).map(|(_, text)| text.as_slice());
        imported.wrong += u64::from(value.as_deref() != expected);
        imported.files += 1;
        imported.bytes += expected.map_or(0, |text| text.len() as u64);
    })
    .map_err(failed)?;
    let keys = input.items.iter().map(|(path, _)| format!("app,inventory,{path}"));
    look_up(&mut client, keys, |_, value| {
        imported.wrong += u64::from(value.is_none());
        imported.rows += 1;
    })
    .map_err(failed)?;
    Ok(Survey { found, altered, imported })
}

/// Gets many keys; `each` is told number and value, or that there is none.
fn look_up(
    client: &mut RespClient,
    keys: impl Iterator<Item = String>,
    mut each: impl FnMut(usize, Option<Vec<u8>>),
) -> Result<(), RespError> {
    let mut done = |n: usize, reply: Reply| -> Result<(), RespError> {
        match reply {
            Reply::Bulk(value) => {
                each(n, value);
                Ok(())
            }
            _ => Err(RespError::Protocol("a read was not answered with a value")),
        }
    };
    let mut pipeline = Pipeline::of_reads(client);
    for (n, key) in keys.enumerate() {
        pipeline.send(&[b"GET", key.as_bytes()], n, &mut done)?;
    }
    pipeline.finish(&mut done)
}

fn imported_check(imported: &Imported) -> Check {
    Check {
        name: "what was imported before is there, byte for byte",
        ok: imported.wrong == 0,
        detail: format!(
            "{}, {}, from {}; {} of a table",
            counted(imported.files, "file", "files"),
            bytes(imported.bytes),
            imported.origin,
            counted(imported.rows, "row", "rows"),
        ),
    }
}

/// The survivor accepts updates.
fn serves(pair: &Pair<'_>) -> Result<Check, Failure> {
    let key = format!("{NOTES},after the takeover");
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), b"the work goes on"];
    let reply = pair::client(&pair.b, PATIENCE)?.call(&set);
    let reply = reply.map_err(|e| Failure::resp("writing to the survivor", &e))?;
    let ok = matches!(reply, Reply::Simple(_));
    Ok(Check { name: "the survivor accepts updates", ok, detail: format!("{reply:?}") })
}

/// Starts the old primary again: it must find out that it is none any more.
fn return_of_the_old(pair: &mut Pair<'_>) -> Result<(OldPrimary, Check), Failure> {
    pair.start_a()?;
    // What only it had is saved, and it is rewound.
    let settled = |s: &Status| s.state == "standby";
    let status = pair.wait_for(&pair.a, "back, and the standby of the new primary", settled)?;
    let mut client = pair::client(&pair.a, PATIENCE)?;
    let key = format!("{NOTES},on the old primary");
    let reply = client
        .call(&[b"SET", key.as_bytes(), b"must not be taken"])
        .map_err(|e| Failure::resp("writing to the old primary", &e))?;
    let diverged = pair.run(&pair.a, &["diverged", "--json"])?;
    let diverged: Vec<DivergedSet> = serde_json::from_str(&diverged)
        .map_err(|e| Failure::error(format!("reading what diverged printed: {e}"), ""))?;
    let diverged = diverged.into_iter().map(|set| set.set).collect();
    let refused = Check {
        name: "the old primary refuses to serve",
        ok: matches!(reply, Reply::Error(_)) && status.state != "serving",
        detail: format!("{}, {}; to a write: {reply:?}", status.role, status.state),
    };
    let old = OldPrimary {
        role: status.role,
        state: status.state,
        reason: status.reason,
        answer_to_a_write: format!("{reply:?}"),
        diverged,
    };
    Ok((old, refused))
}

/// A set of updates that the pair never kept, as far as it matters here.
#[derive(Deserialize)]
struct DivergedSet {
    set: String,
}

/// One line of a file in `diverged/`, as far as it matters here.
#[derive(Deserialize)]
struct DivergedLine {
    file: String,
    item: Option<String>,
}

/// The updates that the old primary lists as never kept.
fn listed(pair: &Pair<'_>, files: &[String]) -> Result<HashSet<String>, Failure> {
    let mut listed = HashSet::new();
    for name in files {
        let path = pair.a.dir.join("diverged").join(name);
        let failed = |e: &std::io::Error| Failure::io(format_args!("reading {}", path.display()), e);
        let file = File::open(&path).map_err(|e| failed(&e))?;
        let mut file = BufReader::new(file);
        while let Line::Whole(line) = next_line(&mut file, JSON_LINE_MAX).map_err(|e| failed(&e))? {
            let line: DivergedLine = serde_json::from_slice(&line)
                .map_err(|e| Failure::error(format!("reading {}: {e}", path.display()), ""))?;
            listed.extend(line.item.filter(|_| line.file == FILE));
        }
    }
    Ok(listed)
}
