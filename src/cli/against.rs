//! `verify --against`: a save held against the node that it was made of, or its peer.

use super::failure::{Answer, Done, Failure};
use super::glue::{Against, How, Source, Sources, Thing, Until};
use super::out::{escape, say, seconds};
use super::save::progress;
use super::{Context, glue, values};
use crate::base::shown::{bytes, counted};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a node may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);
/// Differences that are told one by one.
const TOLD: usize = 100;

/// How a save is held against a node.
#[derive(Debug, Args)]
pub(super) struct AgainstArgs {
    /// Hold it against the running node of --dir: what differs, but for what changed since
    #[arg(long)]
    pub(super) against: bool,
    /// With --against: a directory of a spool that has entries which the node's journal has let go
    #[arg(long, value_name = "DIR", requires = "against")]
    spool: Vec<PathBuf>,
    /// With --against: content that the node reads in a second at most (bytes), such as 200M
    #[arg(long, value_name = "SIZE", requires = "against", value_parser = values::byte_size)]
    rate: Option<u64>,
    /// With --against: the set is laid out here meanwhile [default: the directory for temporary files]
    #[arg(long, value_name = "PATH", requires = "against")]
    scratch: Option<PathBuf>,
}

#[derive(Serialize)]
struct DifferenceView {
    file: String,
    kind: &'static str,
    /// The item's id, or the block's number.
    place: String,
    how: How,
}

#[derive(Serialize)]
struct AgainstView {
    equal: bool,
    /// The last entry of the save, and of the node's state.
    seq: u64,
    node_seq: u64,
    bytes: u64,
    /// What differed, and was changed by updates since.
    changed_since: u64,
    differing: u64,
    differences: Vec<DifferenceView>,
    seconds: f64,
}

impl DifferenceView {
    fn of((file, thing, how): &(String, Thing, How)) -> Self {
        let (kind, place) = match thing {
            Thing::File => ("file", String::new()),
            Thing::Item(id) => ("item", escape(id)),
            Thing::Block(number) => ("block", number.to_string()),
        };
        Self { file: file.clone(), kind, place, how: *how }
    }

    fn text(&self) -> String {
        let Self { file, kind, place, how } = self;
        let how = match how {
            How::OnlyInSave => "only in the save",
            How::OnlyOnNode => "only on the node",
            How::Other => "not the same",
        };
        match *kind {
            "file" => format!("{file}: the definition: {how}"),
            _ => format!("{file}: {kind} {place}: {how}"),
        }
    }
}

/// Runs `verify --against`.
pub(super) fn run(context: &mut Context, sets: Vec<Source>, args: &AgainstArgs) -> Done {
    let begin = Instant::now();
    let dir = context.dir()?.to_owned();
    let history = args.spool.iter().map(|dir| {
        let next = "give a directory that `hot-backup spool list --at` reads";
        let missing = || Failure::error(format!("reading {}: it holds no spool", dir.display()), next);
        glue::history(dir).ok_or_else(missing)
    });
    let history = history.collect::<Result<Vec<_>, _>>()?;
    let Some(last) = sets.last() else { return Ok(Answer::No) };
    let account = match last {
        Source::Stdin => String::new(),
        set => glue::contents(set)?.begin.account,
    };
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let bar = progress(sets.iter().map(Source::bytes).sum());
    // What a node has alone the other one cannot have, and no journal tells what changed it since.
    let sources = Sources { sets, past: Vec::new(), until: Until::End, alone: false };
    let unpacked = glue::unpack(&sources, &scratch, None, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let mut unpacked = unpacked?;
    let found = glue::against(&dir, &mut unpacked, (&account, args.rate), &history, PATIENCE)?;
    tell(context, &found, begin.elapsed())
}

fn tell(context: &mut Context, found: &Against, took: Duration) -> Done {
    let (took, differing) = (took.as_secs_f64(), found.differences.len() as u64);
    let told = found.differences.iter().take(TOLD).map(DifferenceView::of);
    if context.json {
        context.out.json(&AgainstView {
            equal: differing == 0,
            seq: found.from.0,
            node_seq: found.to.0,
            bytes: found.bytes,
            changed_since: found.changed,
            differing,
            differences: told.collect(),
            seconds: took,
        })?;
        return Ok(Answer::of(differing == 0));
    }
    told.for_each(|difference| say(difference.text()));
    if differing > TOLD as u64 {
        say(format!(".. and {} more", differing - TOLD as u64));
    }
    let since = counted(found.changed, "thing", "things");
    context.out.line(format!(
        "{}: the save at entry {} and the node at entry {}, {} looked at in {}; {since} changed since",
        match differing {
            0 => "no difference".to_owned(),
            n => format!("{} without an update", counted(n, "difference", "differences")),
        },
        found.from,
        found.to,
        bytes(found.bytes),
        seconds(took),
    ))?;
    Ok(Answer::of(differing == 0))
}
