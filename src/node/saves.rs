//! Which saves of a node there are: a line in its directory for each one that ended, written by the command that made it.
//! A save is kept as long as its file, or its directory, is there.
//!
//! It is a note for the spool, which keeps what came after the oldest: that it cannot be written, or is gone, costs room or
//! history, and no data.

use super::layout::{Layout, OwnName};
use crate::base::Seq;
use crate::base::limits::{KEPT_SAVES_MAX, SAVES_FILE_MAX};
use crate::format::PairId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSave {
    /// Its number (hexadecimal).
    pub set: String,
    /// The pair (hexadecimal).
    pub pair: String,
    /// Its last entry.
    pub seq: u64,
    /// When it ended (ms since 1970).
    pub wall_ms: u64,
    /// Where it is: a file, or a directory of files.
    pub path: PathBuf,
}

/// The saves in a text, the newest last; a line that is none is passed over.
fn decode(text: &str) -> Vec<KeptSave> {
    let lines = text.lines().rev().take(KEPT_SAVES_MAX);
    let mut saves: Vec<KeptSave> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    saves.reverse();
    saves
}

/// Whether a save is gone. What cannot be looked at is there.
fn is_gone(save: &KeptSave) -> bool {
    matches!(std::fs::symlink_metadata(&save.path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn read(layout: &Layout) -> Vec<KeptSave> {
    let text = layout.read_text(&layout.saves(), false, SAVES_FILE_MAX).unwrap_or_default();
    decode(&text)
}

/// Notes a save of the node in `dir`, and forgets those that are gone.
///
/// # Durability
/// It is synced.
///
/// # Errors
/// Those of the file system.
pub fn note(dir: &Path, save: KeptSave) -> io::Result<()> {
    let layout = Layout::new(dir);
    let mut saves = read(&layout);
    saves.retain(|known| known.path != save.path && !is_gone(known));
    saves.push(save);
    let lines = saves.iter().rev().take(KEPT_SAVES_MAX).rev();
    let mut text = Vec::new();
    for line in lines {
        text.extend(serde_json::to_vec(line)?);
        text.push(b'\n');
    }
    layout.own(OwnName::Saves).replace(&text)
}

/// The last entry of the oldest save of the pair that is there; none if there is none. May wait for the disks on which they are.
pub(super) fn oldest(layout: &Layout, pair: PairId) -> Option<Seq> {
    let pair = pair.to_string();
    let saves = read(layout);
    saves.iter().filter(|save| save.pair == pair && !is_gone(save)).map(|save| Seq(save.seq)).min()
}

/// Takes any bytes as the list of saves.
pub fn fuzz_saves(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(decode(text).len() <= KEPT_SAVES_MAX, "no more than are kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(path: &Path, seq: u64) -> KeptSave {
        let (set, pair) = ("5f".repeat(16), PairId([7; 16]).to_string());
        KeptSave { set, pair, seq, wall_ms: 5, path: path.to_owned() }
    }

    #[test]
    fn the_oldest_save_is_the_oldest_one_whose_file_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let pair = PairId([7; 16]);
        assert_eq!(oldest(&layout, pair), None);
        let paths = [1_u64, 2, 3].map(|n| (dir.path().join(format!("save {n}\n")), n * 10));
        for (path, seq) in &paths {
            std::fs::write(path, "x").unwrap();
            note(dir.path(), save(path, *seq)).unwrap();
        }
        assert_eq!(oldest(&layout, pair), Some(Seq(10)));
        assert_eq!(oldest(&layout, PairId([8; 16])), None, "of another pair");
        std::fs::remove_file(&paths[0].0).unwrap();
        assert_eq!(oldest(&layout, pair), Some(Seq(20)));
        // The same file once more is one save; one that is gone is forgotten.
        note(dir.path(), save(&paths[1].0, 40)).unwrap();
        assert_eq!((oldest(&layout, pair), read(&layout).len()), (Some(Seq(30)), 2));
        std::fs::write(layout.saves(), "nonsense\n").unwrap();
        assert_eq!(oldest(&layout, pair), None);
    }

    #[test]
    fn any_text_is_a_list_of_saves_and_no_more_are_kept_than_there_is_room_for() {
        let line = serde_json::to_string(&save(Path::new("/x"), 3)).unwrap();
        for at in 0..line.len() {
            fuzz_saves(&line.as_bytes()[..at]);
        }
        let many = format!("{line}\n").repeat(KEPT_SAVES_MAX + 7);
        assert_eq!(decode(&many).len(), KEPT_SAVES_MAX);
        let kept = include_str!("../../tests/data/saves-v1.jsonl");
        assert_eq!(decode(kept).iter().map(|save| save.seq).collect::<Vec<_>>(), [4711, 9000]);
    }
}
