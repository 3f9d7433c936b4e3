//! What a stream goes into: a file that gets its name at the end, or reels.

use super::{Refusal, own};
use crate::base::limits::SOCKET_FILE_WINDOW;
use crate::base::{Ordinal, plainly, read_at_most};
use crate::format::set::{PART_HEADER, PartHeader};
use crate::format::socket::{Refused, SOCKET_NOTE, StreamKind, StreamNote, StreamOpen};
use crate::io::{FileLock, Own, put_in_place, sync_file, try_lock_file, write_on};
use crate::node::set::{self, Source};
use crate::node::spool::{self, SpoolDir};
use crate::node::tape::{About, Carried, CarriedWriter, TapeError, TapeOrder};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What came of opening a stream.
pub(super) enum Opened {
    /// It is taken from where the sink has received it to.
    Sink(Sink),
    /// All of it is there (bytes).
    Whole(u64),
}

/// A stream under way.
pub(super) enum Sink {
    File(Box<FileSink>),
    Tape(Box<CarriedWriter>),
}

fn of_io(doing: &str, path: &Path, error: &io::Error) -> Refusal {
    let next = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on that disk, and begin again",
        _ => "look after the path, its owner and the disk of that machine",
    };
    Refusal::new(Refused::Failed, format!("{doing} {}: {}", path.display(), plainly(error)), next)
}

fn of_tape(error: &TapeError) -> Refusal {
    let why = if error.is_busy() { Refused::InUse } else { Refused::Failed };
    Refusal::new(why, error.to_string(), error.next())
}

impl Sink {
    /// Opens reels for a stream, behind what is on them if it may be.
    pub(super) fn reels(order: &TapeOrder, open: &StreamOpen, behind: bool) -> Result<Opened, Refusal> {
        let StreamOpen { kind, stream, pair, epoch, seq, node, name } = open.clone();
        let spool = match kind {
            StreamKind::Set => None,
            StreamKind::Spool(ordinal) => Some(ordinal),
            StreamKind::Part(_) => {
                let message = format!("taking {name}: a spool that a node reads back goes to a directory");
                let next = "listen there with --to dir:PATH; a copy of its parts goes to reels with tape-socket send";
                return Err(Refusal::new(Refused::Unfit, message, next));
            }
        };
        let about = About { spool, save: stream, pair, epoch, seq, node };
        match Carried::begin(order, &about, behind).map_err(|error| of_tape(&error))? {
            Carried::Whole(bytes) => Ok(Opened::Whole(bytes)),
            Carried::Open(writer) => Ok(Opened::Sink(Self::Tape(writer))),
        }
    }

    /// Opens the file at this path for a stream, which becomes it when it is whole.
    pub(super) fn file(path: &Path, open: &StreamOpen, most: u64) -> Result<Opened, Refusal> {
        FileSink::open(path, open, most)
    }

    /// Opens the file of a part in the spool of its node below this directory.
    pub(super) fn part(
        dir: &Path,
        open: &StreamOpen,
        ordinal: Ordinal,
        most: u64,
    ) -> Result<Opened, Refusal> {
        let spool = SpoolDir::below(dir, open.pair, ordinal);
        spool.make().map_err(|error| of_io("making", spool.path(), &error))?;
        if !open.name.ends_with(spool::PART) {
            let message = format!("taking {}: it is no name of a part of a spool", open.name);
            return Err(Refusal::new(Refused::Unfit, message, "use programs of one version on both sides"));
        }
        FileSink::open(&spool.path().join(&open.name), open, most)
    }

    /// So much may be sent beyond what counts (bytes).
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::File(file) => file.window,
            Self::Tape(tape) => tape.window(),
        }
    }

    /// Bytes of the stream that came.
    pub(super) fn received(&self) -> u64 {
        match self {
            Self::File(file) => file.received,
            Self::Tape(tape) => tape.received(),
        }
    }

    /// Takes the next bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::File(file) => file.put(bytes),
            Self::Tape(tape) => tape.write(bytes).map_err(|error| of_tape(&error)),
        }
    }

    /// All before this byte counts.
    pub(super) fn counts(&mut self) -> Result<u64, Refusal> {
        match self {
            Self::File(file) => Ok(file.counts),
            Self::Tape(tape) => tape.counts().map_err(|error| of_tape(&error)),
        }
    }

    /// Nothing more comes. What is there has to be a set.
    pub(super) fn close(&mut self) -> Result<(), Refusal> {
        match self {
            Self::File(file) => file.finish(),
            Self::Tape(tape) => tape.close().map_err(|error| of_tape(&error)),
        }
    }

    /// Whether all of it counts, after [`Self::close`].
    pub(super) fn is_over(&mut self) -> Result<bool, Refusal> {
        match self {
            Self::File(_) => Ok(true),
            Self::Tape(tape) => tape.is_over().map_err(|error| of_tape(&error)),
        }
    }
}

/// A file that is not whole yet.
pub(super) struct FileSink {
    path: PathBuf,
    part: Own,
    note: Own,
    file: File,
    _lock: FileLock,
    stream: StreamNote,
    received: u64,
    counts: u64,
    window: u64,
    /// It is one part of a spool.
    of: Option<StreamOpen>,
}

