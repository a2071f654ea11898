//! Unit tests of the arena, some against a model and some with other threads. They take cells by class, below what asks
//! whether a tool would rather see each task's own allocation.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::page::{ALIGN, PAGE_BYTES, capacity};
use super::*;
use crate::seeds::{seed, seeds};
use crate::sys::atomic::Ordering::AcqRel;

/// What cells of a class are aligned to: they lie behind each other, and behind the head of a page.
fn align_of_class(class: usize) -> usize {
    1 << size_of_class(class).trailing_zeros().min(size_of::<Page>().trailing_zeros())
}

/// A cell that a test has taken, filled from its second word on.
struct Taken {
    cell: NonNull<u8>,
    class: usize,
    mark: u8,
}

// SAFETY: a cell goes with whoever has it.
unsafe impl Send for Taken {}

impl Taken {
    /// The arena is the caller's. Its word becomes `word`.
    fn take(arena: &Arena, class: usize, word: usize, mark: u8) -> Taken {
        // SAFETY: the tests leave an arena where it is while there are cells.
        let cell = unsafe { arena.take(class) }.expect("there is memory");
        let taken = Taken { cell, class, mark };
        assert_eq!(cell.as_ptr().addr() % align_of_class(class), 0);
        assert_eq!(taken.word().load(Relaxed), 0, "the word of a free cell");
        // SAFETY: the cell is ours and so large.
        unsafe { taken.rest().write_bytes(mark, taken.rest_bytes()) };
        taken.word().store(word, Release);
        taken
    }

    fn word(&self) -> &AtomicUsize {
        // SAFETY: the first word of a cell is an atomic.
        unsafe { self.cell.cast().as_ref() }
    }

    fn rest(&self) -> *mut u8 {
        // SAFETY: inside the cell.
        unsafe { self.cell.as_ptr().add(size_of::<AtomicUsize>()) }
    }

    fn rest_bytes(&self) -> usize {
        size_of_class(self.class) - size_of::<AtomicUsize>()
    }

    fn free(self, own: Option<&Arena>) {
        let bytes = self.rest_bytes();
        for at in (0..bytes).step_by(if cfg!(miri) { bytes - 1 } else { 1 }) {
            // SAFETY: the cell is ours and so large.
            assert_eq!(unsafe { self.rest().add(at).read() }, self.mark, "somebody else wrote to a cell");
        }
        self.word().store(0, Relaxed);
        // SAFETY: the cell is ours, and its word is 0.
        unsafe { Arena::free(self.cell, own, || true) };
    }
}

impl Arena {
    pub(crate) fn page_count(&self) -> usize {
        self.pages.lock().len()
    }

    fn kept_count(&self) -> usize {
        // SAFETY: the test owns the arena.
        self.own.with(|own| unsafe { (*own).kept.len() })
    }

    /// The words that are not 0.
    fn words(&self) -> Vec<usize> {
        let mut words = Vec::new();
        // SAFETY: `walk` shows words that are there.
        self.walk(|word| words.push(unsafe { word.as_ref() }.load(Acquire)));
        words.retain(|word| *word != 0);
        words.sort_unstable();
        words
    }

