//! The journal's segments as the walk at a start reads them: past the page cache, two reads ahead of the walk.

use super::layout::Layout;
use super::starting::Starting;
use crate::base::limits::RECOVERY_READ;
use crate::base::{Fault, JournalKind, SegmentIndex};
use crate::io as disk;
use crate::journal::SegmentSource;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

const CELL: u64 = RECOVERY_READ as u64;
/// The cell that a batch begins in and the one it ends in.
const CELLS_KEPT: usize = 2;

/// Cells being read while the walk looks at one.
const LANES: usize = 2;

/// A piece of a segment: from this number of [`CELL`]s on.
type CellName = (SegmentIndex, u64);

/// Lists a journal's segments with their sizes, in order.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn list(layout: &Layout, journal: JournalKind) -> io::Result<Vec<(SegmentIndex, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(layout.journal(journal))? {
        let entry = entry?;
        match entry.file_name().to_str().and_then(Layout::segment_index) {
            Some(index) => found.push((index, entry.metadata()?.len())),
            None => tracing::warn!("{} is not a journal file: left alone", entry.path().display()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A thread that reads one cell at a time.
#[derive(Debug)]
struct Lane {
    ask: SyncSender<CellName>,
    answers: Receiver<io::Result<Bytes>>,
}

impl Lane {
    fn start(layout: &Layout, journal: JournalKind) -> io::Result<Self> {
        let (ask, asked) = sync_channel::<CellName>(1);
        let (answer, answers) = sync_channel(1);
        let layout = layout.clone();
        thread::Builder::new().name("read-ahead".to_owned()).spawn(move || {
            while let Ok((segment, cell)) = asked.recv() {
                if answer.send(read_cell(&layout.segment(journal, segment), cell)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ask, answers })
    }
}

/// Reads segments in cells, with the next cells being read at the same time: a disk gives more to two who ask.
#[derive(Debug)]
pub(crate) struct DiskSegments {
    layout: Layout,
    journal: JournalKind,
    segments: Vec<(SegmentIndex, u64)>,
    cells: VecDeque<(CellName, Bytes)>,
    lanes: Vec<Lane>,
    /// Cells being read, in the order of the walk, and by which lane.
    ahead: VecDeque<(CellName, usize)>,
    starting: Arc<Starting>,
}

impl DiskSegments {
    /// Of the segments as listed.
    ///
    /// # Errors
    /// When the reading threads cannot be started.
    pub(crate) fn new(
        layout: &Layout,
        journal: JournalKind,
        segments: &[(SegmentIndex, u64)],
        starting: &Arc<Starting>,
    ) -> io::Result<Self> {
        Ok(Self {
            layout: layout.clone(),
            journal,
            segments: segments.to_vec(),
            cells: VecDeque::new(),
            lanes: (0..LANES).map(|_| Lane::start(layout, journal)).collect::<io::Result<_>>()?,
            ahead: VecDeque::new(),
            starting: Arc::clone(starting),
        })
    }

    fn cell(&mut self, wanted: CellName) -> io::Result<Bytes> {
        if let Some((_, bytes)) = self.cells.iter().find(|(name, _)| *name == wanted) {
            return Ok(bytes.clone());
        }
        let mut found = None;
        while let Some((name, lane)) = self.ahead.pop_front() {
            let bytes = self.lanes.get(lane).and_then(|lane| lane.answers.recv().ok());
            if name == wanted {
                found = bytes;
                break;
            }
            // The walk went elsewhere, as it does after a cut.
        }
        self.read_ahead(wanted);
        let bytes = match found {
            Some(result) => result?,
            None => read_cell(&self.layout.segment(self.journal, wanted.0), wanted.1)?,
        };
        self.starting.add(bytes.len() as u64);
        self.cells.push_back((wanted, bytes.clone()));
        if self.cells.len() > CELLS_KEPT {
            self.cells.pop_front();
        }
        Ok(bytes)
    }

    /// Keeps every lane busy with what comes after `wanted`.
    fn read_ahead(&mut self, wanted: CellName) {
        while let Some(lane) =
            (0..self.lanes.len()).find(|lane| self.ahead.iter().all(|(_, busy)| busy != lane))
        {
            let last = self.ahead.back().map_or(wanted, |(name, _)| *name);
            let Some(next) = self.after(last) else { return };
            if self.lanes.get(lane).is_none_or(|lane| lane.ask.send(next).is_err()) {
                return;
            }
            self.ahead.push_back((next, lane));
        }
    }

    fn after(&self, (segment, cell): CellName) -> Option<CellName> {
        let at = self.segments.iter().position(|(index, _)| *index == segment)?;
        let (_, bytes) = self.segments.get(at)?;
        if (cell + 1) * CELL < *bytes {
            return Some((segment, cell + 1));
        }
        self.segments.get(at + 1).map(|(index, _)| (*index, 0))
    }

    fn gather(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut joined = BytesMut::new();
        let mut at = offset;
        let end = offset.saturating_add(len as u64);
        while at < end {
            let cell = self.cell((segment, at / CELL))?;
            let from = usize::try_from(at % CELL).unwrap_or(usize::MAX).min(cell.len());
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let to = from.saturating_add(wanted).min(cell.len());
            let part = cell.slice(from..to);
            let complete = part.len() == wanted || cell.len() < RECOVERY_READ;
            at += part.len() as u64;
            if complete && joined.is_empty() {
                return Ok(part);
            }
            joined.extend_from_slice(&part);
            if complete {
                break;
            }
        }
        Ok(joined.freeze())
    }
}

impl SegmentSource for DiskSegments {
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, Fault> {
        // A bad sector further on must not hide what lies before it.
        let result = self
            .gather(segment, offset, len)
            .or_else(|_| disk::read_direct(&self.layout.segment(self.journal, segment), offset, len));
        result.map_err(|error| Fault::from_io(&error))
    }
}

fn read_cell(path: &Path, cell: u64) -> io::Result<Bytes> {
    disk::read_direct(path, cell * CELL, RECOVERY_READ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn sample(bytes: usize, seed: u64) -> Vec<u8> {
        let mut rng = Prng::new(seed);
        (0..bytes / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
    }

    #[test]
    fn any_read_gives_what_the_files_hold_and_less_only_at_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let journal = JournalKind::Local;
        std::fs::create_dir_all(layout.journal(journal)).unwrap();
        let sizes = [RECOVERY_READ * 2 + 8192, 4096, RECOVERY_READ];
        let files: Vec<Vec<u8>> = sizes.iter().zip(1..).map(|(size, seed)| sample(*size, seed)).collect();
        for (file, index) in files.iter().zip(7..) {
            std::fs::write(layout.segment(journal, SegmentIndex(index)), file).unwrap();
        }
        std::fs::write(layout.journal(journal).join("stranger"), b"x").unwrap();
        let listed = list(&layout, journal).unwrap();
        assert_eq!(listed.iter().map(|(index, _)| index.0).collect::<Vec<_>>(), [7, 8, 9]);
        let mut source = DiskSegments::new(&layout, journal, &listed, &Arc::new(Starting::new())).unwrap();
        let mut rng = Prng::new(3);
        for round in 0..200_u64 {
            let index = if round < 100 { round / 34 } else { rng.below(3) };
            let file = &files[usize::try_from(index).unwrap()];
            let offset = rng.below(file.len() as u64 / 4096 + 1) * 4096;
            let len = usize::try_from(rng.below(6 << 20)).unwrap();
            let at = usize::try_from(offset).unwrap();
            let expected = &file[at..(at + len).min(file.len())];
            let found = source.read(SegmentIndex(7 + index), offset, len).unwrap();
            assert!(found == expected, "segment {index} from {offset}, {len} bytes: {} found", found.len());
        }
        assert_eq!(source.read(SegmentIndex(99), 0, 4096), Err(Fault::Errno(2)));
    }

    #[test]
    #[ignore = "a measurement, printed: reading and checksumming 1 GiB of segments"]
    fn speed_of_the_walk() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let layout = Layout::new(dir.path());
        let journal = JournalKind::Replicated;
        std::fs::create_dir_all(layout.journal(journal)).unwrap();
        let content = sample(64 << 20, 1);
        for index in 0..16 {
            let path = layout.segment(journal, SegmentIndex(index));
            std::fs::write(&path, &content).unwrap();
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
        }
        for ahead in [false, true, false, true] {
            let begin = std::time::Instant::now();
            let listed = list(&layout, journal).unwrap();
            let mut source =
                DiskSegments::new(&layout, journal, &listed, &Arc::new(Starting::new())).unwrap();
            if !ahead {
                // Nothing follows a segment that is not listed.
                source.segments.clear();
            }
            let mut crc = 0;
            for (index, bytes) in listed {
                for offset in (0..bytes).step_by(1 << 20) {
                    crc ^= crate::base::crc32c(&source.read(index, offset, 1 << 20).unwrap());
                }
            }
            println!("read-ahead {ahead}: 1 GiB in {} ms ({crc:08x})", begin.elapsed().as_millis());
        }
    }
}
