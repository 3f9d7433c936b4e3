//! `incidents`: what happened that a person should know.

use super::failure::{Answer, Done, Failure};
use super::out::{Table, say, utc, visible};
use super::{Context, ask, status};
use crate::base::shown::count;
use crate::engine::admin::{AdminRequest, IncidentView, RecordView};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(1);

/// Lists recent incidents, newest last; as records with numbers: list, show, ack, watch
#[derive(Debug, Args)]
#[command(after_long_help = "\
An incident is any event that a person should know: a promise lowered, the peer lost and found, a disk that failed.
severity: notice (good to know, or the end of a trouble), warning (a promise is weaker than configured),
critical (updates or protection have stopped).

Without a word behind it, each telling since the start is a line. As records, what was told of one matter from its
beginning to its end is one, with a number, and they are kept over restarts:
  hot-backup incidents list            the newest records; state: lasts, ended, or happened
  hot-backup incidents list --open     only those that last, or that nobody took note of
  hot-backup incidents show 17         one of them, with why it is so and what to do
  hot-backup incidents ack 17 --by ann somebody takes care of it
  hot-backup incidents watch --json    each change, one object a line, until ctrl-C or the end of stdin")]
pub(crate) struct IncidentsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List records, newest last
    List {
        /// Only those that last, and those at or above a warning that nobody took note of
        #[arg(long)]
        open: bool,
        /// How many at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one record
    Show {
        /// Its number
        id: u64,
    },
    /// Take note of a record: who does is kept with it
    Ack {
        /// Its number
        id: u64,
        /// Who; without it the user that calls
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Show each record that begins, changes or ends, as it happens
    Watch,
}

/// Runs `incidents`.
pub(crate) fn incidents(context: &mut Context, args: &IncidentsArgs) -> Done {
    match &args.verb {
        None => tellings(context),
        Some(Verb::List { open, limit }) => list(context, *open, *limit),
        Some(Verb::Show { id }) => show(context, *id),
        Some(Verb::Ack { id, by }) => ack(context, *id, by.clone()),
        Some(Verb::Watch) => watch(context),
    }
}

fn tellings(context: &mut Context) -> Done {
    let incidents: Vec<IncidentView> = ask::ask_for(context, &AdminRequest::Incidents)?;
    if context.json {
        context.out.json(&incidents)?;
    } else if incidents.is_empty() {
        say("no incidents since the node started");
    } else {
        let mut table = Table::new(&["when", "severity", "kind", "what"]);
        for i in incidents {
            table.row([utc(i.wall_ms), i.severity, i.kind, i.text]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}

fn records(context: &Context) -> Result<Vec<RecordView>, Failure> {
    ask::ask_for(context, &AdminRequest::IncidentRecords)
}

fn list(context: &mut Context, open: bool, limit: usize) -> Done {
    let mut all = records(context)?;
    let unseen = |record: &RecordView| record.acked_ms.is_none() && record.severity != "notice";
    all.retain(|record| !open || record.is_open() || unseen(record));
    let all = all.split_off(all.len().saturating_sub(limit));
    if context.json {
        context.out.json(&all)?;
    } else if all.is_empty() {
        say("no incidents");
    } else {
        let mut table = Table::new(&["id", "since", "severity", "state", "times", "by", "code", "what"]);
        for record in all {
            let (state, text) = (record.state().to_owned(), record.text());
            let RecordView { id, since_ms, severity, count: times, acked_by, code, .. } = record;
            table.row([id.to_string(), utc(since_ms), severity, state, count(times), acked_by, code, text]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}

fn show(context: &mut Context, id: u64) -> Done {
    let found = records(context)?.into_iter().find(|record| record.id == id);
    let record = found.ok_or_else(|| {
        Failure::no(
            format!("showing incident {id}: there is none of that number"),
            "see `hot-backup incidents list`",
        )
    })?;
    if context.json {
        context.out.json(&record)?;
    } else {
        context.out.text(details(&record))?;
    }
    Ok(Answer::Yes)
}

fn details(record: &RecordView) -> String {
    let seen = record
        .acked_ms
        .map_or_else(|| "nobody yet".to_owned(), |at| format!("{}, {}", record.acked_by, utc(at)));
    let ended = record.ended_ms.filter(|_| !record.end.is_empty());
    let lines = [
        ("what", record.what.clone()),
        ("why", record.why.clone()),
        (
            "to do",
            if record.is_open() || record.end.is_empty() { record.next.clone() } else { String::new() },
        ),
        ("since", utc(record.since_ms)),
        ("told", format!("{} times, last {}", count(record.count), utc(record.last_ms))),
        ("ended", ended.map_or_else(String::new, |at| format!("{}: {}", utc(at), record.end))),
        ("noted by", seen),
    ];
    let head = format!("incident {}: {} {}, {}\n", record.id, record.severity, record.code, record.state());
    let lines = lines.iter().filter(|(_, text)| !text.is_empty());
    lines.fold(visible(head.trim_end()) + "\n", |all, (name, text)| {
        format!("{all}  {name:<9} {}\n", visible(text))
    })
}

fn ack(context: &mut Context, id: u64, by: Option<String>) -> Done {
    let user = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let who = by.or_else(user).unwrap_or_else(|| nix::unistd::getuid().to_string());
    let record: RecordView = ask::ask_for(context, &AdminRequest::IncidentAck { id, who })?;
    if context.json {
        context.out.json(&record)?;
    } else {
        say(format_args!("incident {id} ({}) is noted by {}", record.code, visible(&record.acked_by)));
    }
    Ok(Answer::Yes)
}

/// Of a record, what makes its showing worth while again.
fn mark(record: &RecordView) -> (u64, Option<u64>, Option<u64>) {
    (record.count, record.ended_ms, record.acked_ms)
}

fn watch(context: &mut Context) -> Done {
    let stdin_end = status::end_of_stdin();
    let mut known: BTreeMap<u64, (u64, Option<u64>, Option<u64>)> = BTreeMap::new();
    // What is over before anybody watches is no news.
    for record in records(context)?.iter().filter(|record| !record.is_open()) {
        known.insert(record.id, mark(record));
    }
    loop {
        let all = records(context)?;
        for record in &all {
            if known.insert(record.id, mark(record)) == Some(mark(record)) {
                continue;
            }
            if context.json {
                context.out.json_line(record)?;
            } else {
                let line = format!(
                    "{} {} {} {} {}: {}",
                    utc(record.ended_ms.unwrap_or(record.last_ms)),
                    record.id,
                    record.severity,
                    record.state(),
                    record.code,
                    if record.is_open() || record.end.is_empty() {
                        record.text()
                    } else {
                        record.end.clone()
                    }
                );
                context.out.line(visible(&line))?;
            }
        }
        known.retain(|id, _| all.iter().any(|record| record.id == *id));
        context.out.flush()?;
        match stdin_end.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(Answer::Yes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_with_why_and_what_to_do_and_without_words_to_the_terminal() {
        let record = RecordView {
            id: 4,
            severity: "critical".into(),
            code: "journal-no-space".into(),
            what: "no room \u{1b}[2J".into(),
            why: "the disk is full".into(),
            next: "make room".into(),
            count: 2,
            ..RecordView::default()
        };
        let text = details(&record);
        for part in
            ["incident 4: critical journal-no-space, lasts", "the disk is full", "make room", "nobody yet"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let over = RecordView {
            ended_ms: Some(9),
            end: "there is room".into(),
            acked_by: "ann".into(),
            acked_ms: Some(5),
            ..record
        };
        let text = details(&over);
        assert!(
            text.contains("there is room") && text.contains("ann, 1970") && !text.contains("make room"),
            "{text}"
        );
    }
}
