//! Blocking closures that are known to be brief. To bring one to a thread of the pool takes longer than it does, so it
//! runs as a task does: queued on the processor of who spawns it, and in its poll the thread is in a blocking call,
//! from which `sysmon` takes the processor if that lasts (Go: a goroutine in a system call).
//!
//! 1. What is known of a kind of closure, which is its type and where it is spawned, is a hint. It is read and written
//!    without order, and a lesson that is lost is learnt the next time.
//! 2. A kind is brief when more of its closures were brief than [`WEIGHT`] times those that were not. It is none any
//!    more when one blocks and loses its processor, or several last, of those that lose it and those that are measured:
//!    then more of them have to be brief, and twice as many each time. One that lasts is forgiven: its thread may have
//!    been without a CPU.
//! 3. A closure that is queued on a processor when its kind is not brief any more does not start there: it goes to the
//!    pool, and is the same task.
//! 4. None runs on a processor that nobody would take from it, nor where that would not be enough for what the closure,
//!    or the poll that spawns it, may wait for: see `Config::briefs_beside` and [`Closure::may_run_on`]. `sysmon` looks
//!    more often while some run.

use std::any::TypeId;
use std::hash::{Hash, Hasher};
use std::num::NonZero;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Pool;
use crate::clock;
use crate::context;
use crate::processor::Processor;
use crate::runtime::in_place;
use crate::sys::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A closure that takes less, in nanoseconds, is brief: a thread that is woken for it takes longer to come.
const BRIEF_NS: u64 = 20_000;
/// The same where there are CPUs that no processor is for: the thread has one of these for itself.
const BRIEF_BESIDE_NS: u64 = 5_000;
/// So many closures of a kind have to be brief at first.
const FIRST: u16 = 16;
/// One that is not weighs as much as so many that are.
const WEIGHT: u16 = 8;
/// Twice as many as at first each time that a kind has ceased to be brief, up to the last of these levels.
const LEVEL_MAX: u8 = 8;
/// One of so many on a processor is measured.
const MEASURED: u32 = 8;
/// A kind ceases to be brief when the strain on it is more than this. One that lasts is so much, and each that does not
/// takes 1 away.
const STRAIN_MAX: u8 = 32;
const STRAIN: u8 = 16;
/// So many that were brief take a level away.
const MAKE_UP: u8 = 64;
/// So many kinds are known.
const KINDS: usize = 256;

/// What is known of the kinds of closures of a runtime.
pub(super) struct Briefs {
    /// There may be brief ones.
    on: AtomicBool,
    /// Beside so many stuck threads at most.
    beside: AtomicUsize,
    /// CPUs that this process may use; 0 before anybody asked.
    cpus: AtomicU32,
    /// Each at the place that its key names; 0 is none.
    kinds: [AtomicU64; KINDS],
}

/// What is known of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Of two kinds that share a place only one is known. 24 bits.
    tag: u32,
    /// So many more have to be brief.
    left: u16,
    level: u8,
    strain: u8,
    /// Of those that take a level away.
    good: u8,
}

impl Known {
    fn new(tag: u32) -> Known {
        Known { tag, left: FIRST, level: 0, strain: 0, good: 0 }
    }

    fn from_bits(bits: u64) -> Known {
        let [good, strain, level, ..] = bits.to_le_bytes();
        Known { tag: (bits >> 40) as u32, left: (bits >> 24) as u16, level, strain, good }
    }

    fn to_bits(self) -> u64 {
        let Known { tag, left, level, strain, good } = self;
        u64::from(tag) << 40 | u64::from(left) << 24 | u64::from(u32::from_le_bytes([good, strain, level, 0]))
    }

    /// One has run on a thread of the pool.
    fn ran_in_pool(&mut self, brief: bool) {
        self.left = if brief { self.left.saturating_sub(1) } else { (self.left + WEIGHT).min(FIRST << LEVEL_MAX) };
    }

    /// One has run on a processor, and was measured.
    fn ran_here(&mut self, brief: bool) {
        if self.left > 0 {
            // It has ceased to be brief since.
            return;
        }
        if !brief {
            self.strain += STRAIN;
            if self.strain > STRAIN_MAX {
                self.cease();
            }
            return;
        }
        self.strain = self.strain.saturating_sub(1);
        self.good += 1;
        if self.good == MAKE_UP {
            self.good = 0;
            self.level = self.level.saturating_sub(1);
        }
    }

    /// One has lost its processor.
    fn lost_processor(&mut self, is_blocked: bool) {
        if is_blocked {
            self.cease();
        } else {
            self.ran_here(false);
        }
    }

