//! Sealed files, mapped for reading.

use super::options;
use crate::sys::map_read_only;
use bytes::Bytes;
use memmap2::{Advice, Mmap};
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Read at once where the kernel cannot populate a map (bytes).
const SCRATCH: usize = 64 << 10;

/// A sealed file in memory. Ranges of it live on when it is dropped.
#[derive(Debug)]
pub struct MappedSegment {
    file: File,
    map: Arc<Mmap>,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps a sealed file: nobody may write to it or cut it as long as the map or a range of it lives.
///
/// # Errors
/// Those of open(2) and mmap(2).
pub fn map_segment(path: &Path) -> io::Result<MappedSegment> {
    let file = options().open(path)?;
    let map = Arc::new(map_read_only(&file)?);
    Ok(MappedSegment { file, map })
}

impl MappedSegment {
    /// Size of the file (bytes).
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the file is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether a range of it lives.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.map) > 1
    }

    /// The bytes from `offset`, brought into memory first, without a copy.
    ///
    /// A page that the disk does not give is an error here; touched through the map it would be a SIGBUS. Use the
    /// range soon: memory that the kernel reclaims is read again.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range is not within the file; EIO if the disk did not give it.
    ///
    /// # Blocking
    /// For as long as the disk needs.
    pub fn range(&self, offset: usize, len: usize) -> io::Result<Bytes> {
        let end = offset.checked_add(len).filter(|&end| end <= self.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if len > 0 {
            self.populate(offset, end)?;
        }
        Ok(Bytes::from_owner(Owner(Arc::clone(&self.map))).slice(offset..end))
    }

    fn populate(&self, offset: usize, end: usize) -> io::Result<()> {
        let Err(error) = self.map.advise_range(Advice::PopulateRead, offset, end - offset) else {
            return Ok(());
        };
        match error.raw_os_error() {
            // madvise(2): "EFAULT ... a SIGBUS would have been generated on actual memory access".
            Some(libc::EFAULT) => Err(Errno::EIO.into()),
            // Before Linux 5.14: an ordinary read brings the pages in as well, and fails as politely.
            Some(libc::EINVAL) => self.read_through(offset, end),
            _ => Err(error),
        }
    }

    pub(super) fn read_through(&self, offset: usize, end: usize) -> io::Result<()> {
        let mut scratch = vec![0; SCRATCH.min(end - offset)];
        let mut at = offset;
        while at < end {
            let position = i64::try_from(at).map_err(|_| io::Error::from(Errno::EFBIG))?;
            match pread(&self.file, &mut scratch, position) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count,
            }
        }
        Ok(())
    }
}
