//! `resync plan`: the long way round, for a peer that no fast link reaches.

use super::failure::{Answer, Done, Failure};
use super::glue::{self, Pack, SaveOrder, SaveTold, Target};
use super::glue_plan::{
    self, Carried, Carrier, Endless, Forecast, Given, Next, Pace, Plan, RoundPlace, Step, now_ms, takes,
};
use super::out::{say, seconds, visible};
use super::save::progress;
use super::tape::TapeArgs;
use super::{Context, ask, values};
use crate::base::limits::{REEL_BLOCK, TAPE_STAGE};
use crate::base::shown::{bytes, count, counted};
use crate::engine::admin::{AdminRequest, SpoolView, StatsView, Status};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What a disk or a drive does in a second where nobody told (bytes).
const ASSUMED: u64 = 100 << 20;
/// How long a way is where nobody told (milliseconds).
const ASSUMED_CARRY_MS: u64 = 3_600_000;
/// How often it is looked whether the spool did what it was told ..
const LOOKS: u32 = 100;
/// .. and how long it is waited in between.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node may take to begin a save.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a peer level that no fast link reaches: what is carried, in how many rounds, and what is to be done next
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = "\
A save of this node is carried to the new one and restored there; then what came meanwhile, from the spool, in rounds. Each
round takes less time than the one before, so less comes meanwhile, until the rest fits a link. Nothing is copied over the
link but that rest. Each round has to be smaller than the one before: if not, the plan says so, and why.

`resync plan --to ..` makes the plan and says what is to be expected. `run` does what this machine can do by itself, and ends
with what a person has to do: carry, and say `next` here when it is done. Interrupted, `run` goes on where it was.

What goes on a disk goes to files in that directory. The spool is where `spool` in the config says, else where --spool does: a
directory that stays here. Each round is written from it, to reels of its own or to a directory.

Figures that are not given are assumed until they are measured. `hot-backup tape check` measures a drive, `hot-backup
bench link` a link.

Examples:
  hot-backup resync plan --to file:/mnt/usb --spool file:/var/spool/hb --carry 6h --link 10M
  hot-backup resync plan --to tape:/dev/nst0 --spool file:/var/spool/hb --reel-size 12T --drive 300M --dry-run
  hot-backup resync plan run        save, and say what to carry
  hot-backup resync plan next       that is there and restored: go on
  hot-backup resync plan status     where it is

Exit codes: 0 done, or a person is to go on; 1 no: it does not end, or the peer is not level yet; 2 error."
)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// What is carried: file:/directory, tape:/dev/nst0 or tape:/path/reel-%03d.tap
    #[arg(long, value_name = "PLACE", required = true, value_parser = carrier)]
    to: Option<Carrier>,
    /// Where the spool is, if this node uses none: file:/directory on a disk that stays here
    #[arg(long, value_name = "PLACE")]
    spool: Option<String>,
    #[command(flatten)]
    figures: Figures,
    /// What goes on one reel
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    reel_size: Option<u64>,
    /// In place of a plan that is under way
    #[arg(long)]
    again: bool,
    /// Only say what is to be expected
    #[arg(long)]
    dry_run: bool,
}

/// Figures of a plan.
#[derive(Clone, Debug, Default, Args)]
struct Figures {
    /// What the link takes in a second, such as 10M
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    link: Option<u64>,
    /// What the drive or the disk takes in a second
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    drive: Option<u64>,
    /// What it gives in a second, when it is restored [default: as --drive]
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    read: Option<u64>,
    /// What users change in a second [default: as this node counts it]
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    updates: Option<u64>,
    /// How long the way takes, such as 90m or 6h
    #[arg(long, value_name = "TIME", value_parser = values::milliseconds)]
    carry: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Does what is to be done here, until a person has to do something
    Run(RunArgs),
    /// Your word that what was carried is restored there; then as run
    Next(RunArgs),
    /// Says where the plan is, what is to be expected, and what comes next; exit code 1 if there is no plan
    Status,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    figures: Figures,
    /// Blank reels may be written to, also those that `tape label` did not prepare
    #[arg(long, help_heading = "Tape")]
    label_blank: bool,
    #[command(flatten)]
    tape: TapeArgs,
}

