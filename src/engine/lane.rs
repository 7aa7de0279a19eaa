//! Workers that take turns with each other: those of the cores, and those of the GPUs.
//!
//! A run on a GPU needs hardly any core, and a run on a core no GPU: neither kind waits for the other's turn.

use std::sync::Arc;
use std::time::Duration;

use super::forecast::Forecast;
use super::gate::{Gate, RunId};
use super::loss::Loss;
use super::queue::Rules;

/// What the models share that run in one place.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Run permits over all its models.
    pub gates: Arc<Gates>,
    /// What waits for them.
    pub forecast: Arc<Forecast>,
    /// How many texts may run at a time, and how the queues hand them out.
    pub rules: Rules,
    /// A worker's session is replaced after about this many runs; 0: never.
    pub recycle: u64,
    /// What is different on a GPU, if it is one.
    pub gpu: Option<GpuRules>,
    /// Where it is told that nothing runs here any more.
    pub lost: Loss,
}

/// What is different on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuRules {
    /// Lengths of runs are rounded up to multiples of this: tensor cores work on tiles.
    pub pad_to: usize,
    /// Most tokens of a run are lowered to what pays.
    pub fit_tokens: bool,
}

impl Lane {
    /// The lane of the cores.
    #[must_use]
    pub fn of_cores(rules: Rules, recycle: u64) -> Self {
        Self {
            gates: Arc::new(Gates::one(rules.workers)),
            forecast: Arc::new(Forecast::new(rules.workers)),
            rules,
            recycle,
            gpu: None,
            lost: Loss::default(),
        }
    }

    /// The lane of the GPUs; `rules.workers` is how many there are. Their sessions are never replaced: that is for the memory of cores,
    /// and would need room for two of them.
    #[must_use]
    pub fn of_gpus(rules: Rules, gpu: GpuRules) -> Self {
        Self { gpu: Some(gpu), gates: Arc::new(Gates::of_each(rules.workers)), ..Self::of_cores(rules, 0) }
    }
}

/// The gates of a lane: one for all cores, which any thread can run on, and one for each GPU, to which a worker's session
/// is bound. Two models that met at one gate could else have both turns for the same GPU, while another does nothing.
#[derive(Debug)]
pub struct Gates {
    first: Gate,
    others: Vec<Gate>,
}

impl Gates {
    /// One gate of so many permits.
    #[must_use]
    pub fn one(permits: usize) -> Self {
        Self { first: Gate::new(permits), others: Vec::new() }
    }

    /// A gate of one permit for each of so many places.
    #[must_use]
    pub fn of_each(places: usize) -> Self {
        Self { first: Gate::new(1), others: (1..places).map(|_| Gate::new(1)).collect() }
    }

    /// Where a model's worker of this number takes its turns.
    #[must_use]
    pub fn of_worker(&self, number: usize) -> &Gate {
        let place = number % (1 + self.others.len());
        place.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }

    /// True if it matters where a worker takes its turns.
    #[must_use]
    pub fn are_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// Turns that nobody has or is about to take.
    #[must_use]
    pub fn free(&self) -> usize {
        self.all().map(Gate::free).sum()
    }

    /// For how long all turns are taken, as [`Gate::taken_for`].
    #[must_use]
    pub fn taken_for(&self, model: u64) -> Option<Duration> {
        let taken: Option<Vec<Duration>> = self.all().map(|gate| gate.taken_for(model)).collect();
        taken?.into_iter().min()
    }

    /// The oldest run, as [`Gate::oldest_run`].
    #[must_use]
    pub fn oldest_run(&self) -> Option<(RunId, Duration)> {
        self.all().filter_map(Gate::oldest_run).max_by_key(|(_, time)| *time)
    }

    fn all(&self) -> impl Iterator<Item = &Gate> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_one_place_share_a_gate_and_no_others() {
        let gates = Gates::of_each(2);
        let places = [0, 1, 2, 3].map(|worker| std::ptr::from_ref(gates.of_worker(worker)));
        assert!(places[0] == places[2] && places[1] == places[3] && places[0] != places[1]);
        assert_eq!((gates.free(), gates.taken_for(1)), (2, None));
        let turn = gates.of_worker(0).wait_turn(|| {});
        turn.begins(1, Duration::from_secs(9));
        assert_eq!((gates.free(), gates.taken_for(2)), (1, None));
        let other = gates.of_worker(3).wait_turn(|| {});
        other.begins(2, Duration::from_secs(5));
        assert_eq!(gates.free(), 0);
        assert!(gates.taken_for(3).is_some_and(|time| time > Duration::from_secs(4) && time <= Duration::from_secs(5)));
    }

    #[test]
    fn the_cores_have_one_gate() {
        let gates = Gates::one(3);
        let places = [0, 1, 7].map(|worker| std::ptr::from_ref(gates.of_worker(worker)));
        assert!(places.iter().all(|&place| place == places[0]));
        assert_eq!(gates.free(), 3);
    }
}
