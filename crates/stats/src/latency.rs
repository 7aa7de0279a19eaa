//! How long answers take: a histogram whose buckets grow by a tenth, in constant memory.

use std::time::Duration;

/// Buckets: one up to 0.1 ms, 140 up to 60 s, one beyond.
pub const BUCKET_COUNT: usize = 142;

const MIN_LATENCY_SECONDS: f64 = 1e-4;
const MAX_LATENCY_SECONDS: f64 = 60.0;
/// Buckets between both ends: each ends 9.97 % later than the one before.
const INNER_BUCKET_COUNT: f64 = 140.0;

/// Answers by how long they took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKET_COUNT] }
    }
}

/// The bucket of a duration.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn bucket_index(duration: Duration) -> usize {
    let steps = (duration.as_secs_f64() / MIN_LATENCY_SECONDS).ln() / (MAX_LATENCY_SECONDS / MIN_LATENCY_SECONDS).ln()
        * INNER_BUCKET_COUNT;
    // Less than a billionth off at an end is at the end; a duration of nothing gives minus infinity, bucket 0.
    ((steps - 1e-9).ceil() as usize).min(BUCKET_COUNT - 1)
}

impl LatencyHistogram {
    /// From what [`counts`](Self::counts) gave; nothing if it has another number of buckets.
    #[must_use]
    pub fn from_counts(counts: Vec<u64>) -> Option<Self> {
        (counts.len() == BUCKET_COUNT).then_some(Self { counts })
    }

    /// Adds an answer.
    pub fn record(&mut self, duration: Duration) {
        if let Some(count) = self.counts.get_mut(bucket_index(duration)) {
            *count += 1;
        }
    }

    /// Adds what another replica counted.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count = count.saturating_add(*more));
    }

    /// How many answers are in each of the 142 buckets.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// What the part `q` (0 to 1) of all answers stayed within: the middle of its bucket, wrong by 5 % at most between
    /// 0.1 ms and 60 s, which is also the most and least that it says. Nothing without an answer.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^53, and `as` saturates"
    )]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let answers: u64 = self.counts.iter().sum();
        let rank = ((q.clamp(0.0, 1.0) * answers as f64).ceil() as u64).max(1);
        let mut sum = 0;
        let bucket = self.counts.iter().position(|count| {
            sum += count;
            sum >= rank
        })?;
        let steps = (bucket as f64 - 0.5).clamp(0.0, INNER_BUCKET_COUNT);
        Some(Duration::from_secs_f64(
            MIN_LATENCY_SECONDS * (MAX_LATENCY_SECONDS / MIN_LATENCY_SECONDS).powf(steps / INNER_BUCKET_COUNT),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split_mix64::SplitMix64;

    #[test]
    fn quantile_random_latencies_within_5_percent() {
        let mut random = SplitMix64(9);
        let mut histogram = LatencyHistogram::default();
        let mut known: Vec<f64> = (0..5_000).map(|_| 2e-4 * (random.next_f64() * 10.0).exp()).collect();
        for &seconds in &known {
            histogram.record(Duration::from_secs_f64(seconds));
        }
        known.sort_by(f64::total_cmp);
        for (q, rank) in [(0.5, 2_499), (0.99, 4_949), (1.0, 4_999), (0.0, 0)] {
            let found = histogram.quantile(q).unwrap().as_secs_f64();
            assert!((found / known[rank] - 1.0).abs() < 0.05, "{q}: {found} for {}", known[rank]);
        }
    }

    #[test]
    fn bucket_index_any_duration_in_range() {
        let micros = Duration::from_micros;
        for (duration, bucket) in [
            (Duration::ZERO, 0),
            (micros(99), 0),
            (micros(100), 0),
            (micros(101), 1),
            (Duration::from_mins(1), BUCKET_COUNT - 2),
            (Duration::from_secs(61), BUCKET_COUNT - 1),
            (Duration::MAX, BUCKET_COUNT - 1),
        ] {
            assert_eq!(bucket_index(duration), bucket, "{duration:?}");
        }
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.quantile(0.5), Some(micros(100)));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_mins(1)));
    }

    #[test]
    fn histogram_merged_and_restored_equals_whole() {
        let [mut all, mut one, mut other] = [const { Vec::new() }; 3].map(|_: Vec<u64>| LatencyHistogram::default());
        for millis in 0..100 {
            let duration = Duration::from_millis(millis);
            all.record(duration);
            if millis % 3 == 0 { &mut one } else { &mut other }.record(duration);
        }
        one.merge(&other);
        assert_eq!(one, all);
        assert_eq!(LatencyHistogram::from_counts(all.counts().to_vec()), Some(all));
        assert_eq!(LatencyHistogram::from_counts(vec![1, 2]), None);
    }
}
