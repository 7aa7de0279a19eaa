//! How long a text would wait, told before it is let in.
//!
//! Each model counts its texts from admission to answer, and keeps a moving mean of what a run
//! costs. The gate serves models in turn, so in each round every model with work runs one text
//! at a time: a model's wait is the number of its texts times the length of a round, and never
//! more than all work there is. A slow model does not make a cheap one refuse.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

/// A new run counts this part of the mean: about the last twenty runs matter.
const MEMORY: u64 = 16;

/// One model's work.
#[derive(Debug)]
pub struct Load {
    texts: AtomicUsize,
    /// Mean cost of a run, in nanoseconds.
    mean: AtomicU64,
}

impl Load {
    /// A run took this long.
    pub fn ran(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mean = self.mean.load(Ordering::Relaxed);
        // Two workers may write at once: one run more or less in a mean does not matter.
        self.mean.store(mean - mean / MEMORY + time / MEMORY, Ordering::Relaxed);
    }

    /// Counts texts until what is returned is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, texts: usize) -> Entered {
        self.texts.fetch_add(texts, Ordering::Relaxed);
        Entered { load: Arc::clone(self), texts }
    }

    fn now(&self) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let (texts, mean) = (self.texts.load(Ordering::Relaxed) as f64, self.mean.load(Ordering::Relaxed) as f64);
        (texts, mean / 1e9)
    }
}

/// Texts of one model that are waited for.
#[derive(Debug)]
pub struct Entered {
    load: Arc<Load>,
    texts: usize,
}

impl Entered {
    /// Takes one text out of several, to be dropped by itself.
    #[must_use]
    pub fn split_one(&mut self) -> Self {
        let texts = self.texts.min(1);
        self.texts -= texts;
        Self { load: Arc::clone(&self.load), texts }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
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

    /// Adds a model whose runs have cost `cost` so far.
    #[must_use]
    pub fn register(&self, cost: Duration) -> Arc<Load> {
        let mean = AtomicU64::new(u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX));
        let load = Arc::new(Load { texts: AtomicUsize::new(0), mean });
        let mut loads = self.loads.lock();
        loads.retain(|load| load.strong_count() > 0);
        loads.push(Arc::downgrade(&load));
        load
    }

    /// Time until all texts of `load` that are there are answered.
    #[must_use]
    pub fn wait(&self, load: &Arc<Load>) -> Duration {
        let (texts, own) = load.now();
        let (mut round, mut all) = (own, texts * own);
        for other in self.loads.lock().iter().filter_map(Weak::upgrade).filter(|other| !Arc::ptr_eq(other, load)) {
            let (texts, mean) = other.now();
            if texts > 0.0 {
                round += mean;
                all += texts * mean;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let seconds = (texts * round).min(all) / self.runs_at_a_time as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn near(found: Duration, milliseconds: f64) {
        assert!((found.as_secs_f64() * 1e3 - milliseconds).abs() < 0.1 * milliseconds + 1e-3, "{found:?}");
    }

    #[test]
    fn work_is_shared_by_the_permits() {
        let forecast = Forecast::new(2);
        let load = forecast.register(4 * MILLISECOND);
        near(forecast.wait(&load), 0.0);
        let mut entered = load.enter(10);
        near(forecast.wait(&load), 20.0);
        let one = entered.split_one();
        drop(entered);
        near(forecast.wait(&load), 2.0);
        drop(one);
        near(forecast.wait(&load), 0.0);
    }

    #[test]
    fn a_slow_model_takes_its_turns_and_no_more() {
        let forecast = Forecast::new(1);
        let (cheap, slow) = (forecast.register(MILLISECOND), forecast.register(100 * MILLISECOND));
        let (_cheap, _slow) = (cheap.enter(3), slow.enter(1_000));
        // Three rounds of both.
        near(forecast.wait(&cheap), 303.0);
        // Behind a thousand of its own, the cheap one is done long before.
        near(forecast.wait(&slow), 100_003.0);
        drop(slow);
    }

    #[test]
    fn the_mean_follows_the_runs_and_models_that_are_gone_count_no_more() {
        let forecast = Forecast::new(1);
        let load = forecast.register(Duration::from_secs(10));
        for _ in 0..300 {
            load.ran(2 * MILLISECOND);
        }
        let _entered = load.enter(1);
        near(forecast.wait(&load), 2.0);
        let other = forecast.register(MILLISECOND);
        let entered = other.enter(5);
        near(forecast.wait(&load), 3.0);
        drop((entered, other));
        near(forecast.wait(&load), 2.0);
    }
}
