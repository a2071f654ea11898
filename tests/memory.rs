//! What a task costs in memory: no allocation of its own, wherever it is spawned, and 56 bytes beside its future.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Waker};

use gmp::runtime::Builder;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

struct Counting;

thread_local! {
    /// Those of this thread. The watcher's, which reads files while the machine is loaded, are nobody's cost.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has taken, less those that it has given back.
    static OWN_BYTES: Cell<isize> = const { Cell::new(0) };
}

static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may have no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        let _ = OWN_BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size() as isize));
        BYTES.fetch_add(layout.size() as isize, Ordering::SeqCst);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = OWN_BYTES.try_with(|bytes| bytes.set(bytes.get() - layout.size() as isize));
        BYTES.fetch_sub(layout.size() as isize, Ordering::SeqCst);
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One test: the bytes are the process's.
#[test]
fn r18_what_allocates_and_what_does_not() {
    local_sets_give_their_memory_back();
    a_task_is_its_future_and_56_bytes_of_a_page();
    a_task_from_outside_has_no_allocation_of_its_own();
    a_burst_from_outside_gives_its_memory_back();
    a_burst_from_outside_gives_its_memory_back_beside_work();
    a_burst_that_others_end_gives_its_memory_back();
    a_burst_of_processors_that_are_gone_gives_its_memory_back();
    a_reset_of_the_timer_for_hyper_allocates_nothing();
    a_datagram_to_an_address_allocates_nothing();
}

