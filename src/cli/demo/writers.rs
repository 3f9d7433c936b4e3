//! Writers: each sends updates over its own connection and remembers exactly what it was told.

use super::FILE;
use crate::base::crc32c;
use crate::client::{Reply, RespClient, RespError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Updates of one writer without an answer at once.
const IN_FLIGHT: usize = 32;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);
/// A writer stops here (updates), so that accounting for them fits the memory of a small machine.
const UPDATES_MAX: usize = 1_000_000;
/// Size of a value (bytes).
const VALUE_LEN: usize = 128;
/// In [`WriterLog::answered_at`]: the node answered with an error.
pub(super) const REFUSED: u64 = u64::MAX;

/// What one writer did and was told. Index n is its update number n; times are microseconds since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WriterLog {
    /// Which writer.
    pub(super) writer: usize,
    /// When each update was sent.
    pub(super) sent_at: Vec<u64>,
    /// When each was answered with "ok", or [`REFUSED`]; shorter than `sent_at` by those never answered.
    pub(super) answered_at: Vec<u64>,
    /// The first refusal.
    pub(super) refusal: Option<String>,
}

/// Writers at work.
pub(super) struct Writers {
    threads: Vec<JoinHandle<WriterLog>>,
    shared: Arc<LoadShared>,
}

struct LoadShared {
    start: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

impl Writers {
    /// Starts `count` writers against `address`.
    pub(super) fn start(count: usize, address: SocketAddr) -> Self {
        let shared = Arc::new(LoadShared {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let threads = (0..count)
            .map(|writer| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || write(writer, address, &shared))
            })
            .collect();
        Self { threads, shared }
    }

    /// Updates answered with "ok" so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for all writers to end, which they do when their node is gone.
    ///
    /// # Panics
    /// If a writer did.
    pub(super) fn finish(self) -> Vec<WriterLog> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|t| t.join().expect("a panic ends the whole process")).collect()
    }
}

fn write(writer: usize, address: SocketAddr, shared: &LoadShared) -> WriterLog {
    let mut log = WriterLog { writer, ..WriterLog::default() };
    if let Ok(mut client) = RespClient::tcp(address, PATIENCE) {
        // The end of the connection is the expected end: the node is killed under load.
        let _ = write_until_the_end(&mut client, &mut log, shared);
    }
    log
}

fn write_until_the_end(
    client: &mut RespClient,
    log: &mut WriterLog,
    shared: &LoadShared,
) -> Result<(), RespError> {
    let micros = || u64::try_from(shared.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
    loop {
        while log.sent_at.len() - log.answered_at.len() < IN_FLIGHT
            && log.sent_at.len() < UPDATES_MAX
            && !shared.stop.load(Ordering::Relaxed)
        {
            let (n, now) = (log.sent_at.len(), micros());
            let key = format!("{FILE},{}", id(log.writer, n));
            // Recorded before it may reach the node: what was sent is never less than what can be found.
            log.sent_at.push(now);
            client.send(&[b"SET", key.as_bytes(), &value(log.writer, n, now)])?;
        }
        if log.sent_at.len() == log.answered_at.len() {
            return Ok(());
        }
        client.flush()?;
        // All answers that are there, then the next updates.
        loop {
            match client.receive()? {
                Reply::Simple(_) => {
                    log.answered_at.push(micros());
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                other => {
                    log.answered_at.push(REFUSED);
                    log.refusal.get_or_insert_with(|| format!("{other:?}"));
                }
            }
            if !client.has_buffered() || log.sent_at.len() == log.answered_at.len() {
                break;
            }
        }
    }
}

/// The item id of a writer's update: never used twice.
pub(super) fn id(writer: usize, n: usize) -> String {
    format!("w{writer}-{n}")
}

/// The value of a writer's update: says what it is, when it was sent, and carries a checksum.
pub(super) fn value(writer: usize, n: usize, sent_at: u64) -> Vec<u8> {
    let mut text = format!("update {n} of writer {writer}, sent {sent_at} us after the start; ");
    let filler = VALUE_LEN.saturating_sub(text.len() + 8);
    text.extend(std::iter::repeat_n('.', filler));
    let sum = crc32c(text.as_bytes());
    text.push_str(&format!("{sum:08x}"));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_size_and_tells_its_update_apart() {
        assert_eq!(value(3, 17, 1_000_000).len(), VALUE_LEN);
        assert_ne!(value(3, 17, 5), value(3, 17, 6));
        assert_ne!(value(3, 17, 5), value(4, 17, 5));
        assert_eq!(id(3, 17), "w3-17");
    }
}
