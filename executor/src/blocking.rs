//! The pool of machines without a processor: `spawn_blocking`'s closures run there, where a thread that waits keeps no
//! task from running. `task` queues closures, `runtime::block_on` says when one of its threads waits, `sysmon` tries
//! again when the system refused a thread, shutdown closes the pool and drops what is queued. Wakers that `sysmon`
//! takes out of the netpoller are woken there too, for it must not run what may block.
//!
//! 1. A queued closure is run by one thread of the pool, or dropped: by shutdown, or by the machine that its abort
//!    sends it to. Closures start in the order in which they came.
//! 2. While a closure is queued, as many run as the limit allows, or a thread is coming, or the system refused one:
//!    then the next thread that has done with its closure takes it, or `sysmon` starts one. Not each closure has a
//!    thread called: a few are coming at once, and each that comes and finds a closure calls others before it runs that
//!    (as spinning machines do). Many short closures so meet few threads, and many long ones as many as the limit
//!    allows. `sysmon` calls one for each that is left at a look: a thread may be long in coming, in a hook of the
//!    user's. Or a lent thread is to come (see `lent`).
//! 3. A closure whose thread waits in a `block_on` does not count against the limit: what it waits for may be queued
//!    behind it. When it goes on, more than the limit run for a while. It waits once: what else its thread runs
//!    meanwhile, a waker of the user's while that runtime closes, is not the closure.
//! 4. While a thread is refused by `Builder::max_threads`, another one of the pool is there; when that one has done
//!    with its closure it takes the next, and when it ends it looks whether there is room now.
//! 5. A thread counts from the decision to start it, under the lock under which its closure was queued, until it has
//!    ended: the runtime's slot is not recycled before.
//! 6. Wakers go before closures and do not count against the limit: a closure may wait for them. While one blocks, the
//!    others behind it are taken by another thread, which `sysmon` calls when two of its looks find the queue unmoved.
//!
//! | thread  | counted in      | it leaves by                                                                |
//! |---------|-----------------|-----------------------------------------------------------------------------|
//! | coming  | `coming`        | `State::next`: → running, or → idle when another one was faster              |
//! | running | `running`       | `State::next`: → running, → idle, → ended when the runtime closes · → lent   |
//! | waiting | `running` and `waiting` | the end of its `block_on`'s wait: → running                         |
//! | idle    | `idle`          | `State::call`: → coming · its keep-alive is over, or `Pool::close`: → ended |
//! | lent    | `lent`          | `lent::run`: as from running, or → ended when its place is taken            |

use std::cell::Cell;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::runq::Unit;
use crate::sched::find::Worker;
use crate::sched::threads::Kind;
use crate::sched::{How, Sched};
use crate::sys::{Mutex, MutexGuard, rank};
use crate::task::{self, swallow};
use crate::wakers::wake;

mod brief;
mod lent;

use brief::Briefs;
pub(crate) use brief::Closure;
use lent::{DOES, Does, Keeping};
pub(crate) use lent::{be_lent, keeps_a_closure, may_be_lent};

/// At most so many closures run at once, unless the builder says otherwise.
pub(crate) const LIMIT: usize = 512;
/// How long an idle thread stays, unless the builder says otherwise.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Who queues a closure calls no thread if so many are coming, which call the others.
const COMING_FEW: usize = 2;
/// So many others does a thread call that has come and found a closure, unless [`COMING_MANY`] are coming.
const CALLS_EACH: usize = 2;
const COMING_MANY: usize = 4;

/// The blocking closures of one runtime and their threads.
pub(crate) struct Pool {
    state: Mutex<State>,
    briefs: Briefs,
}

/// Guarded by `Pool::state`.
struct State {
    /// Closures that have not started, oldest first.
    queue: VecDeque<Queued>,
    /// Wakers that nobody has woken yet.
    wakers: VecDeque<Waker>,
    /// Threads in a waker. They are in `running` too.
    waking: usize,
    /// Wakers taken so far: if it stands still while there are some, a waker blocks.
    wakers_taken: u64,
    /// What `wakers_taken` was at the last look of `sysmon`.
    wakers_seen: u64,
    /// Threads without a closure; the last one is called first.
    idle: Vec<&'static Machine>,
    /// Threads that were called or are being started, and have not looked at the queue.
    coming: usize,
    keeping: Keeping,
    /// Threads that are lent to the scheduler.
    lent: usize,
    /// How often one was.
    lendings: u64,
    /// Threads in a closure.
    running: usize,
    /// Those of them that wait in a `block_on`.
    waiting: usize,
    /// Those of them that wait for this very runtime.
    waiting_here: usize,
    /// Threads that have not ended.
    threads: usize,
    /// For names: how many have been started in all.
    started: usize,
    limit: usize,
    keep_alive: Duration,
    /// No closure starts any more.
    closed: bool,
}

