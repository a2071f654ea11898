//! Memory of tasks: pages of cells of one size, which a processor takes and gives back without a lock or a locked
//! instruction. `task` makes its cells in it, `processor` has one arena in each of its objects, shutdown walks them.
//!
//! 1. An arena has one owner at a time: the machine that holds its processor. The owner alone takes cells, puts cells into
//!    their pages, opens pages and gives them back. Handing the processor over orders this, so the owner's fields are plain.
//! 2. The first word of a cell is an atomic that is 0 while the cell is free, and any thread may read or CAS it as long as
//!    [`Arena::walk`] shows it. Whoever has a cell makes its fields first and stores the word last (Release); whoever lets it
//!    go stores 0 last (Release) and then calls [`Arena::free`]. Nothing else of a cell is read without a count in its word.
//! 3. Another thread's cell goes onto the arena's stack: one CAS (Release). The owner takes the stack as a whole (a swap,
//!    Acquire), so no cell comes twice and nothing is popped while it comes back. Free cells are linked by their second word.
//! 4. A cell counts as used until its owner has put it into its page, so also while it lies on the stack. A page without
//!    used cells is reached by nobody but the owner and a walker, who has the lock of the list of pages.
//! 5. Under that lock pages come and go, and an empty page changes its class. Cells beyond `carved` were never made: a
//!    walker reads none of them. `carved` grows without the lock, by a Release store.
//! 6. A page is one of: the first of its class, whose cells are taken next; linked behind it, with a free cell; full, and on
//!    no list; empty and kept, free for any class. The first counts as used once more, so that it never becomes empty.
//! 7. An arena does not move once it has given a cell, and outlives its cells. Whoever pushes a cell onto its stack has read
//!    what it needs of the page before: the owner may give the page back at once.
//!
//! What comes back through the stack is put away a few cells at a time, when a class has none left or when the owner has
//! nothing better to do: no spawn waits for a million cells.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::{NonNull, null_mut};

use crate::sys::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys::{self, Mutex, UnsafeCell, rank};

/// Pages lie at multiples of it: the address of a cell names its page.
const PAGE: usize = 1 << 16;
/// The allocator's word before the next page fits into what is left, so that pages can lie side by side.
const PAGE_BYTES: usize = PAGE - 64;
// Pages are made with it.
const PAGE_LAYOUT: Layout = match Layout::from_size_align(PAGE_BYTES, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
/// So many bytes of a page are made cells at a time: what is never used is never touched.
const CARVE: usize = 4096;
/// An arena keeps so many empty pages, 2 MiB.
const KEPT: usize = 32;
/// So many, 16 MiB, as long as its owner has something to do: a program that spawns many tasks at a time does so again.
const KEPT_BUSY: usize = 256;
/// Of those between, so many are given back at a time.
const GIVEN_BACK: usize = 4;
/// So many cells are put away at a time for a class that has none left. A new page has fewer than four times as many.
const PUT_AWAY: usize = 512;
/// So many, if there is nothing better to do: between two portions the owner looks for work.
const PUT_AWAY_IDLE: usize = 512;
/// Sizes of cells: multiples of 8 from 16 to 256, of 64 up to 512, of 128 up to 1024, of 256 up to 2048.
const CLASSES: usize = 43;
/// Cells whose size is a multiple of it begin at multiples of it.
const ALIGN: usize = 16;

/// The class of cells for `layout`.
#[inline]
const fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.pad_to_align().size();
    let size = if size < size_of::<Cell>() { size_of::<Cell>() } else { size };
    if layout.align() > ALIGN {
        return None;
    }
    match size {
        0..=256 => Some(size.div_ceil(8) - 2),
        257..=512 => Some(31 + (size - 257) / 64),
        513..=1024 => Some(35 + (size - 513) / 128),
        1025..=2048 => Some(39 + (size - 1025) / 256),
        _ => None,
    }
}

/// How large the cells of a class are, in bytes.
const fn size_of_class(class: usize) -> usize {
    match class {
        0..31 => (class + 2) * 8,
        31..35 => (class - 26) * 64,
        35..39 => (class - 30) * 128,
        _ => (class - 34) * 256,
    }
}

/// How many cells of a class fit into a page.
const fn capacity(class: usize) -> usize {
    (PAGE_BYTES - size_of::<Page>()) / size_of_class(class)
}

