//! How long a text would wait, predicted before it is admitted.
//!
//! Each model keeps the predicted work of its texts from admission to answer, and how long runs really take. Run permits
//! go to models in turn, so in each round every model with work has one run: a model's wait is the number of its runs
//! times the length of a round, and never more than all work there is. A slow model does not make a cheap one refuse.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use predictd_stats::to_f64;
use predictd_text::tensors::Shape;

use super::cost_model::{CostModel, CostRegression, CostSample};
use super::timings::WallAndCpuTime;

/// A new run counts this part of a mean: about the last twenty runs matter.
const MEAN_EWMA_ALPHA: f64 = 1.0 / 16.0;
/// How far runs may be from their prediction: what is further off is an accident.
const OUTLIER_RATIO_BOUNDS: (f64, f64) = (0.25, 4.0);
/// The same for what a run costs: about the last five hundred runs matter.
const REGRESSION_DECAY_RATE: f64 = 1.0 / 512.0;
/// What was measured at first counts as much as so many runs in each of six shapes.
const PRIOR_WEIGHT_RUNS: f64 = 8.0;
/// So many runs are added up before they change anything.
const RUNS_PER_FIT: u32 = 16;
/// Tokens of a text of which nothing is known.
const DEFAULT_ITEM_TOKENS: usize = 16;

/// One model's work.
pub struct ModelLoad {
    online_fit: Mutex<OnlineFit>,
    /// Predicted time of a run of its own for every text inside, in nanoseconds, added up.
    pending_work_ns: AtomicU64,
    /// The texts inside.
    pending_items: AtomicU64,
    /// Texts that share a run whenever there are so many: on a GPU, where that costs hardly more than one. Elsewhere 0.
    full_batch_rows: AtomicUsize,
    means: Mutex<RunMeans>,
}

/// What runs cost, as they are measured.
struct OnlineFit {
    cost_model: CostModel,
    /// From before the model served.
    prior: CostRegression,
    /// From the runs since, the last ones most.
    observations: CostRegression,
    runs: u32,
}

/// Moving means over runs.
#[derive(Debug, Clone, Copy)]
pub struct RunMeans {
    /// Seconds of a run.
    pub run_seconds: f64,
    /// Time of a run over its prediction.
    pub slowdown: f64,
    /// Time of a run over the predicted times of its texts alone: below 1 where texts that share runs save work.
    pub batching_ratio: f64,
}

impl ModelLoad {
    /// What a run costs, as far as is known by now.
    #[must_use]
    pub fn cost_model(&self) -> CostModel {
        self.online_fit.lock().cost_model
    }

    /// How runs have been of late.
    #[must_use]
    pub fn means(&self) -> RunMeans {
        *self.means.lock()
    }

    /// A run has ended. `unbatched_time`: the predicted time of a run of its own for each of its texts, added up. What runs
    /// cost, if that has changed by it.
    pub fn record_run(&self, shape: Shape, unbatched_time: Duration, elapsed: WallAndCpuTime) -> Option<CostModel> {
        let seconds = elapsed.wall.as_secs_f64();
        let predicted = self.cost_model().predict_seconds(shape);
        let changed = self.update_fit(CostSample { shape, seconds: elapsed.cpu.as_secs_f64() });
        let mut means = self.means.lock();
        move_mean(&mut means.run_seconds, seconds);
        if predicted > 0.0 {
            move_mean(&mut means.slowdown, clamp_ratio(seconds / predicted));
        }
        if !unbatched_time.is_zero() {
            move_mean(&mut means.batching_ratio, clamp_ratio(seconds / unbatched_time.as_secs_f64()));
        }
        changed
    }

