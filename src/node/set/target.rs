//! Where a set is written to and read from: a file, a directory of files, a pipe, or reels.

use super::SetError;
use crate::base::FileId;
use crate::io::{begin_writing, read_in_order, sync_dir, sync_file, write_on};
use crate::node::tape::{About, TapeOrder, TapeSource, TapeWriter};
use crate::node::tape_socket::{Begun, SocketError, SocketOrder, SocketSource, SocketWriter};
use bytes::Bytes;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The disk begins with so much of a set (bytes), so that little is left for the sync at its end.
const WRITTEN_AT_ONCE: u64 = 8 << 20;

/// What the files of a set in a directory are called.
fn part_name(part: u32) -> String {
    format!("part-{part:05}.hbs")
}

/// Where a set is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One file, which must not be there yet.
    File(PathBuf),
    /// A directory, which must not be there yet, with files of about this size at most (bytes).
    Dir(PathBuf, u64),
    /// Standard output.
    Stdout,
    /// Reels.
    Tape(Box<TapeOrder>),
    /// Another machine that listens.
    Socket(Box<SocketOrder>),
}

impl Target {
    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) | Self::Dir(path, _) => path.display().to_string(),
            Self::Stdout => "standard output".to_owned(),
            Self::Tape(order) => order.options.place.name(),
            Self::Socket(order) => order.place(),
        }
    }

    /// The directory whose file system takes it; none for a pipe.
    #[must_use]
    pub fn place(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Dir(path, _) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                Some(parent.unwrap_or_else(|| Path::new(".")))
            }
            Self::Stdout | Self::Tape(_) | Self::Socket(_) => None,
        }
    }
}

/// What is being written.
pub(super) struct Output {
    target: Target,
    /// The file that is open; none for a pipe.
    file: Option<File>,
    tape: Option<TapeWriter>,
    socket: Option<Box<SocketWriter>>,
    path: PathBuf,
    /// Bytes written to the file, and those of them with which the disk was told to begin.
    written: u64,
    begun: u64,
    /// Files and directories that this made.
    made: Vec<PathBuf>,
    finished: bool,
}

impl Output {
    pub(super) fn open(target: Target, about: &About) -> Result<Self, SetError> {
        let (path, made) = (PathBuf::new(), Vec::new());
        let mut this = Self {
            target,
            file: None,
            tape: None,
            socket: None,
            path,
            written: 0,
            begun: 0,
            made,
            finished: false,
        };
        if let Target::Socket(order) = &this.target {
            match SocketWriter::begin(order, about)? {
                Begun::From(writer, 0) => this.socket = Some(writer),
                // Its number is a moment old.
                Begun::From(..) | Begun::Whole => {
                    let why = "it has this set already".to_owned();
                    let (doing, to) = ("sending to", order.to.to_string());
                    return Err(SocketError::Broken { doing, to, why }.into());
                }
            }
        }
        if let Target::Tape(order) = &this.target {
            this.tape = Some(TapeWriter::begin(order, about)?);
        }
        if let Target::Dir(dir, _) = &this.target {
            let dir = dir.clone();
            DirBuilder::new().mode(0o700).create(&dir).map_err(|error| of_new(&dir, error))?;
            this.made.push(dir);
        }
        Ok(this)
    }

