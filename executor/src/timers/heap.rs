//! The sorted part of a timer store: a 4-ary heap, half as deep as a binary one, whose four children lie in 64 bytes.
//! `store` calls it, under the store's lock, so `&mut Heap` is that lock.
//!
//! An item names its node by a number, and a table says where that is: items move without touching nodes, which are
//! cold. A million that fire would else write to ten nodes each.
//!
//! What is cancelled leaves a *tombstone*, an item whose number stands for no node. Tombstones go one by one when they
//! are the first item and somebody asks for the first live one, and all at once when they are more than half.
//!
//! 1. Each item has a number of its own, and the index of a live item's node is that number.
//! 2. No item is before its parent, in the order of (deadline, sequence of insertion or reset), tombstones included.
//! 3. Every node in the table is alive (invariant 2 of `timers`).
//! 4. After a cancel at most half of the items are tombstones. A heap without nodes is empty.

use std::ptr::{self, NonNull};

use super::Node;
use crate::clock::NEVER;

const ARITY: usize = 4;

/// A list with room for no more than this keeps its memory.
pub(super) const SMALL: usize = 256;

pub(super) struct Heap {
    items: Vec<Item>,
    /// By number.
    table: Vec<Place>,
    /// The first number that no item has, [`NONE`] if all are taken.
    free: u32,
    /// How many items are tombstones.
    tombs: usize,
}

/// The deadline is here and not in the node, so that comparing touches one line.
#[derive(Clone, Copy)]
struct Item {
    deadline: u64,
    /// Orders equal deadlines. It may wrap: what is compared was inserted within less than half of its range.
    seq: u32,
    number: u32,
}

/// What a number stands for: a node, whose address is even; nothing, for a tombstone; or no item has it, and it holds
/// the next such number, shifted left, and the lowest bit.
#[derive(Clone, Copy)]
struct Place(*mut Node);

/// So many numbers leave a bit of an index to `store`.
const MAX: usize = 1 << 31;

/// No number.
const NONE: u32 = u32::MAX;

// SAFETY: the node may be reached from any thread that has the lock (`Node` is Sync).
unsafe impl Send for Place {}

impl Place {
    const TOMB: Place = Place(ptr::null_mut());

    fn free(next: u32) -> Place {
        Place(ptr::without_provenance_mut((next as usize) << 1 | 1))
    }

    #[inline]
    fn node(self) -> Option<NonNull<Node>> {
        if self.0.addr() & 1 == 1 { None } else { NonNull::new(self.0) }
    }
}

impl Item {
    #[inline]
    fn is_before(&self, other: &Item) -> bool {
        self.deadline < other.deadline
            || self.deadline == other.deadline && (self.seq.wrapping_sub(other.seq) as i32) < 0
    }
}

impl Heap {
    pub(super) const fn new() -> Self {
        Heap { items: Vec::new(), table: Vec::new(), free: NONE, tombs: 0 }
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
        self.items.first().is_some_and(|item| self.is_tomb(item))
    }

    /// Takes tombstones away until the first item is a live one.
    pub(super) fn settle(&mut self) {
        while self.is_first_gone() {
            self.tombs -= 1;
            self.take_first();
        }
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.items.reserve(more);
    }

    /// Adds a node.
    ///
    /// # Safety
    ///
    /// The node stays where it is and alive until it has left the heap, and it is in no heap now.
    #[inline]
    pub(super) unsafe fn insert(&mut self, deadline: u64, seq: u32, node: NonNull<Node>) {
        let number = self.free;
        let number = match self.table.get_mut(number as usize) {
            Some(place) => {
                self.free = (place.0.addr() >> 1) as u32;
                *place = Place(node.as_ptr());
                number
            }
            None => {
                assert!(self.table.len() < MAX, "two billion timers in one store");
                self.table.push(Place(node.as_ptr()));
                self.table.len() as u32 - 1
            }
        };
        // SAFETY: it is alive, and the store is locked.
        unsafe { node.as_ref().set_index(number) };
        self.items.push(Item { deadline, seq, number });
        self.sift_up(self.items.len() - 1);
    }

    /// Takes the first node out of a heap whose first item is live.
    pub(super) fn pop(&mut self) -> NonNull<Node> {
        let first = self.table[self.items[0].number as usize].node();
        self.take_first();
        first.expect("the heap is settled, so its first item is live")
    }

