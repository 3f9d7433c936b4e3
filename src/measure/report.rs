//! What was measured, as a file of JSON that later versions can read too.
//!
//! ```json
//! {"format":"hot-backup-bench","version":1,"program":"0.1.0","wall_ms":1767225599000,
//!  "facts":[{"name":"kernel","found":"6.18.0"}],
//!  "figures":[{"part":"disk","what":"write","way":"dsync","bytes":4096,"at_once":1,"per_second":9000.0,
//!              "p50_us":100.0,"p99_us":300.0}],
//!  "used":[{"way":"local","at_once":64,"processor":0.5,"store":null,"disk":null,"wire":null,
//!           "disk_us":90.0,"peer_us":null}],
//!  "limit":{"what":"disk","sentence":"..."}}
//! ```
//!
//! Fields and parts are added without a new version, and none is taken away. What two files have of the same part, what,
//! way, bytes and at_once is the same measurement.

use crate::measure::verdict::Verdict;
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;

/// See [`Report::format`].
pub const FORMAT: &str = "hot-backup-bench";
/// See [`Report::version`].
pub const VERSION: u32 = 1;
/// No machine does anything so often in a second, and nothing is waited for so long (microseconds).
const FIGURE_MAX: f64 = 1e15;
/// Longest file that is read (bytes).
pub const REPORT_MAX: usize = 4 << 20;

/// Something that was found out and is no figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Of what.
    pub name: String,
    /// What it is.
    pub found: String,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// disk, link, pair or tape.
    pub part: String,
    /// What was done.
    pub what: String,
    /// How.
    pub way: String,
    /// How much at a time (bytes).
    pub bytes: u64,
    /// How many at once.
    pub at_once: u64,
    /// How often in a second.
    pub per_second: f64,
    /// Half of them took no longer (microseconds); 0 if they were not timed one by one.
    pub p50_us: f64,
    /// 99 of 100 took no longer (microseconds); 0 likewise.
    pub p99_us: f64,
}

impl Figure {
    /// Bytes in a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.per_second * super::float(self.bytes)
    }

    /// What is the same in two reports that measured the same.
    #[must_use]
    pub fn key(&self) -> (&str, &str, &str, u64, u64) {
        (&self.part, &self.what, &self.way, self.bytes, self.at_once)
    }
}

/// What a rate of updates took of each part, as a share of the most that was measured of it; none where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// The way of its figure `set`.
    pub way: String,
    /// How many of it were at once.
    pub at_once: u64,
    /// Of the processors.
    pub processor: Option<f64>,
    /// Of the store.
    pub store: Option<f64>,
    /// Of the disk.
    pub disk: Option<f64>,
    /// Of the way to the peer.
    pub wire: Option<f64>,
    /// Within so long half of the entries were on this disk (microseconds).
    #[serde(default)]
    pub disk_us: Option<f64>,
    /// Within so long half of the entries were on the peer's disk (microseconds).
    #[serde(default)]
    pub peer_us: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The version of the program that measured.
    pub program: String,
    /// When it began (milliseconds since 1970).
    pub wall_ms: u64,
    /// What was found out besides.
    pub facts: Vec<Fact>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What updates took of each part.
    #[serde(default)]
    pub used: Vec<Used>,
    /// What limits, if the figures tell.
    #[serde(default)]
    pub limit: Option<Verdict>,
}

/// Why a file is not a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It is something else.
    #[error("it is not what `hot-backup bench` writes: {0}")]
    Other(String),
    /// It is of a later program.
    #[error("it has version {0} of the format, and this program knows {VERSION}")]
    Newer(u32),
    /// A figure in it cannot be one.
    #[error("a figure in it is beyond what can be: {0}")]
    Figure(String),
}