    /// The kind is not brief any more, if it was.
    fn cease(&mut self) {
        if self.left > 0 {
            return;
        }
        let level = (self.level + 1).min(LEVEL_MAX);
        *self = Known { left: FIRST << level, level, ..Known::new(self.tag) };
    }
}

impl Briefs {
    pub(super) const fn new() -> Self {
        Briefs {
            on: AtomicBool::new(false),
            beside: AtomicUsize::new(0),
            cpus: AtomicU32::new(0),
            kinds: [const { AtomicU64::new(0) }; KINDS],
        }
    }

    /// Fresh for a runtime. `None`: it has no brief ones.
    pub(super) fn open(&self, beside: Option<usize>) {
        self.on.store(beside.is_some(), Relaxed);
        self.beside.store(beside.unwrap_or(0), Relaxed);
        self.cpus.store(0, Relaxed);
        self.kinds.iter().for_each(|kind| kind.store(0, Relaxed));
    }

    fn place(&self, kind: Kind) -> &AtomicU64 {
        &self.kinds[kind.0 as usize % KINDS]
    }

    fn is_brief(&self, kind: Kind) -> bool {
        let bits = self.place(kind).load(Relaxed);
        let known = Known::from_bits(bits);
        known.tag == kind.tag() && known.left == 0
    }

    /// Whether a closure that took so long, in nanoseconds, is brief beside so many processors.
    fn is_so(&self, ns: u64, procs: u32) -> bool {
        if !(BRIEF_BESIDE_NS..BRIEF_NS).contains(&ns) {
            return ns < BRIEF_NS;
        }
        if self.cpus.load(Relaxed) == 0 {
            let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
            self.cpus.store(cpus as u32, Relaxed);
        }
        procs >= self.cpus.load(Relaxed)
    }

    fn learn(&self, kind: Kind, lesson: impl FnOnce(&mut Known)) {
        let place = self.place(kind);
        let before = Known::from_bits(place.load(Relaxed));
        let mut known = if before.tag == kind.tag() { before } else { Known::new(kind.tag()) };
        lesson(&mut known);
        if known != before {
            place.store(known.to_bits(), Relaxed);
        }
    }
}

/// Names a type of closure and the place where it is spawned.
#[derive(Debug, Clone, Copy)]
struct Kind(u64);

impl Kind {
    fn of<F: 'static>(location: &'static Location<'static>) -> Kind {
        let mut bits = Bits(std::ptr::from_ref(location).addr() as u64);
        TypeId::of::<F>().hash(&mut bits);
        // Fibonacci's hash.
        let hash = bits.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Kind((hash ^ hash >> 32) | 1 << 40)
    }

    /// Not 0, which is that of none.
    fn tag(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

/// What a hash writes, as it is: the id of a type is a hash itself.
struct Bits(u64);

impl Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = self.0.rotate_left(32) ^ bits;
    }
}

/// The future of `spawn_blocking`'s task. Its first poll runs the closure, or sends it to the pool.
pub(crate) struct Closure<F> {
    f: Option<F>,
    kind: Kind,
}

// The closure is never pinned.
impl<F> Unpin for Closure<F> {}

impl<F: 'static> Closure<F> {
    pub(crate) fn new(location: &'static Location<'static>, f: F) -> Self {
        Closure { f: Some(f), kind: Kind::of::<F>(location) }
    }

    /// Whether it is to be queued on the processor `p`, which this thread holds.
    pub(crate) fn is_brief_on(&self, p: &'static Processor) -> bool {
        if !self.may_run_on(p) {
            return false;
        }
        let (sched, briefs) = (p.sched, &p.sched.blocking.briefs);
        // Where it blocks another machine is needed, and may be refused. A poll that waits for it has to be rescued,
        // and nobody is at the limit of stuck threads. A waker that waits for it is in a batch, in which the processor
        // cannot be given up.
        let are_threads_had = sched.threads.failures() == 0 && sched.threads.refusals() == 0;
        let is_rescued = sched.sysmon.is_started() && sched.beside.threads() <= briefs.beside.load(Relaxed);
        are_threads_had && is_rescued && !p.is_batching() && !p.queue.next.is_condemned()
    }

    /// Whether it is brief, and time does not stand: time waits for the closure, which may wait for a timer, and on a
    /// processor that is not seen.
    fn may_run_on(&self, p: &'static Processor) -> bool {
        let briefs = &p.sched.blocking.briefs;
        briefs.is_brief(self.kind) && briefs.on.load(Relaxed) && !p.sched.clock.is_paused()
    }
}

