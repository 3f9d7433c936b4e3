//! Reads of volumes that are checked, and the checksums of what is written.
//!
//! Only whole blocks have checksums. So a read reads whole blocks, and a change of a part of one reads what is around it.
//! A block of which that is wrong stays wrong, whatever is written to a part of it: its record says so, durably.

use super::calls;
use super::files::{PART_BYTES, Part, Place, VolumeFiles, opened, part_path, parts_of};
use super::sums::{BadPlace, NewSums, Summing, Wrong, read_full, read_records, record_of, sums_path};
use crate::base::limits::{BLOCK, BLOCK_U64, VOLUME_FOUND_MAX};
use crate::base::{FileId, crc32c};
use crate::format::sums::{RECORD, SumKey, Verdict, record_at};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What is wanted of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Tell what is wrong. A part that is older than checksums gets them.
    Scrub,
    /// The same, and content whose checksum is damaged or missing gets a new one as it is.
    Renew,
}

/// The data and the checksums of a part, as far as they are there.
type FilesNow = (Option<Arc<File>>, Option<Arc<File>>);

impl VolumeFiles {
    /// What was found wrong and not told yet.
    pub(in crate::store) fn take_found(&mut self) -> Vec<BadPlace> {
        std::mem::take(&mut self.found)
    }

    /// Notes a wrong block, together with its neighbours that are wrong in the same way.
    fn note(&mut self, part: Part, block: u64, wrong: Wrong) {
        let (file, offset) = (part.0, part.1 * PART_BYTES + block * BLOCK_U64);
        let room = self.found.len() < VOLUME_FOUND_MAX;
        match self.found.last_mut() {
            Some(last) if last.file == file && last.wrong == wrong && last.offset + last.len == offset => {
                last.len += BLOCK_U64;
            }
            _ if room => self.found.push(BadPlace { file, offset, len: BLOCK_U64, wrong }),
            _ => {}
        }
    }

