//! Lanes: threads for tasks that are known to compute for long in each poll, or were spawned where tasks do (see
//! `blockers`, `places`). A machine that comes to such a task leaves it to a lane and goes on with the next one; which
//! of the two threads has the CPU is the system's to say, and it can take it from one in the middle of a poll. `sysmon`
//! rescues from long polls too, but each time anew and not before 2 ms: one that computes for 2 ms in each poll would
//! cost the others as much each time.
//!
//! 1. A task that is left here is polled by one lane, or goes to the global queue: when the runtime closes, when it is
//!    like the others by then, when no thread can be had, and when no lane has taken one for [`STALLED_NS`]. In the
//!    last two cases nobody is a burner for a while, so machines poll them and `sysmon` rescues from them. Whoever
//!    acquits tasks, or ends burners, sifts the queue afterwards, and what is put there is asked for under the same
//!    lock: none of those stays behind others that compute.
//! 2. A lane's poll begins on a husk: what the task wakes and spawns goes to the global queue, and what it does besides
//!    goes as in a poll that the others were rescued from (see `stuck`), which may come back from a wait with a
//!    processor. A burner that yields on the husk, with some of its budget left, stays here.
//! 3. At most as many lanes poll as there are processors, but for polls that last for [`LASTS_NS`]: of these there may
//!    be as many more as threads that are stuck.
//! 4. While a task waits, `sysmon` is awake or its alarm is set, and calls a lane if one may poll; it stays awake too
//!    until a poll is one to be told of. Whoever is done with a poll takes the next task under the lock under which it
//!    would go to rest.
//! 5. A lane goes idle nowhere, as machines do, who look at timers and sockets then: it sees to it that somebody sits
//!    in the netpoller after each poll (see `attend`).
//!
//! | lane    | counted in | it leaves by                                                                     |
//! |---------|------------|----------------------------------------------------------------------------------|
//! | coming  | `coming`   | `State::next`: → polling, → idle, → ended when the runtime closes                |
//! | polling | `polls`    | as coming, when its poll is over                                                 |
//! | idle    | `idle`     | `State::call`: → coming · its keep-alive is over, or `close_lanes`: → ended      |

use std::collections::VecDeque;

use super::Sched;
use super::blockers::{LASTS_NS, Why};
use super::places::Kind;
use crate::clock;
use crate::machine::Machine;
use crate::metrics::SharedCounter;
use crate::runq::Unit;
use crate::sys::{Mutex, rank, submit_fence};
use crate::task::{self, Id};

/// Where no lane has taken a task for so long, in nanoseconds, what waits goes back to the machines. Where many poll it
/// is longer, as a lane that comes has to wait for its turn of the CPUs.
const STALLED_NS: u64 = 3 * LASTS_NS;

/// So many tasks may be burners, or twice as many as there are processors.
const BURNERS_MOST: usize = 8;

/// So many polls may last for long on lanes besides those that count, however many threads may be stuck.
const LATE_MOST: usize = 512;

/// The lanes of one runtime.
pub(crate) struct Lanes {
    state: Mutex<State>,
    /// Polls that lanes have begun.
    pub(super) polls: SharedCounter,
}

struct State {
    /// Tasks that are ready, oldest first; the first of a kind before the others.
    queue: VecDeque<Unit>,
    /// When the first of them was put there, or the last one taken.
    moved_at: u64,
    /// Lanes without a task; the last one is called first.
    idle: Vec<&'static Machine>,
    coming: usize,
    /// The lanes that poll, and since when.
    polls: Vec<(&'static Machine, u64)>,
    closed: bool,
}

/// How many lanes may poll.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Besides those whose polls last for long.
    most: usize,
    /// Those.
    late: usize,
}

/// Where the lane for a task comes from.
enum Call {
    Idle(&'static Machine),
    New,
}

/// What a lane does next.
pub(super) enum Next {
    Poll(Unit),
    /// It is on the list of those without a task.
    Rest,
    End,
}

impl State {
    const fn new() -> Self {
        State { queue: VecDeque::new(), moved_at: 0, idle: Vec::new(), coming: 0, polls: Vec::new(), closed: true }
    }

    /// Whether a task waits for which no lane comes, and another one may poll.
    fn is_lane_due(&self, room: Room, now: u64) -> bool {
        let may_poll = self.polling(now) + self.coming < room.most && self.polls.len() < room.most + room.late;
        self.queue.len() > self.coming && may_poll
    }

