//! Places where tasks are spawned that compute for long. Of a task that was never polled nothing is known but where it
//! was spawned (`Location::caller` of the call) and of what type its future is: of many that are spawned at once, and
//! each of which computes for long in its first poll, each would keep the others waiting until `sysmon` finds it, while
//! the threads of those that it has found share the CPUs.
//!
//! 1. A place is known when the others were rescued twice within [`AGAIN_NS`] from tasks of it that computed. Its tasks
//!    are left to lanes then, as burners are, but those that are known to block.
//! 2. Those of one type are like the others again as soon as a poll of one of them on a lane is short, until the others
//!    were rescued twice again: a program may spawn all that it has by one line. The first of each type waits for none
//!    of another on its way to a lane. The place is like the others [`STAYS_NS`] after the last of such polls that was
//!    long.
//! 3. No place is known for [`BARRED_NS`] after lanes were of no use: what waited for them goes back to the machines,
//!    which would leave it to a lane again.
//! 4. What is known is a hint, as in `blockers`: written under the lock there, and read without order.

use std::panic::Location;

use super::known::{Known, Noted};
use crate::processor::LONG_NS;
use crate::runq::Unit;
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::task::{self, Id};

/// Two rescues from a place, no more than so far apart, make it known, in nanoseconds.
const AGAIN_NS: u64 = 100_000_000;
/// So long, in nanoseconds, it stays known after a poll that was long.
const STAYS_NS: u64 = 1_000_000_000;
/// For so long, in nanoseconds, none is known after lanes were of no use.
const BARRED_NS: u64 = 1_000_000_000;

pub(super) struct Places {
    /// Those from whose tasks the others were rescued.
    rescued: Known,
    known: Known,
    /// Kinds of which one was left to a lane, and those whose polls are short.
    tried: Known,
    light: Known,
    barred_until: AtomicU64,
}

/// Tasks of one type that are spawned at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    place: Id,
    /// Of the place and the type.
    both: Id,
}

impl Kind {
    pub(super) fn of(unit: &Unit) -> Option<Kind> {
        task::spawned_as(unit).map(Kind::new)
    }

    pub(super) fn new((location, type_number): (&'static Location<'static>, usize)) -> Kind {
        let place = place(location);
        // Both are addresses, of which some bits differ: those of types are to count where [`Known`] has its sets.
        Kind { place, both: Id::from_bits(place.to_bits() ^ (type_number as u64).rotate_left(20)) }
    }
}

/// A place as [`Known`] has it.
fn place(location: &'static Location<'static>) -> Id {
    Id::from_bits(std::ptr::from_ref(location).addr() as u64)
}

impl Places {
    pub(super) const fn new() -> Self {
        Places {
            rescued: Known::new(),
            known: Known::new(),
            tried: Known::new(),
            light: Known::new(),
            barred_until: AtomicU64::new(0),
        }
    }

    pub(super) fn is_any_known(&self) -> bool {
        self.known.count() > 0
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.known.has(kind.place) && !self.light.has(kind.both)
    }

    // Under the lock of `blockers`.

    /// The others were rescued from a task that was spawned there and computed.
    pub(super) fn learn(&self, location: &'static Location<'static>, now: u64) {
        if now < self.barred_until.load(Relaxed) {
            return;
        }
        let place = place(location);
        // `note` says only that it was known, and not when.
        self.rescued.forget(|_, at| now.saturating_sub(at) >= AGAIN_NS);
        if self.rescued.note(place, now, AGAIN_NS) == Noted::WasKnown {
            self.known.note(place, now, STAYS_NS);
            // Nobody tells of which type they were.
            self.tried.forget(|_, _| true);
            self.light.forget(|_, _| true);
        }
    }

    /// A task of that kind is left to a lane. Tells whether it is the first one, by which the others are judged.
    pub(super) fn tries(&self, kind: Kind, now: u64) -> bool {
        self.has(kind) && self.tried.note(kind.both, now, STAYS_NS) == Noted::Is
    }

    /// A poll on a lane of a task of that kind has used so much CPU time, in nanoseconds. Tells whether it is like the
    /// others from here on.
    pub(super) fn judge(&self, kind: Kind, now: u64, used: u64) -> bool {
        if !self.has(kind) {
            return false;
        }
        if used >= LONG_NS {
            self.known.note(kind.place, now, STAYS_NS);
            return false;
        }
        let is_it = |place, _| place == kind.place.to_bits();
        self.rescued.forget(is_it);
        if self.light.note(kind.both, now, STAYS_NS) == Noted::NoRoom {
            self.known.forget(is_it);
        }
        true
    }