/// A closure that has not started.
struct Queued {
    unit: Unit,
    /// By which the thread that keeps it knows it; [`lent::NOBODYS`] if none ever did.
    ticket: u32,
}

/// Where the thread for a queued closure comes from.
enum Call {
    Idle(&'static Machine),
    /// It is to be started, with this number.
    New(usize),
}

/// What a thread does next.
enum Next {
    /// And whether another thread keeps it.
    Run(Unit, bool),
    Wake(Waker),
    Rest,
    End,
}

impl State {
    const fn new() -> Self {
        State {
            queue: VecDeque::new(),
            wakers: VecDeque::new(),
            waking: 0,
            wakers_taken: 0,
            wakers_seen: 0,
            idle: Vec::new(),
            coming: 0,
            keeping: Keeping::new(),
            lent: 0,
            lendings: 0,
            running: 0,
            waiting: 0,
            waiting_here: 0,
            threads: 0,
            started: 0,
            limit: LIMIT,
            keep_alive: KEEP_ALIVE,
            closed: true,
        }
    }

    /// Closures that count against the limit.
    fn active(&self) -> usize {
        self.running - self.waiting - self.waking
    }

    /// Whether there is a closure that no thread comes for, and the limit allows another one.
    fn is_thread_due(&self) -> bool {
        let coming = self.coming + self.keeping.kept();
        !self.closed && self.queue.len() > coming && self.active() + coming < self.limit
    }

    /// Calls a thread, if one is due, fewer than `most` are coming, and the limits allow it. A new one is `counted`.
    #[must_use]
    fn call(&mut self, most: usize, counted: impl FnOnce() -> bool) -> Option<Call> {
        if self.coming < most && self.is_thread_due() { self.bring(counted) } else { None }
    }

    /// Calls a thread. A new one is `counted`.
    fn bring(&mut self, counted: impl FnOnce() -> bool) -> Option<Call> {
        if let Some(machine) = self.idle.pop() {
            self.coming += 1;
            return Some(Call::Idle(machine));
        }
        if !counted() {
            return None;
        }
        self.coming += 1;
        self.threads += 1;
        self.started += 1;
        Some(Call::New(self.started - 1))
    }

    fn push(&mut self, unit: Unit) {
        self.queue.push_back(Queued { unit, ticket: lent::NOBODYS });
    }

    /// Takes a closure out of the queue. Tells whether it was kept: nobody needs to come for it any more, and another
    /// one may have been left to that thread.
    fn take(&mut self, at: usize) -> Option<(Unit, bool)> {
        let Queued { unit, ticket } = self.queue.remove(at)?;
        Some((unit, self.keeping.is_taken(ticket)))
    }

    /// Takes the closure at this address out of the queue, if it is there. The cells of the others are not looked at:
    /// there may be many, each somewhere else in memory.
    fn take_out(&mut self, address: usize) -> Option<(Unit, bool)> {
        let at = self.queue.iter().position(|queued| queued.unit.as_raw().addr().get() == address)?;
        self.take(at)
    }

    /// For a thread that has come, or has done with a closure, and is counted nowhere but in `threads`.
    fn next(&mut self) -> Next {
        if self.closed {
            return Next::End;
        }
        if let Some(waker) = self.wakers.pop_front() {
            self.running += 1;
            self.waking += 1;
            self.wakers_taken += 1;
            return Next::Wake(waker);
        }
        if self.active() < self.limit {
            if let Some((unit, was_kept)) = self.take(0) {
                self.running += 1;
                return Next::Run(unit, was_kept);
            }
        }
        Next::Rest
    }
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Pool { state: Mutex::new(rank::LEAF, State::new()), briefs: Briefs::new() }
    }

