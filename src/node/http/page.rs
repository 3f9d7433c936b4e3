//! The page: both nodes, where they stand, what would be lost now, what is under way. Whole in itself: it asks nobody
//! else, shows its figures without a script, and with one keeps them fresh.

use super::snapshot::{Point, Snapshot};
use crate::base::shown::{bytes, count, counted, safe};
use crate::engine::admin::{CompareView, CopyView, StatsView, Status};
use std::fmt::Write as _;

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Incidents on the page.
const INCIDENTS_SHOWN: usize = 20;
/// Width and height of a chart (units of its own).
const CHART: (f64, f64) = (300.0, 60.0);

/// A page as one browser gets it.
pub(super) struct Page {
    nonce: String,
}

pub(super) fn seconds(s: f64) -> String {
    match s {
        s if s < 0.001 => "0 s".to_owned(),
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// A moment as UTC.
pub(super) fn utc(wall_ms: u64) -> String {
    let (days, rest) = (wall_ms / 86_400_000, wall_ms / 1000 % 86_400);
    // Civil from days, after Howard Hinnant; all numbers are small.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

impl Page {
    /// With a number that no other page has, so that only its own style and script count.
    pub(super) fn new() -> Self {
        let mut random = [0; 16];
        // Without randomness the page shows its figures unstyled.
        let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random);
        let hex = |byte: &u8| format!("{byte:02x}");
        let nonce = if filled.is_ok() { random.iter().map(hex).collect() } else { String::new() };
        Self { nonce }
    }

    /// What a browser may do for it.
    pub(super) fn policy(&self) -> String {
        let nonce = &self.nonce;
        let own = if nonce.is_empty() { "'none'".to_owned() } else { format!("'nonce-{nonce}'") };
        format!(
            "default-src 'none'; style-src {own}; script-src {own}; connect-src 'self'; base-uri 'none'; form-action \
             'none'; frame-ancestors 'none'"
        )
    }

    pub(super) fn render(&self, snapshot: &Snapshot, points: &[Point]) -> String {
        let nonce = &self.nonce;
        let name = safe(&snapshot.status.name);
        let mut main = String::new();
        for (id, html) in sections(snapshot, points) {
            let _ = writeln!(main, "<section id=\"{id}\" aria-label=\"{id}\">{html}</section>");
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <link rel=\"icon\" href=\"data:,\">\
             <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\
             <title>{name} - hot-backup</title><style nonce=\"{nonce}\">{CSS}</style></head>\n\
             <body><a class=\"skip\" href=\"#incidents\">to the incidents</a><main>\n{main}</main>\n\
             <footer><p id=\"live\">as of {}</p>\
             <nav aria-label=\"for programs\"><a href=\"/metrics\">metrics</a> <a href=\"/status.json\">status.json</a> \
             <a href=\"/health\">health</a> <a href=\"/ready\">ready</a></nav></footer>\n\
             <script nonce=\"{nonce}\">{SCRIPT}</script></body></html>\n",
            utc(snapshot.wall_ms)
        )
    }
}

/// The sections as one line of JSON, for a page that is open.
pub(super) fn sections_json(snapshot: &Snapshot, points: &[Point]) -> String {
    let mut all: serde_json::Map<String, serde_json::Value> =
        sections(snapshot, points).into_iter().map(|(id, html)| (id.to_owned(), html.into())).collect();
    all.insert("live".to_owned(), format!("live, as of {}", utc(snapshot.wall_ms)).into());
    serde_json::Value::from(all).to_string()
}

fn sections(snapshot: &Snapshot, points: &[Point]) -> Vec<(&'static str, String)> {
    let status = &snapshot.status;
    vec![
        ("node", node(snapshot)),
        ("positions", positions(status)),
        ("risk", risk(snapshot)),
        ("charts", charts(points)),
        ("work", work(status)),
        ("away", super::away::away(&status.spool, &snapshot.requests)),
        ("times", times(snapshot.stats.as_ref())),
        ("incidents", incidents(snapshot)),
    ]
}

/// good, odd or bad.
fn mood(snapshot: &Snapshot) -> &'static str {
    let status = &snapshot.status;
    let fine = matches!(status.state.as_str(), "serving" | "standby") && status.peer.connected;
    let odd = status.degraded || !status.lowered.is_empty() || !status.troubles.is_empty();
    match (snapshot.ill(), fine && !odd) {
        (Some(_), _) => "bad",
        (None, true) => "good",
        (None, false) => "odd",
    }
}

fn node(snapshot: &Snapshot) -> String {
    let status = &snapshot.status;
    let peer = &status.peer;
    if !snapshot.silent.is_empty() {
        return format!("<h1>no answer</h1><p class=\"bad\">{}</p>", safe(&snapshot.silent));
    }
    let mut out = format!(
        "<h1><span class=\"dot {}\" aria-hidden=\"true\"></span>{}</h1><div class=\"pair\">",
        mood(snapshot),
        safe(&status.name)
    );
    let _ = write!(
        out,
        "<article><h2>this node</h2><p class=\"big\">{}</p><p>{}, {}, epoch {}, up {}</p><p>ack level {}{}</p></article>",
        safe(&status.role),
        safe(&status.state),
        safe(status.health.as_ref().map_or("not watched yet", |health| health.work.as_str())),
        status.epoch,
        seconds(status.uptime_seconds),
        safe(&status.ack_level),
        if status.degraded { ", <strong class=\"bad\">lowered to local</strong>" } else { "" },
    );
    let other = match status.role.as_str() {
        "primary" => "standby",
        "standby" => "primary",
        _ => "other node",
    };
    let peer_name = if peer.name.is_empty() { "not heard of yet" } else { &peer.name };
    let word = if peer.connected { peer.state.as_str() } else { "away" };
    let _ = write!(
        out,
        "<article><h2>its peer</h2><p class=\"big\">{}</p><p>{}, {}</p><p>last word {} ago</p></article></div>",
        safe(peer_name),
        if peer.incomplete { "given a copy" } else { other },
        safe(if word.is_empty() { "connected" } else { word }),
        seconds(peer.silence_seconds),
    );
    for text in [&status.reason, &status.next].into_iter().filter(|text| !text.is_empty()) {
        let _ = write!(out, "<p class=\"odd\">{}</p>", safe(text));
    }
    for trouble in &status.troubles {
        let class = if trouble.severity == "critical" { "bad" } else { "odd" };
        let since = seconds(trouble.seconds);
        let _ = write!(
            out,
            "<p class=\"{class}\"><strong>{}</strong> for {since}: {} <em>{}</em></p>",
            safe(&trouble.kind),
            safe(&trouble.text),
            safe(&trouble.next)
        );
    }
    out
}

/// How far both are, on one line whose right end is the newest entry.
fn positions(status: &Status) -> String {
    let p = &status.positions;
    let newest = p.appended.max(status.announced);
    let primary = status.role == "primary";
    let mut marks = vec![
        ("appended here", p.appended, 0),
        ("durable here", p.durable, 0),
        ("applied here", p.applied, 0),
    ];
    if primary {
        marks.push(("may be answered", p.committed, 0));
        marks.extend([("received there", p.received, 1), ("durable there", p.acked, 1)]);
        marks.push(("applied there", status.peer.applied, 1));
    } else {
        marks.push(("durable at the primary", status.announced, 1));
    }
    let oldest = marks.iter().map(|(_, seq, _)| *seq).min().unwrap_or(newest);
    let span = newest.saturating_sub(oldest).max(1);
    let mut lines = String::new();
    for (row, name) in [(0, "this node"), (1, "its peer")] {
        let _ = write!(
            lines,
            "<div class=\"line\"><span>{name}</span><svg height=\"20\" role=\"img\" aria-label=\"how far {name} is\">\
             <line class=\"axis\" x1=\"0\" y1=\"10\" x2=\"100%\" y2=\"10\"/>"
        );
        for (name, seq, _) in marks.iter().filter(|(_, _, of)| *of == row) {
            let behind = u128::from(newest.saturating_sub(*seq)) * 96 / u128::from(span);
            let (x, title) = (98 - behind.min(96), format!("{name}: entry {}", count(*seq)));
            let _ = write!(
                lines,
                "<circle class=\"mark\" cx=\"{x}%\" cy=\"10\" r=\"6\"><title>{title}</title></circle>"
            );
        }
        lines.push_str("</svg></div>");
    }
    let mut list = "<dl class=\"figures\">".to_owned();
    for (name, seq, _) in &marks {
        let behind = newest.saturating_sub(*seq);
        let tail = if behind == 0 { String::new() } else { format!(" <small>-{}</small>", count(behind)) };
        let _ = write!(list, "<div><dt>{name}</dt><dd>{}{tail}</dd></div>", count(*seq));
    }
    format!("<h2>Positions</h2>{lines}{list}</dl>")
}

fn risk(snapshot: &Snapshot) -> String {
    let status = &snapshot.status;
    let mut out = "<h2>Lost if this node died now</h2>".to_owned();
    if status.role != "primary" {
        return out + "<p class=\"big\">nothing here</p><p>the primary tells what is at risk</p>";
    }
    let risk = &status.at_risk;
    let level = safe(&status.ack_level);
    if risk.everything {
        out += "<p class=\"big bad\">everything</p><p>the peer is given a copy that is not whole yet</p>";
    } else if risk.entries == 0 {
        let _ = write!(
            out,
            "<p class=\"big\">nothing</p><p>the peer has everything on disk; ack level {level}</p>"
        );
    } else {
        let at_most = counted(risk.entries, "entry", "entries");
        let _ = write!(
            out,
            "<p class=\"big\">{at_most}</p><p>{}, the oldest of {} ago; of these only what was answered at level local, \
             whatever the level asked for is while a promise is lowered</p>",
            bytes(risk.bytes),
            seconds(risk.seconds)
        );
    }
    if let Some(queue) = &snapshot.queue {
        let left = match queue.seconds_left {
            Some(left) if queue.entries > 0 => format!("; drained in about {}", seconds(left)),
            None => "; it does not get shorter".to_owned(),
            _ => String::new(),
        };
        let _ = write!(
            out,
            "<p>queue: {}, {} a second in, {} a second confirmed{left}</p>",
            counted(queue.entries, "entry", "entries"),
            count(queue.rates.entries_per_second),
            count(queue.rates.confirmed_per_second)
        );
    }
    out
}

fn chart(name: &str, unit: &str, values: impl Iterator<Item = f64> + Clone) -> String {
    let most = values.clone().fold(0.0_f64, f64::max);
    let now = values.clone().last().unwrap_or(0.0);
    let number = |n: f64| match n {
        n if n > 0.0 && n < 10.0 => format!("{n:.1}"),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a chart has no negative values"
        )]
        n => count(n.round() as u64),
    };
    let (width, height) = CHART;
    let steps = f64::from(u32::try_from(values.clone().count().max(2) - 1).unwrap_or(1));
    let mut points = String::new();
    let mut x = 0.0;
    for value in values {
        let y = height - 2.0 - (height - 4.0) * value / most.max(f64::MIN_POSITIVE);
        let _ = write!(points, "{x:.1},{y:.1} ");
        x += width / steps;
    }
    let told = format!("{name}: now {} {unit}, at most {} {unit}", number(now), number(most));
    format!(
        "<figure><figcaption>{name}<br><span class=\"big\">{}</span> {unit}, at most {}</figcaption>\
         <svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{told}\">\
         <polyline class=\"curve\" points=\"{}\"/></svg></figure>",
        number(now),
        number(most),
        points.trim_end()
    )
}