    pub(super) fn forget_old(&self, now: u64) {
        self.known.forget(|_, at| now.saturating_sub(at) >= STAYS_NS);
    }

    /// Lanes are of no use `now`.
    pub(super) fn bar(&self, now: u64) {
        self.forget_all();
        self.barred_until.store(now + BARRED_NS, Relaxed);
    }

    pub(super) fn reset(&self) {
        self.forget_all();
        self.barred_until.store(0, Relaxed);
    }

    fn forget_all(&self) {
        for all in [&self.rescued, &self.known, &self.tried, &self.light] {
            all.forget(|_, _| true);
        }
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use super::*;
    use crate::sched::known::WAYS;

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }

    fn learnt() -> (Places, &'static Location<'static>, Kind) {
        let (places, at) = (Places::new(), here());
        let kind = Kind::new((at, 1));
        places.learn(at, 1);
        places.learn(at, 2);
        assert!(places.has(kind));
        (places, at, kind)
    }

    #[test]
    fn r03_a_place_is_known_at_the_second_rescue_soon_after_the_first() {
        let (places, at, other) = (Places::new(), here(), here());
        places.learn(at, 1);
        assert!(!places.is_any_known());
        places.learn(at, 1 + AGAIN_NS);
        assert!(!places.is_any_known(), "that is long ago");
        places.learn(other, 2 + AGAIN_NS);
        assert!(!places.is_any_known(), "another place");
        places.learn(at, 2 + AGAIN_NS);
        assert!(places.has(Kind::new((at, 1))) && !places.has(Kind::new((other, 1))));
        places.reset();
        assert!(!places.is_any_known());
    }

    #[test]
    fn r03_a_place_is_known_until_no_poll_is_long() {
        let (places, _, kind) = learnt();
        places.judge(kind, STAYS_NS, LONG_NS);
        places.forget_old(2 * STAYS_NS - 1);
        assert!(places.has(kind));
        places.forget_old(2 * STAYS_NS);
        assert!(!places.is_any_known());
    }

    #[test]
    fn r03_tasks_of_a_type_are_like_the_others_when_a_poll_is_short() {
        let (places, at, kind) = learnt();
        places.judge(Kind::new((here(), 1)), 3, 0);
        assert!(places.has(kind), "of another place");
        places.judge(kind, 3, LONG_NS - 1);
        assert!(!places.has(kind) && places.has(Kind::new((at, 2))));
        places.learn(at, 4);
        assert!(!places.has(kind), "it begins anew");
        places.learn(at, 5);
        assert!(places.has(kind));
    }

    #[test]
    fn r03_the_first_of_a_kind_is_tried_first() {
        let (places, at, kind) = learnt();
        assert!(!places.tries(Kind::new((here(), 1)), 3), "of another place");
        assert!(places.tries(kind, 3) && !places.tries(kind, 3));
        assert!(places.tries(Kind::new((at, 2)), 3));
        places.learn(at, 4);
        assert!(places.tries(kind, 4), "it begins anew");
        assert!(places.judge(kind, 4, 0) && !places.tries(kind, 4), "it is light");
    }

    /// Their numbers are addresses of what lies side by side.
    #[test]
    fn r03_a_place_has_room_for_several_types_that_are_light() {
        let (places, at, _) = learnt();
        let kinds = (0..8).map(|number| Kind::new((at, 0x5555_0000 + 48 * number)));
        assert!(kinds.clone().all(|kind| places.tries(kind, 3)));
        assert!(kinds.clone().all(|kind| places.judge(kind, 3, 0)) && places.is_any_known());
    }

    #[test]
    fn r03_a_place_of_too_many_types_that_are_light_is_none() {
        let (places, at, _) = learnt();
        // That many have the same set, wherever they are.
        let more = crate::sched::known::SETS * WAYS;
        assert!((0..=more).all(|number| places.judge(Kind::new((at, number)), 3, 0) || !places.is_any_known()));
        assert!(!places.is_any_known());
    }

    #[test]
    fn r03_where_lanes_are_of_no_use_no_place_is_known_for_a_while() {
        let (places, at, kind) = learnt();
        places.bar(3);
        assert!(!places.is_any_known());
        (0..3).for_each(|_| places.learn(at, 2 + BARRED_NS));
        assert!(!places.has(kind));
        places.learn(at, 3 + BARRED_NS);
        places.learn(at, 3 + BARRED_NS);
        assert!(places.has(kind));
    }
}
