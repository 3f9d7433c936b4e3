//! The files in `diverged/`: what this node had and the pair never kept, and beside each what the primary has in its place.

use super::layout::{Layout, OwnName};
use std::fs::File;
use std::io;
use std::time::UNIX_EPOCH;

/// How the name of a set ends, and that of what stands beside it.
const SET: &str = ".jsonl";
const BASE: &str = ".base";

/// A set of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivergedSet {
    /// The file's name.
    pub name: String,
    /// Its size (bytes).
    pub bytes: u64,
    /// When it was last written (milliseconds since 1970).
    pub wall_ms: u64,
}

/// All sets, in the order of their names.
///
/// # Errors
/// The directory cannot be listed. That it is not there is no error.
pub fn list(layout: &Layout) -> io::Result<Vec<DivergedSet>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(layout.diverged()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(SET) {
            continue;
        }
        let data = entry.metadata()?;
        let since = data.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        found.push(DivergedSet { name, bytes: data.len(), wall_ms });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Opens a set, and what the primary has in its place if that is known.
///
/// # Errors
/// The set cannot be opened.
pub fn open(layout: &Layout, name: &str) -> io::Result<(File, Option<File>)> {
    let dir = layout.diverged();
    let set = File::open(dir.join(name))?;
    Ok((set, File::open(dir.join(name.replace(SET, BASE))).ok()))
}

/// Removes a set, and what stands beside it.
///
/// # Errors
/// It is there and cannot be removed.
pub fn forget(layout: &Layout, name: &str) -> io::Result<()> {
    for name in [name.replace(SET, BASE), name.to_owned()] {
        layout.own(OwnName::Diverged(name)).remove()?;
    }
    Ok(())
}
