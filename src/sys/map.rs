//! Files mapped for reading.

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// Maps all of `file` read-only and shared.
///
/// The file must be sealed: from now until the map is gone nobody writes to it or cuts it. Cut files are the
/// kernel's SIGBUS (mmap(2)), not memory errors; changed content would break Rust's rules on shared slices.
///
/// # Errors
/// Those of mmap(2).
pub fn map_read_only(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is private to no one, but nobody changes what it shows: only sealed journal files, spool and
    // save sets are mapped, which this program never writes again, in a directory of mode 0700 that a lock keeps for
    // one daemon. Another program that writes into it has broken in already.
    unsafe { Mmap::map(file) }
}
