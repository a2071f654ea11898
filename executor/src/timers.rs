//! Timers: the store of deadlines and wakers of one processor slot, and the entry that a sleeping future keeps in it.
//! `time` polls, resets and drops entries; `sched` and `sysmon` fire what is due; `runtime` closes a store.
//!
//! 1. A store belongs to a slot of the processor table, never to a processor or a machine: it outlives every entry, and
//!    an entry's home is fixed from its insertion until it fires. Any thread may fire any store.
//! 2. A node in the store is alive and pinned: its entry unlinks it, under the store's lock, before it goes.
//! 3. Storing FIRED or SHUT (Release, under the lock) is the last touch of a node by anybody but its owner. An owner
//!    that loads one of them (Acquire) needs no lock and may free the node at once.
//! 4. No waker is cloned, woken or dropped under the lock.
//! 5. Whenever the lock is free no entry in the store is due before `earliest`. It is the deadline of one, unless that
//!    was cancelled and `unsettled` says so; then the next to go to sleep looks for the first that is left.
//!
//! | state | value | in the store | who leaves it                                                                  |
//! |-------|-------|--------------|--------------------------------------------------------------------------------|
//! | idle  |   0   |      no      | `poll` → armed, or → shut if the store is closed · `elapse` → fired            |
//! | ahead |   1   |      no      | as idle, but its owner knows that the time has not come · `reset` → idle       |
//! | armed |   2   |     yes      | `run_due` → fired · `close` → shut · `reset` stays · the entry's drop unlinks  |
//! | fired |   3   |      no      | `reset` → idle                                                                 |
//! | shut  |   4   |      no      | nobody: a sleep whose runtime is gone never ends                               |

mod batch;
mod heap;
mod store;

use std::marker::PhantomPinned;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::Waker;

use crate::clock::NEVER;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::atomic::{AtomicBool, AtomicU8, AtomicU64};
use crate::sys::{OwnMutex, UnsafeCell, const_but_in_models, rank};
use crate::wakers::wake;

pub(crate) use batch::WakeBatch;
use store::Store;

const IDLE: u8 = 0;
const AHEAD: u8 = 1;
const ARMED: u8 = 2;
const FIRED: u8 = 3;
const SHUT: u8 = 4;

/// The timers of one processor slot.
pub(crate) struct Timers {
    /// No deadline in the store is earlier; [`NEVER`] if it is empty. Written under the lock, read by anybody.
    earliest: AtomicU64,
    /// The entry with that deadline is gone, or much is unsorted. Guarded as `earliest`.
    unsettled: AtomicBool,
    /// The processor's thread has it to itself, but for thieves and for tasks that have moved.
    store: OwnMutex<Store>,
}

