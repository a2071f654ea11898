//! Where tasks of a runtime lie: the arenas of its processors, and those of threads that have none.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::{RuntimeRef, Sched};
use crate::context;
use crate::processor::Processor;
use crate::sys::atomic::Ordering::Relaxed;
use crate::task::arena::SharedArena;
use crate::task::registry::Shard;
use crate::task::{self, Id};

/// So many portions of what lies in an arena that nobody holds are put away at a look of `sysmon`: some 100 µs.
const PORTIONS: usize = 16;

impl Sched {
    /// Whether a task that is spawned on a processor of the runtime of this generation goes into its arena. Who holds
    /// that processor asks; so the runtime is there, and the answer exact but for a runtime that has just begun to
    /// close.
    #[inline]
    pub(crate) fn spawns_in_arenas(&self, generation: u32) -> bool {
        self.in_arenas.load(Relaxed) == generation
    }

    /// Memory for a task that is spawned by a thread without a processor, and its number. The task counts as live from
    /// here on. `None` if it is to enter the registry, or the runtime is not open.
    #[inline]
    pub(crate) fn memory_outside(&'static self, runtime: RuntimeRef, layout: Layout) -> Option<(NonNull<u8>, u64)> {
        // The arenas close one after the other: who was refused by one is not let in by the next.
        if !runtime.is_open() {
            return None;
        }
        let arena = &self.arenas_outside[context::shared_arena() % self.arenas_outside.len()];
        let number = |next| if next % Id::BLOCK == 0 { self.take_block() } else { next };
        // SAFETY: a slot is for ever.
        unsafe { arena.take(runtime.generation, layout, number, context::leave_shared_arena) }
    }

    /// No thread spawns a task outside of the processors from here on.
    pub(crate) fn close_outside(&self) {
        self.shards().for_each(Shard::close);
        self.arenas_outside.iter().for_each(SharedArena::close);
    }

    /// Puts away some of what came back to the shared arenas, for a machine between two tasks or without any. Tells
    /// whether there is more.
    #[inline]
    pub(crate) fn collect_outside(&self) -> bool {
        self.arenas_outside.iter().any(SharedArena::collect)
    }

    /// Puts away some of what others have left in arenas that no machine comes to: those of spare processor objects and
    /// of dead processors. Tells whether there may be more.
    pub(crate) fn collect_unheld(&self) -> bool {
        let mut more = false;
        for slot in self.slots() {
            more |= slot.collect_spare(PORTIONS);
            let p = slot.processor();
            if p.index >= self.idle.procs() {
                // Whatever came back: it may also have died with empty pages, which are its owner's to look at.
                // SAFETY: nobody holds a dead processor, so under the lock its arena is this thread's.
                let collect = || unsafe { slot.processor().arena.collect_unheld() };
                // The lock is held for one portion at a time.
                more |= (0..PORTIONS).all(|_| self.idle.while_dead(p.index, collect).unwrap_or(false));
            }
        }
        more
    }

    /// The first number of a block that nobody has.
    #[cold]
    pub(crate) fn take_block(&self) -> u64 {
        self.blocks.fetch_add(1, Relaxed) * Id::BLOCK
    }

    /// Every live task is queued, unless it is in a poll.
    pub(crate) fn wake_all_tasks(&self) {
        self.shards().for_each(Shard::wake_all);
        self.arenas_outside.iter().for_each(|arena| task::wake_all_in(arena.arena()));
        self.objects().for_each(|p| task::wake_all_in(&p.arena));
    }

    /// What ended runtimes and bursts have left in the arenas goes back. No thread holds a processor, and none will.
    pub(crate) fn trim_arenas(&self) {
        self.arenas_outside.iter().for_each(SharedArena::trim);
        // SAFETY: so this thread owns them.
        self.objects().for_each(|p| unsafe { p.arena.trim() });
    }

    /// All processors, husks and spare ones among them.
    pub(super) fn objects(&self) -> impl Iterator<Item = &'static Processor> {
        self.slots().flat_map(|slot| slot.objects())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::Config;
    use crate::sys::TASKS_SHARE_PAGES;
    use crate::sys::atomic::AtomicUsize;
    use crate::task::arena::Arena;

    const PAGES: usize = 100;

    /// Cells of so many pages, in an order in which all pages but a few become empty with the last of them.
    fn cells(arena: &Arena) -> Vec<NonNull<u8>> {
        let layout = Layout::from_size_align(1024, 16).unwrap();
        let mut cells = Vec::new();
        while arena.page_count() <= PAGES {
            // SAFETY: the caller owns it, and it is for ever.
            cells.push(unsafe { arena.alloc(layout) }.unwrap());
        }
        let per_page = cells.len() / PAGES;
        let at = |n| n % PAGES * per_page + n / PAGES;
        (0..PAGES * per_page).map(|n| cells[at(n)]).chain(cells[PAGES * per_page..].iter().copied()).collect()
    }

    fn free(cells: Vec<NonNull<u8>>, own: Option<&Arena>) {
        for cell in cells {
            // SAFETY: it is the caller's, who owns `own`.
            unsafe {
                cell.cast::<AtomicUsize>().as_ref().store(0, Relaxed);
                Arena::free(cell, own, || false);
            }
        }
    }

    /// A runtime without a thread, and a processor of it that this one holds.
    fn held() -> (RuntimeRef, &'static Processor) {
        let sched: &'static Sched = Box::leak(Box::new(Sched::new()));
        let runtime = sched.open(Config { procs: 2, ..Config::default() }, None);
        let slots: Vec<_> = std::iter::from_fn(|| sched.idle.take(sched)).collect();
        (runtime, sched.slot(slots[1]).processor())
    }

    /// The processor dies in a blocking call.
    fn die(runtime: RuntimeRef, p: &'static Processor) {
        p.begin_poll();
        let status = p.enter_blocking();
        runtime.set_procs(1).unwrap();
        assert!(!p.exit_blocking(status), "it was taken");
    }

    #[test]
    fn r18_what_a_dead_processor_kept_for_its_next_burst_goes_back() {
        if !TASKS_SHARE_PAGES {
            return;
        }
        let (runtime, p) = held();
        free(cells(&p.arena), Some(&p.arena));
        assert!(p.arena.page_count() > PAGES);
        die(runtime, p);
        while runtime.sched.collect_unheld() {}
        assert_eq!(p.arena.page_count(), 0);
    }

    /// More pages are empty then than go back at a look.
    #[test]
    fn r18_what_comes_back_to_a_dead_processor_goes_back_to_the_last_page() {
        if !TASKS_SHARE_PAGES {
            return;
        }
        let (runtime, p) = held();
        let cells = cells(&p.arena);
        die(runtime, p);
        free(cells, None);
        while runtime.sched.collect_unheld() {}
        assert_eq!(p.arena.page_count(), 0);
    }

    /// As above, of one that was replaced in a stuck poll.
    #[test]
    fn r18_what_comes_back_to_a_spare_processor_goes_back_to_the_last_page() {
        if !TASKS_SHARE_PAGES {
            return;
        }
        let (runtime, p) = held();
        let slot = runtime.sched.slot(p.index);
        let husk = slot.husk();
        let cells = cells(&husk.arena);
        slot.take_back(husk);
        free(cells, None);
        while runtime.sched.collect_unheld() {}
        assert_eq!(husk.arena.page_count(), 0);
    }
}