    /// Reads a range; what was never written is zeros. None, and noted, if any of its blocks is not what was written,
    /// unless `lenient`.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(in crate::store) fn read(
        &mut self,
        file: FileId,
        offset: u64,
        len: usize,
        lenient: bool,
    ) -> io::Result<Option<Bytes>> {
        let end = offset + u64::try_from(len).unwrap_or(0);
        let from = offset / BLOCK_U64 * BLOCK_U64;
        let blocks = end.next_multiple_of(BLOCK_U64) - from;
        let mut all = vec![0; usize::try_from(blocks).unwrap_or(usize::MAX)];
        let (mut rest, mut right) = (all.as_mut_slice(), true);
        for (part, within, some) in parts_of(from, blocks) {
            let (this, other) = rest.split_at_mut(usize::try_from(some).unwrap_or(0));
            rest = other;
            right &= self.read_part((file, part), within, this, lenient)?;
        }
        let skip = usize::try_from(offset - from).unwrap_or(0);
        Ok(right.then(|| Bytes::from(all).slice(skip..skip + len)))
    }

    /// The files of a part as they are now, open or not.
    fn files_of(&self, part: Part) -> io::Result<FilesNow> {
        if let Some(open) = self.parts.get(&part).and_then(|known| known.open.as_ref()) {
            return Ok((Some(Arc::clone(&open.data)), Some(Arc::clone(&open.sums.file))));
        }
        let data = opened(&part_path(&self.dir, part.0, part.1))?;
        let sums = opened(&sums_path(&self.dir, part.0, part.1))?;
        Ok((data.map(Arc::new), sums.map(Arc::new)))
    }

    /// Reads whole blocks of a part into zeros; false if one is not what was written.
    fn read_part(&mut self, part: Part, within: u64, into: &mut [u8], lenient: bool) -> io::Result<bool> {
        let Some(known) = self.parts.get(&part) else { return Ok(true) };
        let complete = known.complete;
        let (data, sums) = self.files_of(part)?;
        if let Some(data) = data {
            read_full(&data, into, within)?;
        }
        let Some(sums) = sums.filter(|_| !lenient) else { return Ok(true) };
        let first = within / BLOCK_U64;
        let records = read_records(&sums, first, (into.len() / BLOCK) as u64)?;
        let (key, mut right) = (SumKey::new(part.0, part.1), true);
        for ((n, bytes), block) in into.chunks(BLOCK).enumerate().zip(first..) {
            let wrong = match key.judge(block, record_of(&records, n), bytes) {
                Verdict::Right => continue,
                Verdict::NoRecord if !complete => continue,
                Verdict::Mend => {
                    self.renew(part, block, bytes, Wrong::Mended)?;
                    continue;
                }
                Verdict::NoRecord => Wrong::NoChecksum,
                Verdict::BadRecord => Wrong::Checksum,
                Verdict::Rotten | Verdict::Condemned => Wrong::Content,
            };
            right = false;
            self.note(part, block, wrong);
        }
        Ok(right)
    }

    /// Gives a block a checksum of what it holds.
    fn renew(&mut self, part: Part, block: u64, bytes: &[u8], why: Wrong) -> io::Result<()> {
        self.note(part, block, why);
        self.give_sum(part, block, bytes)
    }

    fn give_sum(&mut self, part: Part, block: u64, bytes: &[u8]) -> io::Result<()> {
        let sums = self.part(part)?.sums;
        calls::write(&sums.file, &sums.key.record(block, crc32c(bytes)), record_at(block))
    }

    /// Checks the blocks of a range as they are on disk, and notes what is wrong.
    ///
    /// # Errors
    /// Those of pread(2) and pwrite(2).
    pub(in crate::store) fn check(
        &mut self,
        file: FileId,
        offset: u64,
        len: u64,
        check: Check,
    ) -> io::Result<()> {
        for (part, within, some) in parts_of(offset / BLOCK_U64 * BLOCK_U64, len.next_multiple_of(BLOCK_U64))
        {
            self.check_part((file, part), within, some, check)?;
        }
        Ok(())
    }

    fn check_part(&mut self, part: Part, within: u64, len: u64, check: Check) -> io::Result<()> {
        let Some(known) = self.parts.get(&part) else { return Ok(()) };
        let complete = known.complete;
        let (data, sums) = self.files_of(part)?;
        let (first, mut bytes) = (within / BLOCK_U64, vec![0; usize::try_from(len).unwrap_or(0)]);
        if let Some(data) = &data {
            forget_cached(data, within, len);
            read_full(data, &mut bytes, within)?;
        }
        let records = match &sums {
            Some(sums) => read_records(sums, first, len / BLOCK_U64)?,
            None => vec![0; bytes.len() / BLOCK * RECORD],
        };
        let key = SumKey::new(part.0, part.1);
        for ((n, bytes), block) in bytes.chunks(BLOCK).enumerate().zip(first..) {
            match (key.judge(block, record_of(&records, n), bytes), check) {
                (Verdict::Right, _) => {}
                (Verdict::NoRecord, _) if !complete => self.give_sum(part, block, bytes)?,
                (Verdict::Mend, _) => self.renew(part, block, bytes, Wrong::Mended)?,
                (Verdict::NoRecord | Verdict::BadRecord, Check::Renew) => {
                    self.renew(part, block, bytes, Wrong::Renewed)?;
                }
                (Verdict::NoRecord, Check::Scrub) => self.note(part, block, Wrong::NoChecksum),
                (Verdict::BadRecord, Check::Scrub) => self.note(part, block, Wrong::Checksum),
                (Verdict::Rotten | Verdict::Condemned, _) => self.note(part, block, Wrong::Content),
            }
        }
        Ok(())
    }

    /// A scrub has been through a whole volume, and every block could be read.
    ///
    /// # Errors
    /// Those of fdatasync(2) and pwrite(2).
    pub(in crate::store) fn scrubbed(&mut self, file: FileId) -> io::Result<()> {
        for part in self.parts_of_file(file) {
            if self.parts.get(&part).is_some_and(|known| !known.complete) {
                self.completed(part)?;
            }
        }
        Ok(())
    }
}

/// What is known to be wrong is not given out.
impl VolumeFiles {
    /// From now on a block, in which nothing is, is one that is rotten.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub(in crate::store) fn condemn(&mut self, file: FileId, offset: u64) -> io::Result<()> {
        let (part, block) = ((file, offset / PART_BYTES), offset % PART_BYTES / BLOCK_U64);
        let sums = self.part(part)?.sums;
        let record = sums.key.condemned(block, crc32c(&[0; BLOCK]));
        calls::write(&sums.file, &record, record_at(block))?;
        self.note(part, block, Wrong::Content);
        Ok(())
    }
}

