//! An image of a reel in a file, in the format of SIMH (`.tap`), which many programs read and write.
//!
//! | bytes | what |
//! |---|---|
//! | u32 length, data, a zero byte if the length is odd, u32 length | a block |
//! | u32 0 | a filemark |
//! | u32 `0xffff_ffff` | the end of the medium |
//! | u32 `0xffff_fffe` | a gap, which is nothing |
//!
//! The upper four bits of a length are a class: 0 a good block, 8 one that could not be read when the image was made.

use crate::base::plainly;
use crate::io::{FileLock, Own, try_lock_file};
use crate::tape::{Drive, Fault, Got, Medium, Wrote};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MARK: u32 = 0;
const END: u32 = 0xffff_ffff;
const GAP: u32 = 0xffff_fffe;
const LENGTH: u32 = 0x00ff_ffff;
/// Bytes of a length.
const FIELD: u64 = 4;

/// An image that is open, as a drive with that reel in it.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    /// Where it is until its label is durable.
    unnamed: Option<Own>,
    file: File,
    _lock: FileLock,
    protected: bool,
    /// Bytes of the file.
    len: u64,
    /// Where the records begin that are known, from the first one on.
    starts: Vec<u64>,
    /// Where the record behind those begins, or what is written ends.
    next: u64,
    /// Whether nothing is behind `next`.
    whole: bool,
    position: usize,
}

/// A record, and where the next one begins.
enum Record {
    Block { len: u32, bad: bool, next: u64 },
    Mark { next: u64 },
    Gap { next: u64 },
    End,
}

impl Image {
    /// Opens an image that is there.
    ///
    /// # Errors
    /// Those of open(2); `WouldBlock` if another program has it open so.
    pub fn open(path: &Path) -> io::Result<Self> {
        let options = |write| {
            let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
            OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
        };
        let (file, protected) = match options(true) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EROFS)) => {
                (options(false)?, true)
            }
            file => (file?, false),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a tape nor a regular file",
            ));
        }
        // Who may write to everything still means it when nobody is allowed to.
        let protected = protected || found.permissions().mode() & 0o222 == 0;
        Self::of(path, file, protected)
    }

    /// Makes an image, which must not be there. It has its name when marks are written behind its label, and is gone again if
    /// that does not come to be: so none is there without a label.
    ///
    /// # Errors
    /// `AlreadyExists`; `WouldBlock` if another program makes it; else those of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let unnamed = super::catalogue::own(parent_of(path), &super::verbs::file_name(path)).temporary();
        let mut this = Self::of(path, unnamed.open()?, false)?;
        // Whoever had it open before may have named it meanwhile.
        let (here, there) = (this.file.metadata()?, unnamed.path().symlink_metadata()?);
        if (here.dev(), here.ino()) != (there.dev(), there.ino()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What a process left there that was killed.
        this.file.set_len(0)?;
        (this.len, this.unnamed) = (0, Some(unnamed));
        Ok(this)
    }

    fn of(path: &Path, file: File, protected: bool) -> io::Result<Self> {
        let lock = try_lock_file(file.try_clone()?)?;
        let len = file.metadata()?.len();
        let (path, starts) = (path.to_owned(), Vec::new());
        let (unnamed, next, whole, position) = (None, 0, false, 0);
        Ok(Self { path, unnamed, file, _lock: lock, protected, len, starts, next, whole, position })
    }

    fn failed(error: &io::Error) -> Fault {
        Fault::Failed(plainly(error))
    }

    fn number(&self, at: u64) -> Result<Option<u32>, Fault> {
        let mut bytes = [0; 4];
        if at + FIELD > self.len {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, at).map_err(|error| Self::failed(&error))?;
        Ok(Some(u32::from_le_bytes(bytes)))
    }

    /// The record at this offset. One that was cut off is the end.
    fn record(&self, at: u64) -> Result<Record, Fault> {
        let field = match self.number(at)? {
            None | Some(END) => return Ok(Record::End),
            Some(MARK) => return Ok(Record::Mark { next: at + FIELD }),
            Some(GAP) => return Ok(Record::Gap { next: at + FIELD }),
            Some(field) => field,
        };
        let (len, class) = (field & LENGTH, field >> 28);
        let behind = at + FIELD + u64::from(len.next_multiple_of(2));
        if len == 0 || !matches!(class, 0 | 8) || self.number(behind)? != Some(field) {
            return Ok(Record::End);
        }
        Ok(Record::Block { len, bad: class == 8, next: behind + FIELD })
    }

    /// Learns of records until `count` are known, or all.
    fn learn(&mut self, count: usize) -> Result<(), Fault> {
        while self.starts.len() < count && !self.whole {
            match self.record(self.next)? {
                Record::End => self.whole = true,
                Record::Gap { next } => self.next = next,
                Record::Mark { next } | Record::Block { next, .. } => {
                    self.starts.push(self.next);
                    self.next = next;
                }
            }
        }
        Ok(())
    }

    /// Where the next record is to be written; what stands there and behind it is cut off.
    fn place(&mut self) -> Result<u64, Fault> {
        if self.protected {
            return Err(Fault::Protected);
        }
        self.learn(self.position + 1)?;
        let at = self.starts.get(self.position).copied().unwrap_or(self.next);
        if at < self.len {
            self.file.set_len(at).map_err(|error| Self::failed(&error))?;
            self.len = at;
        }
        self.starts.truncate(self.position);
        (self.next, self.whole) = (at, true);
        Ok(at)
    }

    fn wrote(&mut self, result: io::Result<()>, at: u64, end: u64) -> Result<(), Fault> {
        if let Err(error) = result {
            // Half a record is no record.
            let _ = self.file.set_len(at);
            return Err(Self::failed(&error));
        }
        self.starts.push(at);
        self.position += 1;
        (self.next, self.len) = (end, end);
        Ok(())
    }
}

