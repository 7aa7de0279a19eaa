//! What the engine alone can do on this machine: the limit that a server is measured against.
//!
//! The same texts, tokenised beforehand, sorted by length and cut into the runs that cost least; all sessions at once,
//! and nothing else: no queue, no HTTP, no reading of the scores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::figures::{count, padding, ratio};
use super::machine::process_time;
use super::texts::Chance;
use crate::engine::cost::Cost;
use crate::engine::loading::{LONGEST_CHECK, ModelSource};
use crate::engine::session::{Runtime, Session};
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::pipeline::{Batch, Encoded, Pipeline};
use crate::text::tensors::Shape;

/// Sessions of a model without a server.
pub struct Bare {
    sessions: Vec<Box<dyn Session>>,
}

/// Runs that answer all texts once.
pub struct Plan {
    /// In no order: whenever the time is over, the mix of lengths was the same.
    runs: Vec<Run>,
    /// Share of their tokens that is padding.
    pub padding: f64,
}

struct Run {
    /// More than one for a single text of many windows.
    batches: Vec<Batch>,
    texts: usize,
}

/// How fast it went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pace {
    /// Texts a second.
    pub texts_per_second: f64,
    /// Processor seconds for 1,000 texts.
    pub cpu_seconds_per_1000: f64,
}

impl Bare {
    /// Opens so many sessions, of one thread each if `runtime` has no other.
    ///
    /// # Errors
    /// [`ManifestError`] if the model cannot be read.
    pub fn open(runtime: &Arc<dyn Runtime>, source: &ModelSource, sessions: usize) -> Result<Self, ManifestError> {
        let mut manifest = Manifest::read(&source.directory)?;
        let mut graph = runtime.open(&mut manifest)?;
        Ok(Self { sessions: (0..sessions).map(|_| graph.session()).collect::<Result<_, _>>()? })
    }

    /// How many sessions it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Goes through the plan again and again for so long.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn run(&mut self, plan: &Plan, time: Duration, stop: &CancellationToken) -> Result<Pace, String> {
        let next = AtomicUsize::new(0);
        let (start, cpu) = (Instant::now(), process_time());
        let paces: Vec<Result<(f64, u64), String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .sessions
                .iter_mut()
                .map(|session| scope.spawn(|| pace(session.as_mut(), plan, &next, start + time, stop)))
                .collect();
            let gone = |_| Err("a thread panicked".to_owned());
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(gone)).collect()
        });
        let cpu = process_time().saturating_sub(cpu);
        let (mut texts_per_second, mut texts) = (0.0, 0);
        for pace in paces {
            let (own_pace, own_texts) = pace?;
            texts_per_second += own_pace;
            texts += own_texts;
        }
        Ok(Pace { texts_per_second, cpu_seconds_per_1000: ratio(1e3 * cpu.as_secs_f64(), count(texts)) })
    }
}

/// Texts a second of one session, and their number. The threads end at different times: each is judged by its own.
fn pace(
    session: &mut dyn Session,
    plan: &Plan,
    next: &AtomicUsize,
    until: Instant,
    stop: &CancellationToken,
) -> Result<(f64, u64), String> {
    let (start, mut texts) = (Instant::now(), 0);
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed) % plan.runs.len().max(1);
        let Some(run) = plan.runs.get(place) else { break };
        for batch in &run.batches {
            session.run(batch, Instant::now() + LONGEST_CHECK).map_err(|error| error.to_string())?;
        }
        texts += run.texts as u64;
        if Instant::now() >= until || stop.is_cancelled() {
            break;
        }
    }
    Ok((ratio(count(texts), start.elapsed().as_secs_f64()), texts))
}