fn carrier(text: &str) -> Result<Carrier, String> {
    Carrier::parse(text)
}

impl Figures {
    /// Takes what was given; what was not stays.
    fn put(&self, pace: &mut Pace, given: &mut Given) {
        let put = |value: Option<u64>, figure: &mut u64, known: &mut bool| {
            if let Some(value) = value {
                (*figure, *known) = (value, true);
            }
        };
        put(self.updates, &mut pace.updates, &mut given.updates);
        put(self.drive, &mut pace.write, &mut given.write);
        put(self.read.or(self.drive), &mut pace.read, &mut given.read);
        put(self.carry, &mut pace.carry_ms, &mut given.carry);
        put(self.link, &mut pace.link, &mut false);
    }
}

/// Runs `resync plan`.
pub(super) fn run(context: &mut Context, args: &PlanArgs) -> Done {
    match &args.verb {
        None => make(context, args),
        Some(Verb::Run(args)) => go_on(context, args, false),
        Some(Verb::Next(args)) => go_on(context, args, true),
        Some(Verb::Status) => {
            let plan = there(context)?;
            let lacks = lacks(context, &plan)?;
            tell(context, &plan, lacks)
        }
    }
}

fn there(context: &Context) -> Result<Plan, Failure> {
    glue_plan::plan(context.dir()?)?.ok_or_else(|| {
        let next = "make one: hot-backup resync plan --to file:/directory";
        Failure::no("looking for the plan: this node has none", next)
    })
}

fn status(context: &Context) -> Result<Box<Status>, Failure> {
    let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
    if status.serves() {
        return Ok(status);
    }
    let message = format!("planning: {} does not serve (it is {})", visible(&status.name), status.state);
    Err(Failure::no(message, "say it on the node that serves"))
}

fn make(context: &mut Context, args: &PlanArgs) -> Done {
    let Some(to) = &args.to else { return Err(Failure::error("planning: no place is named", "say --to")) };
    let dir = context.dir()?.to_owned();
    let free = args.again || args.dry_run;
    if !free && glue_plan::plan(&dir)?.is_some_and(|plan| plan.step != Step::Done) {
        let next = "go on with it: hot-backup resync plan run; or begin anew: --again";
        return Err(Failure::no("planning: a plan is under way", next));
    }
    let status = status(context)?;
    let spool = spool_place(&status.spool, to, args.spool.as_deref())?;
    let mut plan = Plan::new(to, spool, before(&status.spool), now_ms());
    let stats: Box<StatsView> = ask::ask_for(context, &AdminRequest::Stats)?;
    let reel = args.reel_size.unwrap_or(0);
    plan.pace = Pace {
        updates: stats.rates.bytes_per_second,
        write: ASSUMED,
        read: ASSUMED,
        link: 0,
        carry_ms: ASSUMED_CARRY_MS,
        reel,
    };
    args.figures.put(&mut plan.pace, &mut plan.given);
    plan.stored = glue::stored_bytes(&dir);
    let forecast = plan.forecast(0);
    if !args.dry_run {
        glue_plan::keep(&dir, &plan)?;
    }
    tell_forecast(context, &plan, &forecast)?;
    if args.dry_run || context.json {
        return Ok(answer(&forecast));
    }
    context.out.flush()?;
    say("begin it: hot-backup resync plan run");
    Ok(answer(&forecast))
}

fn answer(forecast: &Forecast) -> Answer {
    Answer::of(!matches!(forecast.end, Next::Never(_)))
}

/// What the spool is called before it is changed.
fn before(spool: &SpoolView) -> String {
    if spool.state == "off" { "off".to_owned() } else { spool.mode.clone() }
}

