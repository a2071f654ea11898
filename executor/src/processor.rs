//! Processors (P): the right to run tasks. A machine that holds one owns its queue and its time slice; `sched`,
//! `sysmon` and thieves look at it from outside.
//!
//! 1. The fields under "owner" are written only by the machine that holds the processor. Handing a processor over
//!    orders them (the grant of a machine, the scheduler lock), so they are plain loads and stores.
//! 2. `polls` is odd inside a poll of a task and even outside.
//! 3. What outlives a processor object (timers, registry) belongs to its slot in the table. Slots are made once and
//!    never removed. Processor objects are type-stable: made for a slot, recycled by it, never freed.
//! 4. The table's processor of a slot changes only under the scheduler lock, when `sysmon` rescues the tasks behind a
//!    poll that is stuck: the old object, a husk, then belongs to its machine alone until that poll ends. Every path
//!    that gives a processor up asks, under that lock, whether it is still the table's.

use std::panic::Location;

use crate::budget::{BUDGET, REFUSALS};
use crate::metrics::Counters;
use crate::runq::{Overflow, RunQueue, Unit};
use crate::sched::Sched;
use crate::sys::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sys::{Mutex, rank, thread_id};
use crate::task::Id;
use crate::task::arena::Arena;
use crate::task::registry::Shard;
use crate::timers::Timers;

mod backoff;
mod look;

use look::LOOK_EVERY_MAX;
pub(crate) use look::{LONG_NS, SPAWNS_MAX};

/// So many tasks in a row out of the run-next slot share one time slice, then it goes to the back.
pub(crate) const HOPS: u32 = 256;
/// `attention`: the time slice is over.
pub(crate) const SLICE_OVER: u32 = 1;
/// `attention`: the runtime closes.
pub(crate) const CLOSING: u32 = 2;
/// `attention`: the processor may be one too many.
pub(crate) const QUIT: u32 = 4;

/// In the place of a location: no location has this address.
const WAKERS: *mut Location<'static> = std::ptr::without_provenance_mut(1);

/// As [`WAKERS`]: a thread that has just been started is in a hook of the user's.
const HOOK: *mut Location<'static> = std::ptr::without_provenance_mut(2);

/// What runs between [`Processor::begin_poll`] and [`Processor::end_poll`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Polled {
    /// A task, and where it was spawned.
    Task(Id, &'static Location<'static>),
    /// The future of a `block_on`, or a hook of a thread that starts.
    BlockOn,
    /// Wakers, which may be the user's code, of due timers and ready sockets, and what the end of a blocking closure
    /// wakes.
    Wakers,
}

/// A slot of the processor table, with what outlives a processor object.
pub(crate) struct ProcSlot {
    /// The table's processor. Written under the scheduler lock.
    current: AtomicPtr<Processor>,
    /// All objects made for the slot.
    objects: Mutex<Objects>,
    pub(crate) timers: Timers,
    pub(crate) registry: Shard,
}

#[derive(Default)]
struct Objects {
    all: Vec<&'static Processor>,
    /// Those that are neither the table's nor a husk.
    spare: Vec<&'static Processor>,
}

impl Objects {
    /// One for the slot of `old`.
    fn spare_or_new(&mut self, old: &Processor) -> &'static Processor {
        self.spare.pop().unwrap_or_else(|| {
            let fresh: &'static Processor = Box::leak(Box::new(Processor::new(old.sched, old.index)));
            self.all.push(fresh);
            fresh
        })
    }
}

impl ProcSlot {
    pub(crate) fn new(sched: &'static Sched, index: u32) -> Self {
        let first: &'static Processor = Box::leak(Box::new(Processor::new(sched, index)));
        ProcSlot {
            current: AtomicPtr::new(std::ptr::from_ref(first).cast_mut()),
            objects: Mutex::new(rank::LEAF, Objects { all: vec![first], spare: Vec::new() }),
            timers: Timers::new(),
            registry: Shard::new(index),
        }
    }

