//! A run through the runtime in which nothing panics, as a program: built with `panic = "abort"` it shows that gmp does
//! not need unwinding. `cargo run --profile abort --example smoke`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gmp::runtime::Builder;
use gmp::task::yield_now;

/// Counts its drops.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn main() {
    for procs in [1, 2, 4] {
        let dropped = Arc::new(AtomicUsize::new(0));
        let runtime = Builder::new().procs(procs).build().expect("a runtime");
        runtime.block_on(everything());
        runtime.block_on(runtime.spawn(everything())).expect("a task that ends");
        nested(&runtime);

        // What waits for nothing is dropped at shutdown.
        for _ in 0..1000 {
            let held = Held(dropped.clone());
            drop(runtime.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            }));
        }
        let handle = runtime.handle();
        drop(runtime);
        assert_eq!(dropped.load(Ordering::SeqCst), 1000);
        let refused = handle.spawn(async {});
        assert!(gmp::block_on(refused).unwrap_err().is_cancelled());
    }
    println!("all is well");
}

async fn everything() {
    let tasks: Vec<_> = (0..1000u64)
        .map(|n| {
            gmp::spawn(async move {
                yield_now().await;
                gmp::spawn(async move { n }).await.expect("a task that ends")
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.expect("a task that ends");
    }
    assert_eq!(sum, 499_500);

    let aborted = gmp::spawn(std::future::pending::<()>());
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());

    gmp::time::sleep(Duration::from_millis(2)).await;
    gmp::time::timeout(Duration::from_millis(2), std::future::pending::<()>()).await.expect_err("it never ends");
}

fn nested(runtime: &gmp::Runtime) {
    let task = runtime.spawn(async { gmp::block_on(async { gmp::spawn(async { 7 }).await }) });
    assert_eq!(runtime.block_on(task).expect("a task that ends").expect("a task that ends"), 7);
}
