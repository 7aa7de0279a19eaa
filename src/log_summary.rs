//! A line in the log now and then that says how the server is doing.

use std::sync::Arc;
use std::time::Duration;

use predictd_metrics::Metrics;
use predictd_metrics::traffic_summary::{SummaryTimer, TrafficSummary};
use tokio::time::interval;

use crate::config::SummarySchedule;

/// How often it is looked whether a summary is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Logs summaries, to no end.
pub async fn log_summaries(metrics: Arc<Metrics>, when: SummarySchedule) {
    let mut watch = SummaryTimer::default();
    let mut looks = interval(CHECK_INTERVAL);
    loop {
        looks.tick().await;
        let Some(summary) = watch.poll(&metrics, CHECK_INTERVAL, when.predictions, when.interval) else { continue };
        let TrafficSummary { requests, failed, refused, predictions, mean_ms, p95_ms } = summary;
        let (cpu, memory, gpus) = metrics.system.utilisation();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let error_rate = round_share(failed as f64 / requests.max(1) as f64);
        let cpu = round_share(cpu);
        let memory = round_share(memory);
        let gpu = gpus.iter().map(|busy| round_share(*busy).to_string()).collect::<Vec<_>>().join(" ");
        let gpu = (!gpu.is_empty()).then_some(gpu);
        let resident_mib = predictd_platform::memory::resident_bytes().map(|bytes| bytes >> 20);
        tracing::info!(
            requests,
            predictions,
            failed,
            refused,
            error_rate,
            mean_ms,
            p95_ms,
            cpu,
            memory,
            resident_mib,
            gpu,
            "summary"
        );
    }
}

/// A share, to a thousandth.
fn round_share(share: f64) -> f64 {
    (share * 1e3).round() / 1e3
}