    /// How many poll and have not done so for long.
    fn polling(&self, now: u64) -> usize {
        self.polls.iter().filter(|(_, since)| now.saturating_sub(*since) < LASTS_NS).count()
    }

    /// Whether no lane has taken what waits for so long that none will.
    fn is_stalled(&self, room: Room, now: u64) -> bool {
        // Where there is room none comes for want of a CPU.
        let is_full = self.polls.len() >= room.most + room.late;
        let turns = if is_full { 0 } else { (self.polls.len() / room.most.max(1)) as u64 };
        !self.queue.is_empty() && now.saturating_sub(self.moved_at) >= STALLED_NS.max(turns * LASTS_NS)
    }

    /// Calls a lane, if one is due.
    fn call(&mut self, room: Room, now: u64) -> Option<Call> {
        self.is_lane_due(room, now).then(|| {
            self.coming += 1;
            self.idle.pop().map_or(Call::New, Call::Idle)
        })
    }

    fn push(&mut self, unit: Unit, goes_first: bool, now: u64) {
        if self.queue.is_empty() {
            self.moved_at = now;
        }
        if goes_first {
            self.queue.push_front(unit);
        } else {
            self.queue.push_back(unit);
        }
    }

    /// For a lane that is counted nowhere.
    fn next(&mut self, lane: &'static Machine, room: Room, now: u64) -> Next {
        if self.closed {
            return Next::End;
        }
        if self.is_lane_due(room, now) {
            if let Some(unit) = self.queue.pop_front() {
                self.polls.push((lane, now));
                self.moved_at = now;
                return Next::Poll(unit);
            }
        }
        self.idle.push(lane);
        Next::Rest
    }
}

impl Lanes {
    pub(crate) const fn new() -> Self {
        Lanes { state: Mutex::new(rank::LEAF, State::new()), polls: SharedCounter::new() }
    }

    /// Fresh for a runtime.
    pub(crate) fn open(&self) {
        self.polls.reset();
        let mut state = self.state.lock();
        debug_assert!(state.queue.is_empty() && state.polls.is_empty() && state.coming == 0 && state.idle.is_empty());
        state.closed = false;
    }

    /// Whether a lane that rests has been called; if so it comes.
    pub(super) fn is_called(&self, lane: &'static Machine) -> bool {
        !self.state.lock().idle.iter().any(|idle| std::ptr::eq(*idle, lane))
    }

    /// A lane that rests ends, unless it has been called.
    pub(super) fn ends(&self, lane: &'static Machine) -> bool {
        let mut state = self.state.lock();
        let at = state.idle.iter().position(|idle| std::ptr::eq(*idle, lane));
        at.map(|at| state.idle.swap_remove(at)).is_some()
    }
}

impl Sched {
    /// How many lanes may poll at once. Not under their lock, which is a leaf.
    fn room_for_lanes(&self) -> Room {
        let may_be_stuck = self.max_stuck().saturating_sub(self.beside.threads());
        Room { most: self.idle.procs() as usize, late: may_be_stuck.min(LATE_MOST) }
    }

    /// Whether the task is a burner, or of a kind that computes for long where it was spawned, and not known to block.
    pub(super) fn burns(&self, unit: &Unit) -> bool {
        let (blockers, task) = (&self.blockers, task::id(unit));
        let is_of_place = || Kind::of(unit).is_some_and(|kind| blockers.burn_as(kind));
        blockers.burns(task) || is_of_place() && !blockers.blocks(task)
    }

    /// A poll of `task` took long: the next one is measured.
    pub(super) fn suspects_burner(&self, task: Id, now: u64) {
        if self.max_stuck() > 0 {
            self.blockers.suspect(task, now);
        }
    }

    /// Others wait for `task`, which computes for long: it is a burner from here on, unless there are too many.
    pub(super) fn knows_burner(&'static self, task: Id, now: u64) {
        let most = BURNERS_MOST.max(2 * self.idle.procs() as usize);
        if !self.blockers.learn_burner(task, now, most) {
            self.end_burners(Why::Crowded);
        }
    }

