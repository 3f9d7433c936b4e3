//! Which reel is in the drive, and whether it is the right one.

use super::{Drive, Fault, Got, Medium};
use crate::base::limits::REEL_BLOCK_MAX;
use crate::format::reel::{ReelBlock, ReelKind, ReelLabel};
use crate::format::set::SetId;

/// What a reel turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written to it.
    Blank,
    /// One of ours, with its label.
    Labelled(Box<(ReelBlock, ReelLabel)>),
    /// Something else is on it.
    Foreign(String),
}

/// What a reel is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read from it.
    Read,
    /// To write behind what is on it.
    Append,
    /// To write it from its beginning.
    Write,
}

/// The reel that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The set; zero for any, of one that is read or appended to.
    pub set: SetId,
    /// Its number in the set; 0 for any.
    pub reel: u32,
    /// What for.
    pub purpose: Purpose,
    /// Why, for people.
    pub why: String,
}

/// Why a reel is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is another one of the same set.
    #[error("it is reel {found} of that set, and reel {wanted} is wanted")]
    Wrong {
        /// What it is.
        found: u32,
        /// What was wanted.
        wanted: u32,
    },
    /// It is a reel of another set.
    #[error("it is reel {reel} ({name}) of set {set}, which is another one")]
    Used {
        /// Its number there.
        reel: u32,
        /// Its name.
        name: String,
        /// That set.
        set: SetId,
    },
    /// Something else wrote it.
    #[error("it is none of ours: {0}")]
    Foreign(String),
    /// Nothing is on it.
    #[error("nothing is written on it")]
    Blank,
    /// It was labelled, and nothing of a set is on it.
    #[error("it is labelled ({0}) and nothing of a set is on it")]
    Prepared(String),
    /// It cannot be written to.
    #[error("it is write-protected")]
    Protected,
}

/// What the operator allowed beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Blank reels may be written to without a label of ours.
    pub blank: bool,
    /// What other sets or programs wrote may be overwritten.
    pub relabel: bool,
}

/// Whether the reel is the one that is wanted (I-37).
///
/// # Errors
/// Why not. Nothing may be written to it then, or read of it.
pub fn judge(found: &Found, protected: bool, want: &Want, allowed: Allowed) -> Result<(), Refusal> {
    let writes = want.purpose != Purpose::Read;
    match found {
        Found::Labelled(label) => judge_label(&label.0, &label.1.name, want, allowed)?,
        Found::Blank if want.purpose == Purpose::Write && (allowed.blank || allowed.relabel) => {}
        Found::Blank => return Err(Refusal::Blank),
        Found::Foreign(_) if want.purpose == Purpose::Write && allowed.relabel => {}
        Found::Foreign(why) => return Err(Refusal::Foreign(why.clone())),
    }
    if writes && protected { Err(Refusal::Protected) } else { Ok(()) }
}

fn judge_label(header: &ReelBlock, name: &str, want: &Want, allowed: Allowed) -> Result<(), Refusal> {
    let (found, wanted) = (header.reel, want.reel);
    // Who does not know yet what there is takes any set, and any reel of it.
    let (any_set, any_reel) = (want.set == SetId::default(), wanted == 0);
    let ours = (any_set || header.set == want.set) && found != 0;
    let used = || Refusal::Used { reel: found, name: name.to_owned(), set: header.set };
    match want.purpose {
        Purpose::Write => match found {
            0 => Ok(()),
            // Not even with the operator's word: the set that is being written stands on it.
            _ if ours && found <= wanted => Err(Refusal::Wrong { found, wanted }),
            _ if allowed.relabel => Ok(()),
            _ => Err(used()),
        },
        Purpose::Read | Purpose::Append => match found {
            0 => Err(Refusal::Prepared(name.to_owned())),
            _ if !ours => Err(used()),
            _ if found != wanted && !any_reel => Err(Refusal::Wrong { found, wanted }),
            _ => Ok(()),
        },
    }
}

/// Reads the label of the reel in the drive, which stands behind it then.
///
/// # Errors
/// [`Fault`]; [`Fault::NoMedium`] where there is no reel.
pub fn identify(drive: &mut dyn Drive) -> Result<(Found, bool), Fault> {
    let protected = match drive.medium()? {
        Medium::Absent => return Err(Fault::NoMedium),
        Medium::Ready { protected } => protected,
    };
    drive.rewind()?;
    let mut block = vec![0; REEL_BLOCK_MAX];
    let found = match drive.read(&mut block) {
        Ok(Got::Block(len)) => of_block(block.get(..len).unwrap_or_default()),
        Ok(Got::Mark) => {
            // A drive that was closed before anything was written to it leaves a mark alone.
            drive.end()?;
            if drive.position()? <= 2 { Found::Blank } else { foreign("it begins with a filemark") }
        }
        Err(Fault::TooLong) => foreign("its first block is longer than any that hot-backup writes"),
        Err(Fault::NoMedium) => return Err(Fault::NoMedium),
        Err(fault) => {
            drive.disarm();
            drive.end()?;
            match drive.position()? {
                0 => Found::Blank,
                _ => foreign(&format!("its first block cannot be read ({fault})")),
            }
        }
    };
    Ok((found, protected))
}

/// Whether nothing stands behind the label that was read of the reel in the drive. Who began it was ended before a block came
/// to it, or before that was noted anywhere: so the same reel may be begun again.
///
/// # Errors
/// [`Fault`].
pub fn is_label_alone(drive: &mut dyn Drive) -> Result<bool, Fault> {
    drive.end()?;
    // The label and the mark behind it.
    Ok(drive.position()? <= 2)
}

fn foreign(why: &str) -> Found {
    Found::Foreign(why.to_owned())
}

fn of_block(block: &[u8]) -> Found {
    match ReelBlock::decode(block) {
        Ok((header, payload)) if header.kind == ReelKind::Label => match ReelLabel::decode(payload) {
            Ok(label) => Found::Labelled(Box::new((header, label))),
            Err(error) => foreign(&error.to_string()),
        },
        Ok(_) => foreign("it begins with a block of hot-backup that is no label"),
        Err(_) if block.starts_with(b"VOL1") => foreign("it has an ANSI label (VOL1)"),
        Err(_) => foreign(&format!("its first block of {} bytes is no label of a reel", block.len())),
    }
}

/// Why no reel came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// It is not there, or not the right one, and nobody is waited for.
    #[error("{what}: {why}")]
    Missing {
        /// What was wanted, with its place.
        what: String,
        /// What is there instead.
        why: String,
    },
    /// The operator ended it.
    #[error("waiting for {what}: the operator ended it")]
    Ended {
        /// What was wanted.
        what: String,
    },
    /// The drive cannot be used.
    #[error("using {drive}: {fault}")]
    Drive {
        /// Its name.
        drive: String,
        /// Why not.
        fault: Fault,
    },
}

/// Brings reels into drives.
pub trait Shelf: Send {
    /// A drive with the reel that is wanted, which was judged. Of one that is read or appended to the drive stands behind the
    /// label; `label` is what was found there, none on a blank or foreign one.
    ///
    /// # Errors
    /// [`ShelfError`].
    fn mount(&mut self, want: &Want) -> Result<(Box<dyn Drive>, Found), ShelfError>;

    /// Hears what a writer did.
    fn tell(&mut self, event: &super::Event);
}
