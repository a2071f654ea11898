//! A channel without its handles (Go: hchan): the buffer and the two lines of those who wait. `chan` puts handles,
//! futures and the budget around it.
//!
//! All of it is behind one lock, which is held for a few instructions and never while anything of the user's runs:
//! messages are moved under it, and dropped outside.
//!
//! 1. A message is in one place: with its sender, in the buffer, or in the place of a receiver that was served with it.
//! 2. A receiver stands in line only while there is nothing to receive, a sender only while there is no room: never
//!    both. So nobody who comes later gets ahead of the line, and messages come out in the order in which they went in.
//! 3. Who makes the reason of a wait untrue serves the first in line under the same lock: a message goes straight into
//!    the receiver's place (Go: sendDirect), a sender's message out of its place into the buffer. Nobody is woken to
//!    look again.
//! 4. A receiver that was served and is dropped puts the message back, or into the place of the next in line. It was
//!    served while the buffer was empty (invariant 2), so its message goes before all but those that came back, too:
//!    each has a number, and they stand in the order of sending. The buffer may hold more than its capacity then;
//!    senders wait until it holds less. After the end, who asks once more gets it.
//! 5. Once closed, nobody joins a line, and nothing is taken out of a sender's place: the close ends the waits one by
//!    one, and who receives meanwhile gets what is in the buffer. That is received as before, unless nobody is left to
//!    receive it: then it is dropped.
//! 6. A channel without a bound keeps its messages in a queue without a lock: no sender waits for a receiver whose
//!    thread stands still, and for another sender only at the end of a block of 31, until the next block is there. The
//!    lock is for those who wait: a receiver says that somebody does (`WAITED` in the hint), and looks into the queue
//!    again after a fence; a sender looks for that after its push and a fence. One of the two sees the other, so a
//!    message never lies in the queue while somebody waits.
//! 7. Otherwise the hint is written under the lock, by whoever changes something, and says what the next operation
//!    finds. Who reads it under the lock may rely on it. Who reads it without has a guess: whether it is worth to try
//!    at once, and to clone the waker before the lock is taken.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::{Poll, Waker};

use crate::sudog::{Line, Phase, Sudog};
use crate::sys::atomic::{AtomicU8, Ordering::Relaxed};
use crate::sys::{OwnMutex, Queue, idle_fence, rank, submit_fence};
use crate::wakers::{let_go, wake};

/// In the hint: there is a message, or there will be none.
const CAN_TAKE: u8 = 1;
/// In the hint: there is room, or there will be none.
const CAN_PUT: u8 = 2;
/// In the hint: somebody waits, the channel is closed, or messages came back. Nothing is done at once then.
const WAITED: u8 = 4;

/// The capacity of a channel without a bound.
const UNBOUNDED: usize = usize::MAX;

/// So many messages have their memory at once; a buffer for more grows.
const RESERVED_MAX: usize = 1024;

/// See the head of the file.
pub(crate) struct Hchan<T> {
    /// Invariants 6 and 7.
    hint: AtomicU8,
    capacity: usize,
    /// The messages of a channel without a bound (invariant 6). Those that came back are in the buffer, and first.
    queue: Option<Box<Queue<T>>>,
    core: OwnMutex<Core<T>>,
}

/// Guarded by `Hchan::core`.
struct Core<T> {
    buffer: VecDeque<T>,
    /// Who waits for a message.
    takers: Line<Served<T>>,
    /// How many messages went straight into the place of one of them.
    served: u64,
    /// Who waits for room, each with its message in its place.
    putters: Line<T>,
    /// Who waits for the end.
    watchers: Line<T>,
    /// The numbers of the messages that came back, which are the first in the buffer (invariant 4).
    returned: VecDeque<u64>,
    closed: bool,
    /// It is closed, or messages came back: one look tells.
    is_odd: bool,
}

/// A message in the place of a receiver.
pub(crate) struct Served<T> {
    pub(crate) message: T,
    /// Those that were served with later messages have a higher one.
    number: u64,
}

/// Why nothing was put.
#[derive(Debug)]
pub(crate) enum NotPut<T> {
    Full(T),
    Closed(T),
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Empty,
    Closed,
}

