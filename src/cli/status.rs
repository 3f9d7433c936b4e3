//! `status`: one calm screen, JSON, or either of them each second.

use super::failure::{Answer, Done, Failure};
use super::out::{say, seconds, utc, visible};
use super::{Context, ask};
use crate::base::shown::{bytes, count, counted};
use crate::engine::admin::{
    AdminRequest, AtRisk, CanaryView, ReplayView, Status, SwitchoverView, VolumeView,
};
use clap::Args;
use std::fmt::Write as _;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const REFRESH: Duration = Duration::from_secs(1);

/// Shows role, positions, lag, what would be lost now, space, incidents
#[derive(Debug, Args)]
#[command(after_long_help = "\
The positions count entries of the replicated journal:
  appended   in this node's buffer          received  in the peer's memory
  durable    on this node's disk            acked     on the peer's disk
  committed  may be answered to clients     applied   visible in this node's store
The state says what an update would be answered now:
  serving, standby                          all is as it should be
  starting, replaying, asking-peer,         on the way, by itself or once the peer is heard
  starting-epoch, taking-over, stepping-down, stopping
  diverged                                  holds what the pair never kept
  read-only, no-space, no-descriptors,      updates are refused; the line below says why and
  journal-failed, store-failed              what to do
  peer-stuck, peer-away                     updates wait for the peer, at the level configured
  no-lease                                  updates are refused until a lease lets this primary go on
  accept-failed                             nobody new can connect
Exit codes: with --check 0 if all is well, 1 if not (each reason on stderr), 2 if the node does not answer;
with --watch --check the same for what was shown last.
Examples:
  hot-backup status --watch
  hot-backup status --check || mail -s 'the pair is not well' operator
  hot-backup status --json --watch | jq .at_risk        one object a line, each second")]
pub(crate) struct StatusArgs {
    /// Show it again each second, until ctrl-C or the end of stdin
    #[arg(long)]
    watch: bool,
    /// Exit with 1 unless the node serves or stands by, takes updates, and has its peer and all promises kept
    #[arg(long)]
    check: bool,
}

/// Runs `status`.
pub(crate) fn run(context: &mut Context, args: &StatusArgs) -> Done {
    if args.watch {
        return watch(context, args.check);
    }
    let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
    if context.json {
        context.out.json(&status)?;
    } else {
        context.out.text(screen(&status))?;
    }
    Ok(Answer::of(!args.check || is_well(&status)))
}

/// Tells on stderr what is not well.
fn is_well(status: &Status) -> bool {
    let ills = ills(status);
    for ill in &ills {
        say(format_args!("not well: {}", visible(ill)));
    }
    ills.is_empty()
}

fn watch(context: &mut Context, check: bool) -> Done {
    let stdin_end = end_of_stdin();
    let mut lines_shown = 0;
    let mut last;
    loop {
        match ask::ask_for::<Box<Status>>(context, &AdminRequest::Status) {
            Ok(status) if context.json => {
                context.out.json_line(&status)?;
                last = Ok(status);
            }
            Ok(status) => {
                lines_shown = redraw(context, lines_shown, &screen(&status))?;
                last = Ok(status);
            }
            Err(failure) if context.json => return Err(failure),
            Err(failure) => {
                let text = format!("{}\n", visible(&failure.to_string()));
                lines_shown = redraw(context, lines_shown, &text)?;
                last = Err(failure);
            }
        }
        context.out.flush()?;
        match stdin_end.recv_timeout(REFRESH) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if !check {
        return Ok(Answer::Yes);
    }
    last.map(|status| Answer::of(is_well(&status)))
}

/// Shows `text` where the last one stood; on a pipe, below it.
fn redraw(context: &mut Context, lines_shown: usize, text: &str) -> Result<usize, Failure> {
    if lines_shown > 0 {
        if context.out.is_terminal() {
            context.out.text(format_args!("\x1b[{lines_shown}A\x1b[J"))?;
        } else {
            context.out.line("")?;
        }
    }
    context.out.text(text)?;
    Ok(text.lines().count())
}

/// Tells once stdin has ended.
pub(crate) fn end_of_stdin() -> Receiver<()> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while stdin.read(&mut buffer).is_ok_and(|n| n > 0) {}
        let _ = tell.send(());
    });
    told
}

