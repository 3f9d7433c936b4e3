//! A real drive, through the driver `st` of Linux.
//!
//! What the driver does was measured; the rules that follow from it stand at each call. Above all: a plain `close` after any
//! failed write may write a filemark wherever the drive is then, so [`Drive::disarm`] comes first; and a failed
//! write may be told by whatever is called next, so every error of a call is one of the writes before it.

use crate::base::plainly;
use crate::format::tape_health::{self, DriveEncryption};
use crate::io::{TapeOp, TapeStatus, scsi_ask, tape_do, tape_position, tape_status};
use crate::tape::{Drive, Fault, Got, Medium, Wrote};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The major number of SCSI tapes.
const MAJOR: u64 = 9;
/// The bit of the minor number that says "does not rewind when it is closed".
const NO_REWIND: u64 = 0x80;

/// What an answer of a drive of itself may take (bytes).
const HEALTH_ROOM: u16 = 1024;
/// A drive may take so long to answer (milliseconds).
const ASK_MS: u32 = 10_000;

/// A drive.
#[derive(Debug)]
pub(super) struct Tape {
    path: PathBuf,
    /// None while it is closed: the driver looks for a reel only when it is opened.
    file: Option<File>,
    writes: bool,
}

fn fault(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => Fault::NoSpace,
        Some(libc::EROFS | libc::EACCES) => Fault::Protected,
        Some(libc::ENOMEDIUM) => Fault::NoMedium,
        Some(libc::EBUSY) => Fault::Busy,
        // Of a read with a buffer that is shorter than the block.
        Some(libc::ENOMEM | libc::EOVERFLOW) => Fault::TooLong,
        _ => Fault::Failed(plainly(error)),
    }
}

impl Tape {
    /// Of this device, to be written to or only read.
    ///
    /// # Errors
    /// `InvalidInput` if it is no tape drive, or one that rewinds by itself; those of stat(2).
    pub(super) fn new(path: &Path, writes: bool) -> io::Result<Self> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let found = std::fs::metadata(path)?;
        if !found.file_type().is_char_device() {
            return wrong("it is no device");
        }
        let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
        if major == MAJOR && minor & NO_REWIND == 0 {
            return wrong(
                "it rewinds when it is closed, so the next save would overwrite this one; name /dev/nst..",
            );
        }
        if major != MAJOR {
            return wrong("it is no SCSI tape drive");
        }
        Ok(Self { path: path.to_owned(), file: None, writes })
    }

    /// Opens it; a drive without a reel is opened too. Nobody else can meanwhile.
    fn open(&mut self) -> Result<&File, Fault> {
        if self.file.is_none() {
            // Never O_CREAT: where the device is missing, that makes a file which fills /dev.
            let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
            let open =
                |write| OpenOptions::new().read(true).write(write).custom_flags(flags).open(&self.path);
            let opened = match open(self.writes) {
                Err(error) if error.raw_os_error() == Some(libc::EROFS) => open(false),
                other => other,
            };
            self.file = Some(opened.map_err(|error| fault(&error))?);
        }
        self.file.as_ref().ok_or(Fault::NoMedium)
    }

    fn act(&mut self, op: TapeOp, count: i32) -> Result<(), Fault> {
        let file = self.file.as_ref().ok_or(Fault::NoMedium)?;
        tape_do(file.as_fd(), op, count).map_err(|error| fault(&error))
    }

    /// What the driver knows, as of when it was opened.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn status(&mut self) -> Result<TapeStatus, Fault> {
        let file = self.open()?;
        tape_status(file.as_fd()).map_err(|error| fault(&error))
    }

    /// What the drive answers when it is asked past the driver; none if it does not, or may not be asked.
    fn ask(&self, command: &[u8]) -> Option<Vec<u8>> {
        let mut answer = vec![0; usize::from(HEALTH_ROOM)];
        let came = scsi_ask(self.file.as_ref()?.as_fd(), command, &mut answer, ASK_MS).ok()?;
        answer.truncate(came);
        Some(answer)
    }

    /// Whether the drive packs what is written; none if it does not say.
    pub(super) fn compression(&self) -> Option<bool> {
        [0x0f, 0x10]
            .into_iter()
            .find_map(|page| tape_health::compression(&self.ask(&tape_health::ask_mode(page, HEALTH_ROOM))?))
    }

    /// What the drive encrypts by itself; none if it does not say.
    pub(super) fn encryption(&self) -> Option<DriveEncryption> {
        tape_health::encryption(&self.ask(&tape_health::ask_encryption(HEALTH_ROOM))?)
    }

    /// Goes over so many filemarks, back if there are fewer than none.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn files(&mut self, count: i32) -> Result<(), Fault> {
        match count {
            back if back < 0 => self.act(TapeOp::BackFile, -back),
            on => self.act(TapeOp::ForwardFile, on),
        }
    }
}