    /// Fresh for a runtime. Closures that are known to be brief run on processors beside so many stuck threads at most;
    /// `None`: none does.
    pub(crate) fn open(&self, limit: usize, briefs: Option<usize>, keep_alive: Duration) {
        self.briefs.open(briefs);
        let mut state = self.state.lock();
        debug_assert_eq!(state.threads, 0, "a slot was recycled with threads of its pool");
        debug_assert!(state.queue.is_empty(), "a slot was recycled with blocking closures");
        state.keeping = Keeping::new();
        state.lendings = 0;
        state.started = 0;
        state.limit = limit;
        state.keep_alive = keep_alive;
        state.closed = false;
    }

    /// No closure starts from here on, and idle threads end. What is queued is for [`Pool::pop`].
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.coming += idle.len();
        drop(state);
        for machine in idle {
            machine.parker.unpark();
        }
    }

    /// Takes a waker that nobody has woken.
    pub(crate) fn pop_waker(&self) -> Option<Waker> {
        self.state.lock().wakers.pop_front()
    }

    /// Takes the oldest closure that has not started.
    pub(crate) fn pop(&self) -> Option<Unit> {
        self.state.lock().take(0).map(|(unit, _)| unit)
    }

    /// Threads that have not ended and are not lent, and closures that run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.threads - state.lent, state.running - state.waking)
    }

    /// Whether no closure runs or is about to: those that there are wait for the runtime themselves.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        state.running == state.waiting_here && state.coming == 0 && state.queue.is_empty() && state.wakers.is_empty()
    }

    /// Whether a closure runs that does not wait for the runtime itself.
    pub(crate) fn is_running(&self) -> bool {
        let state = self.state.lock();
        state.running > state.waiting_here
    }

    pub(crate) fn count_into(&self, metrics: &mut Metrics) {
        let state = self.state.lock();
        metrics.blocking_threads = state.threads;
        metrics.blocking_idle_threads = state.idle.len();
        metrics.blocking_queue = state.queue.len();
        metrics.blocking_lent = state.lendings;
    }
}

impl Sched {
    /// Queues a closure and calls a thread for it.
    pub(crate) fn push_blocking(&'static self, unit: Unit) {
        let mut state = self.blocking.state.lock();
        // It comes from a processor, and who has aborted it did not find it here. Under the lock: who comes later does.
        if task::is_aborted(&unit) {
            drop(state);
            return self.ready(unit, How::Woken);
        }
        state.push(unit);
        if state.closed {
            drop(state);
            // Shutdown may have looked at the queue before, and waits for this very closure.
            self.shutdown.unpark();
            return;
        }
        if !state.keep(self) {
            self.call(state);
        }
    }

    /// Has a thread of the pool wake these. `false`: none can be had now, and they are still there.
    pub(crate) fn push_wakers(&'static self, ready: &mut Vec<Waker>) -> bool {
        let mut state = self.blocking.state.lock();
        state.wakers.extend(ready.drain(..));
        if state.closed {
            drop(state);
            // As in `push_blocking`. And a thread that waits in `block_on` for what one of them brings may be the one
            // that shuts down, in a destructor.
            self.shutdown.unpark();
            self.waits.unpark_all(self.runtime().generation);
            return true;
        }
        // A thread that comes for a closure takes the wakers first, and is replaced.
        let called = state.bring(|| self.count_pool_thread());
        drop(state);
        called.is_some_and(|call| self.answer(call))
    }

    /// Wakes what waits for a thread of the pool, on this one: none can be had, and a wake must not be lost, though one
    /// that is the user's may block.
    pub(crate) fn wake_queued(&self) {
        self.queued_wakers().for_each(wake);
    }

    /// Takes them, one by one.
    pub(crate) fn queued_wakers(&self) -> impl Iterator<Item = Waker> {
        // Not in the child of a fork, to which one of them has come.
        std::iter::from_fn(|| self.is_of_this_process().then(|| self.blocking.pop_waker()).flatten())
    }

    /// `sysmon` looks whether a waker keeps others from being woken, and calls another thread for them. Tells whether
    /// there are any.
    pub(crate) fn retry_wakers(&'static self) -> bool {
        let mut state = self.blocking.state.lock();
        if state.wakers.is_empty() || state.closed {
            return false;
        }
        let taken = state.wakers_taken;
        if std::mem::replace(&mut state.wakers_seen, taken) == taken && state.coming == 0 {
            let called = state.bring(|| self.count_pool_thread());
            drop(state);
            if !called.is_some_and(|call| self.answer(call)) {
                self.wake_queued();
            }
        }
        true
    }