/// What a person should look at.
fn ills(s: &Status) -> Vec<String> {
    let mut ills = Vec::new();
    if !matches!(s.state.as_str(), "serving" | "standby") {
        let reason = if s.reason.is_empty() { String::new() } else { format!(": {}", s.reason) };
        ills.push(format!("it is {}{reason}", s.state));
    }
    if !s.peer.connected && s.state != "peer-away" {
        ills.push("the peer is away".to_owned());
    } else if s.peer.state == "stuck" && s.state != "peer-stuck" {
        ills.push("the peer is connected and takes nothing".to_owned());
    }
    if let Some(gap) = &s.gap {
        ills.push(gap.text.clone());
    }
    if s.degraded {
        ills.push(format!("the promise of level {} is lowered to local", s.ack_level));
    }
    let files = lowered_files(s)
        .map(|(file, level)| format!("the promise of level {level} of {file} is lowered to local"));
    ills.extend(files);
    if s.logging == "paused" {
        ills.push("logging is paused: the standby misses what changes now".to_owned());
    }
    let critical = s.troubles.iter().filter(|trouble| trouble.severity == "critical");
    // What the state or the gap has told already.
    let critical = critical.filter(|trouble| !ills.iter().any(|ill| ill.contains(&trouble.text)));
    let critical: Vec<_> = critical.collect();
    ills.extend(critical.iter().map(|trouble| format!("{}: {}", trouble.kind, trouble.text)));
    ills
}

/// Files with a level of their own whose promise is lowered now, and that level.
fn lowered_files(s: &Status) -> impl Iterator<Item = (&str, &str)> {
    s.lowered.iter().filter(|lowered| !lowered.file.is_empty()).map(|l| (l.file.as_str(), l.level.as_str()))
}

/// The status for people.
pub(crate) fn screen(s: &Status) -> String {
    let mut text = String::new();
    headline(&mut text, s);
    let p = &s.positions;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    let lowered = if s.degraded { ", lowered to local while the peer is away" } else { "" };
    line("ack level", format!("{}{lowered}", s.ack_level));
    for (file, level) in lowered_files(s) {
        line("ack level", format!("{level} of {}, lowered to local while the peer is away", visible(file)));
    }
    let paused = if s.logging == "paused" { ": the standby misses what changes now" } else { "" };
    line("logging", format!("{}{paused}", s.logging));
    line(
        "positions",
        format!(
            "appended {}  durable {}  committed {}  applied {}",
            count(p.appended),
            count(p.durable),
            count(p.committed),
            count(p.applied)
        ),
    );
    if s.role == "standby" {
        line("primary", format!("announced {} as durable on its disk", count(s.announced)));
    } else {
        let at_peer = format!("received {}  acked {}", count(p.received), count(p.acked));
        line("at the peer", format!("{at_peer}  applied {}", count(s.peer.applied)));
    }
    line("peer", peer(s));
    if let Some(gap) = &s.gap {
        line("missing", visible(&gap.text));
    }
    let switchover = s.switchover.as_ref().map(switched);
    let copy = s.copy.as_ref().map(super::resync::line);
    for (name, text) in [("switchover", switchover), ("copy", copy), ("link", link(s))] {
        text.into_iter().for_each(|text| line(name, text));
    }
    if s.role == "primary" {
        line("at risk now", at_risk(&s.at_risk));
    }
    line("journal", journal(s));
    super::spool::status_line(&s.spool).into_iter().for_each(|text| line("spool", text));
    let refused = [s.resp_refused, s.nbd_refused, s.refused].map(count);
    let [resp, nbd, link] = refused;
    let refused = format!("refused since the start: {resp} by RESP, {nbd} by NBD, {link} on the link");
    line("clients", format!("{} connected; {refused}", count(s.clients)));
    for volume in s.volumes.iter().filter(|volume| volume.clients > 0) {
        line("volume", volume_line(volume));
    }
    s.views.iter().for_each(|view| line("view", super::view::line(view)));
    let checks = [("scrub", scrub(s)), ("compare", super::compare::status_line(&s.compare))];
    checks.into_iter().for_each(|(what, told)| told.into_iter().for_each(|told| line(what, told)));
    health(s).into_iter().for_each(|(name, text)| line(name, text));
    troubles(s).into_iter().for_each(|(name, text)| line(name, text));
    if s.log_lines_lost > 0 {
        line("log", format!("{} lines could not be written", count(s.log_lines_lost)));
    }
    let last = s.last_incident.as_deref().map(|last| format!("; last: {}", visible(last)));
    line("incidents", format!("{}{}", count(s.incidents), last.unwrap_or_default()));
    text
}

