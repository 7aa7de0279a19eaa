//! The run permits of a group of models: those of the cores, or those of the GPUs.

use std::sync::Arc;
use std::time::Duration;

use super::active_run::ActiveRun;
use super::cpu_permits::CpuPermits;
use super::gpu_permits::GpuPermits;

/// The run permits of a group.
#[derive(Clone)]
pub enum GroupPermits {
    /// Those of all cores: any thread can run on them.
    Cpu(Arc<CpuPermits>),
    /// That of each GPU: a worker's session is bound to one.
    Gpu(Vec<Arc<GpuPermits>>),
}

impl GroupPermits {
    /// So many permits of the cores.
    #[must_use]
    pub fn new_cpu(permits: usize) -> Self {
        Self::Cpu(Arc::new(CpuPermits::new(permits)))
    }

    /// One permit for each of so many GPUs, at least one.
    #[must_use]
    pub fn new_gpu(gpus: usize) -> Self {
        Self::Gpu((0..gpus.max(1)).map(|_| Arc::default()).collect())
    }

    /// True if there are several GPUs, so that it matters which one a worker uses.
    #[must_use]
    pub fn has_several_gpus(&self) -> bool {
        matches!(self, Self::Gpu(gpus) if gpus.len() > 1)
    }

    /// Permits that no thread has or is about to take.
    #[must_use]
    pub fn available(&self) -> usize {
        match self {
            Self::Cpu(permits) => permits.available(),
            Self::Gpu(gpus) => gpus.iter().filter(|gpu| gpu.is_available()).count(),
        }
    }

    /// True if a worker finds a permit. `gpu_index`: the number of its GPU.
    #[must_use]
    pub fn is_available_on(&self, gpu_index: usize) -> bool {
        match self {
            Self::Cpu(permits) => permits.available() > 0,
            Self::Gpu(gpus) => gpus.get(gpu_index).is_some_and(|gpu| gpu.is_available()),
        }
    }

    /// For how long all cores are taken, as [`CpuPermits::busy_for`]. Nothing on GPUs, which no run shares.
    #[must_use]
    pub fn busy_for(&self, load_id: u64) -> Option<Duration> {
        match self {
            Self::Cpu(permits) => permits.busy_for(load_id),
            Self::Gpu(_) => None,
        }
    }

    /// The run that has been on a GPU for the longest time.
    #[must_use]
    pub fn oldest_gpu_run(&self) -> Option<ActiveRun> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(gpus) => gpus.iter().filter_map(|gpu| gpu.active_run()).min_by_key(|run| run.started_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_of_gpus_taken_one_by_one() {
        let permits = GroupPermits::new_gpu(2);
        let GroupPermits::Gpu(gpus) = &permits else { unreachable!() };
        assert!(permits.has_several_gpus() && permits.available() == 2 && permits.oldest_gpu_run().is_none());
        let _first = gpus[0].acquire_next(Duration::ZERO).acquire(1, Duration::from_secs(9)).unwrap();
        assert_eq!([0, 1].map(|gpu| permits.is_available_on(gpu)), [false, true]);
        let _second = gpus[1].acquire_next(Duration::ZERO).acquire(2, Duration::from_secs(5)).unwrap();
        assert_eq!((permits.available(), permits.busy_for(3)), (0, None));
        assert_eq!(permits.oldest_gpu_run().map(|run| run.load_id), Some(1));
    }

    #[test]
    fn permits_of_cpu_shared_by_all_workers() {
        let permits = GroupPermits::new_cpu(3);
        assert_eq!((permits.available(), permits.has_several_gpus()), (3, false));
        assert!([0, 1, 7].into_iter().all(|worker| permits.is_available_on(worker)));
    }
}