    /// Begins the file of this part.
    pub(super) fn begin(&mut self, part: u32) -> Result<(), SetError> {
        let path = match &self.target {
            Target::File(path) => path.clone(),
            Target::Dir(dir, _) => dir.join(part_name(part)),
            Target::Stdout | Target::Tape(_) | Target::Socket(_) => return Ok(()),
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        self.file = Some(file.map_err(|error| of_new(&path, error))?);
        self.made.push(path.clone());
        (self.path, self.written, self.begun) = (path, 0, 0);
        Ok(())
    }

    /// Whether the file of so many bytes is large enough.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        matches!(self.target, Target::Dir(_, most) if bytes >= most)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SetError> {
        if let Some(tape) = &mut self.tape {
            return Ok(tape.write(bytes)?);
        }
        if let Some(socket) = &mut self.socket {
            return Ok(socket.write(bytes)?);
        }
        let written = match &mut self.file {
            Some(file) => write_on(file, bytes),
            None => io::stdout().lock().write_all(bytes),
        };
        written.map_err(|source| self.failed("writing", source))?;
        self.written += bytes.len() as u64;
        if let Some(file) = &self.file
            && self.written - self.begun >= WRITTEN_AT_ONCE
        {
            begin_writing(file.as_fd(), self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(())
    }

    /// Makes what was written durable. On a tape, and elsewhere, a block counts only with those before it.
    pub(super) fn sync(&mut self) -> Result<(), SetError> {
        if self.tape.is_some() || self.socket.is_some() {
            return Ok(());
        }
        let synced = match &self.file {
            Some(file) => sync_file(file),
            None => io::stdout().lock().flush(),
        };
        synced.map_err(|source| self.failed("syncing", source))
    }

    /// Makes the names durable too: now it stays.
    pub(super) fn finish(&mut self) -> Result<(), SetError> {
        if let Some(tape) = &mut self.tape {
            tape.finish()?;
        }
        if let Some(socket) = &mut self.socket {
            socket.finish()?;
        }
        self.sync()?;
        let parent = self.target.place().map(Path::to_owned);
        let dir = match &self.target {
            Target::Dir(dir, _) => Some(dir.clone()),
            Target::File(_) | Target::Stdout | Target::Tape(_) | Target::Socket(_) => None,
        };
        for dir in dir.into_iter().chain(parent) {
            sync_dir(&dir).map_err(|source| self.failed("syncing", source))?;
        }
        self.finished = true;
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> SetError {
        let what = match self.target {
            Target::Stdout => self.target.name(),
            _ => self.path.display().to_string(),
        };
        SetError::Io { doing, what, source }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Half a save is of no use. What cannot be removed has no trailer, and says so.
        for path in self.made.iter().rev() {
            let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
    }
}

fn of_new(path: &Path, source: io::Error) -> SetError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => SetError::Exists { path: path.to_owned() },
        _ => SetError::Io { doing: "writing", what: path.display().to_string(), source },
    }
}

/// Where a set is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, or a directory with the files of one set.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// In memory.
    Bytes(Bytes),
    /// On reels.
    Tape(Box<TapeSource>),
    /// On another machine.
    Socket(Box<SocketSource>),
}

impl Source {
    /// Of a path on the command line, where `-` is standard input.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::Path(path.to_owned()) }
    }

    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
            Self::Bytes(_) => "memory".to_owned(),
            Self::Tape(tape) => tape.name(),
            Self::Socket(socket) => socket.name(),
        }
    }

    /// The same, without what only other files than this one need, where that saves something. Then the set has gaps.
    #[must_use]
    pub fn only(&self, file: Option<FileId>) -> Self {
        match self {
            Self::Tape(tape) => Self::Tape(Box::new(TapeSource { only: file, ..(**tape).clone() })),
            Self::Socket(socket) => Self::Socket(Box::new(socket.of_file(file))),
            other => other.clone(),
        }
    }

    /// The file of a part; none if there is no such file.
    pub(super) fn part(&self, part: u32) -> Result<Option<Opened>, SetError> {
        let path = match self {
            Self::Stdin if part == 1 => {
                let reader: Box<dyn Read> = Box::new(io::stdin().lock());
                let name = "standard input".to_owned();
                return Ok(Some(Opened { name, reader, file: None, gaps: false }));
            }
            Self::Bytes(bytes) if part == 1 => {
                let (reader, again) = (io::Cursor::new(bytes.clone()), io::Cursor::new(bytes.clone()));
                let name = "memory".to_owned();
                let (reader, file) = (Box::new(reader), Some(Box::new(again) as Box<dyn ReadSeek>));
                return Ok(Some(Opened { name, reader, file, gaps: false }));
            }
            Self::Tape(tape) if part == 1 => {
                let reader: Box<dyn Read> = Box::new(tape.open()?);
                return Ok(Some(Opened { name: tape.name(), reader, file: None, gaps: tape.only.is_some() }));
            }
            Self::Socket(socket) if part == 1 => {
                let (reader, gaps) = socket.open()?;
                let (name, reader) = (socket.name(), Box::new(reader));
                return Ok(Some(Opened { name, reader, file: None, gaps }));
            }
            Self::Stdin | Self::Bytes(_) | Self::Tape(_) | Self::Socket(_) => return Ok(None),
            Self::Path(path) if path.is_dir() => path.join(part_name(part)),
            Self::Path(path) if part == 1 => path.clone(),
            Self::Path(_) => return Ok(None),
        };
        let name = path.display().to_string();
        let failed = |source| SetError::Io { doing: "reading", what: name.clone(), source };
        match File::open(&path) {
            Ok(file) => {
                read_in_order(&file);
                let again = file.try_clone().map_err(failed)?;
                let (reader, file) = (Box::new(again), Some(Box::new(file) as Box<dyn ReadSeek>));
                Ok(Some(Opened { name, reader, file, gaps: false }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && part > 1 => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Its bytes from the first one on; of a directory those of its first file.
    pub(in crate::node) fn stream(&self) -> Result<Box<dyn Read>, SetError> {
        let missing = || SetError::NoSet { what: self.name(), why: "it is empty".to_owned() };
        self.part(1)?.map(|opened| opened.reader).ok_or_else(missing)
    }

    /// The same from this byte on; waiting for a reel ends when `stop` is set.
    pub(in crate::node) fn stream_from(
        &self,
        from: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Read>, SetError> {
        if let Self::Tape(tape) = self {
            return Ok(Box::new(tape.open_from(from, stop)?));
        }
        let missing =
            || SetError::NoSet { what: self.name(), why: "it comes only from its beginning".to_owned() };
        let Opened { name, file, .. } = self.part(1)?.ok_or_else(missing)?;
        let mut file = file.ok_or_else(missing)?;
        file.seek(SeekFrom::Start(from)).map_err(|source| SetError::Io {
            doing: "reading",
            what: name,
            source,
        })?;
        Ok(Box::new(file))
    }

    /// How much there is to read (bytes); none if that is not known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Tape(tape) => return tape.bytes(),
            Self::Socket(socket) => return socket.bytes(),
            _ => {}
        }
        let mut sum = 0;
        for part in 1.. {
            match self.part(part) {
                Ok(Some(Opened { file: Some(mut file), .. })) => sum += file.seek(SeekFrom::End(0)).ok()?,
                Ok(None) if part > 1 => return Some(sum),
                _ => return None,
            }
        }
        None
    }
}

/// A file of a set.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) reader: Box<dyn Read>,
    /// The same, to look at its end.
    pub(super) file: Option<Box<dyn ReadSeek>>,
    /// Content of files is left out.
    pub(super) gaps: bool,
}

/// What can be read anywhere.
pub(super) trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}