/// What would be lost if this primary died now.
fn at_risk(risk: &AtRisk) -> String {
    match risk.everything {
        true => "everything: the peer is being given a copy that is not whole yet".to_owned(),
        false => amount(risk.entries, risk.bytes, risk.seconds),
    }
}

/// What has begun and not ended, each with what to do unless the headline says it.
fn troubles(s: &Status) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for trouble in &s.troubles {
        let since = seconds(trouble.seconds);
        lines.push(("trouble", format!("{} for {since}: {}", trouble.kind, visible(&trouble.text))));
        if !trouble.next.is_empty() && trouble.next != s.next {
            lines.push(("", format!("to do: {}", visible(&trouble.next))));
        }
    }
    lines
}

/// What the watches see, whom nobody can tell, and since when it is up.
fn health(s: &Status) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(h) = &s.health {
        let waits = if h.unapplied > 0 {
            format!("; {} to apply", counted(h.unapplied, "entry", "entries"))
        } else {
            String::new()
        };
        lines.push(("work", format!("{}{waits}", h.work)));
        lines.extend(
            h.canary.as_ref().filter(|canary| canary.sent > 0).map(|canary| ("canary", canary_line(canary))),
        );
        if let (Some(left), true) = (h.journal_full_seconds, h.journal_percent >= 50) {
            lines.push((
                "journal",
                format!("full in {} at the rate of the last minute", seconds(left as f64)),
            ));
        }
        if h.disk_bytes > 0 {
            lines.push(("disk", format!("{} free of {}", bytes(h.disk_free_bytes), bytes(h.disk_bytes))));
        }
    }
    for target in s.notify.iter().filter(|target| target.failing_since_ms.is_some() || target.dropped > 0) {
        lines.push(("notify", super::notify::trouble(target)));
    }
    lines.push(("up", seconds(s.uptime_seconds)));
    lines
}

/// The test update under way or the last one, in a line.
fn canary_line(c: &CanaryView) -> String {
    let late = if c.late { "late, " } else { "" };
    match (c.at.as_str(), c.last_seconds) {
        ("", Some(took)) => format!("entry {} made the whole way in {}", count(c.last_seq), seconds(took)),
        ("", None) => "none has arrived yet".to_owned(),
        (at, _) => {
            format!("{late}under way for {}, waits for: {}", seconds(c.under_way_seconds), visible(at))
        }
    }
}

/// The last switchover.
fn switched(last: &SwitchoverView) -> String {
    let SwitchoverView { from, to, epoch, pause_seconds, .. } = last;
    let pause = seconds(*pause_seconds);
    format!("{} to {} in epoch {epoch}, nobody was answered for {pause}", visible(from), visible(to))
}

/// The scrub that runs, or the last one.
fn scrub(s: &Status) -> Option<String> {
    if s.scrub.running {
        return Some(super::scrub::line(&s.scrub));
    }
    let wrong = counted(s.scrub.last_wrong, "place was wrong", "places were wrong");
    (s.scrub.last_ended_ms > 0).then(|| format!("last ended {}; {wrong}", utc(s.scrub.last_ended_ms)))
}

