//! One batch of some scenarios under criterion, for watching a change of one runtime's operation. Peers are compared by
//! the program, in interleaved rounds; here each runs by itself.

use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gmp_bench::peer::Peer;
use gmp_bench::peers::{gmp, smol, tokio};
use gmp_bench::scenarios::Batch;
use gmp_bench::scenarios::{blocking, channel, messages, mutex, spawn, switch, timer};

fn batch<B: Batch, P: Peer>(criterion: &mut Criterion, peer: &P) {
    let ops = B::OPS.0;
    let mut group = criterion.benchmark_group(B::INFO.name);
    group.throughput(Throughput::Elements(ops));
    group.bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|batches| {
            peer.block_on_inside(async move {
                let start = Instant::now();
                for _ in 0..batches {
                    B::batch::<P>(ops).await;
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

fn scheduler<P: Peer>(criterion: &mut Criterion) {
    let peer = P::build(1);
    batch::<spawn::Inside, P>(criterion, &peer);
    batch::<spawn::Chained, P>(criterion, &peer);
    batch::<switch::YieldOne, P>(criterion, &peer);
    batch::<switch::YieldMany, P>(criterion, &peer);
    batch::<switch::PingPong, P>(criterion, &peer);
    batch::<channel::OwnOne, P>(criterion, &peer);
    batch::<messages::Funnel<100>, P>(criterion, &peer);
    batch::<mutex::Contended, P>(criterion, &peer);
    batch::<timer::Churn, P>(criterion, &peer);
    batch::<blocking::Calls<0, 1>, P>(criterion, &peer);
}

criterion_group!(benches, scheduler::<gmp::Gmp>, scheduler::<tokio::MultiThread>, scheduler::<smol::Smol>);
criterion_main!(benches);
