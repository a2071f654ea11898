//! Sockets and signals on the default runtime.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use gmp_executor::runtime::block_on;

use crate::signal::unix::{SignalKind, signal};
use crate::{Interest, TcpListener, TcpSocket, TcpStream, UdpSocket, lookup_host};

const LOCAL: &str = "127.0.0.1:0";

async fn read(mut stream: impl AsyncRead + Unpin, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, buffer)).await
}

async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match read(&mut stream, &mut buffer).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

async fn write_all(mut stream: impl AsyncWrite + Unpin, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, bytes)).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

async fn close(mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut stream).poll_close(cx)).await
}

/// Both outputs; polls both whenever one is woken.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    poll_fn(|cx| {
        step(a.as_mut(), &mut a_done, cx);
        step(b.as_mut(), &mut b_done, cx);
        if a_done.is_some() && b_done.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (a_done.unwrap(), b_done.unwrap())
}

fn step<F: Future>(future: Pin<&mut F>, output: &mut Option<F::Output>, cx: &mut Context<'_>) {
    if output.is_none() {
        if let Poll::Ready(done) = future.poll(cx) {
            *output = Some(done);
        }
    }
}

async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(LOCAL).await?;
    let addr = listener.local_addr()?;
    let (accepted, connected) = both(listener.accept(), TcpStream::connect(addr)).await;
    let ((here, peer), there) = (accepted?, connected?);
    assert_eq!(peer, there.local_addr()?);
    assert_eq!(there.peer_addr()?, addr);
    Ok((here, there))
}

#[test]
fn r20_a_mebibyte_each_way_at_once() -> io::Result<()> {
    block_on(async {
        let (here, there) = pair().await?;
        let bytes: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8).collect();
        let payload = &bytes;
        let send = |stream| async move {
            write_all(stream, payload).await?;
            close(stream).await
        };
        let (sent, received) =
            both(both(send(&here), send(&there)), both(read_to_end(&here), read_to_end(&there))).await;
        sent.0.and(sent.1)?;
        assert!(received.0? == bytes && received.1? == bytes);
        Ok(())
    })
}

#[test]
fn r20_what_is_written_before_a_close_is_read() -> io::Result<()> {
    block_on(async {
        for len in [1, 100, 5000] {
            let (here, there) = pair().await?;
            write_all(&here, &vec![7; len]).await?;
            drop(here);
            assert_eq!(read_to_end(there).await?.len(), len);
        }
        Ok(())
    })
}

#[test]
fn r20_vectored_and_try_methods() -> io::Result<()> {
    block_on(async {
        let (mut here, mut there) = pair().await?;
        let n = poll_fn(|cx| Pin::new(&mut here).poll_write_vectored(cx, &[IoSlice::new(b"ab"), IoSlice::new(b"cde")]))
            .await?;
        assert_eq!(n, 5);
        let mut peeked = [0; 2];
        assert_eq!(there.peek(&mut peeked).await?, 2);
        assert_eq!(&peeked, b"ab");
        let (mut a, mut b) = ([0; 1], [0; 9]);
        let n = poll_fn(|cx| {
            Pin::new(&mut there).poll_read_vectored(cx, &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])
        })
        .await?;
        assert_eq!((n, &a, &b[..4]), (5, b"a", &b"bcde"[..]));
        assert_eq!(there.try_read(&mut b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(here.try_write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")])?, 2);
        there.readable().await?;
        assert_eq!(there.try_read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])?, 2);
        // More slices than the system takes at a time.
        let many: Vec<_> = (0..2000).map(|_| IoSlice::new(b"z")).collect();
        assert_eq!(here.try_write_vectored(&many)?, 1024);
        let ready = here.ready(Interest::READABLE | Interest::WRITABLE).await?;
        assert!(ready.is_writable(), "what the system cut was not short");
        Ok(())
    })
}

#[test]
fn r20_nothing_is_waited_for_to_fill_an_empty_buffer() -> io::Result<()> {
    block_on(async {
        let (mut here, there) = pair().await?;
        // Whether or not it is known that nothing is there.
        for _ in 0..2 {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let empty = |read: Poll<io::Result<usize>>| assert!(matches!(read, Poll::Ready(Ok(0))), "{read:?}");
            empty(Pin::new(&mut here).poll_read(&mut cx, &mut []));
            empty(Pin::new(&mut here).poll_read_vectored(&mut cx, &mut [IoSliceMut::new(&mut [])]));
            empty(here.poll_peek(&mut cx, &mut []));
            empty(pin!(here.peek(&mut [])).poll(&mut cx));
            empty(Poll::Ready(here.try_read(&mut [])));
            empty(Poll::Ready(here.try_read_vectored(&mut [])));
            assert!(here.poll_peek(&mut cx, &mut [0]).is_pending());
        }
        drop(there);
        Ok(())
    })
}

