//! The netpoller on real sockets, each check on both backends.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::descriptor::{Descriptor, Waiter};
use super::readiness::{Drained, Event, Word};
use super::*;

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), count.into())
}

fn netpoll(backend: Backend) -> &'static Netpoll {
    let netpoll = Box::leak(Box::new(Netpoll::new()));
    netpoll.open(backend, None).unwrap();
    netpoll
}

/// A socket with its registration, which is dropped first.
struct Source<S> {
    registration: Registration,
    io: S,
}

fn register<S: AsRawFd>(netpoll: &'static Netpoll, io: S) -> Source<S> {
    // SAFETY: the fields of `Source` drop in order, the registration before the socket.
    let registration = unsafe { netpoll.register(io.as_raw_fd(), Kind::Open) }.unwrap();
    Source { registration, io }
}

fn unix_pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    (a, b)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, _) = listener.accept().unwrap();
    here.set_nonblocking(true).unwrap();
    (here, there)
}

/// Waits once, and wakes what it gives: how many.
fn turn(netpoll: &Netpoll, wait: Wait) -> usize {
    let mut ready = Vec::new();
    netpoll.wait(wait, &mut ready).unwrap();
    let count = ready.len();
    ready.into_iter().for_each(Waker::wake);
    count
}

fn poll_read<S>(source: &Source<S>, waker: &Waker, len: usize) -> Poll<io::Result<usize>>
where
    for<'a> &'a S: Read,
{
    let mut buffer = vec![0; len];
    source.registration.poll_transfer(
        Direction::Read,
        &mut Context::from_waker(waker),
        || (&source.io).read(&mut buffer),
        |&n| 0 < n && n < len,
    )
}

/// Whether an urgent byte is to be read.
fn has_urgent(io: &TcpStream) -> bool {
    let mut fd = libc::pollfd { fd: io.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    // SAFETY: there is one entry, and no time is waited.
    unsafe { libc::poll(&mut fd, 1, 0) == 1 }
}

/// Reads to the end, waiting in the netpoller whenever there is nothing to read.
fn read_to_end<S>(netpoll: &Netpoll, source: &Source<S>) -> usize
where
    for<'a> &'a S: Read,
{
    let mut sum = 0;
    loop {
        match poll_read(source, Waker::noop(), 4096) {
            Poll::Ready(Ok(0)) => return sum,
            Poll::Ready(n) => sum += n.unwrap(),
            Poll::Pending => {
                turn(netpoll, Wait::Forever);
            }
        }
    }
}

fn on_both(check: impl Fn(Backend)) {
    check(Backend::Native);
    check(Backend::Portable);
}

#[test]
fn r20_data_and_end_in_one_burst_before_the_first_poll() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = tcp_pair();
        let here = register(netpoll, here);
        there.write_all(&[7; 100]).unwrap();
        there.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(netpoll, &here), 100);
    });
}

#[test]
fn r20_data_and_end_in_one_burst_to_a_task_that_waits() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = tcp_pair();
        let here = register(netpoll, here);
        assert!(poll_read(&here, Waker::noop(), 4096).is_pending());
        there.write_all(&[7; 100]).unwrap();
        there.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(netpoll, &here), 100);
    });
}

#[test]
fn r20_the_end_comes_between_the_event_and_the_read() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = tcp_pair();
        let here = register(netpoll, here);
        let (woken, waker) = counting();
        assert!(poll_read(&here, &waker, 4096).is_pending());
        there.write_all(&[7; 100]).unwrap();
        while woken.get() == 0 {
            turn(netpoll, Wait::Forever);
        }
        there.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(netpoll, &here), 100);
    });
}

