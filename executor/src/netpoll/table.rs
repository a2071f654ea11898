//! The descriptors of one netpoller, and the keys by which the kernel names them. `driver` owns one.
//!
//! 1. Descriptors live in chunks that are leaked, each twice the size of the one before: a lookup by key takes no lock,
//!    and a key that is out of date finds a descriptor, though of another generation.
//! 2. A number that is given back is handed out again as late as possible. Where the generation has few bits (32-bit
//!    targets), that is what keeps a key that an old batch still holds from coming true again.
//! 3. Indices end below `INDEX_LIMIT`, so that no key is one of the reserved ones, nor the one that polling reserves.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;

use super::descriptor::Descriptor;
use super::driver::Driver;
use super::readiness::GENERATION_BITS;
use super::registration::shut_down;
use crate::sys::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sys::atomic::{AtomicPtr, AtomicUsize};
use crate::sys::{Mutex, rank};

const INDEX_BITS: u32 = usize::BITS - GENERATION_BITS;
const INDEX_LIMIT: usize = (1 << INDEX_BITS) - 16;
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = INDEX_BITS as usize - FIRST_CHUNK.ilog2() as usize + 1;

/// The key of the event that breaks a blocked wait.
pub(super) const BREAK_KEY: u64 = u64::MAX - 1;
/// The key of the timer that stands in for `epoll_pwait2`.
pub(super) const TIMER_KEY: u64 = u64::MAX - 2;

/// What the kernel hands back with an event: a descriptor's index, and the generation of its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Key {
    pub(super) fn to_usize(self) -> usize {
        (self.generation as usize) << INDEX_BITS | self.index as usize
    }

    pub(super) fn from_usize(key: usize) -> Key {
        Key { index: (key & ((1 << INDEX_BITS) - 1)) as u32, generation: (key >> INDEX_BITS) as u32 }
    }
}

/// The descriptors.
pub(super) struct Table {
    /// Chunk `n` holds `FIRST_CHUNK << n` descriptors, or is null. Written under the lock, read without.
    chunks: [AtomicPtr<Descriptor>; CHUNKS],
    list: Mutex<List>,
    /// How many registrations there are. Written under the lock, read without.
    registered: AtomicUsize,
    /// Where the words of new descriptors start: zero, but for tests of the wrap.
    start: (u32, u32),
}

struct List {
    /// What registrations are added to; nothing while the netpoller is closed.
    driver: Option<Arc<Driver>>,
    /// How many descriptors there are.
    len: usize,
    /// Those without a registration.
    free: VecDeque<u32>,
}

fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

impl Table {
    pub(super) const fn new() -> Self {
        Self::starting_at(0, 0)
    }

    /// A table whose generations and ticks start there.
    pub(super) const fn starting_at(generation: u32, tick: u32) -> Self {
        Table {
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
            list: Mutex::new(rank::NETPOLL, List { driver: None, len: 0, free: VecDeque::new() }),
            registered: AtomicUsize::new(0),
            start: (generation, tick),
        }
    }

    /// The descriptor of an index that this table has handed out.
    pub(super) fn get(&self, index: u32) -> Option<&'static Descriptor> {
        if index as usize >= INDEX_LIMIT {
            return None;
        }
        let (chunk, offset) = place(index as usize);
        // Acquire: pairs with the Release in `begin`.
        let first = self.chunks.get(chunk)?.load(Acquire);
        // SAFETY: a chunk that is not null has `FIRST_CHUNK << chunk` descriptors, or ends at `INDEX_LIMIT`, which was
        // checked; it is never freed (invariant 1), and `place` gives offsets below its size.
        unsafe { first.as_ref().map(|_| &*first.add(offset)) }
    }

    /// From here on registrations can begin.
    pub(super) fn open(&self, driver: Arc<Driver>) {
        let old = self.list.lock().driver.replace(driver);
        debug_assert!(old.is_none(), "a netpoller is closed before it is opened again");
    }

    /// Ends every registration, and begins no more: the wakers of all who wait go into `taken`.
    pub(super) fn close(&self, taken: &mut Vec<Waker>) {
        let mut list = self.list.lock();
        let driver = list.driver.take();
        for index in 0..list.len as u32 {
            if self.get(index).is_some_and(|d| d.retire(None, taken).is_some()) {
                list.free.push_back(index);
                self.registered.fetch_sub(1, Relaxed);
            }
        }
        drop(list);
        // Closes the poller, if it is the last reference: not under the lock.
        drop(driver);
    }

    /// Begins a registration: its key, its descriptor, and what to add it to.
    pub(super) fn begin(&self, fd: RawFd, ready: bool) -> io::Result<(Key, &'static Descriptor, Arc<Driver>)> {
        let mut list = self.list.lock();
        let driver = list.driver.clone().ok_or_else(shut_down)?;
        if list.free.is_empty() {
            self.grow(&mut list);
        }
        let Some(index) = list.free.pop_front() else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the runtime has as many sockets as it can name"));
        };
        let descriptor = self.get(index).expect("a free index has a descriptor");
        let generation = descriptor.begin(fd, ready);
        self.registered.fetch_add(1, Relaxed);
        Ok((Key { index, generation }, descriptor, driver))
    }

    /// Adds a chunk, unless all indices are in use.
    fn grow(&self, list: &mut List) {
        let (chunk, _) = place(list.len);
        let len = (FIRST_CHUNK << chunk).min(INDEX_LIMIT - list.len);
        if len == 0 {
            return;
        }
        let (generation, tick) = self.start;
        let new: Box<[Descriptor]> = (0..len).map(|_| Descriptor::new(generation, tick)).collect();
        // Release: pairs with the Acquire in `get`.
        self.chunks[chunk].store(Box::leak(new).as_mut_ptr(), Release);
        let first = list.len;
        list.free.extend((first..first + len).map(|index| index as u32));
        list.len += len;
    }

    /// What a registration was added to, while it lasts.
    pub(super) fn driver_of(&self, descriptor: &Descriptor, key: Key) -> Option<Arc<Driver>> {
        let list = self.list.lock();
        descriptor.fd(key.generation)?;
        list.driver.clone()
    }

    /// Ends the registration of `key`, if it has not ended: the wakers of those who wait go into `taken`. With `reuse`
    /// the descriptor may be handed out again.
    pub(super) fn end(&self, key: Key, reuse: bool, taken: &mut Vec<Waker>) {
        let mut list = self.list.lock();
        let ended = self.get(key.index).is_some_and(|d| d.retire(Some(key.generation), taken).is_some());
        if ended {
            self.registered.fetch_sub(1, Relaxed);
        }
        if ended && reuse {
            list.free.push_back(key.index);
        }
    }

    /// How many registrations there are.
    pub(super) fn registered(&self) -> usize {
        self.registered.load(Relaxed)
    }
}