/// Where what comes after the save waits.
fn spool_place(spool: &SpoolView, to: &Carrier, named: Option<&str>) -> Result<String, Failure> {
    let place = match named {
        Some(named) if spool.state != "off" && named != spool.place => {
            let message = format!("planning: the spool of this node is {}", visible(&spool.place));
            return Err(Failure::no(
                message,
                "leave out --spool, or stop that one first: hot-backup spool stop",
            ));
        }
        None if spool.state == "off" => {
            return Err(Failure::error(
                "planning: what comes after the save needs a place that stays here, and this node has no spool",
                "name a directory on another disk of this machine: --spool file:/directory",
            ));
        }
        Some(named) => named.to_owned(),
        None => spool.place.clone(),
    };
    // Rounds have reels of their own, which are carried away.
    if [to.name(), to.round(1).name()].contains(&place) {
        let message = format!("planning: {} is what is carried, and the spool stays here", visible(&place));
        return Err(Failure::error(
            message,
            "name a directory on another disk of this machine: --spool file:/directory",
        ));
    }
    Ok(place)
}

/// What the peer lacks beyond what was carried, as far as it is on the spool (bytes).
fn lacks(context: &Context, plan: &Plan) -> Result<u64, Failure> {
    if !matches!(plan.step, Step::Round | Step::Link) {
        return Ok(0);
    }
    let store = glue::spool_of(context.dir()?)?;
    let parts = match glue_plan::parts_behind(&store, plan.has) {
        // The link may have it all the same; where it has not, the next step says so.
        Err(_) if plan.step == Step::Link => Vec::new(),
        parts => parts?,
    };
    Ok(parts.iter().map(|part| part.file_bytes()).sum())
}

/// Does one step after another.
fn go_on(context: &mut Context, args: &RunArgs, next: bool) -> Done {
    let dir = context.dir()?.to_owned();
    let mut plan = there(context)?;
    args.figures.put(&mut plan.pace, &mut plan.given);
    if next {
        if !plan.step.is_for_people() {
            let message = "going on: the plan waits for nothing that you could have done";
            return Err(Failure::no(message, "see: hot-backup resync plan status"));
        }
        plan.arrived(now_ms());
    }
    glue_plan::keep(&dir, &plan)?;
    let mut back = false;
    loop {
        match plan.step {
            Step::Spool => begin_spool(context, &mut plan)?,
            Step::Save => save(context, &mut plan, args)?,
            Step::Round => {
                if let Some(failure) = round(context, &mut plan, args, back)? {
                    glue_plan::keep(&dir, &plan)?;
                    return Err(failure);
                }
            }
            Step::Link if is_level(context, &plan)? => plan.go(Step::Release, now_ms()),
            Step::Link if !back => {
                back = goes_back(context, &mut plan)?;
                if !back {
                    break;
                }
            }
            Step::Release => release(context, &mut plan)?,
            Step::CarrySave | Step::CarryRound | Step::Link | Step::Done => break,
        }
        glue_plan::keep(&dir, &plan)?;
    }
    let lacks = lacks(context, &plan)?;
    tell(context, &plan, lacks)?;
    Ok(Answer::of(plan.step != Step::Link))
}

/// Everything from here on is kept: it is what comes after the save.
fn begin_spool(context: &Context, plan: &mut Plan) -> Result<(), Failure> {
    let spool = status(context)?.spool;
    if spool.mode != "always" || spool.state == "off" {
        let request = AdminRequest::SpoolStart { to: plan.spool.clone(), always: true };
        let _: Box<SpoolView> = ask::ask_for(context, &request)?;
    }
    let mut looks = 0;
    let state = loop {
        let state = status(context)?.spool.state;
        if state != "opening" || looks == LOOKS {
            break state;
        }
        looks += 1;
        std::thread::sleep(LOOK);
    };
    if matches!(state.as_str(), "opening" | "failed" | "full") {
        let message = format!("beginning the plan: the spool {} is {state}", visible(&plan.spool));
        return Err(Failure::no(
            message,
            "see why: hot-backup incidents list; then: hot-backup resync plan run",
        ));
    }
    say(format!("the spool {} keeps what comes from now on", visible(&plan.spool)));
    plan.go(Step::Save, now_ms());
    Ok(())
}

