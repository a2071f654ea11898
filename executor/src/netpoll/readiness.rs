//! The readiness word of a descriptor: what the kernel has said about a socket since it was registered. `descriptor`
//! owns one each.
//!
//! | bits   | field        | set by                | cleared by                                            |
//! |--------|--------------|-----------------------|-------------------------------------------------------|
//! | 0      | READ         | `begin`, `event`      | `clear`                                               |
//! | 1      | WRITE        | `begin`, `event`      | `clear`                                               |
//! | 2      | READ_CLOSED  | `event`               | `begin` of the next registration                      |
//! | 3      | WRITE_CLOSED | `event`               | `begin` of the next registration                      |
//! | 4      | ERROR        | `event`               | `begin` of the next registration                      |
//! | 5      | URGENT       | `event`               | `begin` of the next registration                      |
//! | 6..32  | tick         | `event` adds one      | wraps                                                 |
//! | 32..64 | generation   | `end` adds one        | wraps                                                 |
//!
//! 1. An event changes the word only while the generation is the one that its key names.
//! 2. READ and WRITE are cleared only while the tick is the one that was read before the system call: an event that
//!    came meanwhile cannot be erased, it only costs one more call that would block.
//! 3. READ_CLOSED, WRITE_CLOSED, ERROR and URGENT stay. After them a short transfer proves nothing: the end of the
//!    stream or the error gives no further event, and a read ends before an urgent byte, whatever is behind it.

use crate::sys::atomic::AtomicU64;
use crate::sys::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const READ_CLOSED: u64 = 1 << 2;
const WRITE_CLOSED: u64 = 1 << 3;
const ERROR: u64 = 1 << 4;
const URGENT: u64 = 1 << 5;
const FLAGS: u64 = (1 << 6) - 1;
const TICK_ONE: u64 = 1 << 6;
const TICK: u64 = (u32::MAX as u64) & !FLAGS;
const GENERATION_SHIFT: u32 = 32;

/// As many bits of the generation as a key has room for.
pub(super) const GENERATION_BITS: u32 = if usize::BITS == 64 { 32 } else { 12 };

fn generation(word: u64) -> u32 {
    (word >> GENERATION_SHIFT) as u32 & (u32::MAX >> (32 - GENERATION_BITS))
}

/// One of the two ways of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards us: receive, accept.
    Read,
    /// Away from us: send, connect.
    Write,
}

/// The directions that somebody waits for. Waiting for both ends as soon as one is ready.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Readable.
    pub const READABLE: Interest = Interest(READ as u8);
    /// Writable.
    pub const WRITABLE: Interest = Interest(WRITE as u8);

    /// Both what `self` and what `other` waits for.
    #[must_use]
    pub const fn add(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    /// Whether the two have a direction in common.
    pub(crate) const fn meets(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it includes readable.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0 & READ as u8 != 0
    }

    /// Whether it includes writable.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & WRITE as u8 != 0
    }
}

impl std::ops::BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        self.add(other)
    }
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.is_readable(), self.is_writable()) {
            (true, true) => "READABLE | WRITABLE",
            (true, false) => "READABLE",
            _ => "WRITABLE",
        })
    }
}

impl From<Direction> for Interest {
    fn from(direction: Direction) -> Interest {
        match direction {
            Direction::Read => Interest::READABLE,
            Direction::Write => Interest::WRITABLE,
        }
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer has closed its sending side: the last bytes, then the end, can be read without waiting.
    pub(crate) read_closed: bool,
    pub(crate) write_closed: bool,
    pub(crate) error: bool,
    /// The peer has sent an urgent byte, which is read apart from the others.
    pub(crate) urgent: bool,
}

impl Event {
    /// Everything that makes a waiting task look: the end and an error are found by the next system call.
    fn flags(self) -> u64 {
        let mut flags = 0;
        if self.readable || self.read_closed || self.error || self.urgent {
            flags |= READ;
        }
        if self.writable || self.write_closed || self.error {
            flags |= WRITE;
        }
        if self.read_closed {
            flags |= READ_CLOSED;
        }
        if self.write_closed {
            flags |= WRITE_CLOSED;
        }
        if self.error {
            flags |= ERROR;
        }
        if self.urgent {
            flags |= URGENT;
        }
        flags
    }

