//! Wakers of timers and sockets that are not the runtime's own, and block: they are like polls that are stuck.

use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use gmp::Builder;
use gmp::chan::bounded;
use gmp::net::UdpSocket;
use gmp::runtime::{Handle, Runtime};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

fn runs(runtime: &Runtime) {
    let task = runtime.spawn(async {});
    until(|| task.is_finished());
}

/// A waker that blocks.
struct Blocks {
    begins: Sender<()>,
    until: Mutex<Receiver<()>>,
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.begins.send(()).unwrap();
        let _ = self.until.lock().unwrap().recv();
    }
}

fn blocks() -> (Waker, Receiver<()>, Sender<()>) {
    let (begins, began) = channel();
    let (end, until) = channel();
    (Waker::from(Arc::new(Blocks { begins, until: Mutex::new(until) })), began, end)
}

#[test]
fn r03_a_waker_that_blocks_in_a_thief_is_no_spinner() {
    limited(|| {
        let runtime = Builder::new().procs(2).on_stuck(|_| ()).build().unwrap();
        let (waker, began, end) = blocks();
        let (end_body, body_ended) = channel::<()>();
        thread::scope(|scope| {
            let (runtime, waker) = (&runtime, &waker);
            scope.spawn(move || {
                runtime.block_on(async {
                    let mut sleep = pin!(gmp::time::sleep(Duration::from_millis(20)));
                    assert!(sleep.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
                    let _ = body_ended.recv();
                });
            });
            began.recv().unwrap();
            for _ in 0..20 {
                runs(runtime);
                thread::sleep(Duration::from_millis(5));
            }
            drop((end, end_body));
        });
    });
}

#[test]
fn r03_a_waker_that_blocks_in_a_machine_without_a_processor() {
    limited(|| {
        let runtime = Builder::new().procs(1).on_stuck(|_| ()).build().unwrap();
        // A machine that then sits in the netpoller.
        runs(&runtime);
        let (waker, began, end) = blocks();
        let (end_body, body_ended) = channel::<()>();
        thread::scope(|scope| {
            let (runtime, waker) = (&runtime, &waker);
            scope.spawn(move || {
                runtime.block_on(async {
                    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    let mut buffer = [0];
                    assert!(socket.poll_recv_from(&mut Context::from_waker(waker), &mut buffer).is_pending());
                    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                    other.send_to(&[1], socket.local_addr().unwrap()).unwrap();
                    let _ = body_ended.recv();
                });
            });
            began.recv().unwrap();
            for _ in 0..20 {
                runs(runtime);
                thread::sleep(Duration::from_millis(5));
            }
            drop((end, end_body));
        });
    });
}

/// A waker that waits in a `block_on`.
struct Waits {
    on: Handle,
    begins: Sender<()>,
    until: gmp::chan::Receiver<()>,
}

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        self.on.block_on(async {
            self.begins.send(()).unwrap();
            let _ = self.until.recv().await;
        });
    }
}

/// The thread of a closure waits in the `block_on` of a runtime that closes, and so keeps the time there. The waker
/// that it wakes waits in its turn: that is one closure that waits, not two.
#[test]
fn r16_a_waker_that_waits_beside_a_closure_that_waits() {
    limited(|| {
        let own = Builder::new().procs(1).build().unwrap();
        // Its clock stands while a closure runs, which its shutdown waits for.
        let closing = Builder::new().procs(1).start_paused(true).build().unwrap();
        let (end_shutdown, shutdown_ends) = channel::<()>();
        let (begins, began) = channel();
        let (end_waker, waker_ends) = bounded(1);
        let (end_closure, closure_ends) = bounded::<()>(1);
        let (ready, is_ready) = channel();
        let runs = ready.clone();
        drop(closing.spawn_blocking(move || {
            runs.send(()).unwrap();
            let _ = shutdown_ends.recv();
        }));
        let waker = Waker::from(Arc::new(Waits { on: own.handle(), begins, until: waker_ends }));
        let handle = closing.handle();
        let closure = own.spawn_blocking(move || {
            handle.block_on(async {
                let mut sleep = pin!(gmp::time::sleep(Duration::from_secs(1)));
                assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                ready.send(()).unwrap();
                let _ = closure_ends.recv().await;
            });
        });
        is_ready.recv().unwrap();
        is_ready.recv().unwrap();
        closing.shutdown_timeout(Duration::ZERO).unwrap_err();
        began.recv().unwrap();
        // The waker waits by now, or in a moment.
        for _ in 0..100 {
            own.block_on(own.spawn_blocking(|| ())).unwrap();
        }
        drop((end_waker, end_closure, end_shutdown));
        own.block_on(closure).unwrap();
    });
}

/// A socket on which that waker waits, and what makes it ready. The waker is woken by `sysmon` if the processors are
/// busy.
async fn waits_on_a_socket(waker: &Waker) -> (UdpSocket, std::net::UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert!(socket.poll_recv_from(&mut Context::from_waker(waker), &mut [0]).is_pending());
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    other.connect(socket.local_addr().unwrap()).unwrap();
    (socket, other)
}

/// The only processor is in a poll that nobody is rescued from, so that `sysmon` finds what the netpoller has. A waker
/// that blocks neither stops it nor keeps those behind it.
#[test]
fn r03_a_waker_that_blocks_in_the_watcher() {
    limited(|| {
        let runtime = Builder::new().procs(1).rescue(None).build().unwrap();
        let (wakers, ends): (Vec<_>, Vec<_>) = (0..4).map(|_| blocks()).map(|(w, b, e)| ((w, b), e)).unzip();
        let sockets: Vec<_> = runtime.block_on(async {
            let mut sockets = Vec::new();
            for (waker, _) in &wakers {
                sockets.push(waits_on_a_socket(waker).await);
            }
            sockets
        });
        let (end_poll, poll_ended) = channel::<()>();
        let (begin, begun) = channel();
        let poll = runtime.spawn(async move {
            begin.send(()).unwrap();
            let _ = poll_ended.recv();
        });
        begun.recv().unwrap();
        // One batch.
        sockets.iter().for_each(|(_, other)| assert_eq!(other.send(&[1]).unwrap(), 1));
        wakers.iter().for_each(|(_, began)| began.recv().unwrap());
        let looks = || runtime.metrics().sysmon_looks;
        let before = looks();
        until(|| looks() > before + 3);
        assert!(runtime.metrics().sysmon_netpolls > 0);
        drop((end_poll, ends));
        until(|| poll.is_finished());
        runs(&runtime);
    });
}
