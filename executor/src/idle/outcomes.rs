//! What came of the steps of `idle`, for `sched` to act upon.

use crate::machine::Grant;

/// What came of giving a processor up.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Retired {
    /// There may be work: the machine keeps its processor and searches on.
    Stay,
    /// The processor is gone and the machine is on a list; it looks at the queues once more and then sleeps.
    Asleep {
        /// In the netpoller rather than on its parker.
        poller: bool,
    },
    /// The processor is no longer the table's: `sysmon` rescued the tasks behind a poll of this machine. It is a husk,
    /// which the machine empties and gives back; nothing else was changed.
    Husk,
    /// The runtime closes; the machine keeps its processor, empties it and ends.
    Closed,
}

/// What came of handing a processor to a machine that wants one.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Served {
    /// Nobody wants one any more: it stays.
    Nobody,
    /// It is gone, and the machine is on the list of sleepers and parks next.
    Gone,
    /// As [`Retired::Husk`].
    Husk,
}

/// How a machine without a processor goes on.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Rested {
    /// It took this idle processor.
    Took(u32),
    /// It is on the list of sleepers and parks next.
    Asleep,
    /// The runtime closes.
    Closed,
}

/// How a machine left the netpoller.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Left {
    /// Somebody woke it with this.
    Granted(Grant),
    /// It took this idle processor.
    Took(u32),
    /// Every processor is busy. The machine is on no list; it goes on with [`super::Idle::rest`].
    Nothing,
}

/// Where a processor went that was given up.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum HandedOff {
    /// A machine has it.
    ToMachine,
    /// It is idle, or was dying and is dead; the caller looks at the queues once more.
    Idle,
    /// As [`Retired::Husk`].
    Husk,
}
