//! How local tasks end before they are done: aborted from elsewhere, or with their set, where it is; wakers and handles
//! go on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use gmp::task::{JoinHandle, LocalSet, spawn_local, yield_now};

use crate::Bound;
use crate::drops::Drops;
use crate::limit::limited;

/// The last waker of a detached task is dropped elsewhere: before the task's end, after it, and after its set is gone.
#[test]
fn r13_wakers_and_handles_outlive_their_set() {
    limited(|| {
        let drops = Drops::default();
        let (send, receive) = channel::<Waker>();
        let (dropped, is_dropped) = channel();
        let elsewhere = thread::spawn(move || {
            for waker in receive {
                waker.wake_by_ref();
                drop(waker.clone());
                drop(waker);
                dropped.send(()).unwrap();
            }
        });
        let waits = |send: &std::sync::mpsc::Sender<Waker>| {
            let (bound, send, mut polled) = (Bound::new(&drops), send.clone(), false);
            std::future::poll_fn(move |cx| {
                let _ = &bound;
                if !std::mem::replace(&mut polled, true) {
                    send.send(cx.waker().clone()).unwrap();
                }
                Poll::<()>::Pending
            })
        };
        let mut kept = Vec::new();
        let (keep, keeps) = channel();
        {
            let set = LocalSet::new();
            for _ in 0..50 {
                drop(set.spawn_local(waits(&send)));
                drop(set.spawn_local(waits(&keep)));
            }
            gmp::block_on(set.run_until(async {
                for _ in 0..100 {
                    yield_now().await;
                }
            }));
            kept.extend(keeps.try_iter());
            assert_eq!(kept.len(), 50);
            for _ in 0..50 {
                is_dropped.recv().unwrap();
            }
            assert_eq!(drops.count(), 0, "a future went with a waker");
        }
        assert_eq!(drops.count(), 100);
        // The set is gone, and others have its memory.
        let others: Vec<_> = (0..4)
            .map(|_| {
                let set = LocalSet::new();
                let task = set.spawn_local(yield_now());
                (set, task)
            })
            .collect();
        for waker in kept {
            send.send(waker).unwrap();
            is_dropped.recv().unwrap();
        }
        for (set, task) in others {
            gmp::block_on(set.run_until(task)).unwrap();
        }
        drop(send);
        drop(keep);
        elsewhere.join().unwrap();
    });
}

#[test]
fn r14_a_set_that_is_dropped_drops_its_tasks_here() {
    limited(|| {
        let drops = Drops::default();
        let set = LocalSet::new();
        let refused = Rc::new(RefCell::new(Vec::<JoinHandle<()>>::new()));
        /// Spawns when it is dropped.
        struct Spawns(Rc<RefCell<Vec<JoinHandle<()>>>>, Bound);
        impl Drop for Spawns {
            fn drop(&mut self) {
                let bound = Rc::downgrade(&self.1.0);
                self.0.borrow_mut().push(spawn_local(async move { drop(bound) }));
            }
        }
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let spawns = Spawns(refused.clone(), Bound::new(&drops));
                set.spawn_local(async move {
                    let _spawns = spawns;
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        gmp::block_on(set.run_until(yield_now()));
        // Never polled.
        let bound = Bound::new(&drops);
        let fresh = set.spawn_local(async move { drop(bound) });
        drop(set);
        assert_eq!(drops.count(), 4);
        assert_eq!(refused.borrow().len(), 3);
        for handle in waits.into_iter().chain(refused.take()).chain([fresh]) {
            assert!(handle.is_finished());
            let error = gmp::block_on(handle).unwrap_err();
            assert!(error.is_cancelled());
            assert!(error.to_string().contains("the set or `block_on` that ran it is gone"), "{error}");
        }
    });
}

/// Another thread wakes the tasks all the time: their runnables may just be on their way home.
#[test]
fn r14_a_set_is_dropped_beside_wakes() {
    const ROUNDS: usize = 300;
    limited(|| {
        let drops = Drops::default();
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let waking = {
            let (wakers, stop) = (wakers.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
                }
            })
        };
        for _ in 0..ROUNDS {
            let set = LocalSet::new();
            for _ in 0..4 {
                let (bound, wakers) = (Bound::new(&drops), wakers.clone());
                let mut is_known = false;
                drop(set.spawn_local(std::future::poll_fn(move |cx| {
                    let _ = &bound;
                    if !std::mem::replace(&mut is_known, true) {
                        wakers.lock().unwrap().push(cx.waker().clone());
                    }
                    Poll::<()>::Pending
                })));
            }
            gmp::block_on(set.run_until(yield_now()));
            drop(set);
            wakers.lock().unwrap().clear();
        }
        stop.store(true, SeqCst);
        waking.join().unwrap();
        assert_eq!(drops.count(), 4 * ROUNDS);
    });
}

#[test]
fn r15_aborts_come_from_other_threads() {
    limited(|| {
        let drops = Drops::default();
        gmp::block_on(async {
            let handles: Vec<JoinHandle<()>> = (0..3)
                .map(|_| {
                    let bound = Bound::new(&drops);
                    spawn_local(async move {
                        let _bound = bound;
                        std::future::pending::<()>().await;
                    })
                })
                .collect();
            yield_now().await;
            let aborts: Vec<_> = handles.iter().map(JoinHandle::abort_handle).collect();
            // One by its abort handle, all by the handles themselves, which are `Send` as their output is.
            let handles = thread::spawn(move || {
                aborts[0].abort();
                handles.iter().for_each(JoinHandle::abort);
                (handles, aborts)
            });
            let (handles, aborts) = handles.join().unwrap();
            for handle in handles {
                assert!(handle.await.unwrap_err().is_cancelled());
            }
            assert_eq!(drops.count(), 3);
            thread::spawn(move || {
                for abort in aborts {
                    assert!(abort.is_finished());
                    abort.abort();
                }
            })
            .join()
            .unwrap();
        });
    });
}

#[test]
fn r15_a_task_that_was_never_polled_is_aborted() {
    limited(|| {
        let drops = Drops::default();
        let set = LocalSet::new();
        let bound = Bound::new(&drops);
        let task = set.spawn_local(async move { drop(bound) });
        task.abort();
        assert_eq!(drops.count(), 0);
        assert!(gmp::block_on(set.run_until(task)).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
        // A handle of a set that is gone.
        let late = set.spawn_local(async {}).abort_handle();
        drop(set);
        assert!(late.is_finished());
        late.abort();
    });
}

/// The destructor of a thread-local drops a set, on its thread.
#[test]
fn r23_a_set_in_a_thread_local() {
    limited(|| {
        thread_local! {
            static SET: LocalSet = LocalSet::new();
        }
        let drops = Drops::default();
        let counts = drops.clone();
        let thread = thread::spawn(move || {
            SET.with(|set| {
                let bound = Bound::new(&counts);
                drop(set.spawn_local(async move {
                    let _bound = bound;
                    std::future::pending::<()>().await;
                }));
                gmp::block_on(set.run_until(yield_now()));
            });
        });
        thread.join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}
