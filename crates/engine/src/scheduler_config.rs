//! How a queue hands out its texts.

use std::time::Duration;

use super::scheduler::BatchingStrategy;
use super::scheduler::batch_search::BatchLimits;

/// How a queue hands out its texts.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// Which texts run together.
    pub strategy: BatchingStrategy,
    /// What a run may be at most.
    pub batch_limits: BatchLimits,
    /// Runs at a time.
    pub worker_count: usize,
    /// More work than this, for twice as long, is an overload.
    pub overload_threshold: Duration,
}
