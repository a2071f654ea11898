//! Sockets on the scheduler: fairness, what outlives a runtime, what is left behind.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use gmp::net::{TcpListener, TcpStream, UdpSocket};
use gmp::runtime::{Builder, Metrics, Runtime};
use gmp::signal::unix::{SignalKind, signal};
use gmp::task::yield_now;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

const LOCAL: &str = "127.0.0.1:0";

fn runtime(procs: usize) -> Runtime {
    Builder::new().procs(procs).rescue(None).build().unwrap()
}

/// A connection: gmp's end, and a plain one.
async fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, plain)
}

#[test]
fn r04_a_socket_is_served_within_a_bounded_number_of_picks() {
    // One processor that two yielding tasks keep busy. The byte is written inside the poll of one of them.
    const LOOKS: u64 = 16;
    const PICKS: u64 = 61;
    let runtime = runtime(1);
    let task = runtime.spawn(async {
        let (mut stream, mut plain) = pair().await;
        let by_watcher = || gmp::Handle::current().metrics().sysmon_netpolls;
        let mut late = 0;
        let picks = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let (picks, stop) = (picks.clone(), stop.clone());
                gmp::spawn(async move {
                    while !stop.load(Relaxed) {
                        picks.fetch_add(1, Relaxed);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for round in 0..100 {
            let seen = picks.clone();
            let reader = gmp::spawn(async move {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                (stream, byte[0], seen.load(Relaxed))
            });
            // The reader waits by now.
            for _ in 0..10 {
                yield_now().await;
            }
            let looks = by_watcher();
            plain.write_all(&[round]).unwrap();
            let before = picks.load(Relaxed);
            let (back, byte, after) = reader.await.unwrap();
            stream = back;
            assert_eq!(byte, round);
            // If the system has kept this thread for ten milliseconds the watcher comes, and may be kept itself with
            // what it found.
            if after - before > LOOKS * PICKS + PICKS {
                assert_ne!(by_watcher(), looks, "{} picks went by", after - before);
                late += 1;
            }
        }
        assert!(late < 50, "it is the watcher that looks, and not who runs the tasks");
        stop.store(true, Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
    runtime.block_on(task).unwrap();
    assert!(runtime.metrics().netpoll_looks > 0);
}

/// The only processor never sleeps, and at each of its looks no task waits for a socket.
#[test]
fn r08_who_asks_and_does_not_wait_hears_of_what_is_ready() {
    for builder in [Builder::new(), Builder::new().portable_netpoll()] {
        let runtime = builder.procs(1).rescue(None).build().unwrap();
        let handle = runtime.handle();
        let task = runtime.spawn(async move {
            let listener = TcpListener::bind(LOCAL).await.unwrap();
            assert!(listener.accept().now_or_never().is_none());
            let mut plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let looks = handle.metrics().netpoll_looks;
            // Not by asking again and again: the watcher might come while the asking waits.
            while handle.metrics().netpoll_looks == looks {
                yield_now().await;
            }
            let (stream, _) = listener.accept().now_or_never().expect("a connection was there at the look").unwrap();
            // A system call says it, without any look.
            let mut byte = [0];
            assert_eq!(stream.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            plain.write_all(b"xy").unwrap();
            assert_eq!((stream.try_read(&mut byte).unwrap(), byte), (1, *b"x"));
            // What is left is ready for those who wait.
            stream.readable().await.unwrap();
            assert_eq!(stream.try_read(&mut [0; 2]).unwrap(), 1);
        });
        limited(|| runtime.block_on(task)).unwrap();
    }
}

/// A machine without work looked at the netpoller and then sat down in it: two system calls where one would do.
#[test]
fn r05_who_goes_to_sleep_in_the_netpoller_does_not_look_at_it_before() {
    const TIMES: u64 = 320;
    let runtime = runtime(1);
    // Somebody waits for a socket, and in vain.
    let waits = runtime.spawn(async {
        let (mut stream, _plain) = pair().await;
        stream.read_exact(&mut [0]).await
    });
    let until = |done: &dyn Fn(&Metrics) -> bool| {
        while !done(&runtime.metrics()) {
            std::thread::yield_now();
        }
    };
    until(&|m| m.io_waiters > 0 && m.idle_procs == 1);
    let before = runtime.metrics();
    for n in 0..TIMES {
        drop(runtime.spawn(async {}));
        until(&|m| m.parks > before.parks + n && m.idle_procs == 1);
    }
    let looks = runtime.metrics().netpoll_looks - before.netpoll_looks;
    // One in 32 on the way to sleep, and one in 16 of the looks around that come with the first pick after it.
    assert!(looks <= TIMES / 8, "{looks} looks beside {TIMES} sleeps");
    waits.abort();
}

#[test]
fn r09_sockets_that_outlive_their_runtime_touch_nothing_of_the_next() {
    let first = runtime(1);
    let ((mut stream, mut plain), listener) =
        first.block_on(async { (pair().await, TcpListener::bind(LOCAL).await.unwrap()) });
    drop(first);
    // The next runtime takes the slot, the descriptors and, for all we know, the fd numbers of the poller.
    let second = runtime(1);
    let (mut other, mut other_plain) = second.block_on(pair());
    second.block_on(async {
        plain.write_all(b"x").unwrap();
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
        let error = listener.accept().await.unwrap_err();
        assert!(error.to_string().contains("runtime shut down"), "{error}");
    });
    drop((stream, listener));
    // The peer sees the close, and the new socket still works.
    let closed = plain.read(&mut [0]);
    assert!(matches!(closed, Ok(0) | Err(_)));
    second.block_on(async {
        other_plain.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        other.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
    });
    assert_eq!(second.metrics().io_waiters, 0);
}

#[test]
fn r20_many_connections_echo_all_bytes() {
    const CONNECTIONS: usize = 64;
    const BYTES: usize = 200_000;
    // The last one waits for sockets as on a system without epoll.
    for runtime in [runtime(1), runtime(4), Builder::new().procs(2).portable_netpoll().build().unwrap()] {
        let server = runtime.spawn(async {
            let listener = TcpListener::bind(LOCAL).await.unwrap();
            let address = listener.local_addr().unwrap();
            let accepting = gmp::spawn(async move {
                for _ in 0..CONNECTIONS {
                    let (stream, _) = listener.accept().await.unwrap();
                    drop(gmp::spawn(async move {
                        let (read, write) = (&stream, &stream);
                        futures::io::copy(read, &mut { write }).await.unwrap();
                        (&mut { write }).close().await.unwrap();
                    }));
                }
            });
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|n| {
                    gmp::spawn(async move {
                        let stream = TcpStream::connect(address).await.unwrap();
                        let sent: Vec<u8> = (0..BYTES).map(|i| (i * 7 + n) as u8).collect();
                        let write = async {
                            let mut writer = &stream;
                            writer.write_all(&sent).await.unwrap();
                            writer.close().await.unwrap();
                        };
                        let read = async {
                            let mut back = Vec::new();
                            let mut reader = &stream;
                            reader.read_to_end(&mut back).await.unwrap();
                            back
                        };
                        let ((), back) = futures::join!(write, read);
                        assert!(back == sent, "connection {n} got other bytes back");
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            accepting.await.unwrap();
        });
        runtime.block_on(server).unwrap();
        assert_eq!(runtime.metrics().io_waiters, 0);
    }
}

/// The message is as long as the buffer. To read on at once found nothing, and an event of the netpoller had to be
/// waited for; whoever is queued goes first now, and has mostly written the next message by then.
#[test]
fn r05_who_has_read_a_whole_message_finds_what_the_others_write() {
    const ROUNDS: u64 = 1000;
    let runtime = runtime(1);
    let late = runtime.block_on(runtime.spawn(async {
        let (mut stream, mut plain) = pair().await;
        let got = Arc::new(AtomicU64::new(0));
        let counted = got.clone();
        let reader = gmp::spawn(async move {
            for _ in 0..ROUNDS {
                stream.read_exact(&mut [0]).await.unwrap();
                counted.fetch_add(1, Relaxed);
            }
        });
        let mut late = 0;
        for sent in 1..=ROUNDS {
            plain.write_all(b"x").unwrap();
            yield_now().await;
            late += u64::from(got.load(Relaxed) < sent);
            while got.load(Relaxed) < sent {
                yield_now().await;
            }
        }
        reader.await.unwrap();
        late
    }));
    // The first ones are, one in 32 that checks whether more has come, and what follows on a pick that took long.
    let late = late.unwrap();
    assert!(late < ROUNDS / 2, "{late} times of {ROUNDS} the reader waited for the netpoller");
}

#[test]
fn r01_a_timer_and_a_socket_of_an_otherwise_idle_block_on() {
    // Nothing runs but the thread in `block_on`: somebody must sleep for its timer and its socket.
    for runtime in [runtime(1), Builder::new().procs(1).portable_netpoll().build().unwrap()] {
        let (mut stream, mut plain) = runtime.block_on(pair());
        for _ in 0..20 {
            runtime.block_on(gmp::time::sleep(std::time::Duration::from_millis(1)));
            let writer = std::thread::spawn(move || {
                plain.write_all(b"x").unwrap();
                plain
            });
            runtime.block_on(stream.read_exact(&mut [0])).unwrap();
            plain = writer.join().unwrap();
        }
    }
}

/// A runtime that looks for deadlocks starts no machine before there is something to run, and here there never is.
#[test]
fn r01_a_socket_that_a_foreign_executor_waits_for() {
    limited(|| {
        for builder in [Builder::new(), Builder::new().detect_deadlocks(true)] {
            let runtime = builder.procs(1).build().unwrap();
            let _entered = runtime.enter();
            futures::executor::block_on(async {
                let (mut stream, mut plain) = pair().await;
                let mut byte = [0];
                let read = stream.read_exact(&mut byte);
                futures::join!(async { read.await.unwrap() }, async { plain.write_all(b"x").unwrap() });
                let ready = async { stream.readable().await.unwrap() };
                futures::join!(ready, async { plain.write_all(b"x").unwrap() });
            });
        }
    });
}

#[test]
fn r04_sysmon_looks_at_the_netpoller_while_every_processor_is_in_a_long_poll() {
    let runtime = runtime(1);
    let handle = runtime.handle();
    let task = runtime.spawn(async move {
        let (mut stream, mut plain) = pair().await;
        let reader = gmp::spawn(async move { stream.read_exact(&mut [0]).await.unwrap() });
        while handle.metrics().io_waiters == 0 {
            yield_now().await;
        }
        // This poll ends only when the reader has been taken for ready: by nobody else's look.
        plain.write_all(b"x").unwrap();
        while handle.metrics().io_waiters > 0 {
            std::thread::yield_now();
        }
        reader.await.unwrap();
        assert!(handle.metrics().sysmon_netpolls > 0);
    });
    runtime.block_on(task).unwrap();
}

/// Polls of a millisecond each, one after the other, on the only processor: what becomes ready in one of them has its
/// turn before the next, and the task that yields them still has its own.
#[test]
fn r04_a_socket_does_not_wait_for_a_second_long_poll() {
    const ROUNDS: u64 = 30;
    let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
    let polls = Arc::new(AtomicU64::new(0));
    let long_poll = |polls: &AtomicU64| {
        let end = std::time::Instant::now() + std::time::Duration::from_millis(1);
        while std::time::Instant::now() < end {
            std::hint::spin_loop();
        }
        polls.fetch_add(1, Relaxed)
    };
    let late = runtime.block_on(runtime.spawn(async move {
        let (mut stream, mut plain) = pair().await;
        let (sent, seen) = (Arc::new(AtomicU64::new(0)), polls.clone());
        let at = sent.clone();
        let reader = gmp::spawn(async move {
            let mut late = 0;
            for _ in 0..ROUNDS {
                stream.read_exact(&mut [0]).await.unwrap();
                // Long too: it must not keep the other from running.
                late += u64::from(seen.load(Relaxed) > at.load(Relaxed));
                long_poll(&seen);
            }
            late
        });
        // Until every pick looks around.
        for _ in 0..2 * 61 {
            long_poll(&polls);
            yield_now().await;
        }
        while !reader.is_finished() {
            // Both have had their turn.
            for _ in 0..2 {
                long_poll(&polls);
                yield_now().await;
            }
            plain.write_all(b"x").unwrap();
            sent.store(long_poll(&polls) + 1, Relaxed);
            yield_now().await;
        }
        reader.await.unwrap()
    }));
    // Seldom the watcher is faster, and queues the reader for everybody.
    let late = late.unwrap();
    assert!(
        late < ROUNDS / 2,
        "{late} times of {ROUNDS} the reader waited for a poll that began after its byte was there"
    );
}

/// A log that goes to a socket: what `{:?}` writes into may be anything.
#[derive(Default)]
struct Binds(String);

impl fmt::Write for Binds {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        drop(gmp::block_on(UdpSocket::bind(LOCAL)).unwrap());
        self.0.push_str(text);
        Ok(())
    }
}

#[test]
fn r24_what_is_formatted_holds_no_lock_of_the_netpoller() {
    limited(|| {
        let runtime = runtime(1);
        let _entered = runtime.enter();
        let hears = signal(SignalKind::user_defined1()).unwrap();
        let (listener, udp) = gmp::block_on(async { (TcpListener::bind(LOCAL).await, UdpSocket::bind(LOCAL).await) });
        let all: [&dyn fmt::Debug; 5] = [&hears, &listener.unwrap(), &udp.unwrap(), &runtime, &runtime.handle()];
        for any in all {
            let mut log = Binds::default();
            write!(log, "{any:?}").unwrap();
            // What it is, and not all that the runtime has.
            assert!(!log.0.is_empty() && log.0.len() < 100, "{} bytes: {}", log.0.len(), log.0);
        }
    });
}
