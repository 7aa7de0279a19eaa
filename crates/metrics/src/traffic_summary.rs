//! What has happened between two moments, in a few numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

use super::{Metrics, RequestOutcome};
use predictd_stats::to_f64;

/// Requests and predictions up to a moment.
#[derive(Debug, Default)]
struct TrafficTotals {
    requests: u64,
    failed: u64,
    refused: u64,
    predictions: u64,
    answered: u64,
    latency_seconds_sum: f64,
    /// Upper bounds in seconds, and the requests that took no longer.
    buckets: Vec<(f64, u64)>,
}

/// What has happened between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrafficSummary {
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
    fn traffic_totals(&self) -> TrafficTotals {
        let ended = self.http.ended.collect();
        let routes = self.http.prediction_routes.read();
        let mut totals = TrafficTotals {
            requests: sum_counters(&ended, &routes, |_| true),
            failed: sum_counters(&ended, &routes, |label| label == RequestOutcome::Failure.name()),
            refused: sum_counters(&ended, &routes, |label| {
                [RequestOutcome::Rejection, RequestOutcome::Cancellation].map(RequestOutcome::name).contains(&label)
            }),
            predictions: sum_counters(&self.version_vecs.items.predictions.collect(), &routes, |_| true),
            ..TrafficTotals::default()
        };
        for metric in prediction_metrics(&self.http.latency.collect(), &routes) {
            let histogram = metric.get_histogram();
            totals.latency_seconds_sum += histogram.get_sample_sum();
            totals.answered += histogram.get_sample_count();
            for (index, bucket) in histogram.get_bucket().iter().enumerate() {
                match totals.buckets.get_mut(index) {
                    Some((_, count)) => *count += bucket.cumulative_count(),
                    None => totals.buckets.push((bucket.upper_bound(), bucket.cumulative_count())),
                }
            }
        }
        totals
    }
}

/// The series of the prediction routes, and those without a route.
fn prediction_metrics<'m>(families: &'m [MetricFamily], routes: &BTreeSet<String>) -> impl Iterator<Item = &'m Metric> {
    families
        .iter()
        .flat_map(MetricFamily::get_metric)
        .filter(|metric| label(metric, "route").is_none_or(|route| routes.contains(route)))
}

fn label<'m>(metric: &'m Metric, name: &str) -> Option<&'m str> {
    metric.get_label().iter().find(|label| label.name() == name).map(LabelPair::value)
}

/// The sum of a counter over the prediction routes. Series with an `outcome` count if `is_counted` accepts it.
fn sum_counters(families: &[MetricFamily], routes: &BTreeSet<String>, is_counted: impl Fn(&str) -> bool) -> u64 {
    let counted =
        prediction_metrics(families, routes).filter(|metric| label(metric, "outcome").is_none_or(&is_counted));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    counted.map(|metric| metric.get_counter().get_value() as u64).sum()
}

impl TrafficTotals {
    /// What has happened since.
    fn summary_since(&self, before: &Self) -> TrafficSummary {
        let answered = self.answered - before.answered;
        let old = before.buckets.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
        let mut buckets = self.buckets.iter().zip(old).map(|((bound, new), old)| (*bound, new.saturating_sub(old)));
        let mean = (self.latency_seconds_sum - before.latency_seconds_sum) / to_f64(answered.max(1));
        let p95 = buckets.find(|(_, count)| count * 20 >= answered * 19);
        // Beyond the last bucket: its bound.
        let p95 = p95.or(self.buckets.last().copied()).map_or(0.0, |(bound, _)| bound);
        TrafficSummary {
            requests: self.requests - before.requests,
            failed: self.failed - before.failed,
            refused: self.refused - before.refused,
            predictions: self.predictions - before.predictions,
            mean_ms: round_to_micros(mean * 1e3),
            p95_ms: if answered == 0 { 0.0 } else { round_to_micros(p95 * 1e3) },
        }
    }
}

fn round_to_micros(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

/// The time of one summary, and what it was about. It begins when nothing has happened.
#[derive(Debug, Default)]
pub struct SummaryTimer {
    last_totals: TrafficTotals,
    elapsed: Duration,
}

impl SummaryTimer {
    /// After so much more time: the summary, if it is due. It is after so many predictions, or so long, if there were
    /// any requests.
    pub fn poll(
        &mut self,
        metrics: &Metrics,
        more: Duration,
        predictions: u64,
        time: Duration,
    ) -> Option<TrafficSummary> {
        self.elapsed += more;
        let now = metrics.traffic_totals();
        let is_due = (predictions > 0 && now.predictions - self.last_totals.predictions >= predictions)
            || (!time.is_zero() && self.elapsed >= time);
        if !is_due {
            return None;
        }
        let summary = now.summary_since(&self.last_totals);
        (self.last_totals, self.elapsed) = (now, Duration::ZERO);
        Some(summary).filter(|summary| summary.requests > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_request(metrics: &Metrics, outcome: RequestOutcome, seconds: f64) {
        metrics.http.record_start("/predict");
        metrics.http.record_end("/predict", outcome);
        if outcome != RequestOutcome::Cancellation {
            metrics.http.record_response("/predict", "POST", "200", seconds);
        }
    }

    #[test]
    fn summary_polled_covers_only_its_interval() {
        let metrics = Metrics::new().unwrap();
        metrics.http.add_prediction_route("/predict");
        let mut watch = SummaryTimer::default();
        let minute = Duration::from_mins(1);
        assert_eq!(watch.poll(&metrics, minute, 0, minute), None, "nothing has happened");
        for number in 0..20 {
            record_request(&metrics, RequestOutcome::Success, if number < 19 { 0.004 } else { 0.9 });
        }
        metrics.http.record_start("/metrics");
        metrics.http.record_end("/metrics", RequestOutcome::Failure);
        metrics.model("m", "1").record_prediction(3);
        assert_eq!(watch.poll(&metrics, minute / 2, 0, minute), None, "it is not due");
        let first = watch.poll(&metrics, minute / 2, 0, minute).unwrap();
        let expected =
            TrafficSummary { requests: 20, failed: 0, refused: 0, predictions: 1, mean_ms: 48.8, p95_ms: 5.0 };
        assert_eq!(first, expected);
        record_request(&metrics, RequestOutcome::Failure, 0.02);
        record_request(&metrics, RequestOutcome::Rejection, 0.02);
        record_request(&metrics, RequestOutcome::Cancellation, 0.0);
        metrics.model("m", "1").record_prediction(3);
        metrics.model("m", "2").record_prediction(3);
        let second = watch.poll(&metrics, Duration::ZERO, 2, minute).unwrap();
        let expected =
            TrafficSummary { requests: 3, failed: 1, refused: 2, predictions: 2, mean_ms: 20.0, p95_ms: 25.0 };
        assert_eq!(second, expected);
        assert_eq!(watch.poll(&metrics, Duration::ZERO, 2, minute), None);
    }
}
