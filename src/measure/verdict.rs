//! What limits: one sentence that follows from the figures, and from nothing else.

use super::report::{Figure, Report, Used};
use crate::base::shown::bytes;
use serde::{Deserialize, Serialize};

/// From this share of what it gives on, a part is used up.
const USED_UP: f64 = 0.6;
/// Below this share of the raw rate, what is above it limits, not the device.
const REACHED: f64 = 0.7;

/// What limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The disk below a journal.
    Disk,
    /// The way to the peer.
    Wire,
    /// The processors.
    Processor,
    /// The store, which comes to apply less than is journalled.
    Store,
    /// The tape drive.
    Drive,
}

/// What limits, and why that is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What.
    pub what: Limit,
    /// In a sentence.
    pub sentence: String,
}

/// What the figures of a report say; of several parts, the pair has the last word. `None` if they are too few.
#[must_use]
pub fn verdict(report: &Report) -> Option<Verdict> {
    pair(report).or_else(|| disk(report)).or_else(|| link(report)).or_else(|| tape(report))
}

fn said(what: Limit, sentence: String) -> Option<Verdict> {
    Some(Verdict { what, sentence })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn best<'a>(figures: impl Iterator<Item = &'a Figure>) -> Option<&'a Figure> {
    figures.max_by(|a, b| a.per_second.total_cmp(&b.per_second))
}

/// At the best rate of updates: what each part had to do, as a share of what it gives.
fn pair(report: &Report) -> Option<Verdict> {
    let set = best(report.of("pair", "set"))?;
    let used = report.used.iter().find(|used| used.way == set.way && used.at_once == set.at_once)?;
    let names = [
        (Limit::Processor, "the processors", used.processor),
        (Limit::Store, "the store", used.store),
        (Limit::Disk, "the disk", used.disk),
        (Limit::Wire, "the wire", used.wire),
    ];
    let known = names.iter().filter_map(|(what, name, share)| Some((*what, *name, (*share)?)));
    let (what, name, most) = known.clone().max_by(|a, b| a.2.total_cmp(&b.2))?;
    let rate =
        format!("{:.0} updates a second at level {} with {} at once", set.per_second, set.way, set.at_once);
    if most < USED_UP {
        return waits(report, used, &rate);
    }
    let rest: Vec<_> = known
        .filter(|(other, ..)| *other != what)
        .map(|(_, name, share)| format!("{name} {}", percent(share)))
        .collect();
    let rest = if rest.is_empty() { String::new() } else { format!(" ({})", rest.join(", ")) };
    let most = percent(most);
    said(what, format!("At {rate}, {name} had to give {most} of the most that was there{rest}: that limits."))
}

/// Nothing is used up: an update waits for the slowest thing on its way. What the node timed says it best; else what was
/// measured of disk and wire alone.
fn waits(report: &Report, used: &Used, rate: &str) -> Option<Verdict> {
    let write = report.of("disk", "write").filter(|f| f.at_once == 1).min_by_key(|f| f.bytes);
    let echo = report.of("link", "echo").min_by_key(|f| f.bytes);
    let disk = used.disk_us.or(write.map(|f| f.p50_us))?;
    let beyond = used.peer_us.map(|peer| (peer - disk).max(0.0)).or(echo.map(|f| f.p50_us)).unwrap_or(0.0);
    let there = if used.way == "local" { 0.0 } else { beyond };
    let (what, name, most) = if disk >= there {
        (Limit::Disk, "a write to the disk", disk)
    } else {
        (Limit::Wire, "the way to the peer and back", there)
    };
    said(
        what,
        format!(
            "At {rate} nothing is used up: each update waits for {name}, which takes {most:.0} microseconds at the median."
        ),
    )
}

/// What the journal reaches of the raw disk, side by side.
fn disk(report: &Report) -> Option<Verdict> {
    let journal = |way: &'static str| report.of("disk", "journal").filter(move |f| f.way == way);
    let largest = journal("journal").max_by_key(|f| f.bytes)?;
    let raw = journal("raw beside").find(|f| f.bytes == largest.bytes)?;
    let share = largest.per_second / raw.per_second.max(f64::MIN_POSITIVE);
    let size = bytes(largest.bytes);
    let rate = bytes_a_second(largest);
    if share >= REACHED {
        said(
            Limit::Disk,
            format!(
                "The journal reaches {} of the raw disk with batches of {size}, {rate}: the disk limits.",
                percent(share)
            ),
        )
    } else {
        said(
            Limit::Processor,
            format!(
                "The journal reaches {} of the raw disk with batches of {size}, {rate}: the processor limits, or what \
                 else it does.",
                percent(share)
            ),
        )
    }
}

/// What is left of the bare rate with encryption.
fn link(report: &Report) -> Option<Verdict> {
    let stream = |way: &'static str| best_bytes(report.of("link", "stream").filter(move |f| f.way == way));
    let bare = stream("plain")?;
    let Some(tls) = stream("tls") else {
        return said(Limit::Wire, format!("The wire takes {} at most.", bytes_a_second(bare)));
    };
    let share = tls.bytes_per_second() / bare.bytes_per_second().max(f64::MIN_POSITIVE);
    let rates = format!(
        "{} with TLS, {} of the {} without",
        bytes_a_second(tls),
        percent(share),
        bytes_a_second(bare)
    );
    if share >= REACHED {
        said(Limit::Wire, format!("The link takes {rates}: the wire limits."))
    } else {
        said(Limit::Processor, format!("The link takes {rates}: the processor, which encrypts, limits."))
    }
}

/// Below its streaming floor a drive stops and starts.
fn tape(report: &Report) -> Option<Verdict> {
    let write = best_bytes(report.of("tape", "write"))?;
    said(
        Limit::Drive,
        format!(
            "The drive takes {} in blocks of {}: what comes slower makes it stop and start.",
            bytes_a_second(write),
            bytes(write.bytes)
        ),
    )
}

