//! What the allocator does with memory that was freed.

/// Has the allocator keep up to `most` bytes that were freed for whoever needs some next, in pieces of at most `largest`.
/// Given back to the kernel at once, as is usual, they are cleared page by page when they come again. To be called before
/// there are other threads. Where the C library knows no such wish, nothing changes.
pub fn keep_freed(most: usize, largest: usize) {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [(libc::M_TRIM_THRESHOLD, most), (libc::M_MMAP_THRESHOLD, largest)] {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt(3) takes two plain numbers and touches no memory of ours. It changes how the allocator works, not
        // what it promises; a value that it does not take changes nothing.
        let _ = unsafe { libc::mallopt(what, bytes) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (most, largest);
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    #[test]
    fn memory_that_was_freed_comes_again_without_the_kernel() {
        super::keep_freed(32 << 20, 4 << 20);
        let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
        let some = || drop(std::hint::black_box([(); 6].map(|()| vec![1_u8; 3 << 20])));
        some();
        let before = faults();
        (0..20).for_each(|_| some());
        let more = faults() - before;
        assert!(more < 20 * (18 << 20) / 4096 / 10, "{more} pages were cleared for what was there");
    }
}