    /// Leaves a burner to a lane. It comes back if the runtime closes, or it is like the others by now.
    pub(super) fn leave_to_lane(&'static self, unit: Unit) -> Result<(), Unit> {
        let (now, room) = (clock::now(), self.room_for_lanes());
        let is_tried = Kind::of(&unit).is_some_and(|kind| self.blockers.tries(kind, now));
        let mut state = self.lanes.state.lock();
        if state.closed || !self.burns(&unit) {
            return Err(unit);
        }
        // Counted before it is there to be taken, and until it is queued elsewhere or its husk is back.
        self.beside.burners_come(1);
        state.push(unit, is_tried, now);
        let call = state.call(room, now);
        drop(state);
        // Perhaps it waits for long, and this machine is the last one awake.
        if !matches!(call, Some(Call::Idle(_))) {
            self.idle.asks_for_a_look(self);
        }
        self.answer_lane(call);
        Ok(())
    }

    /// Brings the lane that was called, if one was.
    fn answer_lane(&'static self, call: Option<Call>) {
        match call {
            Some(Call::Idle(lane)) => _ = lane.parker.unpark(),
            Some(Call::New) if !self.start_lane() => {
                self.lanes.state.lock().coming -= 1;
                self.end_burners(Why::NoThread);
            }
            Some(Call::New) | None => {}
        }
    }

    /// Machines poll what waits for a lane, and what follows.
    fn end_burners(&'static self, why: Why) {
        self.blockers.end_burners(clock::now(), why);
        self.sift_lanes();
    }

    /// What waits for a lane and is like the others by now goes to the global queue.
    pub(super) fn sift_lanes(&'static self) {
        let mut state = self.lanes.state.lock();
        let (stay, leave) = std::mem::take(&mut state.queue).into_iter().partition(|unit| self.burns(unit));
        state.queue = stay;
        drop(state);
        self.leave_lanes(leave);
    }

    /// What waited here goes to the global queue.
    fn leave_lanes(&'static self, units: VecDeque<Unit>) {
        let tasks = self.inject.push_batch(units.into_iter());
        if tasks > 0 {
            self.queued_globally();
            self.beside.burners_go(tasks);
            self.agent_left();
            self.clock_may_advance();
        }
    }

    /// The runtime closes: lanes begin no further poll, and end.
    pub(crate) fn close_lanes(&'static self) {
        let mut state = self.lanes.state.lock();
        state.closed = true;
        let (idle, queue) = (std::mem::take(&mut state.idle), std::mem::take(&mut state.queue));
        state.coming += idle.len();
        drop(state);
        for lane in idle {
            lane.parker.unpark();
        }
        self.leave_lanes(queue);
    }

    /// A lane has come. What it does now.
    pub(super) fn lane_came(&'static self, lane: &'static Machine) -> Next {
        let room = self.room_for_lanes();
        let mut state = self.lanes.state.lock();
        state.coming -= 1;
        let next = state.next(lane, room, clock::now());
        let waits = !state.queue.is_empty();
        drop(state);
        // There may be fewer processors than when it was called.
        if waits {
            self.idle.asks_for_a_look(self);
        }
        next
    }

    /// What became ready on a lane's husk, in order: burners stay here.
    pub(super) fn keep_burners(&'static self, ready: Vec<Unit>) {
        let now = clock::now();
        let mut state = self.lanes.state.lock();
        let (burners, others): (Vec<_>, Vec<_>) = ready.into_iter().partition(|unit| !state.closed && self.burns(unit));
        self.beside.burners_come(burners.len());
        burners.into_iter().for_each(|unit| state.push(unit, false, now));
        drop(state);
        self.inject.push_batch(others.into_iter());
    }

    /// The poll of a lane is over, and its husk is back. What it does next.
    pub(super) fn lane_polled(&'static self, lane: &'static Machine) -> Next {
        let room = self.room_for_lanes();
        let mut state = self.lanes.state.lock();
        state.polls.retain(|(polling, _)| !std::ptr::eq(*polling, lane));
        let next = state.next(lane, room, clock::now());
        let waits = !state.queue.is_empty();
        drop(state);
        // Also what a spent budget has sent there, for whose sake nobody was woken.
        if !self.inject.is_empty() {
            self.queued_globally();
        }
        submit_fence();
        self.attend_netpoller();
        self.agent_left();
        self.clock_may_advance();
        if waits {
            self.idle.asks_for_a_look(self);
        }
        next
    }

