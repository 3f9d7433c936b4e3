//! What earlier processes counted: kept in a file each minute and at a stop, and added to what this one counts.

use super::inbox::{Inbox, Message};
use super::layout::{Layout, OwnName};
use crate::base::crc32c;
use crate::base::limits::{STATS_FILE_MAX, STATS_KEEP_MS};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, StatsView};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How the file begins; the checksum of the rest follows.
const HEAD: &str = "hot-backup stats 1 ";

/// The file, and what it held when the node started.
#[derive(Debug)]
pub(crate) struct KeptStats {
    layout: Layout,
    before: StatsView,
}

/// The file's bytes.
fn encode(stats: &StatsView) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(stats)?;
    let mut file = format!("{HEAD}{:08x}\n", crc32c(&body)).into_bytes();
    file.extend_from_slice(&body);
    Ok(file)
}

/// What a file holds, or why it is of no use.
fn decode(file: &[u8]) -> Result<StatsView, String> {
    let (head, body) = file.split_at_checked(HEAD.len() + 9).ok_or("it was cut off")?;
    let expected = format!("{HEAD}{:08x}\n", crc32c(body));
    if head != expected.as_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Reads any bytes as the file of what was counted.
pub fn fuzz_stats(bytes: &[u8]) {
    let body = bytes;
    let mut fits = format!("{HEAD}{:08x}\n", crc32c(body)).into_bytes();
    fits.extend_from_slice(body);
    for file in [bytes, &fits] {
        if let Ok(stats) = decode(file) {
            let again = encode(&stats).map(|file| decode(&file));
            assert_eq!(again.ok(), Some(Ok(stats)), "what is kept reads back");
        }
    }
}

impl KeptStats {
    /// Of the node whose directory's lock the caller has.
    pub(crate) fn found(layout: &Layout) -> Self {
        let path = layout.stats();
        let before = match layout.read(&path, false, STATS_FILE_MAX) {
            Ok(file) => decode(&file).unwrap_or_else(|why| {
                tracing::warn!("reading {}: {why}: counting begins anew", path.display());
                StatsView::default()
            }),
            Err(distrust) => {
                if distrust.kind() != Some(std::io::ErrorKind::NotFound) {
                    tracing::warn!("reading {}: {distrust}: counting begins anew", path.display());
                }
                StatsView::default()
            }
        };
        Self { layout: layout.clone(), before }
    }

    /// What this process has counted and what those before it have.
    pub(crate) fn with_before(&self, mut now: StatsView) -> StatsView {
        now.add(&self.before);
        now
    }

    fn keep(&self, now: StatsView) {
        let all = self.with_before(now);
        let kept = encode(&all)
            .map_err(std::io::Error::from)
            .and_then(|file| self.layout.own(OwnName::Stats).replace(&file));
        if let Err(error) = kept {
            tracing::warn!("writing {}: {error}", self.layout.stats().display());
        }
    }

    /// Keeps what the core counts, each minute and when it tells its last.
    pub(crate) fn run(&self, last: &Receiver<StatsView>, inbox: &Inbox) {
        loop {
            match last.recv_timeout(Duration::from_millis(STATS_KEEP_MS)) {
                Ok(now) => return self.keep(now),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(now) = ask(inbox) {
                        self.keep(now);
                    }
                }
            }
        }
    }
}

fn ask(inbox: &Inbox) -> Option<StatsView> {
    let (reply, answer) = sync_channel(1);
    inbox.send(Message::Admin { request: AdminRequest::Stats, reply }).ok()?;
    match answer.recv_timeout(Duration::from_millis(STATS_KEEP_MS)) {
        Ok(AdminReply::Ok { value: AdminAnswer::Stats(stats) }) => Some(*stats),
        _ => None,
    }
}

/// Counts of which each differs.
#[cfg(test)]
pub(in crate::node) fn sample() -> StatsView {
    use crate::engine::admin::{FileCount, KindCount, RatesView, StageView};
    let name = || "app,x".to_owned();
    StatsView {
        version: 1,
        since_ms: 1_700_000_000_000,
        starts: 2,
        kinds: vec![KindCount { kind: "put".to_owned(), entries: 5, bytes: 9 }],
        files: vec![FileCount { id: 3, name: name(), puts: 5, deletes: 6, blocks: 7, others: 8, bytes: 9 }],
        batches: 3,
        batch_bytes: 999,
        stages: vec![StageView {
            name: "disk".to_owned(),
            count: 5,
            sum_us: 4000,
            untimed: 1,
            p50_us: 895,
            p99_us: 896,
            p999_us: 897,
            buckets: vec![(895, 4), (897, 1)],
        }],
        write_retries: 10,
        apply_retries: 11,
        connects: 12,
        rates: RatesView {
            over_ms: 5000,
            entries_per_second: 1,
            bytes_per_second: 2,
            confirmed_per_second: 3,
            confirmed_bytes_per_second: 4,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_it_was_written_by_every_version() {
        let golden = include_bytes!("../../tests/data/stats-v1");
        assert_eq!(decode(golden).unwrap(), sample());
        assert_eq!(encode(&sample()).unwrap(), golden);
    }

    #[test]
    fn what_was_kept_is_added_and_a_damaged_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let counted = |batches| StatsView { batches, starts: 1, since_ms: 7, ..StatsView::default() };
        let first = KeptStats::found(&layout);
        assert_eq!(first.with_before(counted(3)), counted(3));
        first.keep(counted(3));
        first.keep(counted(5));
        let second = KeptStats::found(&layout);
        let sum = second.with_before(counted(10));
        assert_eq!((sum.batches, sum.starts), (15, 2));
        second.keep(counted(10));
        let mut file = std::fs::read(layout.stats()).unwrap();
        assert!(file.starts_with(HEAD.as_bytes()));
        for at in 0..file.len() {
            file[at] ^= 1;
            assert!(decode(&file).is_err(), "byte {at}");
            file[at] ^= 1;
            assert!(decode(&file[..at]).is_err(), "cut at {at}");
        }
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(layout.stats(), &file).unwrap();
        assert_eq!(KeptStats::found(&layout).with_before(counted(1)), counted(1));
    }
}
