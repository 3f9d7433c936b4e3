//! `stats`: what the node has done, and how long it took.

use super::failure::{Answer, Done};
use super::out::{Table, utc, visible};
use super::{Context, ask};
use crate::base::shown::{bytes, count, counted};
use crate::engine::admin::{AdminRequest, StatsView};
use clap::Args;
use std::fmt::Write as _;

/// Files that are listed unless --all is said.
const FILES_SHOWN: usize = 10;

/// Shows entries by kind and file, rates, and how long entries took to each stage
#[derive(Debug, Args)]
#[command(after_long_help = "\
Counted are the entries of both journals, on the primary as they are made and on the standby as they come. Times are of
entries of the replicated journal, from when they were accepted until
  append   the write of their batch begins        apply    this node's store shows them
  disk     they are on this node's disk           answer   they may be answered at the database's ack level
  peer     they are on the peer's disk
and told to within an eighth. A standby has no peer and no answer. The counts survive restarts: they are kept each minute
and at a stop, so a kill loses those of the last minute at most.
Examples:
  hot-backup stats
  hot-backup stats --json | jq '.stages[] | {name, p99_us}'")]
pub(crate) struct StatsArgs {
    /// List every file, not only those with most entries
    #[arg(long)]
    all: bool,
}

/// Runs `stats`.
pub(crate) fn run(context: &mut Context, args: &StatsArgs) -> Done {
    let stats: Box<StatsView> = ask::ask_for(context, &AdminRequest::Stats)?;
    if context.json {
        context.out.json(&stats)?;
    } else {
        context.out.text(screen(&stats, if args.all { usize::MAX } else { FILES_SHOWN }))?;
    }
    Ok(Answer::Yes)
}

/// A time for people (microseconds).
fn time(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

fn screen(stats: &StatsView, most: usize) -> String {
    let mut text = String::new();
    let starts = counted(stats.starts, "start", "starts");
    let _ = writeln!(text, "since {}, {starts}", utc(stats.since_ms));
    let rates = &stats.rates;
    let _ = writeln!(
        text,
        "  now        {} entries/s, {}/s; the peer confirms {} entries/s, {}/s",
        count(rates.entries_per_second),
        bytes(rates.bytes_per_second),
        count(rates.confirmed_per_second),
        bytes(rates.confirmed_bytes_per_second)
    );
    let entries: u64 = stats.kinds.iter().map(|kind| kind.entries).sum();
    let each = if stats.batches == 0 { 0 } else { entries / stats.batches };
    let _ = writeln!(
        text,
        "  batches    {} with {}, {} of {each} on average",
        count(stats.batches),
        bytes(stats.batch_bytes),
        counted(entries, "entry", "entries"),
    );
    let _ = writeln!(
        text,
        "  again      {} of the journal, {} to the store; the link came up {}",
        counted(stats.write_retries, "write", "writes"),
        counted(stats.apply_retries, "batch", "batches"),
        counted(stats.connects, "time", "times"),
    );
    let mut kinds = Table::new(&["kind", ">entries", ">content"]);
    for kind in &stats.kinds {
        kinds.row([visible(&kind.kind), count(kind.entries), bytes(kind.bytes)]);
    }
    let mut stages = Table::new(&["stage", ">entries", ">p50", ">p99", ">p99.9", ">not timed"]);
    for stage in stats.stages.iter().filter(|stage| stage.count + stage.untimed > 0) {
        let times = [stage.p50_us, stage.p99_us, stage.p999_us].map(time);
        let [half, most, nearly] = times;
        stages.row([visible(&stage.name), count(stage.count), half, most, nearly, count(stage.untimed)]);
    }
    let mut files = Table::new(&["file", ">puts", ">deletes", ">blocks", ">others", ">content"]);
    for file in stats.files.iter().take(most) {
        let name = match (file.name.as_str(), file.id) {
            ("", 0) => "(all others)".to_owned(),
            ("", id) => format!("(id {id})"),
            (name, _) => visible(name),
        };
        files.row([
            name,
            count(file.puts),
            count(file.deletes),
            count(file.blocks),
            count(file.others),
            bytes(file.bytes),
        ]);
    }
    for table in [kinds, stages, files] {
        let _ = write!(text, "\n{}", table.render());
    }
    let more = stats.files.len().saturating_sub(most);
    if more > 0 {
        let _ = writeln!(text, "and {}: see --all", counted(more as u64, "file more", "files more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::{FileCount, KindCount, StageView};

    #[test]
    fn the_screen_tells_kinds_stages_and_files_and_hides_no_control_character() {
        let stage = |name: &str, count| StageView {
            name: name.into(),
            count,
            p50_us: 300,
            p99_us: 4200,
            p999_us: 1_500_000,
            ..StageView::default()
        };
        let stats = StatsView {
            starts: 1,
            kinds: vec![KindCount { kind: "put".into(), entries: 12_000, bytes: 5 }],
            files: (1..=12)
                .map(|id| FileCount { id, name: format!("app,\u{1b}{id}"), puts: 1, ..FileCount::default() })
                .collect(),
            batches: 60,
            stages: vec![stage("disk", 12_000), stage("peer", 0)],
            ..StatsView::default()
        };
        let text = screen(&stats, FILES_SHOWN);
        assert!(text.contains("12,000 entries of 200 on average"), "{text}");
        assert!(text.contains("300 us") && text.contains("4.2 ms") && text.contains("1.5 s"), "{text}");
        assert!(!text.contains("peer  ") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("and 2 files more: see --all"), "{text}");
    }
}
