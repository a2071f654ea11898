//! `Mutex`: the value behind a `gate`, and the guards.
//!
//! 1. A guard is made by who has just taken the gate, and its drop releases it: so there is one at a time, and it has
//!    the value.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::budget::{self, Charge};
use crate::gate::{Gate, Place, Waiter};
use crate::processor::{Polled, Processor};
use crate::sys::UnsafeCell;
use crate::{cold, context};

/// A lock that tasks wait for without blocking their thread, and may hold across an `.await`. Go: `sync.Mutex`
///
/// Who comes while it is free takes it, even if others have been woken for it and are on their way: that costs no
/// switch. A waiter that was passed by a few times in this way is handed the lock; none starves. Tasks of several
/// processors that contend for it gather on one of them, where a lock costs least.
///
/// There is no poisoning: a panic of the task that holds it unlocks it, and the next finds the value as it was left.
/// Within a few lines without `.await`, `std::sync::Mutex` serves as well.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use gmp::sync::Mutex;
///
/// gmp::block_on(async {
///     let total = Arc::new(Mutex::new(0));
///     let tasks: Vec<_> = (1..=4)
///         .map(|n| {
///             let total = total.clone();
///             gmp::spawn(async move {
///                 let mut total = total.lock().await;
///                 gmp::task::yield_now().await;
///                 *total += n;
///             })
///         })
///         .collect();
///     for task in tasks {
///         task.await.unwrap();
///     }
///     assert_eq!(*total.lock().await, 10);
/// });
/// ```
pub struct Mutex<T: ?Sized> {
    gate: Gate,
    /// Guarded by `gate`.
    value: UnsafeCell<T>,
}

// SAFETY: the value goes from thread to thread with the guards, one at a time.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above; a shared reference gives the value to one guard at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// The mutex is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryLockError(());

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mutex is locked")
    }
}

impl Error for TryLockError {}

impl<T> Mutex<T> {
    /// A mutex that is not locked.
    ///
    /// # Examples
    ///
    /// ```
    /// static LINES: gmp::sync::Mutex<Vec<String>> = gmp::sync::Mutex::new(Vec::new());
    ///
    /// gmp::block_on(async { LINES.lock().await.push("one".into()) });
    /// ```
    pub const fn new(value: T) -> Self {
        Mutex { gate: Gate::new(), value: UnsafeCell::new(value) }
    }

    /// The value.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(gmp::sync::Mutex::new(1).into_inner(), 1);
    /// ```
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it, waiting until it is free. Go: `Lock`
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives up its place in the line, and loses nothing else.
    ///
    /// # Examples
    ///
    /// ```
    /// gmp::block_on(async {
    ///     let mutex = gmp::sync::Mutex::new(1);
    ///     *mutex.lock().await += 1;
    ///     assert_eq!(*mutex.lock().await, 2);
    /// });
    /// ```
    #[inline]
    pub fn lock(&self) -> Lock<'_, T> {
        Lock { mutex: self, waiter: Waiter::new() }
    }

    /// [`Mutex::lock`] with a guard that keeps the mutex alive and borrows nothing.
    ///
    /// # Cancel safety
    ///
    /// That of [`Mutex::lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// gmp::block_on(async {
    ///     let mutex = Arc::new(gmp::sync::Mutex::new(1));
    ///     let guard = mutex.clone().lock_owned().await;
    ///     gmp::spawn(async move { assert_eq!(*guard, 1) }).await.unwrap();
    ///     assert!(mutex.try_lock().is_ok());
    /// });
    /// ```
    pub async fn lock_owned(self: Arc<Self>) -> OwnedMutexGuard<T> {
        mem::forget(self.lock().await);
        OwnedMutexGuard { mutex: self, _value: PhantomData }
    }

    /// Locks it if it is free. Go: `TryLock`
    ///
    /// # Errors
    ///
    /// It is locked, or somebody has waited so long that it is the next.
    ///
    /// # Examples
    ///
    /// ```
    /// let mutex = gmp::sync::Mutex::new(1);
    /// let guard = mutex.try_lock().unwrap();
    /// assert!(mutex.try_lock().is_err());
    /// drop(guard);
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError> {
        if self.gate.try_acquire() { Ok(self.guard()) } else { Err(TryLockError(())) }
    }

    /// [`Mutex::try_lock`] with a guard that keeps the mutex alive and borrows nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Mutex::try_lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// let mutex = Arc::new(gmp::sync::Mutex::new(1));
    /// let guard = mutex.clone().try_lock_owned().unwrap();
    /// assert!(mutex.try_lock().is_err());
    /// drop(guard);
    /// ```
    pub fn try_lock_owned(self: Arc<Self>) -> Result<OwnedMutexGuard<T>, TryLockError> {
        mem::forget(self.try_lock()?);
        Ok(OwnedMutexGuard { mutex: self, _value: PhantomData })
    }

    /// [`Mutex::lock`] that blocks the thread, for code that is not async. No other task waits for it, except local
    /// tasks of this thread: the processor is given up meanwhile.
    ///
    /// # Panics
    ///
    /// As [`block_on`](crate::runtime::block_on), on a thread that is in a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let mutex = gmp::sync::Mutex::new(1);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| *mutex.blocking_lock() += 1);
    /// });
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    #[track_caller]
    pub fn blocking_lock(&self) -> MutexGuard<'_, T> {
        self.try_lock().unwrap_or_else(|_| cold::wait_for(self.lock()))
    }

    /// The value, without locking: nobody else has the mutex.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut mutex = gmp::sync::Mutex::new(1);
    /// *mutex.get_mut() += 1;
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The gate has just been taken.
    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, _value: PhantomData }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Mutex::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => debug.field("value", &&*guard),
            Err(_) => debug.field("value", &format_args!("<locked>")),
        };
        debug.finish()
    }
}