impl Timers {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            Timers::with(Store::new(false))
        }
    }

    /// A store that refuses everything.
    #[cfg(not(gmp_loom))]
    pub(crate) const fn closed() -> Self {
        Timers::with(Store::new(true))
    }

    const_but_in_models! {
        fn with(store: Store) -> Self {
            Timers {
                earliest: AtomicU64::new(NEVER),
                unsettled: AtomicBool::new(false),
                store: OwnMutex::new(rank::TIMERS, store),
            }
        }
    }

    /// No entry is due before this; [`NEVER`] if there is none. It may be the deadline of one that was cancelled:
    /// whoever goes to sleep asks for [`settled`](Self::settled).
    #[inline]
    pub(crate) fn earliest(&self) -> u64 {
        // Relaxed: only says when to look. A thread that goes to sleep on it has passed `idle_fence`, one that inserted
        // passes `submit_fence` before it looks for sleepers; entries are read under the lock.
        self.earliest.load(Relaxed)
    }

    /// The first deadline, [`NEVER`] if there is none.
    pub(crate) fn settled(&self) -> u64 {
        // Relaxed: as in `earliest`. Whoever cancels meanwhile leaves a deadline that is too early, not one too late.
        if self.unsettled.load(Relaxed) {
            let mut store = self.store.lock();
            store.settle();
            self.publish(&store);
        }
        self.earliest()
    }

    /// Moves the wakers of what is due at `now` into `out`, in the order of (deadline, insertion), until it has `most`
    /// or is full. Tells whether more is due. The caller wakes them, without any lock. Go: checkTimers
    #[must_use]
    pub(crate) fn run_due(&self, now: u64, most: usize, out: &mut WakeBatch) -> bool {
        if self.earliest() > now {
            return false;
        }
        let mut store = self.store.lock();
        while out.len() < most && !out.is_full() {
            let Some(node) = store.pop_due(now) else { break };
            out.push(Node::end(node, FIRED));
        }
        let more = store.is_due(now);
        self.publish(&store);
        more
    }

    /// Ends every entry, and refuses new ones until [`open`](Self::open): none of their sleeps ends, and what is done
    /// to them later does not touch this store. Their wakers are woken: who waits in vain may say so.
    pub(crate) fn close(&self) {
        let mut store = self.store.lock();
        store.closed = true;
        // Shutdown may allocate. One pass under the lock, so that nothing is left behind.
        let wakers: Vec<Waker> = store.drain().map(|node| Node::end(node, SHUT)).collect();
        self.publish(&store);
        drop(store);
        wakers.into_iter().for_each(wake);
    }

    /// Lets a closed store be used by the slot's next runtime.
    pub(crate) fn open(&self) {
        let mut store = self.store.lock();
        debug_assert_eq!(store.len(), 0, "a closed store is empty");
        store.closed = false;
    }

    /// The number of entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.store.lock().len()
    }

    /// Keeps invariant 5 before an unlock; tells whether the first deadline came nearer.
    #[inline]
    fn publish(&self, store: &Store) -> bool {
        let (old, new) = (self.earliest.load(Relaxed), store.earliest());
        if old != new {
            // Relaxed: see `earliest`.
            self.earliest.store(new, Relaxed);
        }
        let unsettled = store.is_unsettled();
        if self.unsettled.load(Relaxed) != unsettled {
            // Relaxed: see `settled`.
            self.unsettled.store(unsettled, Relaxed);
        }
        new < old
    }
}

/// The part of an entry that a store points to.
struct Node {
    /// Whom to wake: there while armed. Written under the store's lock by its owner; whoever ends the node moves it
    /// out, which is a read.
    waker: UnsafeCell<MaybeUninit<Waker>>,
    /// Where the store has it. Guarded by the store's lock.
    index: UnsafeCell<u32>,
    /// See the table above. Written by its owner, and in the store under its lock.
    state: AtomicU8,
}

// SAFETY: the cells are written under the store's lock while the node is armed, and by its one owner else (invariants 2
// and 3); what they hold is Send.
unsafe impl Sync for Node {}

impl Node {
    /// Ends a node that has just left its store, and gives its waker.
    fn end(node: NonNull<Node>, state: u8) -> Waker {
        // SAFETY: it was in the store, which is locked, so it is alive (invariant 2), its cells are ours, and its waker
        // is there. The state says from now on that it is not.
        unsafe {
            let waker = node.as_ref().waker.with(|w| (*w).assume_init_read());
            // Release: pairs with the Acquire in `Entry::{reset, unlink}`, whose thread may free the node at once.
            node.as_ref().state.store(state, Release);
            waker
        }
    }

    #[inline]
    fn index(&self) -> u32 {
        // SAFETY: only called under the store's lock.
        self.index.with(|i| unsafe { *i })
    }

    #[inline]
    fn set_index(&self, index: u32) {
        // SAFETY: as above.
        self.index.with_mut(|i| unsafe { *i = index });
    }
}

/// What a poll of an entry found.
#[must_use]
pub(crate) enum Look {
    /// Its time has come.
    Fired,
    /// The waker will be woken.
    Waiting,
    /// Its runtime is gone, and it never fires.
    Shut,
    /// As `Waiting`, and this poll made it the earliest of that store: whoever sleeps until later must be told.
    Earliest(&'static Timers),
}

/// A deadline and a waker in some store: the state of a sleeping future, which pins it. All but `is_fired` is the
/// owner's alone.
pub(crate) struct Entry {
    node: Node,
    /// The store that has the node. Fixed while armed.
    home: Option<&'static Timers>,
    _pin: PhantomPinned,
}

impl Entry {
    /// One that is armed by its first poll. `is_ahead`: that needs not ask whether the time has come.
    #[inline]
    pub(crate) fn new(is_ahead: bool) -> Self {
        Entry {
            node: Node {
                waker: UnsafeCell::new(MaybeUninit::uninit()),
                index: UnsafeCell::new(0),
                state: AtomicU8::new(if is_ahead { AHEAD } else { IDLE }),
            },
            home: None,
            _pin: PhantomPinned,
        }
    }

