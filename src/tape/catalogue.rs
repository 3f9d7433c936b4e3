//! What stands on which reel, and where. It is made of the blocks themselves, so scanning the reels makes the same again.

use super::index::{Range, StreamIndex};
use super::parts::{PartHeld, SPOOL_NAME};
use crate::base::Chain;
use crate::base::limits::REEL_LABEL;
use crate::format::reel::{REEL_HEADER, ReelBlock, ReelKind, ReelLabel};
use crate::format::set::{SetFile, SetId};
use serde::{Deserialize, Serialize};

/// Everything that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// The sets, in the order in which they were begun.
    pub sets: Vec<ReelSet>,
}

/// A set of reels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReelSet {
    /// Its number (hexadecimal).
    pub id: String,
    /// The pair.
    pub pair: String,
    /// Which key encrypts; 0 for none.
    pub key: u64,
    /// Size of full blocks (bytes).
    pub block_size: u32,
    /// The reels, in order.
    pub reels: Vec<Reel>,
    /// The saves, in order.
    pub saves: Vec<Save>,
}

/// A reel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reel {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// The node that wrote it.
    pub node: String,
    /// When its label was written (ms since 1970).
    pub wall_ms: u64,
    /// Its first block.
    pub first: u64,
    /// Behind its last block that counts.
    pub next: u64,
    /// Where its blocks stand.
    pub stretches: Vec<Stretch>,
    /// Whether it says that the set goes on.
    pub ended: bool,
    /// Whether nothing more may be written to it: it is full, or failed.
    #[serde(default)]
    pub closed: bool,
    /// Bytes of its blocks that count, and of its label.
    #[serde(default)]
    pub bytes: u64,
    /// Running checksum of the set behind its last block that counts.
    #[serde(default)]
    pub chain: u64,
}

/// Blocks that stand one behind the other on a reel, up to the next stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first block.
    pub sequence: u64,
    /// Its position.
    pub position: u64,
}

/// A save on reels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Save {
    /// Its number (hexadecimal).
    pub id: String,
    /// Its first block.
    pub first: u64,
    /// Behind its last block that counts.
    pub next: u64,
    /// Bytes of its stream in a full block.
    pub payload: u64,
    /// Bytes of its stream; none if the save was not completed.
    pub bytes: Option<u64>,
    /// What it holds; none where it is not known, as the key is missing or the save was not completed.
    pub content: Option<Content>,
    /// What it holds of a journal, in order: then it is no save, but a piece of a spool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartHeld>,
}

/// What a save holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The number of the set (hexadecimal).
    pub set: String,
    /// When it was begun (ms since 1970).
    pub begun_ms: u64,
    /// When it was ended (ms since 1970).
    pub ended_ms: u64,
    /// Of the node that was saved.
    pub role: String,
    /// The same.
    pub node: String,
    /// The one account that was saved; empty for all.
    pub account: String,
    /// What was left out.
    pub left_out: Vec<String>,
    /// The state that it holds: epoch.
    pub epoch: u64,
    /// The state that it holds: entry.
    pub seq: u64,
    /// The state that it holds: chain.
    pub chain: u64,
    /// Batches, chunks, items, bytes of content.
    pub counts: [u64; 4],
    /// SHA-256 of the set (hexadecimal).
    pub digest: String,
    /// The files.
    pub files: Vec<FileHeld>,
    /// What its node has alone; none of a save without that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<AloneHeld>,
    /// What stands where in the stream.
    pub ranges: Vec<Range>,
}

/// What a save holds of what its node has alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AloneHeld {
    /// Files with content.
    pub files: Vec<FileHeld>,
    /// Files with their definition and no content.
    pub defined: Vec<String>,
    /// Files that are not in it.
    pub left_out: Vec<String>,
}

/// A file in a save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHeld {
    /// Its id.
    pub id: u64,
    /// Whether it is a volume.
    pub blocks: bool,
    /// Items.
    pub items: u64,
    /// Content (bytes).
    pub bytes: u64,
    /// `account,file`.
    pub name: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Catalogue {
    /// The set of that number.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&ReelSet> {
        let id = id.to_string();
        self.sets.iter().find(|set| set.id == id)
    }

    /// The same, to note something.
    pub fn find_mut(&mut self, id: SetId) -> Option<&mut ReelSet> {
        let id = id.to_string();
        self.sets.iter_mut().find(|set| set.id == id)
    }

    /// The same, made if it is not there.
    pub fn set_mut(&mut self, id: SetId, label: &ReelLabel) -> &mut ReelSet {
        let text = id.to_string();
        let at = self.sets.iter().position(|set| set.id == text).unwrap_or_else(|| {
            self.sets.push(ReelSet {
                id: text,
                pair: label.pair.to_string(),
                key: label.key,
                block_size: label.block_size,
                reels: Vec::new(),
                saves: Vec::new(),
            });
            self.sets.len() - 1
        });
        &mut self.sets[at]
    }

    /// The save of that number, or the newest complete one.
    #[must_use]
    pub fn save(&self, id: Option<&str>) -> Option<(&ReelSet, &Save)> {
        let mut all =
            self.sets.iter().rev().flat_map(|set| set.saves.iter().rev().map(move |save| (set, save)));
        match id {
            Some(id) => all.find(|(set, save)| save.id.starts_with(id) && set.spool_of().is_none()),
            None => all.find(|(set, save)| save.bytes.is_some() && set.spool_of().is_none()),
        }
    }
}

