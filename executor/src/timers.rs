//! Timers: the store of deadlines and wakers of one processor slot, and the entry that a sleeping future keeps in it.
//! `time` polls, resets and drops entries; `sched` and `sysmon` fire what is due; `runtime` closes a store.
//!
//! 1. A store belongs to a slot of the processor table, never to a processor or a machine: it outlives every entry, and
//!    an entry's home is fixed from its insertion until it fires. Any thread may fire any store.
//! 2. A node in the heap is alive and pinned: its entry unlinks it, under the store's lock, before it goes.
//! 3. Storing FIRED or SHUT (Release, under the lock) is the last touch of a node by anybody but its owner. An owner
//!    that loads one of them (Acquire) needs no lock and may free the node at once.
//! 4. No waker is cloned, woken or dropped under the lock.
//! 5. Whenever the lock is free no entry in the heap is due before `earliest`. It is the deadline of one, unless `stale` says
//!    that it was cancelled; then the next to go to sleep looks for the first that is left.
//!
//! | state | value | in the heap | who leaves it                                                                  |
//! |-------|-------|-------------|--------------------------------------------------------------------------------|
//! | idle  |   0   |     no      | `poll` → armed, or → shut if the store is closed · `elapse` → fired            |
//! | armed |   1   |     yes     | `run_due` → fired · `close` → shut · `reset` stays · the entry's drop unlinks  |
//! | fired |   2   |     no      | `reset` → idle                                                                 |
//! | shut  |   3   |     no      | nobody: a sleep whose runtime is gone never ends                               |

mod batch;
mod heap;

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::Waker;

use crate::clock::NEVER;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::atomic::{AtomicBool, AtomicU8, AtomicU64};
use crate::sys::{Mutex, UnsafeCell, rank};

pub(crate) use batch::WakeBatch;
use heap::{Heap, Place};

const IDLE: u8 = 0;
const ARMED: u8 = 1;
const FIRED: u8 = 2;
const SHUT: u8 = 3;

/// The timers of one processor slot.
pub(crate) struct Timers {
    /// No deadline in the heap is earlier; [`NEVER`] if it is empty. Written under the lock, read by anybody.
    earliest: AtomicU64,
    /// The entry with that deadline is gone. Guarded as `earliest`.
    stale: AtomicBool,
    store: Mutex<Store>,
}

struct Store {
    heap: Heap,
    /// No runtime owns the slot: nothing may be inserted.
    closed: bool,
}

impl Timers {
    #[cfg(not(gmp_loom))]
    pub(crate) const fn new() -> Self {
        Timers {
            earliest: AtomicU64::new(NEVER),
            stale: AtomicBool::new(false),
            store: Mutex::new(rank::TIMERS, Store { heap: Heap::new(), closed: false }),
        }
    }

    /// A store that refuses everything.
    #[cfg(not(gmp_loom))]
    pub(crate) const fn closed() -> Self {
        Timers {
            earliest: AtomicU64::new(NEVER),
            stale: AtomicBool::new(false),
            store: Mutex::new(rank::TIMERS, Store { heap: Heap::new(), closed: true }),
        }
    }

    #[cfg(gmp_loom)]
    pub(crate) fn new() -> Self {
        Timers {
            earliest: AtomicU64::new(NEVER),
            stale: AtomicBool::new(false),
            store: Mutex::new(rank::TIMERS, Store { heap: Heap::new(), closed: false }),
        }
    }

    /// No entry is due before this; [`NEVER`] if there is none. It may be the deadline of one that was cancelled: whoever goes
    /// to sleep asks for [`settled`](Self::settled).
    #[inline]
    pub(crate) fn earliest(&self) -> u64 {
        // Relaxed: only says when to look. A thread that goes to sleep on it has passed `idle_fence`, one that inserted
        // passes `submit_fence` before it looks for sleepers; entries are read under the lock.
        self.earliest.load(Relaxed)
    }

    /// The first deadline, [`NEVER`] if there is none.
    pub(crate) fn settled(&self) -> u64 {
        // Relaxed: as in `earliest`. Whoever cancels meanwhile leaves a deadline that is too early, not one too late.
        if self.stale.load(Relaxed) {
            let mut store = self.store.lock();
            store.heap.settle();
            self.publish(&store);
        }
        self.earliest()
    }