/// The future of [`Mutex::lock`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Lock<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    waiter: Waiter,
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = MutexGuard<'a, T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<MutexGuard<'a, T>> {
        let this = self.into_ref().get_ref();
        if this.waiter.is_waited() {
            // Who waited has had its turn in the queue, and others wait for what it does with its turn here.
            ready!(this.poll_acquire(cx));
            return Poll::Ready(this.mutex.guard());
        }
        let charge = match budget::slice() {
            Some(slice) if this.mutex.gate.acquire_at_once() => {
                slice.spend();
                return Poll::Ready(this.mutex.guard());
            }
            Some(slice) => slice.charge(),
            None => ready!(budget::poll_refuse(cx)),
        };
        ready!(this.poll_charged(cx, charge));
        Poll::Ready(this.mutex.guard())
    }
}

impl<T: ?Sized> Lock<'_, T> {
    /// [`Lock::poll_acquire`] for a unit of the budget.
    #[inline(never)]
    fn poll_charged(&self, cx: &mut Context<'_>, charge: Charge) -> Poll<()> {
        ready!(self.poll_acquire(cx));
        charge.made_progress();
        Poll::Ready(())
    }

    #[inline(never)]
    fn poll_acquire(&self, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: this is the future of the waiter, which is pinned with it; its drop calls `leave`.
        unsafe { self.mutex.gate.poll_acquire(&self.waiter, cx.waker(), &Here::of_this_thread()) }
    }
}

/// The processor whose budget the task lives on; none in a `block_on` inside of a task.
struct Here(Option<&'static Processor>);

impl Here {
    fn of_this_thread() -> Here {
        Here(context::constrained_processor())
    }
}

impl Place for Here {
    fn number(&self) -> u32 {
        // A thread in `block_on` is woken where it is.
        let p = self.0.filter(|p| matches!(p.polled(), Polled::Task(..)));
        // They lie 128 bytes apart, at least.
        p.map_or(0, |p| (std::ptr::from_ref(p).addr() >> 7) as u32)
    }

    fn task_goes_home(&self) {
        if let Some(p) = self.0 {
            p.task_goes_home();
        }
    }
}

impl<T: ?Sized> Drop for Lock<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the future of the waiter.
        unsafe { self.mutex.gate.leave(&self.waiter) };
    }
}

impl<T: ?Sized> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

/// Has the value of a [`Mutex`], and unlocks it when dropped. Go: `Unlock`
#[must_use = "the mutex is unlocked when this is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// It is as good as a reference to the value.
    _value: PhantomData<&'a mut T>,
}

/// Has the value of a [`Mutex`] and keeps it alive; unlocks it when dropped. By [`Mutex::lock_owned`].
#[must_use = "the mutex is unlocked when this is dropped"]
pub struct OwnedMutexGuard<T: ?Sized> {
    mutex: Arc<Mutex<T>>,
    /// It is as good as the value.
    _value: PhantomData<T>,
}

macro_rules! guards {
    ($([$($generics:tt)*] $guard:ty;)*) => {$(
        impl<$($generics)*> Deref for $guard {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: the guard has the value (invariant 1), and is borrowed as long as the reference lives.
                self.mutex.value.with(|value| unsafe { &*value })
            }
        }

        impl<$($generics)*> DerefMut for $guard {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: as above.
                self.mutex.value.with_mut(|value| unsafe { &mut *value })
            }
        }

        impl<$($generics)*> Drop for $guard {
            #[inline]
            fn drop(&mut self) {
                self.mutex.gate.release();
            }
        }

        impl<$($generics)*> fmt::Debug for $guard
        where
            T: fmt::Debug,
        {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl<$($generics)*> fmt::Display for $guard
        where
            T: fmt::Display,
        {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&**self, f)
            }
        }
    )*};
}

guards! {
    ['a, T: ?Sized] MutexGuard<'a, T>;
    [T: ?Sized] OwnedMutexGuard<T>;
}
