//! What the engine alone can do on this machine: the limit that a server is measured against.
//!
//! The same texts, tokenised beforehand, sorted by length and cut into the runs that cost least; all sessions at once,
//! and nothing else: no queue, no HTTP, no reading of the scores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use predictd_engine::backend::{Backend, Session};
use predictd_engine::cost_model::CostModel;
use predictd_engine::{loader::CHECK_RUN_TIMEOUT, model_source::ModelSource};
use predictd_stats::split_mix64::SplitMix64;
use predictd_stats::to_f64;
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::pipeline::{Batch, EncodedInput, Pipeline};
use predictd_text::tensors::Shape;
use tokio_util::sync::CancellationToken;

use super::machine::process_cpu_time;
use super::measurement::{padding_share, ratio};

/// Sessions of a model without a server.
pub struct EngineBaseline {
    /// They run at the same time.
    pub sessions: Vec<Box<dyn Session>>,
}

/// Runs that answer all texts once.
pub struct BatchPlan {
    /// In no order: whenever the time is over, the mix of lengths was the same.
    steps: Vec<PlanStep>,
    /// Share of their tokens that is padding.
    pub padding: f64,
}

struct PlanStep {
    /// More than one for a single text of many windows.
    batches: Vec<Batch>,
    texts: usize,
}

/// How fast it went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Throughput {
    /// Texts a second.
    pub texts_per_second: f64,
    /// Processor seconds for 1,000 texts.
    pub cpu_seconds_per_1000: f64,
}

impl EngineBaseline {
    /// Opens so many sessions, of one thread each if `runtime` has no other.
    ///
    /// # Errors
    /// [`ManifestError`] if the model cannot be read.
    pub fn open(runtime: &Arc<dyn Backend>, source: &ModelSource, sessions: usize) -> Result<Self, ManifestError> {
        let mut manifest = Manifest::load(&source.directory)?;
        let mut graph = runtime.open(&mut manifest)?;
        Ok(Self { sessions: (0..sessions).map(|_| graph.create_session()).collect::<Result<_, _>>()? })
    }

    /// Goes through the plan again and again for so long.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn run_plan(
        &mut self,
        plan: &BatchPlan,
        time: Duration,
        stop: &CancellationToken,
    ) -> Result<Throughput, String> {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let cpu = process_cpu_time();
        let paces: Vec<Result<(f64, u64), String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .sessions
                .iter_mut()
                .map(|session| scope.spawn(|| run_session(session.as_mut(), plan, &next, start + time, stop)))
                .collect();
            let panic_error = |_| Err("a thread panicked".to_owned());
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panic_error)).collect()
        });
        let cpu = process_cpu_time().saturating_sub(cpu);
        let mut texts_per_second = 0.0;
        let mut texts = 0;
        for pace in paces {
            let (own_pace, own_texts) = pace?;
            texts_per_second += own_pace;
            texts += own_texts;
        }
        Ok(Throughput { texts_per_second, cpu_seconds_per_1000: ratio(1e3 * cpu.as_secs_f64(), to_f64(texts)) })
    }
}

/// Texts a second of one session, and their number. The threads end at different times: each is judged by its own.
fn run_session(
    session: &mut dyn Session,
    plan: &BatchPlan,
    next: &AtomicUsize,
    until: Instant,
    stop: &CancellationToken,
) -> Result<(f64, u64), String> {
    let start = Instant::now();
    let mut texts = 0;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed) % plan.steps.len().max(1);
        let Some(run) = plan.steps.get(index) else { break };
        for batch in &run.batches {
            session.run(batch, Instant::now() + CHECK_RUN_TIMEOUT).map_err(|error| error.to_string())?;
        }
        texts += run.texts as u64;
        if Instant::now() >= until || stop.is_cancelled() {
            break;
        }
    }
    Ok((ratio(to_f64(texts), start.elapsed().as_secs_f64()), texts))
}

impl BatchPlan {
    /// The runs that cost least of at most so many rows and tokens; one for each text, where texts do not share runs.
    #[must_use]
    pub fn new(pipeline: &Pipeline, texts: &[EncodedInput], cost: &CostModel, most: PlanLimits) -> Self {
        let (mut sorted, several): (Vec<&EncodedInput>, Vec<&EncodedInput>) =
            texts.iter().partition(|text| text.row_length().is_some());
        sorted.sort_by_key(|text| text.row_length());
        let lengths: Vec<usize> = sorted.iter().filter_map(|text| text.row_length()).collect();
        let mut rest = sorted.as_slice();
        let mut runs = Vec::new();
        for texts in partition_lengths(&lengths, cost, most) {
            let Some((these, others)) = rest.split_at_checked(texts) else { break };
            runs.push(PlanStep { batches: vec![pipeline.batch(these.iter().copied())], texts });
            rest = others;
        }
        // A text of several windows has runs of its own.
        runs.extend(several.into_iter().map(|text| PlanStep { batches: pipeline.batches(text).collect(), texts: 1 }));
        let mut random = SplitMix64(0);
        for index in (1..runs.len()).rev() {
            runs.swap(index, random.next_index(index + 1));
        }
        let batches = runs.iter().flat_map(|run| &run.batches);
        let tokens: usize = batches.clone().map(Batch::token_count).sum();
        let all: usize = batches.map(|batch| batch.shape().token_count()).sum();
        Self { padding: padding_share(tokens as u64, all.saturating_sub(tokens) as u64), steps: runs }
    }
}

