//! A line in the log now and then that says how the server is doing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::config::Summaries;
use crate::metrics::Metrics;
use crate::metrics::summary::{Summary, Watch};

/// How often it is looked whether a summary is due.
const LOOK: Duration = Duration::from_secs(1);

/// Logs summaries, to no end.
pub async fn log(metrics: Arc<Metrics>, when: Summaries) {
    let mut watch = Watch::new();
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        let Some(summary) = watch.look(&metrics, LOOK, when.predictions, when.time) else { continue };
        let Summary { requests, failed, refused, predictions, mean_ms, p95_ms } = summary;
        let (cpu, memory, gpus) = metrics.machine.summary();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let error_rate = share(failed as f64 / requests.max(1) as f64);
        let (cpu, memory) = (share(cpu), share(memory));
        let gpu = gpus.iter().map(|busy| share(*busy).to_string()).collect::<Vec<_>>().join(" ");
        let gpu = (!gpu.is_empty()).then_some(gpu);
        let resident_mib = crate::memory::resident().map(|bytes| bytes >> 20);
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
fn share(share: f64) -> f64 {
    (share * 1e3).round() / 1e3
}
