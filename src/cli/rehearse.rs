//! `takeover --rehearse`: what a takeover would find, tried on a view that is thrown away.

use super::failure::{Answer, Done, Failure};
use super::out::{seconds, visible};
use super::{Context, ask, glue_view, takeover};
use crate::base::shown::{count, counted};
use crate::client::{Reply, RespError};
use crate::engine::admin::{AdminRequest, FileView, Status, TakeoverAccount, ViewOrder, ViewView};
use crate::format::dptr::DptrKind;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Opening the view waits for the store, as a takeover does.
const PATIENCE: Duration = Duration::from_secs(90);
/// Record files that are read from, and written to.
const FILES_TRIED: usize = 16;
/// The item that is written to a view, and to nothing else.
const ITEM: &str = "hot-backup-rehearsal";

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
struct Check {
    text: String,
    holds: bool,
    /// How long it took (seconds).
    seconds: f64,
}

/// What a rehearsal came to.
#[derive(Clone, Debug, Serialize)]
struct Rehearsal {
    /// Whether everything that was tried works.
    possible: bool,
    /// What would be kept and lost.
    account: Box<TakeoverAccount>,
    /// Entries that are here and not in the store yet: a takeover applies them first.
    to_apply: u64,
    /// Doors that would open for users.
    doors: Vec<String>,
    checks: Vec<Check>,
    /// About how long the real one would take (seconds).
    seconds: f64,
}

/// Tries, and says whether and in what time that went well.
fn tried(checks: &mut Vec<Check>, what: &str, how: impl FnOnce() -> Result<String, String>) -> bool {
    let begun = Instant::now();
    let result = how();
    let holds = result.is_ok();
    let text = match result {
        Ok(found) => format!("{what}: {found}"),
        Err(why) => format!("{what}: it failed: {why}"),
    };
    checks.push(Check { text, holds, seconds: begun.elapsed().as_secs_f64() });
    holds
}

/// Runs `takeover --rehearse`.
pub(super) fn run(context: &mut Context) -> Done {
    let dry = AdminRequest::Takeover { peer_is_down: false, dry_run: true, accept_loss: false, now: false };
    let begun = Instant::now();
    let account: Box<TakeoverAccount> = ask::ask_for(context, &dry)?;
    let before: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
    let order = ViewOrder { name: Some("rehearsal".to_owned()), writable: true, ..ViewOrder::default() };
    let open = AdminRequest::ViewOpen(order);
    let mut checks = Vec::new();
    let view: ViewView = ask::read(ask::ask_within(context, &open, PATIENCE)?)?;
    let opened = begun.elapsed().as_secs_f64();
    let text = format!("the store holds everything up to entry {}, as one state", count(view.seq));
    checks.push(Check { text, holds: true, seconds: opened });
    let result = try_view(context, &view, &account, &mut checks);
    // It goes whatever was found.
    let closed = ask::ask_for::<ViewView>(context, &AdminRequest::ViewClose { name: view.name.clone() });
    result?;
    closed?;
    let rehearsal = Rehearsal {
        possible: checks.iter().all(|check| check.holds) && !account.needs_accept_loss,
        to_apply: before.positions.durable.saturating_sub(before.positions.applied),
        doors: glue_view::user_doors(context.dir()?)?,
        seconds: checks.iter().map(|check| check.seconds).sum(),
        checks,
        account,
    };
    if context.json {
        context.out.json(&rehearsal)?;
    } else {
        context.out.text(sentences(&rehearsal))?;
    }
    Ok(if rehearsal.possible { Answer::Yes } else { Answer::No })
}

fn try_view(
    context: &Context,
    view: &ViewView,
    account: &TakeoverAccount,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let holds = account.incomplete_files.is_empty();
    let text = match holds {
        true => "every replicated file is whole".to_owned(),
        false => format!("files whose copy is not whole: {}", account.incomplete_files.join(", ")),
    };
    checks.push(Check { text, holds, seconds: 0.0 });
    let holds = !account.needs_accept_loss;
    let text = match holds {
        true => "no entry is missing of which the primary told as durable here".to_owned(),
        false => "entries that the pair has are missing here: it would take --accept-loss".to_owned(),
    };
    checks.push(Check { text, holds, seconds: 0.0 });
    let files: Vec<FileView> = ask::ask_for(context, &AdminRequest::FileList { account: None })?;
    let of = |kind| files.iter().filter(move |file| file.kind == kind && file.replicated);
    let names: Vec<&str> = of(DptrKind::Records).map(|file| file.name.as_str()).collect();
    tried(checks, "the RESP door", || items(&view.resp, &names));
    let volumes: Vec<&str> = of(DptrKind::Blocks).map(|file| file.name.as_str()).collect();
    tried(checks, "the NBD door", || {
        let touch = |name: &&str| glue_view::touch_volume(&view.nbd, &name.replacen(',', "/", 1));
        volumes.iter().try_for_each(touch).map_err(|error| error.to_string())?;
        let count = counted(volumes.len() as u64, "volume", "volumes");
        Ok(format!("it answers; the beginning of {count} read and written"))
    });
    Ok(())
}

/// Reads from record files, writes to them, and reads that.
fn items(door: &str, names: &[&str]) -> Result<String, String> {
    let said = |error: RespError| error.to_string();
    let mut client = glue_view::items(door).map_err(|error| error.to_string())?;
    for name in names.iter().take(FILES_TRIED) {
        let key = format!("{name},{ITEM}");
        client.call(&[b"SET", key.as_bytes(), b"1"]).map_err(said)?;
        match client.call(&[b"GET", key.as_bytes()]).map_err(said)? {
            Reply::Bulk(Some(found)) if found == b"1" => {}
            other => return Err(format!("{name}: what was written is not read: {other:?}")),
        }
    }
    let tried = names.len().min(FILES_TRIED) as u64;
    Ok(format!("it answers; {} written to and read", counted(tried, "record file", "record files")))
}

/// The rehearsal for people.
fn sentences(told: &Rehearsal) -> String {
    let mut text = takeover::sentences(&told.account);
    let apply = counted(told.to_apply, "entry", "entries");
    let _ = writeln!(text, "It would first apply what is here and not in the store yet: {apply}.");
    let doors = told.doors.iter().map(|door| visible(door)).collect::<Vec<_>>().join(", ");
    if !doors.is_empty() {
        let _ = writeln!(text, "Users would be let in at: {doors}.");
    }
    text.push_str("Tried on a view of this moment, which is thrown away:\n");
    for check in &told.checks {
        let mark = if check.holds { "yes" } else { "no " };
        let _ = writeln!(text, "  {mark}  {} ({})", visible(&check.text), seconds(check.seconds));
    }
    let took = seconds(told.seconds);
    let _ = match told.possible {
        true => writeln!(text, "Nothing was changed. The real takeover would take about {took}."),
        false => writeln!(text, "Nothing was changed. Look at what does not hold before you need it."),
    };
    text
}