/// What is written gets its checksums.
impl VolumeFiles {
    /// One block as it is stored, and whether it is what was written. Data and records of the same round that are not
    /// written yet are in `sums`.
    fn block(&mut self, place: &Place, block: u64, sums: &mut NewSums) -> io::Result<(Vec<u8>, bool)> {
        let (part, mut bytes) = (place.part, vec![0; BLOCK]);
        let open = self.part(part)?;
        read_full(&open.data, &mut bytes, block * BLOCK_U64)?;
        let record = match sums.record(part, block) {
            Some(record) => record,
            None => record_of(&open.sums.read(block, 1)?, 0),
        };
        // That it was wrong is durable, so no crash has left it so.
        let lenient = place.lenient && self.may_differ(part, block);
        if lenient && !open.sums.key.is_condemned(block, record) {
            return Ok((bytes, true));
        }
        let complete = self.parts.get(&part).is_none_or(|known| known.complete);
        let wrong = match open.sums.key.judge(block, record, &bytes) {
            Verdict::Right | Verdict::Mend => return Ok((bytes, true)),
            Verdict::NoRecord if !complete => return Ok((bytes, true)),
            Verdict::NoRecord => Wrong::NoChecksum,
            Verdict::BadRecord => Wrong::Checksum,
            Verdict::Rotten | Verdict::Condemned => Wrong::Content,
        };
        self.note(part, block, wrong);
        sums.condemn(part);
        Ok((bytes, false))
    }

    /// What data that is about to be written makes of the checksums.
    pub(super) fn sum_data(
        &mut self,
        place: Place,
        slices: &VecDeque<&[u8]>,
        sums: &mut NewSums,
    ) -> io::Result<()> {
        let end = place.offset + place.len;
        let (first, last) = (place.offset / BLOCK_U64, (end - 1) / BLOCK_U64);
        let (before, behind) = (within(place.offset), within(end));
        let head = if before > 0 { Some(self.block(&place, first, sums)?) } else { None };
        let tail = match &head {
            _ if behind == 0 => None,
            Some(head) if first == last => Some(head.clone()),
            _ => Some(self.block(&place, last, sums)?),
        };
        let mut summing = Summing::default();
        if let Some((bytes, _)) = &head {
            summing.push(&bytes[..before]);
        }
        slices.iter().for_each(|slice| summing.push(slice));
        if let Some((bytes, _)) = &tail {
            summing.push(&bytes[behind..]);
        }
        let wrong = |block: &Option<(Vec<u8>, bool)>| block.as_ref().is_some_and(|(_, right)| !right);
        let (wrong_head, wrong_tail) = (wrong(&head), wrong(&tail));
        let key = SumKey::new(place.part.0, place.part.1);
        let mut records = Vec::with_capacity(summing.sums.len() * RECORD);
        for (sum, block) in summing.sums.into_iter().zip(first..) {
            let stays_wrong = (block == first && wrong_head) || (block == last && wrong_tail);
            let record = if stays_wrong { key.condemned(block, sum) } else { key.record(block, sum) };
            records.extend_from_slice(&record);
        }
        sums.set(place.part, first, records);
        Ok(())
    }

    /// What zeros that are about to be made make of them.
    pub(super) fn sum_zeros(&mut self, place: Place, sums: &mut NewSums) -> io::Result<()> {
        let end = place.offset + place.len;
        let (from, until) = (place.offset.div_ceil(BLOCK_U64), end / BLOCK_U64);
        if from > until {
            return self.sum_edge(&place, until, within(place.offset)..within(end), sums);
        }
        if within(place.offset) > 0 {
            self.sum_edge(&place, from - 1, within(place.offset)..BLOCK, sums)?;
        }
        if from < until {
            sums.clear(place.part, from, until - from);
        }
        if within(end) > 0 {
            self.sum_edge(&place, until, 0..within(end), sums)?;
        }
        Ok(())
    }

    fn sum_edge(
        &mut self,
        place: &Place,
        block: u64,
        zeros: std::ops::Range<usize>,
        sums: &mut NewSums,
    ) -> io::Result<()> {
        let (mut bytes, right) = self.block(place, block, sums)?;
        bytes[zeros].fill(0);
        let sum = crc32c(&bytes);
        let key = SumKey::new(place.part.0, place.part.1);
        let record = if right { key.record(block, sum) } else { key.condemned(block, sum) };
        sums.set(place.part, block, record.to_vec());
        Ok(())
    }
}

fn within(offset: u64) -> usize {
    usize::try_from(offset % BLOCK_U64).unwrap_or(0)
}

/// Lets the page cache forget what it holds clean, so that the next read is of the disk. A wish: it may not come true.
fn forget_cached(file: &File, offset: u64, len: u64) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
        let _ = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
