//! What users hold of a runtime does nothing to the next one, which may have the memory of the first.

use std::io::{self, ErrorKind};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use gmp::net::UdpSocket;
use gmp::runtime::{Builder, Metrics, Runtime};
use gmp::signal::unix::{SignalKind, signal};

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

const LOCAL: &str = "127.0.0.1:0";

fn runtime() -> Runtime {
    Builder::new().procs(1).build().unwrap()
}

/// Runs `check` with what is left of a runtime and with the next one, which then is as idle as before.
fn after<T>(leave: impl FnOnce(&Runtime) -> T, check: impl FnOnce(T, &Runtime)) {
    limited(|| {
        let first = runtime();
        let left = leave(&first);
        drop(first);
        let next = runtime();
        check(left, &next);
        let Metrics { live_tasks, global_queue, timers, .. } = next.metrics();
        assert_eq!((live_tasks, global_queue, timers), (0, 0, 0));
        assert_eq!(next.block_on(next.spawn(async { 7 })).unwrap(), 7);
    });
}

#[test]
fn r14_a_handle() {
    after(Runtime::handle, |handle, next| {
        let error = next.block_on(handle.spawn(async { 7 })).unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("runtime shut down"), "{error}");
        let io: std::io::Error = error.into();
        assert!(io.to_string().contains("runtime shut down"));
        let blocked = thread::scope(|scope| scope.spawn(|| handle.block_on(async {})).join());
        let message = blocked.unwrap_err();
        let message = message.downcast_ref::<String>().unwrap();
        assert!(message.starts_with("runtime shut down: ") && message.contains("call `gmp::block_on`"), "{message}");
        assert_eq!(handle.metrics().procs, 0);
        let _entered = handle.enter();
        let error = gmp::Handle::try_current().unwrap_err().to_string();
        assert!(error.starts_with("runtime shut down: ") && error.contains("drop that guard"), "{error}");
        assert!(next.block_on(async { gmp::spawn(async {}).await }).is_ok(), "inside, the next one is the current one");
    });
}

/// By this users tell it from an error of the system, which has another kind.
#[test]
fn r14_an_io_error_of_what_is_gone_is_of_one_kind_and_says_so() {
    let check = |case: &str, error: Option<io::Error>| {
        let error = error.unwrap_or_else(|| panic!("{case}: no error"));
        let says_so = error.kind() == ErrorKind::Other && error.to_string().contains("runtime shut down");
        assert!(says_so, "{case}: {:?}: {error}", error.kind());
    };
    after(
        |first| {
            let _entered = first.enter();
            let plain = std::net::UdpSocket::bind(LOCAL).unwrap();
            plain.set_nonblocking(true).unwrap();
            let (waits, idle) = (plain.try_clone().unwrap(), UdpSocket::from_std(plain).unwrap());
            let waits = UdpSocket::from_std(waits).unwrap();
            let waits = first.spawn(async move { waits.recv(&mut [0]).await });
            (first.handle(), waits, idle, signal(SignalKind::hangup()).unwrap())
        },
        |(gone, waits, idle, mut signals), next| {
            check("a task that waited", next.block_on(waits).err().map(io::Error::from));
            check("a socket", next.block_on(idle.recv(&mut [0])).err());
            check("a socket at once", idle.try_recv(&mut [0]).err());
            assert_eq!(next.block_on(signals.recv()), None);
            check("its processors", gone.set_procs(2).err());
            let _entered = gone.enter();
            check("the current runtime", gmp::Handle::try_current().err());
            check("a new socket", std::net::UdpSocket::bind(LOCAL).and_then(UdpSocket::from_std).err());
            check("a new signal", signal(SignalKind::hangup()).err());
            // `block_on` would make the next runtime the current one.
            let ended = futures::executor::block_on(gmp::net::lookup_host("localhost:80"));
            check("a name", ended.map(drop).err());
        },
    );
}

#[test]
fn r07_a_sleep() {
    after(
        |first| {
            // Long enough not to end while its runtime still exists.
            let mut armed = Box::pin(gmp::time::sleep(Duration::from_secs(1000)));
            first.block_on(async { assert!(futures::poll!(armed.as_mut()).is_pending()) });
            let unpolled = Box::pin(gmp::time::sleep(Duration::from_secs(1000)));
            (armed, unpolled, first.handle())
        },
        |(mut armed, mut unpolled, gone), next| {
            let mut cx = Context::from_waker(Waker::noop());
            let entered = gone.enter();
            assert!(armed.as_mut().poll(&mut cx).is_pending());
            assert!(unpolled.as_mut().poll(&mut cx).is_pending());
            drop(entered);
            assert_eq!(next.metrics().timers, 0);
            armed.as_mut().reset(gmp::time::Instant::now());
            next.block_on(gmp::time::sleep(Duration::from_millis(5)));
            assert!(armed.as_mut().poll(&mut cx).is_pending(), "a sleep whose runtime is gone never ends");
            assert!(!armed.is_elapsed());
        },
    );
}

#[test]
fn r15_join_and_abort_handles() {
    after(
        |first| {
            let ended = first.spawn(async { 7 });
            while !ended.is_finished() {
                thread::yield_now();
            }
            let waits = first.spawn(std::future::pending::<()>());
            let abort = waits.abort_handle();
            (ended, waits, abort)
        },
        |(ended, waits, abort), next| {
            // The next runtime has a task in the same place of its registry.
            let task = next.spawn(gmp::task::yield_now());
            abort.abort();
            waits.abort();
            ended.abort();
            assert!(abort.is_finished() && waits.is_finished() && ended.is_finished());
            next.block_on(task).expect("nobody aborted this one");
            assert_eq!(next.block_on(ended).unwrap(), 7, "an output is not lost");
            assert!(next.block_on(waits).unwrap_err().is_cancelled());
        },
    );
}

#[test]
fn r24_a_guard_of_enter() {
    limited(|| {
        let first = runtime();
        let guard = first.enter();
        drop(first);
        let next = runtime();
        let refused = gmp::spawn(async {});
        assert!(next.block_on(refused).unwrap_err().is_cancelled());
        drop(guard);
        assert_eq!(next.metrics().live_tasks, 0);
    });
}