/// A cell, as the arena sees it.
#[repr(C)]
struct Cell {
    /// 0 while it is free. See invariant 2.
    word: AtomicUsize,
    /// The next free cell, of its page or on the stack. Its owner's or its freer's while it is free; else what the task puts
    /// there.
    next: UnsafeCell<*mut Cell>,
}

/// The head of a page; cells follow.
#[repr(C, align(128))]
struct Page {
    arena: *const Arena,
    /// As [`Arena::owner`], which is a line more away.
    owner: *const (),
    /// Written under `Arena::pages` while the page is empty.
    class: AtomicU32,
    /// So many cells were made. The owner's; a walker reads it.
    carved: AtomicU32,
    /// Where it is in `Arena::pages`. Guarded by that lock.
    at: AtomicU32,
    own: UnsafeCell<PageOwn>,
}

/// What only the owner touches of a page, on a line of its own: others read the name of the arena.
#[repr(align(64))]
struct PageOwn {
    /// Free cells. Null in a full page.
    free: *mut Cell,
    /// Cells that are not free, and one if the page is the first of its class.
    used: u32,
    /// The page behind and before this one in the list of its class.
    next: *mut Page,
    before: *mut Page,
}

impl Page {
    /// The page a cell lies in.
    ///
    /// # Safety
    ///
    /// The pointer came from an arena and may be used for the whole page.
    #[inline]
    unsafe fn of(cell: *mut Cell) -> *mut Page {
        cell.map_addr(|address| address & !(PAGE - 1)).cast()
    }

    /// Calls `f` with what is the owner's of a page.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and `f` does not come here again for the same page.
    #[inline]
    unsafe fn own<R>(page: *mut Page, f: impl FnOnce(&mut PageOwn) -> R) -> R {
        // SAFETY: the owner's fields are touched by one thread at a time (invariant 1), and by one reference.
        unsafe { (*page).own.with_mut(|own| f(&mut *own)) }
    }

    /// Where a cell of a page lies.
    ///
    /// # Safety
    ///
    /// The page is there, and has so many cells of that size.
    #[inline]
    unsafe fn cell(page: *mut Page, index: usize, size: usize) -> *mut Cell {
        // SAFETY: it is inside the page.
        unsafe { page.cast::<u8>().add(size_of::<Page>() + index * size).cast() }
    }

    /// Takes a free cell, or gives null.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    unsafe fn take(page: *mut Page) -> *mut Cell {
        // SAFETY: passed on; what is on the list is a cell that was made, and the owner's while it is free.
        unsafe {
            Page::own(page, |own| {
                let cell = own.free;
                if !cell.is_null() {
                    own.free = (*cell).next.with(|next| *next);
                    own.used += 1;
                }
                cell
            })
        }
    }

    /// Puts a cell of the page back. Tells whether the page was full or is empty now.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and the cell is nobody's.
    #[inline]
    unsafe fn put(page: *mut Page, cell: *mut Cell) -> bool {
        // SAFETY: passed on; a cell that is nobody's is the owner's.
        unsafe {
            Page::own(page, |own| {
                let rest = own.free;
                (*cell).next.with_mut(|next| *next = rest);
                own.free = cell;
                own.used -= 1;
                rest.is_null() | (own.used == 0)
            })
        }
    }

    /// Makes more cells in a page that has no free one. Tells whether there was room.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    unsafe fn carve(page: *mut Page) -> bool {
        // SAFETY: a page of the owner's is there.
        let (class, carved) = unsafe { (&(*page).class, &(*page).carved) };
        let class = class.load(Relaxed) as usize;
        let size = size_of_class(class);
        let from = carved.load(Relaxed) as usize;
        let to = capacity(class).min(from + CARVE / size);
        let mut free = null_mut();
        for index in (from..to).rev() {
            // SAFETY: there is room for so many, and nobody reads beyond `carved` (invariant 5).
            free = unsafe {
                let cell = Page::cell(page, index, size);
                cell.write(Cell { word: AtomicUsize::new(0), next: UnsafeCell::new(free) });
                cell
            };
        }
        if from < to {
            // SAFETY: passed on.
            unsafe { Page::own(page, |own| own.free = free) };
            // Release: pairs with the Acquire in `walk`, which then finds words there.
            carved.store(to as u32, Release);
        }
        from < to
    }
}