/// What a run may be at most. A text that is longer runs alone.
#[derive(Debug, Clone, Copy)]
pub struct PlanLimits {
    /// Texts.
    pub rows: usize,
    /// Tokens, padding included.
    pub tokens: usize,
}

/// Cuts sorted lengths into runs so that all of them together cost least; how many texts each has.
fn partition_lengths(lengths: &[usize], cost: &CostModel, most: PlanLimits) -> Vec<usize> {
    // For each number of the shortest texts: the least cost of running them, and the texts of the last run.
    let mut least: Vec<(f64, usize)> = vec![(0.0, 0)];
    for (count, &length) in (1..).zip(lengths) {
        let largest = most.rows.min(most.tokens / length.max(1)).clamp(1, count);
        let choices = (1..=largest).filter_map(|rows| {
            let (before, _) = least.get(count - rows)?;
            Some((before + cost.predict_seconds(Shape { rows, length }), rows))
        });
        // Of equal ones the larger run: it is the last.
        let best = choices.reduce(|best, next| if next.0 <= best.0 { next } else { best });
        least.push(best.unwrap_or((f64::INFINITY, 1)));
    }
    let mut runs = Vec::new();
    let mut remaining = lengths.len();
    while let Some(&(_, rows)) = least.get(remaining).filter(|&&(_, rows)| rows > 0) {
        runs.push(rows);
        remaining -= rows;
    }
    runs.reverse();
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: CostModel = CostModel { overhead: 1e-3, per_token: 1e-4, per_token_squared: 0.0 };

    fn total_cost(lengths: &[usize], runs: &[usize]) -> f64 {
        let mut rest = lengths;
        let mut total = 0.0;
        for &rows in runs {
            let (these, others) = rest.split_at(rows);
            total += COST.predict_seconds(Shape { rows, length: *these.last().unwrap() });
            rest = others;
        }
        assert!(rest.is_empty());
        total
    }

    /// Every way to cut so many texts.
    fn all_partitions(texts: usize) -> Vec<Vec<usize>> {
        if texts == 0 {
            return vec![vec![]];
        }
        let longer =
            |first: usize| all_partitions(texts - first).into_iter().map(move |rest| [vec![first], rest].concat());
        (1..=texts).flat_map(longer).collect()
    }

    fn plan_limits(rows: usize, tokens: usize) -> PlanLimits {
        PlanLimits { rows, tokens }
    }

    #[test]
    fn partition_similar_lengths_share_a_batch() {
        assert_eq!(partition_lengths(&[8, 8, 8, 100], &COST, plan_limits(64, 256)), [3, 1]);
        assert_eq!(partition_lengths(&[8; 6], &COST, plan_limits(4, 256)), [2, 4]);
        assert_eq!(partition_lengths(&[8; 6], &COST, plan_limits(64, 16)), [2, 2, 2]);
        assert_eq!(partition_lengths(&[8, 500], &COST, plan_limits(1, 16)), [1, 1]);
        assert_eq!(partition_lengths(&[], &COST, plan_limits(64, 256)), Vec::<usize>::new());
    }

    fn fits_limits(batches: &[usize], lengths: &[usize], limits: PlanLimits) -> bool {
        let mut end = 0;
        batches.iter().all(|&rows| {
            end += rows;
            rows == 1 || (rows <= limits.rows && rows * lengths[end - 1] <= limits.tokens)
        })
    }

    proptest! {
        #[test]
        fn partition_any_lengths_has_minimum_cost(
            lengths in prop::collection::vec(1_usize..80, 0..9),
            rows in 1_usize..6,
            tokens in 1_usize..200,
        ) {
            let mut lengths = lengths;
            lengths.sort_unstable();
            let limits = PlanLimits { rows, tokens };
            let found = partition_lengths(&lengths, &COST, limits);
            prop_assert!(fits_limits(&found, &lengths, limits), "{found:?}");
            let least = all_partitions(lengths.len()).iter().filter(|way| fits_limits(way, &lengths, limits)).map(|way| total_cost(&lengths, way)).fold(f64::MAX, f64::min);
            prop_assert!(total_cost(&lengths, &found) <= least + 1e-12);
        }
    }
}
