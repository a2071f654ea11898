//! The registry of live tasks that are in no arena, in shards: one for each slot of the processor table, a few for
//! tasks from outside. `task` enters and removes tasks, shutdown wakes them all through it.
//!
//! 1. A task enters before it is first queued, under the lock that shutdown takes to close the shard: it either is in
//!    or learns that the runtime is closed.
//! 2. An entry leads to the task's cell and lives on the reference of ALIVE: it leaves before the future is said to be
//!    gone.
//! 3. Wakers are made under the lock, where the entry keeps the cell, and woken and dropped outside.
//! 4. Where leaks are looked for, what is to be told of a task lies beside its entry, and comes and goes with it.

use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

use super::Id;
use super::cell::Task;
use crate::context;
use crate::leak::Tally;
use crate::sched::RuntimeRef;
use crate::sys::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sys::{Mutex, rank};

/// The runtime is shut down, or another one has its slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed;

/// Why a task was not entered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    /// As [`Closed`].
    Closed,
    /// No id can name another task of the shard.
    Full,
}

/// The live tasks that lie in no arena and were spawned on one processor, or from outside with it as the shard chosen.
pub(crate) struct Shard {
    index: u32,
    /// Written under `slab`, read without.
    live: AtomicUsize,
    slab: Mutex<Slab>,
}

/// Tasks spawned from outside that lie in no arena go to so many shards in turn: one would be a lock that the spawning
/// thread and the machine that runs its tasks wait for at each task. There are as many shared arenas.
pub(crate) const OUTSIDE: u32 = 8;
/// The first of them; those before are the processors'.
pub(crate) const FIRST_OUTSIDE: u32 = Id::ARENAS - OUTSIDE;

/// No free entry.
const END: u32 = u32::MAX;
/// Entries in a chunk: the slab grows without copying and without slack of its own size.
const CHUNK: usize = 256;
/// A shard without tasks keeps so many chunks, 256 KiB: a program that spawns ten thousand tasks at a time would else
/// give them back and get them again each time.
const CHUNKS_KEPT: usize = 64;

struct Slab {
    /// The generation of the runtime that is open, 0 if it is closed.
    generation: u32,
    chunks: Vec<Box<[Entry; CHUNK]>>,
    /// Entries used so far; those beyond are [`Entry::Free`] too, but on no list.
    used: u32,
    free: u32,
    /// Tasks entered so far.
    count: u64,
    /// What is to be told of the tasks, by index. Empty where leaks are not looked for.
    told: Vec<Option<Told>>,
}

/// What is to be told of a task. See invariant 4.
struct Told {
    id: Id,
    location: &'static Location<'static>,
    tally: Arc<Tally>,
}

impl Told {
    fn waiting(&self) -> Option<WaitingTask> {
        // Whether it is leaked is asked first: what is leaked waits.
        let leaked = self.tally.is_leaked();
        let waits = leaked || self.tally.is_waiting();
        waits.then_some(WaitingTask { id: self.id, location: self.location, leaked })
    }
}

/// What is to be told of the tasks in local sets that were spawned while a runtime was the thread's, where leaks are
/// looked for. Those that have ended go when the list has doubled.
pub(crate) struct LocalTasks(Mutex<Locals>);

struct Locals {
    told: Vec<Told>,
    /// How long the list may become before it is looked through.
    sweep_at: usize,
}

impl LocalTasks {
    const SWEEP_AT: usize = 64;

    pub(crate) const fn new() -> Self {
        LocalTasks(Mutex::new(rank::LEAF, Locals { told: Vec::new(), sweep_at: Self::SWEEP_AT }))
    }

    /// For another runtime.
    pub(crate) fn reset(&self) {
        let mut locals = self.0.lock();
        let told = std::mem::take(&mut locals.told);
        locals.sweep_at = Self::SWEEP_AT;
        drop(locals);
        drop(told);
    }

    pub(super) fn enter(&self, id: Id, location: &'static Location<'static>, tally: Arc<Tally>) {
        let mut locals = self.0.lock();
        if locals.told.len() >= locals.sweep_at {
            locals.told.retain(|told| !told.tally.is_ended());
            locals.sweep_at = (2 * locals.told.len()).max(Self::SWEEP_AT);
        }
        locals.told.push(Told { id, location, tally });
    }

    /// Adds the tasks that wait to be woken.
    pub(crate) fn list_waiting(&self, waiting: &mut Vec<WaitingTask>) {
        waiting.extend(self.0.lock().told.iter().filter_map(Told::waiting));
    }
}

/// A task that waits to be woken.
pub(crate) struct WaitingTask {
    pub(crate) id: Id,
    pub(crate) location: &'static Location<'static>,
    /// It has no waker left.
    pub(crate) leaked: bool,
}

enum Entry {
    Task(Task),
    /// The next free entry, or [`END`].
    Free(u32),
}

// An idle task pays for its entry.
const _: () = assert!(size_of::<Entry>() == 2 * size_of::<Task>());

