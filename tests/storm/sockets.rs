//! A storm over sockets: whatever is dropped, moved or waited for in another way, the bytes come, in their order.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gmp::net::{Interest, TcpListener, TcpStream};
use gmp::runtime::Builder;
use gmp::time::timeout;

use super::seeds::{Random, seeds};
use limit::limited;

#[path = "../support/limit.rs"]
mod limit;

const CONNECTIONS: u64 = 4;
const PROCS: u64 = 3;

/// Polls `future` so many times more than once, whether it was woken or not, and then drops it.
async fn some_polls<F: Future>(future: F, mut more: u64) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if more == 0 => Poll::Ready(None),
        Poll::Pending => {
            more -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// What came of an attempt that need not come to an end.
fn unless_blocked(result: io::Result<usize>) -> Option<usize> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result.unwrap()),
    }
}

/// The byte at this place of every stream.
fn byte(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

fn length(random: &mut Random) -> usize {
    let end = [1, 100, 5_000, 70_000][random.below(4) as usize];
    1 + random.below(end) as usize
}

/// Reads to the end, each time in another way.
async fn read(mut stream: TcpStream, mut random: Random, total: usize) {
    let mut buffer = vec![0; 70_000];
    let mut read = 0;
    loop {
        let len = length(&mut random);
        let some = &mut buffer[..len];
        let n = match random.below(8) {
            0 => some_polls(stream.read(some), random.below(3)).await.map(Result::unwrap),
            1 => {
                stream.readable().await.unwrap();
                unless_blocked(stream.try_read(some))
            }
            2 => timeout(Duration::from_micros(random.below(200)), stream.read(some)).await.ok().map(Result::unwrap),
            3 => {
                let ready = stream.ready(Interest::READABLE | Interest::WRITABLE);
                some_polls(ready, random.below(3)).await;
                None
            }
            4 => {
                let (mut moved, mut bytes) = (stream, std::mem::take(&mut buffer));
                let on_another_task = gmp::spawn(async move {
                    let n = moved.read(&mut bytes[..len]).await.unwrap();
                    (moved, bytes, n)
                });
                let n;
                (stream, buffer, n) = on_another_task.await.unwrap();
                Some(n)
            }
            5 => {
                some_polls(stream.peek(some), random.below(2)).await;
                None
            }
            6 => {
                let polled = pin!(stream.read(some)).poll(&mut Context::from_waker(Waker::noop()));
                match polled {
                    Poll::Ready(n) => Some(n.unwrap()),
                    Poll::Pending => Some(stream.read(some).await.unwrap()),
                }
            }
            _ => Some(stream.read(some).await.unwrap()),
        };
        if n == Some(0) {
            break;
        }
        let n = n.unwrap_or(0);
        assert!(buffer[..n].iter().enumerate().all(|(i, b)| *b == byte(read + i)), "other bytes from {read} on");
        read += n;
    }
    assert_eq!(read, total);
}

/// Writes so many bytes, and the end.
async fn write(mut stream: TcpStream, mut random: Random, total: usize) {
    let mut written = 0;
    while written < total {
        let bytes: Vec<u8> = (written..total).take(length(&mut random)).map(byte).collect();
        let n = match random.below(5) {
            0 => some_polls(stream.write(&bytes), random.below(3)).await.map(Result::unwrap),
            1 => {
                stream.writable().await.unwrap();
                unless_blocked(stream.try_write(&bytes))
            }
            2 => timeout(Duration::from_micros(random.below(100)), stream.write(&bytes)).await.ok().map(Result::unwrap),
            _ => Some(stream.write(&bytes).await.unwrap()),
        };
        written += n.unwrap_or(0);
        if random.below(20) == 0 {
            gmp::set_procs(1 + random.below(PROCS) as usize).unwrap();
        }
    }
    stream.close().await.unwrap();
    // The other end closes when it has read all.
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn r20_bytes_come_whatever_is_dropped_and_moved() {
    limited(|| {
        for seed in seeds(0..8) {
            let mut random = seed.random(0);
            let builder = Builder::new().procs(1 + random.below(PROCS) as usize);
            let builder = if random.below(4) == 0 { builder.portable_netpoll() } else { builder };
            let runtime = builder.build().unwrap();
            let total = 100_000 + random.below(100_000) as usize;
            let choices: Vec<_> = (1..=CONNECTIONS).map(|n| (seed.random(n), seed.random(100 + n))).collect();
            let all = runtime.spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut tasks = Vec::new();
                for (here, there) in choices {
                    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                    tasks.push(gmp::spawn(write(connected, there, total)));
                    tasks.push(gmp::spawn(read(listener.accept().await.unwrap().0, here, total)));
                }
                for task in tasks {
                    task.await.unwrap();
                }
            });
            runtime.block_on(all).unwrap();
            // Who takes a waker out of the netpoller counts it down a moment later.
            while runtime.metrics().io_waiters > 0 {
                std::thread::yield_now();
            }
        }
    });
}