fn charts(points: &[Point]) -> String {
    let values = |read: fn(&Point) -> f64| points.iter().map(read);
    format!(
        "<h2>The last minutes</h2><div class=\"charts\">{}{}{}</div>",
        chart("The peer lacks", "entries", values(|p| p.lag_entries)),
        chart("Age of the oldest", "s", values(|p| p.lag_seconds)),
        chart("Comes in", "entries/s", values(|p| p.rate)),
    )
}

pub(super) fn progress(done: u64, total: u64, text: &str) -> String {
    match total {
        0 => format!("<p>{text}</p>"),
        _ => format!(
            "<p>{text}<br><progress max=\"{total}\" value=\"{}\">{text}</progress></p>",
            done.min(total)
        ),
    }
}

fn copying(copy: &CopyView) -> String {
    let what = if copy.here { "This node is given a copy" } else { "The peer is given a copy" };
    let rate = bytes(copy.rate);
    progress(
        copy.bytes,
        copy.size,
        &format!("{what}: {} of about {}, {rate} a second", bytes(copy.bytes), bytes(copy.size)),
    )
}

fn comparing(compare: &CompareView) -> String {
    if compare.running {
        let what = if compare.what.is_empty() { "everything" } else { &compare.what };
        return progress(compare.done, compare.total, &format!("Comparing {}", safe(what)));
    }
    if compare.began_ms == 0 {
        return "<p>No compare was made yet.</p>".to_owned();
    }
    let (when, digest) = (utc(compare.ended_ms), safe(&compare.digest));
    if !compare.whole {
        return format!("<p class=\"odd\">The last compare did not end: {}</p>", safe(&compare.why));
    }
    let found = match compare.differing {
        0 => "both nodes have the same".to_owned(),
        n => format!(
            "{} differed, {} were repaired",
            counted(n, "item or block", "items and blocks"),
            compare.repaired
        ),
    };
    let class = if compare.differing > compare.repaired { "bad" } else { "good" };
    format!(
        "<p class=\"{class}\">Compared at entries {} to {}, {when}: {found}; {} items, {}</p><p class=\"digest\">certificate \
         {digest}</p>",
        count(compare.from),
        count(compare.to),
        count(compare.items),
        bytes(compare.bytes)
    )
}

