//! `restore --only` of a volume: the blocks that differ are written through the node's own door for volumes, as any client
//! would write them.

use super::failure::Failure;
use super::glue::{self, Unpacked};
use crate::base::FileId;
use crate::base::limits::BLOCK;
use crate::engine::admin::FileView;
use std::path::Path;

/// What is held against each other at once (bytes).
const STEP: u64 = 1 << 20;

/// What came of a volume, in blocks of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Written, or would have been.
    pub(super) changed: u64,
    /// As they were.
    pub(super) same: u64,
}

/// Refuses a volume that has too little room, or that somebody has in use: a file system does not bear that its blocks change
/// beneath it.
pub(super) fn check(there: &FileView, bytes: u64) -> Result<(), Failure> {
    let name = &there.name;
    if there.clients > 0 {
        let text = format!("restoring to {name}: it is in use, by {} client(s)", there.clients);
        return Err(Failure::no(text, "detach it there first, or give another account with --as"));
    }
    if there.bytes < bytes {
        let text = format!("restoring to {name}: it has {} bytes, and the save's has {bytes}", there.bytes);
        return Err(Failure::no(text, format!("hot-backup file grow {name} --size {bytes}, or --as")));
    }
    Ok(())
}

/// Puts what differs of a volume of so many bytes. One that is not there is all zeros to a dry run.
pub(super) fn put(
    dir: &Path,
    unpacked: &mut Unpacked,
    (file, to, bytes): (FileId, &str, u64),
    (missing, dry_run): (bool, bool),
) -> Result<Blocks, Failure> {
    let doing = format!("restoring to {to}");
    let failed = |error: &std::io::Error| Failure::io(doing.clone(), error);
    let unread = |error: &dyn std::fmt::Display| {
        Failure::error(format!("{doing}: reading the set as laid out: {error}"), "")
    };
    let mut client = match missing && dry_run {
        true => None,
        false => Some(glue::blocks_of(dir, &to.replacen(',', "/", 1))?),
    };
    let mut done = Blocks::default();
    let mut at = 0;
    while at < bytes {
        let len = STEP.min(bytes - at);
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let held = unpacked.blocks(file, at, size).map_err(|error| unread(&error))?;
        let mut there = vec![0; size];
        if let Some(client) = &mut client {
            client.read(at, &mut there).map_err(|error| failed(&error))?;
        }
        for (first, behind) in differing(&held, &there, &mut done) {
            let run = held.get(first..behind).unwrap_or_default();
            if let Some(client) = client.as_mut().filter(|_| !dry_run) {
                client.write(at + first as u64, run).map_err(|error| failed(&error))?;
            }
        }
        at += len;
    }
    if let Some(client) = client.as_mut().filter(|_| done.changed > 0 && !dry_run) {
        client.flush().map_err(|error| failed(&error))?;
    }
    Ok(done)
}

/// Where runs of blocks begin and end that differ (bytes from the beginning); counts the blocks.
fn differing(held: &[u8], there: &[u8], done: &mut Blocks) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, (one, other)) in held.chunks(BLOCK).zip(there.chunks(BLOCK)).enumerate() {
        if one == other {
            done.same += 1;
            continue;
        }
        done.changed += 1;
        let (first, behind) = (number * BLOCK, number * BLOCK + one.len());
        match runs.last_mut() {
            Some((_, end)) if *end == first => *end = behind,
            _ => runs.push((first, behind)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_differ_are_put_together_where_they_are_neighbours() {
        let held = vec![1; 6 * BLOCK];
        let mut there = held.clone();
        for block in [1, 2, 5] {
            there[block * BLOCK + 7] = 0;
        }
        let mut done = Blocks::default();
        let runs = differing(&held, &there, &mut done);
        assert_eq!(runs, [(BLOCK, 3 * BLOCK), (5 * BLOCK, 6 * BLOCK)]);
        assert_eq!(done, Blocks { changed: 3, same: 3 });
        assert!(differing(&held, &held, &mut done).is_empty());
    }
}
