//! Which options are tried, and which of them are found best. Pure.

use std::time::Duration;

use serde::Serialize;

use super::figures::Figures;

/// Caps of a run's tokens that are tried beside the one that is set.
const TOKENS: [usize; 5] = [256, 128, 512, 64, 1_024];
/// The same on a GPU.
const TOKENS_ON_GPU: [usize; 4] = [16_384, 4_096, 32_768, 1_024];
/// More threads than this for one run never paid off where texts are short.
const MOST_THREADS: usize = 8;
/// Less more texts a second than this is not told from chance within seconds: what was tried first stands.
const CLEARLY_FASTER: f64 = 1.05;
/// The same for p99, which hangs on few answers.
const CLEARLY_SOONER: f64 = 0.9;

/// The options that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// Sessions, a worker each: `--workers`.
    pub workers: usize,
    /// Threads of a run: `--run-threads`.
    pub run_threads: usize,
    /// Most tokens of a run: `--max-run-tokens`.
    pub max_run_tokens: usize,
}

impl Setup {
    /// As they are given to `predictd serve`.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let options = [
            ("--workers", self.workers),
            ("--run-threads", self.run_threads),
            ("--max-run-tokens", self.max_run_tokens),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
    }
}

/// Sessions and threads for so many cores, what is usually best first: never more threads than cores.
#[must_use]
pub fn sessions_and_threads(cores: usize, max_run_tokens: usize) -> Vec<Setup> {
    let cores = cores.max(1);
    let setup = |workers, run_threads| Setup { workers, run_threads, max_run_tokens };
    let powers = std::iter::successors(Some(2), |threads| Some(threads * 2));
    let shared = powers.take_while(|&threads| threads <= cores.min(MOST_THREADS));
    let mut setups = vec![setup(cores, 1)];
    // Cores that share what computes, or memory that is too slow for all of them, are better used by half of them.
    setups.extend((cores > 1).then(|| setup(cores / 2, 1)));
    setups.extend(shared.map(|threads| setup(cores / threads, threads)));
    setups
}

/// The one for GPUs: they have a session each, and the cores read texts and answer.
#[must_use]
pub fn on_gpus(cores: usize, max_run_tokens: usize) -> Vec<Setup> {
    vec![Setup { workers: cores.max(1), run_threads: 1, max_run_tokens }]
}

/// A set-up with each cap, its own first.
#[must_use]
pub fn caps(setup: Setup, on_gpus: bool) -> Vec<Setup> {
    let caps = if on_gpus { &TOKENS_ON_GPU[..] } else { &TOKENS };
    let others = caps.iter().filter(|&&tokens| tokens != setup.max_run_tokens);
    std::iter::once(setup.max_run_tokens)
        .chain(others.copied())
        .map(|max_run_tokens| Setup { max_run_tokens, ..setup })
        .collect()
}

/// A set-up and how it did.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// The options.
    #[serde(flatten)]
    pub setup: Setup,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The one with the highest throughput of those within the target, else the one with the lowest p99.
#[must_use]
pub fn best(tried: &[Tried], target: Duration) -> Option<&Tried> {
    let within = tried.iter().filter(|tried| tried.figures.is_within(target));
    let faster = |a: &Figures, b: &Figures| b.texts_per_second > CLEARLY_FASTER * a.texts_per_second;
    let fastest = within.reduce(|best, next| if faster(&best.figures, &next.figures) { next } else { best });
    // One that leaves texts unanswered comes last, however soon it answers the others.
    let sooner = |a: &Figures, b: &Figures| {
        let p99 = |figures: &Figures| figures.p99_ms.unwrap_or(f64::INFINITY);
        b.unanswered < a.unanswered || (b.unanswered == a.unanswered && p99(b) < CLEARLY_SOONER * p99(a))
    };
    let answered = tried.iter().filter(|tried| tried.figures.p99_ms.is_some());
    let soonest = || answered.reduce(|best, next| if sooner(&best.figures, &next.figures) { next } else { best });
    fastest.or_else(soonest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    fn tried(workers: usize, texts_per_second: f64, p99_ms: f64, unanswered: u64) -> Tried {
        let p99_ms = Some(p99_ms).filter(|p99| p99.is_finite());
        let figures = Figures { texts_per_second, p99_ms, unanswered, ..Figures::default() };
        Tried { setup: Setup { workers, run_threads: 1, max_run_tokens: 256 }, figures }
    }

    fn chosen(tried: &[Tried]) -> Option<usize> {
        best(tried, TARGET).map(|tried| tried.setup.workers)
    }

    #[test]
    fn no_setup_has_more_threads_than_cores() {
        for cores in 1..130 {
            let setups = sessions_and_threads(cores, 256);
            assert_eq!(setups[0], Setup { workers: cores, run_threads: 1, max_run_tokens: 256 });
            assert!(setups.len() <= 5, "{setups:?}");
            assert!(setups.iter().all(|setup| setup.workers * setup.run_threads <= cores && setup.workers > 0));
            assert!(setups.iter().enumerate().all(|(place, setup)| !setups[..place].contains(setup)), "{setups:?}");
        }
        assert_eq!(sessions_and_threads(1, 256).len(), 1);
        assert_eq!(
            sessions_and_threads(2, 256).iter().map(|s| (s.workers, s.run_threads)).collect::<Vec<_>>(),
            [(2, 1), (1, 1), (1, 2)]
        );
    }

    #[test]
    fn the_cap_that_is_set_is_tried_first() {
        let of = |set| {
            let setup = Setup { workers: 2, run_threads: 1, max_run_tokens: set };
            caps(setup, false).iter().map(|setup| setup.max_run_tokens).collect::<Vec<_>>()
        };
        assert_eq!(of(256), [256, 128, 512, 64, 1_024]);
        assert_eq!(of(300), [300, 256, 128, 512, 64, 1_024]);
    }

    #[test]
    fn the_fastest_within_the_target_is_chosen() {
        assert_eq!(chosen(&[tried(1, 100.0, 40.0, 0), tried(2, 150.0, 49.0, 0), tried(3, 900.0, 51.0, 0)]), Some(2));
        // An answer that did not come is not within any time.
        assert_eq!(chosen(&[tried(1, 100.0, 40.0, 0), tried(2, 150.0, 40.0, 1)]), Some(1));
    }

    #[test]
    fn a_little_more_is_no_reason_to_leave_what_is_usual() {
        assert_eq!(chosen(&[tried(1, 100.0, 40.0, 0), tried(2, 104.0, 30.0, 0)]), Some(1));
        assert_eq!(chosen(&[tried(1, 100.0, 40.0, 0), tried(2, 106.0, 45.0, 0)]), Some(2));
    }

    #[test]
    fn without_one_within_the_target_the_soonest_is_chosen() {
        assert_eq!(chosen(&[tried(1, 300.0, 90.0, 0), tried(2, 100.0, 70.0, 0), tried(3, 50.0, 60.0, 9)]), Some(2));
        assert_eq!(chosen(&[tried(1, 100.0, 70.0, 0), tried(2, 100.0, 65.0, 0)]), Some(1));
        assert_eq!(chosen(&[tried(1, 0.0, f64::NAN, 9), tried(2, 10.0, 99.0, 9)]), Some(2));
        assert_eq!(chosen(&[tried(1, 0.0, f64::NAN, 0)]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn options_are_those_of_serve() {
        let setup = Setup { workers: 3, run_threads: 2, max_run_tokens: 512 };
        assert_eq!(setup.options().join(" "), "--workers 3 --run-threads 2 --max-run-tokens 512");
    }
}
