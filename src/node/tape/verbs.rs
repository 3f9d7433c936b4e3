//! What operators ask of a drive or an image by itself: what is in it, labels, moves, copies.

use super::requests::{Request, open_request};
use super::shelf::{open, wall_ms};
use super::st::Tape;
use super::{Image, Place, TapeError, TapeOptions};
use crate::base::limits::{REEL_BLOCK, REEL_BLOCK_MAX};
use crate::base::{Epoch, Seq};
use crate::format::PairId;
use crate::format::reel::ReelLabel;
use crate::format::set::SetId;
use crate::format::tape_health::DriveEncryption;
use crate::io::TapeStatus;
use crate::tape::{
    Block, Drive, Fault, Found, Got, Medium, Purpose, Refusal, Want, identify, judge, prepared,
};
use serde::Serialize;
use std::path::Path;

/// Of what a drive does not answer.
const NOT_TOLD: &str = "not told";

/// What is known of a drive or of the image of a reel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriveView {
    /// The device or file.
    pub path: String,
    /// Whether a reel is there.
    pub online: bool,
    /// Whether it cannot be written to.
    pub protected: bool,
    /// Where a drive stands, if that is known: blocks and filemarks before it.
    pub position: Option<u64>,
    /// The end of the reel is near.
    pub near_end: bool,
    /// The drive wants to be cleaned.
    pub clean: bool,
    /// Whether the drive packs what is written: on, off, or not told. An image does not.
    pub compression: String,
    /// Whether the drive encrypts by itself: on, off, reads only, external, or not told. An image does not.
    pub encryption: String,
    /// What is on an image; a drive is not moved to find out.
    pub label: Option<String>,
    /// What is waited for.
    pub request: Option<Request>,
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn drive_error(drive: &dyn Drive) -> impl Fn(Fault) -> TapeError + use<> {
    let drive = drive.name();
    move |fault| TapeError::Drive { drive: drive.clone(), fault }
}

fn opened(options: &TapeOptions, reel: u32, writes: bool) -> Result<Box<dyn Drive>, TapeError> {
    open(&options.place, reel, writes).map_err(|source| {
        let what = options.place.path(reel).display().to_string();
        match source.kind() {
            std::io::ErrorKind::WouldBlock => TapeError::Drive { drive: what, fault: Fault::Busy },
            _ => TapeError::Io { doing: "opening", what, source },
        }
    })
}

/// What is in the drive, or what the images are. Moves nothing.
///
/// # Errors
/// [`TapeError`].
pub fn status(options: &TapeOptions) -> Result<Vec<DriveView>, TapeError> {
    let request = open_request(options)?;
    if let Place::Device(path) = &options.place {
        let failed = |fault| TapeError::Drive { drive: path.display().to_string(), fault };
        let io = |source| TapeError::Io { doing: "opening", what: path.display().to_string(), source };
        let mut tape = Tape::new(path, false).map_err(io)?;
        let status = tape.status().map_err(failed)?;
        let online = status.has(TapeStatus::ONLINE);
        return Ok(vec![DriveView {
            path: path.display().to_string(),
            online,
            protected: status.has(TapeStatus::PROTECTED),
            position: if online { tape.position().ok() } else { None },
            near_end: status.has(TapeStatus::NEAR_END),
            clean: status.has(TapeStatus::CLEAN),
            compression: tape.compression().map_or(NOT_TOLD, |on| if on { "on" } else { "off" }).to_owned(),
            encryption: tape.encryption().map_or(NOT_TOLD, DriveEncryption::name).to_owned(),
            label: None,
            request,
        }]);
    }
    let mut views = Vec::new();
    for reel in 1.. {
        let path = options.place.path(reel);
        if !path.exists() {
            break;
        }
        let mut view = DriveView {
            path: path.display().to_string(),
            online: true,
            protected: false,
            position: None,
            near_end: false,
            clean: false,
            compression: "off".to_owned(),
            encryption: "off".to_owned(),
            label: Some("in use by another program".to_owned()),
            request: request.clone(),
        };
        match opened(options, reel, false) {
            Err(TapeError::Drive { fault: Fault::Busy, .. }) => {}
            Err(error) => return Err(error),
            Ok(mut drive) => {
                let (found, protected) = identify(&mut *drive).map_err(drive_error(&*drive))?;
                drive.end().map_err(drive_error(&*drive))?;
                (view.protected, view.position, view.label) =
                    (protected, drive.position().ok(), Some(told(&found)));
            }
        }
        views.push(view);
        if !matches!(options.place, Place::Images(..)) {
            break;
        }
    }
    Ok(views)
}

