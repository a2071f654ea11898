//! Step 6 of the search: looks for work at other processors (Go: `stealWork`, `runqgrab`).

use super::{Worker, count_found};
use crate::clock::{self, NEVER};
use crate::inject::BATCH;
use crate::metrics::FoundIn;
use crate::processor::Processor;
use crate::runq::Unit;
use crate::sys::{spin_loop, submit_fence};

/// How often a spinner goes round the table.
const ROUNDS: u32 = 4;
/// How long a lone task must have stood still before a thief takes it, in nanoseconds (Go: `usleep(3)` in `runqgrab`).
const LONE_NS: u64 = 3_000;
/// A processor that wakes a machine is given so long, in nanoseconds, to come out of the system call.
const WAKE_NS: u64 = 50_000;

/// A theft of so short use, in nanoseconds, did not pay, if its polls were short too: it moves the lines of the queue,
/// of each task and of all that those touch to another core and, as they wake each other, back.
const PAYS_NS: u64 = 5_000;
/// So long, in nanoseconds, is a poll that pays.
const PAYS_POLL_NS: u64 = 1_500;

/// A poll that has lasted so long, in nanoseconds, since a thief first saw it keeps what is queued behind it, however
/// short that is.
const LONG_POLL_NS: u64 = 20_000;

/// The poll behind which a thief found tasks the last time.
pub(super) struct Behind {
    owner: &'static Processor,
    polls: u32,
    /// When it was first seen.
    since: u64,
}

