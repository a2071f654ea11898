//! Memory of tasks: pages of cells of one size, which a processor takes and gives back without a lock or a locked
//! instruction. `task` makes its cells in it, `processor` has one arena in each of its objects, shutdown walks them.
//!
//! 1. An arena has one owner at a time: the machine that holds its processor, or who holds the lock of a shared one
//!    (`shared`); `sysmon` while it keeps one that nobody holds from being taken (`sched::memory`). The owner alone
//!    takes cells, puts cells into their pages, opens pages and gives them back. Handing the processor over, or the
//!    lock, orders this, so the owner's fields are plain.
//! 2. The first word of a cell is an atomic that is 0 while the cell is free, and any thread may read or CAS it as long
//!    as [`Arena::walk`] shows it. Whoever has a cell makes its fields first and stores the word last (Release);
//!    whoever lets it go stores 0 last (Relaxed: who reads it does nothing) and then calls [`Arena::free`], which
//!    orders it. Nothing else of a cell is read without a count in its word.
//! 3. Another thread's cell goes onto the arena's stack: one CAS (Release). The owner takes the stack as a whole (a
//!    swap, Acquire), so no cell comes twice and nothing is popped while it comes back. Free cells are linked by their
//!    second word.
//! 4. A cell counts as used until its owner has put it into its page, so also while it lies on the stack. A page
//!    without used cells is reached by nobody but the owner and a walker, who has the lock of the list of pages.
//! 5. Under that lock pages come and go, and an empty page changes its class. Cells beyond `carved` were never made: a
//!    walker reads none of them. `carved` grows without the lock, by a Release store. A walker passes kept pages by:
//!    who has to find a task in one has learned of it from its owner, who says that the page is kept no more before he
//!    takes a cell.
//! 6. A page is one of: the first of its class, whose cells are taken next; linked behind it, with a free cell; full,
//!    and on no list; empty and kept, free for any class. The first counts as used once more, so that it never becomes
//!    empty.
//! 7. An arena does not move once it has given a cell, and outlives its cells. Whoever pushes a cell onto its stack has
//!    read what it needs of the page before: the owner may give the page back at once.
//!
//! What comes back through the stack is put away a few cells at a time, when a class has none left, when the owner has
//! nothing better to do, and now and then when it has: no spawn waits for a million cells.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::{NonNull, null_mut};

use crate::sys::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{self, Mutex, OwnMutex, UnsafeCell, const_but_in_models, rank};

use page::{CLASSES, Cell, PAGE_LAYOUT, Page, PageOwn, class_of, size_of_class};
use shared::Entry;
pub(crate) use shared::SharedArena;

mod page;
mod shared;

/// An arena keeps so many empty pages, 2 MiB.
const KEPT: usize = 32;
/// So many, 16 MiB, as long as its owner has something to do: a program that spawns many tasks at a time does so again.
const KEPT_BUSY: usize = 256;
/// A shared one keeps so many, 4 MiB: nobody comes to make them fewer.
const KEPT_SHARED: usize = 64;
/// Of those between, so many are given back at a time.
const GIVEN_BACK: usize = 4;
/// So many cells are put away at a time for a class that has none left. A new page has fewer than four times as many.
const PUT_AWAY: usize = 512;
/// So many, if there is nothing better to do: between two portions the owner looks for work.
const PUT_AWAY_IDLE: usize = 512;
/// So many, if somebody waits for that: tasks, or a spawner.
const PUT_AWAY_BESIDE: usize = 64;
/// So many, along with its own, by who frees a cell of a shared arena and finds more there.
const PUT_AWAY_ALONG: usize = 16;

/// What comes back from other threads, on a line of its own.
#[repr(align(128))]
struct Returned(AtomicPtr<Cell>);

/// See the head of the file.
pub(crate) struct Arena {
    /// Of a shared arena: who holds it is the owner.
    lock: Option<OwnMutex<Entry>>,
    own: UnsafeCell<Own>,
    /// What was taken from the stack and is not put away yet. The owner's; others see whether there is something.
    rest: AtomicPtr<Cell>,
    /// All pages. See invariant 5.
    pages: Mutex<Vec<NonNull<Page>>>,
    returned: Returned,
}

// SAFETY: a page is memory that anybody may own, and the owner is only told; who touches what is in the invariants.
unsafe impl Send for Arena {}
// SAFETY: `own` and the owner's part of the pages are reached by unsafe functions only, whose callers are the owner.
unsafe impl Sync for Arena {}