impl Drive for Tape {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn medium(&mut self) -> Result<Medium, Fault> {
        // Whether a reel is there is sampled when it is opened, and told from memory afterwards.
        self.disarm();
        self.file = None;
        let status = self.status()?;
        if !status.has(TapeStatus::ONLINE) {
            self.file = None;
            return Ok(Medium::Absent);
        }
        self.act(TapeOp::SetBlock, 0)?;
        if self.status()?.block_size() != 0 {
            return Err(Fault::Failed("the drive does not leave fixed block sizes".to_owned()));
        }
        Ok(Medium::Ready { protected: status.has(TapeStatus::PROTECTED) })
    }

    fn rewind(&mut self) -> Result<(), Fault> {
        self.act(TapeOp::Rewind, 1)
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.act(TapeOp::End, 1)
    }

    fn seek(&mut self, to: u64) -> Result<(), Fault> {
        let to = i32::try_from(to).map_err(|_| Fault::Failed(format!("position {to} is too large")))?;
        self.act(TapeOp::Seek, to)
    }

    fn position(&mut self) -> Result<u64, Fault> {
        let file = self.file.as_ref().ok_or(Fault::NoMedium)?;
        tape_position(file.as_fd()).map_err(|error| fault(&error))
    }

    fn write(&mut self, block: &[u8]) -> Result<Wrote, Fault> {
        let mut file = self.file.as_ref().ok_or(Fault::NoMedium)?;
        // One contiguous buffer is one block; a short count is an error.
        let count = file.write(block).map_err(|error| fault(&error))?;
        if count != block.len() {
            return Err(Fault::Failed(format!("the drive took {count} of {} bytes", block.len())));
        }
        let status = tape_status(file.as_fd()).map_err(|error| fault(&error))?;
        Ok(if status.has(TapeStatus::NEAR_END) { Wrote::Warned } else { Wrote::Block })
    }

    fn marks(&mut self, count: u32) -> Result<(), Fault> {
        self.act(TapeOp::WriteMarks, i32::try_from(count).unwrap_or(i32::MAX))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Got, Fault> {
        let mut file = self.file.as_ref().ok_or(Fault::NoMedium)?;
        match file.read(buffer).map_err(|error| fault(&error))? {
            0 => Ok(Got::Mark),
            len => Ok(Got::Block(len)),
        }
    }

    fn lock(&mut self, locked: bool) -> Result<(), Fault> {
        self.act(if locked { TapeOp::Lock } else { TapeOp::Unlock }, 1)
    }

    fn disarm(&mut self) {
        // What it answers is of the write that failed, which is known.
        let _ = self.act(TapeOp::Unlock, 1);
    }

    fn eject(&mut self) -> Result<(), Fault> {
        self.act(TapeOp::Offline, 1)?;
        self.file = None;
        Ok(())
    }

    fn alerts(&mut self) -> Vec<u8> {
        self.ask(&tape_health::ask_alerts(HEALTH_ROOM))
            .map_or_else(Vec::new, |page| tape_health::alerts(&page))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        // Everything that counts was flushed with a mark; what did not count gets none.
        self.disarm();
    }
}