    /// The directions whose waiters it wakes.
    pub(crate) fn interest(self) -> Interest {
        Interest((self.flags() & (READ | WRITE)) as u8)
    }
}

/// A look at the word, to be taken before the system call that may then clear it. Two looks are equal only if no event
/// came between them, whatever they say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ready(u64);

impl Ready {
    /// Whether reading, or accepting, is worth a try.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0 & READ != 0
    }

    /// Whether writing is worth a try.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & WRITE != 0
    }

    /// Whether the peer has closed its sending side.
    #[must_use]
    pub const fn is_read_closed(self) -> bool {
        self.0 & READ_CLOSED != 0
    }

    /// Whether nothing can be sent any more.
    #[must_use]
    pub const fn is_write_closed(self) -> bool {
        self.0 & WRITE_CLOSED != 0
    }

    /// Whether the kernel has reported an error.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// Whether nothing is ready.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 & FLAGS & !URGENT == 0
    }

    /// Whether a direction of `interest` is ready.
    #[must_use]
    pub const fn meets(self, interest: Interest) -> bool {
        self.0 & interest.0 as u64 != 0
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready")
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("read_closed", &self.is_read_closed())
            .field("write_closed", &self.is_write_closed())
            .field("error", &self.is_error())
            .finish()
    }
}

/// Why READ or WRITE is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// The call would have blocked: proof, whatever has been seen before.
    WouldBlock,
    /// A stream gave or took less than asked: proof only while neither its end nor an urgent byte has been seen
    /// (invariant 3).
    Short,
}

/// The word.
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(crate) fn new(generation: u32, tick: u32) -> Self {
        let tick = (u64::from(tick) * TICK_ONE) & TICK;
        Word(AtomicU64::new((u64::from(generation) << GENERATION_SHIFT) | tick))
    }

    /// The generation of the registration that the word now serves, or of the next one if it is free.
    pub(crate) fn generation(&self) -> u32 {
        generation(self.0.load(Relaxed))
    }

    /// What is known, or nothing if `generation` has ended.
    #[inline]
    pub(crate) fn load(&self, generation: u32) -> Option<Ready> {
        // Acquire: pairs with the AcqRel of `event` and `end`, so that the system call that follows comes after what
        // the event told.
        let word = self.0.load(Acquire);
        (self::generation(word) == generation).then_some(Ready(word))
    }

    /// Starts a registration: its generation. With `ready` the first calls are tried before anything is waited for.
    pub(crate) fn begin(&self, ready: bool) -> u32 {
        let word = self.0.load(Relaxed) & !FLAGS | if ready { READ | WRITE } else { 0 };
        // Relaxed: the word is free, so only its taker, who holds the table's lock, writes it; keys with this
        // generation come into being afterwards, through the kernel.
        self.0.store(word, Relaxed);
        generation(word)
    }

    /// Ends the registration: from here on every key and every `Registration` that names it is stale. The caller holds
    /// the descriptor's lock.
    pub(crate) fn end(&self) {
        // AcqRel: pairs with the Acquire of `load`. The sum runs out of the word at the top, which is the wrap.
        self.0.fetch_add(1 << GENERATION_SHIFT, AcqRel);
    }

    /// An event of `generation`: tells whether it counts (invariant 1).
    pub(crate) fn event(&self, generation: u32, event: Event) -> bool {
        let flags = event.flags();
        let mut word = self.0.load(Relaxed);
        loop {
            if self::generation(word) != generation {
                return false;
            }
            let tick = word.wrapping_add(TICK_ONE) & TICK;
            // AcqRel: pairs with the Acquire of `load`.
            match self.0.compare_exchange_weak(word, word & !TICK | tick | flags, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// The system call that followed `seen` found nothing more: clears the directions of `interest` (invariant 2).
    pub(crate) fn clear(&self, seen: Ready, interest: Interest, drained: Drained) {
        let sticky = match drained {
            Drained::WouldBlock => 0,
            Drained::Short => {
                let of = |direction, bits| if interest.0 & direction as u8 != 0 { bits } else { 0 };
                ERROR | of(READ, READ_CLOSED | URGENT) | of(WRITE, WRITE_CLOSED)
            }
        };
        let mut word = self.0.load(Relaxed);
        while word >> 6 == seen.0 >> 6 && word & sticky == 0 && word & u64::from(interest.0) != 0 {
            // Relaxed: it hands nothing over; the order on this one word is all that counts.
            match self.0.compare_exchange_weak(word, word & !u64::from(interest.0), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}