    /// `sysmon` looks after those that wait here. Tells whether any do, or a poll may come to last for so long that it
    /// is to be told of.
    pub(crate) fn look_after_lanes(&'static self, now: u64) -> bool {
        let room = self.room_for_lanes();
        let mut state = self.lanes.state.lock();
        let waits = !state.queue.is_empty();
        let stalled = state.is_stalled(room, now);
        let call = if stalled { None } else { state.call(room, now) };
        let polls = state.polling(now) > 0;
        drop(state);
        self.answer_lane(call);
        if stalled {
            self.end_burners(Why::Stalled);
        }
        waits || polls
    }
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use std::ptr::NonNull;

    use super::*;

    const ONE: Room = Room { most: 1, late: LATE_MOST };
    const TWO: Room = Room { most: 2, ..ONE };

    fn lane() -> &'static Machine {
        Box::leak(Box::new(Machine::new()))
    }

    fn state(waiting: usize) -> State {
        let mut state = State { closed: false, ..State::new() };
        (0..waiting).for_each(|_| state.push(Unit::new(NonNull::dangling()), false, 0));
        state
    }

    fn polls(next: &Next) -> bool {
        matches!(next, Next::Poll(_))
    }

    #[test]
    fn r03_as_many_lanes_poll_as_there_are_processors() {
        let mut state = state(4);
        assert!(matches!(state.call(TWO, 0), Some(Call::New)) && matches!(state.call(TWO, 0), Some(Call::New)));
        assert!(state.call(TWO, 0).is_none());
        let lanes = [lane(), lane(), lane()];
        for lane in &lanes[..2] {
            state.coming -= 1;
            assert!(polls(&state.next(lane, TWO, 1)));
        }
        assert!(state.call(TWO, 1).is_none() && !polls(&state.next(lanes[2], TWO, 1)));
        // One of them has been in its poll for long: the lane that rests is called.
        let late = 1 + LASTS_NS;
        state.polls[0].1 = 1;
        state.polls[1].1 = late;
        assert!(matches!(state.call(TWO, late), Some(Call::Idle(lane)) if std::ptr::eq(lane, lanes[2])));
        state.coming -= 1;
        assert!(polls(&state.next(lanes[2], TWO, late)) && state.queue.len() == 1);
        assert!(state.call(TWO, late).is_none());
        // Whoever is done goes on with what waits, if another one may poll.
        state.polls.pop();
        assert!(polls(&state.next(lanes[2], TWO, late)));
        assert!(!polls(&state.next(lane(), TWO, late)), "nothing waits");
    }

    #[test]
    fn r14_when_the_runtime_closes_a_lane_ends() {
        let mut state = state(1);
        state.closed = true;
        assert!(matches!(state.next(lane(), ONE, 0), Next::End));
    }

    #[test]
    fn r17_polls_that_last_on_lanes_are_no_more_than_threads_may_be_stuck() {
        let mut state = state(4);
        let room = Room { late: 0, ..ONE };
        assert!(polls(&state.next(lane(), room, 0)));
        assert!(state.call(room, LASTS_NS).is_none());
        assert!(state.call(Room { late: 1, ..ONE }, LASTS_NS).is_some());
    }

    /// Each has to wait for the CPU while the others compute.
    #[test]
    fn r03_lanes_that_poll_give_others_more_time_to_come() {
        let mut state = state(1);
        assert!(!state.is_stalled(ONE, STALLED_NS - 1) && state.is_stalled(ONE, STALLED_NS));
        state.polls = vec![(lane(), 0); 8];
        assert!(!state.is_stalled(ONE, 8 * LASTS_NS - 1) && state.is_stalled(ONE, 8 * LASTS_NS));
        assert!(state.is_stalled(TWO, 4 * LASTS_NS));
        assert!(state.is_stalled(Room { late: 7, ..ONE }, STALLED_NS), "none will come");
        state.queue.clear();
        assert!(!state.is_stalled(ONE, u64::MAX), "nothing waits");
    }

    #[test]
    fn r17_polls_that_do_not_end_take_no_more_lanes_than_there_may_be() {
        let mut state = state(LATE_MOST + 3);
        for late in 0..LATE_MOST as u64 + 1 {
            assert!(polls(&state.next(lane(), ONE, late * LASTS_NS)), "{late}");
        }
        assert!(!polls(&state.next(lane(), ONE, u64::MAX)));
    }
}
