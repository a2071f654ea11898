//! What a thread is to the runtime right now: (runtime, processor or none). A worker, a `block_on`, an `enter()` guard and
//! shutdown each put theirs in and put the former one back, so that they nest like a stack.
//!
//! 1. The cell has no destructor and is never borrowed, so that wakes in the destructor of another thread-local work.
//! 2. `processor` is set only while this thread holds that processor, and only then is the local path taken.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::processor::Processor;
use crate::sched::{RuntimeRef, Sched};

/// See the head of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) runtime: Option<RuntimeRef>,
    pub(crate) processor: Option<&'static Processor>,
    /// The leaves refuse nothing (`unconstrained`).
    pub(crate) unconstrained: bool,
}

impl Context {
    const NONE: Context = Context { runtime: None, processor: None, unconstrained: false };
}

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::NONE) };
}

#[inline]
pub(crate) fn current() -> Context {
    CURRENT.with(Cell::get)
}

#[inline]
pub(crate) fn set(context: Context) {
    CURRENT.with(|c| c.set(context));
}

/// The processor this thread holds, if it is one of `sched`.
#[inline]
pub(crate) fn processor_of(sched: &'static Sched) -> Option<&'static Processor> {
    current().processor.filter(|p| std::ptr::eq(p.sched, sched))
}

/// The processor whose budget the running task lives on.
#[inline]
pub(crate) fn constrained_processor() -> Option<&'static Processor> {
    let cx = current();
    if cx.unconstrained { None } else { cx.processor }
}

/// Sets the processor of this thread and leaves the rest.
#[inline]
pub(crate) fn set_processor(processor: Option<&'static Processor>) {
    set(Context { processor, ..current() });
}

/// Puts a context in until it is dropped; the former one comes back. Not `Send`: it belongs to the thread.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Context,
    _thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Makes `runtime` the current one, without a processor.
pub(crate) fn enter(runtime: RuntimeRef) -> Entered {
    let before = current();
    set(Context { runtime: Some(runtime), processor: None, unconstrained: false });
    Entered { before, _thread: PhantomData }
}

/// Restores only the flag: the processor may have changed hands meanwhile.
pub(crate) struct Unconstrained(bool);

impl Drop for Unconstrained {
    fn drop(&mut self) {
        set(Context { unconstrained: self.0, ..current() });
    }
}

pub(crate) fn enter_unconstrained() -> Unconstrained {
    let cx = current();
    set(Context { unconstrained: true, ..cx });
    Unconstrained(cx.unconstrained)
}
