//! Shutdown, in numbered steps (see [`shut_down`]).
//!
//! 1. After step 1 no task enters the registry or a shared arena. After step 3 no poll begins.
//! 2. The thread that shuts down has this runtime as its context, and none of its processors: destructors that spawn
//!    get a handle that says "runtime shut down", and never start the default runtime.
//! 3. A slot is recycled only when its threads have ended, no task lives and no thread of others is its guest. What is
//!    left after a timeout is waited for by a thread of its own.
//! 4. After steps 1 and 4 each task that lives is in a queue, or about to be put into one by somebody who unparks
//!    shutdown, or in a poll; the machine of that poll unparks shutdown when it ends.
//! 5. A thread that holds a processor may spawn in its arena whatever was said before. It is a machine or a guest, so
//!    it is waited for. The push goes to the processor's queue, which is emptied here, or by its machine, which ends;
//!    to the global queue, if the processor is a husk; and who held it unparks shutdown. So when no machine and no
//!    guest is left all such tasks are seen, in the arena and in a queue. A thread whose processor was taken in a
//!    blocking call has none, and is refused.

use std::time::{Duration, Instant};

use super::block_on::Aside;
use super::free_slot;
use crate::clock;
use crate::context;
use crate::processor::{CLOSING, Processor};
use crate::sched::stuck::{Suspect, Verdict};
use crate::sched::{RuntimeRef, Sched};
use crate::task;

/// What a shutdown left behind when its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Tasks whose future still exists: those whose poll has not ended.
    pub tasks: usize,
    /// Threads in such a poll, and those that are on their way to their end.
    pub threads: usize,
    /// Threads in a blocking closure that has not ended. One that runs on a processor is a task here.
    pub blocking: usize,
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Leftover { tasks, threads, blocking } = self;
        write!(f, "the runtime did not shut down in time: {tasks} tasks in {threads} threads")?;
        write!(f, " and {blocking} blocking closures are left")
    }
}

impl std::error::Error for Leftover {}

/// A drop waits no longer for threads that are stuck. Two runtimes whose tasks drop each other would each wait for the
/// other one's poll, and the end of a program for a task that reads from a terminal.
const DROP_WAITS: Duration = Duration::from_secs(1);

/// How far apart the looks at threads are that a drop has waited for so long.
const LOOK: Duration = Duration::from_millis(10);

/// How long a shutdown waits.
pub(super) enum Patience {
    /// Until then.
    Until(Instant),
    /// Until then, and further while a thread is not stuck.
    Drop(Instant, StuckThreads),
    /// For ever.
    Endless,
}

impl Patience {
    pub(super) fn timeout(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Patience::Endless, Patience::Until)
    }

    pub(super) fn drop() -> Self {
        Patience::Drop(Instant::now() + DROP_WAITS, StuckThreads::default())
    }

    /// For how long to wait until the next look; the outer `None` is no longer, the inner one until something has
    /// changed.
    fn wait(&mut self, sched: &'static Sched) -> Option<Option<Duration>> {
        let left = |end: &Instant| Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        match self {
            Patience::Endless => Some(None),
            Patience::Until(end) => left(end).map(Some),
            Patience::Drop(end, stuck) => match left(end) {
                None if stuck.are_all(sched) => None,
                left => Some(left.or(Some(LOOK))),
            },
        }
    }
}

/// Threads that have not ended, as `sysmon` remembers polls. One that is asleep, or has computed since the first look
/// for as long as makes a poll stuck, is so; one that only has no CPU is waited for.
#[derive(Default)]
pub(super) struct StuckThreads {
    looked_at: Option<Instant>,
    /// The second is whether the thread has computed for so long: that it has no CPU just now changes nothing then.
    seen: Vec<(Suspect, bool)>,
}

impl StuckThreads {
    /// Whether all are: the runtime's own, and those of others in a poll. It takes two looks.
    fn are_all(&mut self, sched: &'static Sched) -> bool {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
            return false;
        }
        let is_first = self.looked_at.replace(Instant::now()).is_none();
        let now = clock::now();
        let mut threads = sched.threads.running();
        let polling = sched.slots().map(|slot| slot.processor()).filter(|p| p.polls() % 2 == 1);
        threads.extend(polling.map(Processor::tid));
        threads.sort_unstable();
        threads.dedup();
        self.seen.retain(|(suspect, _)| threads.contains(&suspect.tid()));
        let mut are_stuck = true;
        for tid in threads {
            are_stuck &= match self.seen.iter_mut().find(|(suspect, _)| suspect.tid() == tid) {
                Some((suspect, computes)) => {
                    let is_stuck = suspect.look(now) == Verdict::Stuck;
                    *computes |= is_stuck && !suspect.was_blocked();
                    is_stuck || *computes
                }
                None => {
                    self.seen.push((Suspect::of_thread(tid, now), false));
                    false
                }
            };
        }
        are_stuck && !is_first
    }
}

/// Steps 1 to 3: nothing new begins.
fn close(sched: &'static Sched) {
    if !sched.start_closing() {
        return;
    }
    // 1. No task enters the registry or a shared arena from here on.
    sched.close_outside();
    // 2. Machines that sleep, or want a processor, are released without one.
    sched.idle.close(sched);
    // 3. No blocking closure starts; threads of the pool without one end. A pinned task's thread drops it when its poll
    //    has ended. A machine begins no further poll: it empties its processor into the global queue and ends.
    sched.blocking.close();
    sched.pinned.close();
    sched.close_lanes();
    sched.slots().flat_map(|slot| slot.objects()).for_each(|p| p.ask(CLOSING));
    // Who waits in `block_on` keeps time itself from here on (`sched::closing`).
    sched.waits.unpark_all(sched.runtime().generation);
}

