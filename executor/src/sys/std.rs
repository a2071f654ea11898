//! The std form of `sys`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use concurrent_queue::{ConcurrentQueue, PushError};
use crossbeam_deque::{Injector, Steal};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}
pub(crate) use std::hint::spin_loop;

use atomic::{AtomicU32, AtomicUsize, Ordering};

/// A cell whose guard the type that contains it names.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> UnsafeCell<T> {
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Calls `f` with a pointer to read through.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer to write through.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A queue without bound or lock, that can be closed.
pub(crate) struct Queue<T>(ConcurrentQueue<T>);

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue(ConcurrentQueue::unbounded())
    }

    /// Appends; the error gives the value back, for the queue is closed.
    #[inline]
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        self.0.push(value).map_err(PushError::into_inner)
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop().ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing is pushed any more.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// A queue that any thread appends to without a lock; mostly one takes out.
pub(crate) struct Inbox<T>(Injector<T>);

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Inbox(Injector::new())
    }

    pub(crate) fn push(&self, value: T) {
        self.0.push(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        loop {
            match self.0.steal() {
                Steal::Success(value) => return Some(value),
                Steal::Empty => return None,
                Steal::Retry => spin_loop(),
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A lock with a rank and without poisoning: what it guards is never left half changed, because no user code runs
/// under it. It has no `Debug`: std's holds the lock while it writes into what may be the user's.
pub(crate) struct Mutex<T> {
    #[cfg(debug_assertions)]
    rank: u8,
    inner: std::sync::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(rank: u8, value: T) -> Self {
        let _ = rank;
        Mutex {
            #[cfg(debug_assertions)]
            rank,
            inner: std::sync::Mutex::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        ranks::enter(self.rank);
        MutexGuard {
            #[cfg(debug_assertions)]
            rank: self.rank,
            inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Unlocks on drop.
pub(crate) struct MutexGuard<'a, T> {
    #[cfg(debug_assertions)]
    rank: u8,
    inner: std::sync::MutexGuard<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        ranks::leave(self.rank);
    }
}

/// A lock that is mostly one thread's and never held for long: it is let go by a plain store, which is half of what an
/// uncontended lock costs. So nobody is told that it is free: whoever finds it taken spins, then naps and comes back.
pub(crate) struct OwnMutex<T> {
    #[cfg(debug_assertions)]
    rank: u8,
    /// [`FREE`], [`TAKEN`] or [`MARKED`].
    state: atomic::AtomicU8,
    /// Guarded by `state`.
    value: std::cell::UnsafeCell<T>,
}

// SAFETY: who takes the lock has the value to itself until it lets it go.
unsafe impl<T: Send> Sync for OwnMutex<T> {}

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// Taken by who has marked that.
const MARKED: u8 = 2;

/// How often a waiting thread looks before it naps.
const SPINS: u32 = 100;
/// How long it naps at first, then twice as long each time, in microseconds.
const NAP_US: u64 = 10;
/// The longest nap, in microseconds: others may wait for who naps.
const NAP_US_MAX: u64 = 80;

impl<T> OwnMutex<T> {
    pub(crate) const fn new(rank: u8, value: T) -> Self {
        let _ = rank;
        OwnMutex {
            #[cfg(debug_assertions)]
            rank,
            state: atomic::AtomicU8::new(FREE),
            value: std::cell::UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> OwnMutexGuard<'_, T> {
        self.lock_as(TAKEN)
    }

    /// `None` if somebody has it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<OwnMutexGuard<'_, T>> {
        self.try_lock_as(TAKEN).ok()
    }

    /// As [`OwnMutex::lock`], and who comes meanwhile is told of the mark.
    #[inline]
    pub(crate) fn lock_marked(&self) -> OwnMutexGuard<'_, T> {
        self.lock_as(MARKED)
    }

    /// As [`OwnMutex::try_lock`], with the mark. If somebody has it: whether that one has marked it.
    #[inline]
    pub(crate) fn try_lock_marked(&self) -> Result<OwnMutexGuard<'_, T>, bool> {
        self.try_lock_as(MARKED).map_err(|state| state == MARKED)
    }

    #[inline]
    fn lock_as(&self, state: u8) -> OwnMutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        ranks::enter(self.rank);
        if self.try_take(state).is_err() {
            self.wait_and_take(state);
        }
        OwnMutexGuard { of: self, _thread: PhantomData }
    }

    #[inline]
    fn try_lock_as(&self, state: u8) -> Result<OwnMutexGuard<'_, T>, u8> {
        self.try_take(state)?;
        #[cfg(debug_assertions)]
        ranks::enter(self.rank);
        Ok(OwnMutexGuard { of: self, _thread: PhantomData })
    }

    #[inline]
    fn try_take(&self, state: u8) -> Result<(), u8> {
        // Acquire: pairs with the Release in the guard's drop.
        self.state.compare_exchange(FREE, state, Ordering::Acquire, Ordering::Relaxed).map(|_| ())
    }

    #[cold]
    fn wait_and_take(&self, state: u8) {
        let mut nap = NAP_US;
        loop {
            for _ in 0..SPINS {
                if self.state.load(Ordering::Relaxed) == FREE && self.try_take(state).is_ok() {
                    return;
                }
                spin_loop();
            }
            // Its owner was preempted, or does much.
            std::thread::sleep(Duration::from_micros(nap));
            nap = (2 * nap).min(NAP_US_MAX);
        }
    }
}

/// Unlocks on drop. Not `Send`, as the rank is this thread's.
pub(crate) struct OwnMutexGuard<'a, T> {
    of: &'a OwnMutex<T>,
    _thread: PhantomData<*const ()>,
}

impl<T> Deref for OwnMutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this thread has the lock.
        unsafe { &*self.of.value.get() }
    }
}

