//! Where threads may run: with one P the server of a network scenario gets the first CPU and the generator the last,
//! so that they do not take turns on one. `cell` and `scenarios::echo` call it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first and the last CPU that the calling thread may use, if it has a choice.
pub fn first_and_last() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    Some((cpus.next()?, cpus.next_back()?))
}

/// Pins the calling thread, and the threads and processes it will start, to `cpu`. Says so if that fails.
pub fn to(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    if let Err(error) = sched_setaffinity(None, &one) {
        eprintln!("gmp-bench: cannot pin to CPU {cpu}: {error}");
    }
}
