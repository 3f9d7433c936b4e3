//! Key files.

use super::TapeError;
use crate::base::limits::KEY_FILE_MAX;
use crate::io::{Demand, read_trusted_text};
use crate::tape::Key;
use std::path::Path;

/// Reads a key file, which nobody else may read.
///
/// # Errors
/// [`TapeError::Unfit`].
pub fn read_key(path: &Path) -> Result<Key, TapeError> {
    let unfit = |why: String| TapeError::Unfit {
        what: format!("reading the key file {}", path.display()),
        why,
        next: "make one that only you can read: umask 077; openssl rand -hex 32 > KEYFILE",
    };
    let demand = Demand { most: KEY_FILE_MAX, secret: true, linked: true };
    let text = read_trusted_text(path, demand).map_err(|error| unfit(error.to_string()))?;
    Key::parse(&text).map_err(unfit)
}
