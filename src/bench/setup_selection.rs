//! Which options are tried, and which of them are found best. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measurement::Measurement;

/// Caps of a run's tokens that are tried beside the one that is set.
const TOKEN_CAPS: [usize; 5] = [256, 128, 512, 64, 1_024];
/// The same on a GPU.
const GPU_TOKEN_CAPS: [usize; 4] = [16_384, 4_096, 32_768, 1_024];
/// Threads of one run that are tried: more never paid off where texts are short.
const RUN_THREADS: [usize; 3] = [2, 4, 8];
/// Less more texts a second than this is not distinguished from chance within seconds: what was tried first stands.
const MIN_SPEEDUP_RATIO: f64 = 1.05;
/// The same for p99, which hangs on few answers.
const MAX_P99_RATIO: f64 = 0.9;

/// The options that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Sessions, a worker each: `--workers`.
    pub workers: usize,
    /// Threads of a run: `--intra-op-threads`.
    pub intra_op_threads: usize,
    /// Most tokens of a run: `--max-batch-tokens`.
    pub max_batch_tokens: usize,
}

impl Setup {
    /// As they are given to `predictd serve`.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let options = [
            ("--workers", self.workers),
            ("--intra-op-threads", self.intra_op_threads),
            ("--max-batch-tokens", self.max_batch_tokens),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
    }
}

/// Sessions and threads for so many cores, what is usually best first: never more threads than cores.
#[must_use]
pub fn cpu_setups(cores: usize, max_batch_tokens: usize) -> Vec<Setup> {
    let cores = cores.max(1);
    let shared = RUN_THREADS.into_iter().take_while(|&threads| threads <= cores);
    let mut choices = vec![(cores, 1)];
    // Cores that share what computes, or memory that is too slow for all of them, are better used by half of them.
    choices.extend((cores > 1).then_some((cores / 2, 1)));
    choices.extend(shared.map(|threads| (cores / threads, threads)));
    let setups = choices.into_iter();
    setups.map(|(workers, intra_op_threads)| Setup { workers, intra_op_threads, max_batch_tokens }).collect()
}

/// The one for GPUs: they have a session each, and the cores read texts and answer.
#[must_use]
pub fn gpu_setups(cores: usize, max_batch_tokens: usize) -> Vec<Setup> {
    vec![Setup { workers: cores.max(1), intra_op_threads: 1, max_batch_tokens }]
}

/// A set-up with each cap, its own first.
#[must_use]
pub fn token_cap_setups(setup: Setup, on_gpus: bool) -> Vec<Setup> {
    let caps = if on_gpus { &GPU_TOKEN_CAPS[..] } else { &TOKEN_CAPS };
    let others = caps.iter().filter(|&&tokens| tokens != setup.max_batch_tokens);
    std::iter::once(setup.max_batch_tokens)
        .chain(others.copied())
        .map(|max_batch_tokens| Setup { max_batch_tokens, ..setup })
        .collect()
}

/// A set-up and how it did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trial {
    /// The options.
    #[serde(flatten)]
    pub setup: Setup,
    /// What was measured.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// The one with the highest throughput of those within the target, else the one with the lowest p99.
#[must_use]
pub fn best_trial(tried: &[Trial], target: Duration) -> Option<&Trial> {
    let within = tried.iter().filter(|tried| tried.measurement.is_within_target(target));
    let fastest = within.reduce(|best, next| {
        let least = MIN_SPEEDUP_RATIO * best.measurement.texts_per_second;
        if next.measurement.texts_per_second > least { next } else { best }
    });
    let answered = tried.iter().filter(|tried| tried.measurement.p99_ms.is_some());
    fastest.or_else(|| {
        answered.reduce(|best, next| if is_clearly_sooner(&next.measurement, &best.measurement) { next } else { best })
    })
}