    /// Whether its time has come.
    pub(crate) fn is_fired(&self) -> bool {
        // Relaxed: the caller learns the fact and touches nothing.
        self.node.state.load(Relaxed) == FIRED
    }

    /// Whether the next poll inserts it, unless the time has come meanwhile.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        // Relaxed: only the owner enters and leaves this state.
        self.node.state.load(Relaxed) == IDLE
    }

    /// Looks whether it has fired, and leaves `waker` to be woken if not. The first poll, and the first after a reset
    /// of a fired entry, inserts it into `home()` with `deadline`; later ones go by the deadline it has.
    #[inline]
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
            IDLE | AHEAD => this.insert(home(), deadline, waker),
            ARMED if this.is_armed_with(waker) => Look::Waiting,
            ARMED => this.replace_waker(waker),
            FIRED => Look::Fired,
            _ => Look::Shut,
        }
    }

    /// Whether this waker is armed, so that no lock is needed to put it there. The state was armed just now.
    fn is_armed_with(&self, waker: &Waker) -> bool {
        // SAFETY: only the owner writes the cell, and that is us. The one in it may be moved out meanwhile, woken and
        // dropped: its two words stay, and they are all that is compared. If they are those of `waker`, which is alive,
        // they mean the same: an address is only used again after the drop, and whoever uses it again has then seen the
        // state after it.
        self.node.waker.with(|w| unsafe { (*w).assume_init_ref().will_wake(waker) })
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
                store.set_deadline(&self.node, deadline);
                return home.publish(&store).then_some(home);
            }
        }
        if matches!(state, FIRED | AHEAD) {
            // Relaxed: no store knows the node.
            self.node.state.store(IDLE, Relaxed);
        }
        None
    }

    #[inline]
    fn insert(&mut self, home: &'static Timers, deadline: u64, waker: &Waker) -> Look {
        let waker = waker.clone();
        self.home = Some(home);
        let mut store = home.store.lock();
        if store.closed {
            drop(store);
            // Relaxed: no store knows the node.
            self.node.state.store(SHUT, Relaxed);
            return Look::Shut;
        }
        // SAFETY: the node is idle, so the cell is ours (the field's guard).
        self.node.waker.with_mut(|w| unsafe { *w = MaybeUninit::new(waker) });
        // SAFETY: the entry is pinned, and its drop unlinks the node (invariant 2).
        unsafe { store.insert(deadline, NonNull::from(&self.node)) };
        // Relaxed: others find the node in the store, under this lock.
        self.node.state.store(ARMED, Relaxed);
        if home.publish(&store) { Look::Earliest(home) } else { Look::Waiting }
    }

    #[cold]
    fn replace_waker(&mut self, waker: &Waker) -> Look {
        let mut waker = waker.clone();
        let store = self.armed_home().store.lock();
        // Relaxed: as in `reset`.
        let state = self.node.state.load(Relaxed);
        if state == ARMED {
            // SAFETY: armed, so there is one; and the lock is held.
            self.node.waker.with_mut(|w| unsafe { std::mem::swap((*w).assume_init_mut(), &mut waker) });
        }
        drop(store);
        // The old waker, or the new one if the time came meanwhile, is dropped here, without the lock.
        drop(waker);
        match state {
            ARMED => Look::Waiting,
            FIRED => Look::Fired,
            _ => Look::Shut,
        }
    }

    /// Takes the node out of its store if it is in one, and gives its waker; the cells are the owner's afterwards.
    #[inline]
    fn unlink(&mut self) -> Option<Waker> {
        // Acquire: pairs with the Release in `Node::end` (invariant 3).
        if self.node.state.load(Acquire) != ARMED {
            return None;
        }
        let home = self.armed_home();
        let mut store = home.store.lock();
        // Relaxed: as in `reset`.
        if self.node.state.load(Relaxed) != ARMED {
            return None;
        }
        store.remove(&self.node);
        home.publish(&store);
        // SAFETY: it was armed to this moment, so the waker is there; the entry is being dropped, so nobody takes it
        // again.
        Some(self.node.waker.with(|w| unsafe { (*w).assume_init_read() }))
    }

    #[inline]
    fn armed_home(&self) -> &'static Timers {
        self.home.expect("an armed entry has a home")
    }
}

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        // The waker is dropped here, without the lock.
        drop(self.unlink());
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
#[cfg(all(test, not(gmp_loom)))]
mod trial;
