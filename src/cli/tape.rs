//! `tape`: drives, reels and images of reels by themselves; and the flags of saves that go to reels or come from them.

use super::failure::{Answer, Done, Failure};
use super::glue::{
    self, Alarm, Allowed, Catalogue, Checked, DriveView, Move, Place, ReelSet, TapeOptions, Teller,
};
use super::out::{Table, escape, say, seconds, utc};
use super::{Context, values};
use crate::base::limits::{REEL_BLOCK, REEL_BLOCK_MAX, REEL_BLOCK_MIN, TAPE_STAGE};
use crate::base::shown::{bytes, counted};
use crate::format::tape_health::Alert;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Flags of whatever reads reels.
#[derive(Clone, Debug, Args)]
pub(crate) struct TapeArgs {
    /// The catalogue of the reels [default: beside the images; for a drive in the node's directory]
    #[arg(long, value_name = "FILE", help_heading = "Tape")]
    catalogue: Option<PathBuf>,
    /// Wait for no reel: one that is not there is an error
    #[arg(long, help_heading = "Tape")]
    no_wait: bool,
    /// Changes reels: a command with %o (load, unload, loaded, list), %S slot, %a drive, %d its number, as mtx-changer
    #[arg(long, value_name = "COMMAND", help_heading = "Tape")]
    changer: Option<String>,
}

/// Flags of a save that goes to reels.
#[derive(Clone, Debug, Args)]
pub(crate) struct TapeWriteArgs {
    #[command(flatten)]
    tape: TapeArgs,
    /// Write behind what is on the reels, instead of beginning a set
    #[arg(long, help_heading = "Tape")]
    append: bool,
    /// A reel gets no more than this
    #[arg(long, value_name = "SIZE", help_heading = "Tape", value_parser = values::byte_size)]
    reel_size: Option<u64>,
    /// Size of blocks on the reels: 64K to 1M
    #[arg(long, value_name = "SIZE", default_value_t = REEL_BLOCK as u64, help_heading = "Tape", value_parser = block_size)]
    block_size: u64,
    /// Memory in which blocks wait for the drive, and for its word that they are on the reel
    #[arg(long, value_name = "SIZE", default_value_t = TAPE_STAGE, help_heading = "Tape", value_parser = stage)]
    stage: u64,
    /// What the reels are called; each gets its number behind it
    #[arg(long, value_name = "NAME", default_value = "hot-backup", help_heading = "Tape")]
    reel_name: String,
    /// Encrypt with the key in this file (64 hexadecimal digits)
    #[arg(long, value_name = "KEYFILE", help_heading = "Tape")]
    encrypt: Option<PathBuf>,
    /// Blank reels may be written to, also those that `tape label` did not prepare
    #[arg(long, help_heading = "Tape")]
    label_blank: bool,
    /// Whatever is on the reels may be overwritten
    #[arg(long, help_heading = "Tape")]
    relabel: bool,
}

fn block_size(text: &str) -> Result<u64, String> {
    match values::byte_size(text)? {
        size if (REEL_BLOCK_MIN as u64..=REEL_BLOCK_MAX as u64).contains(&size) => Ok(size),
        _ => Err("expected 64K to 1M".to_owned()),
    }
}

fn stage(text: &str) -> Result<u64, String> {
    match values::byte_size(text)? {
        size if size < 4 << 20 => Err("4M at least".to_owned()),
        size => Ok(size),
    }
}

/// A place on the command line, with or without `tape:` before it.
pub(super) fn place(text: &str) -> Result<Place, String> {
    Place::parse(text.strip_prefix("tape:").unwrap_or(text))
}

impl TapeArgs {
    /// What they say of reels at a place.
    pub(super) fn options(&self, context: &Context, place: Place) -> TapeOptions {
        TapeOptions {
            dir: context.dir.clone(),
            catalogue: self.catalogue.clone(),
            wait: self.no_wait.then_some(Duration::ZERO),
            changer: self.changer.clone(),
            teller: Teller::new(|text| say(text)),
            alarm: Alarm::new(|flags| flags.into_iter().for_each(|flag| say(Alert::of(flag)))),
            ..TapeOptions::new(place)
        }
    }
}