/// True if the first has a clearly lower p99 than the second.
///
/// One that leaves texts unanswered comes last, however soon it answers the others.
fn is_clearly_sooner(first: &Measurement, second: &Measurement) -> bool {
    let first_p99 = first.p99_ms.unwrap_or(f64::INFINITY);
    let second_p99 = second.p99_ms.unwrap_or(f64::INFINITY);
    first.unanswered < second.unanswered
        || (first.unanswered == second.unanswered && first_p99 < MAX_P99_RATIO * second_p99)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY_TARGET: Duration = Duration::from_millis(50);

    fn trial(workers: usize, texts_per_second: f64, p99_ms: f64, unanswered: u64) -> Trial {
        let p99_ms = Some(p99_ms).filter(|p99| p99.is_finite());
        let figures = Measurement { texts_per_second, p99_ms, unanswered, ..Measurement::default() };
        Trial { setup: Setup { workers, intra_op_threads: 1, max_batch_tokens: 256 }, measurement: figures }
    }

    fn best_workers(tried: &[Trial]) -> Option<usize> {
        best_trial(tried, LATENCY_TARGET).map(|tried| tried.setup.workers)
    }

    #[test]
    fn cpu_setups_any_cores_never_exceed_them() {
        for cores in 1..130 {
            let setups = cpu_setups(cores, 256);
            assert_eq!(setups[0], Setup { workers: cores, intra_op_threads: 1, max_batch_tokens: 256 });
            assert!(setups.len() <= 5, "{setups:?}");
            assert!(setups.iter().all(|setup| setup.workers * setup.intra_op_threads <= cores && setup.workers > 0));
            assert!(setups.iter().enumerate().all(|(place, setup)| !setups[..place].contains(setup)), "{setups:?}");
        }
        assert_eq!(cpu_setups(1, 256).len(), 1);
        assert_eq!(
            cpu_setups(2, 256).iter().map(|s| (s.workers, s.intra_op_threads)).collect::<Vec<_>>(),
            [(2, 1), (1, 1), (1, 2)]
        );
    }

    fn token_caps(configured: usize) -> Vec<usize> {
        let setup = Setup { workers: 2, intra_op_threads: 1, max_batch_tokens: configured };
        token_cap_setups(setup, false).iter().map(|setup| setup.max_batch_tokens).collect::<Vec<_>>()
    }

    #[test]
    fn token_cap_setups_configured_cap_comes_first() {
        assert_eq!(token_caps(256), [256, 128, 512, 64, 1_024]);
        assert_eq!(token_caps(300), [300, 256, 128, 512, 64, 1_024]);
    }

    #[test]
    fn best_trial_within_target_is_the_fastest() {
        assert_eq!(
            best_workers(&[trial(1, 100.0, 40.0, 0), trial(2, 150.0, 49.0, 0), trial(3, 900.0, 51.0, 0)]),
            Some(2)
        );
        // An answer that did not come is not within any time.
        assert_eq!(best_workers(&[trial(1, 100.0, 40.0, 0), trial(2, 150.0, 40.0, 1)]), Some(1));
    }

    #[test]
    fn best_trial_slightly_faster_does_not_win() {
        assert_eq!(best_workers(&[trial(1, 100.0, 40.0, 0), trial(2, 104.0, 30.0, 0)]), Some(1));
        assert_eq!(best_workers(&[trial(1, 100.0, 40.0, 0), trial(2, 106.0, 45.0, 0)]), Some(2));
    }

    #[test]
    fn best_trial_none_within_target_has_lowest_p99() {
        assert_eq!(
            best_workers(&[trial(1, 300.0, 90.0, 0), trial(2, 100.0, 70.0, 0), trial(3, 50.0, 60.0, 9)]),
            Some(2)
        );
        assert_eq!(best_workers(&[trial(1, 100.0, 70.0, 0), trial(2, 100.0, 65.0, 0)]), Some(1));
        assert_eq!(best_workers(&[trial(1, 0.0, f64::NAN, 9), trial(2, 10.0, 99.0, 9)]), Some(2));
        assert_eq!(best_workers(&[trial(1, 0.0, f64::NAN, 0)]), None);
        assert_eq!(best_workers(&[]), None);
    }

    #[test]
    fn setup_options_are_those_of_serve() {
        let setup = Setup { workers: 3, intra_op_threads: 2, max_batch_tokens: 512 };
        assert_eq!(setup.options().join(" "), "--workers 3 --intra-op-threads 2 --max-batch-tokens 512");
    }
}
