//! Ends the server where a GPU is lost: only a new process gets it back, or finds that it cannot be used.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::engine::lane::Lane;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A run is told to end when nobody waits for it any more: it has gone on for a request's longest time then. This many
/// times that is too long.
const TOO_LONG: u32 = 2;
/// Less than this never is.
const LEAST: Duration = Duration::from_secs(30);

/// How long a run on a GPU may go on.
pub(super) fn longest_run(settings: &Settings) -> Duration {
    LEAST.max(TOO_LONG * settings.limits.max_timeout)
}

/// Stops the server once a GPU is lost: because it fails, which its workers tell, or because a run on it goes on for longer
/// than `longest`. A kernel that hangs cannot be stopped, and nothing else gets that GPU.
pub(super) async fn watch(gpus: Lane, longest: Duration, stop: CancellationToken) {
    let hangs = async {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let oldest = gpus.gates.oldest_run().filter(|(_, time)| *time > longest).map(|(run, _)| run);
            // A process that stood still itself finds its runs too old; at the next look they have ended.
            if oldest.is_some() && oldest == before {
                break gpus.lost.tell("a GPU is lost: a run on it does not end".to_owned());
            }
            before = oldest;
        }
    };
    let reason = tokio::select! {
        reason = gpus.lost.told() => reason,
        () = hangs => gpus.lost.told().await,
    };
    tracing::error!(reason, "the server stops: whoever watches over it starts it anew");
    stop.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::engine::lane::GpuRules;
    use crate::server::rules;
    use clap::Parser as _;

    #[tokio::test]
    async fn only_a_run_that_goes_on_and_on_loses_a_gpu() {
        let settings = Settings::resolve(Cli::parse_from(["predictd"]).serve).unwrap();
        assert_eq!(longest_run(&settings), Duration::from_mins(2));
        let gpus = Lane::of_gpus(rules(&settings), GpuRules { pad_to: 8, fit_tokens: true });
        let stop = CancellationToken::new();
        let watch = tokio::spawn(watch(gpus.clone(), Duration::from_millis(100), stop.clone()));
        let turn = |model: u64| {
            let next = gpus.gates.of_worker(0).wait_next(Duration::ZERO);
            next.turn(model, Duration::ZERO).unwrap()
        };
        // Each may be too old at a look, and none is at two.
        for model in 0..3 {
            let turn = turn(model);
            tokio::time::sleep(Duration::from_millis(900)).await;
            drop(turn);
        }
        assert!(!stop.is_cancelled() && gpus.lost.known().is_none());
        let _hangs = turn(3);
        watch.await.unwrap();
        assert!(stop.is_cancelled());
        assert_eq!(gpus.lost.known(), Some("a GPU is lost: a run on it does not end"));
    }
}
