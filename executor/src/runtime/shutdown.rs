//! Shutdown, in numbered steps (see [`shut_down`]).
//!
//! 1. After step 1 no task enters. After step 3 no poll begins.
//! 2. The thread that shuts down has this runtime as its context, and no processor: destructors that spawn get a handle
//!    that says "runtime shut down", and never start the default runtime.
//! 3. A slot is recycled only when its threads have ended and no task lives. What is left after a timeout keeps its
//!    type-stable memory, and its slot is never used again.

use std::time::{Duration, Instant};

use super::free_slot;
use crate::context;
use crate::processor::CLOSING;
use crate::sched::{RuntimeRef, Sched};
use crate::task;

/// What a shutdown left behind when its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Tasks whose future still exists: those whose poll has not ended.
    pub tasks: usize,
    /// Threads that have not ended.
    pub threads: usize,
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the runtime did not shut down in time: {} tasks in {} threads are left", self.tasks, self.threads)
    }
}

impl std::error::Error for Leftover {}

/// `Runtime` is dropped: on a thread of its own it starts the shutdown and does not wait; on a thread of another runtime it
/// gives that one's processor up meanwhile.
pub(super) fn on_drop(runtime: RuntimeRef) {
    let sched = runtime.sched;
    let cx = context::current();
    match cx.processor {
        Some(p) if std::ptr::eq(p.sched, sched) => {
            close(sched);
            let rest = std::thread::Builder::new().name("gmp-shutdown".into());
            // Without a thread the runtime stays closed and its tasks are never dropped; there is nobody to tell.
            drop(rest.spawn(move || shut_down(runtime, None)));
        }
        Some(other) => {
            let machine = other.sched.new_machine();
            other.sched.give_up(other);
            let _ = shut_down(runtime, None);
            other.sched.acquire(machine);
            other.sched.free_machine(machine);
        }
        None => {
            let _ = shut_down(runtime, None);
        }
    }
}

/// Steps 1 to 3: nothing new begins.
fn close(sched: &'static Sched) {
    if !sched.start_closing() {
        return;
    }
    // 1. No task enters the registry from here on.
    sched.slots().for_each(|slot| slot.registry.close());
    // 2. Machines that sleep, or want a processor, are released without one.
    sched.idle.close(sched);
    // 3. A machine begins no further poll: it empties its processor into the global queue and ends.
    sched.slots().for_each(|slot| slot.processor.ask(CLOSING));
}

pub(super) fn shut_down(runtime: RuntimeRef, timeout: Option<Duration>) -> Result<(), Leftover> {
    let sched = runtime.sched;
    if !runtime.is_of_this_process() {
        // The threads, and whatever they held, stayed with the parent.
        return Ok(());
    }
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    close(sched);
    let _entered = context::enter(runtime);
    // 4. Every task that waits becomes ready, into the global queue.
    sched.slots().for_each(|slot| slot.registry.wake_all());
    // 5. What is queued is dropped, until no task lives and no machine runs.
    loop {
        discard_queued(sched);
        let leftover = Leftover { tasks: sched.live_tasks(), threads: sched.threads.count() };
        if leftover.tasks == 0 && leftover.threads == 0 {
            break;
        }
        match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
            // Each task that ends and each machine that ends unparks us.
            None => sched.shutdown.park(),
            Some(left) if left.is_zero() => return Err(leftover),
            Some(left) => {
                sched.shutdown.park_timeout(left);
            }
        }
    }
    // 6. `sysmon` ends last of the threads; all are joined.
    sched.sysmon.end();
    for thread in sched.threads.take_handles() {
        // A machine does not panic; its hook may, and the panic has been printed.
        drop(thread.join());
    }
    // 7. Sockets and timers that were moved out of their tasks are dead from here on.
    sched.netpoll.close();
    sched.slots().for_each(|slot| slot.timers.close());
    // 8. The slot may serve another runtime.
    sched.recycle();
    free_slot(sched);
    Ok(())
}

/// Takes every queued task, wherever it is, and drops it.
fn discard_queued(sched: &'static Sched) {
    loop {
        let unit = sched.inject.pop().or_else(|| {
            sched.slots().find_map(|slot| {
                let queue = &slot.processor.queue;
                queue.steal_one().or_else(|| queue.next.steal(queue.next.peek()))
            })
        });
        match unit {
            Some(unit) => task::discard(unit),
            None => return,
        }
    }
}
