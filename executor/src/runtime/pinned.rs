//! What the thread of a pinned task does: it is a thread in `block_on` whose future is a set with that task in it.

use std::panic::Location;
use std::task::Poll;

use super::block_on::Blocking;
use crate::sched::RuntimeRef;
use crate::task::Id;
use crate::task::local::{Host, Set};
use crate::waits::Wait;

/// Polls the task `root` of `set` until it has ended or the runtime closes, then drops what is left of the set: with a
/// processor, unless the runtime closes.
pub(crate) fn run(runtime: RuntimeRef, set: Set, root: Id, location: &'static Location<'static>) {
    let blocking = Blocking::new(runtime, Wait::of_pinned(location, runtime.generation));
    runtime.sched.pinned.has_come();
    let host = Host::with(set);
    let _inside = host.enter();
    let closing = || if runtime.sched.is_closing() { Poll::Ready(()) } else { Poll::Pending };
    let ended = blocking.drive(None, |cx| {
        // Once more after the host is registered: either it sees that the runtime closes, or it is called.
        if closing().is_ready() || host.poll(cx, |_| closing()).is_ready() || !host.has(root) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    runtime.sched.die_if_forked();
    debug_assert!(ended.is_ok(), "a pinned task that waits in vain goes on to wait");
}
