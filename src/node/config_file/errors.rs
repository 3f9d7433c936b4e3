//! What is wrong with a config file, all at once.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, from 1; none if it concerns the whole file or something that is not there.
    pub line: Option<usize>,
    /// What is wrong, with what is allowed.
    pub what: String,
}

/// Everything that is wrong with a config file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// A single error about the whole file.
    #[must_use]
    pub fn whole(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), errors: vec![ConfigError { line: None, what: what.into() }] }
    }

    /// What to do next, for people: it depends on whether there is a file that can be read.
    #[must_use]
    pub fn next(&self) -> String {
        match std::fs::File::open(&self.file).map_err(|error| error.kind()) {
            Ok(_) => format!("correct that in {}", self.file.display()),
            Err(ErrorKind::PermissionDenied) => {
                "run this as the user that owns the node's directory".to_owned()
            }
            Err(_) => "give the node's directory with --dir or HOT_BACKUP_DIR; `hot-backup init` makes one"
                .to_owned(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:", self.file.display())?;
            match error.line {
                Some(line) => write!(f, "{line}: {}", error.what)?,
                None => write!(f, " {}", error.what)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
