//! The volume of the demo: a writer that stamps one block after the other through a real NBD client and flushes now
//! and then, and what must be found of that on the survivor.

use super::super::failure::Failure;
use super::audit::Check;
use crate::base::{AckLevel, crc32c};
use crate::client::NbdClient;
use serde::Serialize;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The volume.
pub(super) const VOLUME: &str = "app,disk";
/// Its name as an export.
const EXPORT: &str = "app/disk";
/// Its size, as `file create` takes it.
pub(super) const SIZE: &str = "256M";
/// One stamped block (bytes).
const BLOCK: usize = 4096;
/// Writes between two flushes.
const BURST: u64 = 16;
/// Blocks that the writer stamps at most.
const BLOCKS_MAX: u64 = 65_536;
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the writer did and was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VolumeLog {
    /// Blocks sent, from the first on.
    sent: u64,
    /// Of these, answered: the node has taken them, which promises nothing.
    answered: u64,
    /// Of these, covered by a flush that was answered.
    flushed: u64,
}

/// What became of the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Blocks {
    /// Sent.
    pub(super) sent: u64,
    /// Covered by a flush that was answered.
    pub(super) flushed: u64,
    /// There, from the first on.
    pub(super) kept: u64,
    /// Flushed and not there.
    pub(super) missing: u64,
    /// There behind one that is not, or with another content than was sent.
    pub(super) wrong: u64,
}

/// Starts the writer.
pub(super) fn start(address: SocketAddr) -> JoinHandle<VolumeLog> {
    thread::spawn(move || {
        let mut log = VolumeLog::default();
        // The end of the connection is the expected end: the node is killed under load.
        let _ = write_until_the_end(address, &mut log);
        log
    })
}

fn write_until_the_end(address: SocketAddr, log: &mut VolumeLog) -> std::io::Result<()> {
    let mut client = NbdClient::open(address, EXPORT, PATIENCE)?;
    while log.sent < BLOCKS_MAX {
        for _ in 0..BURST {
            let block = log.sent;
            log.sent += 1;
            client.write(block * BLOCK as u64, &stamp(block))?;
            log.answered += 1;
        }
        client.flush()?;
        log.flushed = log.answered;
    }
    Ok(())
}

/// A block that says which one it is, with a checksum.
fn stamp(block: u64) -> Vec<u8> {
    let mut bytes = format!("block {block} of the demo; ").into_bytes();
    bytes.resize(BLOCK - 4, b'.');
    let sum = crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads every block back from the survivor.
pub(super) fn survey(address: SocketAddr, log: VolumeLog) -> Result<Blocks, Failure> {
    let failed = |e: std::io::Error| Failure::io(format_args!("reading {VOLUME} on the survivor"), &e);
    let mut client = NbdClient::open(address, EXPORT, PATIENCE).map_err(failed)?;
    if client.is_read_only() || client.bytes < BLOCKS_MAX * BLOCK as u64 {
        let text =
            format!("{VOLUME} on the survivor: read-only {}, {} bytes", client.is_read_only(), client.bytes);
        return Err(Failure::error(text, ""));
    }
    let mut found = Vec::new();
    let mut bytes = vec![0; BLOCK];
    for block in 0..log.sent {
        client.read(block * BLOCK as u64, &mut bytes).map_err(failed)?;
        let empty = bytes.iter().all(|&byte| byte == 0);
        found.push(if empty { None } else { Some(bytes == stamp(block)) });
    }
    Ok(count(log, &found))
}

/// `found`: nothing there, or whether it is right.
fn count(log: VolumeLog, found: &[Option<bool>]) -> Blocks {
    let kept = found.iter().take_while(|there| **there == Some(true)).count() as u64;
    let behind = found.iter().skip(usize::try_from(kept).unwrap_or(usize::MAX));
    Blocks {
        sent: log.sent,
        flushed: log.flushed,
        kept,
        missing: log.flushed.saturating_sub(kept),
        wrong: behind.filter(|there| there.is_some()).count() as u64,
    }
}

/// What must hold.
pub(super) fn checks(level: AckLevel, blocks: Blocks) -> Vec<Check> {
    let Blocks { sent, flushed, kept, missing, wrong } = blocks;
    let mut checks = vec![Check {
        name: "the volume holds the first blocks that were written, without a gap, byte for byte",
        ok: wrong == 0 && sent > 0,
        detail: format!("{kept} of {sent}, {wrong} beyond that or wrong"),
    }];
    if level != AckLevel::Local {
        checks.push(Check {
            name: "no block that was flushed is lost",
            ok: missing == 0 && flushed > 0,
            detail: format!("{missing} of {flushed} missing"),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_after_a_gap_and_a_wrong_one_are_seen() {
        let log = VolumeLog { sent: 5, answered: 5, flushed: 4 };
        let good = count(log, &[Some(true), Some(true), Some(true), Some(true), None]);
        assert_eq!(good, Blocks { sent: 5, flushed: 4, kept: 4, missing: 0, wrong: 0 });
        let gap = count(log, &[Some(true), None, Some(true), None, None]);
        assert_eq!((gap.kept, gap.missing, gap.wrong), (1, 3, 1));
        let torn = count(log, &[Some(true), Some(false), None, None, None]);
        assert_eq!((torn.kept, torn.wrong), (1, 1));
        let failed = |level, blocks| checks(level, blocks).into_iter().any(|check| !check.ok);
        assert!(!failed(AckLevel::Durable, good));
        assert!(failed(AckLevel::Local, gap) && failed(AckLevel::Local, torn));
        let short = count(log, &[Some(true), Some(true), Some(true), None, None]);
        assert!(failed(AckLevel::Durable, short) && !failed(AckLevel::Local, short));
        assert!(failed(AckLevel::Local, Blocks::default()));
    }

    #[test]
    fn blocks_differ_and_are_whole() {
        assert_eq!(stamp(7).len(), BLOCK);
        assert_ne!(stamp(7), stamp(8));
    }
}
