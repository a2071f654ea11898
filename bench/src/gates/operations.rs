//! Operations that are gated in a form of their own: what a scenario makes of them depends on the clock.

use std::io;
use std::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use gmp::chan::{Receiver, Sender};
use gmp::net::TcpStream;
use gmp::time;
use socket2::{Domain, Socket, Type};

use super::{Counts, counted_in, counted_while};
use crate::peer::Peer;
use crate::peers::gmp::Gmp;
use crate::scenarios::{Batch, blocking};

/// Messages of a task to another, of which a hundred fit into the channel.
pub fn bounded(procs: usize, ops: u64) -> Counts {
    counted_in(&Gmp::without_rescue(procs), 1000, ops, |ops| messages(gmp::chan::bounded(100), ops))
}

/// Messages of a task to another, in a channel without a limit.
pub fn unbounded(procs: usize, ops: u64) -> Counts {
    counted_in(&Gmp::without_rescue(procs), 1000, ops, |ops| messages(gmp::chan::unbounded(), ops))
}

async fn messages((sender, receiver): (Sender<u64>, Receiver<u64>), ops: u64) {
    let task = gmp::spawn(async move {
        for number in 0..ops {
            sender.send(number).await.expect("the receiver lives");
        }
    });
    let mut received = 0;
    while receiver.recv().await.is_ok() {
        received += 1;
    }
    assert_eq!(received, ops);
    task.await.expect("it does not panic");
}

/// Tasks that a thread of its own spawns, which run when all have been: the only processor is held until then. Whether
/// a spawn finds it asleep would be a matter of the clock.
pub fn outside(procs: usize, ops: u64) -> Counts {
    let peer = Gmp::without_rescue(procs);
    let run = |ops| {
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (done, all_done) = mpsc::channel();
        drop(peer.runtime().spawn(async move {
            held.send(()).expect("the spawner waits");
            released.recv().expect("the spawner lives");
        }));
        is_held.recv().expect("the task lives");
        let left = Arc::new(AtomicU64::new(ops));
        for _ in 0..ops {
            let (left, done) = (left.clone(), done.clone());
            drop(peer.runtime().spawn(async move {
                if left.fetch_sub(1, Relaxed) == 1 {
                    done.send(()).expect("the spawner waits");
                }
            }));
        }
        release.send(()).expect("the task lives");
        all_done.recv().expect("the last task sends");
    };
    run(200);
    counted_while(&peer, || run(ops))
}

/// Tasks that sleep, which all wake at one look at the clock: it stands until they sleep.
pub fn fires(procs: usize, ops: u64) -> Counts {
    const AT_ONCE: u64 = 200;
    async fn batch(ops: u64) {
        time::pause();
        for _ in 0..ops / AT_ONCE {
            let mut rng = fastrand::Rng::with_seed(7);
            let nap = |_| gmp::spawn(time::sleep(Duration::from_micros(rng.u64(1..1_000_000))));
            let naps: Vec<_> = (0..AT_ONCE).map(nap).collect();
            gmp::task::yield_now().await;
            time::advance(Duration::from_secs(1)).await;
            for nap in naps {
                nap.await.expect("it does not panic");
            }
        }
        time::resume();
    }
    counted_in(&Gmp::without_rescue(procs), 2 * AT_ONCE, ops, batch)
}

/// Pairs of sockets.
const PAIRS: u64 = 64;
/// Bytes of a message, and of the buffer it is read into.
const BYTES: usize = 64;

/// Two ends of Unix sockets, with which the system is done when a call returns.
fn pair() -> io::Result<[net::TcpStream; 2]> {
    let (here, there) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    Ok([here.into(), there.into()])
}

async fn serve(stream: net::TcpStream) -> io::Result<()> {
    let mut stream = TcpStream::from_std(stream)?;
    let mut message = [0; BYTES];
    while stream.read(&mut message).await? == BYTES {
        stream.write_all(&message).await?;
    }
    Ok(())
}

async fn ask(stream: net::TcpStream, times: u64) -> io::Result<()> {
    let mut stream = TcpStream::from_std(stream)?;
    let mut message = [7; BYTES];
    for _ in 0..times {
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
    }
    Ok(())
}

/// An echo between tasks of one runtime.
pub fn echo(procs: usize, ops: u64) -> Counts {
    async fn batch(ops: u64) {
        let mut tasks = Vec::new();
        for _ in 0..PAIRS {
            let [here, there] = pair().expect("there are sockets");
            tasks.extend([gmp::spawn(serve(there)), gmp::spawn(ask(here, ops / PAIRS))]);
        }
        for task in tasks {
            task.await.expect("it does not panic").expect("the other end lives");
        }
    }
    counted_in(&Gmp::without_rescue(procs), PAIRS * 20, ops, batch)
}

/// Closures that are known to be brief. With the rescue: none is without.
pub fn brief(procs: usize, ops: u64) -> Counts {
    type Calls = blocking::Calls<0, 1>;
    let peer = Gmp::build(procs);
    let run = |ops| peer.block_on_inside(Calls::batch::<Gmp>(ops));
    // A busy machine makes some long, and then it takes more.
    for _ in 0..1000 {
        if counted_while(&peer, || run(Calls::OPS.1)).brief == Calls::OPS.1 {
            break;
        }
    }
    counted_while(&peer, || run(ops))
}
