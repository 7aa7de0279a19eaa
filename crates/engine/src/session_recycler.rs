//! New sessions for old: gives back what a runtime has gathered over very many runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use predictd_text::manifest::ManifestError;

use super::backend::{Graph, Session};

/// Where a worker gets its next session.
#[derive(Clone)]
pub struct SessionRecycler {
    graph: Arc<Mutex<Box<dyn Graph>>>,
    runs_per_session: u64,
    runs_left: u64,
}

impl SessionRecycler {
    /// For sessions that are replaced after about so many runs; nothing if that is 0, and the graph is dropped.
    #[must_use]
    pub fn new(graph: Box<dyn Graph>, runs_per_session: u64) -> Option<Self> {
        (runs_per_session > 0).then(|| Self { graph: Arc::new(Mutex::new(graph)), runs_per_session, runs_left: 0 })
    }

    /// A worker calls this after each run: replaces its session when its time has come.
    ///
    /// One worker of a model at a time makes a session, and keeps the old one if no new one can be made: then the error.
    pub fn after_run(&mut self, session: &mut Box<dyn Session>) -> Option<Result<(), ManifestError>> {
        if self.runs_left == 0 {
            self.runs_left = add_jitter(self.runs_per_session);
        }
        self.runs_left -= 1;
        if self.runs_left > 0 {
            return None;
        }
        let Some(mut graph) = self.graph.try_lock() else {
            // Another worker makes one now: after the next run.
            self.runs_left = 1;
            return None;
        };
        Some(graph.create_session().map(|new_session| *session = new_session))
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
