//! The allocator of all peers, the system's or mimalloc (feature `mimalloc`), with a switch that counts. The binary
//! installs it; `laps` and `scenarios::idle` switch it on.
//!
//! 1. While the switch is off an allocation costs one relaxed load more than the allocator's own, for all peers alike:
//!    nothing is timed while it is on.
//! 2. Bytes are those asked for; what the allocator rounds up is seen in the RSS figures alone.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

#[cfg(feature = "mimalloc")]
use mimalloc::MiMalloc as Under;
#[cfg(not(feature = "mimalloc"))]
use std::alloc::System as Under;

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

/// The allocator to install with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// What allocates, for a report; Go has its own in any case.
pub fn name() -> String {
    match IS_SYSTEMS {
        true => "the system's".into(),
        false => format!("mimalloc, its v3 (crate {})", crate::peers::version("mimalloc")),
    }
}

/// Whether it is the system's, whose counts the gates hold.
pub const IS_SYSTEMS: bool = cfg!(not(feature = "mimalloc"));

/// What was allocated between [`start`] and [`stop`], on all threads.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Calls that allocated, `realloc` included.
    pub allocs: u64,
    /// Bytes allocated less bytes freed.
    pub live_bytes: i64,
}

/// Sets the counters to zero and switches counting on.
pub fn start() {
    ALLOCS.store(0, Relaxed);
    LIVE_BYTES.store(0, Relaxed);
    ON.store(true, Relaxed);
}

/// Switches counting off and returns what was counted. Zeros where the binary has another allocator.
pub fn stop() -> Counts {
    ON.store(false, Relaxed);
    Counts { allocs: ALLOCS.load(Relaxed), live_bytes: LIVE_BYTES.load(Relaxed) }
}

fn count(allocs: u64, bytes: i64) {
    if ON.load(Relaxed) {
        ALLOCS.fetch_add(allocs, Relaxed);
        LIVE_BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: every call goes to `Under` with the caller's arguments unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `Under`'s.
        unsafe { Under.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as in `alloc`.
        unsafe { Under.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: `ptr` came from `Under` with this layout, for all of ours do.
        unsafe { Under.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, new_size as i64 - layout.size() as i64);
        // SAFETY: as in `dealloc`; `new_size` is the caller's.
        unsafe { Under.realloc(ptr, layout, new_size) }
    }
}