/// A read ends before the urgent byte, so that it is short with more behind it.
#[test]
fn r20_bytes_behind_an_urgent_one_need_no_further_event() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = tcp_pair();
        there.set_nodelay(true).unwrap();
        let here = register(netpoll, here);
        // What the registration itself tells of has been seen.
        assert!(poll_read(&here, Waker::noop(), 100).is_pending());
        turn(netpoll, Wait::Now);
        assert!(poll_read(&here, Waker::noop(), 100).is_pending());
        there.write_all(b"before").unwrap();
        // SAFETY: the byte is there.
        assert_eq!(unsafe { libc::send(there.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
        there.write_all(b"behind").unwrap();
        // All of it has come, so one event tells of it.
        while here.io.peek(&mut [0; 100]).is_err() || !has_urgent(&here.io) {
            std::thread::yield_now();
        }
        let mut read = 0;
        while read < 12 {
            match poll_read(&here, Waker::noop(), 100) {
                Poll::Ready(n) => read += n.unwrap(),
                Poll::Pending => {
                    let start = Instant::now();
                    turn(netpoll, Wait::Until(Duration::from_secs(10)));
                    assert!(start.elapsed() < Duration::from_secs(10), "{read} bytes, and no event of the others");
                }
            }
        }
    });
}

#[test]
fn r08_a_short_read_saves_the_call_that_would_block() {
    let netpoll = netpoll(Backend::Native);
    let (here, mut there) = unix_pair();
    let here = register(netpoll, here);
    there.write_all(&[7; 10]).unwrap();
    turn(netpoll, Wait::Forever);
    assert!(matches!(poll_read(&here, Waker::noop(), 100), Poll::Ready(Ok(10))));
    assert!(!here.registration.look().unwrap().is_readable(), "ten of a hundred bytes drained the stream");
    there.write_all(&[7; 100]).unwrap();
    turn(netpoll, Wait::Forever);
    assert!(matches!(poll_read(&here, Waker::noop(), 100), Poll::Ready(Ok(100))));
    assert!(here.registration.look().unwrap().is_readable(), "a full buffer proves nothing");
}

#[test]
fn r08_every_waiter_of_a_direction_is_woken_and_of_the_slot_the_last() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = unix_pair();
        let here = register(netpoll, here);
        assert!(poll_read(&here, Waker::noop(), 1).is_pending());
        let [first, second, slot_first, slot_last] = [(); 4].map(|()| counting());
        let mut a = pin!(here.registration.ready(Interest::READABLE));
        let mut b = pin!(here.registration.ready(Interest::READABLE));
        assert!(a.as_mut().poll(&mut Context::from_waker(&first.1)).is_pending());
        assert!(b.as_mut().poll(&mut Context::from_waker(&second.1)).is_pending());
        assert!(poll_read(&here, &slot_first.1, 1).is_pending());
        assert!(poll_read(&here, &slot_last.1, 1).is_pending());
        assert_eq!(netpoll.waiters(), 3);
        there.write_all(&[7]).unwrap();
        while netpoll.waiters() > 0 {
            turn(netpoll, Wait::Forever);
        }
        assert_eq!([first.0, second.0, slot_first.0, slot_last.0].map(|c| c.get()), [1, 1, 0, 1]);
        assert!(a.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(b.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

#[test]
fn r08_a_dropped_waiter_takes_no_readiness_with_it() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = unix_pair();
        let here = register(netpoll, here);
        assert!(poll_read(&here, Waker::noop(), 1).is_pending());
        turn(netpoll, Wait::Now);
        let (dropped, waker) = counting();
        let (kept, kept_waker) = counting();
        let mut a = Box::pin(here.registration.ready(Interest::READABLE));
        let mut b = Box::pin(here.registration.ready(Interest::READABLE));
        assert!(a.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(b.as_mut().poll(&mut Context::from_waker(&kept_waker)).is_pending());
        drop(a);
        there.write_all(&[7]).unwrap();
        while kept.get() == 0 {
            turn(netpoll, Wait::Forever);
        }
        assert_eq!(dropped.get(), 0, "it was unlinked");
        drop(b);
        let mut c = pin!(here.registration.ready(Interest::READABLE));
        assert!(c.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready(), "the woken one took nothing");
        assert_eq!(netpoll.waiters(), 0);
    });
}

