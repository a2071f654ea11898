//! A runtime of which a test can tell that all its threads sleep.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use gmp::runtime::{Builder, Runtime};

/// A runtime whose threads have a name of their own among those of the process.
pub struct Resting {
    runtime: Runtime,
    name: String,
}

impl Resting {
    pub fn new(procs: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("rest{}", COUNT.fetch_add(1, Relaxed));
        Resting { runtime: Builder::new().procs(procs).thread_name(&name).build().unwrap(), name }
    }

    /// Waits until every machine sleeps, one of them in the netpoller.
    pub fn rest(&self) {
        let mut same = 0;
        let mut last = self.metrics();
        while same < 3 {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.metrics();
            let rests = now.idle_procs == now.procs
                && now.idle_threads == now.threads
                && now.parks == last.parks
                && self.threads_sleep();
            same = if rests { same + 1 } else { 0 };
            last = now;
        }
    }

    /// Whether the system has put every thread to sleep. A machine counts as idle shortly before it sleeps: one that
    /// was preempted there has not told yet until when it will.
    #[cfg(target_os = "linux")]
    fn threads_sleep(&self) -> bool {
        let mine = format!("({}-", self.name);
        std::fs::read_dir("/proc/self/task").unwrap().all(|thread| {
            // A thread that has ended since does not run.
            let Ok(stat) = std::fs::read_to_string(thread.unwrap().path().join("stat")) else { return true };
            let (name, state) = stat.rsplit_once(") ").unwrap();
            !name.contains(&mine) || state.starts_with('S')
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn threads_sleep(&self) -> bool {
        true
    }
}

impl Deref for Resting {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}