/// Shuts the runtime down. A thread of its own, also in the destructors of its thread-locals, and one in the middle of
/// its `block_on`, also where that has no processor, cannot wait for itself: there it is only started, and what is left
/// is the answer. A thread that holds a processor of another runtime gives that one up meanwhile.
pub(super) fn shut_down(runtime: RuntimeRef, patience: Patience) -> Result<(), Leftover> {
    let sched = runtime.sched;
    if !runtime.is_of_this_process() {
        // The threads, and whatever they held, stayed with the parent.
        return Ok(());
    }
    close(sched);
    if context::is_thread_of(runtime) || sched.waits.has_this_thread(runtime.generation) {
        finish_elsewhere(runtime);
        return Err(leftover(sched));
    }
    let machine = sched.new_machine();
    let aside = Aside::new(machine);
    let result = discard_all(runtime, patience);
    if !runtime.is_of_this_process() {
        // What the thread gave up meanwhile, too, stays the parent's.
        std::mem::forget(aside);
        return Ok(());
    }
    match result {
        Ok(()) => finish(runtime),
        Err(_) => finish_elsewhere(runtime),
    }
    drop(aside);
    sched.free_machine(machine);
    result
}

/// Steps 4 to 8 on a thread of their own, which waits for as long as it takes.
pub(crate) fn finish_elsewhere(runtime: RuntimeRef) {
    if runtime.sched.pinned_asks_to_finish() {
        return;
    }
    let rest = move || {
        if discard_all(runtime, Patience::Endless).is_ok() {
            runtime.sched.die_if_forked();
            finish(runtime);
        }
    };
    // Without a thread the runtime stays closed and its tasks are never dropped; there is nobody to tell.
    drop(std::thread::Builder::new().name("gmp-shutdown".into()).spawn(rest));
}

fn leftover(sched: &'static Sched) -> Leftover {
    let (pool, blocking) = sched.blocking.counts();
    let pinned = sched.pinned.live();
    // After those of the pool: one that is lent counts as a machine before its closure counts as ended. And first of
    // the rest: what they spawned is then seen (invariant 5).
    let threads = sched.threads.count() + sched.guests() + pinned + (pool - blocking);
    // A closure that runs is a task too.
    let tasks = sched.live_tasks().saturating_sub(blocking) + pinned;
    Leftover { tasks, threads, blocking }
}

/// Steps 4 and 5.
fn discard_all(runtime: RuntimeRef, mut patience: Patience) -> Result<(), Leftover> {
    let sched = runtime.sched;
    let _entered = context::enter(runtime);
    let mut who = None;
    loop {
        // Before all is counted: what ends meanwhile is not left over.
        let wait = patience.wait(sched);
        // 4. Every task that waits becomes ready, into the global queue. Again when a machine has ended or a guest has
        //    left: it may have polled one of them since.
        let now = Some((sched.threads.count(), sched.guests()));
        if now != who {
            who = now;
            sched.wake_all_tasks();
        }
        // 5. What is queued is dropped, until no task lives, no machine or blocking closure runs and no guest is left.
        discard_queued(sched);
        sched.wake_queued();
        sched.discard_pinned();
        if !runtime.is_of_this_process() {
            return Ok(());
        }
        let leftover = leftover(sched);
        if leftover.tasks == 0 && leftover.threads == 0 && leftover.blocking == 0 {
            return Ok(());
        }
        // Each task, machine and thread of the pool that ends, each guest that leaves, and whoever queues a task
        // unparks us.
        match wait {
            None => return Err(leftover),
            Some(None) => sched.shutdown.park(),
            Some(Some(left)) => {
                sched.shutdown.park_timeout(left);
            }
        }
    }
}

/// Steps 6 to 8.
fn finish(runtime: RuntimeRef) {
    let sched = runtime.sched;
    let _entered = context::enter(runtime);
    // 6. `sysmon` ends last of the threads; all are joined, also the machine that `sysmon` was just starting.
    sched.sysmon.end();
    loop {
        let threads = sched.threads.take_handles();
        if threads.is_empty() {
            break;
        }
        for thread in threads {
            // The destructor of a user's thread-local may panic, and the panic has been printed.
            drop(thread.join());
        }
    }
    sched.sysmon.close();
    sched.wake_queued();
    // 7. Sockets and timers that were moved out of their tasks, or are waited for in a `block_on` that shutdown does
    //    not wait for, are dead from here on. Who waits for them is woken to see that. Their wakers and the hooks are
    //    the user's: what they throw must not leave the slot half closed.
    task::swallow(|| sched.netpoll.close());
    sched.slots().for_each(|slot| task::swallow(|| slot.timers.close()));
    let config = std::mem::take(&mut *sched.config.lock());
    task::swallow(|| drop(config));
    // 8. The memory of its tasks goes back, and the slot may serve another runtime.
    sched.trim_arenas();
    sched.recycle();
    free_slot(sched);
}

/// Takes every queued task, wherever it is, and drops it. Not in the child of a fork, to which a destructor has come:
/// they are the parent's.
fn discard_queued(sched: &'static Sched) {
    while sched.is_of_this_process() {
        let unit = sched.inject.pop().or_else(|| sched.blocking.pop()).or_else(|| {
            sched.slots().find_map(|slot| {
                slot.objects().into_iter().find_map(|p| {
                    let next = p.queue.next.peek();
                    p.queue.steal_one().or_else(|| if next == 0 { None } else { p.queue.next.steal(next) })
                })
            })
        });
        match unit {
            Some(unit) => task::discard(unit),
            None => return,
        }
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests;
