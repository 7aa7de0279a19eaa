//! One executor of a graph, and how its outputs are read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::session::{RunOptions, SessionOutputs};

use super::analysis::Classes;
use super::inputs::inputs;
use super::messages::failed;
use super::output_schema::{CLASS_LABELS, Output};
use super::read_output::{Choice, Expected, listed_classes};
use super::watchdog::{Stop, UnderWay};
use crate::engine::session::{RunError, Scores, Session};
use crate::text::pipeline::Batch;
use crate::text::signature::{FixedAxes, GraphInput};
use crate::text::tensors::TokenBatch;

/// A run of more padded tokens than this gives its memory back: attention needs memory by the
/// square of the length, and every session would keep that of the longest text it ever saw.
const OUTLIER_TOKENS: usize = 256;
/// Time of the run that finds how many scores a graph gives.
const LONGEST_PROBE: Duration = Duration::from_secs(10);

/// What a graph takes and gives: the same for all its sessions.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) input: GraphInput,
    pub(super) fixed: FixedAxes,
    pub(super) output: Output,
    pub(super) choice: Option<Choice>,
    /// Scores of a text, or of each of its tokens.
    pub(super) width: usize,
    pub(super) per_token: bool,
}

/// Where a session's runs are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    /// On the thread that asks for them.
    Here,
    /// On several threads.
    OnThreads,
    /// On a GPU.
    OnGpu,
}

pub(super) struct OnnxSession {
    pub(super) session: ort::session::Session,
    pub(super) reading: Reading,
    pub(super) runs: Runs,
    pub(super) under_way: UnderWay,
}

impl Session for OnnxSession {
    fn runs_here(&self) -> bool {
        self.runs == Runs::Here
    }

    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        let scores = self.run_unchecked(batch, deadline)?;
        let shape = || scores.values.shape().iter().map(|&n| i64::try_from(n).unwrap_or(-1)).collect();
        let width = if self.reading.per_token { self.reading.width * batch.shape().length } else { self.reading.width };
        if scores.values.dim() == (batch.rows(), width) {
            Ok(scores)
        } else {
            Err(RunError::Shape { rows: batch.rows(), width, found: shape() })
        }
    }
}

impl OnnxSession {
    pub(super) fn run_unchecked(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        let width = self.reading.width;
        let expected = Expected { rows: batch.rows(), width, per_token: self.reading.per_token };
        self.run_graph(batch, deadline, |reading, outputs| {
            let values = reading.output.read(outputs, expected)?;
            match &reading.choice {
                Some(choice) => Ok(Scores { chosen: choice.read(outputs).map_err(failed)?, values }),
                None => Ok(values.into()),
            }
        })
    }

    /// Runs the graph once, and reads its outputs.
    fn run_graph<T>(
        &mut self,
        batch: &Batch,
        deadline: Instant,
        read: impl FnOnce(&Reading, &SessionOutputs<'_>) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        if self.under_way.has_ended() {
            return Err(RunError::Interrupted);
        }
        let inputs = inputs(&self.reading.input, batch).map_err(failed)?;
        let mut options = RunOptions::new().map_err(failed)?;
        if let Batch::Tokens(tokens) = batch
            && tokens.rows * tokens.length > OUTLIER_TOKENS
            && self.runs != Runs::OnGpu
        {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
        }
        let options = Arc::new(options);
        let watch = self.under_way.watch(deadline, Stop::Run(Arc::clone(&options)));
        let outputs = self.session.run_with_options(inputs, &options);
        let outputs =
            outputs.map_err(|error| if watch.was_stopped() { RunError::Interrupted } else { failed(error) })?;
        drop(watch);
        read(&self.reading, &outputs)
    }

    /// The number of scores, for a graph that leaves it open.
    pub(super) fn probe(&mut self) -> Result<usize, RunError> {
        let batch = self.first_batch();
        Ok(self.run_unchecked(&batch, Instant::now() + LONGEST_PROBE)?.values.ncols())
    }

    /// The classes that an output of the graph lists.
    pub(super) fn listed_classes(&mut self) -> Result<Classes, RunError> {
        let batch = self.first_batch();
        self.run_graph(&batch, Instant::now() + LONGEST_PROBE, |_, outputs| {
            let Some(value) = outputs.get(CLASS_LABELS) else { return Ok(Classes::default()) };
            let (names, numbers) = listed_classes(value).map_err(failed)?;
            Ok(Classes { names, numbers })
        })
    }

    /// The smallest batch that the graph takes.
    fn first_batch(&self) -> Batch {
        match &self.reading.input {
            GraphInput::Texts { .. } => Batch::Texts(vec!["one short text".to_owned()]),
            GraphInput::Tokens(_) => Batch::Tokens(plain_tokens(1, self.reading.fixed.length.unwrap_or(1))),
        }
    }
}

/// Any tokens: a graph that takes tokens takes these.
pub(super) fn plain_tokens(rows: usize, length: usize) -> TokenBatch {
    let all = |one: i64| vec![one; rows * length];
    TokenBatch {
        rows,
        length,
        input_ids: all(1),
        attention_mask: all(1),
        token_type_ids: all(0),
        position_ids: (0..rows).flat_map(|_| (0_i64..).take(length)).collect(),
    }
}
