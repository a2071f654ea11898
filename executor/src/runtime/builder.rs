//! How a runtime is configured.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Runtime, take_slot};
use crate::cpus::Cpus;
use crate::netpoll::Backend;
use crate::sched::stuck::StuckPoll;
use crate::sched::{Config, PROCS_MAX};

/// Threads that may be stuck in a poll, unless the user says otherwise.
const MAX_STUCK: usize = 512;
/// The largest stack that `build` takes, in bytes: a terabyte, or on 32 bits a quarter of all addresses. No thread gets
/// a larger one, and a size in the wrong unit, or a product that wrapped, would be a runtime without threads.
const STACK_MAX: usize = 1 << if usize::BITS == 64 { 40 } else { 30 };

/// Builds a runtime.
///
/// | what | default |
/// |---|---|
/// | `procs` | `GMP_PROCS`, else the CPUs that this process may use; see [`Builder::procs`] |
/// | `thread_name` | `gmp`: threads are `gmp-0`, `gmp-1`, …, `gmp-lane-2`, …, `gmp-block-0`, `gmp-pin-0`, … and `gmp-sysmon` |
/// | `thread_stack_size` | std's, 2 MiB |
/// | `thread_keep_alive` | 10 s |
/// | `max_stuck`, `rescue` | 512 |
/// | `max_blocking` | 512 blocking closures at once |
/// | `max_threads` | 10 000 |
/// | `detect_deadlocks`, `external_wakers` | off |
/// | `start_paused` | off: the clock goes |
/// | `busy_poll` | 50 µs |
///
/// `GMP_SCHEDTRACE=ms` in the environment prints Go's schedtrace line every so many milliseconds.
///
/// # Examples
///
/// ```
/// let runtime = gmp::runtime::Builder::new().procs(4).thread_name("web").build()?;
/// runtime.block_on(async {});
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    procs: Option<usize>,
    config: Config,
    busy_poll: Option<Duration>,
    portable_netpoll: bool,
    cpus_under: Option<(PathBuf, usize)>,
}