    /// The closure at this address was aborted, and is kept by who calls. If it is still queued it goes to a machine,
    /// which drops it: its handle need not wait until the pool comes to it, and its destructor does not run in `abort`.
    /// The runtime whose it was may be gone, and this be the queue of the next one.
    #[cold]
    pub(crate) fn abort_blocking(&'static self, address: usize) {
        if !self.is_of_this_process() {
            return;
        }
        let mut state = self.blocking.state.lock();
        let Some((unit, was_kept)) = state.take_out(address) else { return };
        if was_kept {
            self.call(state);
        } else {
            drop(state);
        }
        self.ready(unit, How::Woken);
    }

    /// Starts the threads that the system refused before, and those for closures that are kept. Tells whether it still
    /// does: closures then wait for a thread, and nobody else may ever start one.
    pub(crate) fn blocking_retry(&'static self) -> bool {
        loop {
            let mut state = self.blocking.state.lock();
            state.keeping.call_all();
            let called = state.call(usize::MAX, || self.count_pool_thread());
            drop(state);
            let Some(call) = called else {
                return false;
            };
            if !self.answer(call) {
                return true;
            }
        }
    }

    fn count_pool_thread(&self) -> bool {
        self.threads.take(Kind::Pool, self.idle.procs())
    }

    /// Calls a thread if one is to come, and lets the lock go.
    fn call(&'static self, state: MutexGuard<'_, State>) {
        self.call_beside(COMING_FEW, state);
    }

    /// [`Sched::call`] if fewer than `most` are coming.
    fn call_beside(&'static self, most: usize, mut state: MutexGuard<'_, State>) {
        let called = state.call(most, || self.count_pool_thread());
        drop(state);
        let Some(call) = called else {
            return;
        };
        if !self.answer(call) {
            // It may sleep deeply.
            self.sysmon.wake();
        }
    }

    /// Brings the thread that was called. False if the system refuses it.
    fn answer(&'static self, call: Call) -> bool {
        let number = match call {
            Call::Idle(machine) => {
                machine.parker.unpark();
                return true;
            }
            Call::New(number) => number,
        };
        let machine = self.new_machine();
        if self.threads.spawn(self, &format!("block-{number}"), false, move || serve(self, machine)).is_ok() {
            return true;
        }
        self.free_machine(machine);
        // While the thread still counts: afterwards the slot may be another runtime's.
        self.sysmon_start();
        self.threads.give(Kind::Pool);
        let mut state = self.blocking.state.lock();
        state.coming -= 1;
        state.threads -= 1;
        drop(state);
        self.shutdown.unpark();
        false
    }
}

thread_local! {
    /// The runtime whose pool this thread is of.
    static SERVES: Cell<Option<&'static Sched>> = const { Cell::new(None) };
}

/// Whether this thread is one of the pool of `sched`, which counts it. While it holds a processor it is a guest
/// besides.
fn serves(sched: &'static Sched) -> bool {
    SERVES.get().is_some_and(|own| std::ptr::eq(own, sched))
}

/// This thread is the copy of one of the pool, in the child of a fork.
pub(crate) fn leave_pool() {
    SERVES.set(None);
}

/// The body of a thread of the pool.
fn serve(sched: &'static Sched, machine: &'static Machine) {
    SERVES.set(Some(sched));
    let _runs = sched.threads.runs();
    let config = sched.config.lock().clone();
    sched.call_hook(config.on_thread_start.as_deref());
    let kind = run_closures(sched, machine);
    sched.call_hook(config.on_thread_stop.as_deref());
    drop(config);
    // The destructors of thread-locals are still to run; nobody counts this thread then.
    SERVES.set(None);
    sched.free_machine(machine);
    sched.threads.give(kind);
    let mut state = sched.blocking.state.lock();
    state.threads -= 1;
    sched.call(state);
    sched.shutdown.unpark();
}

