//! New sessions for old: gives back what a runtime has gathered over very many runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::backend::{Graph, Session};
use super::worker::ModelRunner;

/// Where a worker gets its next session.
#[derive(Clone)]
pub struct SessionRecycler {
    graph: Arc<Mutex<Box<dyn Graph>>>,
    runs_per_session: u64,
    runs_left: u64,
}

impl SessionRecycler {
    /// For sessions that are replaced after about `every` runs; nothing if that is 0, and the graph is dropped.
    #[must_use]
    pub fn new(graph: Box<dyn Graph>, every: u64) -> Option<Self> {
        (every > 0).then(|| Self { graph: Arc::new(Mutex::new(graph)), runs_per_session: every, runs_left: 0 })
    }

    /// To be called by a worker after each run: replaces its session when its time has come.
    ///
    /// One worker of a model at a time makes a session, and keeps the old one if there is no new one to be had.
    pub fn record_run(&mut self, session: &mut Box<dyn Session>, shop: &ModelRunner) {
        if self.runs_left == 0 {
            self.runs_left = add_jitter(self.runs_per_session);
        }
        self.runs_left -= 1;
        if self.runs_left > 0 {
            return;
        }
        let Some(mut graph) = self.graph.try_lock() else {
            // Somebody else makes one now: after the next run.
            self.runs_left = 1;
            return;
        };
        match graph.create_session() {
            Ok(new) => {
                *session = new;
                shop.metrics.record_recycled_session();
            }
            Err(error) => {
                tracing::warn!(model = shop.label, %error, "session recycling failed; worker keeps its session");
            }
        }
    }
}

/// Three to five quarters of a number: workers that began together do not stop together.
fn add_jitter(every: u64) -> u64 {
    let random = RandomState::new().build_hasher().finish();
    let half = every / 2;
    (every - half / 2 + random % (half + 1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::add_jitter;

    #[test]
    fn add_jitter_stays_near_interval_and_above_zero() {
        for every in [1, 2, 3, 4, 100, 1_000_003] {
            for _ in 0..200 {
                let runs = add_jitter(every);
                assert!(runs >= 1 && runs >= every - every / 2 && runs <= every + every / 2, "{runs} for {every}");
            }
        }
        assert!((0..200).any(|_| add_jitter(1_000_000) != add_jitter(1_000_000)));
    }
}
