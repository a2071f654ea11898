//! What a runtime counts, in one snapshot. `runtime` gives it to users, the schedtrace line shows some of it.

use super::Sched;
use crate::metrics::Metrics;
use crate::task::arena::SharedArena;
use crate::task::registry::Shard;

impl Sched {
    pub(crate) fn metrics(&self) -> Metrics {
        let counts = self.idle.counts();
        let mut m = Metrics {
            procs: self.idle.procs() as usize,
            idle_procs: counts.idle() as usize,
            threads: self.threads.machines(),
            idle_threads: self.idle.idle_machines(),
            spinning_threads: counts.spinning() as usize,
            need_spinning: self.idle.need_spinning(),
            live_tasks: self.live_tasks(),
            stuck_threads: self.beside.threads(),
            leaked_tasks: self.leaked_tasks().len(),
            thread_failures: self.threads.failures() as u64,
            thread_refusals: self.threads.refusals(),
            global_queue: self.inject.len(),
            io_waiters: self.netpoll.waiters(),
            spawned: self.spawned_outside.get() + self.spawned_in_shared_arenas(),
            wakes: self.wakes_outside.get(),
            netpoll_breaks: self.netpoll_breaks.get(),
            ..Metrics::default()
        };
        self.sysmon.count_into(&mut m);
        m.blocker_polls = self.blockers.ahead.get();
        m.lane_polls = self.lanes.polls.get();
        self.blocking.count_into(&mut m);
        self.pinned.count_into(&mut m);
        for (index, slot) in self.slots().enumerate() {
            m.timers += slot.timers.len();
            let objects = slot.objects();
            if index < m.procs {
                m.local_queues.push(slot.processor().queue.len_seen());
                m.schedticks.push(objects.iter().map(|p| p.schedtick()).sum());
            }
            for c in objects.iter().map(|p| p.counters()) {
                m.found.iter_mut().zip(&c.found).for_each(|(sum, n)| *sum += n.get());
                m.spawned += c.spawned.get();
                m.polled += c.polled.get();
                m.overflowed += c.overflowed.get();
                m.stolen += c.stolen.get();
                m.wakes += c.wakes.get();
                m.spawn_wakes += c.spawn_wakes.get();
                m.looks += c.looks.get();
                m.netpoll_looks += c.netpoll_looks.get();
                m.parks += c.parks.get();
                m.spins += c.spins.get();
                m.timers_fired += c.timers_fired.get();
                m.blocking_brief += c.brief_closures.get();
            }
        }
        m
    }

    /// Live tasks, blocking closures among them. Exact for who has kept all threads of the runtime from spawning, and
    /// [`Sched::close_outside`] others.
    ///
    /// A task in an arena is counted before it is made, and as ended before its state says so; who waits for that in a
    /// runtime that closes is unparked after it ([`Sched::has_ended_task`]).
    pub(crate) fn live_tasks(&self) -> usize {
        // First what has ended: else a task could be seen to end that was not seen to begin.
        let ended_here: u64 = self.objects().map(|p| p.counters().arena_ended.get()).sum();
        let ended = ended_here + self.arena_ended_outside.get();
        let spawned_here: u64 = self.objects().map(|p| p.counters().arena_spawned.get()).sum();
        let spawned = spawned_here + self.spawned_in_shared_arenas();
        spawned.saturating_sub(ended) as usize + self.shards().map(Shard::live).sum::<usize>()
    }

    fn spawned_in_shared_arenas(&self) -> u64 {
        self.arenas_outside.iter().map(SharedArena::spawned).sum()
    }
}