/// Every way in which some of four waiters go, and in which order, leaves the others in line in theirs.
#[test]
fn r08_waiters_go_from_any_place_of_the_line() {
    struct Named(u32, Arc<Mutex<Vec<u32>>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    const WAITERS: u32 = 4;
    for ways in 0..WAITERS.pow(WAITERS) {
        let (descriptor, waiting, woken) = (Descriptor::new(0, 0), AtomicUsize::new(0), Arc::default());
        let generation = descriptor.begin(0, false);
        let mut line: Vec<_> = (0..WAITERS).map(|name| (name, Box::pin(Waiter::new(Interest::READABLE)))).collect();
        for (name, waiter) in &line {
            let waker = Arc::new(Named(*name, Arc::clone(&woken))).into();
            let poll = descriptor.poll_linked(generation, Interest::READABLE, waiter.as_ref(), &waker, &waiting, None);
            assert!(poll.is_pending());
        }
        // Each digit names one that goes; a name that is not there any more, nobody.
        for digit in 0..WAITERS {
            if let Some(at) = line.iter().position(|(name, _)| *name == ways / WAITERS.pow(digit) % WAITERS) {
                descriptor.unlink(line.remove(at).1.as_ref(), &waiting);
            }
        }
        assert_eq!(waiting.load(Ordering::Relaxed), line.len());
        let mut ready = Vec::new();
        let event = Event { readable: true, ..Event::default() };
        assert_eq!(descriptor.event(generation, event, &mut ready, None), line.len());
        ready.into_iter().for_each(Waker::wake);
        assert!(woken.lock().unwrap().iter().eq(line.iter().map(|(name, _)| name)), "{ways}");
    }
}

#[test]
fn r08_the_two_directions_wait_beside_each_other() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, mut there) = unix_pair();
        let here = register(netpoll, here);
        let chunk = [7; 4096];
        let (writer, writer_waker) = counting();
        let mut filled = 0;
        let write = |waker: &Waker| {
            here.registration.poll_transfer(
                Direction::Write,
                &mut Context::from_waker(waker),
                || (&here.io).write(&chunk),
                |&n| n < chunk.len(),
            )
        };
        while let Poll::Ready(n) = write(&writer_waker) {
            filled += n.unwrap();
        }
        let (reader, reader_waker) = counting();
        assert!(poll_read(&here, &reader_waker, 1).is_pending());
        there.write_all(&[7]).unwrap();
        while reader.get() == 0 {
            turn(netpoll, Wait::Forever);
        }
        assert!(matches!(poll_read(&here, Waker::noop(), 1), Poll::Ready(Ok(1))));
        let mut drained = vec![0; filled];
        there.read_exact(&mut drained).unwrap();
        if write(&writer_waker).is_pending() {
            let before = writer.get();
            while writer.get() == before {
                turn(netpoll, Wait::Forever);
            }
            assert!(write(&writer_waker).is_ready());
        }
    });
}

#[test]
fn r08_stale_event_is_dropped() {
    let netpoll = netpoll(Backend::Native);
    // One registration after the other until the first index comes round: from then on its first key is stale.
    let (first, _there) = unix_pair();
    let first = register(netpoll, first);
    let (index, generation) = first.registration.key();
    drop(first);
    let (again, _there) = loop {
        let (here, there) = unix_pair();
        let here = register(netpoll, here);
        if here.registration.key().0 == index {
            break (here, there);
        }
    };
    let (woken, waker) = counting();
    assert!(poll_read(&again, &waker, 1).is_pending());
    let mut ready = Vec::new();
    assert_eq!(netpoll.late_event(index, generation, &mut ready), 0);
    assert!(!again.registration.look().unwrap().is_readable());
    assert_eq!(netpoll.late_event(index, generation.wrapping_add(1), &mut ready), 1);
    ready.into_iter().for_each(Waker::wake);
    assert_eq!(woken.get(), 1);
}

/// Its waits would look for an hour before they sleep, if they did not know better.
#[cfg(target_os = "linux")]
fn looking_for_an_hour() -> &'static Netpoll {
    let netpoll: &'static Netpoll = Box::leak(Box::new(Netpoll::new()));
    netpoll.open(Backend::Native, Some(Duration::from_secs(3600))).unwrap();
    // The first waits sleep.
    for _ in 0..64 {
        netpoll.wake_blocked();
        assert_eq!(turn(netpoll, Wait::Forever), 0);
    }
    netpoll
}

