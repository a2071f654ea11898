//! The sorted part of a timer store: a 4-ary heap, half as deep as a binary one, whose four children lie in 64 bytes. `store`
//! calls it, under the store's lock, so `&mut Heap` is that lock.
//!
//! What is cancelled in the middle leaves a *tombstone*. Most timers are limits that are not reached, each later than the one
//! before, and the oldest is cancelled first: that is the root, and to take it out costs as much as to fire it. Tombstones go
//! one by one when they are the first item and somebody asks for the first live one, and all at once when they are more than
//! half.
//!
//! 1. For a live item `items[i]`, the index of its node is `i`.
//! 2. No item is before its parent, in the order of (deadline, sequence of insertion or reset), tombstones included.
//! 3. Every node in it is alive (invariant 2 of `timers`). A tombstone names none.
//! 4. After a cancel at most half of the items are tombstones. A heap without nodes is empty.

use std::ptr::{self, NonNull};

use super::Node;
use crate::clock::NEVER;

const ARITY: usize = 4;

/// A list with room for no more than this keeps its memory.
pub(super) const SMALL: usize = 256;

pub(super) struct Heap {
    items: Vec<Item>,
    /// How many of them are tombstones.
    tombs: usize,
}

/// The deadline is here and not in the node, so that comparing touches one line.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) deadline: u64,
    /// The node. Of a tombstone the sequence number that it had, shifted left, and the lowest bit.
    who: *mut Node,
}

// SAFETY: the node may be reached from any thread that has the lock (`Node` is Sync).
unsafe impl Send for Item {}

impl Item {
    /// # Safety
    ///
    /// The node stays where it is and alive while the item is in a store.
    pub(super) unsafe fn live(deadline: u64, node: NonNull<Node>) -> Self {
        Item { deadline, who: node.as_ptr() }
    }

    fn tomb(deadline: u64, seq: u64) -> Self {
        Item { deadline, who: ptr::without_provenance_mut((seq as usize) << 1 | 1) }
    }

    #[inline]
    fn is_tomb(&self) -> bool {
        // A node has an even address.
        self.who.addr() & 1 == 1
    }

    /// Its node, if it is live.
    #[inline]
    pub(super) fn node(&self) -> Option<NonNull<Node>> {
        if self.is_tomb() { None } else { NonNull::new(self.who) }
    }

    /// Tells the node where it is.
    #[inline]
    pub(super) fn place(&self, index: u32) {
        if let Some(node) = self.node() {
            // SAFETY: a live item's node is alive (invariant 3), and the store is locked.
            unsafe { node.as_ref().set_index(index) };
        }
    }

    fn seq(&self) -> u64 {
        match self.node() {
            // SAFETY: as above.
            Some(node) => unsafe { node.as_ref().seq() },
            None => (self.who.addr() >> 1) as u64,
        }
    }

    #[inline]
    fn is_before(&self, other: &Item) -> bool {
        // Deadlines are in nanoseconds and seldom equal, so the sequence may cost a look at the nodes.
        self.deadline < other.deadline || (self.deadline == other.deadline && self.seq() < other.seq())
    }
}

impl Heap {
    pub(super) const fn new() -> Self {
        Heap { items: Vec::new(), tombs: 0 }
    }

    /// How many nodes are in it.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.tombs
    }

    /// The deadline of the first item, or [`NEVER`]: no live one is earlier.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.items.first().map_or(NEVER, |item| item.deadline)
    }

    /// Whether the first item is a tombstone.
    #[inline]
    pub(super) fn is_first_gone(&self) -> bool {
        self.items.first().is_some_and(Item::is_tomb)
    }

    /// Takes tombstones away until the first item is a live one.
    pub(super) fn settle(&mut self) {
        while self.is_first_gone() {
            self.tombs -= 1;
            self.take_out(0);
        }
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.items.reserve(more);
    }

    /// Adds a live item.
    #[inline]
    pub(super) fn insert(&mut self, item: Item) {
        self.items.push(item);
        self.sift_up(self.items.len() - 1);
    }

    /// Takes the first node out of a heap whose first item is live.
    pub(super) fn pop(&mut self) -> NonNull<Node> {
        let first = self.items[0].node().expect("the heap is settled, so its first item is live");
        self.take_out(0);
        first
    }

    /// Takes the node that is there out; gives its deadline.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> u64 {
        let index = index as usize;
        let item = self.items[index];
        if index + 1 == self.items.len() {
            self.items.pop();
            self.trim();
            return item.deadline;
        }
        self.items[index] = Item::tomb(item.deadline, item.seq());
        self.tombs += 1;
        if self.tombs > self.items.len() / 2 {
            self.clear_tombs();
        }
        item.deadline
    }

    /// Empties the heap and gives its memory back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<Node>> + use<> {
        self.tombs = 0;
        let items = std::mem::take(&mut self.items).into_iter();
        items.filter_map(|item| item.node())
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.items.capacity()
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.tombs, self.items.iter().filter(|item| item.is_tomb()).count());
        assert!(self.len() > 0 || self.items.is_empty());
        for (index, item) in self.items.iter().enumerate() {
            assert!(index == 0 || !item.is_before(&self.items[(index - 1) / ARITY]));
            // SAFETY: as in `place`.
            assert!(item.node().is_none_or(|node| unsafe { node.as_ref() }.index() as usize == index));
        }
    }

    /// Takes an item out; it was counted already if it is a tombstone.
    fn take_out(&mut self, index: usize) {
        self.items.swap_remove(index);
        if index < self.items.len() {
            self.restore(index);
        }
        self.trim();
        // Growth doubles, so halving at a quarter keeps both amortised.
        let capacity = self.items.capacity();
        if capacity > SMALL && self.items.len() < capacity / 4 {
            self.items.shrink_to(capacity / 2);
        }
    }

    /// Takes tombstones away at the end: if there is no live item, all of them (invariant 4).
    #[inline]
    fn trim(&mut self) {
        while self.items.last().is_some_and(Item::is_tomb) {
            self.items.pop();
            self.tombs -= 1;
        }
    }

    /// Makes a heap of the live items.
    #[cold]
    fn clear_tombs(&mut self) {
        self.tombs = 0;
        self.items.retain(|item| !item.is_tomb());
        let len = self.items.len();
        let parents = if len > 1 { (len - 2) / ARITY + 1 } else { 0 };
        for index in parents..len {
            self.put(index, self.items[index]);
        }
        for index in (0..parents).rev() {
            self.sift_down(index);
        }
        if self.items.capacity() / 4 > len {
            self.items.shrink_to((2 * len).max(SMALL));
        }
    }

    /// Writes an item where it belongs and tells its node (invariant 1).
    #[inline]
    fn put(&mut self, index: usize, item: Item) {
        self.items[index] = item;
        item.place(index as u32);
    }

    /// Moves an item that may be anywhere against its neighbours (invariant 2).
    fn restore(&mut self, index: usize) {
        if index > 0 && self.items[index].is_before(&self.items[(index - 1) / ARITY]) {
            self.sift_up(index);
        } else {
            self.sift_down(index);
        }
    }

    #[inline]
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
