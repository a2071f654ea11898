//! The netpoller: readiness of sockets from the kernel to the tasks that wait for it (Go: netpoll). `sched` waits in it
//! and wakes what it gives; `gmp-net` registers sockets; shutdown closes it.
//!
//! The functions a backend gives (`linux`, `portable`), beside being opened and dropped:
//!
//! | function | what it does                                                                                   |
//! |----------|------------------------------------------------------------------------------------------------|
//! | `add`    | registers an fd under a key, once in its life                                                  |
//! | `delete` | undoes that, before the fd is closed                                                           |
//! | `wait`   | gives what became ready to the descriptors, and collects the wakers                            |
//! | `notify` | breaks the blocked wait                                                                        |
//! | `arm`    | asks for the next event of an fd, where the kernel has to be asked each time                   |
//!
//! 1. Nothing here wakes a task while it holds a lock: `wait` collects wakers for its caller, `close` wakes at its end.
//! 2. A key names a descriptor and the generation of its registration; an event of another generation is dropped.
//! 3. A registration ends before its fd is closed, and with its runtime at the latest.
//! 4. One thread at most is in a blocking wait, and one beside it in a wait without a timeout. Only the former takes
//!    breaks.
//!
//! One poller serves all processors; a sharded one would be an array of `Netpoll`.

mod breaks;
mod descriptor;
#[cfg(not(gmp_loom))]
mod driver;
#[cfg(not(gmp_loom))]
mod guess;
#[cfg(all(target_os = "linux", not(gmp_loom)))]
mod linux;
#[cfg(not(gmp_loom))]
mod portable;
mod readiness;
#[cfg(not(gmp_loom))]
mod registration;
#[cfg(all(target_os = "linux", not(gmp_loom)))]
mod spin;
#[cfg(not(gmp_loom))]
mod table;

#[cfg(not(gmp_loom))]
pub(crate) use driver::{Backend, Netpoll, Wait};
#[cfg(not(gmp_loom))]
pub use guess::Guess;
pub use readiness::{Direction, Interest, Ready};
#[cfg(not(gmp_loom))]
pub use registration::{Kind, Registration};

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