/// Waits on a thread of its own; what is given waits for what the wait gives.
#[cfg(target_os = "linux")]
fn waiting(netpoll: &'static Netpoll, wait: Wait) -> impl FnOnce() -> usize {
    let (tells, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tells.send(turn(netpoll, wait)));
    move || told.recv_timeout(Duration::from_secs(100)).expect("the wait has not ended")
}

#[cfg(target_os = "linux")]
#[test]
fn r08_a_wait_looks_when_it_is_its_turn() {
    let netpoll: &'static Netpoll = Box::leak(Box::new(Netpoll::new()));
    netpoll.open(Backend::Native, Some(Duration::from_millis(1))).unwrap();
    let mut slept = 0;
    while netpoll.sleeps_before_a_look() > 0 {
        netpoll.wake_blocked();
        assert_eq!(turn(netpoll, Wait::Forever), 0);
        slept += 1;
    }
    // If the last of them was off the CPU, it is some others' turn to say how long sleep is.
    assert_eq!(slept % 65, 64);
    assert_eq!(turn(netpoll, Wait::Until(Duration::from_millis(2))), 0);
    assert!(netpoll.sleeps_before_a_look() >= 64, "it was in vain");
}

#[cfg(target_os = "linux")]
#[test]
fn r01_an_event_and_a_break_end_a_wait_that_looks() {
    let netpoll = looking_for_an_hour();
    let (here, mut there) = unix_pair();
    let here = register(netpoll, here);
    // It can be written to.
    turn(netpoll, Wait::Now);
    let (woken, waker) = counting();
    assert!(poll_read(&here, &waker, 1).is_pending());
    // It looks, or if it was off the CPU it has gone to sleep.
    let ends = waiting(netpoll, Wait::Forever);
    there.write_all(&[7]).unwrap();
    assert_eq!((ends(), woken.get()), (1, 1));
    // Another one, as what the first has found makes it sleep for some waits.
    let netpoll = looking_for_an_hour();
    assert_eq!(netpoll.sleeps_before_a_look(), 0);
    let ends = waiting(netpoll, Wait::Forever);
    netpoll.wake_blocked();
    assert_eq!(ends(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn r07_a_wait_that_ends_sooner_than_its_looks_does_not_look() {
    let netpoll = looking_for_an_hour();
    let ends = waiting(netpoll, Wait::Until(Duration::from_micros(1500)));
    // It is still the turn of the next one.
    assert_eq!((ends(), netpoll.sleeps_before_a_look()), (0, 0));
}

#[test]
fn r08_generation_and_tick_wrap() {
    let netpoll: &'static Netpoll = Box::leak(Box::new(Netpoll::starting_at(u32::MAX, u32::MAX)));
    netpoll.open(Backend::Native, None).unwrap();
    for round in 0..3 {
        let (mut here, mut there) = (None, None);
        for _ in 0..64 {
            let (a, b) = unix_pair();
            here = Some(register(netpoll, a));
            there = Some(b);
        }
        let (here, mut there) = (here.unwrap(), there.unwrap());
        assert_eq!(here.registration.key(), (63, u32::MAX.wrapping_add(round)));
        assert!(poll_read(&here, Waker::noop(), 1).is_pending());
        there.write_all(&[7; 3]).unwrap();
        drop(there);
        assert_eq!(read_to_end(netpoll, &here), 3);
    }
    let word = Word::new(0, u32::MAX);
    let generation = word.begin(true);
    let seen = word.load(generation).unwrap();
    assert!(word.event(generation, Event { readable: true, ..Event::default() }), "the tick wraps, not the generation");
    word.clear(seen, Interest::READABLE, Drained::WouldBlock);
    assert!(word.load(generation).unwrap().is_readable(), "an event came since");
}

#[test]
fn r08_only_what_was_seen_before_the_call_is_cleared() {
    let word = Word::new(0, 0);
    let generation = word.begin(true);
    let seen = word.load(generation).unwrap();
    word.clear(seen, Interest::READABLE, Drained::WouldBlock);
    let now = word.load(generation).unwrap();
    assert!(!now.is_readable() && now.is_writable());
    assert!(word.event(generation, Event { read_closed: true, ..Event::default() }));
    let seen = word.load(generation).unwrap();
    word.clear(seen, Interest::READABLE | Interest::WRITABLE, Drained::Short);
    assert!(word.load(generation).unwrap().is_writable(), "with both asked for, the end of one keeps both");
    word.clear(seen, Interest::WRITABLE, Drained::Short);
    word.clear(seen, Interest::READABLE, Drained::Short);
    let now = word.load(generation).unwrap();
    assert!(now.is_readable() && now.is_read_closed() && !now.is_writable());
    word.clear(now, Interest::READABLE, Drained::WouldBlock);
    assert!(word.load(generation).unwrap().is_read_closed(), "the end stays seen");
    word.end();
    assert_eq!(word.load(generation), None);
    assert!(!word.event(generation, Event { readable: true, ..Event::default() }));
}

#[test]
fn r01_no_break_is_lost_in_a_storm_of_polls() {
    const BREAKS: usize = 2000;
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (published, seen, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while seen.load(Ordering::Relaxed) < BREAKS {
                    turn(netpoll, Wait::Forever);
                    seen.store(published.load(Ordering::Acquire), Ordering::Release);
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    turn(netpoll, Wait::Now);
                }
            });
            for n in 1..=BREAKS {
                published.store(n, Ordering::Release);
                netpoll.wake_blocked();
                while seen.load(Ordering::Acquire) < n {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn r01_a_poll_leaves_the_break_to_the_blocked_thread() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        netpoll.wake_blocked();
        netpoll.wake_blocked();
        turn(netpoll, Wait::Now);
        turn(netpoll, Wait::Now);
        turn(netpoll, Wait::Forever);
        netpoll.wake_blocked();
        turn(netpoll, Wait::Forever);
    });
}

#[test]
fn r07_a_wait_is_never_early() {
    let wait_all = |netpoll: &Netpoll| {
        for time in [1, 300_000, 1_000_000, 1_000_001, 2_700_000].map(Duration::from_nanos) {
            let start = Instant::now();
            turn(netpoll, Wait::Until(time));
            assert!(start.elapsed() >= time, "a wait of {time:?} took {:?}", start.elapsed());
        }
    };
    on_both(|backend| wait_all(netpoll(backend)));
    let old_kernel = netpoll(Backend::Native);
    old_kernel.forget_pwait2();
    wait_all(old_kernel);
    // The timer that has fired leaves nothing behind for others to see.
    old_kernel.wake_blocked();
    turn(old_kernel, Wait::Forever);
}

#[test]
fn r11_a_signal_ends_a_wait_without_an_error() {
    extern "C" fn nothing(_: libc::c_int) {}
    on_both(|backend| {
        let netpoll = netpoll(backend);
        // SAFETY: the handler does nothing, and nobody else in this process uses the signal. Without SA_RESTART, though
        // the wait would not be restarted in any case.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
        }
        let done = AtomicBool::new(false);
        // SAFETY: it has no conditions.
        let waiter = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: the thread of the test outlives this one, which the scope joins.
                    unsafe { libc::pthread_kill(waiter, libc::SIGUSR2) };
                    std::thread::yield_now();
                    // polling waits on after a signal.
                    if backend == Backend::Portable {
                        netpoll.wake_blocked();
                    }
                }
            });
            for _ in 0..100 {
                turn(netpoll, Wait::Forever);
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn r14_closing_wakes_all_who_wait_with_an_error() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (here, _there) = unix_pair();
        let here = register(netpoll, here);
        let (slot, slot_waker) = counting();
        assert!(poll_read(&here, &slot_waker, 1).is_pending());
        let (queued, queued_waker) = counting();
        let mut wait = pin!(here.registration.ready(Interest::READABLE));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&queued_waker)).is_pending());
        netpoll.close();
        assert_eq!([slot.get(), queued.get(), netpoll.waiters()], [1, 1, 0]);
        let Poll::Ready(Err(e)) = wait.poll(&mut Context::from_waker(Waker::noop())) else { panic!("no error") };
        assert_eq!(e.to_string(), "runtime shut down");
        assert!(matches!(poll_read(&here, Waker::noop(), 1), Poll::Ready(Err(_))));
        assert!(netpoll.wait(Wait::Now, &mut Vec::new()).is_err());
        netpoll.wake_blocked();
        let (other, _there) = unix_pair();
        // SAFETY: there is no registration that could outlive the fd.
        assert!(unsafe { netpoll.register(other.as_raw_fd(), Kind::Open) }.is_err());
    });
}