impl TapeWriteArgs {
    /// Memory for what does not count yet (bytes).
    pub(super) fn stage(&self) -> u64 {
        self.stage
    }

    /// How a save goes to reels at a place.
    pub(super) fn order(&self, context: &Context, place: Place) -> Result<glue::TapeOrder, Failure> {
        let mut options = self.tape.options(context, place);
        options.allowed = Allowed { blank: self.label_blank, relabel: self.relabel };
        options.key = self.encrypt.as_deref().map(glue::tape_key).transpose()?;
        Ok(glue::TapeOrder {
            options,
            append: self.append,
            reel_size: self.reel_size,
            block_size: u32::try_from(self.block_size).unwrap_or(u32::MAX),
            stage: self.stage,
            name: self.reel_name.clone(),
        })
    }
}

/// Drives, reels and images of reels
#[derive(Debug, Args)]
#[command(after_long_help = "\
A place is a drive (/dev/nst0), an image for each reel (reel-%03d.tap, where %03d is the number of the reel), or one image that is
changed like a cartridge (drive.tap). Images are files in SIMH's .tap format. `tape:` may stand before a place.

Examples:
  hot-backup tape label /dev/nst0 --name monday        prepare a blank reel
  hot-backup save --to tape:/dev/nst0                  save to it, and to those after it
  hot-backup tape list '/backup/reel-%03d.tap'         what is on which reel
  hot-backup tape verify '/backup/reel-%03d.tap'       read all of it
  hot-backup tape mounted /dev/nst0                    the reel that was asked for is there
  hot-backup tape check /dev/nst0 --relabel            try out a new drive, with a reel that may be overwritten

Exit codes: 0 yes or done, 1 no: nothing there, nobody waits, or something cannot be read, 2 error.")]
pub(crate) struct TapeCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct At {
    /// The drive or images
    #[arg(value_name = "PLACE", value_parser = place)]
    place: Place,
    #[command(flatten)]
    tape: TapeArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says what is in the drive, and which reel is waited for; moves nothing
    Status(At),
    /// Prepares a blank reel for any save; makes an image
    #[command(after_long_help = "\
A save writes to reels that were labelled so, and to nothing else unless told otherwise (--label-blank, --relabel).

Example: hot-backup tape label /dev/nst0 --name 'monday, left shelf'")]
    Label {
        #[command(flatten)]
        at: At,
        /// The reel's name
        #[arg(long, value_name = "NAME", default_value = "prepared")]
        name: String,
        /// Of images, which one
        #[arg(long, value_name = "N", default_value_t = 1)]
        reel: u32,
        /// Whatever is on the reel may be overwritten
        #[arg(long)]
        relabel: bool,
    },
    /// Lists reels and the saves on them, by the catalogue
    List {
        #[command(flatten)]
        at: At,
        /// Read all reels, and make the catalogue anew
        #[arg(long)]
        scan: bool,
        /// The key file of encrypted saves, whose files are listed then
        #[arg(long, value_name = "KEYFILE")]
        key: Option<PathBuf>,
    },
    /// Reads all reels of a set and says what cannot be read, with reel, block and what it held
    Verify {
        #[command(flatten)]
        at: At,
        /// The key file of encrypted saves, whose content is checked then
        #[arg(long, value_name = "KEYFILE")]
        key: Option<PathBuf>,
    },
    /// Copies reels block by block; either can be read in place of the other
    Copy {
        #[command(flatten)]
        at: At,
        /// Where to
        #[arg(value_name = "TO", value_parser = place)]
        to: Place,
        /// Blank reels may be written to
        #[arg(long)]
        label_blank: bool,
        /// Whatever is on the reels may be overwritten
        #[arg(long)]
        relabel: bool,
    },
    /// Goes to the beginning of the reel
    Rewind(At),
    /// Goes behind all that is written on the reel
    Eod(At),
    /// Goes forward over filemarks, and says where that is
    Fsf {
        #[command(flatten)]
        at: At,
        /// How many
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        count: i32,
    },
    /// Goes back over filemarks, and says where that is
    Bsf {
        #[command(flatten)]
        at: At,
        /// How many
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        count: i32,
    },
    /// Rewinds the reel and gives it out
    Offline(At),
    /// Answers the open request: the reel is there, look again
    Mounted {
        #[command(flatten)]
        at: At,
        /// Nobody shall wait for it any more: the command that waits ends
        #[arg(long)]
        give_up: bool,
    },
    /// Tries out a drive: writes, reads back, measures, says which block size to take
    Check {
        #[command(flatten)]
        at: At,
        /// How much is written for each size of blocks
        #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = values::byte_size)]
        size: u64,
        /// A blank reel may be written to
        #[arg(long)]
        label_blank: bool,
        /// Whatever is on the reel may be overwritten
        #[arg(long)]
        relabel: bool,
    },
}

