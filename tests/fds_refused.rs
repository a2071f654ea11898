//! The system refuses fds: the runtime is not built, and what there was of it is gone. One test, as the limit holds for
//! the whole process.
#![cfg(unix)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use limit::limited;

#[path = "support/limit.rs"]
mod limit;

/// So many fds may be open.
fn limit_fds(fds: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a value on the stack, which the call writes.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0, "{}", std::io::Error::last_os_error());
    let before = std::mem::replace(&mut limit.rlim_cur, fds);
    // SAFETY: the limit is a value on the stack.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0, "{}", std::io::Error::last_os_error());
    before
}

#[test]
fn r11_a_runtime_that_gets_no_fd_is_an_error_and_leaves_nothing() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static HOOKS: AtomicUsize = AtomicUsize::new(0);
    limited(|| {
        // What shutdown throws it swallows, but it has been told.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {
            PANICS.fetch_add(1, Relaxed);
        }));
        let hooked = || {
            let count = || {
                HOOKS.fetch_add(1, Relaxed);
            };
            gmp::Builder::new().procs(1).on_thread_start(count).on_thread_stop(count)
        };
        let before = limit_fds(0);
        let own = hooked().build().map(drop);
        let default = gmp::runtime::Handle::try_current().map(drop);
        limit_fds(before);
        std::panic::set_hook(hook);
        for error in [own.unwrap_err(), default.unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        }
        assert_eq!((PANICS.load(Relaxed), HOOKS.load(Relaxed)), (0, 0));

        // A sleep that needs a runtime says that there is none. When there can be one, it ends.
        let mut sleep = Box::pin(gmp::time::sleep(Duration::from_millis(1)));
        let before = limit_fds(0);
        let refused = catch_unwind(AssertUnwindSafe(|| sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        limit_fds(before);
        let message = refused.unwrap_err().downcast::<String>().unwrap();
        assert!(message.starts_with("a sleep has no runtime: "), "{message}");
        futures::executor::block_on(sleep);

        assert_eq!(gmp::block_on(async { gmp::spawn(async { 7 }).await.unwrap() }), 7);
        assert_eq!(hooked().build().unwrap().block_on(async { 8 }), 8);
    });
}
