//! How long a text would wait, told before it is let in.
//!
//! Each model keeps the predicted work of its texts from admission to answer, and how long runs really take. The gate
//! serves models in turn, so in each round every model with work has one run: a model's wait is the number of its runs
//! times the length of a round, and never more than all work there is. A slow model does not make a cheap one refuse.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::cost::{Cost, Evidence, Sample};
use super::session::Took;
use crate::text::tensors::Shape;

/// A new run counts this part of a mean: about the last twenty runs matter.
const MEMORY: f64 = 1.0 / 16.0;
/// How far runs may be from their prediction: what is further off is an accident.
const FURTHEST: (f64, f64) = (0.25, 4.0);
/// The same for what a run costs: about the last five hundred runs matter.
const LEARNING: f64 = 1.0 / 512.0;
/// What was measured at first counts as much as so many runs in each of six shapes.
const FIRST_WEIGHT: f64 = 8.0;
/// So many runs are added up before they change anything.
const RUNS_PER_FIT: u32 = 16;
/// Tokens of a text of which nothing is known.
const FIRST_GUESS: usize = 16;

/// One model's work.
#[derive(Debug)]
pub struct Load {
    learned: Mutex<Learned>,
    /// Predicted time of a run of its own for every text inside, in nanoseconds, added up.
    work: AtomicU64,
    /// The texts inside.
    texts: AtomicU64,
    /// Texts that share a run whenever there are so many: on a GPU, where that costs hardly more than one. Elsewhere 0.
    rows: AtomicUsize,
    means: Mutex<Means>,
}

/// What runs cost, as they are measured.
#[derive(Debug)]
struct Learned {
    cost: Cost,
    /// From before the model served.
    before: Evidence,
    /// From the runs since, the last ones most.
    since: Evidence,
    runs: u32,
}

/// Moving means over runs.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Seconds of a run.
    pub run: f64,
    /// Time of a run over its prediction.
    pub slowdown: f64,
    /// Time of a run over the predicted times of its texts alone: below 1 where texts that share runs save work.
    pub pace: f64,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Its shape.
    pub shape: Shape,
    /// Predicted time of a run of its own for each of its texts, added up.
    pub alone: Duration,
    /// How long it took.
    pub took: Took,
}

impl Load {
    /// What a run costs, as far as is known by now.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.learned.lock().cost
    }

    /// How runs have been of late.
    #[must_use]
    pub fn means(&self) -> Means {
        *self.means.lock()
    }

    /// A run has ended. What runs cost, if that has changed by it.
    pub fn ran(&self, run: &Ran) -> Option<Cost> {
        let (took, predicted) = (run.took.time.as_secs_f64(), self.cost().of(run.shape));
        let changed = self.learn(Sample { shape: run.shape, seconds: run.took.busy.as_secs_f64() });
        let mut means = self.means.lock();
        let towards = |mean: &mut f64, value: f64| *mean += MEMORY * (value - *mean);
        towards(&mut means.run, took);
        if predicted > 0.0 {
            towards(&mut means.slowdown, (took / predicted).clamp(FURTHEST.0, FURTHEST.1));
        }
        if !run.alone.is_zero() {
            towards(&mut means.pace, (took / run.alone.as_secs_f64()).clamp(FURTHEST.0, FURTHEST.1));
        }
        changed
    }

    /// Corrects what a run is said to cost by what one has cost.
    fn learn(&self, run: Sample) -> Option<Cost> {
        let mut learned = self.learned.lock();
        let expected = learned.cost.of(run.shape);
        if !(FURTHEST.0 * expected..=FURTHEST.1 * expected).contains(&run.seconds) {
            return None;
        }
        learned.since.fade(1.0 - LEARNING);
        learned.since.add(run);
        learned.runs = learned.runs.wrapping_add(1);
        if !learned.runs.is_multiple_of(RUNS_PER_FIT) {
            return None;
        }
        learned.cost = learned.before.and(&learned.since).cost()?;
        Some(learned.cost)
    }

    /// Predicted time of a run: what runs took at best, not what they take just now.
    #[must_use]
    pub fn predicted(&self, shape: Shape) -> Duration {
        Duration::try_from_secs_f64(self.cost().of(shape)).unwrap_or(Duration::MAX)
    }

    /// From now on texts are never run together.
    pub fn run_alone(&self) {
        self.rows.store(0, Ordering::Relaxed);
    }

    /// Counts the work of so many texts until what is returned is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, work: Duration, texts: usize) -> Entered {
        let work = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX);
        self.work.fetch_add(work, Ordering::Relaxed);
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        Entered { load: Arc::clone(self), work, texts: texts as u64 }
    }

    /// Seconds of work inside, and of a run.
    fn now(&self) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let [work, texts] = [&self.work, &self.texts].map(|count| count.load(Ordering::Relaxed) as f64);
        let means = self.means();
        (self.together(&means, work / 1e9, texts), means.run)
    }

    /// Seconds of runs for so many texts, of which a run of its own for each would take `work` seconds, added up.
    #[must_use]
    pub fn together(&self, means: &Means, work: f64, texts: f64) -> f64 {
        let rows = self.rows.load(Ordering::Relaxed);
        if rows == 0 {
            return work * means.pace;
        }
        // What a run costs whatever is in it is there once for each run. How texts shared runs of late says nothing of a
        // crowd after a time of single ones.
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let runs = (texts / rows as f64).ceil();
        let run = self.cost().run;
        (work - (texts - runs).max(0.0) * run).max(run.min(work)) * means.slowdown
    }
}