/// Runs `tape`.
pub(crate) fn run(context: &mut Context, command: TapeCommand) -> Done {
    match command.verb {
        Verb::Status(at) => status(context, &at),
        Verb::Label { at, name, reel, relabel } => {
            let mut options = at.options(context);
            options.allowed.relabel = relabel;
            let found = glue::tape_label(&options, reel, &name)?;
            say(format!("labelled {}; before that it was: {found}", options.place.path(reel).display()));
            Ok(Answer::Yes)
        }
        Verb::List { at, scan, key } => list(context, &at, scan, key),
        Verb::Verify { at, key } => verify(context, &at, key),
        Verb::Copy { at, to, label_blank, relabel } => {
            let from = at.options(context);
            let mut to = at.tape.options(context, to);
            to.allowed = Allowed { blank: label_blank, relabel };
            copy(context, &from, &to)
        }
        Verb::Rewind(at) => moved(context, &at, Move::Rewind),
        Verb::Eod(at) => moved(context, &at, Move::End),
        Verb::Fsf { at, count } => moved(context, &at, Move::Files(count)),
        Verb::Bsf { at, count } => moved(context, &at, Move::Files(-count)),
        Verb::Offline(at) => moved(context, &at, Move::Offline),
        Verb::Mounted { at, give_up } => {
            let options = at.options(context);
            if glue::tape_answer(&options, give_up)? {
                return Ok(Answer::Yes);
            }
            let message = format!("answering for {}: nobody waits for a reel there", options.place.name());
            Err(Failure::no(message, "see what is waited for: hot-backup tape status"))
        }
        Verb::Check { at, size, label_blank, relabel } => {
            let mut options = at.options(context);
            options.allowed = Allowed { blank: label_blank, relabel };
            check(context, &options, size)
        }
    }
}

impl At {
    fn options(&self, context: &Context) -> TapeOptions {
        self.tape.options(context, self.place.clone())
    }
}

fn status(context: &mut Context, at: &At) -> Done {
    let views = glue::tape_status(&at.options(context))?;
    let there = views.iter().any(|view| view.online);
    if context.json {
        context.out.json(&views)?;
        return Ok(Answer::of(there));
    }
    let mut table = Table::new(&["where", "reel", ">position", "compression", "encryption", "state"]);
    for view in &views {
        let reel = match (view.online, &view.label) {
            (false, _) => "none",
            (true, Some(label)) => label.as_str(),
            (true, None) => "there",
        };
        let position = view.position.map_or_else(|| "-".to_owned(), |position| position.to_string());
        let (packs, encrypts) = (view.compression.clone(), view.encryption.clone());
        table.row([view.path.clone(), reel.to_owned(), position, packs, encrypts, state(view)]);
    }
    context.out.text(table.render())?;
    if let Some(request) = views.iter().find_map(|view| view.request.as_ref()) {
        let refused = request.refused.as_ref();
        let refused = refused.map(|why| format!("; the one that is there is not taken: {why}"));
        let text = format!(
            "request {} since {}: {} to {} ({}){}",
            request.number,
            utc(request.since_ms),
            request.wanted,
            request.purpose,
            request.why,
            refused.unwrap_or_default()
        );
        context.out.line(escape(text.as_bytes()))?;
    }
    Ok(Answer::of(there))
}