    /// The table's processor.
    #[inline]
    pub(crate) fn processor(&self) -> &'static Processor {
        // Acquire: pairs with the Release in `renew`.
        // SAFETY: objects are leaked boxes (invariant 3).
        unsafe { &*self.current.load(Acquire) }
    }

    /// Fresh, with one object, for a runtime that has not used the slot yet.
    pub(crate) fn open(&self) {
        self.reset();
        self.timers.open();
    }

    /// Whether `p` is the table's. Exact under the scheduler lock.
    pub(crate) fn is_current(&self, p: &Processor) -> bool {
        std::ptr::eq(self.current.load(Relaxed), p)
    }

    /// Puts another object into the table and gives it back. The scheduler lock is held.
    pub(crate) fn renew(&self) -> &'static Processor {
        let fresh = self.objects.lock().spare_or_new(self.processor());
        // Release: pairs with the Acquire in `processor`.
        self.current.store(std::ptr::from_ref(fresh).cast_mut(), Release);
        fresh
    }

    /// An object of the slot that is a husk from the start.
    pub(crate) fn husk(&self) -> &'static Processor {
        let husk = self.objects.lock().spare_or_new(self.processor());
        let before = husk.queue.next.condemn();
        debug_assert!(before.is_none(), "a spare processor had a task");
        husk
    }

    /// A husk comes back, empty.
    pub(crate) fn take_back(&self, husk: &'static Processor) {
        husk.queue.next.pardon();
        husk.refresh();
        self.objects.lock().spare.push(husk);
    }

    /// Puts away so many portions of what others have left in the arena of a spare object. Tells whether there may be
    /// more.
    pub(crate) fn collect_spare(&self, portions: usize) -> bool {
        let mut objects = self.objects.lock();
        // Empty pages that a look was too short for are seen as what came back is.
        // SAFETY: nobody holds a spare object, and under the lock none becomes anything else.
        let Some(at) = objects.spare.iter().position(|spare| unsafe { spare.arena.has_leftovers() }) else {
            return false;
        };
        let spare = objects.spare.swap_remove(at);
        drop(objects);
        // SAFETY: it is no husk, not the table's, and not on the list from which it could become that.
        unsafe { (0..portions).any(|_| !spare.arena.collect_unheld()) };
        self.objects.lock().spare.push(spare);
        true
    }

    /// All objects of the slot: their counters together are the slot's.
    pub(crate) fn objects(&self) -> Vec<&'static Processor> {
        self.objects.lock().all.clone()
    }

    /// The first object is the table's, no husk is left.
    fn reset(&self) {
        let mut objects = self.objects.lock();
        objects.all.iter().for_each(|p| p.reset());
        objects.spare = objects.all[1..].to_vec();
        // Release: as in `renew`.
        self.current.store(std::ptr::from_ref(objects.all[0]).cast_mut(), Release);
    }
}

/// A processor. The hot words of the owner, of thieves and of `sysmon` lie on lines of their own.
#[repr(C, align(128))]
pub(crate) struct Processor {
    pub(crate) queue: RunQueue,
    pub(crate) sched: &'static Sched,
    /// Index into the processor table.
    pub(crate) index: u32,
    seen: Seen,
    own: Own,
    /// Memory of the tasks spawned here. Owned by the machine that holds the processor; it stays, with what is left in
    /// it, when the object is another runtime's.
    pub(crate) arena: Arena,
}

/// Written by the owner, read by thieves and `sysmon`; a few bits come from outside.
#[repr(align(128))]
struct Seen {
    /// Goes up before and after each poll (invariant 2).
    polls: AtomicU32,
    /// Goes up with each time slice (Go: `schedtick`).
    schedtick: AtomicU64,
    /// Requests from outside: [`SLICE_OVER`], [`CLOSING`], [`QUIT`]. Any thread sets a bit, the owner clears it.
    attention: AtomicU32,
    /// The k of `backoff`. Written by the owner and by thieves.
    backoff: AtomicU32,
    /// The thread that holds the processor, for `sysmon` to look at.
    tid: AtomicI32,
    /// What is polled: where its task was spawned; null for a `block_on`, [`WAKERS`] or [`HOOK`].
    location: AtomicPtr<Location<'static>>,
    /// The number of that task.
    task: AtomicU64,
    /// Odd while the owner is in `block_in_place`, even else; goes up with each step (see
    /// [`Processor::enter_blocking`]).
    status: AtomicU32,
    /// The last blocking closure that was polled here: its kind, as `blocking` knows it, and `polls` meanwhile.
    closure: AtomicU64,
    closure_polls: AtomicU32,
    /// The owner is in the system call that wakes a machine: it stands still, but not for long.
    waking: AtomicBool,
    /// Picks take long, or `sysmon` saw one poll at two looks.
    slow: AtomicBool,
    /// The next thief has no patience (see `backoff`). Set by the owner, taken by a thief.
    tries: AtomicBool,
}