fn work(status: &Status) -> String {
    let mut out = "<h2>Under way</h2>".to_owned();
    if let Some(replay) = &status.replay {
        out += &progress(replay.done, replay.total, &safe(&replay.text()));
    }
    match &status.copy {
        Some(copy) => out += &copying(copy),
        None => out += "<p>No full copy.</p>",
    }
    if status.scrub.running {
        out += "<p>A scrub reads what is stored.</p>";
    }
    let journal = &status.journal;
    let held = format!("Journal: {} of {}", bytes(journal.bytes), bytes(journal.quota_bytes));
    out += &progress(journal.bytes, journal.quota_bytes, &held);
    let clients = counted(status.clients, "client", "clients");
    let _ = write!(out, "<p>{clients} connected.</p>{}", comparing(&status.compare));
    out
}

fn times(stats: Option<&StatsView>) -> String {
    let Some(stats) = stats else { return "<h2>Work done</h2><p>The node is starting.</p>".to_owned() };
    let mut out = format!(
        "<h2>Work done</h2><p>{} in {} since {}, {}; link connected {}</p>",
        counted(stats.kinds.iter().map(|kind| kind.entries).sum(), "entry", "entries"),
        counted(stats.batches, "batch", "batches"),
        utc(stats.since_ms),
        counted(stats.starts, "start", "starts"),
        counted(stats.connects, "time", "times"),
    );
    out += "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"times of stages\"><table><caption>From accepted to ..</caption><thead><tr><th \
            scope=\"col\">stage</th><th scope=\"col\">half within</th><th scope=\"col\">99 %</th><th \
            scope=\"col\">99.9 %</th><th scope=\"col\">entries</th></tr></thead><tbody>";
    for stage in &stats.stages {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            safe(&stage.name),
            micros(stage.p50_us),
            micros(stage.p99_us),
            micros(stage.p999_us),
            count(stage.count)
        );
    }
    out + "</tbody></table></div>"
}

