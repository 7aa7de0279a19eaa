//! What has happened between two moments, in a few numbers.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

use super::{Metrics, Outcome};

/// Requests and predictions up to a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    requests: u64,
    failed: u64,
    refused: u64,
    predictions: u64,
    answered: u64,
    seconds: f64,
    /// Upper bounds in seconds, and the requests that took no longer.
    buckets: Vec<(f64, u64)>,
}

/// What has happened between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Prediction requests that ended.
    pub requests: u64,
    /// Those that failed, and should not have.
    pub failed: u64,
    /// Those that were refused or left by their clients.
    pub refused: u64,
    /// Texts that were answered.
    pub predictions: u64,
    /// Mean time of an answer, errors among them, in milliseconds.
    pub mean_ms: f64,
    /// Nineteen of twenty answers took no longer, as far as the histogram's buckets tell.
    pub p95_ms: f64,
}

impl Metrics {
    /// Everything up to now, on the routes that answer texts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { predictions: sum(&self.models.predictions.collect(), |_| true), ..Totals::default() };
        let (ended, seconds) = (self.http.ended.collect(), self.http.seconds.collect());
        totals.requests = sum(&ended, |_| true);
        totals.failed = sum(&ended, |label| label == Outcome::Failure.name());
        totals.refused =
            sum(&ended, |label| label == Outcome::Rejection.name() || label == Outcome::Cancellation.name());
        for metric in seconds.iter().flat_map(MetricFamily::get_metric).filter(|metric| is_of_predictions(metric)) {
            let histogram = metric.get_histogram();
            totals.seconds += histogram.get_sample_sum();
            totals.answered += histogram.get_sample_count();
            for (place, bucket) in histogram.get_bucket().iter().enumerate() {
                match totals.buckets.get_mut(place) {
                    Some((_, count)) => *count += bucket.cumulative_count(),
                    None => totals.buckets.push((bucket.upper_bound(), bucket.cumulative_count())),
                }
            }
        }
        totals
    }
}

fn is_of_predictions(metric: &prometheus::proto::Metric) -> bool {
    let route = metric.get_label().iter().find(|label| label.name() == "route");
    route.is_none_or(|route| matches!(route.value(), "/predict" | "/batch_predict"))
}

/// The sum of a counter over the prediction routes, of those whose `outcome`, if they have one, is wanted.
fn sum(families: &[MetricFamily], wanted: impl Fn(&str) -> bool) -> u64 {
    let metrics = families.iter().flat_map(MetricFamily::get_metric).filter(|metric| is_of_predictions(metric));
    let outcome = |metric: &&prometheus::proto::Metric| {
        metric.get_label().iter().find(|label| label.name() == "outcome").is_none_or(|label| wanted(label.value()))
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    metrics.filter(outcome).map(|metric| metric.get_counter().get_value() as u64).sum()
}

impl Totals {
    /// Predictions so far.
    #[must_use]
    pub fn predictions(&self) -> u64 {
        self.predictions
    }

    /// What has happened since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Summary {
        let answered = self.answered - before.answered;
        let old = before.buckets.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
        let mut buckets = self.buckets.iter().zip(old).map(|((bound, new), old)| (*bound, new.saturating_sub(old)));
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let mean = (self.seconds - before.seconds) / answered.max(1) as f64;
        let most = buckets.find(|(_, count)| count * 20 >= answered * 19);
        // Longer than the longest that is told apart.
        let most = most.or(self.buckets.last().copied()).map_or(0.0, |(bound, _)| bound);
        Summary {
            requests: self.requests - before.requests,
            failed: self.failed - before.failed,
            refused: self.refused - before.refused,
            predictions: self.predictions - before.predictions,
            mean_ms: rounded(mean * 1e3),
            p95_ms: if answered == 0 { 0.0 } else { rounded(most * 1e3) },
        }
    }
}

fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

/// The time of one summary, and what it was about.
#[derive(Debug)]
pub struct Watch {
    before: Totals,
    since: Duration,
}

impl Watch {
    /// Begins now, when nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self { before: Totals::default(), since: Duration::ZERO }
    }

    /// After so much more time: the summary, if it is due. It is after so many predictions, or so long, if there were
    /// any requests.
    pub fn look(&mut self, metrics: &Metrics, more: Duration, predictions: u64, time: Duration) -> Option<Summary> {
        self.since += more;
        let now = metrics.totals();
        let due = (predictions > 0 && now.predictions() - self.before.predictions() >= predictions)
            || (!time.is_zero() && self.since >= time);
        if !due {
            return None;
        }
        let summary = now.since(&self.before);
        (self.before, self.since) = (now, Duration::ZERO);
        Some(summary).filter(|summary| summary.requests > 0)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(metrics: &Metrics, outcome: Outcome, seconds: f64) {
        metrics.http.started("/predict");
        metrics.http.ended("/predict", outcome);
        if outcome != Outcome::Cancellation {
            metrics.http.answered("/predict", "POST", "200", seconds);
        }
    }

    #[test]
    fn a_summary_is_of_its_own_time() {
        let metrics = Metrics::new().unwrap();
        let mut watch = Watch::new();
        let minute = Duration::from_mins(1);
        assert_eq!(watch.look(&metrics, minute, 0, minute), None, "nothing has happened");
        for number in 0..20 {
            ended(&metrics, Outcome::Success, if number < 19 { 0.004 } else { 0.9 });
        }
        metrics.http.started("/metrics");
        metrics.http.ended("/metrics", Outcome::Failure);
        metrics.model("m", "1").predicted(3);
        assert_eq!(watch.look(&metrics, minute / 2, 0, minute), None, "it is not due");
        let first = watch.look(&metrics, minute / 2, 0, minute).unwrap();
        let expected = Summary { requests: 20, failed: 0, refused: 0, predictions: 1, mean_ms: 48.8, p95_ms: 5.0 };
        assert_eq!(first, expected);
        ended(&metrics, Outcome::Failure, 0.02);
        ended(&metrics, Outcome::Rejection, 0.02);
        ended(&metrics, Outcome::Cancellation, 0.0);
        metrics.model("m", "1").predicted(3);
        metrics.model("m", "2").predicted(3);
        let second = watch.look(&metrics, Duration::ZERO, 2, minute).unwrap();
        let expected = Summary { requests: 3, failed: 1, refused: 2, predictions: 2, mean_ms: 20.0, p95_ms: 25.0 };
        assert_eq!(second, expected);
        assert_eq!(watch.look(&metrics, Duration::ZERO, 2, minute), None);
    }
}
