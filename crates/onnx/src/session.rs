//! One executor of a graph, and how its outputs are read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::session::{RunOptions, SessionOutputs};
use predictd_engine::backend::{BackendError, Scores, Session};
use predictd_text::pipeline::Batch;
use predictd_text::signature::{FixedAxes, GraphInput};
use predictd_text::tensors::TokenBatch;

use super::graph_analysis::ClassList;
use super::input_tensors::build_inputs;
use super::ort_messages::to_run_error;
use super::output_reader::{ExpectedShape, LabelDecoder, read_class_list};
use super::output_schema::{CLASS_LABELS_OUTPUT, ScoreLayout};
use super::run_watchdog::{StopHandle, WatchdogHandle};

/// A run of more padded tokens than this gives its memory back: attention needs memory by the
/// square of the length, and every session would keep that of the longest text it ever saw.
const MAX_ARENA_TOKENS: usize = 256;
/// Time of the run that finds how many scores a graph gives.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a graph takes and gives: the same for all its sessions.
#[derive(Debug, Clone)]
pub(super) struct IoSpec {
    pub(super) input: GraphInput,
    pub(super) fixed_axes: FixedAxes,
    pub(super) score_layout: ScoreLayout,
    pub(super) label_decoder: Option<LabelDecoder>,
    /// Scores of a text, or of each of its tokens.
    pub(super) width: usize,
    pub(super) per_token: bool,
}

/// Where a session's runs are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutionSite {
    /// On the thread that asks for them.
    CallerThread,
    /// On several threads.
    ThreadPool,
    /// On a GPU.
    Gpu,
}

pub(super) struct OnnxSession {
    pub(super) session: ort::session::Session,
    pub(super) io_spec: IoSpec,
    pub(super) execution_site: ExecutionSite,
    pub(super) watchdog: WatchdogHandle,
}

impl Session for OnnxSession {
    fn runs_on_caller_thread(&self) -> bool {
        self.execution_site == ExecutionSite::CallerThread
    }

    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError> {
        let scores = self.run_unchecked(batch, deadline)?;
        let width = if self.io_spec.per_token { self.io_spec.width * batch.shape().length } else { self.io_spec.width };
        if scores.values.dim() == (batch.rows(), width) {
            Ok(scores)
        } else {
            let found = scores.values.shape().iter().map(|&n| i64::try_from(n).unwrap_or(-1)).collect();
            Err(BackendError::OutputShape { rows: batch.rows(), width, found })
        }
    }
}

impl OnnxSession {
    pub(super) fn run_unchecked(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError> {
        let width = self.io_spec.width;
        let expected = ExpectedShape { rows: batch.rows(), width, per_token: self.io_spec.per_token };
        self.run_graph(batch, deadline, |reading, outputs| {
            let values = reading.score_layout.read_scores(outputs, expected)?;
            match &reading.label_decoder {
                Some(choice) => Ok(Scores { chosen_labels: choice.decode(outputs).map_err(to_run_error)?, values }),
                None => Ok(values.into()),
            }
        })
    }

    /// Runs the graph once, and reads its outputs.
    fn run_graph<T>(
        &mut self,
        batch: &Batch,
        deadline: Instant,
        read: impl FnOnce(&IoSpec, &SessionOutputs<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if self.watchdog.is_stopping() {
            return Err(BackendError::Interrupted);
        }
        let inputs = build_inputs(&self.io_spec.input, batch).map_err(to_run_error)?;
        let mut options = RunOptions::new().map_err(to_run_error)?;
        if let Batch::Tokens(tokens) = batch
            && tokens.rows * tokens.length > MAX_ARENA_TOKENS
            && self.execution_site != ExecutionSite::Gpu
        {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(to_run_error)?;
        }
        let options = Arc::new(options);
        let watch = self.watchdog.watch(deadline, StopHandle::Run(Arc::clone(&options)));
        let outputs = self.session.run_with_options(inputs, &options);
        let outputs = outputs
            .map_err(|error| if watch.was_stopped() { BackendError::Interrupted } else { to_run_error(error) })?;
        drop(watch);
        read(&self.io_spec, &outputs)
    }

    /// The number of scores, for a graph that leaves it open.
    pub(super) fn probe_width(&mut self) -> Result<usize, BackendError> {
        let batch = self.minimal_batch();
        Ok(self.run_unchecked(&batch, Instant::now() + PROBE_TIMEOUT)?.values.ncols())
    }

    /// The classes that an output of the graph lists.
    pub(super) fn probe_class_list(&mut self) -> Result<ClassList, BackendError> {
        let batch = self.minimal_batch();
        self.run_graph(&batch, Instant::now() + PROBE_TIMEOUT, |_, outputs| {
            let Some(value) = outputs.get(CLASS_LABELS_OUTPUT) else { return Ok(ClassList::default()) };
            read_class_list(value).map_err(to_run_error)
        })
    }

    /// The smallest batch that the graph takes.
    fn minimal_batch(&self) -> Batch {
        match &self.io_spec.input {
            GraphInput::Texts { .. } => Batch::Texts(vec!["one short text".to_owned()]),
            GraphInput::Tokens(_) => Batch::Tokens(dummy_tokens(1, self.io_spec.fixed_axes.length.unwrap_or(1))),
        }
    }
}

/// Any tokens: a graph that takes tokens takes these.
pub(super) fn dummy_tokens(rows: usize, length: usize) -> TokenBatch {
    TokenBatch {
        rows,
        length,
        input_ids: vec![1; rows * length],
        attention_mask: vec![1; rows * length],
        token_type_ids: vec![0; rows * length],
        position_ids: (0..rows).flat_map(|_| (0_i64..).take(length)).collect(),
    }
}
