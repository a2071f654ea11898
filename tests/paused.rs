//! A clock that stands: it moves when nothing else can happen, and not before.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::net::{TcpListener, TcpStream};
use gmp::rt::GmpTimer;
use gmp::runtime::{Builder, Handle, Runtime};
use gmp::task::{block_in_place, yield_now};
use gmp::time::{Instant, MissedTickBehavior, advance, interval, pause, resume, sleep, sleep_until, timeout};

use http_body_util::Empty;
use hyper::Response;
use hyper::body::Bytes;
use hyper::rt::Timer;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use limit::limited;

#[path = "support/limit.rs"]
mod limit;

const HOUR: Duration = Duration::from_secs(3600);

fn paused(procs: usize) -> Runtime {
    // The lines about stuck polls are not for this test's reader.
    Builder::new().procs(procs).start_paused(true).on_stuck(|_| ()).build().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn run<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    limited(|| runtime.block_on(future))
}

/// Runs `body` on a paused runtime with one processor, with two, with four.
fn on_paused<F: Future>(body: impl Fn(usize) -> F) {
    for procs in [1, 2, 4] {
        run(&paused(procs), body(procs));
    }
}

/// A connection: gmp's end, and a plain one.
async fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, plain)
}

#[test]
fn r07_an_idle_runtime_jumps_to_the_next_deadline_exactly() {
    on_paused(|_| async {
        let start = Instant::now();
        for n in 1..=20 {
            sleep(HOUR).await;
            assert_eq!(start.elapsed(), n * HOUR);
        }
        assert!(timeout(ms(7), std::future::pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), 20 * HOUR + ms(7));
        // As far as the clock goes, and a nanosecond.
        sleep(Duration::from_nanos(1)).await;
        sleep(Duration::from_secs(100 * 365 * 24 * 3600)).await;
    });
}

#[test]
fn r07_sleeps_of_many_tasks_end_in_order_each_at_its_time() {
    on_paused(|procs| async move {
        let start = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..500u64)
            .map(|n| {
                let order = order.clone();
                gmp::spawn(async move {
                    for turn in 0..3 {
                        let deadline = Instant::now() + ms(n * 7919 % 1009 + turn);
                        sleep_until(deadline).await;
                        assert_eq!(Instant::now(), deadline, "time went on while a task was ready");
                        order.lock().unwrap().push(deadline);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        assert!(order.is_sorted(), "with {procs} processors");
        let last = order.iter().collect::<BTreeSet<_>>().last().copied().copied();
        assert_eq!(last, Some(start + start.elapsed()));
    });
}

/// A task sleeps for an hour; whatever the others do, the clock stands. It does not while somebody could be missed.
#[test]
fn r01_nothing_that_is_ready_is_overtaken_by_the_clock() {
    on_paused(|procs| async move {
        let start = Instant::now();
        let sleeper = gmp::spawn(sleep(HOUR));
        let stands = |what: &str| assert_eq!(start.elapsed(), Duration::ZERO, "{what}, {procs} processors");
        for _ in 0..300 {
            gmp::spawn(yield_now()).await.unwrap();
            stands("spawn and join");
            gmp::spawn_blocking(|| Handle::current().spawn(yield_now())).await.unwrap().await.unwrap();
            stands("a blocking closure that spawns");
            gmp::spawn(async { block_in_place(|| gmp::block_on(gmp::spawn(yield_now()))).unwrap() }).await.unwrap();
            stands("`block_on` in a blocking call");
            gmp::spawn_blocking(|| gmp::block_on(gmp::spawn_blocking(|| gmp::block_on(yield_now()))))
                .await
                .unwrap()
                .unwrap();
            stands("`block_on` in blocking closures, one in the other");
            gmp::block_on(gmp::spawn(async { gmp::block_on(gmp::spawn(yield_now())).unwrap() })).unwrap();
            stands("`block_on` in `block_on`");
            gmp::task::spawn_pinned(|| async { gmp::task::spawn_local(yield_now()).await.unwrap() }).await.unwrap();
            stands("a pinned task with a local one");
        }
        sleeper.await.unwrap();
        assert_eq!(start.elapsed(), HOUR);
    });
}

#[test]
fn r08_a_socket_that_is_ready_comes_before_the_clock() {
    on_paused(|procs| async move {
        let start = Instant::now();
        let (mut near, mut plain) = pair().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = gmp::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                stream.write_all(&byte).await.unwrap();
            }
        });
        let mut stream = timeout(HOUR, TcpStream::connect(address)).await.unwrap().unwrap();
        for n in 0..500 {
            timeout(HOUR, stream.write_all(&[n as u8])).await.unwrap().unwrap();
            let mut byte = [0];
            timeout(HOUR, stream.read_exact(&mut byte)).await.unwrap().unwrap();
            assert_eq!((byte, start.elapsed()), ([n as u8], Duration::ZERO), "{procs} processors");
        }
        // One that is not ready does not hold the clock.
        assert!(timeout(HOUR, near.read_exact(&mut [0])).await.is_err());
        assert_eq!(start.elapsed(), HOUR);
        plain.write_all(&[7]).unwrap();
        timeout(HOUR, near.read_exact(&mut [0])).await.unwrap().unwrap();
        assert_eq!(start.elapsed(), HOUR);
        drop(stream);
        echo.await.unwrap();
    });
}

#[test]
fn r08_a_socket_that_is_ready_comes_before_the_clock_on_the_portable_netpoller() {
    let runtime = Builder::new().procs(2).portable_netpoll().start_paused(true).build().unwrap();
    run(&runtime, async {
        let start = Instant::now();
        let (mut near, mut plain) = pair().await;
        for _ in 0..100 {
            plain.write_all(&[7]).unwrap();
            timeout(HOUR, near.read_exact(&mut [0])).await.unwrap().unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO);
        }
        assert!(timeout(HOUR, near.read_exact(&mut [0])).await.is_err());
        assert_eq!(start.elapsed(), HOUR);
    });
}

