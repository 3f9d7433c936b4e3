//! What of the store could not be read although it is there: told to people, not only to the client that asked.

use super::core::Core;
use super::effect::{Severity, StoreEffect};
use super::incidents::Matter;
use crate::base::limits::{BLOCK_U64, DAMAGE_TOLD_MAX, DAMAGED_BLOCKS_MAX};
use crate::base::{Fault, FileId};
use crate::doors::Refusal;
use crate::format::dptr::DptrKind;
use crate::store::volumes::{BadPlace, PART_BYTES, Wrong};
use crate::store::{StoreError, StoreRead};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// One place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// An item.
    Item(Vec<u8>),
    /// Items after this one, met by a walk over the file.
    After(Vec<u8>),
    /// A volume, from this byte on.
    Byte(u64),
}

/// What was found, and what was reported of it.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Found while something was read, to be told when that is over.
    found: RefCell<Vec<(FileId, Spot, String)>>,
    reported: BTreeSet<(FileId, Spot)>,
    /// Blocks of volumes that do not match their checksums and were not written anew since.
    blocks: BTreeSet<(FileId, u64)>,
}

impl Damage {
    /// Notes it, unless so much was told that people know.
    fn note(&self, file: FileId, spot: Spot, why: String) {
        let mut found = self.found.borrow_mut();
        let new = !self.reported.contains(&(file, spot.clone()));
        if new && found.len() + self.reported.len() < DAMAGE_TOLD_MAX {
            found.push((file, spot, why));
        }
    }
}

impl Damage {
    /// Notes what is told at once; whether it was not told yet.
    pub(super) fn is_new(&mut self, file: FileId, spot: Spot) -> bool {
        self.reported.len() < DAMAGE_TOLD_MAX && self.reported.insert((file, spot))
    }

    /// Items of a file are whole again: what is found rotten from now on is new.
    pub(super) fn items_are_whole(&mut self, file: FileId) {
        self.reported.retain(|(of, spot)| *of != file || matches!(spot, Spot::Byte(_)));
    }
}

/// What is wrong with a place, in words.
fn words_for(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Content => "the content does not match its checksum",
        Wrong::Checksum => "the checksum is damaged, so the content cannot be checked",
        Wrong::NoChecksum => "the checksum is missing, so the content cannot be checked",
        Wrong::AllChecksums => "the checksums are lost",
        Wrong::Mended => {
            "one of two copies of the checksum was damaged; it was made again by the other, and the content is right"
        }
        Wrong::Renewed => "the checksum was made again from the content as it is",
    }
}

/// Volumes, block by block.
impl<S: StoreRead> Core<S> {
    /// Places of volumes were found wrong.
    pub(super) fn volumes_wrong(&mut self, places: &[BadPlace]) {
        for place in places {
            let Some(info) = self.namespace.file(place.file) else { continue };
            let (name, journal) = (info.key.clone(), info.journal);
            let BadPlace { file, offset, len, wrong } = *place;
            let end = offset.saturating_add(len);
            let (part, within) = (offset / PART_BYTES, offset % PART_BYTES / BLOCK_U64);
            let where_to = format!(
                "volume {name}, bytes {offset} to {} (file {file}, part {part}, blocks {within} to {})",
                end.saturating_sub(1),
                within + (len / BLOCK_U64).saturating_sub(1),
            );
            let text = format!("{where_to}: {}", words_for(wrong));
            match wrong {
                Wrong::Mended | Wrong::Renewed => {
                    self.incident(Severity::Notice, Matter::ChecksumMended, text);
                }
                Wrong::AllChecksums => {
                    let text = format!("{text}; until a scrub has made them again its reads are not checked");
                    self.incident_once(Severity::Critical, Matter::ChecksumsLost, text);
                }
                Wrong::Content | Wrong::Checksum | Wrong::NoChecksum => {
                    self.note_scrubbed(1);
                    self.wants_healing(file, offset, len);
                    if self.blocks_are_new(file, offset, end) {
                        let (name, last) = (journal.name(), self.applied_seq(journal));
                        let text = format!(
                            "{text}; entries 1 to {last} of the {name} journal made it; it is not served; it \
                             comes again from the peer if that has it whole, else write it again from a backup"
                        );
                        self.incident_once(Severity::Critical, Matter::VolumeDamaged, text);
                    }
                }
            }
        }
    }

    /// Remembers blocks that are wrong; whether any of them was not known before.
    fn blocks_are_new(&mut self, file: FileId, offset: u64, end: u64) -> bool {
        let mut new = false;
        for block in offset / BLOCK_U64..end / BLOCK_U64 {
            if self.damage.blocks.len() < DAMAGED_BLOCKS_MAX {
                new |= self.damage.blocks.insert((file, block));
            }
        }
        new
    }

    /// A range of a volume was written anew.
    pub(super) fn written_anew(&mut self, file: FileId, start: u64, end: u64) {
        if self.damage.blocks.is_empty() {
            return;
        }
        let whole = (file, start.div_ceil(BLOCK_U64))..(file, end / BLOCK_U64);
        if whole.start >= whole.end {
            return;
        }
        let before = self.damage.blocks.len();
        let mended: Vec<_> = self.damage.blocks.range(whole).copied().collect();
        for block in mended {
            self.damage.blocks.remove(&block);
        }
        if before > 0 && self.damage.blocks.is_empty() {
            self.volumes_whole();
        }
    }

    /// Nothing of volumes is known to be wrong any more.
    pub(super) fn volumes_whole(&mut self) {
        self.damage.blocks.clear();
        let text =
            "every block of a volume that was found damaged was written anew, or is whole again".to_owned();
        self.incident_over(Matter::VolumeDamaged, "volume-whole", text);
        self.settled(&[Matter::ChecksumsLost]);
    }
}

impl<S: StoreRead> Core<S> {
    /// What a client is told whose read of the store failed.
    pub(super) fn unreadable(&self, file: FileId, spot: Spot, error: &StoreError) -> Refusal {
        let text = error.to_string();
        if error.is_damage() {
            self.damage.note(file, spot, text.clone());
        }
        Refusal::Store(text)
    }

    /// A volume could not be read.
    pub(super) fn volume_unreadable(&self, file: FileId, offset: u64, fault: Fault) {
        // Of what does not match its checksum more was told already.
        if !fault.is_shortage() && fault != Fault::UNCLEAN {
            self.damage.note(file, Spot::Byte(offset), fault.to_string());
        }
    }

    /// Tells people of what was found.
    pub(super) fn tell_damage(&mut self) {
        let found = std::mem::take(&mut *self.damage.found.borrow_mut());
        for (file, spot, why) in found {
            if !self.damage.reported.insert((file, spot.clone())) {
                continue;
            }
            let info = self.namespace.file(file);
            let name = info.map_or_else(|| format!("with id {file}"), |info| info.key.clone());
            let volume = info.is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
            let words = |id: &[u8]| String::from_utf8_lossy(id).escape_debug().to_string();
            let what = match &spot {
                Spot::Item(id) => format!("item {name},{}", words(id)),
                Spot::After(id) if id.is_empty() => format!("items of {name} from the first on"),
                Spot::After(id) => format!("items of {name} after {}", words(id)),
                Spot::Byte(at) => format!("volume {name} at byte {at}"),
            };
            let kind = if volume { "volume-damaged" } else { "item-damaged" };
            let text = format!(
                "{what} cannot be read from the store: {why}; it comes again from the peer, if that has it whole"
            );
            self.incident(Severity::Critical, kind, text);
            if !volume {
                self.effect(StoreEffect::FindRot);
            }
        }
    }
}