fn headline(text: &mut String, s: &Status) {
    let state = if s.role == s.state { String::new() } else { format!(", {}", s.state) };
    let _ = writeln!(text, "{}: {}{state}, epoch {}", visible(&s.name), s.role, s.epoch);
    if !s.reason.is_empty() {
        let _ = writeln!(text, "  {}", visible(&s.reason));
    }
    if !s.next.is_empty() {
        let _ = writeln!(text, "  to do: {}", visible(&s.next));
    }
    if let Some(replay) = &s.replay {
        let _ = writeln!(text, "  {}", progress(replay));
    }
}

/// How far a start is, in a line.
fn progress(replay: &ReplayView) -> String {
    let amount = |n| if replay.unit == "bytes" { bytes(n) } else { count(n) };
    let unit = if replay.unit == "bytes" { "" } else { replay.unit.as_str() };
    if replay.total == 0 {
        return visible(&replay.stage);
    }
    let left = replay.seconds_left.map_or_else(String::new, |left| format!(", {} left", seconds(left)));
    let (done, total, percent) = (amount(replay.done), amount(replay.total), replay.percent);
    let text = format!("{}: {done} of {total} {unit}", replay.stage);
    format!("{} ({percent:.0} %){left}", visible(text.trim_end()))
}

/// A volume in use, in a line.
fn volume_line(v: &VolumeView) -> String {
    let whole = |rate: f64| format!("{rate:.0}");
    let mib = |rate: f64| format!("{:.1} MiB/s", rate / 1_048_576.0);
    let access = if v.writable { "" } else { ", read-only here" };
    format!(
        "{}: {}, {}{access}; reads {}/s ({}), writes {}/s ({}); {} not yet applied",
        visible(&v.name),
        bytes(v.bytes),
        counted(v.clients, "client", "clients"),
        whole(v.reads_per_second),
        mib(v.read_bytes_per_second),
        whole(v.writes_per_second),
        mib(v.written_bytes_per_second),
        counted(v.dirty_extents, "range", "ranges"),
    )
}

fn peer(s: &Status) -> String {
    let peer = &s.peer;
    let name = if peer.name.is_empty() { "not heard of yet".to_owned() } else { visible(&peer.name) };
    if !peer.connected {
        let silence = seconds(peer.silence_seconds);
        let behind = match (s.role.as_str(), peer.lag_entries) {
            ("primary", n) if n > 0 => {
                format!("; misses {}", amount(n, peer.lag_bytes, peer.lag_seconds))
            }
            _ => String::new(),
        };
        return format!("{name}: away, silent for {silence}{behind}");
    }
    let state = match peer.state.as_str() {
        "" | "connected" => "connected".to_owned(),
        state => format!("connected, {state}"),
    };
    if s.role == "primary" {
        let lag = match peer.lag_entries {
            _ if peer.incomplete => "is being given a copy".to_owned(),
            0 => "has everything on disk".to_owned(),
            n => format!("behind by {}", amount(n, peer.lag_bytes, peer.lag_seconds)),
        };
        format!("{name}: {state}; {lag}")
    } else {
        format!("{name}: {state}; last word {} ago", seconds(peer.silence_seconds))
    }
}

/// Where the peer is dialled and what came back; nothing while it is connected, or if the headline says it.
fn link(s: &Status) -> Option<String> {
    let link = &s.link;
    match (link.dialled.as_str(), link.last_error.as_str()) {
        _ if s.peer.connected => None,
        ("", "") => None,
        (_, error) if !error.is_empty() && s.reason.contains(error) => None,
        (dialled, "") => Some(format!("dialling {}, no answer yet", visible(dialled))),
        (_, error) => Some(visible(error)),
    }
}

/// Entries, bytes and age of what is missing.
pub(crate) fn amount(entries: u64, size: u64, age: f64) -> String {
    if entries == 0 {
        return "nothing".to_owned();
    }
    format!("{}, {}, {}", counted(entries, "entry", "entries"), bytes(size), seconds(age))
}

