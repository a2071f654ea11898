//! Blocking closures that are known to be brief run on processors, as tasks do; one that blocks there after all keeps
//! neither tasks nor other closures waiting.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use gmp::Handle;
use gmp::runtime::{Builder, Metrics, Runtime};
use gmp::task::JoinHandle;

use drops::Drops;
use limit::limited;

#[path = "support/drops.rs"]
mod drops;
#[path = "support/limit.rs"]
mod limit;

type Work = Box<dyn FnOnce() + Send>;

/// All of them are of one kind: one type, spawned at one place.
fn call(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let work: Work = Box::new(work);
    gmp::spawn_blocking(work)
}

fn runs_on_processors() -> u64 {
    Handle::current().metrics().blocking_brief
}

/// Until the runtime knows that [`call`]s are brief: those that a busy machine makes long are only weighed up.
async fn make_brief() {
    let before = runs_on_processors();
    while runs_on_processors() == before {
        call(|| ()).await.unwrap();
    }
}

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).build().unwrap()
}

/// In a task, on a processor.
fn in_task<T: Send + 'static>(procs: usize, future: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = runtime(procs);
    let task = runtime.spawn(future);
    runtime.block_on(task).unwrap()
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn r16_brief_closures_run_where_tasks_do() {
    limited(|| {
        in_task(1, async {
            let first = gmp::spawn_blocking(thread_name).await.unwrap();
            assert!(first.starts_with("gmp-block-"), "{first}");
            make_brief().await;
            // On the very thread of the task that called it, which has waited meanwhile: no other has the processor,
            // unless that is taken from a thread which a busy machine gives no CPU.
            let taken = || {
                let metrics = Handle::current().metrics();
                metrics.retakes + metrics.rescues
            };
            let (tell, told) = channel();
            let before = (runs_on_processors(), taken());
            call(move || tell.send(thread::current().id()).unwrap()).await.unwrap();
            let ran_at = told.recv().unwrap();
            let (is_brief, was_taken) = (runs_on_processors() != before.0, taken() != before.1);
            assert!(!is_brief || was_taken || ran_at == thread::current().id());
        });
    });
}

/// Not even one that is lent.
#[test]
fn r16_brief_closures_need_no_thread() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let before = Handle::current().metrics();
            for _ in 0..1000 {
                call(|| ()).await.unwrap();
            }
            let now = Handle::current().metrics();
            // Unless some lasted, and the kind ceased to be brief.
            if now.blocking_brief == before.blocking_brief + 1000 {
                let threads = |m: &Metrics| (m.blocking_threads, m.blocking_lent);
                assert_eq!(threads(&now), threads(&before));
            }
        });
    });
}

/// Where closures on processors would not count, could wait for what needs another thread, or could be waited for in
/// vain.
#[test]
fn r16_what_needs_threads_of_its_own_has_them() {
    limited(|| {
        let builder = || Builder::new().procs(1);
        let builders = [
            builder().max_blocking(512),
            builder().max_threads(3),
            builder().rescue(None),
            builder().start_paused(true),
        ];
        for builder in builders {
            let runtime = builder.build().unwrap();
            let task = runtime.spawn(async {
                for _ in 0..200 {
                    call(|| assert!(thread_name().starts_with("gmp-block-"))).await.unwrap();
                }
                let handle = Handle::current();
                call(move || handle.block_on(handle.spawn(async {})).unwrap()).await.unwrap();
                let (tell, told) = channel();
                drop(call(move || tell.send(()).unwrap()));
                told.recv().unwrap();
                runs_on_processors()
            });
            assert_eq!(runtime.block_on(task).unwrap(), 0);
        }
    });
}

/// Nobody is rescued from its poll any more, and the one that is stuck waits for it.
#[test]
fn r17_at_the_limit_of_stuck_threads_a_poll_may_wait_for_a_brief_closure() {
    limited(|| {
        let runtime = Builder::new().procs(1).max_stuck(1).build().unwrap();
        let (open, gate) = channel::<()>();
        let stuck = runtime.spawn(async move {
            make_brief().await;
            gate.recv().unwrap();
        });
        let waits = async move {
            while Handle::current().metrics().stuck_threads == 0 {
                gmp::yield_now().await;
            }
            let (tell, told) = channel();
            drop(call(move || tell.send(()).unwrap()));
            told.recv().unwrap();
            open.send(()).unwrap();
        };
        runtime.block_on(runtime.spawn(waits)).unwrap();
        runtime.block_on(stuck).unwrap();
    });
}

/// It is queued on the processor of the poll that waits.
#[test]
fn r03_a_poll_may_wait_for_a_brief_closure_as_a_thread_does() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let (tell, told) = channel();
            drop(call(move || tell.send(()).unwrap()));
            told.recv().unwrap();
        });
    });
}