    /// Corrects what a run is said to cost by what one has cost.
    fn update_fit(&self, run: CostSample) -> Option<CostModel> {
        let mut fit = self.online_fit.lock();
        let expected = fit.cost_model.predict_seconds(run.shape);
        if !(OUTLIER_RATIO_BOUNDS.0 * expected..=OUTLIER_RATIO_BOUNDS.1 * expected).contains(&run.seconds) {
            return None;
        }
        fit.observations.scale(1.0 - REGRESSION_DECAY_RATE);
        fit.observations.add(run);
        fit.runs = fit.runs.wrapping_add(1);
        if !fit.runs.is_multiple_of(RUNS_PER_FIT) {
            return None;
        }
        fit.cost_model = fit.prior.merge(&fit.observations).solve()?;
        Some(fit.cost_model)
    }

    /// Predicted time of a run: what runs took at best, not what they take just now.
    #[must_use]
    pub fn predict_time(&self, shape: Shape) -> Duration {
        Duration::try_from_secs_f64(self.cost_model().predict_seconds(shape)).unwrap_or(Duration::MAX)
    }

    /// From now on texts are never run together.
    pub fn disable_batching(&self) {
        self.full_batch_rows.store(0, Relaxed);
    }

    /// Counts the work of so many texts until what is returned is dropped.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, work: Duration, texts: usize) -> LoadGuard {
        let work = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX);
        self.pending_work_ns.fetch_add(work, Relaxed);
        self.pending_items.fetch_add(texts as u64, Relaxed);
        LoadGuard { load: Arc::clone(self), work_ns: work, items: texts as u64 }
    }

    /// Seconds of work inside, and of a run.
    fn pending_and_run_seconds(&self) -> (f64, f64) {
        let [work, texts] = [&self.pending_work_ns, &self.pending_items].map(|count| to_f64(count.load(Relaxed)));
        let means = self.means();
        (self.batched_seconds(&means, work / 1e9, texts), means.run_seconds)
    }

    /// Seconds of runs for so many texts, of which a run of its own for each would take `work` seconds, added up.
    #[must_use]
    pub fn batched_seconds(&self, means: &RunMeans, work: f64, texts: f64) -> f64 {
        let rows = self.full_batch_rows.load(Relaxed);
        if rows == 0 {
            return work * means.batching_ratio;
        }
        // What a run costs whatever is in it is there once for each run. How texts shared runs of late says nothing of a
        // crowd after a time of single ones.
        let runs = (texts / to_f64(rows as u64)).ceil();
        let run = self.cost_model().overhead;
        (work - (texts - runs).max(0.0) * run).max(run.min(work)) * means.slowdown
    }
}

/// Moves a mean over runs towards the value of the last one.
fn move_mean(mean: &mut f64, value: f64) {
    *mean += MEAN_EWMA_ALPHA * (value - *mean);
}

fn clamp_ratio(ratio: f64) -> f64 {
    ratio.clamp(OUTLIER_RATIO_BOUNDS.0, OUTLIER_RATIO_BOUNDS.1)
}

/// Work of one model that is waited for.
pub struct LoadGuard {
    load: Arc<ModelLoad>,
    /// Nanoseconds.
    work_ns: u64,
    items: u64,
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.load.pending_work_ns.fetch_sub(self.work_ns, Relaxed);
        self.load.pending_items.fetch_sub(self.items, Relaxed);
    }
}

/// The work of all models that share the permits of a group.
pub struct WaitEstimator {
    parallel_runs: usize,
    model_loads: Mutex<Vec<Weak<ModelLoad>>>,
}

