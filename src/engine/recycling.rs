//! New sessions for old: gives back what a runtime has gathered over very many runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::session::{Graph, Session};
use super::worker::Shop;

/// Where a worker gets its next session.
#[derive(Clone)]
pub struct Spare {
    graph: Arc<Mutex<Box<dyn Graph>>>,
    every: u64,
    left: u64,
}

impl Spare {
    /// For sessions that are replaced after about `every` runs; nothing if that is 0, and the graph is dropped.
    #[must_use]
    pub fn of(graph: Box<dyn Graph>, every: u64) -> Option<Self> {
        (every > 0).then(|| Self { graph: Arc::new(Mutex::new(graph)), every, left: 0 })
    }

    /// To be called by a worker after each run: replaces its session when its time has come.
    ///
    /// One worker of a model at a time makes a session, and keeps the old one if there is no new one to be had.
    pub fn after_run(&mut self, session: &mut Box<dyn Session>, shop: &Shop) {
        if self.left == 0 {
            self.left = jittered(self.every);
        }
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        let Some(mut graph) = self.graph.try_lock() else {
            // Somebody else makes one now: after the next run.
            self.left = 1;
            return;
        };
        match graph.session() {
            Ok(new) => {
                *session = new;
                shop.metrics.recycled();
            }
            Err(error) => tracing::warn!(model = shop.label, %error, "a worker keeps its session: there is no new one"),
        }
    }
}

/// Three to five quarters of a number: workers that began together do not stop together.
fn jittered(every: u64) -> u64 {
    let random = RandomState::new().build_hasher().finish();
    let half = every / 2;
    (every - half / 2 + random % (half + 1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::jittered;

    #[test]
    fn around_the_number_and_never_none() {
        for every in [1, 2, 3, 4, 100, 1_000_003] {
            for _ in 0..200 {
                let runs = jittered(every);
                assert!(runs >= 1 && runs >= every - every / 2 && runs <= every + every / 2, "{runs} for {every}");
            }
        }
        assert!((0..200).any(|_| jittered(1_000_000) != jittered(1_000_000)));
    }
}