/// What comes back from other threads, on a line of its own.
#[repr(align(128))]
struct Returned(AtomicPtr<Cell>);

/// See the head of the file.
pub(crate) struct Arena {
    /// What [`Arena::owner_of`] says of each cell.
    owner: *const (),
    own: UnsafeCell<Own>,
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
    /// By class, the first page of its list.
    first: [*mut Page; CLASSES],
    /// Empty pages.
    kept: Vec<*mut Page>,
    /// What was taken from the stack and is not put away yet.
    returned: *mut Cell,
}

impl Arena {
    /// `owner` is what it and its cells are said to be of. Nothing here touches it.
    pub(crate) fn new(owner: *const ()) -> Self {
        Arena {
            owner,
            own: UnsafeCell::new(Own { first: [null_mut(); CLASSES], kept: Vec::new(), returned: null_mut() }),
            pages: Mutex::new(rank::LEAF, Vec::new()),
            returned: Returned(AtomicPtr::new(null_mut())),
        }
    }

    /// Memory for `layout`, if it is for an arena and there is some. Its first word is an `AtomicUsize` of 0 and stays one; what
    /// follows is anything. The pointer may be used for the whole page, and [`Arena::free`] wants it back like that: it, or
    /// copies of it, not what was made of a reference to the cell.
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

    /// Takes back what [`Arena::alloc`] of any arena gave. The caller's own arena, if it owns one, makes it cheap.
    ///
    /// # Safety
    ///
    /// The cell is the caller's, its first word is 0 again and everything in it is gone; the caller owns `own`.
    #[inline]
    pub(crate) unsafe fn free(cell: NonNull<u8>, own: Option<&Arena>) {
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
            _ => unsafe { (*arena).give(cell) },
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

    /// The owner has nothing better to do: puts away some of what came back from other threads, gives some of the empty pages back
    /// that are too many, and tells whether there is more. Cheap if there is nothing.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    pub(crate) unsafe fn collect(&self) -> bool {
        // SAFETY: passed on.
        unsafe {
            let more_returned = self.has_returned() && self.put_away(PUT_AWAY_IDLE);
            self.has_surplus() && self.shrink() || more_returned
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
            let (class, carved) = unsafe { (&(*page).class, &(*page).carved) };
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
        let cell = unsafe {
            let first = self.first(class);
            if first.is_null() { null_mut() } else { Page::take(first) }
        };
        match NonNull::new(cell.cast()) {
            // SAFETY: passed on.
            None => unsafe { self.take_slowly(class) },
            cell => cell,
        }
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
        let own = PageOwn { free: null_mut(), used: 0, next: null_mut(), before: null_mut() };
        let mut pages = self.pages.lock();
        let head = Page {
            arena: std::ptr::from_ref(self),
            owner: self.owner,
            class: AtomicU32::new(class as u32),
            carved: AtomicU32::new(0),
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
        // SAFETY: `alloc` gave it with this layout; it is off the list and has no used cell, so nobody else can reach it
        // (invariant 4).
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
            let is_kept = self.own.with_mut(|own| {
                let has_place = (*own).kept.len() < KEPT_BUSY;
                if has_place {
                    (*own).kept.push(page);
                }
                has_place
            });
            if !is_kept {
                self.give_back(page);
            }
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
            // Release: pairs with the Acquire in `put_away`; the owner sees the link, and all that was done with the cell.
            match top.compare_exchange_weak(seen, cell, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether something came back that is not put away.
    ///
    /// # Safety
    ///
    /// The caller owns the arena.
    #[inline]
    unsafe fn has_returned(&self) -> bool {
        // SAFETY: `own` is the owner's.
        let is_empty = self.own.with(|own| unsafe { (*own).returned.is_null() });
        !is_empty || !self.returned.0.load(Relaxed).is_null()
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
                let mut cell = self.own.with(|own| (*own).returned);
                if cell.is_null() {
                    // Acquire: pairs with the Release in `give`, of all that are on the stack: each push goes on with
                    // what the one before it has released.
                    cell = self.returned.0.swap(null_mut(), Acquire);
                    if cell.is_null() {
                        return false;
                    }
                }
                let rest = (*cell).next.with(|next| *next);
                self.own.with_mut(|own| (*own).returned = rest);
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