impl<F: FnOnce() -> R + 'static, R> Future for Closure<F> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let kind = self.kind;
        let here = context::processor();
        if here.is_some_and(|p| !self.may_run_on(p)) {
            // Who polls sees that it is a closure, and queues it for the pool.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let f = self.f.take().expect("a closure was called twice");
        Poll::Ready(match here {
            Some(p) => run_here(p, kind, f),
            None => run_in_pool(kind, f),
        })
    }
}

impl Pool {
    /// `sysmon` has taken the processor `p` from its poll. If that is of a closure that blocks, its kind is not brief
    /// any more.
    pub(crate) fn lost_processor(&self, p: &Processor, is_blocked: bool) {
        if let Some(kind) = p.polled_closure() {
            self.briefs.learn(Kind(kind), |known| known.lost_processor(is_blocked));
        }
    }
}

/// Runs a closure on the processor `p`, which this thread holds.
fn run_here<R>(p: &'static Processor, kind: Kind, f: impl FnOnce() -> R) -> R {
    let sched = p.sched;
    p.counters().brief_closures.add(1);
    // Not in turn: those of a kind may come in step with that.
    let begun = (p.random() % MEASURED == 0).then(clock::now);
    p.polls_closure(kind.0);
    let (output, was_kept) = in_place(p, f);
    if let Some(begun) = begun.filter(|_| was_kept) {
        let briefs = &sched.blocking.briefs;
        let brief = briefs.is_so(clock::now() - begun, sched.idle.procs());
        briefs.learn(kind, |known| known.ran_here(brief));
    }
    output
}

/// Runs a closure on a thread of the pool.
fn run_in_pool<R>(kind: Kind, f: impl FnOnce() -> R) -> R {
    let sched = context::runtime().map(|runtime| runtime.sched);
    let Some(sched) = sched.filter(|sched| sched.blocking.briefs.on.load(Relaxed)) else { return f() };
    let begun = clock::now();
    let output = f();
    let briefs = &sched.blocking.briefs;
    let brief = briefs.is_so(clock::now() - begun, sched.idle.procs());
    briefs.learn(kind, |known| known.ran_in_pool(brief));
    output
}