#[test]
fn r09_a_registration_of_an_ended_runtime_touches_nothing() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let (old, _there) = unix_pair();
        let old = register(netpoll, old);
        let mut linked = Box::pin(old.registration.ready(Interest::READABLE));
        assert!(poll_read(&old, Waker::noop(), 1).is_pending());
        assert!(linked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        netpoll.close();
        netpoll.wake_blocked();
        netpoll.open(backend, None).unwrap();
        // The next runtime uses every descriptor there is, that of the old registration too.
        let pairs: Vec<_> = (0..64).map(|_| unix_pair()).collect();
        let new: Vec<_> = pairs.into_iter().map(|(here, there)| (register(netpoll, here), there)).collect();
        assert!(new.iter().any(|(here, _)| here.registration.key().0 == old.registration.key().0));
        let (woken, waker) = counting();
        for (here, _) in &new {
            assert!(poll_read(here, &waker, 1).is_pending());
        }
        drop(linked);
        drop(old);
        assert_eq!(netpoll.waiters(), 64);
        for (_, there) in &new {
            (&*there).write_all(&[7]).unwrap();
        }
        while woken.get() < 64 {
            turn(netpoll, Wait::Forever);
        }
        // A break that found no poller has not used up the breaks of this one.
        netpoll.wake_blocked();
        turn(netpoll, Wait::Forever);
    });
}