/// A processor with a lone task, its `polls`, and what is in its run-next slot.
type Lone = (&'static Processor, u32, usize);

/// A theft that is still to be judged.
pub(super) struct Theft {
    victim: &'static Processor,
    /// The thief's.
    p: &'static Processor,
    at: u64,
    tasks: u32,
    /// What the thief's processor had counted by then.
    polls: u32,
    gone_home: u32,
}

impl Theft {
    /// It paid if it has kept the thief busy for a while and half of the tasks have stayed at least, or if its victim
    /// has been in a long poll. A short one says nothing if the victim, `behind` for so long in one poll, could not
    /// have come to the tasks meanwhile: that poll may become a long one.
    #[cold]
    fn judge(self, p: &'static Processor, now: u64, behind: Option<u64>) {
        if !std::ptr::eq(self.p, p) {
            return;
        }
        let lasted = now.saturating_sub(self.at);
        let polls = u64::from(p.polls().wrapping_sub(self.polls) / 2);
        let short = lasted < PAYS_NS.min(PAYS_POLL_NS * polls);
        let gone_home = 2 * p.gone_home().wrapping_sub(self.gone_home) >= self.tasks.max(2);
        if behind.is_some_and(is_long) || !short && !gone_home {
            self.victim.reset_backoff();
        } else if gone_home || behind.is_none_or(|ns| ns < lasted) {
            self.victim.raise_backoff();
        }
    }
}

impl Worker {
    /// Step 6: looks at every other processor, from a random one on, in a random stride.
    pub(super) fn steal(&mut self, p: &'static Processor) -> Option<Unit> {
        let sched = self.sched;
        // A processor that is dying may be in a long poll, with tasks behind it.
        let total = sched.idle.slots();
        let mut spared = None;
        for round in 0..ROUNDS {
            for victim in victims(p, total) {
                let slot = sched.slot(victim);
                let other = slot.processor();
                let queued = other.queue.len_seen();
                if queued == 0 {
                    // Who has nothing to give is left alone with the line that it writes at each poll.
                } else if other.is_spared() && !(queued > 1 && other.take_try()) {
                    if queued > 1 && spared.is_none() {
                        spared = Some((other, other.queue.end_seen()));
                    }
                } else if queued > 1 || queued == 1 && other.is_polling() {
                    if let Some(unit) = self.steal_half(p, other) {
                        return Some(unit);
                    }
                }
                if round + 1 == ROUNDS && slot.timers.earliest() != NEVER {
                    self.run_due_timers(p, slot, clock::now(), 0);
                    if p.queue.len_seen() > 0 {
                        return None;
                    }
                }
            }
            if !sched.inject.is_empty() {
                return None;
            }
        }
        if let Some((other, end)) = spared {
            if let Some(unit) = self.steal_what_stays(p, other, end) {
                return Some(unit);
            }
            if !sched.inject.is_empty() {
                return None;
            }
        }
        self.steal_lone(p, total)
    }

    fn steal_half(&mut self, p: &'static Processor, victim: &'static Processor) -> Option<Unit> {
        // SAFETY: this machine holds `p`.
        let loot = unsafe { victim.queue.steal_into(&p.queue, BATCH) }?;
        submit_fence();
        self.sched.after_push(p);
        let tasks = loot.more as u32 + 1;
        p.counters().stolen.add(tasks.into());
        count_found(p, FoundIn::Stolen);
        let at = clock::now();
        self.seen_in_poll(victim, at);
        self.theft = Some(Theft { victim, p, at, tasks, polls: p.polls(), gone_home: p.gone_home() });
        Some(loot.first)
    }

    /// Steals from a processor that is spared, if it does not come itself to what was queued there before `end`. A
    /// thief who waits for that is the spinner whom all rely on that submit something: what comes into the global queue
    /// goes first.
    #[cold]
    fn steal_what_stays(&mut self, p: &'static Processor, other: &'static Processor, end: u64) -> Option<Unit> {
        let inject = &self.sched.inject;
        spin(other.patience(), |now| {
            !other.queue.is_past(end) && inject.is_empty() && !self.is_in_long_poll(other, now)
        });
        if !other.queue.is_past(end) {
            return if inject.is_empty() { self.steal_half(p, other) } else { None };
        }
        other.raise_backoff();
        self.woken_by = None;
        None
    }

    /// Whether `owner` has been in one poll since this machine saw it [`LONG_POLL_NS`] ago.
    pub(super) fn is_in_long_poll(&mut self, owner: &'static Processor, now: u64) -> bool {
        self.seen_in_poll(owner, now).is_some_and(is_long)
    }

    /// For how long this machine has seen `owner` in one poll; `None` if it is in none. One that is just waking a
    /// machine only seems to be.
    pub(super) fn seen_in_poll(&mut self, owner: &'static Processor, now: u64) -> Option<u64> {
        let polls = owner.polls();
        if polls % 2 == 0 || owner.is_waking() {
            self.behind = None;
            return None;
        }
        match &self.behind {
            Some(seen) if std::ptr::eq(seen.owner, owner) && seen.polls == polls => {
                Some(now.saturating_sub(seen.since))
            }
            _ => {
                self.behind = Some(Behind { owner, polls, since: now });
                Some(0)
            }
        }
    }

    /// Whether `owner`, whose `polls` are so many, has been in one poll since this machine saw it [`LONE_NS`] ago.
    fn has_seen_stand(&self, owner: &'static Processor, polls: u32, now: u64) -> bool {
        self.behind.as_ref().is_some_and(|seen| {
            std::ptr::eq(seen.owner, owner)
                && seen.polls == polls
                && !owner.is_waking()
                && now.saturating_sub(seen.since) >= LONE_NS
        })
    }

    /// What was stolen last is done with, `now`: its victim learns whether that paid.
    #[inline]
    pub(super) fn judge_theft(&mut self, p: &'static Processor, now: u64) {
        if let Some(theft) = self.theft.take() {
            let behind = self.seen_in_poll(theft.victim, now);
            theft.judge(p, now, behind);
        }
    }

    /// A processor's lone task is about to be run by its own machine; it is taken only if that processor does nothing
    /// for as long as a thief is willing to wait, or has done nothing while this thief ran what else was queued there.
    /// The pointer alone would not tell: two tasks that take turns in the slot look the same each time (ABA), but
    /// `polls` moves.
    fn steal_lone(&mut self, p: &'static Processor, total: u32) -> Option<Unit> {
        const CANDIDATES: usize = 8;
        let sched = self.sched;
        let mut seen: [Option<Lone>; CANDIDATES] = [None; CANDIDATES];
        let mut count = 0;
        for victim in victims(p, total) {
            let other = sched.slot(victim).processor();
            let next = other.queue.next.peek();
            if count < CANDIDATES && (next != 0 || other.queue.len_seen() > 0) {
                seen[count] = Some((other, other.polls(), next));
                count += 1;
            }
        }
        if count == 0 {
            return None;
        }
        // The wake that brought this machine here may itself be why its waker stands still. A waker that still does
        // when this machine has run something was preempted, perhaps by this very machine, and would be waited for in
        // vain.
        if self.owes_a_pick {
            spin(WAKE_NS, |_| {
                seen.iter().flatten().any(|(other, polls, _)| other.is_waking() && other.polls() == *polls)
            });
        }
        // Behind a poll from which this machine has just taken others it has waited while it ran those.
        let now = clock::now();
        let stood = |(other, polls, _): &Lone| self.has_seen_stand(other, *polls, now);
        let at_once = seen.into_iter().flatten().find(stood).and_then(|lone| self.take_lone(p, lone));
        at_once.or_else(|| {
            spin(LONE_NS, |_| true);
            seen.into_iter().flatten().find_map(|lone| self.take_lone(p, lone))
        })
    }

    /// Takes the lone task of `other`, which was `next` in its slot, if its `polls` are still as many.
    fn take_lone(&mut self, p: &'static Processor, (other, polls, next): Lone) -> Option<Unit> {
        if other.polls() != polls {
            return None;
        }
        let unit = other.queue.steal_one().or_else(|| if next == 0 { None } else { other.queue.next.steal(next) })?;
        p.counters().stolen.add(1);
        count_found(p, FoundIn::StolenLone);
        self.lone_of = Some(other);
        Some(unit)
    }
}

/// Whether a poll that has lasted for so long, in nanoseconds, is long: then it paid to take what was behind it.
pub(super) fn is_long(ns: u64) -> bool {
    ns >= LONG_POLL_NS
}

/// Spins for `ns` nanoseconds, or until `on` says no, which is told the time.
fn spin(ns: u64, mut on: impl FnMut(u64) -> bool) {
    let start = clock::now();
    let mut now = start;
    while on(now) && now - start < ns {
        for _ in 0..16 {
            spin_loop();
        }
        now = clock::now();
    }
}

/// All slots but that of `p`, each once, from a random one on in a stride that shares no factor with their number
/// (Go: `stealOrder`).
fn victims(p: &Processor, total: u32) -> impl Iterator<Item = u32> + use<> {
    let own = p.index;
    let random = p.random();
    let start = random % total;
    let stride = coprime(total, random >> 16);
    (0..total)
        .map(move |i| ((u64::from(start) + u64::from(i) * u64::from(stride)) % u64::from(total)) as u32)
        .filter(move |victim| *victim != own)
}

/// A number from 1 to `total` that shares no factor with it, chosen by `random`.
fn coprime(total: u32, random: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let from = random % total;
    (0..total).map(|i| (from + i) % total + 1).find(|n| gcd(*n, total) == 1).unwrap_or(1)
}

#[cfg(all(test, not(gmp_loom)))]
mod tests;
