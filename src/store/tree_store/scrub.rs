//! What a scrub has to read of the items: tables as whole files, each with the checksum that the manifest names for it.

use super::super::StoreError;
use super::read::StoreReader;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// A table of items on disk.
#[derive(Clone, Debug)]
pub struct TableFile {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) sum: u128,
}

/// Sums a table that comes in pieces.
#[derive(Default)]
pub struct TableSum(Xxh3);

impl TableSum {
    /// The next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl TableFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what was summed is this table.
    #[must_use]
    pub fn is(&self, sum: &TableSum) -> bool {
        sum.0.digest128() == self.sum
    }
}

impl StoreReader {
    /// All tables as they are now. They may be merged and removed at any time.
    #[must_use]
    pub fn table_files(&self) -> Vec<TableFile> {
        self.shared.tables.files()
    }

    /// Whether a table is still one.
    #[must_use]
    pub fn has_table(&self, table: &TableFile) -> bool {
        self.table_files().iter().any(|other| other.number == table.number)
    }

    /// Has the writer look closer at a table whose checksum is wrong.
    pub fn suspect(&self, table: &TableFile) {
        self.shared.tables.blocks.suspects.note(table.number, true);
    }

    /// Checks the list of the tables as it is on disk. While it is being replaced this may fail.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::Disk`].
    pub fn check_list(&self) -> Result<(), StoreError> {
        self.shared.tables.check_list()
    }
}
