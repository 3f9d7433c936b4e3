//! A command that changes reels, with the contract of Bareos' `mtx-changer`.
//!
//! In the command `%c` is the changer, `%o` what to do (load, unload, loaded, list, slots), `%S` the slot (from 1), `%a` the
//! drive's device, `%d` its number (from 0). It is started without a shell; an exit code other than 0 is a failure.

use super::TapeError;
use crate::base::limits::ANSWER_MAX;
use crate::base::text_at_most;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Slots that are asked for at most.
const SLOTS_MAX: u32 = 10_000;

/// A changer.
#[derive(Debug)]
pub(super) struct Changer {
    command: String,
    device: PathBuf,
}

impl Changer {
    pub(super) fn new(command: &str, device: &Path) -> Self {
        Self { command: command.to_owned(), device: device.to_owned() }
    }

    fn run(&self, operation: &str, slot: u32) -> Result<String, TapeError> {
        let what = format!("{operation} of the changer, slot {slot}");
        let failed = |source| TapeError::Io { doing: "running", what: what.clone(), source };
        let device = self.device.display().to_string();
        let fill = |word: &str| {
            let word = word.replace("%o", operation).replace("%S", &slot.to_string()).replace("%a", &device);
            word.replace("%d", "0").replace("%c", "").replace("%%", "%")
        };
        let words: Vec<String> = self.command.split_whitespace().map(fill).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(failed(std::io::ErrorKind::InvalidInput.into()));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(failed)?;
        let text = child.stdout.take().map(|out| text_at_most(out, ANSWER_MAX)).transpose();
        let status = child.wait().map_err(failed)?;
        let text = text.map_err(failed)?.unwrap_or_default();
        if status.success() {
            Ok(text)
        } else {
            Err(failed(std::io::Error::other(format!("it ended with {status}"))))
        }
    }

    /// Slots with a cartridge that is none for cleaning.
    pub(super) fn full(&self) -> Result<Vec<u32>, TapeError> {
        let list = self.run("list", 0)?;
        let of_line = |line: &str| {
            let (slot, barcode) = line.trim().split_once(':')?;
            let slot: u32 = slot.parse().ok().filter(|slot| (1..=SLOTS_MAX).contains(slot))?;
            (!barcode.starts_with("CLN")).then_some(slot)
        };
        Ok(list.lines().filter_map(of_line).collect())
    }

    /// The slot whose cartridge is in the drive; none if that is empty.
    pub(super) fn loaded(&self) -> Result<Option<u32>, TapeError> {
        Ok(self.run("loaded", 0)?.trim().parse().ok().filter(|slot| *slot > 0))
    }

    pub(super) fn load(&self, slot: u32) -> Result<(), TapeError> {
        self.run("load", slot).map(drop)
    }

    pub(super) fn unload(&self, slot: u32) -> Result<(), TapeError> {
        self.run("unload", slot).map(drop)
    }
}