impl ReelSet {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> SetId {
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            let pair = self.id.get(2 * at..2 * at + 2);
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
        }
        SetId(id)
    }

    /// Notes the label of a reel: what earlier reels hold from its first block on does not count.
    pub fn note_label(&mut self, header: &ReelBlock, label: &ReelLabel) {
        let first = header.sequence;
        self.reels.retain(|reel| reel.number != header.reel);
        for reel in self.reels.iter_mut().filter(|reel| reel.number < header.reel) {
            reel.next = reel.next.min(first);
            reel.stretches.retain(|stretch| stretch.sequence < first);
        }
        self.reels.push(Reel {
            number: header.reel,
            name: label.name.clone(),
            node: label.node.clone(),
            wall_ms: label.wall_ms,
            first,
            next: first,
            stretches: Vec::new(),
            ended: false,
            closed: false,
            bytes: REEL_LABEL as u64,
            chain: header.chain.0,
        });
        self.reels.sort_by_key(|reel| reel.number);
    }

    /// Notes a block at this position of its reel, whose label was noted.
    pub fn note_block(&mut self, header: &ReelBlock, position: u64) {
        let Some(reel) = self.reels.iter_mut().find(|reel| reel.number == header.reel) else { return };
        match header.kind {
            ReelKind::Label => return,
            ReelKind::ReelEnd => {
                (reel.ended, reel.closed) = (true, true);
                return;
            }
            ReelKind::Data | ReelKind::SessionEnd if header.sequence < reel.next => return,
            ReelKind::Data | ReelKind::SessionEnd => {}
        }
        let goes_on = reel.stretches.last().is_some_and(|last| {
            header.sequence == reel.next
                && position.wrapping_sub(last.position) == header.sequence.wrapping_sub(last.sequence)
        });
        if !goes_on {
            reel.stretches.push(Stretch { sequence: header.sequence, position });
        }
        reel.bytes += REEL_HEADER as u64 + u64::from(header.len);
        (reel.next, reel.chain) = (header.sequence_behind(), header.chain_behind().0);
        let id = header.session.to_string();
        if self.saves.last().is_none_or(|save| save.id != id) && self.saves.iter().all(|save| save.id != id) {
            self.saves.push(Save {
                id: id.clone(),
                first: header.start,
                next: header.start,
                payload: header.last - header.first,
                bytes: None,
                content: None,
                parts: Vec::new(),
            });
            self.saves.sort_by_key(|save| save.first);
        }
        if let Some(save) = self.saves.iter_mut().find(|save| save.id == id) {
            save.next = save.next.max(header.sequence_behind());
            if header.kind == ReelKind::SessionEnd {
                save.bytes = Some(header.last);
            }
        }
    }

    /// Notes what a session holds.
    pub fn note_content(&mut self, session: SetId, index: &StreamIndex) {
        let id = session.to_string();
        if let Some(save) = self.saves.iter_mut().find(|save| save.id == id) {
            save.content = Content::of(index);
        }
    }

    /// Nothing more is written to this reel.
    pub fn close_reel(&mut self, number: u32) {
        self.reels.iter_mut().filter(|reel| reel.number == number).for_each(|reel| reel.closed = true);
    }

    /// The node whose spool it is, by its number; none if it holds saves.
    #[must_use]
    pub fn spool_of(&self) -> Option<u8> {
        let name = self.reels.first()?.name.strip_prefix(SPOOL_NAME)?;
        name.split(' ').next()?.parse().ok()
    }

    /// Notes parts of a spool that a session holds.
    pub fn note_parts(&mut self, session: SetId, parts: &[PartHeld]) {
        let id = session.to_string();
        if let Some(save) = self.saves.iter_mut().find(|save| save.id == id) {
            for part in parts {
                if save.parts.iter().all(|known| known.offset != part.offset) {
                    save.parts.push(*part);
                }
            }
        }
    }

    /// What these blocks held, for people.
    #[must_use]
    pub fn held(&self, blocks: std::ops::Range<u64>) -> String {
        let mut held = Vec::new();
        for save in self.saves.iter().filter(|save| save.first < blocks.end && save.next > blocks.start) {
            let offset = |block: u64| block.saturating_sub(save.first).saturating_mul(save.payload);
            let (from, to) = (blocks.start.max(save.first), blocks.end.min(save.next));
            let what = save.content.as_ref().map(|content| content.held(&(offset(from)..offset(to))));
            held.push(match (save.entries(&(offset(from)..offset(to))), what) {
                (Some((first, last)), _) => format!("entries {first} to {last} of the spool"),
                (None, Some(what)) => format!("{what} of save {}", save.id),
                (None, None) => format!("a part of save {}", save.id),
            });
        }
        held.join("; ")
    }

    /// The reel that has this block, and its position there.
    #[must_use]
    pub fn locate(&self, sequence: u64) -> Option<(&Reel, u64)> {
        let reel = self.reels.iter().rev().find(|reel| (reel.first..reel.next).contains(&sequence))?;
        let stretch = reel.stretches.iter().rev().find(|stretch| stretch.sequence <= sequence)?;
        Some((reel, stretch.position.saturating_add(sequence - stretch.sequence)))
    }
}

