//! The catalogue of reels on the disk. It is made of what is on the reels: `scan` makes it anew.

use super::{TapeError, TapeOptions};
use crate::base::limits::TAPE_CATALOGUE_MAX;
use crate::base::read_at_most;
use crate::io::Own;
use crate::tape::Catalogue;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const NAME: &str = "catalogue.json";

/// Where it is, and what it holds.
#[derive(Debug)]
pub struct CatalogueFile {
    dir: PathBuf,
    name: String,
    /// What it holds.
    pub held: Catalogue,
    /// Whether it was there.
    pub found: bool,
}

impl CatalogueFile {
    /// Reads it; an empty one if there is none.
    ///
    /// # Errors
    /// [`TapeError::Io`]; [`TapeError::Unfit`] if it cannot be understood.
    pub fn load(options: &TapeOptions) -> Result<Self, TapeError> {
        let (dir, name) = options.note(NAME);
        let path = dir.join(&name);
        let failed = |source| TapeError::Io { doing: "reading", what: path.display().to_string(), source };
        let bytes = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
            Ok(file) => Some(read_at_most(file, TAPE_CATALOGUE_MAX).map_err(failed)?),
        };
        let unfit = |error: serde_json::Error| TapeError::Unfit {
            what: format!("reading {}", path.display()),
            why: error.to_string(),
            next: "remove it, and make it anew: hot-backup tape list --scan tape:..",
        };
        let held = match &bytes {
            Some(bytes) => serde_json::from_slice(bytes).map_err(unfit)?,
            None => Catalogue::default(),
        };
        Ok(Self { dir, name, held, found: bytes.is_some() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Writes it.
    ///
    /// # Durability
    /// It and its name are synced.
    ///
    /// # Errors
    /// [`TapeError::Io`].
    pub fn store(&self) -> Result<(), TapeError> {
        let failed =
            |source| TapeError::Io { doing: "writing", what: self.path().display().to_string(), source };
        let bytes = serde_json::to_vec(&self.held).map_err(|error| failed(error.into()))?;
        own(&self.dir, &self.name).replace(&bytes).map_err(failed)
    }
}

/// A file of ours beside the reels.
pub(super) fn own(dir: &Path, name: &str) -> Own {
    Own::new(dir, name)
}

/// Takes any bytes as a catalogue, and looks things up in it.
pub fn fuzz_catalogue(bytes: &[u8]) {
    let Ok(catalogue) = serde_json::from_slice::<Catalogue>(bytes) else { return };
    for set in &catalogue.sets {
        for save in &set.saves {
            let _ = set.held(save.first..save.next);
            let _ = set.locate(save.first).map(|(reel, _)| reel.blocks());
            if let Some(content) = &save.content {
                content.files.iter().for_each(|file| drop(content.needed(file.id)));
            }
            save.parts.iter().for_each(|part| drop(save.blocks(&(part.offset..part.end_offset()))));
        }
    }
    let _ = catalogue.save(None);
}

#[cfg(test)]
mod tests {
    use crate::format::spool::PartHeader;
    use crate::tape::PartHeld;

    #[test]
    fn a_part_in_a_catalogue_comes_back_as_it_was_and_nonsense_is_refused() {
        let held = PartHeld { header: PartHeader::sample(4, 2), offset: 77, let_go: true };
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(serde_json::from_str::<PartHeld>(&text).unwrap(), held);
        for (good, bad) in [("8192", "8193"), ("[2,40,", "[2,90,"), (",1,4,", ",3,4,")] {
            assert!(text.contains(good), "{text}");
            assert!(serde_json::from_str::<PartHeld>(&text.replacen(good, bad, 1)).is_err(), "{bad}");
        }
    }
}