/// Paused after it was queued on a processor, or before: it waits for an hour.
#[test]
fn r23_time_that_is_paused_goes_on_for_a_brief_closure() {
    const HOUR: Duration = Duration::from_secs(3600);
    limited(|| {
        for procs in [1, 2] {
            in_task(procs, async move {
                make_brief().await;
                let handle = Handle::current();
                let waits = move || handle.block_on(gmp::time::sleep(HOUR));
                // With two processors it may be stolen, and wait on one when time is paused: that stands.
                let queued = (procs == 1).then(|| call(waits.clone()));
                gmp::time::pause();
                if let Some(queued) = queued {
                    queued.await.unwrap();
                }
                call(waits).await.unwrap();
            });
        }
    });
}

/// Wakers run with a processor that cannot be given up.
#[test]
fn r16_a_waker_may_wait_for_a_brief_closure() {
    struct Calls(Handle, Sender<()>);
    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.block_on(call(|| ())).unwrap();
            self.1.send(()).unwrap();
        }
    }
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let before = runs_on_processors();
            let (tell, told) = channel();
            let waker = Waker::from(Arc::new(Calls(Handle::current(), tell)));
            let mut timer = Box::pin(gmp::time::sleep(Duration::from_millis(1)));
            assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            gmp::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
            assert_eq!(runs_on_processors(), before);
        });
    });
}

/// Nor does one that is spawned outside of tasks run on a processor: there is none.
#[test]
fn r16_who_has_no_processor_sends_brief_closures_to_the_pool() {
    limited(|| {
        let runtime = runtime(1);
        runtime.block_on(runtime.spawn(make_brief())).unwrap();
        let _guard = runtime.enter();
        let before = runs_on_processors();
        let work: Work = Box::new(|| assert!(thread_name().starts_with("gmp-block-")));
        runtime.block_on(gmp::spawn_blocking(work)).unwrap();
        assert_eq!(runs_on_processors(), before);
    });
}

/// The first waits for the task, which waits for nobody; those behind it wait for neither. And then none of them is
/// brief any more, not even the ones that were queued as such.
#[test]
fn r03_a_closure_that_blocks_after_all_keeps_nobody_waiting() {
    /// Tells whether the kind was seen to cease.
    async fn ceases() -> bool {
        make_brief().await;
        let before = Handle::current().metrics();
        let (open, gate) = channel::<()>();
        let blocks = call(move || _ = gate.recv());
        let (tell, told) = channel();
        let named = || {
            let tell = tell.clone();
            call(move || tell.send(thread_name()).unwrap())
        };
        let behind: Vec<_> = (0..4).map(|_| named()).collect();
        for call in behind {
            call.await.unwrap();
        }
        let now = Handle::current().metrics();
        open.send(()).unwrap();
        blocks.await.unwrap();
        named().await.unwrap();
        let all_apart = told.try_iter().all(|name| name.starts_with("gmp-block-"));
        now.retakes > before.retakes && now.blocking_brief == before.blocking_brief + 1 && all_apart
    }
    limited(|| {
        let ceased = in_task(1, async {
            for _ in 0..10 {
                // Not where its thread did not sleep yet when it was looked at.
                if ceases().await {
                    return true;
                }
            }
            false
        });
        assert!(ceased, "a kind that blocks stays brief");
    });
}

/// Nobody wants the output, so the poll of the closure drops it.
#[test]
fn r03_an_output_whose_destructor_blocks_keeps_nobody_waiting() {
    struct Slow(Receiver<()>);
    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }
    type Makes = Box<dyn FnOnce() -> Option<Slow> + Send>;
    fn make(gate: Option<Receiver<()>>) -> JoinHandle<Option<Slow>> {
        let makes: Makes = Box::new(|| gate.map(Slow));
        gmp::spawn_blocking(makes)
    }
    limited(|| {
        in_task(1, async {
            let before = runs_on_processors();
            while runs_on_processors() == before {
                drop(make(None).await.unwrap());
            }
            let (before, rescues) = (runs_on_processors(), Handle::current().metrics().rescues);
            let (open, gate) = channel::<()>();
            drop(make(Some(gate)));
            // Behind it in the queue.
            gmp::yield_now().await;
            let was_rescued = Handle::current().metrics().rescues > rescues;
            drop(open);
            while Handle::current().metrics().stuck_threads > 0 {
                gmp::yield_now().await;
            }
            if was_rescued {
                make(None).await.unwrap();
                assert_eq!(runs_on_processors(), before + 1, "the next one ran on a processor");
            }
        });
    });
}

