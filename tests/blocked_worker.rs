//! What other runtimes are known to stop at: one thread of theirs is blocked, and with it sockets and timers, or the
//! task that it has just woken. With default settings none of it stops here.

use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::net::TcpStream;
use gmp::runtime::{Builder, Runtime};
use gmp::time::sleep;

use limit::limited;
use pair::pair;

#[path = "support/limit.rs"]
mod limit;
#[path = "support/pair.rs"]
mod pair;

fn runtime(procs: usize) -> Runtime {
    // Only the lines about stuck polls are left out.
    Builder::new().procs(procs).on_stuck(|_| ()).build().unwrap()
}

/// Waits for the first byte, then blocks for as long as the other end of `until` is there.
async fn blocks_after_a_byte(mut stream: TcpStream, blocked: std::sync::mpsc::Sender<()>, until: Receiver<()>) {
    stream.read_exact(&mut [0]).await.unwrap();
    blocked.send(()).unwrap();
    let _ = until.recv();
}

/// The only thread that is awake, the one that waited for sockets and timers, blocks for good; the others sleep, and
/// nobody tells them.
#[test]
fn r03_one_blocked_thread_silences_neither_sockets_nor_timers() {
    for procs in [1, 2, 4] {
        limited(|| {
            let runtime = runtime(procs);
            let (stream, mut plain) = runtime.block_on(pair());
            let (mut echoing, mut client) = runtime.block_on(pair());
            drop(runtime.spawn(async move {
                let mut byte = [0];
                while echoing.read(&mut byte).await.unwrap_or(0) > 0 {
                    echoing.write_all(&byte).await.unwrap();
                }
            }));
            let (blocked, is_blocked) = channel();
            let (go, until) = channel::<()>();
            let bad = runtime.spawn(blocks_after_a_byte(stream, blocked, until));
            // It is woken out of the netpoller, where its thread waited for it.
            while runtime.metrics().io_waiters < 2 || runtime.metrics().idle_procs < procs {
                std::thread::yield_now();
            }
            plain.write_all(b"x").unwrap();
            is_blocked.recv().unwrap();
            let (beat, beats) = channel();
            drop(runtime.spawn(async move {
                for _ in 0..20 {
                    sleep(Duration::from_millis(1)).await;
                    beat.send(()).unwrap();
                }
            }));
            for n in 0..20 {
                beats.recv().unwrap();
                client.write_all(&[n]).unwrap();
                let mut answer = [0];
                std::io::Read::read_exact(&mut client, &mut answer).unwrap();
                assert_eq!(answer, [n]);
            }
            drop(go);
            runtime.block_on(bad).unwrap();
        });
    }
}

/// Two connections: the task that reads from the first then waits, as a thread, for the one that reads from the second,
/// whose byte comes when nobody is awake but that thread.
#[test]
fn r03_a_thread_that_comes_from_the_netpoller_and_waits_for_another_connection() {
    for procs in [1, 2, 4] {
        limited(|| {
            let runtime = runtime(procs);
            let (first, mut wakes_first) = runtime.block_on(pair());
            let (mut second, mut wakes_second) = runtime.block_on(pair());
            let (blocked, is_blocked) = channel();
            let (done, is_done) = channel();
            let waits = runtime.spawn(blocks_after_a_byte(first, blocked, is_done));
            let frees = runtime.spawn(async move {
                second.read_exact(&mut [0]).await.unwrap();
                done.send(()).unwrap();
            });
            while runtime.metrics().io_waiters < 2 || runtime.metrics().idle_procs < procs {
                std::thread::yield_now();
            }
            wakes_first.write_all(b"x").unwrap();
            is_blocked.recv().unwrap();
            wakes_second.write_all(b"x").unwrap();
            runtime.block_on(async {
                waits.await.unwrap();
                frees.await.unwrap();
            });
        });
    }
}

/// A task wakes another one and then waits for it as a thread. With a second processor that is no matter for a rescue:
/// the woken task is alone in the run-next slot, and is stolen from there.
#[test]
fn r03_the_task_that_was_woken_last_is_not_its_wakers_alone() {
    for (procs, rescue) in [(1, Some(8)), (2, Some(8)), (4, Some(8)), (2, None), (4, None)] {
        limited(|| {
            let runtime = Builder::new().procs(procs).rescue(rescue).on_stuck(|_| ()).build().unwrap();
            for _ in 0..20 {
                let (wake, woken) = futures::channel::oneshot::channel();
                let (done, is_done) = channel();
                let other = runtime.spawn(async move {
                    woken.await.unwrap();
                    done.send(()).unwrap();
                });
                let waker = runtime.spawn(async move {
                    wake.send(()).unwrap();
                    is_done.recv().unwrap();
                });
                runtime.block_on(async {
                    waker.await.unwrap();
                    other.await.unwrap();
                });
            }
            assert!(rescue.is_some() || runtime.metrics().rescues == 0);
        });
    }
}
