//! What the models share that run in one place: on the cores, or on the GPUs.
//!
//! A run on a GPU needs hardly any core, and a run on a core no GPU: neither kind waits for a permit of the other.

use std::sync::Arc;

use super::gpu_health::GpuFailureSignal;
use super::group_permits::GroupPermits;
use super::scheduler_config::SchedulerConfig;
use super::wait_estimator::WaitEstimator;

/// What the models share that run in one place.
#[derive(Clone)]
pub struct ExecutionGroup {
    /// Run permits over all its models.
    pub permits: GroupPermits,
    /// Predicts how long texts wait for them.
    pub wait_estimator: Arc<WaitEstimator>,
    /// How many texts may run at a time, and how the queues hand them out.
    pub scheduler_config: SchedulerConfig,
    /// A worker's session is replaced after about this many runs; 0: never.
    pub runs_per_session: u64,
    /// What is different on a GPU, if it is one.
    pub gpu: Option<GpuOptions>,
    /// Reports that nothing runs here any more.
    pub gpu_failure: GpuFailureSignal,
}

/// What is different on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Lengths of runs are rounded up to multiples of this: tensor cores work on tiles.
    pub pad_to_multiple_of: usize,
    /// Most tokens of a run are lowered to what pays.
    pub auto_max_tokens: bool,
}

impl ExecutionGroup {
    /// The group of the cores.
    #[must_use]
    pub fn new_cpu(scheduler_config: SchedulerConfig, runs_per_session: u64) -> Self {
        Self {
            permits: GroupPermits::new_cpu(scheduler_config.worker_count),
            wait_estimator: Arc::new(WaitEstimator::new(scheduler_config.worker_count)),
            scheduler_config,
            runs_per_session,
            gpu: None,
            gpu_failure: GpuFailureSignal::default(),
        }
    }

    /// The group of the GPUs; `scheduler_config.worker_count` is how many there are. Their sessions are never replaced:
    /// that is for the memory of cores, and would need room for two of them.
    #[must_use]
    pub fn new_gpu(scheduler_config: SchedulerConfig, gpu: GpuOptions) -> Self {
        Self {
            gpu: Some(gpu),
            permits: GroupPermits::new_gpu(scheduler_config.worker_count),
            ..Self::new_cpu(scheduler_config, 0)
        }
    }
}