impl<T> DerefMut for OwnMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.of.value.get() }
    }
}

impl<T> Drop for OwnMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `try_take`.
        self.of.state.store(FREE, Ordering::Release);
        #[cfg(debug_assertions)]
        ranks::leave(self.of.rank);
    }
}

/// The ranks this thread holds, one bit each.
#[cfg(debug_assertions)]
mod ranks {
    use std::cell::Cell;

    thread_local! {
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn enter(rank: u8) {
        #[cfg(test)]
        super::count_slow_step();
        HELD.with(|held| {
            let before = held.get();
            assert!(before >> rank == 0, "lock of rank {rank} taken while ranks {before:#b} are held");
            held.set(before | 1 << rank);
        });
    }

    pub(super) fn leave(rank: u8) {
        HELD.with(|held| held.set(held.get() & !(1 << rank)));
    }

    pub(super) fn held() -> u32 {
        HELD.with(Cell::get)
    }
}

/// User code is about to run: debug builds abort the test if this thread holds a lock of the runtime.
#[inline]
pub(crate) fn assert_no_lock_held() {
    #[cfg(debug_assertions)]
    assert!(ranks::held() == 0, "user code would run under a lock of the runtime");
}

/// A word that threads wait on.
#[derive(Debug)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    pub(crate) const fn new(value: u32) -> Self {
        Futex(AtomicU32::new(value))
    }

    #[inline]
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Sleeps while the word is `expected`, at most `timeout`; may return early for no reason.
    pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) {
        #[cfg(test)]
        count_slow_step();
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let timeout_ptr = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the word lives as long as `self`, and the kernel only reads the time out.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                expected,
                timeout_ptr,
            );
        }
    }

    /// Wakes one thread that sleeps on the word.
    pub(crate) fn wake_one(&self) {
        #[cfg(test)]
        count_slow_step();
        // SAFETY: FUTEX_WAKE does not read through the address.
        unsafe {
            libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        }
    }
}

#[cfg(test)]
thread_local! {
    static SLOW_STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn count_slow_step() {
    SLOW_STEPS.set(SLOW_STEPS.get() + 1);
}

/// How many locks of the runtime this thread has taken, in debug builds, and how often it has slept or woken by a
/// futex.
#[cfg(test)]
pub(crate) fn slow_steps() -> u64 {
    SLOW_STEPS.get()
}

static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Forks are counted from now on, if they are not yet, and each child calls `begin_child` before it comes out of one.
///
/// # Safety
///
/// `begin_child` does only what is allowed there: it neither allocates nor takes a lock.
pub(crate) unsafe fn count_forks(begin_child: extern "C" fn()) {
    static HANDLER: std::sync::Once = std::sync::Once::new();
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    HANDLER.call_once(|| {
        // SAFETY: the one only adds to an atomic, which is allowed after a fork; for the other the caller answers.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
            libc::pthread_atfork(None, None, Some(begin_child));
        }
    });
}

/// How many times this process has come out of a fork as the child, since the first [`count_forks`]. A runtime
/// remembers the count it was built at: another count means that its threads and its netpoller stayed with the parent.
#[inline]
pub(crate) fn fork_count() -> usize {
    FORKS.load(Ordering::Relaxed)
}

/// The system's number of this thread.
pub(crate) fn thread_id() -> i32 {
    thread_local! {
        /// With the process that it was asked in: the child of a fork has a thread of another number.
        static ID: std::cell::Cell<(usize, i32)> = const { std::cell::Cell::new((0, 0)) };
    }
    ID.with(|known| {
        let (forks, id) = known.get();
        if id != 0 && forks == fork_count() {
            return id;
        }
        // SAFETY: no memory is touched.
        let id = unsafe { libc::gettid() };
        known.set((fork_count(), id));
        id
    })
}

/// Whether this is the thread that the process began with, and not a copy of another one in the child of a fork; a copy
/// that was made before the process had its first runtime is taken for it.
pub(crate) fn is_main_thread() -> bool {
    // SAFETY: no memory is touched.
    fork_count() == 0 && thread_id() == unsafe { libc::getpid() }
}

/// Writes a line to standard error, unless that would block. No lock is taken, which a thread that stands still may
/// hold.
pub(crate) fn try_print_error(line: &str) -> bool {
    /// A pipe that can be written to takes so much at once.
    const AT_ONCE: usize = libc::PIPE_BUF;
    let print = |bytes: &[u8]| {
        let mut fd = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        // SAFETY: there is one entry, and no time is waited.
        let ready = unsafe { libc::poll(&mut fd, 1, 0) } == 1 && fd.revents & libc::POLLOUT != 0;
        // SAFETY: the bytes are there.
        ready && unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) } > 0
    };
    let text = format!("{line}\n").into_bytes();
    // What is long may be cut off, by a reader that does not follow, or mixed with what others write.
    text.chunks(AT_ONCE).take_while(|bytes| print(bytes)).count() > 0
}