fn save(context: &Context, plan: &mut Plan, args: &RunArgs) -> Result<(), Failure> {
    let dir = context.dir()?.to_owned();
    let to = Carrier::parse(&plan.to).map_err(|why| Failure::error(format!("saving: {why}"), ""))?;
    // What an interrupted attempt left is no save, and stays where it is.
    plan.attempt += 1;
    glue_plan::keep(&dir, plan)?;
    let place = to.save(plan.attempt);
    let target = match &place {
        Carrier::Dir(path) => Target::File(path.clone()),
        Carrier::Reels(reels) => {
            let mut options = args.tape.options(context, reels.clone());
            options.allowed.blank = args.label_blank;
            Target::Tape(Box::new(glue::TapeOrder {
                options,
                append: false,
                reel_size: Some(plan.pace.reel).filter(|size| *size > 0),
                block_size: u32::try_from(REEL_BLOCK).unwrap_or(u32::MAX),
                stage: TAPE_STAGE,
                name: "resync".to_owned(),
            }))
        }
    };
    // What this node has alone is no business of the other one.
    let order = SaveOrder { target, account: None, rate: None, pack: Pack::None, since: None, alone: false };
    let (bar, begin, begun_ms) = (progress(None), Instant::now(), now_ms());
    let saved = glue::save(&dir, &order, PATIENCE, |told| match told {
        SaveTold::Begins { expected, .. } => bar.set_length(expected),
        SaveTold::Read(_) => bar.tick(),
        SaveTold::Written(written) => bar.set_position(written),
    });
    bar.finish_and_clear();
    let saved = saved?;
    let end = saved.trailer.end.seq;
    say(format!("saved {} to {}: the state at entry {end}", bytes(saved.bytes), visible(&place.name())));
    plan.stored = saved.bytes;
    let carried = Carried {
        place: place.name(),
        to: end.0,
        bytes: saved.bytes,
        write_ms: milliseconds(begin),
        ..Carried::default()
    };
    plan.written(carried, begun_ms, now_ms());
    Ok(())
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Writes what came since, if a round is what comes next or the `only` way; why it would not end.
fn round(context: &Context, plan: &mut Plan, args: &RunArgs, only: bool) -> Result<Option<Failure>, Failure> {
    let dir = context.dir()?.to_owned();
    let (begin, begun_ms) = (Instant::now(), now_ms());
    let mut store = glue::spool_of(&dir)?;
    let parts = glue_plan::parts_behind(&store, plan.has)?;
    let lacks = parts.iter().map(|part| part.file_bytes()).sum();
    plan.measured(lacks, begun_ms);
    match plan.pace.next(lacks) {
        Next::Round(_) => {}
        // Nothing else brings it.
        _ if only => {}
        Next::Link { .. } | Next::AnyLink { .. } => {
            plan.go(Step::Link, begun_ms);
            return Ok(None);
        }
        Next::Never(why) => {
            let next = "with other figures: hot-backup resync plan run --drive SIZE --link SIZE --carry TIME";
            return Ok(Some(Failure::no(format!("going on: {}", endless(&why)), next)));
        }
    }
    let to = Carrier::parse(&plan.to).map_err(|why| Failure::error(format!("writing: {why}"), ""))?;
    let to = to.round(plan.round);
    let place = match &to {
        Carrier::Dir(path) => RoundPlace::Dir(path.clone()),
        Carrier::Reels(reels) => {
            let mut options = args.tape.options(context, reels.clone());
            options.allowed.blank = args.label_blank;
            glue_plan::on_reels(&dir, &options, Some(plan.pace.reel).filter(|size| *size > 0))?
        }
    };
    let bar = progress(Some(lacks));
    let written = glue_plan::write_round(&mut store, &parts, &place, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    let written = written?;
    let suffix = if matches!(to, Carrier::Reels(_)) { glue_plan::REELS_OF_SPOOL } else { "" };
    say(format!(
        "wrote {} to {}: entries {} to {}",
        bytes(written.bytes),
        visible(&to.name()),
        written.from,
        written.to
    ));
    let carried = Carried {
        place: format!("{}{suffix}", to.name()),
        from: written.from,
        to: written.to,
        bytes: written.bytes,
        write_ms: if written.fresh == written.bytes { milliseconds(begin) } else { 0 },
        way_ms: 0,
        reels: written.reels,
    };
    plan.written(carried, begun_ms, now_ms());
    Ok(None)
}

/// Whether the peer follows and lacks nothing that waits on the spool.
fn is_level(context: &Context, plan: &Plan) -> Result<bool, Failure> {
    let status = status(context)?;
    let peer = &status.peer;
    let has = status.positions.appended.saturating_sub(peer.lag_entries);
    let follows = peer.connected && !peer.incomplete && status.copy.is_none() && has >= plan.has;
    Ok(follows && matches!(peer.state.as_str(), "idle" | "busy"))
}

/// Whether another round comes after all, for a peer that does not come: journal and spool do not reach back to what was carried
/// any more, so the link would bring a copy of everything; or so much waits by now that a round is quicker. Says so.
fn goes_back(context: &Context, plan: &mut Plan) -> Result<bool, Failure> {
    let status = status(context)?;
    let (oldest, has) = (status.journal.oldest_seq, plan.has);
    if status.peer.connected {
        return Ok(false);
    }
    let reaches = oldest <= has + 1;
    let reach = format!(
        "what the link reads begins with entry {}, and what was carried ends with entry {}",
        count(oldest),
        count(has)
    );
    let store = glue::spool_of(context.dir()?)?;
    let parts = match glue_plan::parts_behind(&store, has) {
        Err(_) if reaches => return Ok(false),
        parts => parts.inspect_err(|_| say(&reach))?,
    };
    // Behind what the spool has the link has to go on.
    let end = parts.last().map_or(has, |part| part.end.seq.0);
    if !reaches && end + 1 < oldest {
        let (from, to) = (count(end + 1), count(oldest - 1));
        let message =
            format!("going on over the link: {reach}; entries {from} to {to} are not on the spool either");
        let next = "neither the link nor a round brings them: begin a new plan with --again";
        return Err(Failure::no(message, next));
    }
    let lacks = parts.iter().map(|part| part.file_bytes()).sum();
    plan.measured(lacks, now_ms());
    if reaches && !matches!(plan.pace.next(lacks), Next::Round(_)) {
        return Ok(false);
    }
    let spare = plan.pace.link.saturating_sub(plan.pace.updates);
    let link = match (reaches, spare) {
        (false, _) => format!("{reach}, so the link would bring a copy of everything"),
        (true, 0) => "the link does not take what waits beside what users change".to_owned(),
        (true, spare) => format!("the link would take {} for what waits", time(takes(lacks, spare))),
    };
    let (size, way) = (bytes(lacks), time(plan.pace.round(lacks).ms()));
    let (from, to) = (count(has + 1), count(end));
    say(format!("back to rounds: {link}; entries {from} to {to} ({size}) go in a round, in {way}"));
    plan.go(Step::Round, now_ms());
    Ok(true)
}

/// The spool is again what it was. What the peer has is noted durably before the spool lets go of it, which takes a moment.
fn release(context: &Context, plan: &mut Plan) -> Result<(), Failure> {
    let state = status(context)?.spool.state;
    if plan.spool_before != "always" && state != "off" {
        let request = AdminRequest::SpoolStart { to: plan.spool.clone(), always: false };
        let _: Box<SpoolView> = ask::ask_for(context, &request)?;
    }
    let ends = plan.spool_before == "off" && state != "off";
    for looks in 0..=LOOKS {
        if !ends {
            break;
        }
        match ask::ask(context, &AdminRequest::SpoolStop { drop: false }) {
            Err(Failure::No { .. }) if looks < LOOKS => std::thread::sleep(LOOK),
            other => {
                other?;
                break;
            }
        }
    }
    plan.go(Step::Done, now_ms());
    Ok(())
}

fn time(ms: u64) -> String {
    seconds(Duration::from_millis(ms).as_secs_f64())
}

fn endless(why: &Endless) -> String {
    match why {
        Endless::Reels { updates, most } => format!(
            "it will not end: users change {}/s, and {}/s can be written, carried and read, so no round is smaller than \
             the one before",
            bytes(*updates),
            bytes(*most)
        ),
        Endless::Link { updates, link } => format!(
            "it will not end: users change {}/s, and the link takes {}/s, so what is left at last never fits it",
            bytes(*updates),
            bytes(*link)
        ),
        Endless::Rounds => "it will not end in any number of rounds that somebody carries".to_owned(),
    }
}

fn end(end: &Next) -> String {
    match end {
        Next::Round(round) => format!("another round with {}", bytes(round.bytes)),
        Next::Link { bytes: rest, ms } => format!("then {} over the link, in {}", bytes(*rest), time(*ms)),
        Next::AnyLink { bytes: rest, above } => format!(
            "then {} over a link that takes more than {}/s: another round would leave as much",
            bytes(*rest),
            bytes(*above)
        ),
        Next::Never(why) => endless(why),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct PlanView<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    forecast: &'a Forecast,
    /// What a person has to do.
    next: Vec<String>,
}

fn tell_forecast(context: &mut Context, plan: &Plan, forecast: &Forecast) -> Result<(), Failure> {
    if context.json {
        return context.out.json(&PlanView { plan, forecast, next: people(context, plan)? });
    }
    let known = |given: bool| if given { "" } else { ", assumed or measured" };
    let Pace { updates, write, read, link, carry_ms, .. } = plan.pace;
    let link = if link == 0 { "not told".to_owned() } else { format!("{}/s", bytes(link)) };
    context.out.line(format!(
        "users change {}/s{}; {} takes {}/s{}, gives {}/s; the way takes {}{}; the link: {link}",
        bytes(updates),
        known(plan.given.updates),
        visible(&plan.to),
        bytes(write),
        known(plan.given.write),
        bytes(read),
        time(carry_ms),
        known(plan.given.carry),
    ))?;
    for (at, round) in forecast.rounds.iter().enumerate() {
        let reels = match round.reels {
            0 => String::new(),
            n => format!(" on {}", counted(n, "reel", "reels")),
        };
        let number = u64::from(plan.round) + at as u64;
        let what = if number == 0 { "the save".to_owned() } else { format!("round {number}") };
        context.out.line(format!(
            "{what}: {}{reels}, {} to write, {} to carry, {} to read",
            bytes(round.bytes),
            time(round.write_ms),
            time(round.carry_ms),
            time(round.read_ms)
        ))?;
    }
    let whole = forecast.rounds.iter().fold(0, |sum: u64, round| sum.saturating_add(round.ms()));
    context.out.line(end(&forecast.end))?;
    match forecast.end {
        Next::Link { ms, .. } => context.out.line(format!("in all {}", time(whole.saturating_add(ms)))),
        _ => Ok(()),
    }
}

/// Where it is, and what is to be done next.
fn tell(context: &mut Context, plan: &Plan, lacks: u64) -> Done {
    let forecast = plan.forecast(lacks);
    if context.json {
        tell_forecast(context, plan, &forecast)?;
        return Ok(Answer::Yes);
    }
    for (at, carried) in plan.arrived.iter().enumerate() {
        let what = if at == 0 { "the save".to_owned() } else { format!("round {at}") };
        let way = time(carried.way_ms);
        context.out.line(format!(
            "done: {what}, {}, up to entry {}, {way} on its way",
            bytes(carried.bytes),
            count(carried.to)
        ))?;
    }
    if matches!(plan.step, Step::Spool | Step::Save | Step::CarrySave | Step::Round | Step::CarryRound) {
        tell_forecast(context, plan, &forecast)?;
    }
    for line in people(context, plan)? {
        context.out.line(line)?;
    }
    Ok(Answer::Yes)
}

/// What a person has to do now.
fn people(context: &Context, plan: &Plan) -> Result<Vec<String>, Failure> {
    let place = visible(&plan.carried.place);
    let reels = match plan.carried.reels.as_slice() {
        [] => String::new(),
        reels => format!(", reels {}", reels.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
    };
    let catalogue = match glue_plan::catalogue_of(context.dir()?, &plan.carried.place) {
        Some(path) => format!("; and its catalogue {}", path.display()),
        None => String::new(),
    };
    let quoted = if place.contains(['#', '%']) { format!("'{place}'") } else { place.clone() };
    Ok(match plan.step {
        Step::Spool | Step::Save | Step::Round | Step::Release => {
            vec!["next: hot-backup resync plan run".to_owned()]
        }
        Step::CarrySave => vec![
            format!(
                "1. carry {place}{reels} to the other machine ({}){catalogue}",
                bytes(plan.carried.bytes)
            ),
            format!(
                "2. there, into a node that `hot-backup init --pair-id ..` made, with the place as it is called there: \
                 hot-backup restore --from {quoted} --dir DIR"
            ),
            "3. do not start it yet; say here: hot-backup resync plan next".to_owned(),
        ],
        Step::CarryRound => vec![
            format!(
                "1. carry {place}{reels} to the other machine ({}){catalogue}",
                bytes(plan.carried.bytes)
            ),
            format!("2. there: hot-backup restore --from {quoted} --until {} --dir DIR", plan.carried.to),
            "3. do not start it yet; say here: hot-backup resync plan next".to_owned(),
        ],
        Step::Link => vec![
            "1. let both nodes know each other, if they do not: hot-backup trust".to_owned(),
            "2. bring the link up, and start the node there: hot-backup serve --dir DIR".to_owned(),
            "3. say here, until both are level: hot-backup resync plan run".to_owned(),
        ],
        Step::Done => vec!["done: both nodes are level, and the spool is as it was".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spool_is_the_one_that_is_there_or_named_and_never_what_is_carried() {
        let off = SpoolView { state: "off".into(), ..SpoolView::default() };
        let disk = Carrier::parse("file:/usb").unwrap();
        let reels = Carrier::parse("tape:/x/r-%d.tap").unwrap();
        for to in [&disk, &reels] {
            assert_eq!(spool_place(&off, to, Some("file:/here")), Ok("file:/here".to_owned()));
            assert!(spool_place(&off, to, None).is_err());
            assert!(spool_place(&off, to, Some(&to.name())).is_err());
            assert!(spool_place(&off, to, Some(&to.round(1).name())).is_err());
        }
        let on = SpoolView { state: "holding".into(), place: "file:/own".into(), mode: "auto".into(), ..off };
        assert_eq!(spool_place(&on, &disk, None), Ok("file:/own".to_owned()));
        assert!(spool_place(&on, &disk, Some("file:/here")).is_err());
        assert_eq!(before(&on), "auto");
        assert_eq!(before(&SpoolView { state: "off".into(), ..on }), "off");
    }

    #[test]
    fn figures_that_are_given_take_the_place_of_those_that_are_known() {
        let (mut pace, mut given) = (Pace { read: 5, updates: 7, ..Pace::default() }, Given::default());
        Figures { drive: Some(3), link: Some(9), ..Figures::default() }.put(&mut pace, &mut given);
        assert_eq!((pace.write, pace.read, pace.link, pace.updates), (3, 3, 9, 7));
        assert_eq!(given, Given { write: true, read: true, ..Given::default() });
    }

    #[test]
    fn each_end_says_what_it_is_and_why_none_comes() {
        let reels = Endless::Reels { updates: 2 << 20, most: 1 << 20 };
        assert!(end(&Next::Never(reels)).contains("no round is smaller than the one before"));
        let link = Endless::Link { updates: 2 << 20, link: 1 << 20 };
        assert!(end(&Next::Never(link)).contains("the link takes 1.0 MiB/s"));
        let any = end(&Next::AnyLink { bytes: 1 << 30, above: 1 << 20 });
        assert!(any.contains("1.0 GiB over a link that takes more than 1.0 MiB/s"), "{any}");
        let over = end(&Next::Link { bytes: 1 << 20, ms: 2000 });
        assert_eq!(over, "then 1.0 MiB over the link, in 2.0 s");
    }
}
