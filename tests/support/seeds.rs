//! The seeds of random tests. Each such test takes its choices from here, those of the executor too, so that one
//! convention serves them all: a failure names its seed, and `GMP_SEED` runs that seed alone.
//!
//! 1. What a test chooses comes from its seed and nothing else. In a test of one thread the run is the same to the last
//!    step; one of several threads makes the same choices, and the system interleaves them anew.

use std::io::Write;
use std::thread;

/// A run of a random test. If it ends in a panic, standard error has the seed.
pub struct Seed(u64);

/// One run for each of the seeds, or only that of `GMP_SEED` if it is set.
pub fn seeds(usual: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Seed> {
    let wanted = std::env::var("GMP_SEED").ok();
    let wanted = wanted.map(|text| text.parse().unwrap_or_else(|_| panic!("GMP_SEED={text:?} is no whole number")));
    let usual = wanted.is_none().then_some(usual);
    wanted.into_iter().chain(usual.into_iter().flatten()).map(Seed)
}

/// The one run of a test that has no others.
pub fn seed(usual: u64) -> Seed {
    seeds([usual]).next().expect("one seed makes one run")
}

impl Seed {
    pub fn value(&self) -> u64 {
        self.0
    }

    /// The choices of the thread with this number.
    pub fn random(&self, thread: u64) -> Random {
        Random::new(self.0.wrapping_add(thread << 32))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            tell(self.0);
        }
    }
}

/// Says on standard error how to have this run again. Past the harness, which keeps `eprintln!` to itself: the process
/// may be about to abort.
pub fn tell(seed: u64) {
    let name = thread::current().name().unwrap_or("").to_owned();
    let _ = writeln!(std::io::stderr(), "this run again: GMP_SEED={seed} cargo test {name}");
}

/// Random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, which is left out.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }
}
