//! After a fork the child has the memory of the runtime, but not its threads.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::net::TcpListener;
use gmp::runtime::{Builder, Runtime};
use gmp::signal::unix::{SignalKind, signal};

use fork::{in_child, settle};

#[path = "support/fork.rs"]
mod fork;

fn panics_with(message: &str, misuse: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(misuse)).expect_err("a panic");
    let said = panic.downcast_ref::<String>().expect("a message");
    assert!(said.contains(message), "{said}");
}

const MESSAGE: &str = "belongs to the parent process";

fn runtime() -> Runtime {
    Builder::new().procs(1).build().unwrap()
}

fn a_runtime_of_the_parent_is_an_error() {
    let runtime = runtime();
    settle(&runtime);
    let in_parent = runtime.spawn(std::future::pending::<()>());
    in_child(|| {
        panics_with(MESSAGE, || drop(runtime.spawn(async {})));
        panics_with(MESSAGE, || runtime.block_on(async {}));
        let entered = runtime.enter();
        panics_with(MESSAGE, || drop(gmp::spawn(async {})));
        panics_with(MESSAGE, || gmp::block_on(async {}));
        assert!(gmp::Handle::try_current().unwrap_err().to_string().contains(MESSAGE));
        drop(entered);
        let own = self::runtime();
        assert_eq!(own.block_on(own.spawn(async { 7 })).unwrap(), 7);
        assert_eq!(gmp::block_on(async { gmp::spawn(async { 8 }).await.unwrap() }), 8);
        drop(own);
        drop(runtime);
    });
    drop(in_parent);
}

fn the_parent_goes_on() {
    let runtime = runtime();
    let task = runtime.spawn(async { gmp::task::yield_now().await });
    in_child(|| ());
    runtime.block_on(task).unwrap();
    assert_eq!(runtime.block_on(runtime.spawn(async { 7 })).unwrap(), 7);
}

/// The kernel has one poller for both processes: what the child ended in it would be the parent's.
fn sockets_of_the_parent_stay_the_parents(builder: Builder) {
    let runtime = builder.procs(1).build().unwrap();
    settle(&runtime);
    let (listener, stream, mut plain) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (listener, stream, plain)
    });
    let address = listener.local_addr().unwrap();
    let (mut listener, mut stream) = (Some(listener), Some(stream));
    in_child(|| {
        let (listener, mut stream) = (listener.take().unwrap(), stream.take().unwrap());
        let own = self::runtime();
        own.block_on(async {
            let says_so = |e: std::io::Error| assert!(e.to_string().contains(MESSAGE), "{e}");
            says_so(stream.read(&mut [0]).await.unwrap_err());
            says_so(stream.try_read(&mut [0]).unwrap_err());
            says_so(stream.readable().await.unwrap_err());
            says_so(listener.accept().await.unwrap_err());
        });
        // The socket itself is the child's too, and can be a socket of its own runtime.
        let _entered = own.enter();
        let listener = TcpListener::from_std(listener.into_std().unwrap()).unwrap();
        own.block_on(async {
            let accepted = async { listener.accept().await.unwrap() };
            futures::join!(accepted, async { std::net::TcpStream::connect(address).unwrap() });
        });
    });
    let (listener, mut stream) = (listener.unwrap(), stream.unwrap());
    runtime.block_on(async {
        // Both wait before there is anything.
        let mut byte = [0];
        let read = stream.read_exact(&mut byte);
        futures::join!(async { read.await.unwrap() }, async { plain.write_all(b"x").unwrap() });
        futures::join!(async { listener.accept().await.unwrap() }, async {
            std::net::TcpStream::connect(address).unwrap()
        });
    });
}

/// A child that unwinds drops all that its thread had.
fn a_half_that_the_child_drops_ends_nothing() {
    let runtime = runtime();
    settle(&runtime);
    let (mut plain, writer) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (plain, listener.accept().await.unwrap().0.into_split().1)
    });
    let mut writer = Some(writer);
    in_child(|| drop(writer.take()));
    runtime.block_on(writer.as_mut().unwrap().write_all(b"still open")).unwrap();
    drop(writer);
    let mut text = String::new();
    plain.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still open");
}

fn a_signal_to_the_child_is_not_reported_by_the_parent() {
    let runtime = runtime();
    settle(&runtime);
    let entered = runtime.enter();
    let mut signals = signal(SignalKind::user_defined1()).unwrap();
    drop(entered);
    // SAFETY: no memory is touched.
    let raise = || assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    in_child(raise);
    runtime.block_on(async {
        assert!(futures::poll!(pin!(signals.recv())).is_pending(), "the child's signal");
        futures::join!(signals.recv(), async { raise() }).0.unwrap();
    });
}

/// The registry of handlers waits until no thread is in one, also for a thread that the child has not.
fn a_signal_that_the_child_drops_waits_for_no_handler() {
    let runtime = runtime();
    settle(&runtime);
    let entered = runtime.enter();
    let mut signals = Some(signal(SignalKind::user_defined2()).unwrap());
    drop(entered);
    let (inside, forked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_inside, until) = (inside.clone(), forked.clone());
    // SAFETY: the action uses atomics and no more.
    let handler = unsafe {
        signal_hook_registry::register(libc::SIGUSR2, move || {
            is_inside.store(true, Release);
            while !until.load(Acquire) {
                std::hint::spin_loop();
            }
        })
    }
    .unwrap();
    std::thread::scope(|scope| {
        // SAFETY: no memory is touched.
        scope.spawn(|| assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0));
        while !inside.load(Acquire) {
            std::thread::yield_now();
        }
        let ended = catch_unwind(AssertUnwindSafe(|| in_child(|| drop(signals.take()))));
        forked.store(true, Release);
        ended.expect("the child drops it");
    });
    assert!(signal_hook_registry::unregister(handler));
    runtime.block_on(signals.unwrap().recv()).unwrap();
}

/// One test, and no thread that starts or ends at a fork: std takes a lock of the process (`thread_info` in its
/// `stack_overflow`) when a thread starts and when it ends. If another thread has it at the fork, no thread of the
/// child ever gets past its start.
#[test]
fn r24_use_in_a_forked_child_is_an_error_and_the_parent_goes_on() {
    // SAFETY: it ends this process if a parent hangs; no memory is touched.
    unsafe { libc::alarm(120) };
    the_parent_goes_on();
    a_runtime_of_the_parent_is_an_error();
    sockets_of_the_parent_stay_the_parents(Builder::new());
    sockets_of_the_parent_stay_the_parents(Builder::new().portable_netpoll());
    a_half_that_the_child_drops_ends_nothing();
    a_signal_to_the_child_is_not_reported_by_the_parent();
    a_signal_that_the_child_drops_waits_for_no_handler();
}