impl<T> Core<T> {
    /// Puts a message where it is to go. `Ok` has the waker of the receiver that was served.
    #[inline]
    fn put(&mut self, value: T, capacity: usize) -> Result<Option<Waker>, NotPut<T>> {
        if self.closed {
            return Err(NotPut::Closed(value));
        }
        if !self.takers.is_empty() {
            return Ok(self.serve(value));
        }
        if self.buffer.len() < capacity {
            self.buffer.push_back(value);
            return Ok(None);
        }
        Err(NotPut::Full(value))
    }

    /// Takes the oldest message, and lets the first sender in line have the room, unless the channel is closed
    /// (invariant 5). `Ok` has its waker.
    #[inline]
    fn take(&mut self, capacity: usize) -> Result<(T, Option<Waker>), NotTaken> {
        if let Some(value) = self.pop() {
            if self.putters.is_empty() || self.buffer.len() >= capacity || self.closed {
                return Ok((value, None));
            }
            let Some((next, waker)) = self.putters.serve(Option::take) else {
                return Ok((value, None));
            };
            self.buffer.extend(next);
            return Ok((value, Some(waker)));
        }
        if self.closed {
            return Err(NotTaken::Closed);
        }
        // Without a buffer the message comes out of the sender's place.
        match self.putters.serve(Option::take) {
            Some((Some(value), waker)) => Ok((value, Some(waker))),
            _ => Err(NotTaken::Empty),
        }
    }

    /// [`Core::take`] in a channel without a bound.
    fn take_from(&mut self, queue: &Queue<T>) -> Result<T, NotTaken> {
        let next = match self.pop() {
            // Those in line are served by who has pushed; at the end it is no matter who gets what.
            None if self.takers.is_empty() || self.closed => queue.pop(),
            returned => returned,
        };
        next.ok_or(if self.closed { NotTaken::Closed } else { NotTaken::Empty })
    }

    /// Gives a message to the first in line: there is one. Gives its waker.
    #[inline]
    fn serve(&mut self, message: T) -> Option<Waker> {
        self.served += 1;
        let number = self.served;
        self.pass_on(Served { message, number })
    }

    /// [`Core::serve`] with a message that somebody was served with before.
    #[inline]
    fn pass_on(&mut self, served: Served<T>) -> Option<Waker> {
        self.takers.serve(|place| *place = Some(served)).map(|((), waker)| waker)
    }

    /// Takes the first message out of the buffer.
    #[inline]
    fn pop(&mut self) -> Option<T> {
        let value = self.buffer.pop_front()?;
        if self.is_odd {
            self.returned.pop_front();
            self.is_odd = self.closed || !self.returned.is_empty();
        }
        Some(value)
    }

    /// Nobody waits for a message or for room, the channel is open, and no message came back.
    #[inline]
    fn is_calm(&self) -> bool {
        self.takers.is_empty() && self.putters.is_empty() && !self.is_odd
    }

    #[inline]
    fn hint(&self, capacity: usize) -> u8 {
        debug_assert_eq!(self.is_odd, self.closed || !self.returned.is_empty());
        if capacity == UNBOUNDED {
            // Nothing is done at once under the lock.
            return if self.is_calm() { 0 } else { WAITED };
        }
        if self.is_calm() {
            let (take, put) = (!self.buffer.is_empty(), self.buffer.len() < capacity);
            return hint_of(take, put);
        }
        let take = self.closed || !self.buffer.is_empty() || !self.putters.is_empty();
        let put = self.closed || self.buffer.len() < capacity || !self.takers.is_empty();
        hint_of(take, put) | WAITED
    }
}

/// Drops messages that nobody will receive. One whose destructor panics takes none along: the others may hold what
/// somebody waits for, a sender for the answer. The first panic goes on afterwards.
fn drop_all<T>(messages: impl Iterator<Item = T>) {
    let mut thrown = None;
    for message in messages {
        match (catch_unwind(AssertUnwindSafe(|| drop(message))), &thrown) {
            (Ok(()), _) => {}
            (Err(payload), None) => thrown = Some(payload),
            // Its destructor is foreign code too, and may panic again.
            (Err(payload), Some(_)) => mem::forget(payload),
        }
    }
    if let Some(payload) = thrown {
        resume_unwind(payload);
    }
}

