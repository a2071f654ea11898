//! `GMP_SCHEDTRACE=ms`: Go's schedtrace line on standard error, with Go's field names. `sysmon` prints it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::clock;
use crate::metrics::Metrics;
use crate::sched::Sched;
use crate::sys::try_print_error;

/// When the next line is due.
pub(crate) struct Schedtrace {
    /// In nanoseconds; none if nobody asked for it.
    every: Option<u64>,
    start: u64,
    next: u64,
}

impl Schedtrace {
    pub(crate) fn new(sched: &Sched) -> Self {
        let every = sched.config.lock().schedtrace_ms.map(|ms| ms.max(1).saturating_mul(1_000_000));
        let start = clock::now();
        Schedtrace { every, start, next: start.saturating_add(every.unwrap_or(0)) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.every.is_some()
    }

    /// How long `sysmon` may sleep at `now` if it wants to sleep for `look`.
    pub(crate) fn cap(&self, look: Duration, now: u64) -> Duration {
        match self.every {
            Some(_) => look.min(Duration::from_nanos(self.next.saturating_sub(now))),
            None => look,
        }
    }

    pub(crate) fn print_if_due(&mut self, sched: &Sched, now: u64) {
        let Some(every) = self.every.filter(|_| now >= self.next) else {
            return;
        };
        self.next = now.saturating_add(every);
        // A standard error that is closed must not end `sysmon`, as `eprintln!` would; nor one that nobody reads stop
        // it.
        let _ = try_print_error(&line((now - self.start) / 1_000_000, &sched.metrics()));
    }
}

/// The line, as Go prints it. Local lengths exclude the run-next slot.
fn line(ms: u64, m: &Metrics) -> String {
    let mut line = format!(
        "SCHED {ms}ms: gomaxprocs={} idleprocs={} threads={} spinningthreads={} needspinning={} idlethreads={} \
         runqueue={} [",
        m.procs,
        m.idle_procs,
        m.threads,
        m.spinning_threads,
        u8::from(m.need_spinning),
        m.idle_threads,
        m.global_queue
    );
    for queued in &m.local_queues {
        let _ = write!(line, " {queued}");
    }
    line.push_str(" ] schedticks=[");
    for tick in &m.schedticks {
        let _ = write!(line, " {tick}");
    }
    line.push_str(" ]");
    line
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::metrics::Metrics;

    #[test]
    fn r25_schedtrace_has_the_fields_of_go() {
        let m = Metrics {
            procs: 2,
            threads: 4,
            idle_threads: 1,
            need_spinning: true,
            local_queues: vec![3, 1],
            schedticks: vec![2, 8],
            ..Metrics::default()
        };
        assert_eq!(
            line(52, &m),
            "SCHED 52ms: gomaxprocs=2 idleprocs=0 threads=4 spinningthreads=0 needspinning=1 idlethreads=1 runqueue=0 \
             [ 3 1 ] schedticks=[ 2 8 ]"
        );
    }
}
