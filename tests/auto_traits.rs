//! What the types of the façade are: `Send`, `Sync`, `Unpin`. Losing one breaks users, gaining a wrong one is unsound.

use std::marker::{PhantomData, PhantomPinned};
use std::rc::Rc;

/// A probe for each trait: the trait's `HOLDS` is found only if the bound of the inherent one does not hold.
macro_rules! probes {
    ($($bound:ident $probe:ident)*) => {
        $(struct $probe<T: ?Sized>(PhantomData<T>);

        impl<T: ?Sized + $bound> $probe<T> {
            const HOLDS: bool = true;
        }

        impl<T: ?Sized> Otherwise for $probe<T> {})*
    };
}

trait Otherwise {
    const HOLDS: bool = false;
}

probes! { Send IsSend Sync IsSync Unpin IsUnpin }

macro_rules! table {
    ($($type:ty: $send:literal $sync:literal $unpin:literal,)*) => {
        $(const _: () = {
            assert!(<IsSend<$type>>::HOLDS == $send, concat!("Send of ", stringify!($type)));
            assert!(<IsSync<$type>>::HOLDS == $sync, concat!("Sync of ", stringify!($type)));
            assert!(<IsUnpin<$type>>::HOLDS == $unpin, concat!("Unpin of ", stringify!($type)));
        };)*
    };
}

/// `Send` and not `Sync`.
type Cell = std::cell::Cell<u8>;

table! {
    //                                               Send  Sync  Unpin
    gmp::Builder:                                    true  true  true,
    gmp::Runtime:                                    true  true  true,
    gmp::Handle:                                     true  true  true,
    gmp::runtime::EnterGuard:                        false false true,
    gmp::runtime::FoundIn:                           true  true  true,
    gmp::runtime::LeakedTask:                        true  true  true,
    gmp::runtime::Leftover:                          true  true  true,
    gmp::runtime::Metrics:                           true  true  true,
    gmp::runtime::StuckIn:                           true  true  true,
    gmp::runtime::StuckPoll:                         true  true  true,
    gmp::task::JoinHandle<u8>:                       true  true  true,
    gmp::task::JoinHandle<Cell>:                     true  true  true,
    gmp::task::JoinHandle<PhantomPinned>:            true  true  true,
    gmp::task::JoinHandle<Rc<u8>>:                   false false true,
    gmp::task::LocalSet:                             false false true,
    gmp::task::LocalEnterGuard:                      false false true,
    gmp::task::AbortHandle:                          true  true  true,
    gmp::task::JoinError:                            true  true  true,
    gmp::task::Id:                                   true  true  true,
    gmp::task::YieldNow:                             true  true  true,
    gmp::task::coop::Unconstrained<u8>:              true  true  true,
    gmp::task::coop::Unconstrained<Rc<u8>>:          false false true,
    gmp::task::coop::Unconstrained<PhantomPinned>:   true  true  false,
    gmp::time::Instant:                              true  true  true,
    gmp::time::Interval:                             true  true  true,
    gmp::time::MissedTickBehavior:                   true  true  true,
    gmp::time::Sleep:                                true  true  false,
    gmp::time::Timeout<u8>:                          true  true  false,
    gmp::time::Timeout<Cell>:                        true  false false,
    gmp::time::Timeout<Rc<u8>>:                      false false false,
    gmp::time::error::Elapsed:                       true  true  true,
    gmp::chan::Sender<Cell>:                         true  true  true,
    gmp::chan::Sender<Rc<u8>>:                       false false true,
    gmp::chan::Sender<PhantomPinned>:                true  true  true,
    gmp::chan::Receiver<Cell>:                       true  true  true,
    gmp::chan::Receiver<Rc<u8>>:                     false false true,
    gmp::chan::Receiver<PhantomPinned>:              true  true  true,
    gmp::chan::Send<'static, Cell>:                  true  true  false,
    gmp::chan::Send<'static, Rc<u8>>:                false false false,
    gmp::chan::Recv<'static, Cell>:                  true  true  false,
    gmp::chan::Recv<'static, Rc<u8>>:                false false false,
    gmp::chan::Closed<'static, Cell>:                true  true  false,
    gmp::chan::SendError<Cell>:                      true  false true,
    gmp::chan::TrySendError<Cell>:                   true  false true,
    gmp::chan::RecvError:                            true  true  true,
    gmp::chan::TryRecvError:                         true  true  true,
    gmp::sync::Mutex<Cell>:                          true  true  true,
    gmp::sync::Mutex<Rc<u8>>:                        false false true,
    gmp::sync::Mutex<PhantomPinned>:                 true  true  false,
    gmp::sync::Lock<'static, Cell>:                  true  true  false,
    gmp::sync::Lock<'static, Rc<u8>>:                false false false,
    gmp::sync::MutexGuard<'static, u8>:              true  true  true,
    gmp::sync::MutexGuard<'static, Cell>:            true  false true,
    gmp::sync::MutexGuard<'static, Rc<u8>>:          false false true,
    gmp::sync::OwnedMutexGuard<u8>:                  true  true  true,
    gmp::sync::OwnedMutexGuard<Cell>:                true  false true,
    gmp::sync::OwnedMutexGuard<Rc<u8>>:              false false true,
    gmp::sync::TryLockError:                         true  true  true,
    gmp::sync::oneshot::Sender<u8>:                  true  true  true,
    gmp::sync::oneshot::Sender<Cell>:                true  true  true,
    gmp::sync::oneshot::Sender<PhantomPinned>:       true  true  true,
    gmp::sync::oneshot::Sender<Rc<u8>>:              false false true,
    gmp::sync::oneshot::Receiver<u8>:                true  true  true,
    gmp::sync::oneshot::Receiver<Cell>:              true  true  true,
    gmp::sync::oneshot::Receiver<PhantomPinned>:     true  true  true,
    gmp::sync::oneshot::Receiver<Rc<u8>>:            false false true,
    gmp::net::TcpListener:                           true  true  true,
    gmp::net::TcpSocket:                             true  true  true,
    gmp::net::TcpStream:                             true  true  true,
    gmp::net::tcp::ReadHalf<'static>:                true  true  true,
    gmp::net::tcp::WriteHalf<'static>:               true  true  true,
    gmp::net::tcp::OwnedReadHalf:                    true  true  true,
    gmp::net::tcp::OwnedWriteHalf:                   true  true  true,
    gmp::net::tcp::ReuniteError:                     true  true  true,
    gmp::net::UdpSocket:                             true  true  true,
    gmp::net::Interest:                              true  true  true,
    gmp::net::Ready:                                 true  true  true,
    gmp::signal::unix::Signal:                       true  true  true,
    gmp::signal::unix::SignalKind:                   true  true  true,
    gmp::rt::GmpExecutor:                            true  true  true,
    gmp::rt::GmpTimer:                               true  true  true,
}