#[inline]
fn hint_of(take: bool, put: bool) -> u8 {
    (u8::from(take) * CAN_TAKE) | (u8::from(put) * CAN_PUT)
}

impl<T> Hchan<T> {
    pub(crate) fn bounded(capacity: usize) -> Self {
        Hchan::new(capacity.min(UNBOUNDED - 1), None)
    }

    pub(crate) fn unbounded() -> Self {
        Hchan::new(UNBOUNDED, Some(Box::new(Queue::new())))
    }

    fn new(capacity: usize, queue: Option<Box<Queue<T>>>) -> Self {
        let core = Core {
            buffer: VecDeque::with_capacity(if capacity > RESERVED_MAX { 0 } else { capacity }),
            takers: Line::new(),
            served: 0,
            putters: Line::new(),
            watchers: Line::new(),
            returned: VecDeque::new(),
            closed: false,
            is_odd: false,
        };
        Hchan { hint: AtomicU8::new(core.hint(capacity)), capacity, queue, core: OwnMutex::new(rank::LEAF, core) }
    }

    pub(crate) fn capacity(&self) -> Option<usize> {
        (self.capacity != UNBOUNDED).then_some(self.capacity)
    }

    /// Messages in the buffer.
    pub(crate) fn len(&self) -> usize {
        self.core.lock().buffer.len() + self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.core.lock().closed
    }

    /// Runs `f` under the lock, and writes down what it has changed.
    #[inline]
    fn change<R>(&self, f: impl FnOnce(&mut Core<T>) -> R) -> R {
        let mut core = self.core.lock();
        let result = f(&mut core);
        self.hint.store(core.hint(self.capacity), Relaxed);
        result
    }

    /// Puts a message without waiting.
    #[inline]
    pub(crate) fn try_put(&self, value: T) -> Result<(), NotPut<T>> {
        if let Some(queue) = &self.queue {
            return self.put_in_queue(queue, value).map_err(NotPut::Closed);
        }
        let waker = self.change(|core| core.put(value, self.capacity))?;
        waker.into_iter().for_each(wake);
        Ok(())
    }

    /// Takes a message without waiting.
    #[inline]
    pub(crate) fn try_take(&self) -> Result<T, NotTaken> {
        let (value, waker) = self.change(|core| self.take(core))?;
        waker.into_iter().for_each(wake);
        Ok(value)
    }

    /// Takes a message in either form of the channel.
    #[inline]
    fn take(&self, core: &mut Core<T>) -> Result<(T, Option<Waker>), NotTaken> {
        match &self.queue {
            None => core.take(self.capacity),
            Some(queue) => core.take_from(queue).map(|value| (value, None)),
        }
    }

    /// Puts a message into the queue of a channel without a bound, or straight into the place of who waits. The error
    /// gives it back: the channel is closed.
    #[inline(never)]
    fn put_in_queue(&self, queue: &Queue<T>, value: T) -> Result<(), T> {
        let mut value = Some(value);
        if self.hint.load(Relaxed) & WAITED != 0 {
            let served = self.change(|core| {
                // What is in the queue was sent before.
                let is_next = !core.closed && core.buffer.is_empty() && !core.takers.is_empty() && queue.len() == 0;
                if is_next { core.serve(value.take()?) } else { None }
            });
            if let Some(waker) = served {
                wake(waker);
                return Ok(());
            }
        }
        value.map_or(Ok(()), |value| queue.push(value))?;
        // After the push (invariant 6).
        submit_fence();
        if self.hint.load(Relaxed) & WAITED != 0 {
            self.serve_from(queue);
        }
        Ok(())
    }

