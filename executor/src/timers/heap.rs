//! The heap of a timer store, 4-ary: half as deep as a binary one, and the four children lie in 64 bytes. It is only
//! reached through the store's lock, so `&mut Heap` is that lock.
//!
//! 1. `items[i].node.place.index == i`, so that an entry anywhere in the heap is moved or removed in O(log n).
//! 2. No item is before its parent, in the order of (deadline, sequence of insertion or reset).
//! 3. Every node in it is alive (invariant 2 of `timers`).

use std::ptr::NonNull;

use super::Node;
use crate::clock::NEVER;
use crate::sys::UnsafeCell;

const ARITY: usize = 4;

/// A heap with room for no more than this keeps its memory.
const SMALL: usize = 256;

pub(super) struct Heap {
    items: Vec<Item>,
    /// The sequence number of the next insertion or reset.
    next_seq: u64,
}

/// The deadline is here and not in the node, so that comparing touches one line.
#[derive(Clone, Copy)]
struct Item {
    deadline: u64,
    node: NonNull<Node>,
}

/// What a node knows of its place in the heap.
pub(super) struct Place {
    /// Its index, if it is in the heap.
    index: usize,
    /// Orders equal deadlines.
    seq: u64,
}

impl Place {
    pub(super) const NOWHERE: Place = Place { index: usize::MAX, seq: 0 };
}

// SAFETY: the nodes may be reached from any thread that has the lock (`Node` is Sync).
unsafe impl Send for Heap {}

impl Item {
    fn place(&self) -> &UnsafeCell<Place> {
        // SAFETY: the node is in the heap, or is just entering it (invariant 3).
        unsafe { &self.node.as_ref().place }
    }

    fn seq(&self) -> u64 {
        // SAFETY: `place` is guarded by the lock, which `&Heap` stands for.
        self.place().with(|p| unsafe { (*p).seq })
    }

    fn is_before(&self, other: &Item) -> bool {
        // Deadlines are in nanoseconds and seldom equal, so the sequence may cost a look at the nodes.
        self.deadline < other.deadline || (self.deadline == other.deadline && self.seq() < other.seq())
    }
}

impl Heap {
    pub(super) const fn new() -> Self {
        Heap { items: Vec::new(), next_seq: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The first deadline, or [`NEVER`].
    pub(super) fn first(&self) -> u64 {
        self.items.first().map_or(NEVER, |item| item.deadline)
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        let first = self.first();
        first <= now && first != NEVER
    }

    /// Adds a node.
    ///
    /// # Safety
    ///
    /// The node stays where it is and alive until it has left the heap, and it is in no heap now.
    pub(super) unsafe fn insert(&mut self, deadline: u64, node: NonNull<Node>) {
        let item = Item { deadline, node };
        self.stamp(item);
        self.items.push(item);
        self.sift_up(self.items.len() - 1);
    }

    /// Takes the first node out of a heap that is not empty.
    pub(super) fn pop(&mut self) -> NonNull<Node> {
        self.remove_at(0)
    }

    /// Takes the node with this place out.
    pub(super) fn remove(&mut self, place: &UnsafeCell<Place>) {
        // SAFETY: guarded by the lock.
        let index = place.with(|p| unsafe { (*p).index });
        self.remove_at(index);
    }

    /// Gives the node with this place another deadline, as if it were inserted anew.
    pub(super) fn set_deadline(&mut self, place: &UnsafeCell<Place>, deadline: u64) {
        // SAFETY: guarded by the lock.
        let index = place.with(|p| unsafe { (*p).index });
        self.items[index].deadline = deadline;
        self.stamp(self.items[index]);
        self.restore(index);
    }

    /// Empties the heap and gives its memory back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<Node>> + use<> {
        std::mem::take(&mut self.items).into_iter().map(|item| item.node)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.items.capacity()
    }

    fn remove_at(&mut self, index: usize) -> NonNull<Node> {
        let removed = self.items.swap_remove(index);
        if index < self.items.len() {
            self.restore(index);
        }
        // Growth doubles, so halving at a quarter keeps both amortised.
        let capacity = self.items.capacity();
        if capacity > SMALL && self.items.len() < capacity / 4 {
            self.items.shrink_to(capacity / 2);
        }
        removed.node
    }

    /// Numbers an insertion.
    fn stamp(&mut self, item: Item) {
        let seq = self.next_seq;
        self.next_seq += 1;
        // SAFETY: guarded by the lock.
        item.place().with_mut(|p| unsafe { (*p).seq = seq });
    }

    /// Writes an item where it belongs and tells its node (invariant 1).
    fn put(&mut self, index: usize, item: Item) {
        self.items[index] = item;
        // SAFETY: guarded by the lock.
        item.place().with_mut(|p| unsafe { (*p).index = index });
    }

    /// Moves an item that may be anywhere against its neighbours (invariant 2).
    fn restore(&mut self, index: usize) {
        if index > 0 && self.items[index].is_before(&self.items[(index - 1) / ARITY]) {
            self.sift_up(index);
        } else {
            self.sift_down(index);
        }
    }

    fn sift_up(&mut self, mut index: usize) {
        let item = self.items[index];
        while index > 0 {
            let parent = (index - 1) / ARITY;
            if !item.is_before(&self.items[parent]) {
                break;
            }
            self.put(index, self.items[parent]);
            index = parent;
        }
        self.put(index, item);
    }

    fn sift_down(&mut self, mut index: usize) {
        let item = self.items[index];
        loop {
            let first = index * ARITY + 1;
            if first >= self.items.len() {
                break;
            }
            let end = (first + ARITY).min(self.items.len());
            let mut least = first;
            for child in first + 1..end {
                if self.items[child].is_before(&self.items[least]) {
                    least = child;
                }
            }
            if !self.items[least].is_before(&item) {
                break;
            }
            self.put(index, self.items[least]);
            index = least;
        }
        self.put(index, item);
    }
}