    /// Moves the wakers of what is due at `now` into `out`, in the order of (deadline, insertion), until `out` is full.
    /// Tells whether more is due. The caller wakes them, without any lock. Go: checkTimers
    #[must_use]
    pub(crate) fn run_due(&self, now: u64, out: &mut WakeBatch) -> bool {
        if self.earliest() > now {
            return false;
        }
        let mut store = self.store.lock();
        let mut more = store.heap.is_due(now);
        while more && !out.is_full() {
            if let Some(waker) = Node::end(store.heap.pop(), FIRED) {
                out.push(waker);
            }
            more = store.heap.is_due(now);
        }
        self.publish(&store);
        more
    }

    /// Ends every entry without waking it, and refuses new ones until [`open`](Self::open): none of their sleeps ends,
    /// and what is done to them later does not touch this store.
    pub(crate) fn close(&self) {
        let mut store = self.store.lock();
        store.closed = true;
        // Shutdown may allocate. One pass under the lock, so that nothing is left behind.
        let wakers: Vec<Waker> = store.heap.drain().filter_map(|node| Node::end(node, SHUT)).collect();
        self.publish(&store);
        drop(store);
        batch::drop_all(wakers);
    }

    /// Lets a closed store be used by the slot's next runtime.
    pub(crate) fn open(&self) {
        let mut store = self.store.lock();
        debug_assert_eq!(store.heap.len(), 0, "a closed store is empty");
        store.closed = false;
    }

    /// The number of entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.store.lock().heap.len()
    }

    /// Keeps invariant 5 before an unlock; tells whether the first deadline came nearer.
    fn publish(&self, store: &Store) -> bool {
        let (old, new) = (self.earliest.load(Relaxed), store.heap.first());
        if old != new {
            // Relaxed: see `earliest`.
            self.earliest.store(new, Relaxed);
        }
        let stale = store.heap.is_first_gone();
        if self.stale.load(Relaxed) != stale {
            // Relaxed: see `settled`.
            self.stale.store(stale, Relaxed);
        }
        new < old
    }
}

/// The part of an entry that a store points to.
struct Node {
    /// See the table above. Written by its owner, and in the heap under the store's lock.
    state: AtomicU8,
    /// Where the heap has it. Guarded by the store's lock.
    place: UnsafeCell<Place>,
    /// Whom to wake. Guarded by the store's lock while armed, the owner's else; nothing unless armed.
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: the cells are reached under the store's lock while the node is armed, and by its one owner else (invariants 2
// and 3); what they hold is Send.
unsafe impl Sync for Node {}

impl Node {
    /// Ends a node that has just left its heap, and gives its waker.
    fn end(node: NonNull<Node>, state: u8) -> Option<Waker> {
        // SAFETY: it was in the heap and its store is locked, so it is alive (invariant 2) and its cells are ours.
        unsafe {
            let waker = node.as_ref().waker.with_mut(|w| (*w).take());
            // Release: pairs with the Acquire in `Entry::{reset, unlink}`, whose thread may free the node at once.
            node.as_ref().state.store(state, Release);
            waker
        }
    }
}

/// What a poll of an entry found.
#[must_use]
pub(crate) enum Look {
    /// Its time has come.
    Fired,
    /// The waker will be woken, or the runtime is gone.
    Waiting,
    /// As `Waiting`, and this poll made it the earliest of that store: whoever sleeps until later must be told.
    Earliest(&'static Timers),
}

/// A deadline and a waker in some store: the state of a sleeping future, which pins it. All but `is_fired` is the
/// owner's alone.
pub(crate) struct Entry {
    node: Node,
    /// The store that has the node. Fixed while armed.
    home: Option<&'static Timers>,
    /// Which waker is armed, so that a poll with the same one takes no lock. Its clone is alive in the node while armed,
    /// and the poll's waker is alive too, so that equal names mean equal wakers.
    armed_with: WakerName,
    _pin: PhantomPinned,
}

type WakerName = (usize, usize);

/// What `Waker::will_wake` compares.
fn name(waker: &Waker) -> WakerName {
    (waker.data().addr(), ptr::from_ref(waker.vtable()).addr())
}

impl Entry {
    pub(crate) fn new() -> Self {
        Entry {
            node: Node {
                state: AtomicU8::new(IDLE),
                place: UnsafeCell::new(Place::NOWHERE),
                waker: UnsafeCell::new(None),
            },
            home: None,
            armed_with: (0, 0),
            _pin: PhantomPinned,
        }
    }

    /// Whether its time has come.
    pub(crate) fn is_fired(&self) -> bool {
        // Relaxed: the caller learns the fact and touches nothing.
        self.node.state.load(Relaxed) == FIRED
    }

    /// Whether the next poll inserts it.
    pub(crate) fn is_idle(&self) -> bool {
        // Relaxed: only the owner enters and leaves this state.
        self.node.state.load(Relaxed) == IDLE
    }