/// The directory of a file.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

impl Drive for Image {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn medium(&mut self) -> Result<Medium, Fault> {
        Ok(Medium::Ready { protected: self.protected })
    }

    fn rewind(&mut self) -> Result<(), Fault> {
        self.position = 0;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.learn(usize::MAX)?;
        self.position = self.starts.len();
        Ok(())
    }

    fn seek(&mut self, to: u64) -> Result<(), Fault> {
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        self.learn(to)?;
        self.position = to.min(self.starts.len());
        if to > self.starts.len() { Err(Fault::Failed("it ends before that".to_owned())) } else { Ok(()) }
    }

    fn position(&mut self) -> Result<u64, Fault> {
        Ok(self.position as u64)
    }

    fn write(&mut self, block: &[u8]) -> Result<Wrote, Fault> {
        let at = self.place()?;
        let len = u32::try_from(block.len()).ok().filter(|len| *len <= LENGTH).ok_or(Fault::TooLong)?;
        let field = len.to_le_bytes();
        let behind = at + FIELD + u64::from(len.next_multiple_of(2));
        let written = self
            .file
            .write_all_at(&field, at)
            .and_then(|()| self.file.write_all_at(block, at + FIELD))
            .and_then(|()| match len % 2 {
                0 => Ok(()),
                _ => self.file.write_all_at(&[0], behind - 1),
            })
            .and_then(|()| self.file.write_all_at(&field, behind));
        self.wrote(written, at, behind + FIELD)?;
        Ok(Wrote::Block)
    }

    fn marks(&mut self, count: u32) -> Result<(), Fault> {
        for _ in 0..count {
            let at = self.place()?;
            let written = self.file.write_all_at(&MARK.to_le_bytes(), at);
            self.wrote(written, at, at + FIELD)?;
        }
        self.file.sync_data().map_err(|error| Self::failed(&error))?;
        if let Some(unnamed) = self.unnamed.take_if(|_| !self.starts.is_empty()) {
            unnamed.become_new(&self.path).map_err(|error| {
                let _ = unnamed.remove();
                Self::failed(&error)
            })?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Got, Fault> {
        self.learn(self.position + 1)?;
        let at = self.starts.get(self.position).copied();
        let at = at.ok_or_else(|| Fault::Failed("nothing more is written there".to_owned()))?;
        let record = self.record(at)?;
        self.position += 1;
        match record {
            Record::Block { len, bad: false, .. } => {
                let place = buffer.get_mut(..len as usize).ok_or(Fault::TooLong)?;
                self.file.read_exact_at(place, at + FIELD).map_err(|error| Self::failed(&error))?;
                Ok(Got::Block(len as usize))
            }
            Record::Block { bad: true, .. } => {
                Err(Fault::Failed("the image says that this block could not be read".to_owned()))
            }
            Record::Mark { .. } => Ok(Got::Mark),
            Record::Gap { .. } | Record::End => Err(Fault::Failed("the image was changed".to_owned())),
        }
    }

    fn lock(&mut self, _locked: bool) -> Result<(), Fault> {
        Ok(())
    }

    fn disarm(&mut self) {}

    fn eject(&mut self) -> Result<(), Fault> {
        self.position = 0;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(unnamed) = &self.unnamed {
            // It is begun anew by who makes it the next time.
            let _ = unnamed.remove();
        }
    }
}

/// Reads any bytes as an image of a reel, to its end.
pub fn fuzz_tap(bytes: &[u8]) {
    let Ok(file) = file_of(bytes) else { return };
    let Ok(mut image) = Image::of(Path::new("fuzz.tap"), file, true) else { return };
    let mut buffer = vec![0; 4096];
    // Each record takes four bytes.
    for _ in 0..=bytes.len() / 4 {
        if matches!(image.read(&mut buffer), Err(Fault::Failed(_))) && image.whole {
            break;
        }
    }
    let end = image.end().and_then(|()| image.position());
    assert!(end.is_ok_and(|end| end <= bytes.len() as u64 / 4), "no record takes less than four bytes");
}

/// A file in memory.
fn file_of(bytes: &[u8]) -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = File::from(memfd_create(c"image", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
