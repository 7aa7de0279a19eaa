//! Texts that are being run: a request that asks the same meanwhile waits for that run.
//!
//! `quick_cache` has guards for this (`get_value_or_guard_async`), but a request joins its guard whatever the deadlines are,
//! the guard borrows the cache and so cannot travel to a worker, and after an error its followers would run one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::key::CacheKey;
use crate::item_output::ItemOutput;

/// How a run ended that others waited for.
#[derive(Clone)]
pub enum FlightOutcome {
    /// With an answer.
    Computed(Arc<ItemOutput>),
    /// With an error, which is its own request's: each follower computes its item itself, without a flight.
    Failed,
    /// Not at all: its client left, or its time was over.
    Abandoned,
}

/// A place among those who wait for a run.
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
#[derive(Default)]
pub(super) struct FlightTable {
    by_key: HashMap<CacheKey, Flight>,
    started_count: u64,
}

struct Flight {
    id: u64,
    deadline: Instant,
    outcome: watch::Receiver<Option<FlightOutcome>>,
}

/// A leader's part of a flight.
pub(super) struct FlightHandle {
    id: u64,
    /// To the followers.
    pub(super) outcome_sender: watch::Sender<Option<FlightOutcome>>,
}

impl FlightTable {
    pub(super) fn join(&self, key: CacheKey, deadline: Instant) -> Option<FlightFollower> {
        let flight = self.by_key.get(&key).filter(|flight| flight.deadline <= deadline)?;
        Some(FlightFollower(flight.outcome.clone()))
    }

    /// Takes the place of a flight that had more time, if there is one; those who wait for it stay with it.
    pub(super) fn start(&mut self, key: CacheKey, deadline: Instant) -> FlightHandle {
        self.started_count += 1;
        let id = self.started_count;
        let (outcome_sender, outcome) = watch::channel(None);
        self.by_key.insert(key, Flight { id, deadline, outcome });
        FlightHandle { id, outcome_sender }
    }

    /// Removes a flight, unless another has taken its place.
    pub(super) fn remove(&mut self, key: CacheKey, handle: &FlightHandle) {
        if self.by_key.get(&key).is_some_and(|flight| flight.id == handle.id) {
            self.by_key.remove(&key);
        }
    }
}