/// Gives what the thread counts as in the end.
fn run_closures(sched: &'static Sched, machine: &'static Machine) -> Kind {
    let pool = &sched.blocking;
    let mut worker = Worker::new(sched, machine);
    let mut state = pool.state.lock();
    state.coming -= 1;
    let mut has_come = true;
    // That it keeps a paused clock no more.
    let mut told_clock = false;
    loop {
        match state.next() {
            Next::Run(unit, was_kept) => {
                if was_kept {
                    sched.call(state);
                } else {
                    drop(state);
                }
                told_clock = false;
                // Before the closure, which may last.
                if std::mem::take(&mut has_come) {
                    (0..CALLS_EACH).for_each(|_| sched.call_beside(COMING_MANY, pool.state.lock()));
                }
                // What the closure throws is in its handle by now. Should anything else come out, the thread must go
                // on: the pool counts it.
                DOES.set(Does::Closure);
                let mut joiner = None;
                swallow(|| joiner = task::run_closure(unit));
                if let Some(joiner) = joiner {
                    if task::is_waker(&joiner) {
                        DOES.set(Does::Ends);
                    }
                    wake(joiner);
                }
                DOES.set(Does::Nothing);
                sched.die_if_forked();
                state = pool.state.lock();
                state.running -= 1;
                sched.agent_left();
                if lent::is_lent() {
                    state.lent += 1;
                    state.lendings += 1;
                    // Its place is free for a closure that has come since.
                    sched.call(state);
                    let Some(back) = lent::run(sched, &mut worker) else {
                        return Kind::Machine;
                    };
                    state = back;
                }
            }
            Next::Wake(waker) => {
                // It was called for a closure, perhaps, and may be gone for long.
                sched.call(state);
                told_clock = false;
                DOES.set(Does::Waker);
                wake(waker);
                DOES.set(Does::Nothing);
                sched.die_if_forked();
                state = pool.state.lock();
                state.waking -= 1;
                state.running -= 1;
                sched.agent_left();
            }
            Next::Rest => {
                // Nobody can call the thread meanwhile: it asks again what is next.
                if sched.clock.is_paused() && !std::mem::replace(&mut told_clock, true) {
                    drop(state);
                    sched.clock_may_advance();
                    state = pool.state.lock();
                    continue;
                }
                let Some(called) = rest(pool, machine, state) else {
                    return Kind::Pool;
                };
                state = called;
                state.coming -= 1;
                has_come = true;
                told_clock = false;
            }
            Next::End => return Kind::Pool,
        }
    }
}

/// Sleeps until the thread is called. `None` if its keep-alive is over; it is off the list then.
fn rest<'a>(
    pool: &'a Pool,
    machine: &'static Machine,
    mut state: MutexGuard<'a, State>,
) -> Option<MutexGuard<'a, State>> {
    state.idle.push(machine);
    // `None` is for ever.
    let end = Instant::now().checked_add(state.keep_alive);
    loop {
        drop(state);
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        match left {
            Some(left) => {
                machine.parker.park_timeout(left);
            }
            None => machine.parker.park(),
        }
        state = pool.state.lock();
        // A token may be left over from an earlier use of the machine: only the list says whether the thread was
        // called.
        let Some(at) = state.idle.iter().position(|other| std::ptr::eq(*other, machine)) else {
            return Some(state);
        };
        if left.is_some_and(|left| left.is_zero()) {
            state.idle.remove(at);
            return None;
        }
    }
}

/// This thread waits in a `block_on` until this is dropped. See invariant 3.
pub(crate) struct Waiting {
    serves: Option<&'static Sched>,
    /// The `block_on` is one of the runtime that has the thread.
    here: usize,
}

impl Waiting {
    /// `runtime` is that of the `block_on`.
    pub(crate) fn new(runtime: &'static Sched) -> Self {
        // A waker counts against no limit, and neither does a task that a lent thread runs.
        let serves = SERVES.get().filter(|_| DOES.get() == Does::Closure);
        let here = usize::from(serves.is_some_and(|own| std::ptr::eq(own, runtime)));
        if let Some(sched) = serves {
            DOES.set(Does::Waits);
            let mut state = sched.blocking.state.lock();
            state.waiting += 1;
            state.waiting_here += here;
            sched.call(state);
            // A closure that runs has become one that waits.
            sched.agent_left();
        }
        Waiting { serves, here }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(sched) = self.serves {
            DOES.set(Does::Closure);
            let mut state = sched.blocking.state.lock();
            state.waiting -= 1;
            state.waiting_here -= self.here;
        }
    }
}

#[cfg(test)]
mod tests;
