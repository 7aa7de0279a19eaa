//! A line in the log now and then that says how the server is doing.

use std::sync::Arc;
use std::time::Duration;

use predictd_metrics::Metrics;
use predictd_metrics::traffic_summary::{SummaryTimer, TrafficSummary};
use predictd_platform::memory::resident_bytes;
use tokio::time;

/// How often it is looked whether a summary is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Logs summaries, to no end: after so many predictions, and at this interval; 0 is never.
pub async fn log_summaries(metrics: Arc<Metrics>, after_predictions: u64, interval: Duration) {
    let mut timer = SummaryTimer::default();
    let mut looks = time::interval(CHECK_INTERVAL);
    loop {
        looks.tick().await;
        let Some(summary) = timer.poll(&metrics, CHECK_INTERVAL, after_predictions, interval) else { continue };
        let TrafficSummary { requests, failed, refused, predictions, mean_ms, p95_ms } = summary;
        let (cpu, memory, gpus) = metrics.system.utilisation();
        let gpus: Vec<String> = gpus.into_iter().map(|busy| round_share(busy).to_string()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let error_rate = round_share(failed as f64 / requests.max(1) as f64);
        tracing::info!(
            requests,
            predictions,
            failed,
            refused,
            error_rate,
            mean_ms,
            p95_ms,
            cpu = round_share(cpu),
            memory = round_share(memory),
            resident_mib = resident_bytes().map(|bytes| bytes >> 20),
            gpu = (!gpus.is_empty()).then(|| gpus.join(" ")),
            "summary"
        );
    }
}

/// A share, to a thousandth.
fn round_share(share: f64) -> f64 {
    (share * 1e3).round() / 1e3
}
