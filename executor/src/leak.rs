//! Tasks that nobody can wake any more: each poll gets a waker that counts its clones. `task` wraps its futures so if
//! the runtime looks for leaks, and so does `block_on`; where it does not, nothing here is used.
//!
//! A token is what all clones of a task's waker share: it comes into being with the first of them and goes with the
//! last. The tally of a task counts its tokens (none, one, and for a moment two) and says whether a poll is going on or
//! owed, all in one word, so that one look at it is exact: **leaked** is *no token, no poll, none owed*, and nothing
//! but an abort or the end of the runtime leads out of it.
//!
//! | state         | POLLED | WOKEN | who leaves it                                                                |
//! |---------------|--------|-------|------------------------------------------------------------------------------|
//! | waiting       |   0    |   0   | `wake` → owed, and wakes the task · without tokens: leaked                   |
//! | owed          |   0    |   1   | `begin_poll` → polled                                                        |
//! | polled        |   1    |   0   | `wake` → polled, woken · `end_poll` → waiting                                |
//! | polled, woken |   1    |   1   | `end_poll` → owed, and wakes the task                                        |
//!
//! 1. The task is woken by the edges that say so and by no others: a wake during the poll is passed on at its end. So a
//!    task that the word calls waiting is not queued either, unless it was aborted or the runtime closes.
//! 2. A token is counted before it is shared and uncounted after its last wake.
//! 3. The waker inside a token is the task's own. Waking or dropping it runs no user code that a plain waker would not.

use crate::sys::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

#[cfg(not(gmp_loom))]
pub(crate) use counted::Counted;

const POLLED: u32 = 1;
const WOKEN: u32 = 2;
const ENDED: u32 = 4;
const TOKEN: u32 = 8;

/// What is known of one task. See the head of the file.
#[derive(Debug)]
pub(crate) struct Tally(AtomicU32);

impl Tally {
    /// A task that is about to be polled for the first time.
    pub(crate) fn new() -> Self {
        Tally(AtomicU32::new(WOKEN))
    }

    /// Whether the task waits and nobody can wake it.
    pub(crate) fn is_leaked(&self) -> bool {
        // Acquire: pairs with the AcqRel of `end_poll` and `uncount`; who sees the leak sees what led to it.
        self.0.load(Acquire) == 0
    }

    /// Whether the task waits to be woken.
    pub(crate) fn is_waiting(&self) -> bool {
        // Acquire: as in `is_leaked`.
        self.0.load(Acquire) & (POLLED | WOKEN | ENDED) == 0
    }

    /// Whether the future is gone.
    #[cfg(not(gmp_loom))]
    pub(crate) fn is_ended(&self) -> bool {
        self.0.load(Relaxed) & ENDED != 0
    }

    /// There is one token more.
    fn count(&self) {
        // Relaxed: it is shared afterwards, by what the poll does.
        self.0.fetch_add(TOKEN, Relaxed);
    }

    /// There is one token less. Tells whether the task is leaked now.
    fn uncount(&self) -> bool {
        // AcqRel: pairs with `begin_poll` and `is_leaked`, and with the other tokens.
        self.0.fetch_sub(TOKEN, AcqRel) == TOKEN
    }

    /// Tells whether the task is to be woken.
    #[must_use]
    fn wake(&self) -> bool {
        // AcqRel: pairs with `begin_poll`: that poll sees what the waker did before.
        self.0.fetch_or(WOKEN, AcqRel) & (POLLED | WOKEN) == 0
    }

    fn begin_poll(&self) {
        let mut word = self.0.load(Relaxed);
        loop {
            // AcqRel: pairs with `wake`.
            match self.0.compare_exchange_weak(word, word & !WOKEN | POLLED, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// The poll is over and the task waits. Tells whether it is to be woken.
    #[must_use]
    fn end_poll(&self) -> bool {
        // AcqRel: pairs with `wake` and `is_leaked`.
        self.0.fetch_and(!POLLED, AcqRel) & WOKEN != 0
    }

    /// The future is gone.
    fn end(&self) {
        self.0.fetch_or(ENDED, Relaxed);
    }
}

#[cfg(not(gmp_loom))]
mod counted {
    use std::pin::Pin;
    use std::sync::{Arc, Weak};
    use std::task::{Context, Poll, Wake, Waker};

    use super::Tally;

    /// What the clones of a task's waker share.
    struct Token {
        /// The task's own waker.
        task: Waker,
        tally: Arc<Tally>,
        /// Wakes the task when it is leaked, to be told so: a thread in `block_on`.
        tells: bool,
    }

    impl Wake for Token {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            if self.tally.wake() {
                self.task.wake_by_ref();
            }
        }
    }

    impl Drop for Token {
        fn drop(&mut self) {
            if self.tally.uncount() && self.tells {
                self.task.wake_by_ref();
            }
        }
    }

    /// A future whose polls get a waker that counts.
    pub(crate) struct Counted<F> {
        future: F,
        tally: Arc<Tally>,
        /// The token of the last poll: as long as clones of its waker are kept, the next poll gets another clone of it.
        token: Weak<Token>,
        tells: bool,
    }

    impl<F: Future + Unpin> Counted<F> {
        pub(crate) fn new(future: F, tells: bool) -> Self {
            Counted { future, tally: Arc::new(Tally::new()), token: Weak::new(), tells }
        }

        pub(crate) fn tally(&self) -> &Arc<Tally> {
            &self.tally
        }

        fn token(&mut self, task: &Waker) -> Arc<Token> {
            self.token.upgrade().unwrap_or_else(|| {
                let token = Arc::new(Token { task: task.clone(), tally: self.tally.clone(), tells: self.tells });
                self.tally.count();
                self.token = Arc::downgrade(&token);
                token
            })
        }
    }

    impl<F: Future + Unpin> Future for Counted<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            let waker = Waker::from(self.token(cx.waker()));
            self.tally.begin_poll();
            let polled = Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker));
            drop(waker);
            if polled.is_pending() && self.tally.end_poll() {
                cx.waker().wake_by_ref();
            }
            polled
        }
    }

    impl<F> Drop for Counted<F> {
        fn drop(&mut self) {
            self.tally.end();
        }
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