fn told(found: &Found) -> String {
    match found {
        Found::Blank => "blank".to_owned(),
        Found::Foreign(why) => format!("none of ours: {why}"),
        Found::Labelled(label) => match label.0.reel {
            0 => format!("{}, prepared", label.1.name),
            reel => format!("{}, reel {reel} of set {}", label.1.name, label.0.set),
        },
    }
}

/// Writes a label to a blank reel, which prepares it for any set; an image is made. Gives what was there.
///
/// # Errors
/// [`TapeError::Unfit`] where something is on it, and it may not be overwritten.
pub fn label(options: &TapeOptions, reel: u32, name: &str) -> Result<String, TapeError> {
    let path = options.place.path(reel);
    let mut drive: Box<dyn Drive> = match &options.place {
        Place::Device(_) => opened(options, reel, true)?,
        _ if path.exists() => opened(options, reel, true)?,
        _ => Box::new(Image::create(&path).map_err(|source| TapeError::Io {
            doing: "making",
            what: path.display().to_string(),
            source,
        })?),
    };
    let failed = drive_error(&*drive);
    let (found, protected) = identify(&mut *drive).map_err(&failed)?;
    let mut allowed = options.allowed;
    // That is what a label is for.
    allowed.blank = true;
    let want = Want { set: SetId::default(), reel: u32::MAX, purpose: Purpose::Write, why: String::new() };
    let judged = match &found {
        Found::Labelled(label) if label.0.reel != 0 && !allowed.relabel => {
            let (reel, name, set) = (label.0.reel, label.1.name.clone(), label.0.set);
            Err(Refusal::Used { reel, name, set })
        }
        Found::Labelled(_) if !protected => Ok(()),
        found => judge(found, protected, &want, allowed),
    };
    judged.map_err(|refusal| TapeError::Unfit {
        what: format!("labelling {}", drive.name()),
        why: refusal.to_string(),
        next: "use another reel; --relabel overwrites what is on it, for ever",
    })?;
    let label = ReelLabel {
        pair: PairId::default(),
        epoch: Epoch(0),
        seq: Seq(0),
        wall_ms: wall_ms(),
        block_size: u32::try_from(REEL_BLOCK).unwrap_or(u32::MAX),
        key: 0,
        name: name.to_owned(),
        node: String::new(),
    };
    write_label(&mut *drive, prepared(&label)).map_err(failed)?;
    Ok(told(&found))
}

/// Puts a label on a reel and a mark behind it.
pub(super) fn write_label(drive: &mut dyn Drive, mut label: Block) -> Result<(), Fault> {
    let mut written = || {
        drive.rewind()?;
        drive.write(label.on_reel(0))?;
        drive.marks(1)?;
        match drive.position()? {
            2 => drive.rewind(),
            found => Err(Fault::Moved { expected: 2, found }),
        }
    };
    let result = written();
    if result.is_err() {
        drive.disarm();
    }
    result
}

/// A move of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// To the beginning.
    Rewind,
    /// Behind all that is written.
    End,
    /// Over so many filemarks, back if there are fewer than none.
    Files(i32),
    /// Give the reel out.
    Offline,
}

/// Moves the drive, and tells where it is then. An image keeps no place: it is counted from its beginning, or its end for a move
/// back.
///
/// # Errors
/// [`TapeError`].
pub fn move_by(options: &TapeOptions, reel: u32, to: Move) -> Result<Option<u64>, TapeError> {
    if let Place::Device(path) = &options.place {
        let io = |source| TapeError::Io { doing: "opening", what: path.display().to_string(), source };
        let mut tape = Tape::new(path, false).map_err(io)?;
        let failed = |fault| TapeError::Drive { drive: path.display().to_string(), fault };
        if tape.medium().map_err(failed)? == Medium::Absent {
            return Err(failed(Fault::NoMedium));
        }
        match to {
            Move::Rewind => tape.rewind(),
            Move::End => tape.end(),
            Move::Files(count) => tape.files(count),
            Move::Offline => return tape.eject().map(|()| None).map_err(failed),
        }
        .map_err(failed)?;
        return tape.position().map(Some).map_err(failed);
    }
    let mut drive = opened(options, reel, false)?;
    let failed = drive_error(&*drive);
    match to {
        Move::Rewind | Move::Offline => drive.rewind(),
        Move::End => drive.end(),
        Move::Files(count) => over_marks(&mut *drive, count),
    }
    .map_err(&failed)?;
    drive.position().map(Some).map_err(failed)
}