/// Starts `busy` beside a task that sleeps for an hour. The clock stands until the test opens the gate that `busy`
/// waits for, and then moves.
fn holds_the_clock<F: Future + Send + 'static>(procs: usize, busy: impl FnOnce(std::sync::mpsc::Receiver<()>) -> F)
where
    F::Output: Send + 'static,
{
    let runtime = paused(procs);
    let (open, gate) = channel();
    // In one go: a clock that stands waits for no plain thread.
    let (start, sleeper) = runtime.block_on(async {
        let sleeper = gmp::spawn(async {
            sleep(HOUR).await;
            Instant::now()
        });
        drop(gmp::spawn(busy(gate)));
        (Instant::now(), sleeper)
    });
    // All others have come to rest, and the watcher has been there a few times: what was to be taken away is. If every
    // processor is idle by then it sleeps, and brings nobody to look again.
    let looks = || runtime.metrics().sysmon_looks;
    let (first, mut last, mut same) = (looks(), looks(), 0);
    while last < first + 12 || same < 20 && last < first + 60 {
        std::thread::sleep(ms(5));
        let guard = runtime.enter();
        assert_eq!(Instant::now(), start);
        assert!(!sleeper.is_finished());
        drop(guard);
        let now = looks();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    open.send(()).unwrap();
    // Not with the runtime's `block_on`, which would have somebody look again.
    let end = limited(|| futures::executor::block_on(sleeper)).unwrap();
    assert_eq!(end - start, HOUR);
}

#[test]
fn r16_a_blocking_closure_holds_the_clock() {
    for procs in [1, 2] {
        holds_the_clock(procs, |gate| async move { gmp::spawn_blocking(move || gate.recv().unwrap()).await });
        // One that nobody waits for: its thread itself lets the clock go.
        holds_the_clock(procs, |gate| async move { drop(gmp::spawn_blocking(move || gate.recv().unwrap())) });
    }
}

#[test]
fn r15_a_blocking_call_holds_the_clock_also_without_its_processor() {
    for procs in [1, 2] {
        holds_the_clock(procs, |gate| async move { block_in_place(move || gate.recv().unwrap()) });
    }
}

#[test]
fn r15_a_stuck_poll_holds_the_clock() {
    for procs in [1, 2] {
        holds_the_clock(procs, |gate| async move { gate.recv().unwrap() });
        holds_the_clock(procs, |gate| async move {
            while gate.try_recv().is_err() {
                std::hint::spin_loop();
            }
        });
    }
}

/// A thread of the runtime that polls in another one, also after it has waited here once more.
#[test]
fn r07_a_poll_of_another_runtime_holds_the_clock() {
    let other = Builder::new().procs(1).on_stuck(|_| ()).build().unwrap();
    for procs in [1, 2] {
        for waits in [false, true] {
            let other = other.handle();
            holds_the_clock(procs, move |gate| async move {
                let here = Handle::current();
                other.block_on(async {
                    if waits {
                        here.block_on(here.spawn(yield_now())).unwrap();
                    }
                    gate.recv().unwrap();
                });
            });
        }
    }
}

#[test]
fn r07_the_clock_goes_on_for_tasks_after_block_on_has_ended() {
    on_paused_outside(|runtime| {
        let (send, receive) = channel();
        runtime.block_on(async {
            let (armed, is_armed) = futures::channel::oneshot::channel();
            drop(gmp::spawn(async move {
                let mut nap = pin!(sleep(HOUR));
                assert!(futures::poll!(nap.as_mut()).is_pending());
                armed.send(()).unwrap();
                nap.await;
                send.send(()).unwrap();
            }));
            // In the poll that ends `block_on` nothing is left to do but to move the clock.
            is_armed.await.unwrap();
        });
        receive.recv_timeout(Duration::from_secs(60)).expect("the clock stands although all is idle");
    });
}

fn on_paused_outside(body: impl Fn(&Runtime)) {
    for procs in [1, 2, 4] {
        for _ in 0..50 {
            body(&paused(procs));
        }
    }
}

#[test]
fn r07_an_insertion_from_outside_moves_the_clock_of_a_sleeping_runtime() {
    on_paused_outside(|runtime| {
        let _guard = runtime.enter();
        let start = Instant::now();
        let mut near = Box::pin(sleep(HOUR));
        futures::executor::block_on(near.as_mut());
        assert_eq!(start.elapsed(), HOUR);
        // The other way round: it sleeps for a task already, and a nearer deadline comes.
        let task = runtime.spawn(sleep(HOUR));
        near.as_mut().reset(Instant::now() + ms(1));
        futures::executor::block_on(near);
        futures::executor::block_on(task).unwrap();
        assert!(start.elapsed() >= 2 * HOUR);
    });
}

/// Waits until every processor is idle and the watcher sleeps.
fn rest(runtime: &Runtime) {
    while runtime.metrics().idle_procs < runtime.metrics().procs {
        std::thread::yield_now();
    }
    // Until the watcher sleeps too, which would have somebody look again. The last machine is in the netpoller by then.
    let (mut last, mut same) = (0, 0);
    while same < 20 {
        std::thread::sleep(ms(5));
        let looks = runtime.metrics().sysmon_looks;
        same = if looks == last { same + 1 } else { 0 };
        last = looks;
    }
}

#[test]
fn r07_pause_from_outside_while_all_sleep() {
    for _ in 0..3 {
        let runtime = Builder::new().procs(2).build().unwrap();
        let task = runtime.spawn(sleep(HOUR));
        rest(&runtime);
        let guard = runtime.enter();
        pause();
        drop(guard);
        limited(|| futures::executor::block_on(task)).unwrap();
    }
}

#[test]
fn r07_resume_from_outside_while_all_sleep() {
    for _ in 0..3 {
        let runtime = paused(2);
        let (open, gate) = channel();
        // It holds the clock until that goes on.
        drop(runtime.spawn_blocking(move || gate.recv().unwrap()));
        let task = runtime.spawn(sleep(ms(5)));
        rest(&runtime);
        let guard = runtime.enter();
        resume();
        drop(guard);
        limited(|| futures::executor::block_on(task)).unwrap();
        open.send(()).unwrap();
    }
}

#[test]
fn r07_resume_goes_on_from_where_the_clock_stands() {
    let runtime = paused(2);
    run(&runtime, async {
        let start = Instant::now();
        sleep(HOUR).await;
        // Somebody sleeps without a deadline by now.
        let sleeper = gmp::spawn(sleep(ms(3)));
        resume();
        sleeper.await.unwrap();
        let first = start.elapsed();
        assert!((HOUR + ms(3)..HOUR + Duration::from_secs(60)).contains(&first), "{first:?}");
        sleep(ms(2)).await;
        assert!(start.elapsed() >= first + ms(2));
        pause();
        let frozen = Instant::now();
        sleep(HOUR).await;
        assert_eq!(frozen.elapsed(), HOUR);
    });
}

#[test]
fn r07_each_runtime_has_its_clock() {
    let (virtual_one, real) = (paused(1), Builder::new().procs(1).build().unwrap());
    let before = real.block_on(async { Instant::now() });
    run(&virtual_one, async {
        sleep(24 * HOUR).await;
        let here = Instant::now();
        assert!(here - before > 23 * HOUR);
        // On a thread of its own, so that neither holds the other.
        let there = std::thread::spawn({
            let real = real.handle();
            move || real.block_on(async { Instant::now() })
        })
        .join()
        .unwrap();
        assert!(there - before < HOUR);
        assert_eq!(Instant::now(), here);
    });
    // The slot's next runtime has a clock that goes.
    drop(virtual_one);
    let next = Builder::new().procs(1).build().unwrap();
    next.block_on(async {
        assert!(Instant::now() - before < HOUR);
        sleep(ms(1)).await;
    });
}

#[test]
fn r07_hypers_timer_sees_the_clock_that_stands() {
    on_paused(|_| async {
        let (start, first) = (Instant::now(), GmpTimer.now());
        Timer::sleep(&GmpTimer, HOUR).await;
        GmpTimer.sleep_until(first + 2 * HOUR).await;
        assert_eq!((start.elapsed(), GmpTimer.now() - first), (2 * HOUR, 2 * HOUR));
        // A client that never comes to the end of its head.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
        let served = http1::Builder::new()
            .timer(GmpTimer)
            .header_read_timeout(Duration::from_secs(30))
            .serve_connection(stream, service)
            .await;
        assert!(served.unwrap_err().is_timeout());
        assert_eq!(start.elapsed(), 2 * HOUR + Duration::from_secs(30));
    });
}

#[test]
fn r14_a_paused_runtime_shuts_down() {
    for procs in [1, 2] {
        let runtime = paused(procs);
        let mut task = Some(runtime.spawn(sleep(HOUR)));
        if procs == 1 {
            drop(task.take());
        }
        runtime.shutdown_timeout(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn r24_a_clock_in_the_wrong_state_is_a_panic_that_says_so() {
    fn message(body: impl Future<Output = ()> + Send + 'static, runtime: &Runtime) -> String {
        let panic = runtime.block_on(runtime.spawn(body)).unwrap_err().into_panic();
        panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap()
    }
    let runtime = paused(1);
    assert_eq!(
        message(async { pause() }, &runtime),
        "the clock is paused already, by `pause` or `start_paused`: call `resume` first"
    );
    runtime.block_on(async { resume() });
    assert_eq!(message(async { resume() }, &runtime), "the clock is not paused: call `pause` first");
    assert_eq!(message(advance(HOUR), &runtime), "the clock is not paused: call `pause` first");
}

#[test]
fn r07_advance_wakes_what_is_due_before_it_ends() {
    let runtime = paused(1);
    run(
        &runtime,
        runtime.spawn(async {
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = [30, 10, 20, 50]
                .into_iter()
                .map(|n| {
                    let order = order.clone();
                    gmp::spawn(async move {
                        sleep(ms(n)).await;
                        order.lock().unwrap().push(n);
                    })
                })
                .collect();
            yield_now().await;
            let start = Instant::now();
            advance(ms(40)).await;
            assert_eq!((start.elapsed(), order.lock().unwrap().clone()), (ms(40), vec![10, 20, 30]));
            advance(Duration::ZERO).await;
            advance(ms(9)).await;
            assert_eq!(order.lock().unwrap().len(), 3);
            advance(ms(1)).await;
            assert_eq!(order.lock().unwrap().len(), 4);
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(start.elapsed(), ms(50));
        }),
    )
    .unwrap();
}

#[test]
fn r07_advance_beside_tasks_on_other_processors() {
    on_paused(|_| async {
        let fired = Arc::new(AtomicUsize::new(0));
        for round in 0..100u64 {
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    let fired = fired.clone();
                    gmp::spawn(async move {
                        let deadline = Instant::now() + ms(n + round);
                        sleep_until(deadline).await;
                        assert!(Instant::now() >= deadline, "early");
                        fired.fetch_add(1, Relaxed);
                    })
                })
                .collect();
            advance(ms(round % 13)).await;
            for task in tasks {
                task.await.unwrap();
            }
        }
        assert_eq!(fired.load(Relaxed), 2000);
    });
}

/// A machine that was suspended for an hour: each sleep ends once, an interval does as it was told.
#[test]
fn r07_after_a_jump_late_timers_fire_once_and_intervals_follow_their_policy() {
    on_paused(|_| async {
        let start = Instant::now();
        let fired = Arc::new(AtomicUsize::new(0));
        let sleepers: Vec<_> = (0..200u64)
            .map(|n| {
                let fired = fired.clone();
                let mut nap = Box::pin(sleep(Duration::from_secs(n * 10)));
                gmp::spawn(async move {
                    poll_fn(|cx| {
                        let poll = nap.as_mut().poll(cx);
                        fired.fetch_add(usize::from(poll.is_ready()), Relaxed);
                        poll
                    })
                    .await;
                })
            })
            .collect();
        let behaviors = [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip];
        let mut ticks = behaviors.map(|behavior| {
            let mut ticks = interval(Duration::from_secs(1000));
            ticks.set_missed_tick_behavior(behavior);
            ticks
        });
        for ticks in &mut ticks {
            assert_eq!(ticks.tick().await, start);
        }
        let jump = HOUR + Duration::from_millis(500);
        advance(jump).await;
        for sleeper in sleepers {
            sleeper.await.unwrap();
        }
        assert_eq!((fired.load(Relaxed), start.elapsed()), (200, jump));
        let seconds = |ms: u64| start + Duration::from_millis(ms);
        let [burst, delay, skip] = &mut ticks;
        // All that were missed come now: at 1000, 2000, 3000. Then it goes on.
        for n in 1..=3 {
            assert_eq!((burst.tick().await, start.elapsed()), (seconds(n * 1_000_000), jump));
        }
        // Those two give the one that was due.
        assert_eq!(delay.tick().await, seconds(1_000_000));
        assert_eq!(skip.tick().await, seconds(1_000_000));
        assert_eq!(start.elapsed(), jump);
        assert_eq!((burst.tick().await, Instant::now()), (seconds(4_000_000), seconds(4_000_000)));
        assert_eq!((skip.tick().await, Instant::now()), (seconds(4_000_000), seconds(4_000_000)));
        assert_eq!((delay.tick().await, Instant::now()), (seconds(4_600_500), seconds(4_600_500)));
        assert_eq!((skip.tick().await, Instant::now()), (seconds(5_000_000), seconds(5_000_000)));
        assert_eq!(delay.tick().await, seconds(5_600_500));
    });
}

#[test]
fn r07_an_interval_can_be_reset_and_gives_no_old_tick() {
    on_paused(|_| async {
        let start = Instant::now();
        let mut ticks = interval(ms(100));
        assert_eq!(ticks.tick().await, start);
        advance(ms(150)).await;
        // One is due, and is gone with the reset.
        ticks.reset();
        assert_eq!((ticks.tick().await, Instant::now()), (start + ms(250), start + ms(250)));
        ticks.reset_immediately();
        assert_eq!((ticks.tick().await, Instant::now()), (start + ms(250), start + ms(250)));
        ticks.reset_after(ms(7));
        assert_eq!((ticks.tick().await, Instant::now()), (start + ms(257), start + ms(257)));
        ticks.reset_at(start + ms(300));
        assert_eq!((ticks.tick().await, Instant::now()), (start + ms(300), start + ms(300)));
        assert_eq!(ticks.tick().await, start + ms(400));
        // A tick that is given up is not lost.
        assert!(timeout(ms(30), ticks.tick()).await.is_err());
        assert_eq!((ticks.tick().await, Instant::now()), (start + ms(500), start + ms(500)));
        // While a task waits for the tick.
        let mut ticks = interval(ms(100));
        ticks.tick().await;
        let waiting = poll_fn(|cx| {
            assert!(ticks.poll_tick(cx).is_pending());
            ticks.reset_after(ms(3));
            Poll::Ready(())
        });
        waiting.await;
        ticks.tick().await;
        assert_eq!(start.elapsed(), ms(503));
    });
}

#[test]
fn r05_a_paused_runtime_at_rest_makes_no_wake_ups() {
    let runtime = paused(2);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    drop(runtime.spawn(async move { listener.accept().await.map(drop) }));
    run(&runtime, sleep(HOUR));
    // Each park is a machine that had nothing to do: once all sleep there are no more.
    let mut parks = runtime.metrics().parks;
    let mut same = 0;
    while same < 20 {
        std::thread::sleep(ms(5));
        let now = runtime.metrics().parks;
        same = if now == parks { same + 1 } else { 0 };
        parks = now;
    }
}

#[gmp::test(start_paused = true)]
async fn r07_the_attribute_of_a_test_pauses_the_clock() {
    let start = Instant::now();
    gmp::spawn(sleep(24 * HOUR)).await.unwrap();
    assert_eq!(start.elapsed(), 24 * HOUR);
}

#[gmp::test(procs = 1, start_paused = false)]
async fn r07_the_attribute_of_a_test_leaves_the_clock() {
    pause();
    resume();
}

/// A thread of the runtime that came back to it through another one waits for it, and holds it up no more.
#[test]
fn r07_the_clock_moves_for_a_wait_inside_one_of_another_runtime() {
    for procs in [1, 2, 4] {
        let (a, b) = (paused(procs), Builder::new().procs(1).build().unwrap());
        let (to_a, to_b) = (a.handle(), b.handle());
        let twice = move || to_b.block_on(async { to_a.block_on(async { sleep(HOUR).await }) });
        let deep = {
            let (to_a, to_b, twice) = (a.handle(), b.handle(), twice.clone());
            move || {
                let start = Instant::now();
                to_b.block_on(async { to_a.block_on(async { twice() }) });
                twice();
                start.elapsed()
            }
        };
        let within = deep.clone();
        assert_eq!(run(&a, async move { within() }), 2 * HOUR, "in `block_on`");
        let within = deep.clone();
        assert_eq!(run(&a, a.spawn(async move { within() })).unwrap(), 2 * HOUR, "in a task");
        let start = run(&a, async { Instant::now() });
        run(&a, a.spawn_blocking(deep.clone())).unwrap();
        run(&a, a.spawn_pinned(move || async move { deep() })).unwrap();
        assert_eq!(run(&a, async move { start.elapsed() }), 4 * HOUR, "in a closure and in a pinned task");
    }
}
