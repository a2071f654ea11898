//! What is behind the lock of a timer store: the nodes that wait, in two parts. `timers` calls it.
//!
//! Most timers are limits: armed, and cancelled long before they are due. So a node first goes to the end of `fresh`, a
//! list without order, from which it is taken in two steps. It is sorted into the heap only when the list is full, or
//! when somebody must know the first deadline: because `earliest` is due, or because a thread goes to sleep, and the
//! one that was the earliest is gone or the list is long. Each node is sorted in at most once between its insertions,
//! so nobody can make the store sort more than was inserted.
//!
//! 1. A node's index says where it is: `FRESH` and its place in the list, or its number in the heap.
//! 2. No node has a deadline before `earliest`. If not `stale`, one has that deadline, or there is none.
//! 3. Every node in it is alive (invariant 2 of `timers`).

use std::ptr::NonNull;

use super::Node;
use super::heap::{Heap, SMALL};
use crate::clock::NEVER;

/// In an index: the node is in the list.
const FRESH: u32 = 1 << 31;

/// So many at most are unsorted. To sort them in takes about a millisecond, under the lock.
const FRESH_MAX: usize = 1 << 14;

/// Who goes to sleep sorts so many in: it has the time, and whoever wakes for the first of them has not.
const FRESH_LONG: usize = 1 << 10;

pub(super) struct Store {
    /// Inserted since somebody last had to know the first, in no order.
    fresh: Vec<Fresh>,
    heap: Heap,
    earliest: u64,
    /// The node with that deadline is gone.
    stale: bool,
    /// The sequence number of the next insertion or reset.
    next_seq: u32,
    /// No runtime owns the slot: nothing may be inserted.
    pub(super) closed: bool,
}

/// A node in the list.
struct Fresh {
    deadline: u64,
    node: NonNull<Node>,
    /// Orders equal deadlines.
    seq: u32,
}

// SAFETY: the node may be reached from any thread that has the lock (`Node` is Sync).
unsafe impl Send for Fresh {}

impl Fresh {
    /// Tells the node where it is.
    #[inline]
    fn place(&self, index: u32) {
        // SAFETY: it is alive (invariant 3), and the store is locked.
        unsafe { self.node.as_ref().set_index(index | FRESH) };
    }
}

impl Store {
    pub(super) const fn new(closed: bool) -> Self {
        Store { fresh: Vec::new(), heap: Heap::new(), earliest: NEVER, stale: false, next_seq: 0, closed }
    }

    /// How many nodes are in it.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.heap.len()
    }

    /// No node has an earlier deadline; [`NEVER`] if there is none.
    #[inline]
    pub(super) fn earliest(&self) -> u64 {
        self.earliest
    }

    /// Whether it is that of a node that is gone, or much is unsorted: a thread that goes to sleep settles it.
    #[inline]
    pub(super) fn is_unsettled(&self) -> bool {
        self.stale || self.fresh.len() >= FRESH_LONG
    }

    /// Adds a node.
    ///
    /// # Safety
    ///
    /// The node stays where it is and alive until it has left the store, and it is in no store now.
    #[inline]
    pub(super) unsafe fn insert(&mut self, deadline: u64, node: NonNull<Node>) {
        if self.fresh.len() == FRESH_MAX {
            self.sort_in();
        }
        let fresh = Fresh { deadline, node, seq: self.next_seq };
        self.next_seq = self.next_seq.wrapping_add(1);
        fresh.place(self.fresh.len() as u32);
        self.fresh.push(fresh);
        if deadline < self.earliest {
            self.earliest = deadline;
            self.stale = false;
        }
    }

    /// Takes a node that is in it out.
    #[inline]
    pub(super) fn remove(&mut self, node: &Node) {
        let index = node.index();
        let was_earliest = if index & FRESH == 0 {
            // If the first of the heap is not the earliest, something in the list is.
            let is_in_heap = self.heap.first() == self.earliest;
            self.heap.remove(index) && is_in_heap
        } else {
            self.remove_fresh((index & !FRESH) as usize) == self.earliest
        };
        if was_earliest || self.fresh.is_empty() && self.heap.len() == 0 {
            self.earliest_is_gone();
        }
    }

    /// Gives a node that is in it another deadline, as if it were inserted anew.
    pub(super) fn set_deadline(&mut self, node: &Node, deadline: u64) {
        self.remove(node);
        // SAFETY: it has just left, and its owner keeps it.
        unsafe { self.insert(deadline, NonNull::from(node)) };
    }

    /// Makes `earliest` exact.
    pub(super) fn settle(&mut self) {
        self.sort_in();
        self.heap.settle();
        self.earliest = self.heap.first();
        self.stale = false;
    }

    /// Takes the first node out if it is due.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<NonNull<Node>> {
        if !self.is_due(now) {
            return None;
        }
        let node = self.heap.pop();
        self.earliest = self.heap.first();
        self.stale = self.heap.is_first_gone();
        Some(node)
    }

    /// Whether a node is due. It is the first of the heap then.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let is_due = |deadline| deadline <= now && deadline != NEVER;
        if !is_due(self.earliest) {
            return false;
        }
        self.settle();
        is_due(self.earliest)
    }

    /// Empties the store and gives its memory back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<Node>> + use<> {
        self.earliest = NEVER;
        self.stale = false;
        let fresh = std::mem::take(&mut self.fresh).into_iter().map(|fresh| fresh.node);
        fresh.chain(self.heap.drain())
    }

    #[cold]
    fn earliest_is_gone(&mut self) {
        if self.len() == 0 {
            self.earliest = NEVER;
        }
        self.stale = self.earliest != NEVER;
    }

    #[inline]
    fn remove_fresh(&mut self, index: usize) -> u64 {
        let gone = self.fresh.swap_remove(index);
        if let Some(moved) = self.fresh.get(index) {
            moved.place(index as u32);
        }
        // Growth doubles, so halving at a quarter keeps both amortised.
        let capacity = self.fresh.capacity();
        if capacity > SMALL && self.fresh.len() < capacity / 4 {
            self.fresh.shrink_to(capacity / 2);
        }
        gone.deadline
    }

    /// Sorts what is fresh into the heap.
    #[inline]
    fn sort_in(&mut self) {
        if !self.fresh.is_empty() {
            self.sort_all_in();
        }
    }

    #[cold]
    fn sort_all_in(&mut self) {
        self.heap.reserve(self.fresh.len());
        for Fresh { deadline, node, seq } in self.fresh.drain(..) {
            // SAFETY: it is alive until it has left the store (invariant 3).
            unsafe { self.heap.insert(deadline, seq, node) };
        }
        self.fresh.shrink_to(SMALL);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.fresh.capacity() + self.heap.capacity()
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.heap.check();
        for (index, fresh) in self.fresh.iter().enumerate() {
            // SAFETY: invariant 3.
            assert_eq!(unsafe { fresh.node.as_ref() }.index(), index as u32 | FRESH);
            assert!(fresh.deadline >= self.earliest);
        }
        assert!(self.heap.first() >= self.earliest);
        assert!(self.len() > 0 || (self.earliest, self.stale) == (NEVER, false));
    }
}
