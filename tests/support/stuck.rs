//! Polls that are stuck until others have done something.

use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How a poll is stuck until `done` hears from everybody.
#[derive(Clone, Copy, Debug)]
pub enum Stuck {
    Computing,
    Sleeping,
    Waiting,
}

pub const KINDS: [Stuck; 3] = [Stuck::Computing, Stuck::Sleeping, Stuck::Waiting];

impl Stuck {
    /// Inside a poll: goes on only when `count` messages have come.
    pub fn until(self, done: &Receiver<()>, count: usize) {
        let mut heard = 0;
        while heard < count {
            match self {
                Stuck::Computing => match done.try_recv() {
                    Ok(()) => heard += 1,
                    Err(_) => std::hint::spin_loop(),
                },
                Stuck::Sleeping => {
                    std::thread::sleep(Duration::from_millis(50));
                    heard += done.try_iter().count();
                }
                Stuck::Waiting => {
                    done.recv().unwrap();
                    heard += 1;
                }
            }
        }
    }
}