/// Work of one model that is waited for.
#[derive(Debug)]
pub struct Entered {
    load: Arc<Load>,
    /// Nanoseconds.
    work: u64,
    texts: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.load.work.fetch_sub(self.work, Ordering::Relaxed);
        self.load.texts.fetch_sub(self.texts, Ordering::Relaxed);
    }
}

/// The work of all models that share one gate.
#[derive(Debug)]
pub struct Forecast {
    runs_at_a_time: usize,
    loads: Mutex<Vec<Weak<Load>>>,
}

impl Forecast {
    /// The forecast for a gate of so many permits.
    #[must_use]
    pub fn new(runs_at_a_time: usize) -> Self {
        Self { runs_at_a_time: runs_at_a_time.max(1), loads: Mutex::default() }
    }

    /// Adds a model whose runs cost this much. `rows`: texts that share a run whenever there are so many, where that is so.
    #[must_use]
    pub fn register(&self, cost: Cost, rows: Option<usize>) -> Arc<Load> {
        // Until there are runs, one is taken to be of one short text.
        let means = Means { run: cost.of(Shape { rows: 1, length: FIRST_GUESS }), slowdown: 1.0, pace: 1.0 };
        let before = Evidence::of(&cost, FIRST_WEIGHT);
        let learned = Learned { cost, before, since: Evidence::default(), runs: 0 };
        let (work, texts, rows) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(rows.unwrap_or(0)));
        let load = Arc::new(Load { learned: Mutex::new(learned), work, texts, rows, means: Mutex::new(means) });
        let mut loads = self.loads.lock();
        loads.retain(|load| load.strong_count() > 0);
        loads.push(Arc::downgrade(&load));
        load
    }

    /// Time for `work` of so many texts, if nothing else were there.
    #[must_use]
    pub fn time_for(&self, load: &Load, work: Duration, texts: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let (count, at_a_time) = (texts as f64, self.runs_at_a_time.min(texts.max(1)) as f64);
        // A single text is run by one worker, and shares its run with nobody.
        let together =
            if texts > 1 { load.together(&load.means(), work.as_secs_f64(), count) } else { work.as_secs_f64() };
        Duration::try_from_secs_f64(together / at_a_time).unwrap_or(Duration::MAX)
    }

    /// Time until all work of `load` that is there is done.
    #[must_use]
    pub fn wait(&self, load: &Arc<Load>) -> Duration {
        let (work, own) = load.now();
        let (mut round, mut all) = (own, work);
        for other in self.loads.lock().iter().filter_map(Weak::upgrade).filter(|other| !Arc::ptr_eq(other, load)) {
            let (work, run) = other.now();
            if work > 0.0 {
                round += run;
                all += work;
            }
        }
        let rounds = if own > 0.0 { work / own } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let seconds = (rounds * round).min(all) / self.runs_at_a_time as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn flat(milliseconds: f64) -> Cost {
        Cost { run: milliseconds / 1e3, ..Cost::default() }
    }

    /// A run that was not on the processor all the time.
    fn ran(milliseconds: u32, texts: u32) -> Ran {
        let took = Took { time: milliseconds * MILLISECOND, busy: MILLISECOND };
        Ran { shape: Shape { rows: 1, length: 1 }, alone: texts * MILLISECOND, took }
    }

    fn near(found: Duration, milliseconds: f64) {
        assert!((found.as_secs_f64() * 1e3 - milliseconds).abs() < 0.1 * milliseconds + 1e-3, "{found:?}");
    }

    #[test]
    fn work_is_shared_by_the_permits() {
        let forecast = Forecast::new(2);
        let load = forecast.register(flat(4.0), None);
        near(forecast.wait(&load), 0.0);
        let (entered, one) = (load.enter(36 * MILLISECOND, 1), load.enter(4 * MILLISECOND, 1));
        near(forecast.wait(&load), 20.0);
        drop(entered);
        near(forecast.wait(&load), 2.0);
        drop(one);
        near(forecast.wait(&load), 0.0);
    }

    #[test]
    fn a_slow_model_takes_its_turns_and_no_more() {
        let forecast = Forecast::new(1);
        let (cheap, slow) = (forecast.register(flat(1.0), None), forecast.register(flat(100.0), None));
        let (_cheap, _slow) = (cheap.enter(3 * MILLISECOND, 1), slow.enter(100_000 * MILLISECOND, 1));
        // Three rounds of both.
        near(forecast.wait(&cheap), 303.0);
        // Behind a thousand of its own, the cheap one is done long before.
        near(forecast.wait(&slow), 100_003.0);
        drop(slow);
    }

    #[test]
    fn means_follow_the_runs_and_models_that_are_gone_count_no_more() {
        let forecast = Forecast::new(1);
        let load = forecast.register(flat(1.0), None);
        for _ in 0..300 {
            load.ran(&ran(2, 1));
        }
        assert!((load.means().slowdown - 2.0).abs() < 1e-3);
        let _entered = load.enter(MILLISECOND, 1);
        near(forecast.wait(&load), 2.0);
        let other = forecast.register(flat(1.0), None);
        let entered = other.enter(5 * MILLISECOND, 1);
        near(forecast.wait(&load), 3.0);
        drop((entered, other));
        near(forecast.wait(&load), 2.0);
    }

    #[test]
    fn runs_correct_what_was_measured_badly() {
        let load = Forecast::new(1).register(Cost { token: 2e-4, ..Cost::default() }, None);
        let real = Cost { run: 1e-3, token: 1e-4, square: 0.0 };
        for run in 0..2_000_usize {
            let shape = Shape { rows: 1, length: 5 + run * 7 % 40 };
            let busy = Duration::from_secs_f64(real.of(shape));
            // It waited for the processor for as long again.
            load.ran(&Ran { shape, alone: busy, took: Took { time: 2 * busy, busy } });
        }
        let (cost, means) = (load.cost(), load.means());
        assert!((cost.run / real.run - 1.0).abs() < 0.3 && (cost.token / real.token - 1.0).abs() < 0.3, "{cost:?}");
        assert!((means.slowdown - 2.0).abs() < 0.2, "{means:?}");
        // An accident teaches nothing.
        let shape = Shape { rows: 1, length: 8 };
        for _ in 0..100 {
            let took = Took { time: Duration::from_secs(1), busy: Duration::from_secs(1) };
            load.ran(&Ran { shape, alone: MILLISECOND, took });
        }
        assert!((load.cost().of(shape) / cost.of(shape) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_crowd_shares_runs_on_a_gpu_whatever_came_before() {
        let forecast = Forecast::new(1);
        let load = forecast.register(Cost { run: 1e-3, token: 2e-6, ..Cost::default() }, Some(512));
        // Single texts, each with a run of its own.
        for _ in 0..300 {
            load.ran(&ran(1, 1));
        }
        // A text of ten tokens takes 1.02 ms alone; 1,024 of them two runs of 11.24 ms.
        let alone = Duration::from_micros(1_020);
        near(forecast.time_for(&load, 1_024 * alone, 1_024), 22.48 * load.means().slowdown);
        let one_by_one: Vec<Entered> = (0..1_024).map(|_| load.enter(alone, 1)).collect();
        near(forecast.wait(&load), 22.48 * load.means().slowdown);
        drop(one_by_one);
        let _being_read = load.enter(1_024 * alone, 1_024);
        near(forecast.wait(&load), 22.48 * load.means().slowdown);
        near(forecast.time_for(&load, alone, 1), 1.02);
        // It was found that texts change each other's scores.
        load.run_alone();
        near(forecast.wait(&load), 1_024.0 * 1.02 * load.means().pace);
    }

    #[test]
    fn texts_that_share_runs_are_waited_for_less() {
        let forecast = Forecast::new(1);
        let load = forecast.register(flat(1.0), None);
        for _ in 0..300 {
            load.ran(&ran(4, 8));
        }
        let _entered = load.enter(100 * MILLISECOND, 1);
        near(forecast.wait(&load), 50.0);
    }
}
