//! Ends the server where a GPU is lost: only a new process gets it back, or finds that it cannot be used.

use std::time::Duration;

use predictd_engine::execution_group::ExecutionGroup;
use tokio_util::sync::CancellationToken;

use crate::config::ServerSettings;

/// How often it is looked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A run is cancelled when no client waits for it any more: it has gone on for a request's longest time then. This many
/// times that is too long.
const MAX_TIMEOUT_MULTIPLE: u32 = 2;
/// Less than this never is.
const MIN_RUN_LIMIT: Duration = Duration::from_secs(30);

/// How long a run on a GPU may go on.
pub(super) fn run_time_limit(settings: &ServerSettings) -> Duration {
    MIN_RUN_LIMIT.max(MAX_TIMEOUT_MULTIPLE * settings.limits.max_timeout)
}

/// Stops the server once a GPU is lost: because it fails, which its workers tell, or because a run on it goes on for longer
/// than `longest`. A kernel that hangs cannot be stopped, and nothing else gets that GPU.
pub(super) async fn stop_on_gpu_failure(gpus: ExecutionGroup, longest: Duration, stop: CancellationToken) {
    let hangs = async {
        let mut before = None;
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let oldest = gpus.permits.oldest_gpu_run().filter(|run| run.started_at.elapsed() > longest);
            // A process that stood still itself finds its runs too old; at the next look they have ended.
            if oldest.is_some() && oldest == before {
                break gpus.gpu_failure.report("a GPU is lost: a run on it does not end".to_owned());
            }
            before = oldest;
        }
    };
    let reason = tokio::select! {
        reason = gpus.gpu_failure.wait() => reason,
        () = hangs => gpus.gpu_failure.wait().await,
    };
    tracing::error!(reason, "fatal GPU error; stopping the server");
    stop.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::server::scheduler_config;
    use clap::Parser as _;
    use predictd_engine::execution_group::GpuOptions;
    use predictd_engine::group_permits::GroupPermits;

    #[tokio::test]
    async fn gpu_run_over_limit_twice_stops_server() {
        let settings = ServerSettings::resolve(Cli::parse_from(["predictd"]).serve).unwrap();
        assert_eq!(run_time_limit(&settings), Duration::from_mins(2));
        let gpus = ExecutionGroup::new_gpu(
            scheduler_config(&settings),
            GpuOptions { pad_to_multiple_of: 8, auto_max_tokens: true },
        );
        let stop = CancellationToken::new();
        let watch = tokio::spawn(stop_on_gpu_failure(gpus.clone(), Duration::from_millis(100), stop.clone()));
        let GroupPermits::Gpu(permits) = &gpus.permits else { unreachable!() };
        // Each may be too old at a look, and none is at two.
        for model in 0..3 {
            let permit = permits[0].acquire_next(Duration::ZERO).acquire(model, Duration::ZERO).unwrap();
            tokio::time::sleep(Duration::from_millis(900)).await;
            drop(permit);
        }
        assert!(!stop.is_cancelled() && gpus.gpu_failure.reason().is_none());
        let _hangs = permits[0].acquire_next(Duration::ZERO).acquire(3, Duration::ZERO).unwrap();
        watch.await.unwrap();
        assert!(stop.is_cancelled());
        assert_eq!(gpus.gpu_failure.reason(), Some("a GPU is lost: a run on it does not end"));
    }
}