/// There is no runtime here: all of it is of this thread.
fn local_sets_give_their_memory_back() {
    let use_some = || {
        let sets = [gmp::task::LocalSet::new(), gmp::task::LocalSet::new()];
        for set in &sets {
            for _ in 0..50 {
                drop(set.spawn_local(std::future::pending::<()>()));
            }
        }
        for set in sets {
            let mut set = std::pin::pin!(set);
            assert!(set.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    };
    use_some();
    let before = OWN_BYTES.get();
    for _ in 0..100 {
        use_some();
    }
    assert_eq!(OWN_BYTES.get(), before);
}

fn a_reset_of_the_timer_for_hyper_allocates_nothing() {
    use hyper::rt::Timer;
    let runtime = Builder::new().procs(1).build().unwrap();
    let allocations = runtime.block_on(async {
        let mut sleep = gmp::rt::GmpTimer.sleep(std::time::Duration::from_secs(3600));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        // Armed, so that the reset moves it in the store.
        assert!(futures::poll!(&mut sleep).is_pending());
        let before = ALLOCATIONS.get();
        for n in 0..1000 {
            gmp::rt::GmpTimer.reset(&mut sleep, deadline + std::time::Duration::from_secs(n));
        }
        ALLOCATIONS.get() - before
    });
    assert_eq!(allocations, 0);
}

fn a_datagram_to_an_address_allocates_nothing() {
    let runtime = Builder::new().procs(1).build().unwrap();
    let allocations = runtime.block_on(async {
        let socket = gmp::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = socket.local_addr().unwrap();
        let before = ALLOCATIONS.get();
        for _ in 0..100 {
            assert_eq!(socket.send_to(b"tick", target).await.unwrap(), 4);
            assert_eq!(socket.send_to(b"tock", (target.ip(), target.port())).await.unwrap(), 4);
            for _ in 0..2 {
                assert_eq!(socket.recv_from(&mut [0; 8]).await.unwrap(), (4, target));
            }
        }
        ALLOCATIONS.get() - before
    });
    assert_eq!(allocations, 0);
}

fn a_task_is_its_future_and_56_bytes_of_a_page() {
    const TASKS: usize = 1 << 14;
    let runtime = Builder::new().procs(1).build().unwrap();
    let (allocations, bytes, future) = runtime
        .block_on(runtime.spawn(async {
            let future = |n: u64| async move {
                std::future::pending::<()>().await;
                n
            };
            let size = size_of_val(&future(0));
            let mut handles = Vec::with_capacity(TASKS);
            let thread = std::thread::current().id();
            let before = (ALLOCATIONS.get(), BYTES.load(Ordering::SeqCst));
            for n in 0..TASKS as u64 {
                handles.push(gmp::spawn(future(n)));
                // They go to sleep one by one: queues that grow are not the tasks' own memory.
                gmp::task::yield_now().await;
            }
            let after = (ALLOCATIONS.get(), BYTES.load(Ordering::SeqCst));
            assert_eq!(std::thread::current().id(), thread, "there is one machine, and the counter is its own");
            // For the closure's sake: the handles live until here.
            drop(handles);
            (after.0 - before.0, after.1 - before.1, size)
        }))
        .unwrap();
    assert!(allocations < 128, "{allocations} allocations for {TASKS} tasks: pages come, and lists double a few times");
    let overhead = bytes as f64 / TASKS as f64 - future as f64;
    assert!(overhead <= 56.0, "{overhead} bytes beside a future of {future}");
}

fn a_task_from_outside_has_no_allocation_of_its_own() {
    const TASKS: usize = 1 << 10;
    let runtime = Builder::new().procs(1).build().unwrap();
    let before = ALLOCATIONS.get();
    for _ in 0..TASKS {
        drop(runtime.spawn(std::future::pending::<()>()));
    }
    let allocations = ALLOCATIONS.get() - before;
    assert!(allocations < 64, "{allocations} for {TASKS} tasks: pages come, and queues double a few times");
}

/// Where nobody has a handle the machine ends the tasks and puts their memory away before it sleeps; else this thread
/// does, which needs nobody for that.
fn a_burst_from_outside_gives_its_memory_back() {
    const TASKS: usize = 100_000;
    /// What a shared arena keeps, and a runtime has besides.
    const KEPT: isize = 5 << 20;
    for is_detached in [false, true] {
        limited(move || {
            let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
            let before = BYTES.load(Ordering::SeqCst);
            let (open, opened) = std::sync::mpsc::channel::<()>();
            // The only processor is busy until all of them are there.
            drop(runtime.spawn(async move { opened.recv().is_err() }));
            let spawned = (0..TASKS).map(|_| runtime.spawn(async { [0_u8; 64] }));
            let handles: Vec<_> = spawned.filter(|_| !is_detached).collect();
            assert!(BYTES.load(Ordering::SeqCst) - before > 2 * KEPT, "the tasks have no memory");
            drop(open);
            for handle in handles {
                runtime.block_on(handle).unwrap();
            }
            if !is_detached {
                assert!(BYTES.load(Ordering::SeqCst) - before <= KEPT, "somebody else has to come for it");
            }
            while BYTES.load(Ordering::SeqCst) - before > KEPT {
                std::thread::yield_now();
            }
        });
    }
}

/// The machine that ends them is never without a task afterwards, and nobody spawns any more.
fn a_burst_from_outside_gives_its_memory_back_beside_work() {
    const TASKS: usize = 100_000;
    /// As above.
    const KEPT: isize = 5 << 20;
    limited(|| {
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let before = BYTES.load(Ordering::SeqCst);
        let is_kept = move || BYTES.load(Ordering::SeqCst) - before > KEPT;
        let (open, opened) = std::sync::mpsc::channel::<()>();
        drop(runtime.spawn(async move { opened.recv().is_err() }));
        let (done, is_done) = std::sync::mpsc::channel();
        drop(runtime.spawn(async move {
            while is_kept() {
                gmp::task::yield_now().await;
            }
            done.send(()).unwrap();
        }));
        (0..TASKS).for_each(|_| drop(runtime.spawn(async { [0_u8; 64] })));
        assert!(is_kept(), "the tasks have no memory");
        drop(open);
        is_done.recv().unwrap();
    });
}

/// As below, of processors that no machine comes to any more: one that was replaced in a stuck poll, and one too many.
fn a_burst_of_processors_that_are_gone_gives_its_memory_back() {
    const TASKS: usize = 50_000;
    /// As below, for each of two processors.
    const KEPT: isize = 5 << 20;
    fn spawn_all() -> Vec<gmp::task::JoinHandle<[u8; 64]>> {
        (0..TASKS).map(|_| gmp::spawn(async { [0_u8; 64] })).collect()
    }
    fn are_finished(handles: &[gmp::task::JoinHandle<[u8; 64]>]) -> bool {
        handles.iter().all(gmp::task::JoinHandle::is_finished)
    }
    let goes_back = |runtime: &gmp::Runtime, handles: Vec<_>, before: isize| {
        assert!(BYTES.load(Ordering::SeqCst) - before > KEPT, "the tasks have no memory");
        drop::<Vec<gmp::task::JoinHandle<_>>>(handles);
        while BYTES.load(Ordering::SeqCst) - before > KEPT {
            // It is not for a runtime without work to do that. One task at a time: where the machines get no CPU those
            // of a spawner that does not wait are so many that the shared arena keeps 4 MiB for the next of them.
            futures::executor::block_on(runtime.spawn(async {})).unwrap();
        }
    };
    limited(|| {
        let runtime = Builder::new().procs(1).on_stuck(|_| ()).build().unwrap();
        let before = BYTES.load(Ordering::SeqCst);
        let task = runtime.spawn(async {
            let handles = spawn_all();
            // The processor that spawned them is not the one that runs them.
            while !are_finished(&handles) {
                std::thread::yield_now();
            }
            handles
        });
        let handles = futures::executor::block_on(task).unwrap();
        goes_back(&runtime, handles, before);
    });
    limited(|| {
        let runtime = Builder::new().procs(2).rescue(None).build().unwrap();
        let before = BYTES.load(Ordering::SeqCst);
        let both = std::sync::Arc::new(std::sync::Barrier::new(2));
        let tasks = [(); 2].map(|()| {
            let both = both.clone();
            runtime.spawn(async move {
                both.wait();
                let handles = spawn_all();
                both.wait();
                handles
            })
        });
        let handles: Vec<_> = tasks.into_iter().flat_map(|task| futures::executor::block_on(task).unwrap()).collect();
        runtime.set_procs(1).unwrap();
        while !are_finished(&handles) {
            std::thread::yield_now();
        }
        goes_back(&runtime, handles, before);
    });
}

/// The last of the tasks are this thread's handles: what they kept comes back to the processor, which has nothing to do
/// any more.
fn a_burst_that_others_end_gives_its_memory_back() {
    const TASKS: usize = 50_000;
    /// What an arena keeps, and a runtime has besides.
    const KEPT: isize = 3 << 20;
    limited(|| {
        // The poll that spawns them all is a long one, and the processor is to be the same afterwards.
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let before = BYTES.load(Ordering::SeqCst);
        let spawn_all = || (0..TASKS).map(|_| gmp::spawn(async { [0_u8; 64] })).collect::<Vec<_>>();
        let handles = runtime.block_on(runtime.spawn(async move { spawn_all() })).unwrap();
        while !handles.iter().all(gmp::task::JoinHandle::is_finished) {
            std::thread::yield_now();
        }
        assert!(BYTES.load(Ordering::SeqCst) - before > KEPT, "the tasks have no memory");
        drop(handles);
        // Nobody wants the processor afterwards: its machine comes to put the memory away.
        drop(runtime.spawn(async {}));
        while BYTES.load(Ordering::SeqCst) - before > KEPT {
            std::thread::yield_now();
        }
    });
}
