//! Texts that are being run: whoever asks the same meanwhile waits for that run.
//!
//! The right to run a text and to tell its answer, a [`FlightLeader`], travels with the text to the
//! worker. So an answer is told as soon as it is there, not when the rest of its batch is, and
//! also if its own client left during the run. A lead that is dropped before leaves those who
//! wait to themselves: one of them becomes the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::{Cache, CacheKey};
use crate::engine::{ItemError, ItemOutput};

/// How a run ended that others waited for.
#[derive(Debug, Clone)]
pub enum FlightOutcome {
    /// With an answer.
    Computed(Arc<ItemOutput>),
    /// With an error, which is its own request's: whoever waited runs the text by itself, and nobody waits for that.
    Failed,
    /// Not at all: its client left, or its time was over.
    Abandoned,
}

/// A place among those who wait for a run.
#[derive(Debug)]
pub struct FlightFollower(watch::Receiver<Option<FlightOutcome>>);

impl FlightFollower {
    /// Waits for the end of the run.
    pub async fn wait(mut self) -> FlightOutcome {
        // An error: the lead was dropped.
        let end = self.0.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().unwrap_or(FlightOutcome::Abandoned)
    }
}

/// The texts that are being run. Each has a permit, which bounds them.
#[derive(Debug, Default)]
pub(super) struct FlightTable {
    by_key: HashMap<CacheKey, Flight>,
    started_count: u64,
}

#[derive(Debug)]
struct Flight {
    id: u64,
    deadline: Instant,
    outcome: watch::Receiver<Option<FlightOutcome>>,
}

/// A lead's part of a flight.
#[derive(Debug)]
pub(super) struct FlightHandle {
    id: u64,
    outcome_sender: watch::Sender<Option<FlightOutcome>>,
}

impl FlightTable {
    pub(super) fn join(&self, key: CacheKey, deadline: Instant) -> Option<FlightFollower> {
        let flight = self.by_key.get(&key).filter(|flight| flight.deadline <= deadline)?;
        Some(FlightFollower(flight.outcome.clone()))
    }

    /// Takes the place of a flight that had more time, if there is one; those who wait for it stay with it.
    pub(super) fn start(&mut self, key: CacheKey, deadline: Instant) -> FlightHandle {
        self.started_count += 1;
        let (sender, end) = watch::channel(None);
        self.by_key.insert(key, Flight { id: self.started_count, deadline, outcome: end });
        FlightHandle { id: self.started_count, outcome_sender: sender }
    }

    fn remove(&mut self, key: CacheKey, number: u64) {
        if self.by_key.get(&key).is_some_and(|flight| flight.id == number) {
            self.by_key.remove(&key);
        }
    }
}

/// Whoever holds it runs the text.
#[derive(Debug)]
pub struct FlightLeader {
    cache: Arc<Cache>,
    key: CacheKey,
    flight: Option<FlightHandle>,
}

impl FlightLeader {
    pub(super) fn new(cache: Arc<Cache>, key: CacheKey, own: Option<FlightHandle>) -> Self {
        Self { cache, key, flight: own }
    }

    /// Keeps the answer, and tells it to those who wait.
    pub fn complete(mut self, answer: &Result<ItemOutput, ItemError>) {
        let end = match answer {
            Ok(answer) => {
                let answer = Arc::new(answer.clone());
                // First: whoever finds no flight any more must find the answer.
                self.cache.entries.insert(self.key, Arc::clone(&answer));
                FlightOutcome::Computed(answer)
            }
            // Those who wait may have more time.
            Err(ItemError::DeadlineExceeded) => FlightOutcome::Abandoned,
            Err(_) => FlightOutcome::Failed,
        };
        self.finish(end);
    }

    fn finish(&mut self, end: FlightOutcome) {
        if let Some(own) = self.flight.take() {
            self.cache.in_flight.lock().remove(self.key, own.id);
            own.outcome_sender.send_replace(Some(end));
        }
    }
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        self.finish(FlightOutcome::Abandoned);
    }
}
