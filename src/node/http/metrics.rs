//! The figures as OpenMetrics. One table says each metric's name, unit, meaning and where its value comes from; what is
//! served and what is documented are made from it.

use super::snapshot::Snapshot;
use crate::engine::admin::{CanaryView, STATES, StageView, StatsView};
use crate::engine::incidents::Matter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;

/// Where a metric's value comes from.
enum Value {
    Gauge(fn(&Snapshot) -> f64),
    Counter(fn(&StatsView) -> u64),
    /// A gauge for each value of a label.
    Gauges(&'static str, fn(&Snapshot) -> Vec<(String, f64)>),
    /// A counter for each value of a label.
    Counters(&'static str, fn(&StatsView) -> Vec<(String, u64)>),
    /// A histogram of times for each stage.
    Stages(fn(&StatsView) -> &[StageView]),
}

struct Metric {
    name: &'static str,
    /// bytes, seconds or nothing.
    unit: &'static str,
    help: &'static str,
    value: Value,
}

const PREFIX: &str = "hot_backup";
fn whole(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a figure beyond 2^53 may be off by one")]
    let n = n as f64;
    n
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn canary(snapshot: &Snapshot) -> Option<&CanaryView> {
    snapshot.status.health.as_ref()?.canary.as_ref()
}

fn one_of(words: &[&str], now: &str) -> Vec<(String, f64)> {
    words.iter().map(|word| ((*word).to_owned(), flag(*word == now))).collect()
}

const fn metric(name: &'static str, unit: &'static str, help: &'static str, value: Value) -> Metric {
    Metric { name, unit, help, value }
}

const METRICS: &[Metric] = &[
    metric("up", "", "1 if the node answered", Value::Gauge(|s| flag(s.silent.is_empty()))),
    metric(
        "ready",
        "",
        "1 if clients may be sent to this node",
        Value::Gauge(|s| flag(s.unready().is_none())),
    ),
    metric(
        "healthy",
        "",
        "0 while something critical has begun and not ended",
        Value::Gauge(|s| flag(s.ill().is_none())),
    ),
    metric(
        "role",
        "",
        "1 for the role that the node has",
        Value::Gauges("role", |s| {
            one_of(&["primary", "standby", "diverged", "incomplete"], s.status.role.as_str())
        }),
    ),
    metric(
        "state",
        "",
        "1 for the state that the node is in; what they mean: hot-backup status --help",
        Value::Gauges("state", |s| one_of(&STATES, s.status.state.as_str())),
    ),
    metric(
        "work",
        "",
        "1 for what the node is at with what it has to do",
        Value::Gauges("state", |s| {
            let now = s.status.health.as_ref().map_or("", |health| health.work.as_str());
            one_of(&["idle", "busy", "lagging", "stuck"], now)
        }),
    ),
    metric("epoch", "", "the epoch of the node", Value::Gauge(|s| whole(s.status.epoch))),
    metric("uptime", "seconds", "since the node started", Value::Gauge(|s| s.status.uptime_seconds)),
    metric(
        "position",
        "",
        "the last entry of the replicated journal that is appended here, durable here, received by the peer, acked \
         (durable there), committed (may be answered), applied here, peer_applied, or announced by the primary",
        Value::Gauges("at", |s| {
            let p = &s.status.positions;
            let peer = [("peer_applied", s.status.peer.applied), ("announced", s.status.announced)];
            let own = [
                ("appended", p.appended),
                ("durable", p.durable),
                ("received", p.received),
                ("acked", p.acked),
                ("committed", p.committed),
                ("applied", p.applied),
            ];
            own.into_iter().chain(peer).map(|(at, seq)| (at.to_owned(), whole(seq))).collect()
        }),
    ),
    metric("peer_connected", "", "1 if the link is up", Value::Gauge(|s| flag(s.status.peer.connected))),
    metric(
        "peer_state",
        "",
        "1 for the state of the peer as this node sees it",
        Value::Gauges("state", |s| {
            let words = ["away", "connected", "idle", "busy", "lagging", "stuck"];
            one_of(&words, s.status.peer.state.as_str())
        }),
    ),
    metric(
        "peer_silence",
        "seconds",
        "since the last word of the peer",
        Value::Gauge(|s| s.status.peer.silence_seconds),
    ),
    metric(
        "queue_entries",
        "",
        "entries that the peer has not confirmed to have on disk",
        Value::Gauge(|s| s.queue.as_ref().map_or(0.0, |q| whole(q.entries))),
    ),
    metric(
        "queue",
        "bytes",
        "bytes of their batches",
        Value::Gauge(|s| s.queue.as_ref().map_or(0.0, |q| whole(q.bytes))),
    ),
    metric(
        "queue_oldest",
        "seconds",
        "age of the oldest of them",
        Value::Gauge(|s| s.queue.as_ref().map_or(0.0, |q| q.oldest_seconds)),
    ),
    metric(
        "at_risk_entries",
        "",
        "entries that would be lost if this primary died now",
        Value::Gauge(|s| whole(s.status.at_risk.entries)),
    ),
    metric(
        "at_risk_everything",
        "",
        "1 while the peer is given a copy, and could not take over",
        Value::Gauge(|s| flag(s.status.at_risk.everything)),
    ),
    metric(
        "degraded",
        "",
        "1 while the database's ack level is lowered to local",
        Value::Gauge(|s| flag(s.status.degraded)),
    ),
    metric(
        "lowered_promises",
        "",
        "ack levels, of the database and of files, that are lowered now",
        Value::Gauge(|s| whole(s.status.lowered.len() as u64)),
    ),
    metric(
        "journal",
        "bytes",
        "what the replicated journal takes on disk",
        Value::Gauge(|s| whole(s.status.journal.bytes)),
    ),
    metric(
        "journal_quota",
        "bytes",
        "what it may take before the peer loses its claim",
        Value::Gauge(|s| whole(s.status.journal.quota_bytes)),
    ),
    metric("clients", "", "clients connected to the doors", Value::Gauge(|s| whole(s.status.clients))),
    metric(
        "clients_refused",
        "",
        "clients and connections refused since the node started",
        Value::Gauges("door", |s| {
            let s = &s.status;
            let doors = [("resp", s.resp_refused), ("nbd", s.nbd_refused), ("link", s.refused)];
            doors.into_iter().map(|(door, n)| (door.to_owned(), whole(n))).collect()
        }),
    ),
    metric(
        "longest_round",
        "seconds",
        "the longest time for which the core did one thing, of the last minute or two",
        Value::Gauge(|s| s.status.longest_round_ms / 1000.0),
    ),
    metric(
        "troubles",
        "",
        "what has begun and not ended",
        Value::Gauges("severity", |s| {
            let count = |severity: &str| {
                s.status.troubles.iter().filter(|trouble| trouble.severity == severity).count()
            };
            ["notice", "warning", "critical"]
                .into_iter()
                .map(|word| (word.to_owned(), whole(count(word) as u64)))
                .collect()
        }),
    ),
    metric(
        "trouble",
        "",
        "1 for each incident that lasts, by its code: docs/incidents.md says what to do",
        Value::Gauges("code", |s| {
            let lasts = |code: &str| s.status.troubles.iter().any(|trouble| trouble.kind == code);
            let told =
                Matter::ALL.iter().map(|matter| matter.row()).filter(|row| row.severity.name() != "notice");
            told.map(|row| (row.code.to_owned(), flag(lasts(row.code)))).collect()
        }),
    ),
    metric(
        "canary",
        "seconds",
        "how long the last test update took for the whole way to the peer's store and back; 0: none did yet",
        Value::Gauge(|s| canary(s).and_then(|canary| canary.last_seconds).unwrap_or_default()),
    ),
    metric(
        "canary_late",
        "",
        "1 while the test update under way is late",
        Value::Gauge(|s| flag(canary(s).is_some_and(|canary| canary.late))),
    ),
    metric(
        "lease",
        "seconds",
        "for how long this node may accept updates if nobody renews; 0 where no lease decides",
        Value::Gauge(|s| s.status.lease.as_ref().map_or(0.0, |lease| lease.seconds_left)),
    ),
    metric(
        "disk_free",
        "bytes",
        "free on the file system of the node's directory",
        Value::Gauge(|s| s.status.health.as_ref().map_or(0.0, |health| whole(health.disk_free_bytes))),
    ),
    metric(
        "disk",
        "bytes",
        "the size of that file system",
        Value::Gauge(|s| s.status.health.as_ref().map_or(0.0, |health| whole(health.disk_bytes))),
    ),
    metric(
        "incidents_seen",
        "",
        "incidents since the node started",
        Value::Gauge(|s| whole(s.status.incidents)),
    ),
    metric(
        "copy",
        "bytes",
        "content of the full copy under way that came or was given",
        Value::Gauge(|s| s.status.copy.as_ref().map_or(0.0, |copy| whole(copy.bytes))),
    ),
    metric(
        "copy_size",
        "bytes",
        "about how much there is to copy",
        Value::Gauge(|s| s.status.copy.as_ref().map_or(0.0, |copy| whole(copy.size))),
    ),
    metric(
        "compare_differing",
        "",
        "items and blocks in which the nodes differed, by the compare under way or the last one",
        Value::Gauge(|s| whole(s.status.compare.differing)),
    ),
    metric(
        "compare_ended",
        "seconds",
        "when the last compare ended (since 1970); 0: none did",
        Value::Gauge(|s| whole(s.status.compare.ended_ms) / 1000.0),
    ),
    metric(
        "entries",
        "",
        "entries of both journals, by what they do",
        Value::Counters("kind", |s| s.kinds.iter().map(|kind| (kind.kind.clone(), kind.entries)).collect()),
    ),
    metric(
        "entries_content",
        "bytes",
        "their ids and values",
        Value::Counters("kind", |s| s.kinds.iter().map(|kind| (kind.kind.clone(), kind.bytes)).collect()),
    ),
    metric(
        "file_entries",
        "",
        "entries of the hundred files with most of them",
        Value::Counters("file", |s| {
            let named = s.files.iter().filter(|file| !file.name.is_empty()).take(100);
            named.map(|file| (file.name.clone(), file.entries())).collect()
        }),
    ),
    metric("batches", "", "batches that were sealed or received", Value::Counter(|s| s.batches)),
    metric("batches", "bytes", "their bytes", Value::Counter(|s| s.batch_bytes)),
    metric(
        "write_retries",
        "",
        "writes of a journal that failed and were made again",
        Value::Counter(|s| s.write_retries),
    ),
    metric(
        "apply_retries",
        "",
        "batches that the store refused and was given again",
        Value::Counter(|s| s.apply_retries),
    ),
    metric("link_connects", "", "how often the link came up", Value::Counter(|s| s.connects)),
    metric("starts", "", "how often the node was started", Value::Counter(|s| s.starts)),
    metric(
        "stage",
        "seconds",
        "from when an entry was accepted until the write of its batch begins (append), it is on this disk (disk), this \
         store shows it (apply), it is on the peer's disk (peer), it may be answered at the database's ack level (answer)",
        Value::Stages(|s| &s.stages),
    ),
];

impl Metric {
    fn kind(&self) -> MetricType {
        match self.value {
            Value::Gauge(_) | Value::Gauges(..) => MetricType::Gauge,
            Value::Counter(_) | Value::Counters(..) => MetricType::Counter,
            Value::Stages(_) => MetricType::Histogram,
        }
    }

    fn unit(&self) -> Option<Unit> {
        match self.unit {
            "bytes" => Some(Unit::Bytes),
            "seconds" => Some(Unit::Seconds),
            _ => None,
        }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
        let none = StatsView::default();
        let stats = snapshot.stats.as_ref().unwrap_or(&none);
        match &self.value {
            Value::Gauge(read) => encoder.encode_gauge(&read(snapshot)),
            Value::Counter(read) => encoder.encode_counter::<NoLabelSet, _, u64>(&read(stats), None),
            Value::Gauges(label, read) => {
                for (value, n) in read(snapshot) {
                    encoder.encode_family(&[(*label, value.as_str())])?.encode_gauge(&n)?;
                }
                Ok(())
            }
            Value::Counters(label, read) => {
                for (value, n) in read(stats) {
                    let labels = [(*label, value.as_str())];
                    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&n, None)?;
                }
                Ok(())
            }
            Value::Stages(read) => {
                for stage in read(stats) {
                    let labels = [("stage", stage.name.as_str())];
                    let buckets = coarse(&stage.buckets);
                    let seconds = whole(stage.sum_us) / 1_000_000.0;
                    encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                        seconds,
                        stage.count,
                        &buckets,
                        None,
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// The same buckets for every scrape: the powers of two from 16 us to 67 s, and one for what took longer.
fn coarse(buckets: &[(u64, u64)]) -> Vec<(f64, u64)> {
    let ends = (4..=26).map(|power| 1_u64 << power);
    let mut at = 0;
    let mut all: Vec<(f64, u64)> = ends
        .map(|end| {
            let mut count = 0;
            while let Some((longest, n)) = buckets.get(at)
                && *longest < end
            {
                count += n;
                at += 1;
            }
            (whole(end) / 1_000_000.0, count)
        })
        .collect();
    let rest = buckets.get(at..).unwrap_or_default().iter().map(|(_, n)| n).sum();
    all.push((f64::INFINITY, rest));
    all
}

#[derive(Debug)]
struct Told(Arc<Snapshot>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let unit = metric.unit();
            let described =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), metric.kind())?;
            metric.encode(described, &self.0)?;
        }
        Ok(())
    }
}

/// All metrics as a scrape has them.
pub(super) fn text(snapshot: Arc<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Told(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A metric, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// As it is served.
    pub name: String,
    /// gauge, counter or histogram.
    pub kind: &'static str,
    /// The label that tells its values apart, if any.
    pub label: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// All metrics that a node serves, in their order.
#[must_use]
pub fn described() -> Vec<Described> {
    let one = |metric: &Metric| {
        let (kind, label, end) = match metric.value {
            Value::Gauge(_) => ("gauge", "", ""),
            Value::Gauges(label, _) => ("gauge", label, ""),
            Value::Counter(_) => ("counter", "", "_total"),
            Value::Counters(label, _) => ("counter", label, "_total"),
            Value::Stages(_) => ("histogram", "stage", ""),
        };
        let unit = if metric.unit.is_empty() { String::new() } else { format!("_{}", metric.unit) };
        Described { name: format!("{PREFIX}_{}{unit}{end}", metric.name), kind, label, help: metric.help }
    };
    METRICS.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::{KindCount, Status};

    #[test]
    fn what_is_described_is_what_is_served_with_help_and_escaped_labels() {
        let mut snapshot = Snapshot {
            status: Status { role: "primary".into(), state: "serving".into(), ..Status::default() },
            stats: Some(StatsView {
                kinds: vec![KindCount { kind: "a\"b\\c\nd".into(), entries: 5, bytes: 7 }],
                files: vec![crate::engine::admin::FileCount {
                    name: "app,x".into(),
                    puts: 1,
                    ..Default::default()
                }],
                stages: vec![StageView {
                    name: "disk".into(),
                    count: 3,
                    sum_us: 1_500_000,
                    buckets: vec![(10, 1), (1000, 1), (1 << 30, 1)],
                    ..StageView::default()
                }],
                ..StatsView::default()
            }),
            ..Snapshot::default()
        };
        let text = text(Arc::new(snapshot.clone())).unwrap();
        for metric in described() {
            let base = metric.name.strip_suffix("_total").unwrap_or(&metric.name);
            assert!(text.contains(&format!("# HELP {base} ")), "{base}\n{text}");
            assert!(text.contains(&format!("# TYPE {base} {}\n", metric.kind)), "{base}\n{text}");
            let sample = if metric.kind == "histogram" { format!("{base}_count") } else { metric.name };
            let is_sample = |line: &str| {
                line.starts_with(&format!("{sample} ")) || line.starts_with(&format!("{sample}{{"))
            };
            assert!(text.lines().any(is_sample), "{sample}\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), METRICS.len());
        assert!(text.contains("hot_backup_role{role=\"primary\"} 1.0\n"), "{text}");
        assert!(text.contains("hot_backup_entries_total{kind=\"a\\\"b\\\\c\\nd\"} 5\n"), "{text}");
        assert!(
            text.contains("hot_backup_stage_seconds_bucket{le=\"0.000016\",stage=\"disk\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("hot_backup_stage_seconds_bucket{le=\"+Inf\",stage=\"disk\"} 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        // A node that starts has no counts yet.
        snapshot.stats = None;
        assert!(super::text(Arc::new(snapshot)).unwrap().contains("hot_backup_up 1.0\n"));
    }
}