impl WaitEstimator {
    /// The forecast for so many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { parallel_runs: permits.max(1), model_loads: Mutex::default() }
    }

    /// Adds a model whose runs cost this much. `rows`: texts that share a run whenever there are so many, where that is so.
    #[must_use]
    pub fn register(&self, cost: CostModel, rows: Option<usize>) -> Arc<ModelLoad> {
        // Until there are runs, one is taken to be of one short text.
        let means = RunMeans {
            run_seconds: cost.predict_seconds(Shape { rows: 1, length: DEFAULT_ITEM_TOKENS }),
            slowdown: 1.0,
            batching_ratio: 1.0,
        };
        let prior = CostRegression::from_cost_model(&cost, PRIOR_WEIGHT_RUNS);
        let fit = OnlineFit { cost_model: cost, prior, observations: CostRegression::default(), runs: 0 };
        let load = Arc::new(ModelLoad {
            online_fit: Mutex::new(fit),
            pending_work_ns: AtomicU64::new(0),
            pending_items: AtomicU64::new(0),
            full_batch_rows: AtomicUsize::new(rows.unwrap_or(0)),
            means: Mutex::new(means),
        });
        let mut loads = self.model_loads.lock();
        loads.retain(|load| load.strong_count() > 0);
        loads.push(Arc::downgrade(&load));
        load
    }

    /// Time for `work` of so many texts, if nothing else were there.
    #[must_use]
    pub fn service_time(&self, load: &ModelLoad, work: Duration, texts: usize) -> Duration {
        let [count, at_a_time] = [texts, self.parallel_runs.min(texts.max(1))].map(|number| to_f64(number as u64));
        // A single text is run by one worker, in a batch of its own.
        let together =
            if texts > 1 { load.batched_seconds(&load.means(), work.as_secs_f64(), count) } else { work.as_secs_f64() };
        Duration::try_from_secs_f64(together / at_a_time).unwrap_or(Duration::MAX)
    }

    /// Time until all work of `load` that is there is done.
    #[must_use]
    pub fn wait_time(&self, load: &Arc<ModelLoad>) -> Duration {
        let (work, own) = load.pending_and_run_seconds();
        let mut round = own;
        let mut all = work;
        for other in self.model_loads.lock().iter().filter_map(Weak::upgrade).filter(|other| !Arc::ptr_eq(other, load))
        {
            let (work, run) = other.pending_and_run_seconds();
            if work > 0.0 {
                round += run;
                all += work;
            }
        }
        let rounds = if own > 0.0 { work / own } else { 0.0 };
        let seconds = (rounds * round).min(all) / to_f64(self.parallel_runs as u64);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn constant_cost(milliseconds: f64) -> CostModel {
        CostModel { overhead: milliseconds / 1e3, ..CostModel::default() }
    }

    /// Records a run that was not on the processor all the time.
    fn record_run(load: &ModelLoad, milliseconds: u32, texts: u32) {
        let took = WallAndCpuTime { wall: milliseconds * MILLISECOND, cpu: MILLISECOND };
        load.record_run(Shape { rows: 1, length: 1 }, texts * MILLISECOND, took);
    }

    fn assert_near_ms(wait: Duration, milliseconds: f64) {
        assert!((wait.as_secs_f64() * 1e3 - milliseconds).abs() < 0.1 * milliseconds + 1e-3, "{wait:?}");
    }

    #[test]
    fn wait_time_divided_by_permits() {
        let forecast = WaitEstimator::new(2);
        let load = forecast.register(constant_cost(4.0), None);
        assert_near_ms(forecast.wait_time(&load), 0.0);
        let entered = load.reserve(36 * MILLISECOND, 1);
        let one = load.reserve(4 * MILLISECOND, 1);
        assert_near_ms(forecast.wait_time(&load), 20.0);
        drop(entered);
        assert_near_ms(forecast.wait_time(&load), 2.0);
        drop(one);
        assert_near_ms(forecast.wait_time(&load), 0.0);
    }

    #[test]
    fn wait_time_of_cheap_model_counts_only_slow_rounds() {
        let forecast = WaitEstimator::new(1);
        let without_queue = forecast.register(constant_cost(1.0), None);
        let slow = forecast.register(constant_cost(100.0), None);
        let _cheap = without_queue.reserve(3 * MILLISECOND, 1);
        let _slow = slow.reserve(100_000 * MILLISECOND, 1);
        // Three rounds of both.
        assert_near_ms(forecast.wait_time(&without_queue), 303.0);
        // Behind a thousand of its own, the cheap one is done long before.
        assert_near_ms(forecast.wait_time(&slow), 100_003.0);
        drop(slow);
    }

    #[test]
    fn means_follow_runs_and_dropped_models_are_ignored() {
        let forecast = WaitEstimator::new(1);
        let load = forecast.register(constant_cost(1.0), None);
        for _ in 0..300 {
            record_run(&load, 2, 1);
        }
        assert!((load.means().slowdown - 2.0).abs() < 1e-3);
        let _entered = load.reserve(MILLISECOND, 1);
        assert_near_ms(forecast.wait_time(&load), 2.0);
        let other = forecast.register(constant_cost(1.0), None);
        let entered = other.reserve(5 * MILLISECOND, 1);
        assert_near_ms(forecast.wait_time(&load), 3.0);
        drop((entered, other));
        assert_near_ms(forecast.wait_time(&load), 2.0);
    }

    #[test]
    fn cost_model_wrong_prior_corrected_by_runs() {
        let load = WaitEstimator::new(1).register(CostModel { per_token: 2e-4, ..CostModel::default() }, None);
        let real = CostModel { overhead: 1e-3, per_token: 1e-4, per_token_squared: 0.0 };
        for run in 0..2_000_usize {
            let shape = Shape { rows: 1, length: 5 + run * 7 % 40 };
            let busy = Duration::from_secs_f64(real.predict_seconds(shape));
            // It waited for the processor for as long again.
            load.record_run(shape, busy, WallAndCpuTime { wall: 2 * busy, cpu: busy });
        }
        let cost = load.cost_model();
        let means = load.means();
        assert!(
            (cost.overhead / real.overhead - 1.0).abs() < 0.3 && (cost.per_token / real.per_token - 1.0).abs() < 0.3,
            "{cost:?}"
        );
        assert!((means.slowdown - 2.0).abs() < 0.2, "{means:?}");
        // An accident teaches nothing.
        let shape = Shape { rows: 1, length: 8 };
        for _ in 0..100 {
            let took = WallAndCpuTime { wall: Duration::from_secs(1), cpu: Duration::from_secs(1) };
            load.record_run(shape, MILLISECOND, took);
        }
        assert!((load.cost_model().predict_seconds(shape) / cost.predict_seconds(shape) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn gpu_batch_wait_time_independent_of_past_single_runs() {
        let forecast = WaitEstimator::new(1);
        let load = forecast.register(CostModel { overhead: 1e-3, per_token: 2e-6, ..CostModel::default() }, Some(512));
        // Single texts, each with a run of its own.
        for _ in 0..300 {
            record_run(&load, 1, 1);
        }
        // A text of ten tokens takes 1.02 ms alone; 1,024 of them two runs of 11.24 ms.
        let alone = Duration::from_micros(1_020);
        assert_near_ms(forecast.service_time(&load, 1_024 * alone, 1_024), 22.48 * load.means().slowdown);
        let one_by_one: Vec<LoadGuard> = (0..1_024).map(|_| load.reserve(alone, 1)).collect();
        assert_near_ms(forecast.wait_time(&load), 22.48 * load.means().slowdown);
        drop(one_by_one);
        let _being_read = load.reserve(1_024 * alone, 1_024);
        assert_near_ms(forecast.wait_time(&load), 22.48 * load.means().slowdown);
        assert_near_ms(forecast.service_time(&load, alone, 1), 1.02);
        // It was found that texts change each other's scores.
        load.disable_batching();
        assert_near_ms(forecast.wait_time(&load), 1_024.0 * 1.02 * load.means().batching_ratio);
    }

    #[test]
    fn wait_time_lower_when_items_share_batches() {
        let forecast = WaitEstimator::new(1);
        let load = forecast.register(constant_cost(1.0), None);
        for _ in 0..300 {
            record_run(&load, 4, 8);
        }
        let _entered = load.reserve(100 * MILLISECOND, 1);
        assert_near_ms(forecast.wait_time(&load), 50.0);
    }
}