    /// Panics if an invariant does not hold. The test owns the arena.
    fn check(&self) {
        // SAFETY: the test owns the arena; pages on lists are there.
        unsafe {
            let listed: Vec<_> = self.pages.lock().iter().map(|page| page.as_ptr()).collect();
            let mut on_lists = HashSet::new();
            for class in 0..CLASSES {
                let (mut page, mut before) = (self.first(class), null_mut());
                while !page.is_null() {
                    assert!(on_lists.insert(page), "a page is on two lists");
                    assert_eq!((*page).class.load(Relaxed) as usize, class);
                    let (free, used, linked_from, next) =
                        Page::own(page, |own| (own.free, own.used, own.before, own.next));
                    assert_eq!(linked_from, before);
                    assert!(used > 0, "an empty page is linked");
                    assert!(before.is_null() || !free.is_null(), "a full page is linked");
                    (before, page) = (page, next);
                }
            }
            let kept = self.own.with(|own| (*own).kept.clone());
            assert!(kept.len() <= KEPT_BUSY);
            for page in &listed {
                assert_eq!(
                    (**page).is_kept.load(Relaxed),
                    kept.contains(page),
                    "a page does not say whether it is kept"
                );
            }
            for page in kept {
                assert!(on_lists.insert(page), "a kept page is linked");
                assert_eq!(Page::own(page, |own| own.used), 0, "a kept page is used");
            }
            for (at, &page) in listed.iter().enumerate() {
                assert_eq!((*page).at.load(Relaxed) as usize, at);
                let class = (*page).class.load(Relaxed) as usize;
                let (mut cell, used) = Page::own(page, |own| (own.free, own.used as usize));
                let is_full = !on_lists.contains(&page);
                let used = used - usize::from(page == self.first(class));
                let mut free = 0;
                while !cell.is_null() {
                    assert_eq!(Page::of(cell), page, "a page's list leaves it");
                    assert_eq!((*cell).word.load(Relaxed), 0);
                    free += 1;
                    cell = (*cell).next.with(|next| *next);
                }
                let carved = (*page).carved.load(Relaxed) as usize;
                assert_eq!(used + free, carved);
                assert!(!is_full || (free == 0 && carved == capacity(class)), "a page with room is lost");
            }
        }
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn every_size_has_the_smallest_class_that_holds_it() {
    for (size, align) in (1..=2048).flat_map(|size| [(size, 1), (size, 8), (size, ALIGN)]) {
        let class = class_of(layout(size, align)).unwrap();
        assert!(size_of_class(class) >= size);
        assert!(class == 0 || size_of_class(class - 1) < size.next_multiple_of(align));
        assert_eq!(align_of_class(class) % align, 0);
        assert!(capacity(class) * size_of_class(class) + size_of::<Page>() <= PAGE_BYTES);
    }
    assert_eq!(size_of_class(CLASSES - 1), 2048);
    assert_eq!(class_of(layout(2049, 8)), None);
    assert_eq!(class_of(layout(64, 32)), None);
    assert!(class_of(layout(64, 16)).is_some());
}

#[test]
fn a_tool_that_knows_allocations_gets_none_of_ours() {
    let arena = Arena::new(std::ptr::null());
    // SAFETY: the arena is ours.
    let cell = unsafe { arena.alloc(layout(128, 8)) };
    assert_eq!(cell.is_some(), sys::TASKS_SHARE_PAGES);
    if let Some(cell) = cell {
        // SAFETY: nothing was done with it.
        unsafe { Arena::free(cell, Some(&arena), || true) };
    }
    // SAFETY: the arena is ours.
    unsafe { arena.trim() };
}

#[test]
fn what_was_freed_last_is_taken_first() {
    let arena = Arena::new(std::ptr::null());
    let cell = Taken::take(&arena, 7, 1, 1);
    let at = cell.cell;
    cell.free(Some(&arena));
    let cell = Taken::take(&arena, 7, 1, 1);
    assert_eq!(cell.cell, at);
    cell.free(Some(&arena));
    // SAFETY: the arena is ours.
    unsafe { arena.trim() };
    assert_eq!(arena.page_count(), 0);
}

/// From the owner and from elsewhere: the first page is used up, and cells of it are found again before a page is
/// opened.
#[test]
fn a_full_page_is_found_again() {
    for is_own in [true, false] {
        let arena = Arena::new(std::ptr::null());
        let count = 2 * capacity(20);
        let mut cells: Vec<_> = (0..count).map(|_| Taken::take(&arena, 20, 1, 1)).collect();
        assert_eq!(arena.page_count(), 2);
        arena.check();
        for _ in 0..3 {
            let freed: Vec<_> =
                cells.drain(3..13).map(|taken| (taken.cell, taken.free(is_own.then_some(&arena)))).collect();
            if is_own {
                arena.check();
            }
            cells.extend((0..10).map(|_| Taken::take(&arena, 20, 1, 1)));
            assert_eq!(arena.page_count(), 2);
            let again: HashSet<_> = cells.iter().map(|taken| taken.cell).collect();
            assert!(freed.iter().all(|(cell, ())| again.contains(cell)));
        }
        cells.into_iter().for_each(|taken| taken.free(Some(&arena)));
        arena.check();
        // SAFETY: the arena is ours.
        unsafe { arena.trim() };
        assert_eq!(arena.page_count(), 0);
    }
}

#[test]
fn empty_pages_are_kept_up_to_a_number_and_are_for_any_class() {
    let arena = Arena::new(std::ptr::null());
    let fill = |class: usize, pages: usize| -> Vec<_> {
        (0..pages * capacity(class)).map(|_| Taken::take(&arena, class, 1, 1)).collect()
    };
    let cells = fill(CLASSES - 1, KEPT_BUSY + 5);
    assert_eq!(arena.page_count(), KEPT_BUSY + 5);
    cells.into_iter().for_each(|taken| taken.free(Some(&arena)));
    arena.check();
    assert_eq!((arena.page_count(), arena.kept_count()), (KEPT_BUSY + 1, KEPT_BUSY));
    let mut shown = 0;
    arena.walk(|_| shown += 1);
    assert_eq!(shown, capacity(CLASSES - 1), "a walk looks at kept pages");
    // With nothing to do, it gives them back in parts.
    // SAFETY: the arena is ours.
    let parts = (0..).take_while(|_| unsafe { arena.collect() }).count();
    assert_eq!(parts, (KEPT_BUSY - KEPT) / GIVEN_BACK - 1);
    arena.check();
    // The first page of the class is not counted.
    assert_eq!((arena.page_count(), arena.kept_count()), (KEPT + 1, KEPT));
    let cells = fill(CLASSES - 3, 10);
    arena.check();
    assert_eq!(arena.page_count(), KEPT + 1);
    assert_eq!(arena.words().len(), cells.len());
    cells.into_iter().for_each(|taken| taken.free(Some(&arena)));
    arena.check();
    // SAFETY: the arena is ours.
    unsafe { arena.trim() };
    arena.check();
    assert_eq!((arena.page_count(), arena.kept_count()), (0, 0));
}

/// A task that is spawned and joined, again and again, uses one page.
#[test]
fn one_cell_at_a_time_stays_in_one_page() {
    let arena = Arena::new(std::ptr::null());
    for n in 0..2 * capacity(10) {
        let own = (n % 3 > 0).then_some(&arena);
        Taken::take(&arena, 10, 1, n as u8).free(own);
        arena.check();
        assert_eq!(arena.page_count(), 1);
        if n % 5 == 0 {
            // SAFETY: the arena is ours.
            assert!(unsafe { !arena.collect() });
        }
    }
    // SAFETY: the arena is ours.
    unsafe { arena.trim() };
    assert_eq!(arena.page_count(), 0);
}

/// What came back is put away in parts.
#[test]
fn no_one_waits_for_all_that_came_back() {
    let arena = Arena::new(std::ptr::null());
    let count = if cfg!(miri) { PUT_AWAY + PUT_AWAY_IDLE + 50 } else { 3 * PUT_AWAY_IDLE + 5 };
    let cells: Vec<_> = (0..count).map(|_| Taken::take(&arena, 1, 1, 1)).collect();
    let free_count = || -> usize {
        let pages = arena.pages.lock();
        // SAFETY: the test owns the arena; pages on the list are there.
        let counts = pages.iter().map(|page| unsafe {
            let carved = (*page.as_ptr()).carved.load(Relaxed);
            let is_first = page.as_ptr() == arena.first(1);
            (carved - Page::own(page.as_ptr(), |own| own.used) + u32::from(is_first)) as usize
        });
        counts.sum()
    };
    cells.into_iter().for_each(|taken| taken.free(None));
    let before = free_count();
    // SAFETY: the arena is ours.
    unsafe {
        assert!(arena.put_away(PUT_AWAY));
        assert_eq!(free_count() - before, PUT_AWAY);
        assert!(arena.collect());
        assert_eq!(free_count() - before, PUT_AWAY + PUT_AWAY_IDLE.min(count - PUT_AWAY));
        while arena.collect() {}
        assert!(!arena.has_returned());
        arena.check();
        arena.trim();
    }
    assert_eq!(arena.page_count(), 0);
}

/// Everything at random, beside a list of what is taken.
#[test]
fn it_does_as_a_list_does() {
    let (runs, steps) = if cfg!(miri) { (2, 1500) } else { (20, 20_000) };
    for seed in seeds(1..=runs) {
        let arena = Arena::new(std::ptr::null());
        let mut random = seed.random(0);
        let mut taken: Vec<Taken> = Vec::new();
        let mut next_word = 1;
        // Phases of growth and of decline.
        let mut bias = 5;
        for step in 0..steps {
            if step % 700 == 0 {
                bias = 1 + random.below(9);
            }
            match random.below(1000) {
                0 => {
                    // SAFETY: the arena is ours.
                    unsafe { arena.trim() };
                }
                1..4 => {
                    // SAFETY: the arena is ours.
                    unsafe { arena.collect() };
                }
                4 => {
                    let mut expected: Vec<_> = taken.iter().map(|taken| taken.word().load(Relaxed)).collect();
                    expected.sort_unstable();
                    assert_eq!(arena.words(), expected, "step {step}");
                }
                5..7 if !cfg!(miri) => {
                    // SAFETY: the arena is ours.
                    unsafe { while arena.put_away(PUT_AWAY) {} }
                    arena.check();
                }
                _ if random.below(10) < bias => {
                    // Few classes at a time, and all in the end.
                    let class = (seed.value() as usize * 5 + random.below(3) as usize + step / 5000) % CLASSES;
                    let class = class.max(1);
                    taken.push(Taken::take(&arena, class, next_word, random.below(256) as u8));
                    next_word += 1;
                }
                n => {
                    for _ in 0..1 + n % 3 {
                        if !taken.is_empty() {
                            let at = random.below(taken.len() as u64) as usize;
                            let own = (random.below(2) == 0).then_some(&arena);
                            taken.swap_remove(at).free(own);
                        }
                    }
                }
            }
        }
        taken.into_iter().for_each(|taken| taken.free(None));
        // SAFETY: the arena is ours.
        unsafe { arena.trim() };
        arena.check();
        assert_eq!(arena.page_count(), 0);
    }
}

/// Two owners hand cells to each other and to a third thread, which frees them; a walker counts up what it finds, looks
/// at it and counts down. Each cell is freed by whoever counts down to nothing.
#[test]
fn r23_owners_freers_and_a_walker() {
    /// What lies behind the word: the word's value while the cell lives, twice.
    const CHECKED: usize = 3;
    const ALIVE: usize = 1 << 32;

    fn release(cell: NonNull<u8>, own: Option<&Arena>) {
        // SAFETY: the caller has a count.
        let word: &AtomicUsize = unsafe { cell.cast().as_ref() };
        // AcqRel: pairs with itself; the last sees what the others did.
        if word.fetch_sub(1, AcqRel) & (ALIVE - 1) == 1 {
            // SAFETY: the cell is ours alone.
            unsafe { cell.cast::<usize>().add(1).write_bytes(0xdd, CHECKED) };
            word.store(0, Relaxed);
            // SAFETY: its word is 0.
            unsafe { Arena::free(cell, own, || true) };
        }
    }

    struct Sent(NonNull<u8>);
    // SAFETY: it stands for a count.
    unsafe impl Send for Sent {}

    let rounds = if cfg!(miri) { 60 } else { 200_000 };
    let arenas = Arc::new([Arena::new(std::ptr::null()), Arena::new(std::ptr::null())]);
    let is_over = Arc::new(AtomicBool::new(false));
    let walker = {
        let (arenas, is_over) = (arenas.clone(), is_over.clone());
        thread::spawn(move || {
            let mut found = 0;
            while !is_over.load(Relaxed) {
                for arena in arenas.iter() {
                    let mut counted = Vec::new();
                    arena.walk(|at| {
                        // SAFETY: a word that `walk` shows is there.
                        let word = unsafe { at.as_ref() };
                        let mut seen = word.load(Relaxed);
                        while seen & ALIVE != 0 && seen & 0xff != 0 {
                            match word.compare_exchange_weak(seen, seen + 1, Acquire, Relaxed) {
                                Ok(_) => {
                                    counted.push(at.cast::<u8>());
                                    break;
                                }
                                Err(now) => seen = now,
                            }
                        }
                    });
                    found += counted.len();
                    for cell in counted {
                        // SAFETY: we have a count.
                        unsafe {
                            let checked = cell.cast::<usize>().add(1).cast::<[usize; CHECKED]>().read();
                            assert_eq!(checked, [cell.as_ptr().addr(); CHECKED]);
                        }
                        release(cell, None);
                    }
                }
                thread::yield_now();
            }
            found
        })
    };
    let (to_third, third_in) = mpsc::channel::<Sent>();
    let third = thread::spawn(move || third_in.into_iter().for_each(|sent| release(sent.0, None)));
    let (to_0, in_0) = mpsc::channel();
    let (to_1, in_1) = mpsc::channel();
    let seed = seed(77);
    let owners: Vec<_> = [(0, to_1, in_0), (1, to_0, in_1)]
        .into_iter()
        .map(|(index, to_other, from_other)| {
            let (arenas, to_third) = (arenas.clone(), to_third.clone());
            let mut random = seed.random(index as u64);
            thread::spawn(move || {
                let arena = &arenas[index];
                let mut kept = Vec::new();
                for _ in 0..rounds {
                    let class = 2 + random.below(3) as usize * 10;
                    // SAFETY: this thread owns the arena, which stays.
                    let cell = unsafe { arena.take(class) }.unwrap();
                    // SAFETY: the cell is ours and has room for four words.
                    unsafe {
                        cell.cast::<usize>().add(1).cast::<[usize; CHECKED]>().write([cell.as_ptr().addr(); CHECKED]);
                        cell.cast::<AtomicUsize>().as_ref().store(ALIVE | 1, Release);
                    }
                    match random.below(8) {
                        0..2 => to_other.send(Sent(cell)).unwrap(),
                        2 => to_third.send(Sent(cell)).unwrap(),
                        3..5 => kept.push(cell),
                        _ => release(cell, Some(arena)),
                    }
                    from_other.try_iter().for_each(|Sent(cell)| release(cell, Some(arena)));
                    if kept.len() > 2000 {
                        kept.drain(..).for_each(|cell| release(cell, Some(arena)));
                        // SAFETY: this thread owns the arena.
                        unsafe { if random.below(2) == 0 { arena.trim() } else { while arena.collect() {} } }
                    }
                }
                kept.drain(..).for_each(|cell| release(cell, Some(arena)));
                drop(to_other);
                from_other.into_iter().for_each(|Sent(cell)| release(cell, Some(arena)));
            })
        })
        .collect();
    drop(to_third);
    owners.into_iter().for_each(|owner| owner.join().unwrap());
    third.join().unwrap();
    is_over.store(true, Relaxed);
    walker.join().unwrap();
    for arena in arenas.iter() {
        // SAFETY: the other threads are gone.
        unsafe { arena.trim() };
        arena.check();
        assert_eq!(arena.page_count(), 0);
    }
}
