//! How texts share runs.

use std::time::Duration;

use predictd_engine::scheduler::batch_search::{BatchLimits, CPU_SEARCH_RADIUS};
use predictd_engine::scheduler::{BatchingStrategy, Micros};

use super::serve_args::{SchedulerStrategy, ServeArgs};

/// How texts share runs.
#[derive(Debug, Clone, Copy)]
pub struct BatchSettings {
    /// How they are chosen.
    pub strategy: BatchingStrategy,
    /// What a run of several texts may be at most on the cores.
    pub cpu_limits: BatchLimits,
    /// The same on a GPU.
    pub gpu_limits: BatchLimits,
    /// The most tokens of a run were chosen: else they are lowered on a GPU to what pays.
    pub is_max_tokens_explicit: bool,
    /// A session is replaced after about this many runs; 0: never.
    pub recycle_after_batches: u64,
}

impl BatchSettings {
    pub(super) fn from_args(args: &ServeArgs) -> Self {
        let gpu_limits = batch_limits(args, 512, 16_384, Duration::from_millis(50));
        Self {
            strategy: match args.scheduler {
                SchedulerStrategy::Window => BatchingStrategy::Window,
                SchedulerStrategy::Single => BatchingStrategy::Single,
            },
            cpu_limits: batch_limits(args, 64, 256, Duration::from_millis(200)),
            // A run there may take many more texts than lie in reach on cores.
            gpu_limits: BatchLimits { search_radius: gpu_limits.max_rows.max(CPU_SEARCH_RADIUS), ..gpu_limits },
            is_max_tokens_explicit: args.max_batch_tokens.is_some(),
            recycle_after_batches: args.max_session_batches,
        }
    }
}

/// What was chosen, or these limits.
fn batch_limits(args: &ServeArgs, max_rows: usize, max_tokens: usize, max_time: Duration) -> BatchLimits {
    BatchLimits {
        max_rows: args.max_batch_size.unwrap_or(max_rows),
        max_tokens: args.max_batch_tokens.unwrap_or(max_tokens),
        max_time: Micros::try_from(args.max_batch_time.unwrap_or(max_time).as_micros()).unwrap_or(Micros::MAX),
        search_radius: CPU_SEARCH_RADIUS,
    }
}