/// Written by the owner only; `sysmon` reads when the last look was.
#[repr(align(128))]
struct Own {
    budget: AtomicU32,
    refusals: AtomicU32,
    hops: AtomicU32,
    looks_in: AtomicU32,
    look_every: AtomicU32,
    last_look: AtomicU64,
    /// The picks before the last look took long.
    was_slow: AtomicBool,
    looks_without_netpoll: AtomicU32,
    /// It is a husk on which a lane polls.
    is_lanes: AtomicBool,
    /// How many tasks had been spawned here at the last look.
    spawned_before: AtomicU64,
    /// Until then each pick has a look.
    dense_until: AtomicU64,
    /// The time slice from which on queued tasks may give way to others again.
    gives_way_at: AtomicU64,
    wakes_passed: AtomicU32,
    last_probe: AtomicU64,
    probes: AtomicU32,
    /// Tasks that went from here into the line of a lock that is at home elsewhere.
    gone_home: AtomicU32,
    rng: AtomicU32,
    /// Wakes are collected: one decision comes at the end.
    batching: AtomicBool,
    /// What `polls` was when the future of a task last ended here.
    ended_in: AtomicU32,
    /// The number of the next task in the arena; at the beginning of a block that block is still to be taken.
    next_task: AtomicU64,
    counters: Counters,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Processor {
    fn new(sched: &'static Sched, index: u32) -> Self {
        Processor {
            queue: RunQueue::new(),
            sched,
            index,
            seen: Seen {
                polls: AtomicU32::new(0),
                schedtick: AtomicU64::new(0),
                attention: AtomicU32::new(0),
                backoff: AtomicU32::new(0),
                tid: AtomicI32::new(0),
                location: AtomicPtr::new(std::ptr::null_mut()),
                task: AtomicU64::new(0),
                status: AtomicU32::new(0),
                closure: AtomicU64::new(0),
                closure_polls: AtomicU32::new(0),
                waking: AtomicBool::new(false),
                slow: AtomicBool::new(false),
                tries: AtomicBool::new(false),
            },
            own: Own {
                budget: AtomicU32::new(BUDGET),
                refusals: AtomicU32::new(0),
                hops: AtomicU32::new(0),
                looks_in: AtomicU32::new(0),
                look_every: AtomicU32::new(LOOK_EVERY_MAX),
                last_look: AtomicU64::new(0),
                was_slow: AtomicBool::new(false),
                looks_without_netpoll: AtomicU32::new(0),
                is_lanes: AtomicBool::new(false),
                spawned_before: AtomicU64::new(0),
                dense_until: AtomicU64::new(0),
                gives_way_at: AtomicU64::new(0),
                wakes_passed: AtomicU32::new(0),
                last_probe: AtomicU64::new(0),
                probes: AtomicU32::new(0),
                gone_home: AtomicU32::new(0),
                rng: AtomicU32::new(index.wrapping_mul(0x9e37_79b9) | 1),
                batching: AtomicBool::new(false),
                ended_in: AtomicU32::new(0),
                next_task: AtomicU64::new(0),
                counters: Counters::default(),
            },
            arena: Arena::new(std::ptr::from_ref(sched).cast()),
        }
    }

    /// Fresh for another runtime of the same slot.
    fn reset(&self) {
        debug_assert!(self.queue.len_seen() == 0 && self.queue.next.peek() == 0, "a processor was recycled with tasks");
        self.queue.next.pardon();
        self.own.counters.reset();
        self.refresh();
    }

    /// Ready for another machine, whatever was.
    fn refresh(&self) {
        self.seen.attention.store(0, Relaxed);
        self.seen.backoff.store(0, Relaxed);
        self.seen.slow.store(false, Relaxed);
        self.seen.tries.store(false, Relaxed);
        self.own.probes.store(0, Relaxed);
        self.own.look_every.store(LOOK_EVERY_MAX, Relaxed);
        self.own.looks_in.store(0, Relaxed);
        self.own.batching.store(false, Relaxed);
        self.own.is_lanes.store(false, Relaxed);
        self.own.dense_until.store(0, Relaxed);
        self.own.gives_way_at.store(self.schedtick(), Relaxed);
        self.begin_slice();
    }

    // Seen from outside.

    #[inline]
    pub(crate) fn polls(&self) -> u32 {
        self.seen.polls.load(Relaxed)
    }

    /// Whether a task is in its poll on this processor.
    #[inline]
    pub(crate) fn is_polling(&self) -> bool {
        self.polls() % 2 == 1
    }

    #[inline]
    pub(crate) fn schedtick(&self) -> u64 {
        self.seen.schedtick.load(Relaxed)
    }

    #[inline]
    pub(crate) fn attention(&self) -> u32 {
        self.seen.attention.load(Relaxed)
    }

    /// Whether the runtime closes. If so, no processor is taken from its machine any more, and whether this one has
    /// been is known.
    pub(crate) fn is_closing(&self) -> bool {
        // Acquire: pairs with `ask`, which shutdown calls after it has had the scheduler lock.
        self.seen.attention.load(Acquire) & CLOSING != 0
    }

    /// Asks the owner for something at its next pick.
    pub(crate) fn ask(&self, bit: u32) {
        // AcqRel: pairs with `answer`: who takes the bit back sees what was written before it was set. Merely reading
        // it tells nothing more than that somebody asks.
        self.seen.attention.fetch_or(bit, AcqRel);
    }

    /// The status of [`Processor::enter_blocking`].
    pub(crate) fn status(&self) -> u32 {
        self.seen.status.load(Relaxed)
    }

    /// Whether the owner is in `block_in_place`.
    pub(crate) fn is_blocking(&self) -> bool {
        self.status() % 2 == 1
    }

    /// `sysmon` takes the processor from a blocking call, if it is still the one it saw. The winner owns the queue.
    pub(crate) fn retake(&self, seen: u32) -> bool {
        // AcqRel: Acquire pairs with the Release in `enter_blocking`, whose queue we then own; Release with the Acquire
        // in `exit_blocking`, which fails.
        self.seen.status.compare_exchange(seen, seen.wrapping_add(1), AcqRel, Relaxed).is_ok()
    }

    /// The thread that holds the processor.
    pub(crate) fn tid(&self) -> i32 {
        self.seen.tid.load(Relaxed)
    }

    /// What is polled.
    pub(crate) fn polled(&self) -> Polled {
        // Relaxed: locations are constants of the program.
        let location = self.seen.location.load(Relaxed);
        if location == WAKERS {
            return Polled::Wakers;
        }
        if location == HOOK {
            return Polled::BlockOn;
        }
        // SAFETY: the pointer is null or came from a reference for ever.
        let location = unsafe { location.as_ref() };
        location.map_or(Polled::BlockOn, |location| Polled::Task(Id::from_bits(self.seen.task.load(Relaxed)), location))
    }

    /// Whether the owner is in a hook of a thread that starts.
    pub(crate) fn is_in_hook(&self) -> bool {
        self.seen.location.load(Relaxed) == HOOK
    }

    /// Whether the owner is just waking a machine.
    pub(crate) fn is_waking(&self) -> bool {
        self.seen.waking.load(Relaxed)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.own.counters
    }

    // Owner.

    /// The owner enters a blocking call (Go: `entersyscall`): the status becomes odd, and `sysmon` may take the
    /// processor. Gives the status to leave with.
    ///
    /// | status | the queue belongs to      | who leaves it                                              |
    /// |--------|---------------------------|------------------------------------------------------------|
    /// | even   | the machine that holds it | `enter_blocking`                                           |
    /// | odd    | whoever moves the status  | `exit_blocking` (the machine), `retake` (`sysmon`)         |
    pub(crate) fn enter_blocking(&self) -> u32 {
        let status = self.status().wrapping_add(1);
        debug_assert!(status % 2 == 1, "a blocking call inside a blocking call");
        // Release: pairs with the Acquire in `retake`.
        self.seen.status.store(status, Release);
        status
    }

    /// What is polled is a blocking closure of this kind.
    pub(crate) fn polls_closure(&self, kind: u64) {
        self.seen.closure.store(kind, Relaxed);
        self.seen.closure_polls.store(self.polls(), Relaxed);
    }

    /// The kind of the blocking closure that is polled, if it is one, for who has taken the processor from that poll;
    /// for others a hint.
    pub(crate) fn polled_closure(&self) -> Option<u64> {
        (self.seen.closure_polls.load(Relaxed) == self.polls()).then(|| self.seen.closure.load(Relaxed))
    }

    /// The owner leaves the blocking call (Go: `exitsyscall`); `false` if the processor has been taken.
    pub(crate) fn exit_blocking(&self, status: u32) -> bool {
        // AcqRel: against `retake`; whoever moves the status on has the processor.
        self.seen.status.compare_exchange(status, status.wrapping_add(1), AcqRel, Relaxed).is_ok()
    }

    /// This thread holds the processor from now on.
    pub(crate) fn taken(&self, now: u64) {
        self.own.last_look.store(now, Relaxed);
        self.own.last_probe.store(now, Relaxed);
        self.seen.tid.store(thread_id(), Relaxed);
        self.polls_block_on();
    }

    /// The next poll is of a task that was spawned there.
    #[inline]
    pub(crate) fn polls_for(&self, task: Id, location: &'static Location<'static>) {
        self.seen.task.store(task.to_bits(), Relaxed);
        self.seen.location.store(std::ptr::from_ref(location).cast_mut(), Relaxed);
    }

    /// The next poll is of the future of a `block_on`.
    pub(crate) fn polls_block_on(&self) {
        self.seen.location.store(std::ptr::null_mut(), Relaxed);
    }

    /// Wakers run next.
    pub(crate) fn polls_wakers(&self) {
        self.seen.location.store(WAKERS, Relaxed);
    }

    /// A hook of the thread that starts runs next.
    pub(crate) fn polls_hook(&self) {
        self.seen.location.store(HOOK, Relaxed);
    }

    /// A poll that began on another processor goes on here.
    pub(crate) fn goes_on(&self, polled: Polled) {
        match polled {
            Polled::Task(task, location) => self.polls_for(task, location),
            Polled::BlockOn => self.polls_block_on(),
            Polled::Wakers => self.polls_wakers(),
        }
    }

    /// A poll begins: `polls` becomes odd.
    #[inline]
    pub(crate) fn begin_poll(&self) {
        let polls = self.polls();
        debug_assert!(polls % 2 == 0, "a poll began inside a poll");
        self.seen.polls.store(polls.wrapping_add(1), Relaxed);
        self.own.refusals.store(0, Relaxed);
    }

    /// The poll is over: `polls` becomes even.
    #[inline]
    pub(crate) fn end_poll(&self) {
        let polls = self.polls();
        debug_assert!(polls % 2 == 1, "a poll ended that had not begun");
        self.seen.polls.store(polls.wrapping_add(1), Relaxed);
    }

    /// The next task starts a time slice of its own.
    #[inline]
    pub(crate) fn begin_slice(&self) {
        self.begin_slice_of_chain();
        self.own.hops.store(0, Relaxed);
    }

    /// A slice for whoever holds the processor for a moment: the chain along the run-next slot goes on afterwards, and
    /// its hops count on.
    #[inline]
    fn begin_slice_of_chain(&self) {
        self.seen.schedtick.store(self.schedtick() + 1, Relaxed);
        self.own.budget.store(BUDGET, Relaxed);
    }

    /// [`Processor::begin_slice`] where no pick answers a request that was meant for the slice before.
    pub(crate) fn restart_slice(&self) {
        if self.attention() & SLICE_OVER != 0 {
            self.answer(SLICE_OVER);
        }
        self.begin_slice_of_chain();
    }

    /// The next task comes out of the run-next slot. Tells whether it may share the slice of the one before.
    #[inline]
    pub(crate) fn hop(&self) -> bool {
        let hops = self.own.hops.load(Relaxed) + 1;
        self.own.hops.store(hops, Relaxed);
        hops <= HOPS && self.own.budget.load(Relaxed) > 0
    }

    /// Takes one bit of `attention` back.
    pub(crate) fn answer(&self, bit: u32) {
        // AcqRel: pairs with `ask`.
        self.seen.attention.fetch_and(!bit, AcqRel);
    }

    /// Whether the slice is over because its budget is, and not because anybody asks for something or took what was
    /// queued.
    pub(crate) fn has_only_spent_budget(&self) -> bool {
        self.own.budget.load(Relaxed) == 0 && self.attention() == 0 && !self.queue.next.is_condemned()
    }

    #[inline]
    pub(crate) fn has_budget(&self) -> bool {
        self.own.budget.load(Relaxed) > 0 && self.attention() & SLICE_OVER == 0
    }

    /// Takes a unit of the budget, if there is one and the slice goes on.
    pub(crate) fn charge(&self) {
        if self.has_budget() {
            self.spend();
        }
    }

    /// Takes a unit of the budget that is there.
    #[inline]
    pub(crate) fn spend(&self) {
        self.own.budget.store(self.own.budget.load(Relaxed) - 1, Relaxed);
    }

    #[inline]
    pub(crate) fn refund(&self) {
        self.own.budget.store((self.own.budget.load(Relaxed) + 1).min(BUDGET), Relaxed);
    }

    /// Whether a leaf may refuse once more in this poll.
    pub(crate) fn may_refuse(&self) -> bool {
        let refusals = self.own.refusals.load(Relaxed);
        self.own.refusals.store(refusals.saturating_add(1), Relaxed);
        refusals < REFUSALS
    }

    pub(crate) fn set_waking(&self, on: bool) {
        self.seen.waking.store(on, Relaxed);
    }

    /// Whether queued tasks may give way to what became ready: one of those that did the last time has had its turn.
    pub(crate) fn may_give_way(&self) -> bool {
        self.schedtick() >= self.own.gives_way_at.load(Relaxed)
    }

    /// They give way to so many.
    pub(crate) fn gives_way_to(&self, ready: u32) {
        self.own.gives_way_at.store(self.schedtick() + u64::from(ready) + 1, Relaxed);
    }

    /// The next turn is the global queue's, and none of those that gave way.
    pub(crate) fn gives_way_later(&self) {
        if !self.may_give_way() {
            self.own.gives_way_at.store(self.own.gives_way_at.load(Relaxed) + 1, Relaxed);
        }
    }

    /// A number for a task in the arena, which no other of the runtime has.
    #[inline]
    pub(crate) fn next_task_number(&self) -> u64 {
        let mut number = self.own.next_task.load(Relaxed);
        if number % Id::BLOCK == 0 {
            number = self.sched.take_block();
        }
        self.own.next_task.store(number + 1, Relaxed);
        self.own.counters.arena_spawned.add(1);
        number
    }

    /// A task's future is gone.
    #[inline]
    pub(crate) fn task_ended(&self) {
        self.own.ended_in.store(self.polls(), Relaxed);
    }

    /// It is a husk, on which a lane polls.
    pub(crate) fn mark_lanes(&self) {
        self.own.is_lanes.store(true, Relaxed);
    }

    pub(crate) fn is_lanes(&self) -> bool {
        self.own.is_lanes.load(Relaxed)
    }

    /// The task that was polled last, if it was one and has not ended.
    pub(crate) fn last_polled(&self) -> Option<Id> {
        match self.polled() {
            Polled::Task(task, _) if self.own.ended_in.load(Relaxed).wrapping_add(1) != self.polls() => Some(task),
            _ => None,
        }
    }

    /// Whether this poll has ended a task that did not come out of the run-next slot.
    #[inline]
    pub(crate) fn ends_queued_task(&self) -> bool {
        self.own.ended_in.load(Relaxed) == self.polls() && self.own.hops.load(Relaxed) == 0
    }

    /// A task went from here into the line of a lock that is at home elsewhere.
    pub(crate) fn task_goes_home(&self) {
        self.own.gone_home.store(self.gone_home().wrapping_add(1), Relaxed);
    }

    /// How many did.
    pub(crate) fn gone_home(&self) -> u32 {
        self.own.gone_home.load(Relaxed)
    }

    #[inline]
    pub(crate) fn is_batching(&self) -> bool {
        self.own.batching.load(Relaxed)
    }

    pub(crate) fn set_batching(&self, on: bool) {
        self.own.batching.store(on, Relaxed);
    }

    /// A small random number (xorshift), to choose whom to steal from first.
    pub(crate) fn random(&self) -> u32 {
        let mut x = self.own.rng.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.own.rng.store(x, Relaxed);
        x
    }

    /// Appends to the local queue, or sends the older half of a full one to the global queue. Tells whether there were
    /// others.
    ///
    /// # Safety
    ///
    /// The caller holds the processor.
    #[inline]
    pub(crate) unsafe fn push(&self, unit: Unit) -> bool {
        // SAFETY: passed on.
        unsafe { self.queue.push(unit, self) }
    }
}

impl Overflow for Processor {
    fn overflow(&self, units: impl Iterator<Item = Unit>) {
        let count = self.sched.inject.push_batch(units);
        self.own.counters.overflowed.add(count as u64);
    }
}
