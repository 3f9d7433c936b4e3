//! `queue`: what the peer has not confirmed, the entries of the journal on the disk, and whether they are whole.

use super::failure::{Answer, Done, Failure};
use super::out::{Table, say, seconds, visible};
use super::{Context, ask, glue};
use crate::base::Seq;
use crate::base::shown::{bytes, count, counted};
use crate::engine::admin::{AdminRequest, FileView, LogEntryView, QueueView, Status};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;

/// Shows what the peer has not confirmed, lists its entries, checks the journal on the disk
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without a verb: how much the peer has not confirmed to have on disk, the age of the oldest, and how long it takes at the
present rates. show and check read the journal's files beside a node at work, and lock nothing; they need no node.
Examples:
  hot-backup queue
  hot-backup queue show --limit 50            the oldest entries that the peer does not have yet
  hot-backup queue show --from 120000 --json  from this entry on, as long as the journal has it
  hot-backup queue check                      every batch against its checksum and the chain of those before it
Exit codes of check: 0 all is whole, 1 it is not, 2 it cannot be read.")]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List entries of the replicated journal, oldest first
    Show {
        /// The first entry; else the first that the peer has not confirmed, or the oldest
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
        /// How many at most
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Check every batch on the disk: checksum, numbers, chain
    Check,
}

/// Runs `queue`.
pub(crate) fn run(context: &mut Context, args: &QueueArgs) -> Done {
    match args.verb {
        None => summary(context),
        Some(Verb::Show { from, limit }) => show(context, from, limit),
        Some(Verb::Check) => check(context),
    }
}

fn summary(context: &mut Context) -> Done {
    let queue: QueueView = ask::ask_for(context, &AdminRequest::Queue)?;
    if context.json {
        context.out.json(&queue)?;
    } else {
        context.out.text(told(&queue))?;
    }
    Ok(Answer::Yes)
}

fn told(queue: &QueueView) -> String {
    if !queue.note.is_empty() {
        return format!("{}\n", visible(&queue.note));
    }
    let peer =
        format!("the peer is {}", if queue.connected { visible(&queue.peer) } else { "away".to_owned() });
    if queue.entries == 0 {
        return format!(
            "nothing is queued: the peer has everything on disk up to entry {}\n",
            count(queue.last)
        );
    }
    let left = match queue.seconds_left {
        Some(left) => format!("drained in about {}", seconds(left)),
        None => "it does not get shorter at these rates".to_owned(),
    };
    let rates = &queue.rates;
    format!(
        "{}, {}, the oldest of {} ago: {} to {}; {peer}\n  in   {} entries/s, {}/s\n  out  {} entries/s, {}/s\n  {left}\n",
        counted(queue.entries, "entry", "entries"),
        bytes(queue.bytes),
        seconds(queue.oldest_seconds),
        count(queue.first),
        count(queue.last),
        count(rates.entries_per_second),
        bytes(rates.bytes_per_second),
        count(rates.confirmed_per_second),
        bytes(rates.confirmed_bytes_per_second),
    )
}

/// An entry as it lies in the journal.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    entry: LogEntryView,
    /// When its batch was sealed (milliseconds since 1970).
    wall_ms: u64,
}

fn show(context: &mut Context, from: Option<u64>, limit: usize) -> Done {
    // Of a node that does not run the journal is listed as well: then files have no names, only ids.
    let running = |request: &AdminRequest| ask::ask(context, request).ok();
    let names: BTreeMap<u64, String> = match running(&AdminRequest::FileList { account: None }) {
        Some(value) => {
            ask::read::<Vec<FileView>>(value)?.into_iter().map(|file| (file.id, file.name)).collect()
        }
        None => BTreeMap::new(),
    };
    let waits = match (from, running(&AdminRequest::Queue)) {
        (None, Some(value)) => ask::read::<QueueView>(value)?,
        _ => QueueView::default(),
    };
    if from.is_none() && waits.last > 0 && waits.entries == 0 && waits.note.is_empty() {
        say("nothing is queued for the peer; with --from SEQ older entries are listed");
        if context.json {
            context.out.json(&Vec::<Listed>::new())?;
        }
        return Ok(Answer::Yes);
    }
    let from = from.unwrap_or(waits.first);
    let mut listed: Vec<Listed> = Vec::new();
    glue::walk_queue(context.dir()?, Seq(from), |batch| {
        let header = *batch.header();
        for (seq, entry) in batch.entries().filter(|(seq, _)| seq.0 >= from) {
            if listed.len() >= limit {
                return false;
            }
            let known = names.get(&entry.file.0).cloned();
            let item = match entry.block_change() {
                Some(change) => format!("{} to {}", change.offset, change.end()),
                None => String::from_utf8_lossy(entry.id).escape_debug().to_string(),
            };
            listed.push(Listed {
                entry: LogEntryView {
                    seq: seq.0,
                    epoch: header.epoch.0,
                    kind: entry.kind.name().to_owned(),
                    file: known.unwrap_or_else(|| entry.file.to_string()),
                    item,
                    bytes: entry.value.len() as u64,
                },
                wall_ms: header.wall_ms,
            });
        }
        listed.len() < limit
    })?;
    if context.json {
        context.out.json(&listed)?;
    } else if listed.is_empty() {
        say("the journal has no such entry");
    } else {
        print(context, &listed)?;
    }
    Ok(Answer::Yes)
}

fn print(context: &mut Context, listed: &[Listed]) -> Result<(), Failure> {
    let mut table = Table::new(&[">entry", ">epoch", "when", "what", "file", ">size", "item"]);
    for Listed { entry, wall_ms } in listed {
        table.row([
            count(entry.seq),
            entry.epoch.to_string(),
            super::out::utc(*wall_ms),
            entry.kind.clone(),
            visible(&entry.file),
            bytes(entry.bytes),
            entry.item.clone(),
        ]);
    }
    context.out.text(table.render())
}

fn check(context: &mut Context) -> Done {
    // What a running node says of its disk has to be there when the walk comes to its end.
    let durable = match glue::call(context.dir()?, &AdminRequest::Status, ask::PATIENCE) {
        Ok(reply) => {
            let status: Box<Status> = ask::read(ask::answer_of(reply)?)?;
            Some(status.positions.durable)
        }
        Err(_) => None,
    };
    let walked = glue::walk_queue(context.dir()?, Seq(0), |_| true)?;
    match durable {
        None => glue::recover_queue(context.dir()?)?,
        Some(durable) if walked.last < durable => {
            return Err(Failure::no(
                format!(
                    "the journal on the disk ends at entry {}, and the node has written {durable}",
                    walked.last
                ),
                "keep the directory; check the disk (`dmesg`); the peer has what it confirmed: see `hot-backup queue`",
            ));
        }
        Some(_) => {}
    }
    if context.json {
        context.out.json(&walked)?;
    } else if walked.batches == 0 {
        context.out.line("the journal is whole, and holds nothing")?;
    } else {
        context.out.line(format_args!(
            "the journal is whole: entries {} to {} in {}, {}, {}",
            count(walked.first),
            count(walked.last),
            counted(walked.batches, "batch", "batches"),
            bytes(walked.bytes),
            counted(walked.segments, "segment", "segments"),
        ))?;
    }
    Ok(Answer::Yes)
}
