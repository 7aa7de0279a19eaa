//! A run that holds a permit, and how long it will still take.

use std::time::{Duration, Instant};

/// A run that has taken this many times its predicted time is stuck, or of a kind that cannot be predicted.
const OVERDUE_FACTOR: u32 = 4;
/// No run is called stuck before.
pub(super) const MIN_OVERDUE_TIME: Duration = Duration::from_millis(20);
/// A run may end sooner than predicted by this part of its time; threads that prepare are to be done by then.
const EARLY_END_DIVISOR: u32 = 25;

/// A run that holds a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveRun {
    /// The load of the model that runs.
    pub load_id: u64,
    /// When it began.
    pub started_at: Instant,
    /// How long it was to take.
    pub predicted_time: Duration,
}

impl ActiveRun {
    /// A run that begins now.
    #[must_use]
    pub fn new(load_id: u64, predicted_time: Duration) -> Self {
        Self { load_id, started_at: Instant::now(), predicted_time }
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.time_until_overdue(now).is_zero()
    }

    /// In what time it will be called stuck.
    pub(super) fn time_until_overdue(&self, now: Instant) -> Duration {
        MIN_OVERDUE_TIME
            .max(OVERDUE_FACTOR * self.predicted_time)
            .saturating_sub(now.saturating_duration_since(self.started_at))
    }

    /// In what time it may end at the earliest.
    pub(super) fn earliest_end(&self, now: Instant) -> Duration {
        self.remaining_time(now).saturating_sub(self.predicted_time / EARLY_END_DIVISOR)
    }

    /// How long it will still take. What is stuck will go on for as long as it has.
    pub(super) fn remaining_time(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.started_at);
        if self.is_overdue(now) { elapsed } else { self.predicted_time.saturating_sub(elapsed) }
    }
}