fn state(view: &DriveView) -> String {
    let words = [
        (view.protected, "write-protected"),
        (view.near_end, "near its end"),
        (view.clean, "the drive wants to be cleaned"),
    ];
    let words: Vec<&str> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn list(context: &mut Context, at: &At, scan: bool, key: Option<PathBuf>) -> Done {
    let mut options = at.options(context);
    options.key = key.as_deref().map(glue::tape_key).transpose()?;
    let (catalogue, lost) = if scan {
        let scanned = glue::tape_scan(&options)?;
        scanned.losses.iter().for_each(|loss| say(loss.to_string()));
        (scanned.catalogue, !scanned.losses.is_empty())
    } else {
        (glue::tape_catalogue(&options)?, false)
    };
    if context.json {
        context.out.json(&catalogue)?;
    } else {
        show(context, &catalogue)?;
    }
    Ok(Answer::of(!catalogue.sets.is_empty() && !lost))
}

fn show(context: &mut Context, catalogue: &Catalogue) -> Result<(), Failure> {
    for set in &catalogue.sets {
        let key = if set.key == 0 { String::new() } else { format!(", encrypted with key {:016x}", set.key) };
        context.out.line(format!("set {} of pair {}{key}", set.id, set.pair))?;
        let mut table = Table::new(&["reel", "name", "written", ">blocks", "goes on"]);
        for reel in &set.reels {
            let goes_on = if reel.ended { "yes" } else { "-" };
            table.row([
                reel.number.to_string(),
                reel.name.clone(),
                utc(reel.wall_ms),
                reel.blocks().to_string(),
                goes_on.to_owned(),
            ]);
        }
        context.out.text(table.render())?;
        context.out.text(saves(set).render())?;
    }
    if catalogue.sets.is_empty() {
        say("no reels are known there; --scan reads them");
    }
    Ok(())
}

fn saves(set: &ReelSet) -> Table {
    let mut table = Table::new(&["save", "ended", "node", ">entry", ">items", ">size", "reels"]);
    for save in &set.saves {
        let on: Vec<String> = set
            .reels
            .iter()
            .filter(|reel| reel.first < save.next && reel.next > save.first)
            .map(|reel| reel.number.to_string())
            .collect();
        let unknown = if save.bytes.is_some() { "(encrypted)" } else { "(interrupted)" };
        let of = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let content = save.content.as_ref();
        table.row([
            save.id.clone(),
            content.map_or_else(|| unknown.to_owned(), |content| utc(content.ended_ms)),
            of(content.map(|content| content.node.clone())),
            of(content.map(|content| content.seq.to_string())),
            of(content.map(|content| content.counts.get(2).copied().unwrap_or_default().to_string())),
            of(save.bytes.map(bytes)),
            on.join(" "),
        ]);
    }
    table
}

/// What `tape verify --json` prints.
#[derive(Serialize)]
struct VerifiedView {
    whole: bool,
    set: String,
    reels: u32,
    blocks: u64,
    lost: Vec<LostView>,
    seconds: f64,
}

#[derive(Serialize)]
struct LostView {
    reel: u32,
    position: Option<u64>,
    first_block: u64,
    blocks: u64,
    why: String,
    held: String,
}

fn verify(context: &mut Context, at: &At, key: Option<PathBuf>) -> Done {
    let mut options = at.options(context);
    options.key = key.as_deref().map(glue::tape_key).transpose()?;
    let begin = Instant::now();
    let scanned = glue::tape_scan(&options)?;
    let set = scanned.catalogue.set(scanned.set);
    let view = |loss: &glue::Loss| LostView {
        reel: loss.reel,
        position: loss.position,
        first_block: loss.first,
        blocks: loss.next - loss.first,
        why: loss.why.clone(),
        held: set.map(|set| set.held(loss.first..loss.next)).unwrap_or_default(),
    };
    let lost: Vec<LostView> = scanned.losses.iter().map(view).collect();
    let whole = lost.is_empty();
    let took = begin.elapsed().as_secs_f64();
    let set = scanned.set.to_string();
    if context.json {
        let (reels, blocks) = (scanned.reels, scanned.blocks);
        context.out.json(&VerifiedView { whole, set, reels, blocks, lost, seconds: took })?;
        return Ok(Answer::of(whole));
    }
    for (loss, view) in scanned.losses.iter().zip(&lost) {
        let held = if view.held.is_empty() { String::new() } else { format!("; it held {}", view.held) };
        say(format!("{loss}{held}"));
    }
    let reels = counted(scanned.reels.into(), "reel", "reels");
    let blocks = counted(scanned.blocks, "block", "blocks");
    let (word, took) = (if whole { "whole" } else { "not whole" }, seconds(took));
    context.out.line(format!("{word}: {reels} of set {set} with {blocks}, read in {took}"))?;
    Ok(Answer::of(whole))
}

fn copy(context: &mut Context, from: &TapeOptions, to: &TapeOptions) -> Done {
    let copied = glue::tape_copy(from, to)?;
    if context.json {
        context.out.json(&copied)?;
    } else {
        for (reel, position) in &copied.lost {
            say(format!("reel {reel}, position {position} cannot be read, and is missing in the copy"));
        }
        let reels = counted(copied.reels.into(), "reel", "reels");
        let blocks = counted(copied.blocks, "block", "blocks");
        context.out.line(format!("copied {reels} with {blocks} ({})", bytes(copied.bytes)))?;
    }
    Ok(Answer::of(copied.reels > 0 && copied.lost.is_empty()))
}

/// Where a drive is.
#[derive(Serialize)]
struct PositionView {
    position: Option<u64>,
}

fn moved(context: &mut Context, at: &At, to: Move) -> Done {
    let position = glue::tape_move(&at.options(context), 1, to)?;
    if context.json {
        context.out.json(&PositionView { position })?;
    } else if let Some(position) = position {
        context.out.line(format!("position {position}"))?;
    }
    Ok(Answer::Yes)
}

fn check(context: &mut Context, options: &TapeOptions, size: u64) -> Done {
    const SIZES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];
    let checked = glue::tape_check(options, &SIZES, size)?;
    if context.json {
        context.out.json(&checked)?;
        return Ok(Answer::Yes);
    }
    let mut table = Table::new(&[">blocks", ">written", ">write", ">read", ">flush"]);
    for one in &checked {
        table.row([
            bytes(one.block_size.into()),
            bytes(one.bytes),
            format!("{}/s", bytes(one.write_rate)),
            format!("{}/s", bytes(one.read_rate)),
            seconds(one.flush_seconds),
        ]);
    }
    context.out.text(table.render())?;
    if let Some(best) = best(&checked) {
        context.out.line(format!("take --block-size {}K", best.block_size >> 10))?;
    }
    Ok(Answer::Yes)
}

/// The shortest blocks that are nearly as fast as the fastest.
fn best(checked: &[Checked]) -> Option<&Checked> {
    let most = checked.iter().map(|one| one.write_rate).max()?;
    checked.iter().find(|one| one.write_rate >= most / 10 * 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_blocks_that_are_fast_enough_are_advised_and_sizes_are_bounded() {
        let of = |block_size, write_rate| Checked {
            block_size,
            bytes: 0,
            write_rate,
            read_rate: 0,
            flush_seconds: 0.0,
        };
        let rates = [of(64 << 10, 100), of(256 << 10, 190), of(1 << 20, 200)];
        assert_eq!(best(&rates).map(|one| one.block_size), Some(256 << 10));
        assert_eq!(best(&[]), None);
        assert_eq!((block_size("256K"), block_size("1M")), (Ok(256 << 10), Ok(1 << 20)));
        assert!(block_size("32K").is_err() && block_size("2M").is_err() && stage("1M").is_err());
        assert!(place("tape:/dev/nst0").is_ok_and(|place| place == Place::Device("/dev/nst0".into())));
    }
}