fn incidents(snapshot: &Snapshot) -> String {
    let mut out = format!("<h2>Incidents</h2><p>{} since the start</p>", count(snapshot.status.incidents));
    if snapshot.incidents.is_empty() {
        return out;
    }
    out += "<ol class=\"incidents\">";
    for incident in snapshot.incidents.iter().rev().take(INCIDENTS_SHOWN) {
        let class = match incident.severity.as_str() {
            "critical" => "bad",
            "warning" => "odd",
            _ => "plain",
        };
        let _ = write!(
            out,
            "<li class=\"{class}\"><time>{}</time> <strong>{}</strong> {}: {}</li>",
            utc(incident.wall_ms),
            safe(&incident.kind),
            safe(&incident.severity),
            safe(&incident.text)
        );
    }
    out + "</ol>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::{IncidentView, PeerView, TroubleView};

    const EVIL: &str = "</section><script>alert(1)</script>\" onload='x' & \u{1b}[31m\u{202e}\n";

    #[test]
    fn no_text_of_others_becomes_markup() {
        let text = || EVIL.to_owned();
        let status = Status {
            name: text(),
            role: text(),
            state: text(),
            reason: text(),
            next: text(),
            ack_level: text(),
            peer: PeerView { name: text(), state: text(), connected: true, ..PeerView::default() },
            troubles: vec![TroubleView {
                kind: text(),
                text: text(),
                next: text(),
                severity: text(),
                seconds: 1.0,
            }],
            compare: CompareView { running: true, what: text(), ..CompareView::default() },
            ..Status::default()
        };
        let incident = IncidentView { severity: text(), kind: text(), text: text(), wall_ms: 5 };
        let snapshot = Snapshot { status, incidents: vec![incident], ..Snapshot::default() };
        let page = Page::new();
        let html = page.render(&snapshot, &[]);
        assert_eq!(html.matches("<script").count(), 1, "its own");
        assert!(html.contains("&lt;/section&gt;&lt;script&gt;"), "{html}");
        for raw in ["alert(1)</script>", "onload='", "\u{1b}", "\u{202e}"] {
            assert!(!html.contains(raw), "{raw:?} in {html}");
        }
        let silent = Snapshot { silent: text(), ..Snapshot::default() };
        assert!(!page.render(&silent, &[]).contains("alert(1)</script>"));
        let live = sections_json(&snapshot, &[]);
        assert!(!live.contains('\n'), "one line of an event");
    }

    #[test]
    fn a_page_names_no_other_place_and_lets_no_foreign_script_run() {
        let page = Page::new();
        let html = page.render(&Snapshot::default(), &[Point::default(); 3]);
        for address in ["http:", "https:", "//", "url(", "@import", " style=\"", " onclick"] {
            let found = html.replace("http-equiv", "").contains(address);
            assert!(!found, "{address}");
        }
        assert!(page.policy().contains(&format!("script-src 'nonce-{}'", page.nonce)));
        assert_ne!(page.nonce, Page::new().nonce);
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696_000), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59 UTC");
    }
}