#[test]
fn r11_what_cannot_be_registered_says_what_to_do() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        // SAFETY: there is no registration that could outlive the fd.
        let e = unsafe { netpoll.register(file.as_raw_fd(), Kind::Open) }.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::Unsupported);
        assert!(e.to_string().contains("a thread of its own"), "{e}");
        let (here, _there) = unix_pair();
        let here = register(netpoll, here);
        // SAFETY: as above.
        let e = unsafe { netpoll.register(here.io.as_raw_fd(), Kind::Open) }.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AlreadyExists);
        assert!(e.to_string().contains("try_clone"), "{e}");
    });
}

#[test]
fn r08_a_connection_under_way_is_not_ready() {
    let netpoll = netpoll(Backend::Native);
    let (here, _there) = unix_pair();
    // SAFETY: the registration is declared after the socket, so it drops before it.
    let registration = unsafe { netpoll.register(here.as_raw_fd(), Kind::Connecting) }.unwrap();
    assert!(registration.look().unwrap().is_empty());
    turn(netpoll, Wait::Forever);
    assert!(registration.look().unwrap().is_writable());
}

#[test]
fn r05_sockets_count_until_they_are_dropped_or_the_runtime_ends() {
    on_both(|backend| {
        let netpoll = netpoll(backend);
        assert!(!netpoll.has_sockets());
        let (a, b) = unix_pair();
        b.set_nonblocking(true).unwrap();
        let (a, b) = (register(netpoll, a), register(netpoll, b));
        drop(a);
        assert!(netpoll.has_sockets());
        netpoll.close();
        assert!(!netpoll.has_sockets());
        drop(b);
        assert!(!netpoll.has_sockets(), "it is not counted twice");
    });
}

/// Not what is behind it, which is under locks.
#[test]
fn r24_a_registration_shows_its_key_only() {
    let source = register(netpoll(Backend::Native), unix_pair().0);
    let (index, generation) = source.registration.key();
    let shown = format!("Registration {{ index: {index}, generation: {generation}, .. }}");
    assert_eq!(format!("{:?}", source.registration), shown);
}