impl Plan {
    /// The runs that cost least of at most so many rows and tokens; one for each text, where texts do not share runs.
    #[must_use]
    pub fn of(pipeline: &Pipeline, texts: &[Encoded], cost: &Cost, most: Most) -> Self {
        let (mut sorted, several): (Vec<&Encoded>, Vec<&Encoded>) =
            texts.iter().partition(|text| text.row_length().is_some());
        sorted.sort_by_key(|text| text.row_length());
        let lengths: Vec<usize> = sorted.iter().filter_map(|text| text.row_length()).collect();
        let mut rest = sorted.as_slice();
        let mut runs = Vec::new();
        for texts in cut(&lengths, cost, most) {
            let Some((these, others)) = rest.split_at_checked(texts) else { break };
            runs.push(Run { batches: vec![pipeline.batch(these.iter().copied())], texts });
            rest = others;
        }
        // A text of several windows has runs of its own.
        runs.extend(several.into_iter().map(|text| Run { batches: pipeline.runs(text).collect(), texts: 1 }));
        let mut chance = Chance(0);
        for place in (1..runs.len()).rev() {
            runs.swap(place, chance.below(place + 1));
        }
        let batches = || runs.iter().flat_map(|run| &run.batches);
        let tokens: usize = batches().map(Batch::tokens).sum();
        let all: usize = batches().map(|batch| batch.shape().tokens()).sum();
        Self { padding: padding(tokens as u64, all.saturating_sub(tokens) as u64), runs }
    }
}

/// What a run may be at most. A text that is longer runs alone.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Texts.
    pub rows: usize,
    /// Tokens, padding included.
    pub tokens: usize,
}

/// Cuts sorted lengths into runs so that all of them together cost least; how many texts each has.
fn cut(lengths: &[usize], cost: &Cost, most: Most) -> Vec<usize> {
    // For each number of the shortest texts: the least cost of running them, and the texts of the last run.
    let mut least: Vec<(f64, usize)> = vec![(0.0, 0)];
    for (place, &length) in lengths.iter().enumerate() {
        let fits = |rows: usize| rows == 1 || (rows <= most.rows && rows.saturating_mul(length) <= most.tokens);
        let with = |rows: usize| {
            let (before, _) = least.get(place + 1 - rows)?;
            Some((before + cost.of(Shape { rows, length }), rows))
        };
        let choices = (1..=place + 1).take_while(|&rows| fits(rows)).filter_map(with);
        // Of equal ones the larger run: it is the last.
        let best = choices.reduce(|best, next| if next.0 <= best.0 { next } else { best });
        least.push(best.unwrap_or((f64::INFINITY, 1)));
    }
    let mut runs = Vec::new();
    let mut left = lengths.len();
    while let Some(&(_, rows)) = least.get(left).filter(|&&(_, rows)| rows > 0) {
        runs.push(rows);
        left -= rows;
    }
    runs.reverse();
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: Cost = Cost { run: 1e-3, token: 1e-4, square: 0.0 };

    fn total(lengths: &[usize], runs: &[usize]) -> f64 {
        let mut rest = lengths;
        let mut total = 0.0;
        for &rows in runs {
            let (these, others) = rest.split_at(rows);
            total += COST.of(Shape { rows, length: *these.last().unwrap() });
            rest = others;
        }
        assert!(rest.is_empty());
        total
    }

    /// Every way to cut so many texts.
    fn ways(texts: usize) -> Vec<Vec<usize>> {
        if texts == 0 {
            return vec![vec![]];
        }
        let longer = |first: usize| ways(texts - first).into_iter().map(move |rest| [vec![first], rest].concat());
        (1..=texts).flat_map(longer).collect()
    }

    #[test]
    fn texts_of_a_kind_run_together() {
        let most = |rows, tokens| Most { rows, tokens };
        assert_eq!(cut(&[8, 8, 8, 100], &COST, most(64, 256)), [3, 1]);
        assert_eq!(cut(&[8; 6], &COST, most(4, 256)), [2, 4]);
        assert_eq!(cut(&[8; 6], &COST, most(64, 16)), [2, 2, 2]);
        assert_eq!(cut(&[8, 500], &COST, most(1, 16)), [1, 1]);
        assert_eq!(cut(&[], &COST, most(64, 256)), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn no_other_cut_costs_less(
            lengths in prop::collection::vec(1_usize..80, 0..9),
            rows in 1_usize..6,
            tokens in 1_usize..200,
        ) {
            let mut lengths = lengths;
            lengths.sort_unstable();
            let fits = |runs: &Vec<usize>| {
                let mut end = 0;
                runs.iter().all(|&run| {
                    end += run;
                    run == 1 || (run <= rows && run * lengths[end - 1] <= tokens)
                })
            };
            let found = cut(&lengths, &COST, Most { rows, tokens });
            prop_assert!(fits(&found), "{found:?}");
            let least = ways(lengths.len()).iter().filter(|way| fits(way)).map(|way| total(&lengths, way)).fold(f64::MAX, f64::min);
            prop_assert!(total(&lengths, &found) <= least + 1e-12);
        }
    }
}
