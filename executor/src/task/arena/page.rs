//! A page of cells of one size, and what its owner does with it: takes a cell, puts one back, makes more. `arena` opens
//! and links pages; the invariants named here are those at its head.

use std::alloc::Layout;
use std::ptr::null_mut;

use super::Arena;
use crate::sys::UnsafeCell;
use crate::sys::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Relaxed, Release},
};

/// Pages lie at multiples of it: the address of a cell names its page.
const PAGE: usize = 1 << 16;
/// The allocator's word before the next page fits into what is left, so that pages can lie side by side.
pub(super) const PAGE_BYTES: usize = PAGE - 64;
// Pages are made with it.
pub(super) const PAGE_LAYOUT: Layout = match Layout::from_size_align(PAGE_BYTES, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
/// So many bytes of a page are made cells at a time: what is never used is never touched.
const CARVE: usize = 4096;
/// Sizes of cells: multiples of 8 from 16 to 256, of 64 up to 512, of 128 up to 1024, of 256 up to 2048.
pub(super) const CLASSES: usize = 43;
/// Cells whose size is a multiple of it begin at multiples of it.
pub(super) const ALIGN: usize = 16;

/// The class of cells for `layout`.
#[inline]
pub(super) const fn class_of(layout: Layout) -> Option<usize> {
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
pub(super) const fn size_of_class(class: usize) -> usize {
    match class {
        0..31 => (class + 2) * 8,
        31..35 => (class - 26) * 64,
        35..39 => (class - 30) * 128,
        _ => (class - 34) * 256,
    }
}

/// How many cells of a class fit into a page.
pub(super) const fn capacity(class: usize) -> usize {
    (PAGE_BYTES - size_of::<Page>()) / size_of_class(class)
}

/// A cell, as the arena sees it.
#[repr(C)]
pub(super) struct Cell {
    /// 0 while it is free. See invariant 2.
    pub(super) word: AtomicUsize,
    /// The next free cell, of its page or on the stack. Its owner's or its freer's while it is free; else what the task
    /// puts there.
    pub(super) next: UnsafeCell<*mut Cell>,
}

/// The head of a page; cells follow.
#[repr(C, align(128))]
pub(super) struct Page {
    pub(super) arena: *const Arena,
    /// What [`Arena::owner_of`] says of its cells.
    pub(super) owner: *const (),
    /// Written under `Arena::pages` while the page is empty.
    pub(super) class: AtomicU32,
    /// So many cells were made. The owner's; a walker reads it.
    pub(super) carved: AtomicU32,
    /// It is empty, and on the owner's list of those. The owner's; a walker reads it.
    pub(super) is_kept: AtomicBool,
    /// Where it is in `Arena::pages`. Guarded by that lock.
    pub(super) at: AtomicU32,
    pub(super) own: UnsafeCell<PageOwn>,
}

/// What only the owner touches of a page, on a line of its own: others read the name of the arena.
#[repr(align(64))]
pub(super) struct PageOwn {
    /// Free cells. Null in a full page.
    pub(super) free: *mut Cell,
    /// Cells that are not free, and one if the page is the first of its class.
    pub(super) used: u32,
    /// The page behind and before this one in the list of its class.
    pub(super) next: *mut Page,
    pub(super) before: *mut Page,
}

impl Page {
    /// The page a cell lies in.
    ///
    /// # Safety
    ///
    /// The pointer came from an arena and may be used for the whole page.
    #[inline]
    pub(super) unsafe fn of(cell: *mut Cell) -> *mut Page {
        cell.map_addr(|address| address & !(PAGE - 1)).cast()
    }

    /// Calls `f` with what is the owner's of a page.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and `f` does not come here again for the same page.
    #[inline]
    pub(super) unsafe fn own<R>(page: *mut Page, f: impl FnOnce(&mut PageOwn) -> R) -> R {
        // SAFETY: the owner's fields are touched by one thread at a time (invariant 1), and by one reference.
        unsafe { (*page).own.with_mut(|own| f(&mut *own)) }
    }

    /// Where a cell of a page lies.
    ///
    /// # Safety
    ///
    /// The page is there, and has so many cells of that size.
    #[inline]
    pub(super) unsafe fn cell(page: *mut Page, index: usize, size: usize) -> *mut Cell {
        // SAFETY: it is inside the page.
        unsafe { page.cast::<u8>().add(size_of::<Page>() + index * size).cast() }
    }

    /// Takes a free cell, or gives null.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    pub(super) unsafe fn take(page: *mut Page) -> *mut Cell {
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
    pub(super) unsafe fn put(page: *mut Page, cell: *mut Cell) -> bool {
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
    pub(super) unsafe fn carve(page: *mut Page) -> bool {
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
