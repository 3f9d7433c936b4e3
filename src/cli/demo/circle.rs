//! The way back: the roles change, a new machine takes a lost one's place, and a compare finds no difference.

use super::super::failure::Failure;
use super::super::glue;
use super::super::out::seconds;
use super::NOTES;
use super::audit::Check;
use super::pair::{self, Node, Pair};
use super::report::Narrator;
use super::run::{PATIENCE, look_up_updates};
use super::writers::WriterLog;
use crate::base::shown::{bytes, counted};
use crate::client::Reply;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, CompareView, Status, SwitchoverView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// How long the pair may take until its roles can change.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How the pair came to be whole again.
#[derive(Debug, Default, Serialize)]
pub(super) struct Circle {
    /// For how long nobody was answered while the roles changed.
    pub(super) pause_seconds: f64,
    /// From the new machine's start until it could take over.
    pub(super) joined_seconds: f64,
    /// Content that it was given in a copy (bytes, as last seen).
    pub(super) copied: u64,
    /// Items and blocks that were compared.
    pub(super) compared: u64,
    /// The hash of all of them.
    pub(super) digest: String,
}

/// Goes the way back. `found` says of each update whether the survivor of the takeover had it.
pub(super) fn go_round(
    pair: &mut Pair<'_>,
    logs: &[WriterLog],
    found: &[Vec<bool>],
    narrator: &Narrator<'_>,
) -> Result<(Circle, Vec<Check>), Failure> {
    let mut checks = Vec::new();
    narrator.line("  a is the standby of b; the roles change back, while both live");
    let view = switch_back(pair)?;
    checks.push(accepts(&pair.a, "after the switchover the first primary accepts updates")?);

    narrator.line("  the machine of b is lost for good: kill -9, and its directory is never used again");
    pair.kill_b();
    let began = Instant::now();
    let copied = replace_b(pair)?;
    let joined = began.elapsed();
    let way =
        if copied > 0 { format!("{} copied", bytes(copied)) } else { "by the journal alone".to_owned() };
    let took = seconds(joined.as_secs_f64());
    narrator.line(&format!("  c is whole, and could take over, {took} after its first command ({way})"));
    checks.push(accepts(&pair.a, "with a new machine in the lost one's place it accepts updates")?);

    let compared: CompareView = read(&pair.run(&pair.c, &["compare", "--json"])?, "compare")?;
    let equal = compared.whole && compared.differing + compared.unread + compared.passed == 0;
    checks.push(Check {
        name: "a compare finds no difference between the two machines",
        ok: equal && compared.items > 0,
        detail: format!(
            "{}, {}, {} that differ",
            counted(compared.items, "item or block", "items and blocks"),
            bytes(compared.bytes),
            compared.differing
        ),
    });
    checks.push(same_updates(&pair.c, logs, found)?);
    let circle = Circle {
        pause_seconds: view.pause_seconds,
        joined_seconds: joined.as_secs_f64(),
        copied,
        compared: compared.items,
        digest: compared.digest,
    };
    narrator.check()?;
    Ok((circle, checks))
}

fn read<T: DeserializeOwned>(printed: &str, what: &str) -> Result<T, Failure> {
    serde_json::from_str(printed).map_err(|e| Failure::error(format!("reading what {what} printed: {e}"), ""))
}

/// Makes `a` the primary again as soon as that is possible.
fn switch_back(pair: &Pair<'_>) -> Result<SwitchoverView, Failure> {
    let deadline = Instant::now() + READY;
    loop {
        let answer = glue::call(&pair.b.dir, &AdminRequest::Switchover { dry_run: true }, PATIENCE)?;
        let why = match answer {
            AdminReply::Ok { value: AdminAnswer::Switchover(view) } if view.possible => break,
            AdminReply::Ok { value: AdminAnswer::Switchover(view) } => view.next,
            other => format!("{other:?}"),
        };
        if Instant::now() > deadline {
            return Err(Failure::error(format!("waiting until the roles can change: {why}"), ""));
        }
        std::thread::sleep(POLL);
    }
    let view = read(&pair.run(&pair.b, &["switchover", "--json"])?, "switchover")?;
    pair.wait_for(&pair.a, "the primary again", |s| s.state == "serving")?;
    Ok(view)
}

/// A new machine takes the place of `b`; gives how much content it was given in a copy (bytes).
fn replace_b(pair: &mut Pair<'_>) -> Result<u64, Failure> {
    pair.set_up_c()?;
    // It follows for a moment with nothing, before the primary sees that it has to be given a copy.
    let end = pair::status(&pair.a)?.positions.appended;
    pair.start_c()?;
    let mut copied = 0;
    let whole = |s: &Status| {
        copied = copied.max(s.copy.as_ref().map_or(0, |copy| copy.bytes));
        let whole = s.state == "standby" && s.role == "standby" && s.copy.is_none();
        whole && s.peer.connected && s.positions.applied >= end
    };
    pair.wait_for(&pair.c, "a whole standby", whole)?;
    pair.wait_for(&pair.a, "in step with it", |s| {
        s.peer.connected && s.positions.acked == s.positions.appended
    })?;
    Ok(copied)
}

/// A node takes an update.
fn accepts(node: &Node, name: &'static str) -> Result<Check, Failure> {
    let key = format!("{NOTES},{name}");
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), b"the work goes on"];
    let reply = pair::client(node, PATIENCE)?.call(&set);
    let reply = reply.map_err(|e| Failure::resp(format_args!("writing to node {}", node.name), &e))?;
    Ok(Check { name, ok: matches!(reply, Reply::Simple(_)), detail: format!("{}: {reply:?}", node.name) })
}

/// The new machine has the updates that the survivor had, and no other.
fn same_updates(node: &Node, logs: &[WriterLog], found: &[Vec<bool>]) -> Result<Check, Failure> {
    let (there, altered) = look_up_updates(node, logs)?;
    let count = |all: &[Vec<bool>]| all.iter().flatten().filter(|there| **there).count();
    Ok(Check {
        name: "the new machine has every update that the survivor had",
        ok: there == found && altered == 0,
        detail: format!("{} of {}, {altered} altered", count(&there), count(found)),
    })
}