impl Save {
    /// The first and the last entry of the parts of a spool in these bytes of its stream.
    fn entries(&self, bytes: &std::ops::Range<u64>) -> Option<(u64, u64)> {
        let inside = |part: &&PartHeld| part.offset < bytes.end && part.end_offset() > bytes.start;
        let first = self.parts.iter().find(inside)?;
        let last = self.parts.iter().rev().find(inside)?;
        Some((first.header.first().0, last.header.end.seq.0))
    }

    /// The blocks that hold these bytes of its stream.
    #[must_use]
    pub fn blocks(&self, bytes: &std::ops::Range<u64>) -> std::ops::Range<u64> {
        let payload = self.payload.max(1);
        let first = self.first.saturating_add(bytes.start / payload);
        first..self.first.saturating_add(bytes.end.div_ceil(payload)).max(first)
    }
}

impl Reel {
    /// Blocks on it that count.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }
}

impl Content {
    /// Of a stream that was seen to its end; none if it is no save set.
    #[must_use]
    pub fn of(index: &StreamIndex) -> Option<Self> {
        let (header, begin, trailer) = (index.header()?, index.begin()?, index.trailer()?);
        let file = |file: &SetFile| FileHeld {
            id: file.id.0,
            blocks: file.blocks,
            items: file.items,
            bytes: file.bytes,
            name: file.name.clone(),
        };
        let alone = trailer.alone.as_ref().map(|alone| AloneHeld {
            files: alone.files.iter().map(file).collect(),
            defined: alone.defined.clone(),
            left_out: alone.left_out.clone(),
        });
        let counts = trailer.counts;
        let Chain(chain) = trailer.end.chain;
        Some(Self {
            set: header.set.to_string(),
            begun_ms: header.wall_ms,
            ended_ms: trailer.wall_ms,
            role: begin.role.name().to_owned(),
            node: begin.node.clone(),
            account: begin.account.clone(),
            left_out: begin.left_out.clone(),
            epoch: trailer.end.epoch.0,
            seq: trailer.end.seq.0,
            chain,
            counts: [counts.batches, counts.chunks, counts.items, counts.bytes],
            digest: hex(&trailer.digest),
            files: trailer.files.iter().map(file).collect(),
            alone,
            ranges: index.ranges().to_vec(),
        })
    }

    /// The parts of the stream (bytes; the end of the last one is open) that hold what is needed of one file.
    #[must_use]
    pub fn needed(&self, file: u64) -> Vec<std::ops::Range<u64>> {
        let ends = self.ranges.iter().skip(1).map(|range| range.offset).chain([u64::MAX]);
        let mut needed: Vec<std::ops::Range<u64>> = Vec::new();
        for (range, end) in self.ranges.iter().zip(ends) {
            if range.file != 0 && range.file != file {
                continue;
            }
            let from = if needed.is_empty() { 0 } else { range.offset };
            match needed.last_mut() {
                Some(last) if last.end == from => last.end = end,
                _ => needed.push(from..end),
            }
        }
        needed
    }

    /// What stands in these bytes of the stream, for people.
    #[must_use]
    pub fn held(&self, bytes: &std::ops::Range<u64>) -> String {
        let ends = self.ranges.iter().skip(1).map(|range| range.offset).chain([u64::MAX]);
        let mut names: Vec<&str> = Vec::new();
        for (range, end) in self.ranges.iter().zip(ends) {
            if range.offset < bytes.end && end > bytes.start {
                let own = self.alone.iter().flat_map(|alone| &alone.files);
                let file = self.files.iter().chain(own).find(|file| file.id == range.file);
                let name = file.map_or("updates and content of several files", |file| file.name.as_str());
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names.join(", ")
    }
}
