//! A guess, one for each stream: whether the read after one that filled its buffer would find nothing. `gmp-net` keeps
//! it beside the registration, which asks it before each read and tells it what came of it.
//!
//! A full buffer does not prove a stream drained. But where each message is as long as the buffer the next read would
//! block every time. A task that lets those go first that are queued, and reads when its turn comes, mostly finds the
//! next message by then: a system call less, and no event to wait for.
//!
//! 1. Nothing relies on it: the task is queued, and reads at its next poll whatever is guessed. So a wrong guess costs
//!    a turn, once after a full buffer.
//! 2. A stream with more than fits loses the guess when a read finds something at once: after each full buffer while
//!    there is no guess, after one of [`CHECK_EVERY`] else.

use crate::sys::atomic::AtomicU32;
use crate::sys::atomic::Ordering::Relaxed;

/// The last read filled its buffer.
const FULL: u32 = 1;
/// The task has let others go first since.
const WAITED: u32 = 1 << 1;
/// How often it was right to let others go first, or would have been, less the times it was not.
const SCORE_ONE: u32 = 1 << 2;
const SCORE_MAX: u32 = 7;
const SCORE: u32 = SCORE_MAX * SCORE_ONE;
/// Full buffers, modulo [`CHECK_EVERY`].
const TURN_ONE: u32 = 1 << 5;
const TURN: u32 = 31 * TURN_ONE;

/// Others go first from here on.
const ENOUGH: u32 = 2;
/// Of so many full buffers one is followed by a read at once. Odd, and it fits into `TURN`: messages that are read in
/// two or four parts come to each of their parts in turn.
const CHECK_EVERY: u32 = 31;

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gave {
    /// As much as there was room for.
    Full,
    /// It would have blocked.
    Nothing,
    /// Less than there was room for, the end, or an error.
    Rest,
}

/// The guess. Two tasks that read one stream may lose what the other has told it.
#[derive(Debug, Default)]
pub struct Guess(AtomicU32);

impl Guess {
    /// Whether others are to go before the next read, if some are queued: true once after a full buffer.
    #[inline]
    pub(super) fn lets_others_go(&self, are_queued: impl FnOnce() -> bool) -> bool {
        // Relaxed, here and below: nothing relies on it.
        let now = self.0.load(Relaxed);
        let lets = now & FULL != 0 && is_guess(now) && are_queued();
        if lets {
            self.0.store(now | WAITED, Relaxed);
        }
        lets
    }

    /// What the read gave.
    #[inline]
    pub(super) fn learn(&self, gave: Gave) {
        let now = self.0.load(Relaxed);
        if now & FULL != 0 || gave == Gave::Full {
            self.0.store(after(now, gave), Relaxed);
        }
    }
}

fn is_guess(now: u32) -> bool {
    now & WAITED == 0 && now & SCORE >= ENOUGH * SCORE_ONE && now & TURN != 0
}

fn after(now: u32, gave: Gave) -> u32 {
    let mut score = (now & SCORE) / SCORE_ONE;
    if now & FULL != 0 {
        score = match (now & WAITED != 0, gave) {
            // It was right, or would have been.
            (true, Gave::Full | Gave::Rest) | (false, Gave::Nothing) => (score + 1).min(SCORE_MAX),
            (true, Gave::Nothing) => score.saturating_sub(1),
            // There was more at once.
            (false, Gave::Full | Gave::Rest) => 0,
        };
    }
    let turn = (now & TURN) / TURN_ONE;
    let (full, turn) = if gave == Gave::Full { (FULL, (turn + 1) % CHECK_EVERY) } else { (0, turn) };
    (score * SCORE_ONE) | full | (turn * TURN_ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a stream whose messages are as long as the buffer: so often somebody read on at once, in vain.
    fn taught(times: u32) -> Guess {
        let guess = Guess::default();
        for _ in 0..times {
            guess.learn(Gave::Full);
            guess.learn(Gave::Nothing);
        }
        guess
    }

    #[test]
    fn r08_others_go_first_once_after_a_full_buffer_where_reading_on_found_nothing() {
        let guess = taught(ENOUGH - 1);
        guess.learn(Gave::Full);
        assert!(!guess.lets_others_go(|| true), "it may have been chance");
        let guess = taught(ENOUGH);
        assert!(!guess.lets_others_go(|| true), "the last read found nothing, so an event says when to read");
        guess.learn(Gave::Full);
        assert!(!guess.lets_others_go(|| false), "nobody is queued");
        assert!(guess.lets_others_go(|| true));
        assert!(!guess.lets_others_go(|| true), "once");
        guess.learn(Gave::Rest);
        assert!(!guess.lets_others_go(|| true), "the last buffer was not full");
    }

    /// After a full buffer: how many of those that follow go by until no others go first.
    fn lasts(guess: &Guess, then: Gave) -> u32 {
        let goes_on = |_: &u32| {
            let lets = guess.lets_others_go(|| true);
            guess.learn(then);
            if then != Gave::Full {
                guess.learn(Gave::Full);
            }
            lets
        };
        (0..2 * CHECK_EVERY).take_while(goes_on).count() as u32
    }

    #[test]
    fn r04_a_stream_with_more_than_fits_is_read_at_once_after_a_while() {
        let guess = taught(ENOUGH);
        guess.learn(Gave::Full);
        assert!(lasts(&guess, Gave::Full) < CHECK_EVERY, "now and then the read comes at once, and finds more");
        for _ in 0..2 * CHECK_EVERY {
            guess.learn(Gave::Full);
            assert!(!guess.lets_others_go(|| true), "it has more than fits");
        }
    }

    /// A head and a body, then an answer: reading on after the head always finds something.
    #[test]
    fn r04_a_message_of_two_full_buffers_is_read_at_once_after_a_while() {
        for before in 0..2 {
            let guess = taught(ENOUGH + before);
            let message = || {
                guess.learn(Gave::Full);
                let lets = guess.lets_others_go(|| true);
                guess.learn(Gave::Full);
                // The others have gone, or there was nobody.
                guess.lets_others_go(|| false);
                guess.learn(Gave::Nothing);
                u32::from(lets)
            };
            let lets: u32 = (0..100 * CHECK_EVERY).map(|_| message()).sum();
            assert!(lets < 50 * CHECK_EVERY, "{lets}");
        }
    }

    #[test]
    fn r08_letting_others_go_in_vain_ends_and_is_tried_again() {
        let guess = taught(SCORE_MAX);
        guess.learn(Gave::Full);
        assert_eq!(lasts(&guess, Gave::Nothing), SCORE_MAX + 1 - ENOUGH);
        // The read that came at once was in vain too.
        assert_eq!(lasts(&guess, Gave::Nothing), 1);
    }
}
