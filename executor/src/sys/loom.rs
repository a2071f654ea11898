//! The loom form of `sys`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}
pub(crate) use loom::cell::UnsafeCell;

use atomic::AtomicUsize;
use atomic::Ordering::{Acquire, Release};

/// In a model a spinning thread lets the others go first, or the model would never end.
pub(crate) fn spin_loop() {
    loom::thread::yield_now();
}

/// Assumed of concurrent-queue: it behaves as one under a lock, also beside the fences. But who finds it empty may have
/// come before what it does not see, and who pushes learns nothing of those: that is for the fences.
pub(crate) struct Queue<T> {
    inner: loom::sync::Mutex<(VecDeque<T>, bool)>,
    count: AtomicUsize,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue { inner: loom::sync::Mutex::new((VecDeque::new(), false)), count: AtomicUsize::new(0) }
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut inner = self.inner.lock().unwrap();
        if inner.1 {
            return Err(value);
        }
        inner.0.push_back(value);
        self.count.store(inner.0.len(), Release);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        if self.len() == 0 {
            return None;
        }
        let mut inner = self.inner.lock().unwrap();
        let value = inner.0.pop_front();
        self.count.store(inner.0.len(), Release);
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Acquire)
    }

    pub(crate) fn close(&self) {
        self.inner.lock().unwrap().1 = true;
    }
}

/// Assumed of crossbeam-deque's `Injector`: it behaves as one under a lock.
pub(crate) struct Inbox<T>(loom::sync::Mutex<VecDeque<T>>);

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Inbox(loom::sync::Mutex::new(VecDeque::new()))
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().unwrap().push_back(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.lock().unwrap().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Checked by the std form, like the ranks.
pub(crate) fn assert_no_lock_held() {}

/// A lock; ranks are checked by the std form.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(_rank: u8, value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap())
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(MutexGuard)
    }

    pub(crate) fn lock_marked(&self) -> MutexGuard<'_, T> {
        self.lock()
    }

    /// Nobody marks it here: nothing relies on that.
    pub(crate) fn try_lock_marked(&self) -> Result<MutexGuard<'_, T>, bool> {
        self.try_lock().ok_or(false)
    }
}

/// What differs is what waiting costs, and the mark.
pub(crate) type OwnMutex<T> = Mutex<T>;
pub(crate) type OwnMutexGuard<'a, T> = MutexGuard<'a, T>;

/// Unlocks on drop.
pub(crate) struct MutexGuard<'a, T>(loom::sync::MutexGuard<'a, T>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A futex: comparing and falling asleep are one step against a wake, which is what the kernel promises.
#[derive(Debug)]
pub(crate) struct Futex {
    word: atomic::AtomicU32,
    queue: loom::sync::Mutex<()>,
    asleep: loom::sync::Condvar,
}

impl Futex {
    pub(crate) fn new(value: u32) -> Self {
        Futex {
            word: atomic::AtomicU32::new(value),
            queue: loom::sync::Mutex::new(()),
            asleep: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn word(&self) -> &atomic::AtomicU32 {
        &self.word
    }

    pub(crate) fn wait(&self, expected: u32, _timeout: Option<Duration>) {
        let queue = self.queue.lock().unwrap();
        if self.word.load(atomic::Ordering::SeqCst) == expected {
            drop(self.asleep.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_one(&self) {
        drop(self.queue.lock().unwrap());
        self.asleep.notify_one();
    }
}