#[test]
fn r20_halves() -> io::Result<()> {
    block_on(async {
        let (mut here, there) = pair().await?;
        let (mut read_half, mut write_half) = here.split();
        write_all(&mut write_half, b"by reference").await?;
        write_all(&there, b"back").await?;
        let mut buffer = [0; 4];
        assert_eq!(read(&mut read_half, &mut buffer).await?, 4);
        let (reader, mut writer) = here.into_split();
        let (other_reader, other_writer) = there.into_split();
        let e = TcpStream::reunite(reader, other_writer).unwrap_err();
        let crate::tcp::ReuniteError(reader, other_writer) = e;
        let there = other_reader.reunite(other_writer).unwrap();
        // It ends the sending side, as its drop does.
        writer.shutdown().await?;
        assert_eq!(read_to_end(&there).await?, b"by reference");
        drop(writer);
        write_all(&there, b"still open").await?;
        drop(there);
        assert_eq!(read_to_end(reader).await?, b"still open");
        Ok(())
    })
}

#[test]
fn r11_a_refused_connection_is_an_error_and_the_next_address_is_tried() -> io::Result<()> {
    block_on(async {
        let closed = TcpListener::bind(LOCAL).await?.local_addr()?;
        let e = TcpStream::connect(closed).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused);
        let listener = TcpListener::bind(LOCAL).await?;
        let stream = TcpStream::connect(&[closed, listener.local_addr()?][..]).await?;
        assert_eq!(stream.peer_addr()?, listener.local_addr()?);
        let none: &[SocketAddr] = &[];
        assert_eq!(TcpStream::connect(none).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(TcpStream::connect("no port").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        Ok(())
    })
}

#[test]
fn r08_a_stream_of_std_that_is_connecting_is_not_writable() -> io::Result<()> {
    use socket2::{Domain, Socket, Type};

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&LOCAL.parse::<SocketAddr>().unwrap().into())?;
    listener.listen(0)?;
    // The system answers none that it has no room for.
    let mut answered = Vec::new();
    let connecting = loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let begun = socket.connect(&listener.local_addr()?);
        assert!(begun.is_ok() || begun.is_err_and(|e| e.raw_os_error() == Some(libc::EINPROGRESS)));
        match socket.peer_addr() {
            Ok(_) => answered.push(socket),
            Err(_) => break socket,
        }
    };
    block_on(async {
        let stream = TcpStream::from_std(connecting.into())?;
        let writable = pin!(stream.writable()).poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(writable.is_pending(), "nobody has answered yet");
        let stream = TcpStream::from_std(answered.remove(0).into())?;
        stream.writable().await
    })
}

/// What waits may move between threads.
const _: () = {
    const fn may_move<T: Send>(_: fn() -> T) {}
    const fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<TcpStream>();
    may_be_shared::<TcpListener>();
    may_be_shared::<UdpSocket>();
    may_be_shared::<crate::signal::unix::Signal>();
    may_be_shared::<gmp_executor::netpoll::Registration>();
    may_move(|| TcpStream::connect("localhost:80"));
    may_move(|| async { TcpListener::bind(("localhost", 80)).await?.accept().await });
    may_move(crate::signal::ctrl_c);
};

#[test]
fn r01_several_tasks_accept_from_one_listener() -> io::Result<()> {
    block_on(async {
        let listener = TcpListener::bind(LOCAL).await?;
        let addr = listener.local_addr()?;
        let accept = both(listener.accept(), listener.accept());
        let connect = both(TcpStream::connect(addr), TcpStream::connect(addr));
        let (accepted, connected) = both(accept, connect).await;
        let (a, b) = (accepted.0?.1, accepted.1?.1);
        let (c, d) = (connected.0?.local_addr()?, connected.1?.local_addr()?);
        assert!((a, b) == (c, d) || (a, b) == (d, c));
        Ok(())
    })
}

#[test]
fn r09_every_socket_is_closed_on_exec_and_does_not_block() -> io::Result<()> {
    fn check(socket: &impl AsRawFd) {
        // SAFETY: both calls only read flags of an open fd.
        let (fd, file) =
            unsafe { (libc::fcntl(socket.as_raw_fd(), libc::F_GETFD), libc::fcntl(socket.as_raw_fd(), libc::F_GETFL)) };
        assert!(fd & libc::FD_CLOEXEC != 0 && file & libc::O_NONBLOCK != 0, "{fd:#x} {file:#x}");
    }
    block_on(async {
        let socket = TcpSocket::new_v4()?;
        check(&socket);
        socket.set_reuseaddr(true)?;
        assert!(socket.reuseaddr()?);
        socket.bind(LOCAL.parse().unwrap())?;
        let listener = socket.listen(16)?;
        check(&listener);
        let (here, there) = pair().await?;
        check(&here);
        check(&there);
        here.set_nodelay(true)?;
        assert!(here.nodelay()?);
        let again = TcpStream::from_std(here.into_std()?)?;
        write_all(&again, b"over and back").await?;
        drop(again);
        assert_eq!(read_to_end(there).await?, b"over and back");
        Ok(())
    })
}