/// It waits for a closure that is queued behind it, for a task, and for one of another thread.
#[test]
fn r16_a_brief_closure_may_block_on_others() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let handle = Handle::current();
            let outside = handle.clone();
            call(move || {
                let inner = handle.block_on(call(|| ()));
                inner.unwrap();
                handle.block_on(handle.spawn(async { call(|| ()).await.unwrap() })).unwrap();
            })
            .await
            .unwrap();
            make_brief().await;
            call(move || {
                thread::scope(|s| s.spawn(|| outside.block_on(async { call(|| ()).await })).join().unwrap().unwrap())
            })
            .await
            .unwrap();
        });
    });
}

#[test]
fn r16_brief_closures_of_a_task_start_in_order() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let order = Arc::new(Mutex::new(Vec::new()));
            let before = Handle::current().metrics();
            let calls: Vec<_> = (0..100)
                .map(|n| {
                    let order = order.clone();
                    call(move || order.lock().unwrap().push(n))
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            let (order, now) = (order.lock().unwrap(), Handle::current().metrics());
            let moved = |m: &Metrics| (m.retakes, m.rescues, m.stolen);
            // Unless the processor was taken in the middle, and the rest went elsewhere.
            let all_here = now.blocking_brief == before.blocking_brief + 100 && moved(&now) == moved(&before);
            assert!(order.len() == 100 && (order.is_sorted() || !all_here), "{order:?}");
        });
    });
}

#[test]
fn r15_abort_ends_a_brief_closure_that_has_not_started() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let (drops, before) = (Drops::default(), runs_on_processors());
            let guard = drops.guard();
            let aborted = call(move || drop(guard));
            let other = call(|| ());
            aborted.abort();
            assert_eq!(drops.count(), 0, "a destructor ran in `abort`");
            assert!(aborted.await.unwrap_err().is_cancelled());
            assert_eq!(drops.count(), 1);
            other.await.unwrap();
            assert!(runs_on_processors() <= before + 1);
            // One that runs is left alone.
            let ran = call(|| ());
            let abort = ran.abort_handle();
            let runs = call(move || abort.abort());
            ran.await.unwrap();
            runs.await.unwrap();
            let (give, given) = channel::<gmp::task::AbortHandle>();
            let runs = call(move || given.recv().unwrap().abort());
            give.send(runs.abort_handle()).unwrap();
            runs.await.unwrap();
        });
    });
}

/// Where its kind has ceased to be brief while it was queued on a processor.
#[test]
fn r15_abort_ends_a_closure_that_goes_from_a_processor_to_the_pool() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            let (open, gate) = channel::<()>();
            let blocks = call(move || _ = gate.recv());
            let drops = Drops::default();
            let behind: Vec<_> = (0..50)
                .map(|_| {
                    let guard = drops.guard();
                    call(move || drop(guard))
                })
                .collect();
            // Other threads come to them meanwhile.
            gmp::yield_now().await;
            for call in &behind {
                call.abort();
            }
            for call in behind {
                assert!(call.await.err().is_none_or(|e| e.is_cancelled()));
            }
            assert_eq!(drops.count(), 50);
            open.send(()).unwrap();
            blocks.await.unwrap();
        });
    });
}

#[test]
fn r12_a_panic_of_a_brief_closure_goes_to_its_handle() {
    limited(|| {
        in_task(1, async {
            make_brief().await;
            for n in 0..20u8 {
                let error = call(move || std::panic::panic_any(n)).await.unwrap_err();
                assert_eq!(error.into_panic().downcast_ref(), Some(&n));
            }
            // The processor goes on, and others get what it is asked for.
            assert_eq!(gmp::spawn(async { 1 }).await.unwrap(), 1);
        });
    });
}

/// On the processor, and in the pool.
#[test]
fn r14_shutdown_drops_brief_closures_that_have_not_started() {
    limited(|| {
        for round in 0..40 {
            let runtime = runtime(1);
            let drops = Drops::default();
            let here = drops.clone();
            let (tell, told) = channel();
            let task = runtime.spawn(async move {
                make_brief().await;
                let (open, gate) = channel::<()>();
                let calls = (0..round).map(|_| {
                    let guard = here.guard();
                    call(move || drop(guard))
                });
                let blocks = call(move || _ = gate.recv());
                let calls: Vec<_> = calls.collect();
                tell.send(open).unwrap();
                blocks.await.unwrap();
                drop(calls);
            });
            let open = told.recv().unwrap();
            let handle = runtime.handle();
            if round / 2 % 2 == 1 {
                // It runs when the processor was taken from the one that blocks: those behind that go to the pool then.
                futures::executor::block_on(handle.spawn(async {})).unwrap();
            }
            let opens = thread::spawn(move || {
                // In every other round not before the runtime closes, and refuses tasks.
                while round % 2 == 1 && futures::executor::block_on(handle.spawn(async {})).is_ok() {}
                drop(open);
            });
            drop(runtime);
            opens.join().unwrap();
            drop(task);
            assert_eq!(drops.count(), round, "a closure is lost");
        }
    });
}
