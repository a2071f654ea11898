//! The heap of a timer store, 4-ary: half as deep as a binary one, and the four children lie in 64 bytes. It is only
//! reached through the store's lock, so `&mut Heap` is that lock.
//!
//! What is cancelled in the middle leaves a *tombstone*. Most timers are limits that are not reached, each later than the one
//! before, and the oldest is cancelled first: that is the root, and to take it out costs as much as to fire it. Tombstones go
//! one by one when they are the first item and somebody asks for the first live one, and all at once when they are more than
//! half.
//!
//! 1. For a live item `items[i]`, `place.index` of its node is `i`.
//! 2. No item is before its parent, in the order of (deadline, sequence of insertion or reset), tombstones included.
//! 3. Every node in it is alive (invariant 2 of `timers`). A tombstone names none.
//! 4. After a cancel at most half of the items are tombstones. A heap without nodes is empty.

use std::ptr::{self, NonNull};

use super::Node;
use crate::clock::NEVER;
use crate::sys::UnsafeCell;

const ARITY: usize = 4;

/// A heap with room for no more than this keeps its memory.
const SMALL: usize = 256;

pub(super) struct Heap {
    items: Vec<Item>,
    /// How many of them are tombstones.
    tombs: usize,
    /// The sequence number of the next insertion or reset.
    next_seq: u64,
}

/// The deadline is here and not in the node, so that comparing touches one line.
#[derive(Clone, Copy)]
struct Item {
    deadline: u64,
    /// The node. Of a tombstone the sequence number that it had, shifted left, and the lowest bit.
    who: *mut Node,
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
    fn live(deadline: u64, node: NonNull<Node>) -> Self {
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

    fn place(&self) -> &UnsafeCell<Place> {
        debug_assert!(!self.is_tomb(), "a tombstone has no node");
        // SAFETY: the node is in the heap, or is just entering it (invariant 3).
        unsafe { &(*self.who).place }
    }

    fn seq(&self) -> u64 {
        if self.is_tomb() {
            return (self.who.addr() >> 1) as u64;
        }
        // SAFETY: `place` is guarded by the lock, which `&Heap` stands for.
        self.place().with(|p| unsafe { (*p).seq })
    }

    #[inline]
    fn is_before(&self, other: &Item) -> bool {
        // Deadlines are in nanoseconds and seldom equal, so the sequence may cost a look at the nodes.
        self.deadline < other.deadline || (self.deadline == other.deadline && self.seq() < other.seq())
    }
}

impl Heap {
    pub(super) const fn new() -> Self {
        Heap { items: Vec::new(), tombs: 0, next_seq: 0 }
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

    /// Whether a node is due. The first item is that node then.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let is_due = |first| first <= now && first != NEVER;
        if !is_due(self.first()) {
            return false;
        }
        self.settle();
        is_due(self.first())
    }

    /// Adds a node.
    ///
    /// # Safety
    ///
    /// The node stays where it is and alive until it has left the heap, and it is in no heap now.
    #[inline]
    pub(super) unsafe fn insert(&mut self, deadline: u64, node: NonNull<Node>) {
        let item = Item::live(deadline, node);
        self.stamp(item);
        self.items.push(item);
        self.sift_up(self.items.len() - 1);
    }

    /// Takes the first node out of a heap in which one is due.
    pub(super) fn pop(&mut self) -> NonNull<Node> {
        let first = self.items[0];
        debug_assert!(!first.is_tomb(), "the first item is due, so it is live");
        self.take_out(0);
        NonNull::new(first.who).expect("a live item names its node")
    }

    /// Takes the node with this place out.
    #[inline]
    pub(super) fn remove(&mut self, place: &UnsafeCell<Place>) {
        // SAFETY: guarded by the lock.
        let (index, seq) = place.with(|p| unsafe { ((*p).index, (*p).seq) });
        if index + 1 == self.items.len() {
            self.items.pop();
            self.trim();
            return;
        }
        self.items[index] = Item::tomb(self.items[index].deadline, seq);
        self.tombs += 1;
        if self.tombs > self.items.len() / 2 {
            self.clear_tombs();
        }
    }

    /// Gives the node with this place another deadline, as if it were inserted anew.
    pub(super) fn set_deadline(&mut self, place: &UnsafeCell<Place>, deadline: u64) {
        // SAFETY: guarded by the lock.
        let index = place.with(|p| unsafe { (*p).index });
        let item = self.items[index];
        if deadline < item.deadline || index + 1 == self.items.len() {
            self.items[index].deadline = deadline;
            self.stamp(item);
            return self.restore(index);
        }
        // Later: mostly than all others, as a limit that is set anew.
        let node = NonNull::new(item.who).expect("a live item names its node");
        self.remove(place);
        // SAFETY: it has just left, and its owner keeps it.
        unsafe { self.insert(deadline, node) };
    }

    /// Empties the heap and gives its memory back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<Node>> + use<> {
        self.tombs = 0;
        let items = std::mem::take(&mut self.items).into_iter();
        items.filter(|item| !item.is_tomb()).filter_map(|item| NonNull::new(item.who))
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
            // SAFETY: guarded by the lock.
            assert!(item.is_tomb() || item.place().with(|p| unsafe { (*p).index }) == index);
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

    /// Numbers an insertion.
    #[inline]
    fn stamp(&mut self, item: Item) {
        let seq = self.next_seq;
        self.next_seq += 1;
        // SAFETY: guarded by the lock.
        item.place().with_mut(|p| unsafe { (*p).seq = seq });
    }

    /// Writes an item where it belongs and tells its node (invariant 1).
    #[inline]
    fn put(&mut self, index: usize, item: Item) {
        self.items[index] = item;
        if !item.is_tomb() {
            // SAFETY: guarded by the lock.
            item.place().with_mut(|p| unsafe { (*p).index = index });
        }
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
