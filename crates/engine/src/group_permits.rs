//! The run permits of a group of models: those of the cores, or those of the GPUs.

use std::time::Duration;

use super::run_permits::{PermitPool, RunId};

/// The permit pools of a group: one for all cores, which any thread can run on, or one for each GPU, to which a worker's
/// session is bound. With one pool for several GPUs, two models could hold its permits for runs on the same GPU, while
/// another does nothing.
#[derive(Debug)]
pub struct GroupPermits {
    first_pool: PermitPool,
    other_pools: Vec<PermitPool>,
}

impl GroupPermits {
    /// One pool of so many permits.
    #[must_use]
    pub fn new_shared(permits: usize) -> Self {
        Self { first_pool: PermitPool::new(permits), other_pools: Vec::new() }
    }

    /// A pool of one permit for each of so many GPUs.
    #[must_use]
    pub fn new_per_device(devices: usize) -> Self {
        Self { first_pool: PermitPool::new(1), other_pools: (1..devices).map(|_| PermitPool::new(1)).collect() }
    }

    /// The pool of a model's worker of this number.
    #[must_use]
    pub fn pool_for_worker(&self, number: usize) -> &PermitPool {
        let index = number % (1 + self.other_pools.len());
        index.checked_sub(1).and_then(|other| self.other_pools.get(other)).unwrap_or(&self.first_pool)
    }

    /// True if there are several pools, so that it matters which one a worker uses.
    #[must_use]
    pub fn is_per_device(&self) -> bool {
        !self.other_pools.is_empty()
    }

    /// Permits that no thread has or is about to take.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pools().map(PermitPool::available).sum()
    }

    /// For how long all permits are taken, as [`PermitPool::busy_for`].
    #[must_use]
    pub fn busy_for(&self, load_id: u64) -> Option<Duration> {
        let times: Option<Vec<Duration>> = self.pools().map(|pool| pool.busy_for(load_id)).collect();
        times?.into_iter().min()
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
