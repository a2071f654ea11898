//! The registry of live tasks, in shards: one for each slot of the processor table. `task` enters and removes tasks,
//! shutdown wakes them all through it, and abort finds a task's waker here.
//!
//! 1. A task enters before it is first queued, under the lock that shutdown takes to close the shard: it either is in or
//!    learns that the runtime is closed.
//! 2. An entry holds a counted reference to the task's cell (its waker), so its meta data may be read under the lock.
//! 3. Wakers are woken and dropped outside the lock. They are cloned under it: they are `async-task`'s own, and a clone of
//!    theirs counts up and runs no user code.

use std::task::Waker;

use async_task::Runnable;

use super::{Id, Meta};
use crate::context;
use crate::sched::RuntimeRef;
use crate::sys::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sys::{Mutex, rank};

/// The runtime is shut down, or another one has its slot.
#[derive(Debug)]
pub(crate) struct Closed;

/// The live tasks that were spawned on one processor, or from outside with it as the shard chosen.
pub(crate) struct Shard {
    index: u32,
    /// Written under `slab`, read without.
    live: AtomicUsize,
    slab: Mutex<Slab>,
}

/// No free entry.
const END: u32 = u32::MAX;

struct Slab {
    /// The generation of the runtime that is open, 0 if it is closed.
    generation: u32,
    entries: Vec<Entry>,
    free: u32,
    /// Tasks entered so far.
    count: u64,
}

/// Either both or none: a live task, or a link to the next free entry.
struct Entry {
    waker: Option<Waker>,
    /// Valid while `waker` is there.
    task: TaskOrFree,
}

union TaskOrFree {
    task: *const Meta,
    next_free: u32,
}

// SAFETY: the pointers lead to `Sync` values that the wakers beside them keep alive.
unsafe impl Send for Slab {}

impl Shard {
    pub(crate) fn new(index: u32) -> Self {
        let slab = Slab { generation: 0, entries: Vec::new(), free: END, count: 0 };
        Shard { index, live: AtomicUsize::new(0), slab: Mutex::new(rank::REGISTRY, slab) }
    }

    pub(crate) fn open(&self, generation: u32) {
        self.slab.lock().generation = generation;
    }

    /// From here on no task enters.
    pub(crate) fn close(&self) {
        self.slab.lock().generation = 0;
    }

    /// Live tasks.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Wakes every live task.
    pub(crate) fn wake_all(&self) {
        const BATCH: usize = 256;
        if self.live() == 0 {
            return;
        }
        let mut from = 0;
        loop {
            let batch: Vec<(usize, Waker)> = {
                let slab = self.slab.lock();
                let live = slab.entries.iter().enumerate().skip(from);
                // A clone of these wakers runs no user code: they are async-task's own.
                live.filter_map(|(i, entry)| Some((i, entry.waker.clone()?))).take(BATCH).collect()
            };
            let Some((last, _)) = batch.last() else {
                return;
            };
            from = last + 1;
            batch.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }

    fn insert(&self, generation: u32, waker: Waker, meta: &Meta) -> Result<(), (Closed, Waker)> {
        let mut slab = self.slab.lock();
        if slab.generation != generation {
            return Err((Closed, waker));
        }
        let entry = Entry { waker: Some(waker), task: TaskOrFree { task: meta } };
        let index = slab.free;
        let index = if index == END {
            let index = slab.entries.len();
            assert!(index < Id::INDICES, "more tasks in a shard of the registry than it can number");
            slab.entries.push(entry);
            index as u32
        } else {
            // SAFETY: entries on the free list hold no waker, so the union is a link.
            slab.free = unsafe { slab.entries[index as usize].task.next_free };
            slab.entries[index as usize] = entry;
            index
        };
        meta.word.store(Id::new(self.index, index, slab.count).0, Relaxed);
        slab.count += 1;
        self.live.store(self.live.load(Relaxed) + 1, Relaxed);
        Ok(())
    }

    fn remove(&self, id: Id) -> Option<Waker> {
        let mut slab = self.slab.lock();
        let free = slab.free;
        let entry = &mut slab.entries[id.index() as usize];
        let waker = entry.waker.take();
        entry.task = TaskOrFree { next_free: free };
        slab.free = id.index();
        let live = self.live.load(Relaxed) - 1;
        self.live.store(live, Relaxed);
        if live == 0 && slab.entries.len() > 4096 {
            // A burst is over: its memory goes back.
            slab.entries = Vec::new();
            slab.free = END;
        }
        waker
    }

    /// The waker of the live task with this meta data.
    fn waker(&self, meta: &Meta) -> Option<Waker> {
        let slab = self.slab.lock();
        let entry = slab.entries.get(meta.id().index() as usize)?;
        let waker = entry.waker.as_ref()?;
        // SAFETY: the entry has a waker, so the union is a pointer; only its address is compared.
        let same = std::ptr::eq(unsafe { entry.task.task }, meta);
        same.then(|| waker.clone())
    }
}

/// Enters a task that is about to be queued for the first time.
pub(super) fn insert(runtime: RuntimeRef, runnable: &Runnable<Meta>) -> Result<(), Closed> {
    let sched = runtime.sched;
    let index = match context::processor_of(sched) {
        Some(p) => p.index % Id::SHARDS,
        None => 0,
    };
    let waker = runnable.waker();
    let shard = &sched.slot(index).registry;
    shard.insert(runtime.generation, waker, runnable.metadata()).map_err(|(closed, waker)| {
        drop(waker);
        closed
    })
}

/// The future of this task is gone.
pub(super) fn remove(meta: &Meta) {
    let id = meta.id();
    if id == Id::NONE {
        return;
    }
    let sched = meta.sched;
    let waker = sched.slot(id.shard()).registry.remove(id);
    drop(waker);
    sched.task_ended();
}

/// Aborts the task, if it is still live.
pub(super) fn abort(meta: &Meta) {
    meta.abort();
    if let Some(waker) = waker(meta) {
        waker.wake();
    }
}

/// A counted reference to the task, if it is still live.
pub(super) fn waker(meta: &Meta) -> Option<Waker> {
    let id = meta.id();
    if id == Id::NONE { None } else { meta.sched.slot(id.shard()).registry.waker(meta) }
}