fn journal(s: &Status) -> String {
    let j = &s.journal;
    let share = match j.quota_bytes {
        0 => String::new(),
        quota => {
            let permille = u128::from(j.bytes) * 1000 / u128::from(quota);
            format!(" of {} ({}.{} %)", bytes(quota), permille / 10, permille % 10)
        }
    };
    let segments = counted(j.segments, "segment", "segments");
    format!("{}{share}, {segments}, oldest entry {}", bytes(j.bytes), count(j.oldest_seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::{JournalView, LoweredView, PairWatermarks, PeerView, TroubleView};

    fn serving() -> Status {
        Status {
            name: "a".into(),
            role: "primary".into(),
            state: "serving".into(),
            epoch: 2,
            ack_level: "durable".into(),
            logging: "dl-only".into(),
            positions: PairWatermarks {
                appended: 1203,
                durable: 1203,
                received: 1201,
                acked: 1200,
                committed: 1200,
                applied: 1199,
            },
            peer: PeerView {
                name: "b".into(),
                connected: true,
                state: "busy".into(),
                lag_entries: 3,
                lag_bytes: 384,
                lag_seconds: 0.012,
                silence_seconds: 0.1,
                applied: 1190,
                incomplete: false,
            },
            journal: JournalView {
                bytes: 12 << 20,
                quota_bytes: 4 << 30,
                oldest_seq: 1,
                segments: 3,
                ..JournalView::default()
            },
            at_risk: AtRisk { entries: 3, bytes: 384, seconds: 0.012, everything: false },
            ..Status::default()
        }
    }

    #[test]
    fn a_serving_primary_says_what_would_be_lost_now() {
        let screen = screen(&serving());
        for part in [
            "a: primary, serving, epoch 2",
            "at risk now 3 entries, 384 B, 12 ms",
            "b: connected, busy; behind by 3 entries",
            "12.0 MiB of 4.0 GiB (0.2 %), 3 segments, oldest entry 1",
            "received 1,201  acked 1,200  applied 1,190",
        ] {
            assert!(screen.contains(part), "{part:?} is not in\n{screen}");
        }
    }

    #[test]
    fn a_peer_that_is_given_a_copy_holds_nothing_and_everything_is_at_risk() {
        let mut status = serving();
        status.peer.incomplete = true;
        status.at_risk.everything = true;
        let screen = screen(&status);
        assert!(screen.contains("busy; is being given a copy"), "{screen}");
        assert!(screen.contains("at risk now everything"), "{screen}");
    }

    #[test]
    fn a_volume_in_use_says_how_fast_it_is() {
        let volume = VolumeView {
            name: "app,disk".into(),
            bytes: 10 << 30,
            writable: true,
            clients: 2,
            writes_per_second: 1234.4,
            written_bytes_per_second: 5_056_102.4,
            dirty_extents: 7,
            ..VolumeView::default()
        };
        let mut status = serving();
        status.volumes = vec![volume, VolumeView { name: "app,idle".into(), ..VolumeView::default() }];
        let screen = screen(&status);
        let line = "app,disk: 10.0 GiB, 2 clients; reads 0/s (0.0 MiB/s), writes 1234/s (4.8 MiB/s); 7 ranges not yet";
        assert!(screen.contains(line) && !screen.contains("idle"), "{screen}");
    }

    #[test]
    fn a_lowered_promise_and_an_absent_peer_are_said_in_words() {
        let mut status = serving();
        status.degraded = true;
        status.peer.connected = false;
        status.peer.silence_seconds = 600.0;
        let screen = screen(&status);
        assert!(screen.contains("durable, lowered to local"), "{screen}");
        assert!(screen.contains("b: away, silent for 10 min; misses 3 entries"), "{screen}");
        let told = ["the peer is away", "the promise of level durable is lowered to local"];
        assert_eq!(ills(&status), told);
        assert!(ills(&serving()).is_empty());
    }

    #[test]
    fn a_lowered_promise_of_a_file_is_said_though_that_of_the_database_is_kept() {
        let mut status = serving();
        status.lowered = vec![LoweredView { file: "app,ledger".into(), level: "applied".into() }];
        let screen = screen(&status);
        assert!(screen.contains("applied of app,ledger, lowered to local"), "{screen}");
        assert_eq!(ills(&status), ["the promise of level applied of app,ledger is lowered to local"]);
    }

    #[test]
    fn a_node_that_takes_no_updates_is_not_well_and_says_why_and_what_to_do() {
        let mut status = serving();
        status.state = "no-space".into();
        status.reason = "the replicated journal is full".into();
        status.next = "make room".into();
        status.troubles = vec![TroubleView {
            kind: "journal-no-space".into(),
            severity: "critical".into(),
            text: "no space for the next journal segment".into(),
            next: "make room".into(),
            seconds: 600.0,
        }];
        let told = [
            "it is no-space: the replicated journal is full",
            "journal-no-space: no space for the next journal segment",
        ];
        assert_eq!(ills(&status), told);
        let screen = screen(&status);
        for part in [
            "a: primary, no-space, epoch 2\n  the replicated journal is full\n  to do: make room\n",
            "  trouble     journal-no-space for 10 min: no space for the next journal segment\n",
        ] {
            assert!(screen.contains(part), "{part:?} is not in\n{screen}");
        }
    }

    #[test]
    fn a_peer_that_is_stuck_and_a_segment_that_cannot_be_made_are_not_well_though_updates_are_taken() {
        let mut status = serving();
        status.peer.state = "stuck".into();
        assert_eq!(ills(&status), ["the peer is connected and takes nothing"]);
    }

    #[test]
    fn nothing_that_status_says_of_a_peer_is_said_twice() {
        for (role, state) in ["away", "connected", "idle", "busy", "lagging", "stuck"]
            .into_iter()
            .flat_map(|state| [("primary", state), ("standby", state)])
        {
            let mut status = serving();
            (status.role, status.peer.state) = (role.into(), state.into());
            status.peer.connected = state != "away";
            let text = screen(&status);
            for line in text.lines() {
                let words: Vec<&str> =
                    line.split([' ', ',', ';', ':']).filter(|word| !word.is_empty()).collect();
                assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{line}");
            }
        }
    }

    #[test]
    fn what_is_not_well_is_told_once() {
        let mut status = serving();
        status.state = "peer-away".into();
        status.reason = "the peer is away".into();
        status.peer.connected = false;
        assert_eq!(ills(&status), ["it is peer-away: the peer is away"]);
        let mut status = serving();
        status.state = "journal-failed".into();
        status.reason = "writing the replicated journal failed twice".into();
        let text = status.reason.clone();
        let (kind, severity) = ("journal-failed".to_owned(), "critical".to_owned());
        status.troubles = vec![TroubleView { kind, severity, text, ..TroubleView::default() }];
        assert_eq!(ills(&status), ["it is journal-failed: writing the replicated journal failed twice"]);
    }

    #[test]
    fn a_long_start_says_how_far_it_is() {
        let mut status = serving();
        status.state = "starting".into();
        status.replay = Some(ReplayView::new("reading the journal", "bytes", 1 << 30, 4 << 30, 7000));
        let text = screen(&status);
        assert!(text.contains("\n  reading the journal: 1.0 GiB of 4.0 GiB (25 %), 21.0 s left\n"), "{text}");
        status.replay = Some(ReplayView::new("opening the store", "", 0, 0, 0));
        assert!(screen(&status).contains("\n  opening the store\n"));
    }

    #[test]
    fn a_node_that_does_not_serve_says_why() {
        let mut status = serving();
        status.role = "diverged".into();
        status.state = "diverged".into();
        status.reason = "b took over in epoch 3".into();
        let screen = screen(&status);
        assert!(screen.starts_with("a: diverged, epoch 2\n  b took over in epoch 3\n"), "{screen}");
    }
}
