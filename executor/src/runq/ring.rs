//! A processor's FIFO: a bounded ring (Go: `p.runq`). `runq` puts the run-next slot beside it.
//!
//! Positions count up for ever and wrap round; the unit of position p lies in slot p mod N. `head` is the position of
//! the oldest unit, `tail` the one where the next goes. The owner, the machine that holds the processor, appends and
//! takes; thieves take.
//!
//! 1. Only the owner writes slots and `tail`, and a slot only at positions from `tail` to `head` + N: none that holds a
//!    unit.
//! 2. Whoever takes units reads `head`, then the units from there on, then moves `head` past them from the value it
//!    read. If that succeeds nobody else has them; if not, what it read is nothing. A value of `head` does not come
//!    back: a thread would have to stand still for 2^64 units. (Go has 32 bits, which is a minute's work.)
//! 3. A unit is in its slot before `tail` covers it: Release by the owner, Acquire by whoever takes. The task behind
//!    the unit is handed over by the same pair.
//! 4. A slot is overwritten after the move that freed it was seen: Release by the taker, who read the slot before,
//!    Acquire by the owner. So no taker whose move succeeds has read what came later. Each move is a read-modify-write,
//!    so who sees a later one has seen all before.
//! 5. A thief reads `head` first, by Acquire: whoever moved it there had seen a `tail` at least as far, so the `tail`
//!    read next is no older. It may be newer, by more than N: then the two were never true together, and the move would
//!    fail.

use std::ptr::NonNull;

use super::Unit;
use crate::sys::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{Line, spin_loop};

/// How often a thief tries whose victim's units are taken by others meanwhile: they have work then, and there are other
/// victims.
const TRIES: u32 = 4;

/// A ring of `N` units, which is a power of two.
pub(crate) struct Ring<const N: usize> {
    /// Moved by whoever takes: on a line of its own, so that a theft does not take the line of `tail` from the owner.
    head: Line<AtomicU64>,
    /// Written by the owner.
    tail: Line<AtomicU64>,
    /// Written by the owner.
    slots: [AtomicPtr<()>; N],
}

/// What a theft brought.
#[derive(Debug)]
pub(crate) struct Loot {
    /// The oldest of the stolen units, to be run first.
    pub(crate) first: Unit,
    /// How many more of them now lie in the thief's ring.
    pub(crate) more: usize,
}

/// Where units go for which a full ring has no room.
pub(crate) trait Overflow {
    /// The older half of the ring and a unit that was to be appended, in order.
    fn overflow(&self, units: impl Iterator<Item = Unit>);
}

/// What was read of a slot, once it is the reader's.
///
/// # Safety
///
/// A unit was there, and the move of `head` past it has succeeded (invariant 2).
#[inline]
unsafe fn won(unit: *mut ()) -> Unit {
    // SAFETY: the address of a unit.
    Unit(unsafe { NonNull::new_unchecked(unit) })
}

impl<const N: usize> Ring<N> {
    pub(crate) fn new() -> Self {
        Self::starting_at(0)
    }

    /// Whose positions start there.
    pub(super) fn starting_at(position: u64) -> Self {
        const { assert!(N.is_power_of_two() && N > 1) };
        Ring {
            head: Line(AtomicU64::new(position)),
            tail: Line(AtomicU64::new(position)),
            slots: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
        }
    }

    #[inline]
    fn slot(&self, position: u64) -> &AtomicPtr<()> {
        &self.slots[position as usize % N]
    }

    #[inline]
    fn read(&self, position: u64) -> *mut () {
        // Relaxed: invariants 3 and 4.
        self.slot(position).load(Relaxed)
    }

    /// Owner only (invariant 1).
    #[inline]
    fn write(&self, position: u64, unit: *mut ()) {
        // Relaxed: invariants 3 and 4.
        self.slot(position).store(unit, Relaxed);
    }

    /// The units from `head` on, `count` of them, are the caller's if nobody has moved `head` (invariant 2).
    #[inline]
    fn take(&self, head: u64, count: u64) -> Result<(), u64> {
        // Release: pairs with the Acquire in `room` (invariant 4) and in `seen` (invariant 5).
        self.head.compare_exchange(head, head.wrapping_add(count), Release, Relaxed).map(drop)
    }

    /// Where the next unit goes, and how many are queued. Owner only: they are at most so many, and there is room for
    /// the others.
    #[inline]
    fn room(&self) -> (u64, u64) {
        let tail = self.tail.load(Relaxed);
        // Acquire: pairs with the Release in `take`; the slots that it freed may be written.
        (tail, tail.wrapping_sub(self.head.load(Acquire)))
    }

    /// The oldest unit's position, and how many units are queued, as any thread sees them; more than `N` if the two
    /// were never true together.
    #[inline]
    fn seen(&self) -> (u64, u64) {
        // Acquire: pairs with the Release in `take` (invariant 5).
        let head = self.head.load(Acquire);
        // Acquire: pairs with the Release in `push`, `extend` and `steal_into`; units and tasks are seen as they were
        // written.
        (head, self.tail.load(Acquire).wrapping_sub(head))
    }