fn best_bytes<'a>(figures: impl Iterator<Item = &'a Figure>) -> Option<&'a Figure> {
    figures.max_by(|a, b| a.bytes_per_second().total_cmp(&b.bytes_per_second()))
}

/// `12.3 MB/s`.
#[must_use]
pub fn bytes_a_second(figure: &Figure) -> String {
    let rate = figure.bytes_per_second();
    if rate >= 1e9 { format!("{:.2} GB/s", rate / 1e9) } else { format!("{:.1} MB/s", rate / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(part: &str, what: &str, way: &str, bytes: u64, at_once: u64, per_second: f64) -> Figure {
        Figure {
            part: part.to_owned(),
            what: what.to_owned(),
            way: way.to_owned(),
            bytes,
            at_once,
            per_second,
            p50_us: 80.0,
            p99_us: 0.0,
        }
    }

    fn of(figures: Vec<Figure>) -> Option<Verdict> {
        with(figures, Vec::new())
    }

    fn with(figures: Vec<Figure>, used: Vec<Used>) -> Option<Verdict> {
        verdict(&Report { figures, used, ..Report::default() })
    }

    fn pair_of(processor: f64, store: f64, disk: f64, wire: f64) -> Option<Verdict> {
        let used = |at_once, processor| Used {
            way: "durable".to_owned(),
            at_once,
            processor: Some(processor),
            store: Some(store),
            disk: Some(disk),
            wire: Some(wire),
            ..Used::default()
        };
        let figures = vec![
            figure("pair", "set", "durable", 128, 64, 9000.0),
            figure("pair", "set", "durable", 128, 1, 900.0),
            figure("disk", "write", "dsync", 4096, 1, 9000.0),
            Figure { p50_us: 300.0, ..figure("link", "echo", "tls", 64, 1, 3000.0) },
        ];
        with(figures, vec![used(1, 0.99), used(64, processor)])
    }

    #[test]
    fn the_part_that_is_used_most_at_the_best_rate_limits_a_pair() {
        let what = |verdict: Option<Verdict>| verdict.unwrap().what;
        assert_eq!(what(pair_of(0.95, 0.1, 0.3, 0.2)), Limit::Processor);
        assert_eq!(what(pair_of(0.5, 0.1, 0.9, 0.2)), Limit::Disk);
        assert_eq!(what(pair_of(0.5, 0.1, 0.3, 0.7)), Limit::Wire);
        assert_eq!(what(pair_of(0.5, 0.8, 0.3, 0.7)), Limit::Store);
        let said = pair_of(0.95, 0.1, 0.3, 0.2).unwrap().sentence;
        assert_eq!(
            said,
            "At 9000 updates a second at level durable with 64 at once, the processors had to give 95 % of the most that was \
             there (the store 10 %, the disk 30 %, the wire 20 %): that limits."
        );
    }

    #[test]
    fn where_nothing_is_used_up_an_update_waits_for_the_slowest_thing_on_its_way() {
        let verdict = pair_of(0.2, 0.1, 0.3, 0.2).unwrap();
        assert_eq!(verdict.what, Limit::Wire);
        assert!(verdict.sentence.contains("the way to the peer and back, which takes 300"), "{verdict:?}");
        // At level local nobody waits for the peer.
        let figures = vec![
            figure("pair", "set", "local", 128, 1, 900.0),
            figure("disk", "write", "dsync", 4096, 1, 9000.0),
            Figure { p50_us: 300.0, ..figure("link", "echo", "tls", 64, 1, 3000.0) },
        ];
        let used = Used { way: "local".to_owned(), at_once: 1, processor: Some(0.2), ..Used::default() };
        let local = with(figures, vec![used]);
        assert_eq!(local.unwrap().what, Limit::Disk);
        // What the node timed under load comes before what was measured beside it.
        let timed = |disk, peer| {
            let (disk_us, peer_us) = (Some(disk), Some(peer));
            let used = Used {
                way: "durable".to_owned(),
                at_once: 1,
                processor: Some(0.2),
                disk_us,
                peer_us,
                ..Used::default()
            };
            with(vec![figure("pair", "set", "durable", 128, 1, 900.0)], vec![used]).unwrap().what
        };
        assert_eq!((timed(500.0, 700.0), timed(500.0, 1200.0)), (Limit::Disk, Limit::Wire));
    }

    #[test]
    fn a_journal_beside_its_disk_a_link_with_and_without_tls_and_a_drive_say_what_limits_them() {
        let journal = |ours, raw| {
            of(vec![
                figure("disk", "journal", "journal", 4096, 1, 1.0),
                figure("disk", "journal", "journal", 65536, 1, ours),
                figure("disk", "journal", "raw beside", 65536, 1, raw),
            ])
        };
        assert_eq!(journal(95.0, 100.0).unwrap().what, Limit::Disk);
        assert_eq!(journal(50.0, 100.0).unwrap().what, Limit::Processor);
        let link = |tls, plain| {
            of(vec![
                figure("link", "stream", "tls", 1000, 1, tls),
                figure("link", "stream", "plain", 1000, 1, plain),
            ])
        };
        assert_eq!(link(90.0, 100.0).unwrap().what, Limit::Wire);
        assert_eq!(link(30.0, 100.0).unwrap().what, Limit::Processor);
        let tape = of(vec![figure("tape", "write", "drive", 262_144, 1, 400.0)]).unwrap();
        assert_eq!(tape.what, Limit::Drive);
        assert!(tape.sentence.contains("104.9 MB/s"), "{tape:?}");
        assert_eq!(of(Vec::new()), None);
    }
}