impl Default for Builder {
    fn default() -> Self {
        let config = Config { max_stuck: Some(MAX_STUCK), ..Config::default() };
        Builder { procs: None, config, busy_poll: None, portable_netpoll: false, cpus_under: None }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("procs", &self.procs).finish_non_exhaustive()
    }
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        Builder::default()
    }

    /// [`Builder::new`], in tokio's words.
    pub fn new_multi_thread() -> Self {
        Builder::new()
    }

    /// `procs(1)`, in tokio's words. The tasks still run on a thread of the runtime, but for some in its first
    /// millisecond (see [`block_on`](super::block_on())).
    pub fn new_current_thread() -> Self {
        Builder::new().procs(1)
    }

    /// How many tasks run at once, 1 to 1024 (Go: `GOMAXPROCS`). It beats `GMP_PROCS`.
    ///
    /// Without either it is the number of CPUs that the thread may run on that calls [`Builder::build`], or fewer: the
    /// tightest CPU quota of its cgroup and all those above it (version 1 and 2), rounded up, but at least 2. The
    /// watcher then looks again once a second while tasks run (once in ten seconds if they are few and short), until
    /// [`set_procs`](super::set_procs) is called.
    pub fn procs(mut self, procs: usize) -> Self {
        self.procs = Some(procs);
        self
    }

    /// [`Builder::procs`], in tokio's words.
    pub fn worker_threads(self, procs: usize) -> Self {
        self.procs(procs)
    }

    /// Does nothing: I/O and time are always on. It is there for ports from tokio.
    pub fn enable_all(self) -> Self {
        self
    }

    /// [`Builder::enable_all`], which does nothing.
    pub fn enable_io(self) -> Self {
        self
    }

    /// [`Builder::enable_all`], which does nothing.
    pub fn enable_time(self) -> Self {
        self
    }

    /// What the names of the runtime's threads begin with. The system shows the first 15 bytes.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.config.thread_name = Some(name.into());
        self
    }

    /// The stack of each thread, in bytes; 2^40 at most (on 32 bits 2^30). It is address space, but the system may
    /// refuse what is more than its memory: then work waits until a thread can be had, which standard error is told,
    /// once.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.config.thread_stack_size = Some(bytes);
        self
    }

    /// How many closures of [`spawn_blocking`](super::spawn_blocking) run at once, 1 or more; others wait for their
    /// turn. One that waits in a [`block_on`](super::block_on) does not count meanwhile, so that what it waits for can
    /// run. Where it is said, also if it is 512, all closures run on threads of their own, however brief they are known
    /// to be.
    pub fn max_blocking(mut self, closures: usize) -> Self {
        self.config.max_blocking = Some(closures);
        self
    }

    /// [`Builder::max_blocking`], in tokio's words.
    pub fn max_blocking_threads(self, closures: usize) -> Self {
        self.max_blocking(closures)
    }

    /// How many threads there may be at once, 3 or more (10 000): those that run tasks, those for blocking closures and
    /// those of pinned tasks; one place is kept for each of the three kinds. Threads for tasks that compute for long
    /// get what the others leave. The watcher, and the threads of yours that are in a `block_on`, do not count. Go:
    /// `debug.SetMaxThreads`, but nothing ends when the limit is reached: no thread is started, and what it was for
    /// waits until one of the others has time.
    ///
    /// A thread that blocks in the middle of a poll still counts. If all of them block for what only another task can
    /// bring, they wait for ever.
    pub fn max_threads(mut self, threads: usize) -> Self {
        self.config.max_threads = Some(threads);
        self
    }

    /// How long a thread for blocking closures stays without one, and a machine beyond those that processors need
    /// without work (10 s).
    pub fn thread_keep_alive(mut self, keep_alive: Duration) -> Self {
        self.config.thread_keep_alive = Some(keep_alive);
        self
    }

    /// Runs on each thread before its first task or blocking closure; not on one that gets neither, as in a runtime
    /// that is never used. While it blocks the thread's processor goes to others, as in
    /// [`block_in_place`](super::block_in_place), but no more threads are started for that than there are processors.
    /// On a thread for blocking closures it must not block for long: wakers that the watcher found may wait for that
    /// thread.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.config.on_thread_start = Some(Box::new(hook));
        self
    }

    /// Runs on each thread after its last task or blocking closure, where [`Builder::on_thread_start`] would have run.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.config.on_thread_stop = Some(Box::new(hook));
        self
    }

    /// How many threads may be stuck in a poll while their processor goes on without them (512). At the limit a stuck
    /// poll keeps its processor, and the tasks behind it wait for it. So many polls may last for long, too, on the
    /// threads for tasks that are known to compute for long. 0 is `rescue(None)`.
    pub fn max_stuck(mut self, threads: usize) -> Self {
        self.config.max_stuck = (threads > 0).then_some(threads);
        self
    }

    /// `None` turns the rescue of tasks behind a stuck poll off, and so the threads for tasks that are known to compute
    /// for long in each poll ([`Metrics::lane_polls`](crate::runtime::Metrics::lane_polls)): never do more than `procs`
    /// threads run tasks. `Some(n)` is [`Builder::max_stuck`].
    pub fn rescue(mut self, max_stuck: Option<usize>) -> Self {
        self.config.max_stuck = max_stuck.filter(|n| *n > 0);
        self
    }

    /// Is told of each poll that is stuck, when it is rescued, and once at the limit, on `sysmon`'s thread, instead of
    /// the line on standard error (one for each spawn location and minute). The hook must not block: nobody else
    /// watches meanwhile. A task that was blocked when others were rescued from it gives its processor away before its
    /// next polls ([`Metrics::blocker_polls`](crate::runtime::Metrics::blocker_polls)); of those, the ones that last
    /// until `sysmon` looks are told of, and of polls on a thread beside the processors those that last for 10 ms.
    ///
    /// With feature `tracing` each such poll is also a `WARN` event with target `gmp`, hook or not, with the fields
    /// `stuck_in`, `task`, `spawned_at`, `thread`, `polling_for_ms`, `rescued` and `stuck_threads`. If a subscriber
    /// wants to hear of it, it stands in for the line on standard error. It must be the global one: `sysmon`'s thread
    /// has no other.
    pub fn on_stuck(mut self, hook: impl Fn(&StuckPoll) + Send + Sync + 'static) -> Self {
        self.config.on_stuck = Some(Box::new(hook));
        self
    }

    /// Looks for deadlocks and for leaked tasks, which costs an allocation or two for each task and an atomic operation
    /// or three for each poll and waker; for tests. `#[gmp::test]` turns it on. Go: "all goroutines are asleep -
    /// deadlock!"
    ///
    /// A *leaked* task waits, and no waker of it is left anywhere: it can never run again. That is exact. Such tasks
    /// are counted (`Metrics::leaked_tasks`) and listed ([`Runtime::leaked_tasks`]). If it is the future of a
    /// `block_on`, the call panics at once.
    ///
    /// A *deadlock* is a guess: for a second nothing has run, while tasks or threads in `block_on` wait, and there is
    /// no timer, no task that waits for I/O or a signal, no blocking closure that runs, and no other thread inside
    /// [`Handle::enter`](super::Handle::enter). Every thread that waits in a `block_on` of the runtime then panics with
    /// the list of those who wait and where they were spawned; if there is no such thread the list is printed to
    /// standard error, once, and the tasks stay as they are. What plain threads are going to do nobody knows: if they
    /// wake tasks, say [`Builder::external_wakers`]. A read or write of a stream that was dropped while it waited
    /// (`timeout`, `select`) counts as waiting for I/O until the next event of the socket, or its drop.
    ///
    /// # Examples
    ///
    /// ```should_panic
    /// let runtime = gmp::Builder::new().detect_deadlocks(true).build().unwrap();
    /// let task = runtime.spawn(std::future::pending::<()>());
    /// // Panics after a second.
    /// let _ = runtime.block_on(task);
    /// ```
    pub fn detect_deadlocks(mut self, on: bool) -> Self {
        self.config.detect_deadlocks = on;
        self
    }

    /// Says that threads which are not the runtime's wake its tasks: then a runtime that is quiet is not taken for one
    /// in a deadlock. Leaked tasks are still found. It has no effect without [`Builder::detect_deadlocks`].
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = gmp::Builder::new().detect_deadlocks(true).external_wakers(true).build()?;
    /// let task = runtime.spawn(std::future::pending::<()>());
    /// let abort = task.abort_handle();
    /// std::thread::spawn(move || abort.abort());
    /// assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn external_wakers(mut self, on: bool) -> Self {
        self.config.external_wakers = on;
        self
    }

    /// After so long, instead of a second, a quiet runtime is in a deadlock. Less than 10 ms is as 10 ms.
    #[doc(hidden)]
    pub fn deadlock_after(mut self, after: Duration) -> Self {
        self.config.deadlock_after = Some(after);
        self
    }

    /// The clock stands from the start, as if by [`time::pause`](crate::time::pause): for tests of things that take
    /// time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use gmp::time::{Instant, sleep};
    ///
    /// let runtime = gmp::Builder::new().start_paused(true).build()?;
    /// let slept = runtime.block_on(async {
    ///     let start = Instant::now();
    ///     sleep(Duration::from_secs(3600)).await;
    ///     start.elapsed()
    /// });
    /// assert_eq!(slept, Duration::from_secs(3600));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn start_paused(mut self, paused: bool) -> Self {
        self.config.start_paused = paused;
        self
    }

    /// For how long, at most, the thread that is about to sleep until there is I/O looks for it first (50 µs). Where
    /// the next request comes that soon after the last answer it takes half the time then. To sleep and to be woken
    /// costs CPU time too, about as much as 20 µs of looks on a virtual machine. Whether looks pay is learnt: only if
    /// two in three of them find something is there one before each sleep, else fewer, down to one after 64; there are
    /// few where sleep gathers the requests of many clients, or where looks find something but take more than 25 µs to
    /// on average (half of this time, if it is set to more), and none where requests come long after the last answer,
    /// or for a while where other threads wait for the CPU. A runtime with nothing to do does not look, unless this is
    /// set to a time as long as its waits, and neither does a wait that a timer ends sooner than the looks would.
    ///
    /// Zero: it sleeps at once. On other systems than Linux it always does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = gmp::Builder::new().busy_poll(Duration::ZERO).build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn busy_poll(mut self, at_most: Duration) -> Self {
        self.busy_poll = Some(at_most);
        self
    }

    /// Waits for I/O the way other systems do, on Linux too.
    #[doc(hidden)]
    pub fn portable_netpoll(mut self) -> Self {
        self.portable_netpoll = true;
        self
    }

    /// The number of processors goes by the files of cgroups under this directory, and by so many CPUs.
    #[doc(hidden)]
    pub fn cpus_under(mut self, root: impl Into<PathBuf>, cpus: usize) -> Self {
        self.cpus_under = Some((root.into(), cpus));
        self
    }

    /// Builds the runtime. The first of its threads starts at once, with what a thread has from the one that starts it
    /// (its signal mask, its CPUs) as it is here, and the watcher within a millisecond or so, also if nothing is
    /// spawned. The others start when they are first needed; so do all, if the runtime looks for deadlocks.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `procs`, `thread_stack_size`, `max_blocking`, `max_threads`, `GMP_PROCS` or `GMP_SCHEDTRACE`
    /// is no number in its range, or `thread_name` has a NUL in it (the error quotes it); else those of the system for
    /// the netpoller: out of fds or memory. That it refuses a thread is none: what the thread is for waits.
    pub fn build(self) -> io::Result<Runtime> {
        self.try_build().map_err(|failed| failed.error)
    }

    /// [`Builder::build`] for a caller that holds a lock.
    pub(super) fn try_build(self) -> Result<Runtime, Failed> {
        let mut config = self.config;
        let mut cpus = None;
        config.procs = match self.procs {
            Some(procs) => check_procs("procs", procs, procs)?,
            None => match env("GMP_PROCS")? {
                Some(text) => {
                    let procs = text.parse().map_err(|_| bad("GMP_PROCS", &text))?;
                    check_procs("GMP_PROCS", procs, &text)?
                }
                None => {
                    let source = match self.cpus_under {
                        Some((root, cpus)) => Cpus::under(&root, cpus),
                        None => Cpus::of_this_process(),
                    };
                    cpus.insert(source).procs().min(PROCS_MAX)
                }
            },
        };
        if let Some(threads @ ..3) = config.max_threads {
            return Err(bad_number("max_threads", "threads from 3 on", &threads.to_string()).into());
        }
        if config.max_blocking == Some(0) {
            return Err(bad_number("max_blocking", "closures from 1 on", "0").into());
        }
        if let Some(bytes) = config.thread_stack_size.filter(|bytes| *bytes > STACK_MAX) {
            let what = format!("bytes up to {STACK_MAX}");
            return Err(bad_number("thread_stack_size", &what, &bytes.to_string()).into());
        }
        if let Some(name) = config.thread_name.as_deref().filter(|name| name.contains('\0')) {
            let message = format!("thread_name is {name:?}; no thread can have a NUL in its name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message).into());
        }
        config.schedtrace_ms = match env("GMP_SCHEDTRACE")? {
            Some(text) => {
                let ms: u64 = text.parse().map_err(|_| bad_number("GMP_SCHEDTRACE", "milliseconds", &text))?;
                (ms > 0).then_some(ms)
            }
            None => None,
        };
        let hooks = config.on_thread_start.is_some() || config.on_thread_stop.is_some();
        // The latter is std's word for stacks that have no other.
        let stacks = config.thread_stack_size.is_some() || !matches!(env("RUST_MIN_STACK"), Ok(None));
        config.tasks_keep_to_threads = hooks || stacks;
        let sched = take_slot();
        let backend = if self.portable_netpoll { Backend::Portable } else { Backend::Native };
        let runtime = Runtime { runtime: sched.open(config, cpus) };
        // Its thread takes longer to be there than all the rest. It comes to the netpoller when it has been given work.
        sched.start_first_machine();
        match sched.netpoll.open(backend, self.busy_poll) {
            Ok(()) => {
                sched.sysmon_prepare();
                Ok(runtime)
            }
            Err(error) => Err(Failed { error, unfinished: Some(runtime) }),
        }
    }
}

/// A runtime could not be built.
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// What there is of it has a thread, and is shut down when this is dropped: under no lock.
    pub(super) unfinished: Option<Runtime>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed { error, unfinished: None }
    }
}

/// The variable, if it is set and not empty.
fn env(name: &str) -> io::Result<Option<String>> {
    match std::env::var(name) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(text)) => Err(bad(name, &text.to_string_lossy())),
    }
}

pub(super) fn check_procs(name: &str, procs: usize, text: impl std::fmt::Display) -> io::Result<usize> {
    if (1..=PROCS_MAX).contains(&procs) { Ok(procs) } else { Err(bad(name, &text.to_string())) }
}

fn bad(name: &str, text: &str) -> io::Error {
    bad_number(name, &format!("processors from 1 to {PROCS_MAX}"), text)
}

fn bad_number(name: &str, what: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} takes a number of {what}, not `{text}`"))
}