#[test]
fn r08_numbers_that_are_used_again_get_their_own_events() -> io::Result<()> {
    block_on(async {
        let listener = TcpListener::bind(LOCAL).await?;
        let addr = listener.local_addr()?;
        for n in 0..1000u32 {
            let (accepted, connected) = both(listener.accept(), TcpStream::connect(addr)).await;
            let (here, there) = (accepted?.0, connected?);
            let echo = async {
                let mut buffer = [0; 4];
                assert_eq!(read(&here, &mut buffer).await?, 4);
                write_all(&here, &buffer).await
            };
            let ask = async {
                write_all(&there, &n.to_ne_bytes()).await?;
                let mut buffer = [0; 4];
                assert_eq!(read(&there, &mut buffer).await?, 4);
                assert_eq!(buffer, n.to_ne_bytes());
                io::Result::Ok(())
            };
            let done = both(echo, ask).await;
            done.0.and(done.1)?;
        }
        Ok(())
    })
}

#[test]
fn r11_names_are_looked_up_on_another_thread_and_numbers_are_not() -> io::Result<()> {
    block_on(async {
        let addrs: Vec<_> = lookup_host(("localhost", 80)).await?.collect();
        assert!(addrs.iter().all(|a| a.ip().is_loopback() && a.port() == 80) && !addrs.is_empty());
        let mut numeric = pin!(lookup_host("[::1]:53"));
        let Poll::Ready(Ok(mut addrs)) = numeric.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()))
        else {
            panic!("a numeric address waits for nothing")
        };
        assert_eq!(addrs.next(), Some("[::1]:53".parse().unwrap()));
        Ok(())
    })
}

#[test]
fn r01_signals_reach_every_listener_and_add_up_to_one() -> io::Result<()> {
    fn raise(kind: SignalKind) {
        // SAFETY: the signal is handled, by the `Signal`s below.
        assert_eq!(unsafe { libc::raise(kind.as_raw_value()) }, 0);
    }
    block_on(async {
        let kind = SignalKind::user_defined1();
        let (mut a, mut b) = (signal(kind)?, signal(kind)?);
        raise(kind);
        raise(kind);
        assert_eq!(both(a.recv(), b.recv()).await, (Some(()), Some(())));
        assert!(pin!(a.recv()).poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        drop(b);
        raise(kind);
        assert_eq!(a.recv().await, Some(()));
        for kind in [libc::SIGKILL, libc::SIGSEGV, 0, -1] {
            assert_eq!(signal(SignalKind::from_raw(kind)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(signal(SignalKind::from_raw(4711)).is_err());
        Ok(())
    })
}

#[cfg(feature = "hyper")]
#[test]
fn r23_hypers_traits_read_into_memory_that_nobody_wrote() -> io::Result<()> {
    use std::mem::MaybeUninit;

    use hyper::rt::{Read, ReadBuf, Write};

    block_on(async {
        let (mut here, mut there) = pair().await?;
        assert!(Write::is_write_vectored(&here));
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(poll_fn(|cx| Write::poll_write_vectored(Pin::new(&mut here), cx, &slices)).await?, 4);
        poll_fn(|cx| Write::poll_shutdown(Pin::new(&mut here), cx)).await?;
        let mut memory = [MaybeUninit::uninit(); 3];
        let mut buffer = ReadBuf::uninit(&mut memory);
        poll_fn(|cx| Read::poll_read(Pin::new(&mut there), cx, buffer.unfilled())).await?;
        assert_eq!(buffer.filled(), b"abc");
        let mut buffer = ReadBuf::uninit(&mut memory);
        poll_fn(|cx| Read::poll_read(Pin::new(&mut there), cx, buffer.unfilled())).await?;
        poll_fn(|cx| Read::poll_read(Pin::new(&mut there), cx, buffer.unfilled())).await?;
        assert_eq!(buffer.filled(), b"d", "then the end");
        let mut none = ReadBuf::new(&mut []);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Read::poll_read(Pin::new(&mut here), &mut cx, none.unfilled()).is_ready(), "nothing to wait for");
        Ok(())
    })
}

#[test]
fn r20_datagrams_come_whole_and_an_error_is_no_end() -> io::Result<()> {
    block_on(async {
        let (a, b) = (UdpSocket::bind(LOCAL).await?, UdpSocket::bind(LOCAL).await?);
        let mut buffer = [0; 64];
        a.connect(b.local_addr()?).await?;
        // Two datagrams, read with buffers that are too long and too short: neither says that there are no more.
        let (received, sent) = both(b.recv_from(&mut buffer), a.send(b"first")).await;
        assert_eq!((received?, sent?), ((5, a.local_addr()?), 5));
        a.send(b"second").await?;
        a.send(b"third").await?;
        assert_eq!(b.peek_from(&mut buffer).await?.0, 6);
        assert_eq!(b.recv(&mut buffer[..1]).await?, 1);
        assert_eq!(b.recv(&mut buffer).await?, 5);
        assert_eq!(b.try_recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Nobody listens any more: the error comes once, and waiting goes on after it.
        let gone = b.local_addr()?;
        drop(b);
        a.send(b"to nobody").await?;
        assert_eq!(a.recv(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(pin!(a.recv(&mut buffer)).poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        let b = UdpSocket::bind(gone).await?;
        b.send_to(b"here again", a.local_addr()?).await?;
        assert_eq!(a.recv(&mut buffer).await?, 10);
        Ok(())
    })
}
