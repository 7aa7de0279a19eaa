//! How texts share runs.

use std::time::Duration;

use super::serve_args::{SchedulerStrategy, ServeArgs};

/// What a run of several texts on a GPU may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuBatchLimits {
    /// Most tokens, padding included.
    pub max_tokens: usize,
    /// That number was chosen: else it is lowered to what pays.
    pub is_max_tokens_explicit: bool,
    /// Most texts.
    pub max_texts: usize,
    /// Longest predicted time.
    pub max_time: Duration,
}

/// How texts share runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// How they are chosen.
    pub scheduler: SchedulerStrategy,
    /// Most tokens of a run of several texts, padding included.
    pub max_tokens: usize,
    /// Most texts of a run.
    pub max_texts: usize,
    /// Longest predicted time of a run of several texts.
    pub max_time: Duration,
    /// The three of them on a GPU.
    pub gpu_limits: GpuBatchLimits,
    /// Threads that share one run.
    pub threads_per_batch: usize,
    /// A session is replaced after about this many runs; 0: never.
    pub recycle_after_batches: u64,
}

impl BatchSettings {
    pub(super) fn from_args(args: &ServeArgs) -> Self {
        Self {
            scheduler: args.scheduler,
            max_tokens: args.max_batch_tokens.unwrap_or(256),
            max_texts: args.max_batch_size.unwrap_or(64),
            max_time: args.max_batch_time.unwrap_or(Duration::from_millis(200)),
            gpu_limits: GpuBatchLimits {
                max_tokens: args.max_batch_tokens.unwrap_or(16_384),
                is_max_tokens_explicit: args.max_batch_tokens.is_some(),
                max_texts: args.max_batch_size.unwrap_or(512),
                max_time: args.max_batch_time.unwrap_or(Duration::from_millis(50)),
            },
            threads_per_batch: args.intra_op_threads,
            recycle_after_batches: args.max_session_batches,
        }
    }
}