#[test]
fn r23_the_table_is_what_the_compiler_says() {
    // The table is checked when this file is compiled; this shows that its probe can say no.
    const { assert!(!<IsSend<Rc<u8>>>::HOLDS && !<IsSync<Cell>>::HOLDS && !<IsUnpin<PhantomPinned>>::HOLDS) };
}

/// What a closure for `catch_unwind` may hold.
const _: () = {
    const fn is_unwind_safe<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    const fn is_unwind_safe_by_value<T: std::panic::UnwindSafe>() {}
    is_unwind_safe::<gmp::Runtime>();
    is_unwind_safe::<gmp::Handle>();
    is_unwind_safe::<gmp::runtime::EnterGuard>();
    is_unwind_safe::<gmp::task::JoinHandle<u8>>();
    is_unwind_safe::<gmp::task::AbortHandle>();
    is_unwind_safe::<gmp::chan::Sender<Cell>>();
    is_unwind_safe::<gmp::chan::Receiver<Cell>>();
    is_unwind_safe_by_value::<gmp::chan::Send<'static, u8>>();
    is_unwind_safe_by_value::<gmp::chan::Recv<'static, Cell>>();
    is_unwind_safe_by_value::<gmp::chan::Closed<'static, Cell>>();
    is_unwind_safe::<gmp::net::TcpListener>();
    is_unwind_safe::<gmp::net::TcpStream>();
    is_unwind_safe::<gmp::net::UdpSocket>();
};
