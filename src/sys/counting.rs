//! What a thread allocates, for the tests of this crate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has allocated since it began to count (bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Held at once, at most, beyond what was held before.
    pub(crate) peak: usize,
    /// The largest single allocation.
    pub(crate) largest: usize,
}

thread_local! {
    /// Held now, since the count began; freeing what is older takes it below zero.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Counts what `work` allocates on this thread.
pub(crate) fn counted(work: impl FnOnce()) -> Counted {
    HELD.set(0);
    PEAK.set(0);
    LARGEST.set(0);
    work();
    Counted { peak: usize::try_from(PEAK.get()).unwrap_or(0), largest: LARGEST.get() }
}

fn grown(bytes: usize) {
    let held = HELD.get().saturating_add_unsigned(bytes);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
    LARGEST.set(LARGEST.get().max(bytes));
}

fn freed(bytes: usize) {
    HELD.set(HELD.get().saturating_sub_unsigned(bytes));
}

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is; the counters are plain cells of the thread, without a
// destructor, so that touching them neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(layout.size());
        // SAFETY: the caller keeps the contract of this very function, and all memory comes from the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        freed(layout.size());
        // SAFETY: the caller keeps the contract of this very function, and all memory comes from the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_is_counted_and_what_others_hold_is_not() {
        let old = vec![0_u8; 1000];
        let counted = counted(|| {
            drop(old);
            drop(vec![0_u8; 5000]);
            let mut kept = Vec::<u8>::with_capacity(3000);
            kept.reserve_exact(4000);
            std::thread::scope(|scope| {
                scope.spawn(|| drop(vec![0_u8; 1 << 20])).join().expect("no panic");
            });
        });
        assert!((6000..20_000).contains(&counted.peak), "{counted:?}");
        assert!((5000..20_000).contains(&counted.largest), "{counted:?}");
    }
}