    /// Gives those who wait what is in the queue.
    #[cold]
    fn serve_from(&self, queue: &Queue<T>) {
        let serve_one = || {
            self.change(|core| {
                if core.takers.is_empty() {
                    return None;
                }
                // Nothing has come back, or nobody would be in line (invariant 2).
                let message = queue.pop()?;
                core.serve(message)
            })
        };
        std::iter::from_fn(serve_one).for_each(wake);
    }

    /// Puts the message that is in the place if there is room and nobody waits: what happens mostly, in few
    /// instructions.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which is in no line.
    #[inline]
    pub(crate) unsafe fn put_at_once(&self, sudog: &Sudog<T>) -> bool {
        if self.hint.load(Relaxed) & (CAN_PUT | WAITED) != CAN_PUT {
            return false;
        }
        let mut core = self.core.lock();
        if self.hint.load(Relaxed) & (CAN_PUT | WAITED) != CAN_PUT {
            return false;
        }
        // SAFETY: its future calls, and the place is in no line.
        let Some(value) = (unsafe { sudog.take() }) else { return false };
        core.buffer.push_back(value);
        let hint = if core.buffer.len() < self.capacity { CAN_TAKE | CAN_PUT } else { CAN_TAKE };
        self.hint.store(hint, Relaxed);
        true
    }

    /// Takes a message if there is one and nobody waits.
    #[inline]
    pub(crate) fn take_at_once(&self) -> Option<T> {
        if self.hint.load(Relaxed) & (CAN_TAKE | WAITED) != CAN_TAKE {
            return None;
        }
        let mut core = self.core.lock();
        if self.hint.load(Relaxed) & WAITED != 0 {
            return None;
        }
        let value = core.buffer.pop_front()?;
        // No message came back (`WAITED`), so there were no more than have room, and one is gone.
        debug_assert!(core.buffer.len() < self.capacity);
        self.hint.store(hint_of(!core.buffer.is_empty(), true), Relaxed);
        Some(value)
    }

    /// Puts the message that is in the place, or stands in line with it. The error gives it back.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which stays where it is until [`Hchan::leave_put`], and is of this
    /// channel.
    #[inline]
    pub(crate) unsafe fn poll_put(&self, sudog: &Sudog<T>, waker: &Waker) -> Poll<Result<(), T>> {
        match sudog.phase() {
            Phase::Out => {}
            Phase::InLine => {
                // SAFETY: passed on.
                if unsafe { self.still_waits(sudog, waker) } {
                    return Poll::Pending;
                }
                // SAFETY: passed on.
                return unsafe { self.poll_put(sudog, waker) };
            }
            Phase::Served => {
                // SAFETY: its future calls, and the place is out of line.
                unsafe { sudog.end() };
                return Poll::Ready(Ok(()));
            }
            Phase::Refused => {
                // SAFETY: as above.
                let value = unsafe { sudog.end() };
                return Poll::Ready(Err(value.expect("who was refused has its message")));
            }
        }
        if let Some(queue) = &self.queue {
            // SAFETY: its future calls, and the place is in no line.
            let value = unsafe { sudog.end() }.expect("a future that is ready is not polled again");
            return Poll::Ready(self.put_in_queue(queue, value));
        }
        let mut spare = self.clone_unless(CAN_PUT, waker);
        loop {
            // SAFETY: its future calls, and the place is in no line.
            let value = unsafe { sudog.end() }.expect("a future that is ready is not polled again");
            let put = self.change(|core| match core.put(value, self.capacity) {
                Ok(served) => Poll::Ready(Ok(served)),
                Err(NotPut::Closed(value)) => Poll::Ready(Err(value)),
                Err(NotPut::Full(value)) => {
                    // SAFETY: in no line, its future calls, and keeps it (contract).
                    unsafe {
                        sudog.put(value);
                        if let Some(waker) = spare.take() {
                            core.putters.push(sudog, waker);
                        }
                    }
                    Poll::Pending
                }
            });
            match put {
                Poll::Ready(Ok(served)) => {
                    served.into_iter().for_each(wake);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(value)) => return Poll::Ready(Err(value)),
                Poll::Pending if sudog.phase() != Phase::Out => return Poll::Pending,
                Poll::Pending => spare = Some(waker.clone()),
            }
        }
    }