impl FileSink {
    fn open(path: &Path, open: &StreamOpen, most: u64) -> Result<Opened, Refusal> {
        if matches!(open.kind, StreamKind::Spool(_)) {
            let message = format!("taking {}: parts of a spool go to reels only", open.name);
            return Err(Refusal::new(Refused::Unfit, message, "listen there with --to tape:PLACE"));
        }
        let of = matches!(open.kind, StreamKind::Part(_)).then(|| open.clone());
        if of.is_none()
            && let Some(bytes) = of_same(path, open)?
        {
            return Ok(Opened::Whole(bytes));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (part, note) = (own(dir, &format!("{name}.part")), own(dir, &format!("{name}.part-note")));
        let failed = |error: io::Error| of_io("writing", part.path(), &error);
        let mut file = part.open().map_err(failed)?;
        let lock = file.try_clone().and_then(try_lock_file).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                let message = format!("writing {}: another program does", part.path().display());
                Refusal::new(Refused::InUse, message, "wait for its end, or give the set another name")
            }
            _ => failed(error),
        })?;
        let len = file.metadata().map_err(failed)?.len();
        let known = noted(&note).filter(|known| known.stream == open.stream);
        // What is behind was received, and never said to count.
        let counts = known.map_or(0, |known| known.counts.min(len));
        let stream = StreamNote { stream: open.stream, counts };
        note.replace(&stream.encode()).map_err(|error| of_io("writing", note.path(), &error))?;
        file.set_len(counts).and_then(|()| file.seek(SeekFrom::Start(counts))).map_err(failed)?;
        let window = most.min(SOCKET_FILE_WINDOW);
        let (path, received) = (path.to_owned(), counts);
        let sink = Self { path, part, note, file, _lock: lock, stream, received, counts, window, of };
        Ok(Opened::Sink(Sink::File(Box::new(sink))))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let written = write_on(&mut self.file, bytes);
        written.map_err(|error| of_io("writing", self.part.path(), &error))?;
        self.received += bytes.len() as u64;
        if self.received - self.counts >= self.window / 4 { self.sync() } else { Ok(()) }
    }

    /// Makes all that came count: the file first, then the note that says so.
    fn sync(&mut self) -> Result<(), Refusal> {
        sync_file(&self.file).map_err(|error| of_io("syncing", self.part.path(), &error))?;
        self.stream.counts = self.received;
        let noted = self.note.replace(&self.stream.encode());
        noted.map_err(|error| of_io("writing", self.note.path(), &error))?;
        self.counts = self.received;
        Ok(())
    }

    /// Gives the file its name, if it is a set.
    fn finish(&mut self) -> Result<(), Refusal> {
        self.sync()?;
        if let Some(open) = &self.of {
            return self.finish_part(open);
        }
        let part = self.part.path();
        let unfit = |why: String| {
            let message = format!("taking {}: it is no save set with a trailer ({why})", self.path.display());
            Refusal::new(Refused::Unfit, message, "begin the save again")
        };
        let found =
            set::contents(&Source::Path(part.to_owned())).map_err(|error| unfit(error.to_string()))?;
        if found.header.set != self.stream.stream {
            return Err(unfit(format!("it is set {}", found.header.set)));
        }
        if self.path.symlink_metadata().is_ok() {
            return Err(exists(&self.path));
        }
        put_in_place(part, &self.path).map_err(|error| of_io("writing", &self.path, &error))?;
        // Left behind, it says nothing of a file that is not there.
        let _ = self.note.remove();
        Ok(())
    }
}

impl FileSink {
    /// Gives the file its name, if it is the part that was to come. One of that name holds the same segment.
    fn finish_part(&self, open: &StreamOpen) -> Result<(), Refusal> {
        let part = self.part.path();
        let unfit = |why: String| {
            let message = format!("taking {}: it is not that part of a spool ({why})", open.name);
            Refusal::new(Refused::Unfit, message, "look at the spool there: hot-backup spool verify")
        };
        let file = File::open(part).map_err(|error| of_io("reading", part, &error))?;
        let found = spool::check_part(&file).map_err(|bad| unfit(bad.why))?;
        if found.file_name() != open.name
            || (found.pair, StreamKind::Part(found.ordinal)) != (open.pair, open.kind)
        {
            return Err(unfit(format!("it is {} of pair {}", found.file_name(), found.pair)));
        }
        put_in_place(part, &self.path).map_err(|error| of_io("writing", &self.path, &error))?;
        let _ = self.note.remove();
        if let Some(dir) = self.path.parent() {
            // It only saves opening each part.
            let _ = SpoolDir::at(dir.to_owned()).note_in_index(&found);
        }
        Ok(())
    }
}

fn exists(path: &Path) -> Refusal {
    let message = format!("taking {}: a set of that name is there already", path.display());
    Refusal::new(Refused::Exists, message, "a save never overwrites another: give it a new name")
}

/// The length of the file at this path if it is this very set; refused if it is another one.
fn of_same(path: &Path, open: &StreamOpen) -> Result<Option<u64>, Refusal> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| of_io("reading", path, &error))?,
    };
    let mut head = [0; PART_HEADER];
    let same = io::Read::read_exact(&mut file, &mut head).is_ok()
        && PartHeader::decode(&head).is_ok_and(|header| header.set == open.stream);
    match file.metadata() {
        Ok(found) if same => Ok(Some(found.len())),
        _ => Err(exists(path)),
    }
}

fn noted(note: &Own) -> Option<StreamNote> {
    let bytes = File::open(note.path()).and_then(|file| read_at_most(file, SOCKET_NOTE)).ok()?;
    StreamNote::decode(&bytes).ok()
}