/// The owner's part of an arena.
struct Own {
    /// What [`Arena::owner_of`] says of each cell.
    owner: *const (),
    /// By class, the first page of its list.
    first: [*mut Page; CLASSES],
    /// Empty pages.
    kept: Vec<*mut Page>,
}

impl Arena {
    /// One that a processor owns. `owner` is what it and its cells are said to be of. Nothing here touches it.
    pub(crate) fn new(owner: *const ()) -> Self {
        Arena::locked_by(None, owner)
    }

    const_but_in_models! {
        fn locked_by(lock: Option<OwnMutex<Entry>>, owner: *const ()) -> Self {
            Arena {
                lock,
                own: UnsafeCell::new(Own { owner, first: [null_mut(); CLASSES], kept: Vec::new() }),
                rest: AtomicPtr::new(null_mut()),
                pages: Mutex::new(rank::LEAF, Vec::new()),
                returned: Returned(AtomicPtr::new(null_mut())),
            }
        }
    }

    /// Memory for `layout`, if it is for an arena and there is some. Its first word is an `AtomicUsize` of 0 and stays
    /// one; what follows is anything. The pointer may be used for the whole page, and [`Arena::free`] wants it back
    /// like that: it, or copies of it, not what was made of a reference to the cell.
    ///
    /// # Safety
    ///
    /// The caller owns the arena, which neither moves nor goes from now on while there are cells.
    #[inline]
    pub(crate) unsafe fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        if !sys::TASKS_SHARE_PAGES {
            return None;
        }
        // SAFETY: passed on.
        unsafe { self.take(class_of(layout)?) }
    }

    /// [`Arena::alloc`] of a cell that is at hand: it calls nothing.
    ///
    /// # Safety
    ///
    /// As [`Arena::alloc`].
    #[inline(always)]
    pub(crate) unsafe fn alloc_at_hand(&self, layout: Layout) -> Option<NonNull<u8>> {
        if !sys::TASKS_SHARE_PAGES {
            return None;
        }
        // SAFETY: passed on.
        unsafe { self.take_at_hand(class_of(layout)?) }
    }

    /// Takes back what [`Arena::alloc`] of any arena gave. The caller's own arena, if it owns one, makes it cheap.
    /// `is_machine` says whether the caller runs tasks: such a thread takes no lock for it, that of others it would
    /// keep from spawning.
    ///
    /// # Safety
    ///
    /// The cell is the caller's, its first word is 0 again and everything in it is gone; the caller owns `own`.
    #[inline]
    pub(crate) unsafe fn free(cell: NonNull<u8>, own: Option<&Arena>, is_machine: impl FnOnce() -> bool) {
        let cell = cell.cast::<Cell>().as_ptr();
        // SAFETY: the cell is used, so its page is there (invariant 4).
        let (page, arena) = unsafe {
            debug_assert!((*cell).word.load(Relaxed) == 0, "a cell was freed that is not free");
            let page = Page::of(cell);
            (page, (*page).arena)
        };
        match own {
            // SAFETY: the caller owns the arena, and hands the cell over.
            Some(own) if std::ptr::eq(own, arena) => unsafe { own.put(page, cell) },
            // SAFETY: an arena outlives its cells; the caller hands the cell over.
            _ => unsafe { (*arena).take_back(page, cell, is_machine) },
        }
    }

    /// What the arena of a cell was made with.
    ///
    /// # Safety
    ///
    /// [`Arena::alloc`] of any arena gave the cell, which is used.
    #[inline]
    pub(crate) unsafe fn owner_of(cell: NonNull<u8>) -> *const () {
        // SAFETY: the cell is used, so its page is there (invariant 4).
        unsafe { (*Page::of(cell.cast().as_ptr())).owner }
    }

    /// The owner has nothing better to do: puts away some of what came back from other threads, gives some of the empty
    /// pages back that are too many, and tells whether there is more. Cheap if there is nothing.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    pub(crate) unsafe fn collect(&self) -> bool {
        // SAFETY: passed on.
        let more_returned = self.has_returned() && unsafe { self.put_away(PUT_AWAY_IDLE) };
        // SAFETY: passed on.
        unsafe { self.has_surplus() && self.shrink() || more_returned }
    }

    /// As [`Arena::collect`], for an arena that nobody takes cells from for long: with the last portion all empty pages
    /// go. Until then [`Arena::has_leftovers`].
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    pub(crate) unsafe fn collect_unheld(&self) -> bool {
        // SAFETY: passed on.
        unsafe {
            self.collect();
            let more = self.has_leftovers();
            if !more {
                self.trim();
            }
            more
        }
    }

    /// Whether something came back, or there are more empty pages than are to be kept for long.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    pub(crate) unsafe fn has_leftovers(&self) -> bool {
        // SAFETY: passed on.
        self.has_returned() || unsafe { self.has_surplus() }
    }

    /// As [`Arena::collect`], for an owner that has something to do: a small portion, and empty pages stay.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    pub(crate) unsafe fn collect_some(&self) {
        if self.has_returned() {
            // SAFETY: passed on.
            unsafe { self.put_away(PUT_AWAY_BESIDE) };
        }
    }

    /// Whether there are more empty pages than are to be kept for long.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    unsafe fn has_surplus(&self) -> bool {
        // SAFETY: `own` is the owner's.
        self.own.with(|own| unsafe { (*own).kept.len() > KEPT })
    }

    /// Gives some of them back, and tells whether there are more.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[cold]
    #[inline(never)]
    unsafe fn shrink(&self) -> bool {
        // SAFETY: passed on; an empty page is the owner's, and here it is taken from where it was.
        unsafe {
            let surplus: Vec<_> = self.own.with_mut(|own| {
                let kept = &mut (*own).kept;
                kept.drain(KEPT.max(kept.len().saturating_sub(GIVEN_BACK))..).collect()
            });
            surplus.into_iter().for_each(|page| self.give_back(page));
            self.has_surplus()
        }
    }

    /// Puts away all that came back, and gives all empty pages back to the system.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    pub(crate) unsafe fn trim(&self) {
        // SAFETY: passed on; an empty page is the owner's, and here it is taken from where it was.
        unsafe {
            while self.put_away(PUT_AWAY_IDLE) {}
            for class in 0..CLASSES {
                let first = self.first(class);
                if !first.is_null() && Page::own(first, |own| own.used == 1) {
                    self.leave_first(class);
                    self.give_back(first);
                }
            }
            let kept = self.own.with_mut(|own| std::mem::take(&mut (*own).kept));
            kept.into_iter().for_each(|page| self.give_back(page));
        }
    }

    /// Shows the first word of every cell, free ones too, that was taken before; also of many that never were. The rest
    /// of a cell may be touched only by who finds in its word, and counts up there, that there is something. The
    /// pointers are good for the whole cell.
    ///
    /// `f` runs under a lock that the owner waits for: it takes and frees no cell.
    pub(crate) fn walk(&self, mut f: impl FnMut(NonNull<AtomicUsize>)) {
        let pages = self.pages.lock();
        for page in pages.iter() {
            let page = page.as_ptr();
            // SAFETY: a page on the list is there, and stays as long as it is locked.
            let (class, carved, is_kept) = unsafe { (&(*page).class, &(*page).carved, &(*page).is_kept) };
            // Relaxed: invariant 5.
            if is_kept.load(Relaxed) {
                continue;
            }
            let size = size_of_class(class.load(Relaxed) as usize);
            // Acquire: pairs with the Release in `carve`.
            for index in 0..carved.load(Acquire) as usize {
                // SAFETY: so many cells were made.
                f(unsafe { NonNull::new_unchecked(Page::cell(page, index, size)) }.cast());
            }
        }
    }

    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    unsafe fn first(&self, class: usize) -> *mut Page {
        // SAFETY: `own` is the owner's.
        self.own.with(|own| unsafe { (*own).first[class] })
    }

    /// # Safety
    ///
    /// As [`Arena::alloc`].
    #[inline]
    unsafe fn take(&self, class: usize) -> Option<NonNull<u8>> {
        // SAFETY: passed on.
        unsafe { self.take_at_hand(class).or_else(|| self.take_slowly(class)) }
    }

    /// A free cell of the first page of the class.
    ///
    /// # Safety
    ///
    /// As [`Arena::alloc`].
    #[inline(always)]
    unsafe fn take_at_hand(&self, class: usize) -> Option<NonNull<u8>> {
        // SAFETY: passed on.
        let cell = unsafe {
            let first = self.first(class);
            if first.is_null() { null_mut() } else { Page::take(first) }
        };
        NonNull::new(cell.cast())
    }

    /// The first page of the class has no free cell, or there is none.
    ///
    /// # Safety
    ///
    /// As [`Arena::alloc`].
    #[cold]
    #[inline(never)]
    unsafe fn take_slowly(&self, class: usize) -> Option<NonNull<u8>> {
        // SAFETY: passed on; the first page has a free cell if these say so.
        unsafe {
            let has_room = self.advance(class)
                || {
                    self.put_away(PUT_AWAY);
                    self.advance(class)
                }
                || self.open(class);
            if has_room { NonNull::new(Page::take(self.first(class)).cast()) } else { None }
        }
    }

    /// Looks for a page of the class with a free cell, and makes it the first. Full ones leave the list.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    unsafe fn advance(&self, class: usize) -> bool {
        // SAFETY: passed on; pages on lists are there.
        unsafe {
            loop {
                let first = self.first(class);
                if first.is_null() {
                    return false;
                }
                if Page::own(first, |own| !own.free.is_null()) || Page::carve(first) {
                    return true;
                }
                self.leave_first(class);
            }
        }
    }

    /// The first page of the class leaves the list; the next one is first.
    ///
    /// # Safety
    ///
    /// The caller owns the arena, and there is a first page.
    unsafe fn leave_first(&self, class: usize) {
        // SAFETY: passed on; pages on lists are there.
        unsafe {
            let next = Page::own(self.first(class), |own| {
                own.used -= 1;
                std::mem::replace(&mut own.next, null_mut())
            });
            self.become_first(class, next);
        }
    }

    /// # Safety
    ///
    /// The caller owns the arena; `page` is null, or has nothing before it.
    unsafe fn become_first(&self, class: usize, page: *mut Page) {
        // SAFETY: passed on.
        unsafe {
            if !page.is_null() {
                Page::own(page, |own| {
                    own.before = null_mut();
                    own.used += 1;
                });
            }
            self.own.with_mut(|own| (*own).first[class] = page);
        }
    }

    /// An empty page becomes the first of a class that has none. Tells whether there was memory.
    ///
    /// # Safety
    ///
    /// As [`Arena::alloc`].
    unsafe fn open(&self, class: usize) -> bool {
        // SAFETY: passed on; kept pages are empty and the owner's.
        unsafe {
            let page = self.own.with_mut(|own| {
                let kept = &mut (*own).kept;
                let is_of_class = |page: &*mut Page| (**page).class.load(Relaxed) as usize == class;
                // One of the last, or any: there may be many.
                let some = kept.len().saturating_sub(KEPT);
                let at = kept[some..].iter().rposition(is_of_class).map(|at| some + at);
                at.or(kept.len().checked_sub(1)).map(|at| kept.swap_remove(at))
            });
            let Some(page) = page.or_else(|| self.add_page(class)) else {
                return false;
            };
            if (*page).class.load(Relaxed) as usize != class {
                let pages = self.pages.lock();
                (*page).class.store(class as u32, Relaxed);
                (*page).carved.store(0, Relaxed);
                drop(pages);
                Page::own(page, |own| own.free = null_mut());
            }
            (*page).is_kept.store(false, Relaxed);
            self.become_first(class, page);
            self.advance(class)
        }
    }

    /// Asks the system for a page.
    ///
    /// # Safety
    ///
    /// As [`Arena::alloc`].
    unsafe fn add_page(&self, class: usize) -> Option<*mut Page> {
        // SAFETY: the size is not 0.
        let page = unsafe { alloc(PAGE_LAYOUT) }.cast::<Page>();
        let list_entry = NonNull::new(page)?;
        // SAFETY: `own` is the owner's.
        let owner = self.own.with(|own| unsafe { (*own).owner });
        let own = PageOwn { free: null_mut(), used: 0, next: null_mut(), before: null_mut() };
        let mut pages = self.pages.lock();
        let head = Page {
            arena: std::ptr::from_ref(self),
            owner,
            class: AtomicU32::new(class as u32),
            carved: AtomicU32::new(0),
            is_kept: AtomicBool::new(false),
            at: AtomicU32::new(pages.len() as u32),
            own: UnsafeCell::new(own),
        };
        // SAFETY: it is ours and large enough, and lies at a multiple of more than it needs.
        unsafe { page.write(head) };
        pages.push(list_entry);
        Some(page)
    }

    /// An empty page that is on no list of the owner's goes back to the system.
    ///
    /// # Safety
    ///
    /// The caller owns the arena, and what is said of the page.
    unsafe fn give_back(&self, page: *mut Page) {
        let mut pages = self.pages.lock();
        // SAFETY: the page is there, and so are those on the list.
        unsafe {
            let at = (*page).at.load(Relaxed);
            let removed = pages.swap_remove(at as usize);
            debug_assert!(removed.as_ptr() == page, "a page is not where it says");
            if let Some(moved) = pages.get(at as usize) {
                (*moved.as_ptr()).at.store(at, Relaxed);
            }
        }
        drop(pages);
        // SAFETY: `alloc` gave it with this layout; it is off the list and has no used cell, so nobody else can reach
        // it (invariant 4).
        unsafe { dealloc(page.cast(), PAGE_LAYOUT) };
    }

    /// Puts a cell into its page.
    ///
    /// # Safety
    ///
    /// The caller owns the arena, the page is its own, and the cell in it is nobody's.
    #[inline]
    unsafe fn put(&self, page: *mut Page, cell: *mut Cell) {
        // SAFETY: passed on.
        unsafe {
            if Page::put(page, cell) {
                self.settle(page);
            }
        }
    }

    /// A cell was put into a page that was full, or is empty now. See invariant 6.
    ///
    /// # Safety
    ///
    /// The caller owns the arena, and the page is its own.
    #[cold]
    #[inline(never)]
    unsafe fn settle(&self, page: *mut Page) {
        // SAFETY: passed on; pages on lists are there, and the two or three touched here differ.
        unsafe {
            let class = (*page).class.load(Relaxed) as usize;
            let first = self.first(class);
            if page == first {
                return;
            }
            let (used, next, before) = Page::own(page, |own| (own.used, own.next, own.before));
            if used > 0 {
                if first.is_null() {
                    self.become_first(class, page);
                } else {
                    let second = Page::own(first, |own| std::mem::replace(&mut own.next, page));
                    Page::own(page, |own| (own.next, own.before) = (second, first));
                    if !second.is_null() {
                        Page::own(second, |own| own.before = page);
                    }
                }
                return;
            }
            Page::own(before, |own| own.next = next);
            if !next.is_null() {
                Page::own(next, |own| own.before = before);
            }
            Page::own(page, |own| (own.next, own.before) = (null_mut(), null_mut()));
            let most = if self.lock.is_some() { KEPT_SHARED } else { KEPT_BUSY };
            let is_kept = self.own.with_mut(|own| {
                let has_place = (*own).kept.len() < most;
                if has_place {
                    (*own).kept.push(page);
                }
                has_place
            });
            if is_kept {
                (*page).is_kept.store(true, Relaxed);
            } else {
                self.give_back(page);
            }
        }
    }

    /// A cell comes back from a thread that does not own the arena.
    ///
    /// # Safety
    ///
    /// The cell is one of this arena's, in that page, and the caller's, and is so no more.
    #[inline]
    unsafe fn take_back(&self, page: *mut Page, cell: *mut Cell, is_machine: impl FnOnce() -> bool) {
        // SAFETY: passed on; who holds the lock is the owner.
        unsafe {
            if let Some(lock) = &self.lock {
                if !is_machine() {
                    if let Some(_owned) = lock.try_lock() {
                        self.put(page, cell);
                        // Who met us here, or another, has left it, and perhaps nobody else comes. Under loom without
                        // the look, which would hide the pushes of others (see the models).
                        if cfg!(gmp_loom) || self.has_returned() {
                            self.put_away(PUT_AWAY_ALONG);
                        }
                        return;
                    }
                }
            }
            self.give(cell);
        }
    }

    /// Pushes a cell onto the stack. From any thread.
    ///
    /// # Safety
    ///
    /// The cell is one of this arena's and the caller's, and is so no more.
    #[inline]
    unsafe fn give(&self, cell: *mut Cell) {
        let top = &self.returned.0;
        let mut seen = top.load(Relaxed);
        loop {
            // SAFETY: the cell is ours until it is on the stack.
            unsafe { (*cell).next.with_mut(|next| *next = seen) };
            // Release: pairs with the Acquire in `put_away`; the owner sees the link, and all that was done with the
            // cell.
            match top.compare_exchange_weak(seen, cell, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether something came back that is not put away. Anybody may ask.
    #[inline]
    pub(crate) fn has_returned(&self) -> bool {
        !self.rest.load(Relaxed).is_null() || !self.returned.0.load(Relaxed).is_null()
    }

    /// Puts away so many cells at most, and tells whether there may be more.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[cold]
    #[inline(never)]
    unsafe fn put_away(&self, at_most: usize) -> bool {
        // SAFETY: passed on; what is on the stack was handed over, and is the owner's once it has it.
        unsafe {
            for _ in 0..at_most {
                // Relaxed: the owner's, like what it leads to.
                let mut cell = self.rest.load(Relaxed);
                if cell.is_null() {
                    // Acquire: pairs with the Release in `give`, of all that are on the stack: each push goes on with
                    // what the one before it has released.
                    cell = self.returned.0.swap(null_mut(), Acquire);
                    if cell.is_null() {
                        return false;
                    }
                }
                let rest = (*cell).next.with(|next| *next);
                self.rest.store(rest, Relaxed);
                self.put(Page::of(cell), cell);
            }
        }
        true
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