#[cfg(all(test, not(gmp_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::runtime::Builder;
    use crate::sched::threads;

    const KIND: Kind = Kind(1 << 40 | 7);

    fn briefs() -> Briefs {
        let briefs = Briefs::new();
        briefs.open(Some(0));
        briefs
    }

    /// How many closures in the pool it takes until the kind is brief.
    fn until_brief(briefs: &Briefs, mut ran: impl FnMut(u32) -> bool) -> u32 {
        let mut n = 0;
        while !briefs.is_brief(KIND) {
            briefs.learn(KIND, |known| known.ran_in_pool(ran(n)));
            n += 1;
            assert!(n < 1_000_000, "it never becomes brief");
        }
        n
    }

    fn ran_here(briefs: &Briefs, times: u32, brief: bool) {
        (0..times).for_each(|_| briefs.learn(KIND, |known| known.ran_here(brief)));
    }

    #[test]
    fn r16_a_kind_is_brief_if_most_of_it_is() {
        let briefs = briefs();
        assert!(!briefs.is_brief(KIND), "nothing is known");
        assert_eq!(until_brief(&briefs, |_| true), u32::from(FIRST));
        let other = Kind(KIND.0 + (1 << 40));
        assert!(!briefs.is_brief(other), "another kind of the same place");
        // That one takes the place, and the first one is as new.
        briefs.learn(other, |known| known.ran_in_pool(true));
        assert!(!briefs.is_brief(KIND));
        assert_eq!(until_brief(&briefs, |n| n > 0), u32::from(FIRST + WEIGHT) + 1);
        briefs.open(Some(0));
        let share = u32::from(WEIGHT) + 1;
        for _ in 0..1000 * share {
            briefs.learn(KIND, |known| known.ran_in_pool(false));
        }
        assert!(until_brief(&briefs, |_| true) <= u32::from(FIRST) << LEVEL_MAX, "it never forgets");
    }

    #[test]
    fn r16_a_kind_that_has_ceased_to_be_brief_is_tried_more_and_more_rarely() {
        let briefs = briefs();
        until_brief(&briefs, |_| true);
        let again = || {
            briefs.learn(KIND, |known| known.lost_processor(true));
            // Others of the kind were on other processors.
            briefs.learn(KIND, |known| known.lost_processor(true));
            until_brief(&briefs, |_| true)
        };
        let needs: Vec<u32> = (0..10).map(|_| again()).collect();
        assert_eq!(needs, [32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
        ran_here(&briefs, u32::from(MAKE_UP) - 1, true);
        assert_eq!(again(), 4096);
        ran_here(&briefs, 2 * u32::from(MAKE_UP), true);
        assert_eq!(again(), 2048);
    }

    #[test]
    fn r16_one_that_lasts_on_a_processor_is_forgiven_and_three_are_not() {
        let briefs = briefs();
        until_brief(&briefs, |_| true);
        for _ in 0..100 {
            ran_here(&briefs, 2, false);
            assert!(briefs.is_brief(KIND));
            ran_here(&briefs, 2 * u32::from(STRAIN), true);
        }
        ran_here(&briefs, 2, false);
        ran_here(&briefs, u32::from(STRAIN), true);
        ran_here(&briefs, 1, false);
        assert!(briefs.is_brief(KIND));
        ran_here(&briefs, 1, false);
        assert!(!briefs.is_brief(KIND));
        // So it is with one whose thread had no CPU, or computed, when the processor was taken.
        until_brief(&briefs, |_| true);
        (0..2).for_each(|_| briefs.learn(KIND, |known| known.lost_processor(false)));
        assert!(briefs.is_brief(KIND));
        briefs.learn(KIND, |known| known.lost_processor(false));
        assert!(!briefs.is_brief(KIND));
    }

    #[test]
    fn r16_what_is_brief_depends_on_whether_a_thread_has_a_cpu_to_itself() {
        let briefs = briefs();
        briefs.cpus.store(4, Relaxed);
        let so = |ns, procs| briefs.is_so(ns, procs);
        assert!(so(BRIEF_BESIDE_NS - 1, 1) && !so(BRIEF_BESIDE_NS, 3) && so(BRIEF_BESIDE_NS, 4));
        assert!(so(BRIEF_NS - 1, 4) && !so(BRIEF_NS, 8));
    }

    /// What a closure waits for may need another thread, which may be refused.
    #[test]
    fn r16_none_runs_on_a_processor_after_a_thread_was_refused() {
        let runtime = Builder::new().procs(1).build().unwrap();
        let checks = runtime.spawn(async {
            let closure = Closure::new(Location::caller(), || ());
            let is_brief = || context::processor().is_some_and(|p| closure.is_brief_on(p));
            let sched = context::runtime().unwrap().sched;
            (0..FIRST).for_each(|_| sched.blocking.briefs.learn(closure.kind, |known| known.ran_in_pool(true)));
            // The watcher is there after the first poll.
            while !is_brief() {
                crate::task::yield_now().await;
            }
            let taken = std::iter::from_fn(|| sched.threads.take(threads::Kind::Pinned, 1).then_some(())).count();
            (0..taken).for_each(|_| sched.threads.give(threads::Kind::Pinned));
            assert!(sched.threads.refusals() > 0);
            assert!(!is_brief());
        });
        runtime.block_on(checks).unwrap();
    }

    /// Between the end of its poll on a processor and the pool's lock it is in no queue: who aborts it then finds it
    /// nowhere, and all threads of the pool are busy.
    #[test]
    fn r15_an_abort_on_the_way_to_the_pool_does_not_wait_for_a_thread() {
        let runtime = Builder::new().procs(1).max_blocking(1).build().unwrap();
        let sched = runtime.spawn_blocking(|| context::runtime().unwrap().sched);
        let sched = runtime.block_on(sched).unwrap();
        let (open, gate) = channel::<()>();
        let (begin, begun) = channel();
        let busy = runtime.spawn_blocking(move || {
            begin.send(()).unwrap();
            gate.recv().unwrap_err();
        });
        begun.recv().unwrap();
        let held = Arc::new(());
        let of_closure = held.clone();
        let closure = runtime.spawn_blocking(move || assert!(Arc::strong_count(&of_closure) == 0, "it ran"));
        let unit = sched.blocking.pop().unwrap();
        closure.abort();
        assert_eq!(Arc::strong_count(&held), 2, "its destructor ran in `abort`");
        sched.push_blocking(unit);
        assert_eq!(runtime.metrics().blocking_queue, 0, "it waits for a thread of the pool");
        assert!(runtime.block_on(closure).unwrap_err().is_cancelled());
        assert_eq!(Arc::strong_count(&held), 1);
        // One that nobody has aborted waits.
        let closure = runtime.spawn_blocking(|| 7);
        sched.push_blocking(sched.blocking.pop().unwrap());
        assert_eq!(runtime.metrics().blocking_queue, 1);
        drop(open);
        runtime.block_on(busy).unwrap();
        assert_eq!(runtime.block_on(closure).unwrap(), 7);
    }
}