    /// Looks whether it has fired, and leaves `waker` to be woken if not. The first poll, and the first after a reset of
    /// a fired entry, inserts it into `home()` with `deadline`; later ones go by the deadline it has.
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        home: impl FnOnce() -> &'static Timers,
        deadline: u64,
        waker: &Waker,
    ) -> Look {
        // SAFETY: nothing is moved out of it.
        let this = unsafe { self.get_unchecked_mut() };
        // Relaxed: a poll that finds it ended touches nothing; `reset` and `unlink` load the state again.
        match this.node.state.load(Relaxed) {
            IDLE => this.insert(home(), deadline, waker),
            ARMED if this.armed_with == name(waker) => Look::Waiting,
            ARMED => this.replace_waker(waker),
            FIRED => Look::Fired,
            _ => Look::Waiting,
        }
    }

    /// Marks an entry that is idle as fired, because its owner saw that the time has come.
    pub(crate) fn elapse(self: Pin<&mut Self>) {
        debug_assert!(self.is_idle(), "an armed entry is its store's to fire");
        // Relaxed: no other thread knows the node.
        self.node.state.store(FIRED, Relaxed);
    }

    /// Moves its deadline; a fired entry becomes one that was never polled. Gives the store if the deadline is now the
    /// earliest there, as [`Look::Earliest`].
    #[must_use]
    pub(crate) fn reset(self: Pin<&mut Self>, deadline: u64) -> Option<&'static Timers> {
        // Acquire: pairs with the Release in `Node::end` (invariant 3).
        let mut state = self.node.state.load(Acquire);
        if state == ARMED {
            let home = self.armed_home();
            let mut store = home.store.lock();
            // Relaxed: under the lock it is final, or the lock has ordered the thread that ended it before us.
            state = self.node.state.load(Relaxed);
            if state == ARMED {
                store.heap.set_deadline(&self.node.place, deadline);
                return home.publish(&store).then_some(home);
            }
        }
        if state == FIRED {
            // Relaxed: no store knows the node any more.
            self.node.state.store(IDLE, Relaxed);
        }
        None
    }

    fn insert(&mut self, home: &'static Timers, deadline: u64, waker: &Waker) -> Look {
        let waker = waker.clone();
        self.armed_with = name(&waker);
        self.home = Some(home);
        let mut store = home.store.lock();
        if store.closed {
            drop(store);
            // Relaxed: no store knows the node.
            self.node.state.store(SHUT, Relaxed);
            return Look::Waiting;
        }
        // SAFETY: the node is idle, so the cell is ours (the field's guard).
        self.node.waker.with_mut(|w| unsafe { *w = Some(waker) });
        // Relaxed: others find the node in the heap, under this lock.
        self.node.state.store(ARMED, Relaxed);
        // SAFETY: the entry is pinned, and its drop unlinks the node (invariant 2).
        unsafe { store.heap.insert(deadline, NonNull::from(&self.node)) };
        if home.publish(&store) { Look::Earliest(home) } else { Look::Waiting }
    }

    fn replace_waker(&mut self, waker: &Waker) -> Look {
        let waker = waker.clone();
        let new_name = name(&waker);
        let mut waker = Some(waker);
        let store = self.armed_home().store.lock();
        // Relaxed: as in `reset`.
        let state = self.node.state.load(Relaxed);
        if state == ARMED {
            // SAFETY: armed, and the lock is held.
            self.node.waker.with_mut(|w| unsafe { ptr::swap(w, &mut waker) });
        }
        drop(store);
        self.armed_with = new_name;
        // The old waker, or the new one if the time came meanwhile, is dropped here, without the lock.
        drop(waker);
        if state == FIRED { Look::Fired } else { Look::Waiting }
    }

    /// Takes the node out of its store if it is in one; its cells are the owner's afterwards.
    fn unlink(&mut self) {
        // Acquire: pairs with the Release in `Node::end` (invariant 3).
        if self.node.state.load(Acquire) != ARMED {
            return;
        }
        let home = self.armed_home();
        let mut store = home.store.lock();
        // Relaxed: as in `reset`.
        if self.node.state.load(Relaxed) == ARMED {
            store.heap.remove(&self.node.place);
            home.publish(&store);
        }
    }

    fn armed_home(&self) -> &'static Timers {
        self.home.expect("an armed entry has a home")
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.unlink();
        // SAFETY: the node is in no heap now, so the cell is ours. The waker is dropped here, without the lock.
        drop(self.node.waker.with_mut(|w| unsafe { (*w).take() }));
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
