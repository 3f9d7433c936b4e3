//! Where parts are, for commands: a directory, here or on another machine, reels, or reels and a directory, which is one
//! history.

use super::dir::{BadPart, SpoolDir};
use super::far::FarSpool;
use super::reels::{ReelSpool, Unread};
use crate::format::batch::Batch;
use crate::format::spool::PartHeader;
use bytes::Bytes;
use std::io;

/// Parts in a directory, on reels, or both.
#[derive(Debug, Default)]
pub struct PartStore {
    /// The directory.
    pub dir: Option<SpoolDir>,
    /// The directory of another machine.
    pub far: Option<FarSpool>,
    /// The reels.
    pub reels: Option<ReelSpool>,
}

/// A part, and the reel on which it begins; 0 in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlace {
    /// The part.
    pub header: PartHeader,
    /// The reel.
    pub reel: u32,
    /// On a reel, and needed by nobody any more.
    pub let_go: bool,
}

/// Parts, and names of files that are none with what is wrong with them.
pub type Listed = (Vec<PartPlace>, Vec<(String, String)>);

impl PartStore {
    /// All parts in the order of their names, each once, and the files that are none although they have such names.
    ///
    /// # Errors
    /// The directory, or the catalogue of reels, cannot be read.
    pub fn list(&self) -> io::Result<Listed> {
        let found = match (&self.dir, &self.far) {
            (Some(dir), _) => dir.list()?,
            (None, Some(far)) => far.list()?,
            (None, None) => crate::engine::SpoolFound::default(),
        };
        let mut parts: Vec<PartPlace> = Vec::new();
        if let Some(reels) = &self.reels {
            let held = reels.list(true).map_err(|error| io::Error::other(error.to_string()))?;
            parts.extend(held.iter().map(|(part, reel)| PartPlace {
                header: part.header,
                reel: *reel,
                let_go: part.let_go,
            }));
        }
        let here = found.parts.into_iter().map(|header| PartPlace { header, reel: 0, let_go: false });
        let twice = |part: &PartPlace| {
            parts.iter().any(|other| !other.let_go && other.header.file_name() == part.header.file_name())
        };
        let here: Vec<PartPlace> = here.filter(|part| !twice(part)).collect();
        parts.extend(here);
        parts.sort_by_key(|part| part.header.file_name());
        Ok((parts, found.damaged))
    }

    /// Bytes of a part's segment.
    pub(super) fn read(&mut self, part: &PartHeader, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Some(dir) = self.dir.as_ref().filter(|dir| dir.holds(part)) {
            return dir.read(part, offset, len);
        }
        if let Some(far) = self.far.as_ref().filter(|far| far.holds(part)) {
            return far.read(part, offset, len);
        }
        let Some(reels) = &mut self.reels else { return Err(io::ErrorKind::NotFound.into()) };
        reels.read(part, offset, len).map_err(|unread| match unread {
            Unread::Bad(bad) => io::Error::other(bad.why),
            Unread::Waits(error) => io::Error::other(error.to_string()),
            Unread::Failed(error) => error,
        })
    }

    /// Reads a whole part, and calls `each` with every batch of it.
    ///
    /// # Errors
    /// What is wrong with it, or what `each` says.
    pub fn walk(
        &mut self,
        part: &PartHeader,
        mut each: impl FnMut(Batch) -> Result<(), BadPart>,
    ) -> Result<(), BadPart> {
        if let Some(dir) = self.dir.as_ref().filter(|dir| dir.holds(part)) {
            return dir.walk(&part.file_name(), |_, batch| each(batch)).map(drop);
        }
        if let Some(far) = self.far.as_ref().filter(|far| far.holds(part)) {
            return far.walk(part, each);
        }
        let plain = |why: String| BadPart { why, good_to: None };
        match &mut self.reels {
            None => Err(plain("it is not there".to_owned())),
            Some(reels) => reels.walk(part, each).map_err(|unread| match unread {
                Unread::Bad(bad) => bad,
                Unread::Waits(error) => plain(error.to_string()),
                Unread::Failed(error) => plain(error.to_string()),
            }),
        }
    }
}

impl From<SpoolDir> for PartStore {
    fn from(dir: SpoolDir) -> Self {
        Self { dir: Some(dir), far: None, reels: None }
    }
}
