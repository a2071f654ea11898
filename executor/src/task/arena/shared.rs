//! An arena for the tasks of threads that hold no processor. A runtime has a few: a thread that meets another spawner
//! there goes to the next, so that threads that spawn at a time do not wait for each other for long. Tasks there are in
//! no registry.
//!
//! 1. The owner of the arena is who holds its lock. It is held for what an owner does and no longer: no task is made,
//!    queued or ended under it.
//! 2. A task is counted under the lock, where its spawner has seen that the runtime is open. Shutdown closes under it:
//!    afterwards the count is final, and no cell is taken. So a task that shutdown does not find in the walk that
//!    follows is counted, and is just being made and queued by its spawner, who unparks shutdown then (invariant 4 of
//!    `runtime::shutdown`).
//! 3. A machine that ends a task pushes its cell onto the stack and never waits for the lock. Any other thread puts it
//!    away, if the lock is free, and some of what lies on the stack with it: nobody else would come to it when the
//!    machines sleep. So what such threads leave there when they meet is little.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::{Arena, PUT_AWAY_BESIDE, class_of};
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys::{self, OwnMutex, OwnMutexGuard, const_but_in_models, rank};

/// What is asked of who comes in. Guarded by the arena's lock.
pub(super) struct Entry {
    /// The generation of the runtime that is open, 0 if it is closed.
    generation: u32,
    /// The number of the next task; at the beginning of a block that block is still to be taken.
    next_task: u64,
}

/// See the head of the file.
pub(crate) struct SharedArena {
    arena: Arena,
    /// Tasks, since the runtime was opened. Written under the lock, read without.
    spawned: AtomicU64,
}

impl SharedArena {
    const_but_in_models! {
        pub(crate) fn new() -> Self {
            let entry = Entry { generation: 0, next_task: 0 };
            SharedArena {
                arena: Arena::locked_by(Some(OwnMutex::new(rank::REGISTRY, entry)), std::ptr::null()),
                spawned: AtomicU64::new(0),
            }
        }
    }

    fn lock(&self) -> OwnMutexGuard<'_, Entry> {
        self.arena.lock.as_ref().expect("a shared arena has a lock").lock()
    }

    fn try_lock(&self) -> Option<OwnMutexGuard<'_, Entry>> {
        self.arena.lock.as_ref().and_then(OwnMutex::try_lock)
    }

    /// Tasks of the runtime of this generation may come in from here on. `owner` is as in [`Arena::new`], always the
    /// same.
    pub(crate) fn open(&self, generation: u32, owner: *const ()) {
        let mut entry = self.lock();
        // SAFETY: who holds the lock owns the arena.
        self.arena.own.with_mut(|own| unsafe { (*own).owner = owner });
        entry.generation = generation;
        self.spawned.store(0, Relaxed);
    }

    /// From here on no task comes in.
    pub(crate) fn close(&self) {
        self.lock().generation = 0;
    }

    /// How many tasks have come in. Final for who has closed it.
    pub(crate) fn spawned(&self) -> u64 {
        self.spawned.load(Relaxed)
    }

    /// For walks.
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Memory for a task of the runtime of this generation, as [`Arena::alloc`] gives it, and the task's number, which
    /// `number` makes of the one that would be next. The task is counted: the caller makes and queues it. `None` if
    /// that runtime is not open, if the memory is not for an arena, or if there is none. If somebody is there it waits,
    /// and calls `met` if that one spawns: they had better part, while who puts cells away would come wherever the
    /// spawner goes.
    ///
    /// # Safety
    ///
    /// The arena neither moves nor goes from now on.
    #[inline]
    pub(crate) unsafe fn take(
        &self,
        generation: u32,
        layout: Layout,
        number: impl FnOnce(u64) -> u64,
        met: impl FnOnce(),
    ) -> Option<(NonNull<u8>, u64)> {
        if !sys::TASKS_SHARE_PAGES {
            return None;
        }
        // SAFETY: passed on.
        unsafe { self.take_of_class(generation, class_of(layout)?, number, met) }
    }

    /// # Safety
    ///
    /// As [`SharedArena::take`].
    #[inline]
    unsafe fn take_of_class(
        &self,
        generation: u32,
        class: usize,
        number: impl FnOnce(u64) -> u64,
        met: impl FnOnce(),
    ) -> Option<(NonNull<u8>, u64)> {
        let mut entry = self.enter(met);
        if entry.generation != generation {
            return None;
        }
        // SAFETY: passed on; who holds the lock owns the arena.
        let cell = unsafe { self.arena.take(class) }?;
        let number = number(entry.next_task);
        entry.next_task = number + 1;
        self.spawned.store(self.spawned.load(Relaxed) + 1, Relaxed);
        Some((cell, number))
    }

    /// The lock, for a spawner. It is marked as a spawner's with the step that takes it, so `met` is called for nobody
    /// else. A flag beside it, written by who has it, would for a moment still say of a machine what is true of the
    /// spawner before it, who may be the one that asks.
    #[inline]
    fn enter(&self, met: impl FnOnce()) -> OwnMutexGuard<'_, Entry> {
        let lock = self.arena.lock.as_ref().expect("a shared arena has a lock");
        lock.try_lock_marked().unwrap_or_else(|is_spawners| {
            if is_spawners {
                met();
            }
            lock.lock_marked()
        })
    }

    /// For machines: puts away some of what came back, unless somebody is there. Tells whether there is more. Cheap if
    /// there is nothing.
    #[inline]
    pub(crate) fn collect(&self) -> bool {
        self.arena.has_returned() && self.put_away()
    }

    #[cold]
    #[inline(never)]
    fn put_away(&self) -> bool {
        let Some(_owned) = self.try_lock() else {
            // Who is there comes to it.
            return false;
        };
        // SAFETY: who holds the lock owns the arena.
        unsafe { self.arena.put_away(PUT_AWAY_BESIDE) }
    }

    /// Puts away all that came back, and gives all empty pages back to the system.
    pub(crate) fn trim(&self) {
        let _owned = self.lock();
        // SAFETY: as above.
        unsafe { self.arena.trim() };
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