/// Goes over filemarks by reading: forward to behind the last of them, back to before it.
fn over_marks(drive: &mut dyn Drive, count: i32) -> Result<(), Fault> {
    drive.end()?;
    let end = drive.position()?;
    drive.rewind()?;
    let (mut marks, mut buffer) = (Vec::new(), vec![0; REEL_BLOCK_MAX]);
    for at in 0..end {
        if matches!(drive.read(&mut buffer), Ok(Got::Mark)) {
            marks.push(at);
        }
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let place = match count {
        0 => Some(0),
        1.. => marks.get(wanted - 1).map(|at| at + 1),
        _ => marks.len().checked_sub(wanted).and_then(|at| marks.get(at)).copied(),
    };
    let none = || Fault::Failed(format!("it has {} filemarks", marks.len()));
    drive.seek(place.ok_or_else(none)?)
}

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Reels.
    pub reels: u32,
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
    /// Blocks that could not be read: reel and position. They are missing in the copy.
    pub lost: Vec<(u32, u64)>,
}

/// Copies reels block by block, from the first one on, to reels that are blank or may be overwritten. The copy is of the same set:
/// either can be read in place of the other.
///
/// # Errors
/// [`TapeError`].
pub fn copy(from: &TapeOptions, to: &TapeOptions) -> Result<Copied, TapeError> {
    let mut copied = Copied::default();
    for reel in 1.. {
        if !matches!(from.place, Place::Device(_)) && !from.place.path(reel).exists() {
            break;
        }
        let mut source = opened(from, reel, false)?;
        let (found, _) = identify(&mut *source).map_err(drive_error(&*source))?;
        let path = to.place.path(reel);
        let made = !matches!(to.place, Place::Device(_)) && !path.exists();
        let mut target: Box<dyn Drive> = if made {
            let io = |source| TapeError::Io { doing: "making", what: path.display().to_string(), source };
            Box::new(Image::create(&path).map_err(io)?)
        } else {
            opened(to, reel, true)?
        };
        let failed = drive_error(&*target);
        let (there, protected) = identify(&mut *target).map_err(&failed)?;
        let mut allowed = to.allowed;
        allowed.blank |= made;
        let set = if let Found::Labelled(label) = &found { label.0.set } else { SetId::default() };
        let want = Want { set, reel, purpose: Purpose::Write, why: String::new() };
        judge(&there, protected, &want, allowed).map_err(|refusal| TapeError::Unfit {
            what: format!("copying to {}", target.name()),
            why: refusal.to_string(),
            next: "use another reel; --relabel overwrites what is on it, --label-blank takes a blank one",
        })?;
        copy_reel(&mut *source, &mut *target, reel, &mut copied)?;
        copied.reels += 1;
        // Of a drive one reel is copied at a time: people change them.
        if !matches!(from.place, Place::Images(..)) {
            break;
        }
    }
    Ok(copied)
}

fn copy_reel(
    source: &mut dyn Drive,
    target: &mut dyn Drive,
    reel: u32,
    copied: &mut Copied,
) -> Result<(), TapeError> {
    let (reading, writing) = (drive_error(source), drive_error(target));
    source.end().map_err(&reading)?;
    let end = source.position().map_err(&reading)?;
    source.rewind().map_err(&reading)?;
    target.rewind().map_err(&writing)?;
    let (mut buffer, mut expected) = (vec![0; REEL_BLOCK_MAX], 0);
    for at in 0..end {
        match source.read(&mut buffer) {
            Ok(Got::Mark) => target.marks(1).map_err(&writing)?,
            Ok(Got::Block(len)) => {
                let block = buffer.get(..len).unwrap_or_default();
                target.write(block).map_err(&writing)?;
                copied.blocks += 1;
                copied.bytes += len as u64;
            }
            Err(_) => {
                source.disarm();
                copied.lost.push((reel, at));
                source.seek(at + 1).map_err(&reading)?;
                continue;
            }
        }
        expected += 1;
    }
    target.marks(0).map_err(&writing)?;
    match target.position().map_err(&writing)? {
        found if found == expected => Ok(()),
        found => Err(writing(Fault::Moved { expected, found })),
    }
}
