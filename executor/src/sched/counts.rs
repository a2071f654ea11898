//! What a runtime counts, in one snapshot. `runtime` gives it to users, the schedtrace line shows some of it.

use super::Sched;
use crate::metrics::Metrics;
use crate::sys::atomic::Ordering::Relaxed;
use crate::task::registry::Shard;

impl Sched {
    pub(crate) fn metrics(&self) -> Metrics {
        let counts = self.idle.counts();
        let mut m = Metrics {
            procs: self.idle.procs() as usize,
            idle_procs: counts.idle() as usize,
            threads: self.threads.count(),
            idle_threads: self.idle.idle_machines(),
            spinning_threads: counts.spinning() as usize,
            need_spinning: self.idle.need_spinning(),
            live_tasks: self.shards().map(Shard::live).sum(),
            stuck_threads: self.stuck.load(Relaxed),
            leaked_tasks: self.leaked_tasks().len(),
            thread_failures: self.threads.failures() as u64,
            thread_refusals: self.threads.refusals(),
            global_queue: self.inject.len(),
            io_waiters: self.netpoll.waiters(),
            spawned: self.spawned_outside.get(),
            wakes: self.wakes_outside.get(),
            netpoll_breaks: self.netpoll_breaks.get(),
            ..Metrics::default()
        };
        self.sysmon.count_into(&mut m);
        self.blocking.count_into(&mut m);
        self.pinned.count_into(&mut m);
        let (mut arena_spawned, mut arena_ended) = (0, self.arena_ended_outside.get());
        for (index, slot) in self.slots().enumerate() {
            m.timers += slot.timers.len();
            let objects = slot.objects();
            if index < m.procs {
                m.local_queues.push(slot.processor().queue.len_seen());
                m.schedticks.push(objects.iter().map(|p| u64::from(p.schedtick())).sum());
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
                arena_spawned += c.arena_spawned.get();
                arena_ended += c.arena_ended.get();
            }
        }
        // One may have ended that was not spawned when its processor was looked at.
        m.live_tasks += arena_spawned.saturating_sub(arena_ended) as usize;
        m
    }
}
