//! Workers that take turns with each other: those of the cores, and those of the GPUs.
//!
//! A run on a GPU needs hardly any core, and a run on a core no GPU: neither kind waits for the other's turn.

use std::sync::Arc;
use std::time::Duration;

use super::gpu_health::GpuFailureSignal;
use super::queue::SchedulerConfig;
use super::run_permits::{PermitPool, RunId};
use super::wait_estimator::WaitEstimator;

/// What the models share that run in one place.
#[derive(Debug, Clone)]
pub struct ExecutionGroup {
    /// Run permits over all its models.
    pub permits: Arc<GroupPermits>,
    /// What waits for them.
    pub wait_estimator: Arc<WaitEstimator>,
    /// How many texts may run at a time, and how the queues hand them out.
    pub scheduler_config: SchedulerConfig,
    /// A worker's session is replaced after about this many runs; 0: never.
    pub runs_per_session: u64,
    /// What is different on a GPU, if it is one.
    pub gpu: Option<GpuOptions>,
    /// Where it is told that nothing runs here any more.
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
    /// The lane of the cores.
    #[must_use]
    pub fn new_cpu(rules: SchedulerConfig, recycle: u64) -> Self {
        Self {
            permits: Arc::new(GroupPermits::new_shared(rules.worker_count)),
            wait_estimator: Arc::new(WaitEstimator::new(rules.worker_count)),
            scheduler_config: rules,
            runs_per_session: recycle,
            gpu: None,
            gpu_failure: GpuFailureSignal::default(),
        }
    }

    /// The lane of the GPUs; `rules.workers` is how many there are. Their sessions are never replaced: that is for the memory of cores,
    /// and would need room for two of them.
    #[must_use]
    pub fn new_gpu(rules: SchedulerConfig, gpu: GpuOptions) -> Self {
        Self {
            gpu: Some(gpu),
            permits: Arc::new(GroupPermits::new_per_device(rules.worker_count)),
            ..Self::new_cpu(rules, 0)
        }
    }
}

/// The gates of a lane: one for all cores, which any thread can run on, and one for each GPU, to which a worker's session
/// is bound. Two models that met at one gate could else have both turns for the same GPU, while another does nothing.
#[derive(Debug)]
pub struct GroupPermits {
    first_pool: PermitPool,
    other_pools: Vec<PermitPool>,
}

impl GroupPermits {
    /// One gate of so many permits.
    #[must_use]
    pub fn new_shared(permits: usize) -> Self {
        Self { first_pool: PermitPool::new(permits), other_pools: Vec::new() }
    }

    /// A gate of one permit for each of so many places.
    #[must_use]
    pub fn new_per_device(places: usize) -> Self {
        Self { first_pool: PermitPool::new(1), other_pools: (1..places).map(|_| PermitPool::new(1)).collect() }
    }

    /// Where a model's worker of this number takes its turns.
    #[must_use]
    pub fn pool_for_worker(&self, number: usize) -> &PermitPool {
        let place = number % (1 + self.other_pools.len());
        place.checked_sub(1).and_then(|other| self.other_pools.get(other)).unwrap_or(&self.first_pool)
    }

    /// True if it matters where a worker takes its turns.
    #[must_use]
    pub fn is_per_device(&self) -> bool {
        !self.other_pools.is_empty()
    }

    /// Turns that nobody has or is about to take.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pools().map(PermitPool::available).sum()
    }

    /// For how long all turns are taken, as [`PermitPool::busy_for`].
    #[must_use]
    pub fn busy_for(&self, model: u64) -> Option<Duration> {
        let taken: Option<Vec<Duration>> = self.pools().map(|gate| gate.busy_for(model)).collect();
        taken?.into_iter().min()
    }

    /// The oldest run, as [`PermitPool::oldest_run`].
    #[must_use]
    pub fn oldest_run(&self) -> Option<(RunId, Duration)> {
        self.pools().filter_map(PermitPool::oldest_run).max_by_key(|(_, time)| *time)
    }

    fn pools(&self) -> impl Iterator<Item = &PermitPool> {
        std::iter::once(&self.first_pool).chain(&self.other_pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_per_device_shared_by_its_workers_only() {
        let gates = GroupPermits::new_per_device(2);
        let places = [0, 1, 2, 3].map(|worker| std::ptr::from_ref(gates.pool_for_worker(worker)));
        assert!(places[0] == places[2] && places[1] == places[3] && places[0] != places[1]);
        assert_eq!((gates.available(), gates.busy_for(1)), (2, None));
        let turn = gates.pool_for_worker(0).acquire(|| {});
        turn.mark_started(1, Duration::from_secs(9));
        assert_eq!((gates.available(), gates.busy_for(2)), (1, None));
        let other = gates.pool_for_worker(3).acquire(|| {});
        other.mark_started(2, Duration::from_secs(5));
        assert_eq!(gates.available(), 0);
        assert!(gates.busy_for(3).is_some_and(|time| time > Duration::from_secs(4) && time <= Duration::from_secs(5)));
    }

    #[test]
    fn permits_on_cpu_use_one_pool() {
        let gates = GroupPermits::new_shared(3);
        let places = [0, 1, 7].map(|worker| std::ptr::from_ref(gates.pool_for_worker(worker)));
        assert!(places.iter().all(|&place| place == places[0]));
        assert_eq!(gates.available(), 3);
    }
}