    /// Takes the node with this number out; tells whether its item was the first.
    #[inline]
    pub(super) fn remove(&mut self, number: u32) -> bool {
        let is_first = self.items[0].number == number;
        self.table[number as usize] = Place::TOMB;
        self.tombs += 1;
        self.trim();
        self.shrink();
        if self.tombs > self.items.len() / 2 {
            self.clear_tombs();
        }
        is_first
    }

    /// Empties the heap and gives its memory back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<Node>> + use<> {
        std::mem::replace(self, Heap::new()).table.into_iter().filter_map(Place::node)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.items.capacity().max(self.table.capacity())
    }

    /// Panics if an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.tombs, self.items.iter().filter(|item| self.is_tomb(item)).count());
        assert!(self.len() > 0 || self.items.is_empty());
        let mut is_used = vec![false; self.table.len()];
        for (index, item) in self.items.iter().enumerate() {
            assert!(index == 0 || !item.is_before(&self.items[(index - 1) / ARITY]));
            let place = self.table[item.number as usize];
            // SAFETY: invariant 3.
            assert!(place.node().is_none_or(|node| unsafe { node.as_ref() }.index() == item.number));
            assert!(!std::mem::replace(&mut is_used[item.number as usize], true));
        }
        assert_eq!(self.table.iter().filter_map(|place| place.node()).count(), self.len());
    }

    #[inline]
    fn is_tomb(&self, item: &Item) -> bool {
        self.table[item.number as usize].node().is_none()
    }

    /// No item has this number any more.
    #[inline]
    fn release(&mut self, number: u32) {
        self.table[number as usize] = Place::free(self.free);
        self.free = number;
    }

    /// Takes the first item out; it is not counted any more if it is a tombstone.
    fn take_first(&mut self) {
        let first = self.items.swap_remove(0);
        self.release(first.number);
        if !self.items.is_empty() {
            self.sift_down(0);
        }
        self.trim();
        self.shrink();
    }

    /// Gives memory back. Growth doubles, so halving at a quarter keeps both amortised.
    #[inline]
    fn shrink(&mut self) {
        let capacity = self.items.capacity();
        if capacity > SMALL && self.items.len() < capacity / 4 {
            self.items.shrink_to(capacity / 2);
            self.renumber();
        }
    }

    /// Takes tombstones away at the end: if there is no live item, all of them (invariant 4).
    #[inline]
    fn trim(&mut self) {
        while let Some(last) = self.items.last().filter(|last| self.is_tomb(last)) {
            let number = last.number;
            self.release(number);
            self.items.pop();
            self.tombs -= 1;
        }
    }

    /// Makes a heap of the live items.
    #[cold]
    fn clear_tombs(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        items.retain(|item| {
            let is_tomb = self.is_tomb(item);
            if is_tomb {
                self.release(item.number);
            }
            !is_tomb
        });
        self.items = items;
        self.tombs = 0;
        let len = self.items.len();
        let parents = if len > 1 { (len - 2) / ARITY + 1 } else { 0 };
        for index in (0..parents).rev() {
            self.sift_down(index);
        }
        if self.items.capacity() > SMALL && self.items.capacity() / 4 > len {
            self.items.shrink_to((2 * len).max(SMALL));
            self.renumber();
        }
    }

    /// Makes the table as long as there are items.
    fn renumber(&mut self) {
        let mut table = Vec::with_capacity(self.items.capacity());
        for item in &mut self.items {
            let place = self.table[item.number as usize];
            item.number = table.len() as u32;
            table.push(place);
            if let Some(node) = place.node() {
                // SAFETY: invariant 3, and the store is locked.
                unsafe { node.as_ref().set_index(item.number) };
            }
        }
        self.table = table;
        self.free = NONE;
    }

    #[inline]
    fn sift_up(&mut self, mut index: usize) {
        let item = self.items[index];
        while index > 0 {
            let parent = (index - 1) / ARITY;
            if !item.is_before(&self.items[parent]) {
                break;
            }
            self.items[index] = self.items[parent];
            index = parent;
        }
        self.items[index] = item;
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
            self.items[index] = self.items[least];
            index = least;
        }
        self.items[index] = item;
    }
}