    /// Exact for the owner but for thieves, who only take.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    pub(crate) unsafe fn len(&self) -> usize {
        self.tail.load(Relaxed).wrapping_sub(self.head.load(Relaxed)) as usize
    }

    /// The length as another thread sees it.
    #[inline]
    pub(crate) fn len_seen(&self) -> usize {
        (self.seen().1 as usize).min(N)
    }

    /// The position where the next unit goes, as another thread sees it.
    pub(crate) fn end_seen(&self) -> u64 {
        self.tail.load(Relaxed)
    }

    /// Whether all units before a position that was [`Ring::end_seen`] have been taken, as another thread sees it.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        self.head.load(Relaxed).wrapping_sub(position) as i64 >= 0
    }

    /// Appends `unit`. If the ring is full its older half and then `unit` go to `to` instead, in order (Go: `runqput`,
    /// `runqputslow`). Tells whether there were others.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    pub(crate) unsafe fn push(&self, unit: Unit, to: &impl Overflow) -> bool {
        let (tail, queued) = self.room();
        if queued == N as u64 {
            return self.push_full(unit, to);
        }
        self.append(tail, unit);
        queued > 0
    }

    #[inline]
    fn append(&self, tail: u64, unit: Unit) {
        self.write(tail, unit.into_raw().as_ptr());
        // Release: pairs with the Acquire in `seen`.
        self.tail.store(tail.wrapping_add(1), Release);
    }

    #[cold]
    fn push_full(&self, unit: Unit, to: &impl Overflow) -> bool {
        let half = N as u64 / 2;
        let (mut tail, mut queued) = self.room();
        while queued == N as u64 {
            let head = tail.wrapping_sub(queued);
            if self.take(head, half).is_ok() {
                // Only the owner writes slots, so it may as well read them after its move.
                // SAFETY: the move has succeeded.
                let older = (0..half).map(|i| unsafe { won(self.read(head.wrapping_add(i))) });
                to.overflow(older.chain(std::iter::once(unit)));
                return true;
            }
            // A thief was faster: there is room.
            (tail, queued) = self.room();
        }
        self.append(tail, unit);
        true
    }

    /// Appends `units`, for all of which there is room, at once.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    pub(crate) unsafe fn extend(&self, units: impl Iterator<Item = Unit>) {
        let (mut tail, queued) = self.room();
        let mut room = N as u64 - queued;
        for unit in units {
            assert!(room > 0, "more units than there is room for");
            self.write(tail, unit.into_raw().as_ptr());
            tail = tail.wrapping_add(1);
            room -= 1;
        }
        // Release: pairs with the Acquire in `seen`.
        self.tail.store(tail, Release);
    }

    /// Takes the oldest unit (Go: `runqget` behind `runnext`). It is one locked instruction if there is one.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    pub(crate) unsafe fn pop(&self) -> Option<Unit> {
        let tail = self.tail.load(Relaxed);
        let mut head = self.head.load(Relaxed);
        while head != tail {
            let unit = self.read(head);
            match self.take(head, 1) {
                // SAFETY: the move has succeeded.
                Ok(()) => return Some(unsafe { won(unit) }),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Takes half of `self`, rounded up, at most `limit`, into `into` (Go: `runqsteal`, `runqgrab`).
    ///
    /// # Safety
    ///
    /// The caller is the owner of `into`.
    pub(crate) unsafe fn steal_into(&self, into: &Self, limit: usize) -> Option<Loot> {
        let (tail, lie_there) = into.room();
        let limit = (limit as u64).clamp(1, N as u64 - lie_there + 1);
        for _ in 0..TRIES {
            let (head, queued) = self.seen();
            if queued == 0 {
                return None;
            }
            let count = queued.div_ceil(2).min(limit);
            let first = self.read(head);
            let more = count - 1;
            for i in 0..more {
                into.write(tail.wrapping_add(i), self.read(head.wrapping_add(1 + i)));
            }
            if queued <= N as u64 && self.take(head, count).is_ok() {
                // Release: pairs with the Acquire in `seen`, of those who steal from the thief.
                into.tail.store(tail.wrapping_add(more), Release);
                // SAFETY: the move has succeeded.
                return Some(Loot { first: unsafe { won(first) }, more: more as usize });
            }
            spin_loop();
        }
        None
    }

    /// Takes the oldest unit, from any thread.
    pub(crate) fn steal_one(&self) -> Option<Unit> {
        loop {
            let (head, queued) = self.seen();
            if queued == 0 {
                return None;
            }
            let unit = self.read(head);
            if queued <= N as u64 && self.take(head, 1).is_ok() {
                // SAFETY: the move has succeeded.
                return Some(unsafe { won(unit) });
            }
            spin_loop();
        }
    }
}