    /// Takes a message, or stands in line for one.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which stays where it is until [`Hchan::leave_take`], and is of this
    /// channel.
    #[inline]
    pub(crate) unsafe fn poll_take(&self, sudog: &Sudog<Served<T>>, waker: &Waker) -> Poll<Result<T, NotTaken>> {
        match sudog.phase() {
            Phase::Out => {}
            Phase::InLine => {
                // SAFETY: passed on.
                if unsafe { self.still_waits(sudog, waker) } {
                    return Poll::Pending;
                }
                // SAFETY: passed on.
                return unsafe { self.poll_take(sudog, waker) };
            }
            Phase::Served => {
                // SAFETY: its future calls, and the place is out of line.
                let served = unsafe { sudog.end() };
                return Poll::Ready(Ok(served.expect("who was served has its message").message));
            }
            Phase::Refused => {
                // SAFETY: as above.
                unsafe { sudog.end() };
                return Poll::Ready(Err(NotTaken::Closed));
            }
        }
        if let (Some(queue), 0) = (&self.queue, self.hint.load(Relaxed) & WAITED) {
            if let Some(value) = queue.pop() {
                return Poll::Ready(Ok(value));
            }
        }
        let mut spare = self.clone_unless(CAN_TAKE, waker);
        loop {
            enum Step<T> {
                Taken(T, Option<Waker>),
                Closed,
                Lined,
                Needs,
            }
            let step = self.change(|core| match self.take(core) {
                Ok((value, waker)) => Step::Taken(value, waker),
                Err(NotTaken::Closed) => Step::Closed,
                Err(NotTaken::Empty) => match spare.take() {
                    Some(waker) => {
                        if let (Some(queue), true) = (&self.queue, core.takers.is_empty()) {
                            // The second look (invariant 6). While others wait, who pushed since has seen that.
                            self.hint.store(WAITED, Relaxed);
                            idle_fence();
                            if let Some(value) = queue.pop() {
                                spare = Some(waker);
                                return Step::Taken(value, None);
                            }
                        }
                        // SAFETY: in no line, its future calls, and keeps it (contract).
                        unsafe { core.takers.push(sudog, waker) };
                        Step::Lined
                    }
                    None => Step::Needs,
                },
            });
            match step {
                Step::Taken(value, waker) => {
                    waker.into_iter().for_each(wake);
                    return Poll::Ready(Ok(value));
                }
                Step::Closed => return Poll::Ready(Err(NotTaken::Closed)),
                Step::Lined => return Poll::Pending,
                Step::Needs => spare = Some(waker.clone()),
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which stays where it is until [`Hchan::leave_closed`], and is of this
    /// channel.
    pub(crate) unsafe fn poll_closed(&self, sudog: &Sudog<T>, waker: &Waker) -> Poll<()> {
        // SAFETY: passed on.
        if sudog.phase() == Phase::InLine && unsafe { self.still_waits(sudog, waker) } {
            return Poll::Pending;
        }
        let mut spare = Some(waker.clone());
        self.change(|core| {
            if core.closed {
                return Poll::Ready(());
            }
            // SAFETY: not closed, so not refused: in no line, its future calls, and keeps it (contract).
            unsafe { core.watchers.push(sudog, spare.take().expect("it was just cloned")) };
            Poll::Pending
        })
    }

    /// The sender goes away: what it did not put stays in its place.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place.
    #[inline]
    pub(crate) unsafe fn leave_put(&self, sudog: &Sudog<T>) {
        if sudog.phase() == Phase::InLine {
            // SAFETY: passed on.
            unsafe { self.leave(sudog, |core| &mut core.putters) };
        }
    }

    /// The receiver goes away: what it was served goes to others.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place.
    #[inline]
    pub(crate) unsafe fn leave_take(&self, sudog: &Sudog<Served<T>>) {
        if sudog.phase() != Phase::Out {
            // SAFETY: passed on.
            if let Some(served) = unsafe { self.end_take(sudog) } {
                self.put_back(served);
            }
        }
    }

    /// Ends a wait for a message, and gives the message if there is one.
    ///
    /// # Safety
    ///
    /// Nobody polls the place meanwhile. Those who call this at once take turns.
    #[cold]
    pub(crate) unsafe fn end_take(&self, sudog: &Sudog<Served<T>>) -> Option<Served<T>> {
        let (waker, served) = self.change(|core| {
            // SAFETY: under the lock, and in this line.
            let waker = (sudog.phase() == Phase::InLine).then(|| unsafe { core.takers.remove(sudog) });
            // SAFETY: out of line, and whoever else might touch it is kept away by the lock (contract).
            (waker, unsafe { sudog.end() })
        });
        let_go(waker);
        served
    }

    /// Who waited for the end goes away.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place.
    pub(crate) unsafe fn leave_closed(&self, sudog: &Sudog<T>) {
        // SAFETY: passed on.
        unsafe { self.leave(sudog, |core| &mut core.watchers) };
    }

    /// Takes a place out of its line, if it is still there.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place, which is or was in that line.
    #[cold]
    unsafe fn leave(&self, sudog: &Sudog<T>, line: impl FnOnce(&mut Core<T>) -> &mut Line<T>) {
        let waker = self.change(|core| match sudog.phase() {
            // SAFETY: under the lock, and in this line (contract).
            Phase::InLine => Some(unsafe { line(core).remove(sudog) }),
            _ => None,
        });
        let_go(waker);
    }

    /// A message comes back (invariant 4).
    #[cold]
    pub(crate) fn put_back(&self, served: Served<T>) {
        let waker = self.change(|core| {
            if !core.takers.is_empty() {
                return core.pass_on(served);
            }
            let at = core.returned.partition_point(|number| *number < served.number);
            core.returned.insert(at, served.number);
            core.buffer.insert(at, served.message);
            core.is_odd = true;
            None
        });
        waker.into_iter().for_each(wake);
    }

    /// Whether a place that was in line still is; then it has this waker.
    ///
    /// # Safety
    ///
    /// The caller is the future of the place.
    #[cold]
    unsafe fn still_waits<V>(&self, sudog: &Sudog<V>, waker: &Waker) -> bool {
        let look = || sudog.phase() == Phase::InLine;
        {
            let _core = self.core.lock();
            // SAFETY: in line, and the lock is held.
            if !look() || unsafe { sudog.will_wake(waker) } {
                return look();
            }
        }
        let mut spare = Some(waker.clone());
        let core = self.core.lock();
        let waits = look();
        if waits {
            // SAFETY: as above.
            spare = spare.map(|waker| unsafe { sudog.set_waker(waker) });
        }
        drop(core);
        let_go(spare);
        waits
    }

    /// A clone of the waker if the hint says that it will be needed.
    #[inline]
    fn clone_unless(&self, can: u8, waker: &Waker) -> Option<Waker> {
        (self.hint.load(Relaxed) & can == 0).then(|| waker.clone())
    }

    /// Ends the channel: nothing is put any more, and nobody waits. With `discard` nobody will take what is in it.
    /// Tells whether it was this call that closed it (Go: closechan).
    #[cold]
    pub(crate) fn close(&self, discard: bool) -> bool {
        let (first, rest) = self.change(|core| {
            let first = !core.closed;
            core.closed = true;
            core.is_odd = true;
            if let Some(queue) = &self.queue {
                queue.close();
            }
            if discard {
                core.returned.clear();
            }
            (first, if discard { mem::take(&mut core.buffer) } else { VecDeque::new() })
        });
        if let Some(queue) = &self.queue {
            self.serve_from(queue);
        }
        if first {
            // Nobody joins a line any more.
            std::iter::from_fn(|| self.refuse_one()).for_each(wake);
        }
        let queued = std::iter::from_fn(|| if discard { self.queue.as_ref()?.pop() } else { None });
        drop_all(rest.into_iter().chain(queued));
        first
    }

    /// Ends one wait, of whatever kind. `None` if nobody waits.
    fn refuse_one(&self) -> Option<Waker> {
        self.change(|core| core.takers.refuse().or_else(|| core.putters.refuse()).or_else(|| core.watchers.refuse()))
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
