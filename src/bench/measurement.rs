//! From what was counted while clients asked to the figures that are compared. Pure.

use std::time::Duration;

use predictd_stats::to_f64;
use serde::{Deserialize, Serialize};

/// What was counted in some stretch of time.
#[derive(Debug, Default)]
pub struct MeasurementCounts {
    /// The time.
    pub time: Duration,
    /// How long each answer took.
    pub latencies: Vec<Duration>,
    /// Texts that got an error.
    pub unanswered: u64,
    /// Processor time without that of the clients.
    pub cpu_time: Duration,
    /// Processor time of the clients.
    pub client_cpu_time: Duration,
    /// Runs.
    pub runs: u64,
    /// Tokens of texts.
    pub tokens: u64,
    /// Tokens of padding.
    pub padding: u64,
}

impl MeasurementCounts {
    /// Adds what was counted in another stretch.
    pub fn merge(&mut self, other: Self) {
        self.time += other.time;
        self.latencies.extend(other.latencies);
        self.unanswered += other.unanswered;
        self.cpu_time += other.cpu_time;
        self.client_cpu_time += other.client_cpu_time;
        self.runs += other.runs;
        self.tokens += other.tokens;
        self.padding += other.padding;
    }

    /// What it comes to.
    #[must_use]
    pub fn measurement(&self) -> Measurement {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let [p50_ms, p99_ms] =
            [50, 99].map(|percent| percentile(&latencies, percent).map(|time| time.as_secs_f64() * 1e3));
        let texts = latencies.len() as u64;
        Measurement {
            texts_per_second: ratio(to_f64(texts), self.time.as_secs_f64()),
            p50_ms,
            p99_ms,
            unanswered: self.unanswered,
            cpu_seconds_per_1000: ratio(1e3 * self.cpu_time.as_secs_f64(), to_f64(texts)),
            padding: padding_share(self.tokens, self.padding),
            texts_per_run: ratio(to_f64(texts), to_f64(self.runs)),
            clients_cores: ratio(self.client_cpu_time.as_secs_f64(), self.time.as_secs_f64()),
        }
    }
}

/// How a server did under its clients.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Texts answered a second.
    pub texts_per_second: f64,
    /// What half of the answers did not take longer than, seen by the clients; none without an answer.
    pub p50_ms: Option<f64>,
    /// What 99 of 100 answers did not take longer than.
    pub p99_ms: Option<f64>,
    /// Texts that got an error instead of an answer.
    pub unanswered: u64,
    /// Processor seconds for 1,000 texts, without the clients'.
    pub cpu_seconds_per_1000: f64,
    /// Share of the tokens that were run and were no text's.
    pub padding: f64,
    /// Texts that shared a run.
    pub texts_per_run: f64,
    /// Processor time of the clients, in cores.
    pub clients_cores: f64,
}

impl Measurement {
    /// True if every text was answered, 99 of 100 within the target.
    #[must_use]
    pub fn is_within_target(&self, target: Duration) -> bool {
        self.unanswered == 0 && self.p99_ms.is_some_and(|p99| p99 <= target.as_secs_f64() * 1e3)
    }
}

/// The least of the sorted values that at most `percent` of them are below or equal to; none of none.
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The lowest, the median and the highest of some numbers; 0 of none.
#[must_use]
pub fn min_median_max(numbers: impl IntoIterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = numbers.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    [0, 50, 100].map(|percent| percentile(&sorted, percent).unwrap_or(0.0))
}

/// Share of padding.
#[must_use]
pub fn padding_share(tokens: u64, padding: u64) -> f64 {
    ratio(to_f64(padding), to_f64(tokens + padding))
}

/// 0 of nothing: a figure that cannot be had must not look like one that is infinitely good.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(milliseconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        milliseconds.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentile_of_values_is_one_of_them() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([1, 50, 99, 100].map(|percent| percentile(&hundred, percent)), [1, 50, 99, 100].map(Some));
        assert_eq!(percentile(&[7, 9], 50), Some(7));
        assert_eq!(percentile(&[7, 9], 99), Some(9));
        assert_eq!(percentile(&[7], 1), Some(7));
        assert_eq!(percentile::<u64>(&[], 99), None);
        assert_eq!((min_median_max([3.0, 1.0, 2.0]), min_median_max([])), ([1.0, 2.0, 3.0], [0.0; 3]));
    }

    fn one_second(latencies: Vec<Duration>) -> MeasurementCounts {
        MeasurementCounts {
            time: Duration::from_secs(1),
            latencies,
            cpu_time: Duration::from_secs(1),
            client_cpu_time: Duration::from_millis(250),
            runs: 25,
            tokens: 900,
            padding: 100,
            ..MeasurementCounts::default()
        }
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn measurement_of_merged_counts_covers_both() {
        let mut counted = one_second(millis(51..=100));
        counted.merge(one_second(millis(1..=50)));
        let figures = counted.measurement();
        assert_eq!((figures.p50_ms, figures.p99_ms, figures.unanswered), (Some(50.0), Some(99.0), 0));
        assert_near(figures.texts_per_second, 50.0);
        assert_near(figures.cpu_seconds_per_1000, 20.0);
        assert_near(figures.padding, 0.1);
        assert_near(figures.texts_per_run, 2.0);
        assert_near(figures.clients_cores, 0.25);
        assert!(
            figures.is_within_target(Duration::from_millis(99)) && !figures.is_within_target(Duration::from_millis(98))
        );
    }

    #[test]
    fn measurement_without_answers_is_within_no_target() {
        let figures = MeasurementCounts { time: Duration::from_secs(1), unanswered: 3, ..MeasurementCounts::default() }
            .measurement();
        assert_eq!(figures, Measurement { unanswered: 3, ..Measurement::default() });
        assert!(!figures.is_within_target(Duration::MAX));
    }
}