impl Report {
    /// An empty one that begins now, with what is known of the machine.
    #[must_use]
    pub fn begin() -> Self {
        let wall_ms =
            UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut report = Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            wall_ms,
            facts: Vec::new(),
            figures: Vec::new(),
            used: Vec::new(),
            limit: None,
        };
        report.facts.extend(super::usage::machine());
        report
    }

    /// Adds something that was found out.
    pub fn fact(&mut self, name: &str, found: impl Into<String>) {
        self.facts.push(Fact { name: name.to_owned(), found: found.into() });
    }

    /// Those of one part and what.
    pub fn of<'a>(&'a self, part: &'a str, what: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.part == part && figure.what == what)
    }

    /// The text of a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// From the text of a file.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let other = |error: serde_json::Error| ReportError::Other(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(other)?;
        if head.format != FORMAT {
            return Err(ReportError::Other(format!("its format is {:?}", head.format)));
        }
        if head.version != VERSION {
            return Err(ReportError::Newer(head.version));
        }
        let report: Self = serde_json::from_slice(bytes).map_err(other)?;
        let good = |n: f64| (0.0..=FIGURE_MAX).contains(&n);
        match report.figures.iter().find(|f| ![f.per_second, f.p50_us, f.p99_us].into_iter().all(good)) {
            Some(figure) => Err(ReportError::Figure(format!("{:?}", figure.key()))),
            None => Ok(report),
        }
    }
}

/// Gives any bytes to the reader of reports, and what it takes to all that works with them.
///
/// # Panics
/// If one of them has a fault.
pub fn fuzz_report(bytes: &[u8]) {
    let Ok(report) = Report::parse(bytes) else { return };
    let again = Report::parse(report.to_json().as_bytes());
    assert!(
        again.is_ok_and(|again| again.figures.len() == report.figures.len()),
        "what is written can be read"
    );
    let compared = super::compare::compare(&report, &report);
    assert!(compared.rows.iter().all(|row| row.ratio.is_finite()));
    let _ = super::verdict::verdict(&report);
    let page = super::page::page(&report);
    assert!(!page.contains("<script"), "nothing that stands in a report is run");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn golden() -> Report {
        let figure = |part: &str, what: &str, way: &str, bytes, at_once, per_second| Figure {
            part: part.to_owned(),
            what: what.to_owned(),
            way: way.to_owned(),
            bytes,
            at_once,
            per_second,
            p50_us: 100.5,
            p99_us: 300.0,
        };
        let fact = Fact { name: "kernel".to_owned(), found: "6.18.0".to_owned() };
        let mut report = Report {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: "0.1.0".to_owned(),
            wall_ms: 1_767_225_599_000,
            facts: vec![fact],
            figures: vec![
                figure("disk", "write", "dsync", 4096, 1, 9000.0),
                figure("disk", "journal", "journal", 4096, 1, 8100.0),
                figure("disk", "journal", "raw beside", 4096, 1, 9000.0),
                figure("link", "echo", "tls", 64, 1, 20_000.0),
            ],
            used: vec![Used {
                way: "local".to_owned(),
                at_once: 64,
                processor: Some(0.5),
                ..Used::default()
            }],
            limit: None,
        };
        report.limit = crate::measure::verdict::verdict(&report);
        report
    }

    #[test]
    fn the_golden_file_reads_as_it_was_written_and_is_written_as_it_stands() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bench-v1.json");
        let text = std::fs::read(path).unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&text), golden().to_json(), "put this into {path}");
        assert_eq!(Report::parse(&text), Ok(golden()));
    }

    #[test]
    fn other_files_later_versions_and_impossible_figures_are_refused_by_name() {
        let change = |from: &str, to: &str| golden().to_json().replace(from, to);
        let parse = |text: String| Report::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(parse("{}".to_owned()), ReportError::Other(_)));
        assert!(matches!(parse(change(FORMAT, "other")), ReportError::Other(_)));
        assert_eq!(parse(change("\"version\": 1", "\"version\": 2")), ReportError::Newer(2));
        assert!(matches!(parse(change("9000.0", "-1.0")), ReportError::Figure(_)));
        // A field that a later program added is no reason.
        assert!(Report::parse(change("\"facts\"", "\"more\": 1, \"facts\"").as_bytes()).is_ok());
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let text = golden().to_json().into_bytes();
        let mut prng = Prng::new(3);
        for _ in 0..3000 {
            let mut damaged = text.clone();
            for _ in 0..1 + prng.below(3) {
                let at = usize::try_from(prng.below(damaged.len() as u64)).unwrap();
                damaged[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_report(&damaged);
        }
        fuzz_report(&text);
    }
}