impl Slab {
    #[inline]
    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Apart, as the entries are made on the stack first.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.chunks.push(Box::new([const { Entry::Free(END) }; CHUNK]));
    }

    /// Nothing is to be told of this task any more. What is dropped is memory.
    #[cold]
    fn forget(&mut self, index: u32) {
        if let Some(told) = self.told.get_mut(index as usize) {
            *told = None;
        }
    }

    /// Puts `task` into a free entry and gives its index. `None` if no id can name another one.
    #[inline]
    fn enter(&mut self, task: Task) -> Option<u32> {
        let index = self.free;
        if index == END {
            return self.enter_unused(task);
        }
        let Entry::Free(next) = std::mem::replace(self.entry(index), Entry::Task(task)) else {
            unreachable!("a task is on the free list of the registry");
        };
        self.free = next;
        Some(index)
    }

    /// [`Slab::enter`] where no entry was used before.
    fn enter_unused(&mut self, task: Task) -> Option<u32> {
        let index = self.used;
        if index as usize >= Id::INDICES {
            return None;
        }
        if index as usize == self.chunks.len() * CHUNK {
            self.grow();
        }
        self.used += 1;
        *self.entry(index) = Entry::Task(task);
        Some(index)
    }
}

impl Shard {
    pub(crate) const fn new(index: u32) -> Self {
        let slab = Slab { generation: 0, chunks: Vec::new(), used: 0, free: END, count: 0, told: Vec::new() };
        Shard { index, live: AtomicUsize::new(0), slab: Mutex::new(rank::REGISTRY, slab) }
    }

    pub(crate) fn open(&self, generation: u32) {
        self.slab.lock().generation = generation;
    }

    /// From here on no task enters.
    pub(crate) fn close(&self) {
        self.slab.lock().generation = 0;
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.slab.lock().generation != 0
    }

    /// Live tasks.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Wakes every live task.
    pub(crate) fn wake_all(&self) {
        for chunk in 0.. {
            let wakers: Vec<Waker> = {
                let slab = self.slab.lock();
                let Some(entries) = slab.chunks.get(chunk) else {
                    return;
                };
                let tasks = entries.iter().filter_map(|entry| match entry {
                    // SAFETY: invariant 2.
                    Entry::Task(task) => Some(unsafe { task.waker() }),
                    Entry::Free(_) => None,
                });
                tasks.collect()
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Adds the tasks that wait to be woken.
    pub(crate) fn list_waiting(&self, waiting: &mut Vec<WaitingTask>) {
        let slab = self.slab.lock();
        waiting.extend(slab.told.iter().flatten().filter_map(Told::waiting));
    }

    /// # Safety
    ///
    /// The task was never queued, and its future is there.
    unsafe fn insert(&self, generation: u32, task: Task) -> Result<(), Refused> {
        let mut slab = self.slab.lock();
        if slab.generation != generation {
            return Err(Refused::Closed);
        }
        let index = slab.enter(task).ok_or(Refused::Full)?;
        // SAFETY: passed on.
        unsafe { task.set_id(Id::new(self.index, index, slab.count)) };
        slab.count += 1;
        self.live.store(self.live.load(Relaxed) + 1, Relaxed);
        Ok(())
    }

    fn remove(&self, index: u32) {
        let mut slab = self.slab.lock();
        let free = slab.free;
        *slab.entry(index) = Entry::Free(free);
        slab.free = index;
        if !slab.told.is_empty() {
            slab.forget(index);
        }
        let live = self.live.load(Relaxed) - 1;
        self.live.store(live, Relaxed);
        if live == 0 && slab.chunks.len() > CHUNKS_KEPT {
            // A burst is over: its memory goes back.
            slab.chunks = Vec::new();
            slab.told = Vec::new();
            slab.used = 0;
            slab.free = END;
        }
    }
}

/// Enters a task that is about to be queued for the first time.
///
/// # Safety
///
/// It was never queued, and its future is there.
pub(super) unsafe fn insert(runtime: RuntimeRef, task: Task) -> Result<(), Refused> {
    // The shards close one after the other: who was refused by one is not let in by the next.
    if !runtime.is_open() {
        return Err(Refused::Closed);
    }
    let sched = runtime.sched;
    let index = match context::processor_of(sched) {
        Some(p) if p.index < FIRST_OUTSIDE => p.index,
        Some(p) => p.index % FIRST_OUTSIDE,
        // Any will do, as long as the next one is another.
        None => FIRST_OUTSIDE + (task.address() as u32 >> 7) % OUTSIDE,
    };
    // SAFETY: passed on.
    unsafe { sched.shard(index).insert(runtime.generation, task) }
}

/// What is to be told of a task that has just entered and is not queued yet.
///
/// # Safety
///
/// Its future is there.
#[cold]
pub(super) unsafe fn tell(task: Task, tally: Arc<Tally>) {
    // SAFETY: passed on.
    let (id, location, sched) = unsafe { (task.id(), task.location(), task.sched()) };
    let told = Told { id, location, tally };
    let mut slab = sched.shard(id.shard()).slab.lock();
    let at = id.index() as usize;
    if slab.told.len() <= at {
        slab.told.resize_with(at + 1, || None);
    }
    slab.told[at] = Some(told);
}

/// The future of this task is gone. Tells whether it was entered.
///
/// # Safety
///
/// ALIVE is still set, by its reference the cell is kept.
pub(super) unsafe fn remove(task: Task) -> bool {
    // SAFETY: passed on.
    let (id, sched) = unsafe { (task.id(), task.sched()) };
    if id == Id::NONE {
        return false;
    }
    sched.shard(id.shard()).remove(id.index());
    true
}
