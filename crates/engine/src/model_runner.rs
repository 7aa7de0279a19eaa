//! Runs the texts of one model: a batch, or a single text, and what its scores say.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_metrics::version_metrics::VersionMetrics;
use predictd_metrics::{Metrics, PanicSite};
use predictd_text::heads::{HeadOutput, OutputError};
use predictd_text::pipeline::{Batch, EncodedInput, Pipeline};
use predictd_text::tensors::Shape;

use super::backend::{BackendError, Scores, Session};
use super::error::ItemError;
use super::gpu_health::GpuFailureSignal;
use super::group_permits::GroupPermits;
use super::item_output::ItemOutput;
use super::queue::{DispatchedBatch, Queue, QueuedItem};
use super::timings::{Timings, measure_time};
use super::wait_estimator::ModelLoad;

/// What the workers of one model share.
pub struct ModelRunner {
    /// A number that no other load has, of this version or another.
    pub load_id: u64,
    /// Name and version, for logs.
    pub label: String,
    /// How texts become answers.
    pub pipeline: Pipeline,
    /// Where texts wait.
    pub queue: Queue,
    /// Run permits over all models.
    pub permits: GroupPermits,
    /// True if its runs are done on a GPU.
    pub is_on_gpu: bool,
    /// Reports that the GPU is lost.
    pub gpu_failure: GpuFailureSignal,
    /// The model's work.
    pub model_load: Arc<ModelLoad>,
    /// Where the model's runs are counted.
    pub metrics: VersionMetrics,
    /// Where events of the whole server are counted.
    pub server_metrics: Arc<Metrics>,
}

/// What the scores of one text say, or why it has none.
type HeadResult = Result<HeadOutput, ItemError>;

/// Texts that a worker has taken from the queue.
pub(super) struct PreparedBatch {
    pub(super) items: Vec<QueuedItem>,
    /// Their tensors; nothing for a text by itself, which may need several runs.
    tensors: Option<Batch>,
}

impl ModelRunner {
    /// Lays out the tensors of texts that run together. Those that can no longer be answered in time get an error.
    pub(super) fn prepare_batch(&self, dispatched: DispatchedBatch) -> PreparedBatch {
        for item in dispatched.expired_items {
            // The caller's own clock may have ended its wait first.
            _ = item.reply.send(Err(ItemError::DeadlineExceeded));
        }
        self.assemble(dispatched.items)
    }

    fn assemble(&self, items: Vec<QueuedItem>) -> PreparedBatch {
        // Without tensors, each of them runs by itself.
        let tensors = (items.len() > 1)
            .then(|| self.catch_panic(|| self.pipeline.batch(items.iter().map(|item| &item.encoded))))
            .flatten();
        PreparedBatch { items, tensors }
    }

    /// What it returns; nothing after a panic, which is counted.
    fn catch_panic<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(work));
        result.inspect_err(|_| self.server_metrics.record_panic(PanicSite::Worker)).ok()
    }

    /// The prepared texts whose callers still wait.
    pub(super) fn drop_cancelled(&self, prepared: PreparedBatch) -> PreparedBatch {
        if !prepared.items.iter().any(|item| item.reply.sender.is_closed()) {
            return prepared;
        }
        self.assemble(prepared.items.into_iter().filter(|item| !item.reply.sender.is_closed()).collect())
    }

    /// Runs texts and answers their callers; true if all of them failed by the model's fault.
    ///
    /// `permit` is given back once they are decided; on a GPU, where several have run, before that: deciding needs a core.
    pub(super) fn run_and_reply<P>(&self, session: &mut dyn Session, prepared: PreparedBatch, permit: P) -> bool {
        let PreparedBatch { items, tensors } = prepared;
        let mut permit = Some(permit);
        let start = Instant::now();
        for item in &items {
            self.metrics.record_wait(item.tokenize_time(), item.queue_time(start));
        }
        let after_run = &mut || drop(permit.take_if(|_| self.is_on_gpu));
        let outputs = self.run_batch_or_each(session, &items, tensors, after_run);
        let run_time = start.elapsed();
        drop(permit);
        let batch_size = items.len();
        if batch_size > 0 {
            self.metrics.record_busy_time(run_time);
        }
        let all_failed = batch_size > 0 && outputs.iter().all(is_model_failure);
        for (item, output) in items.into_iter().zip(outputs) {
            let timings = Timings {
                arrived_at: Some(item.request.arrived_at),
                tokenize_time: item.tokenize_time(),
                queue_time: item.queue_time(start),
                run_time,
                batch_size,
            };
            let output = output.map(|prediction| ItemOutput::new(&item.encoded, prediction, timings));
            if !item.reply.send(output) {
                self.metrics.record_wasted_item();
            }
        }
        all_failed
    }

    /// How long the run of these texts will take, as runs are just now.
    pub(super) fn predict_run_time(&self, items: &[QueuedItem]) -> Duration {
        let time = match items {
            [item] => item.unbatched_time,
            items => {
                let length = items.iter().filter_map(|item| item.padded_length).max().unwrap_or(1);
                self.model_load.predict_time(Shape { rows: items.len(), length })
            }
        };
        time.mul_f64(self.model_load.means().slowdown)
    }

    /// Runs texts together; if that fails, each by itself, so that a text's fault is its own.
    fn run_batch_or_each(
        &self,
        session: &mut dyn Session,
        items: &[QueuedItem],
        tensors: Option<Batch>,
        after_run: &mut dyn FnMut(),
    ) -> Vec<HeadResult> {
        let mut failure = None;
        if items.len() > 1 {
            match tensors.map_or(Err(None), |tensors| self.run_batch(session, items, &tensors, after_run)) {
                Ok(outputs) => return outputs,
                Err(error) => failure = error,
            }
            tracing::warn!(model = self.label, texts = items.len(), "batch failed; items run one by one");
        }
        let outputs: Vec<_> =
            items.iter().map(|item| self.run_item(session, &item.encoded, item.request.deadline)).collect();
        if matches!(failure, Some(BackendError::OutputShape { .. })) && outputs.iter().all(Result::is_ok) {
            tracing::error!(model = self.label, "graph accepts one item at a time; batching disabled");
            self.queue.disable_batching();
        }
        outputs
    }

    /// One run for texts of one row each; the runtime's error, or nothing after a panic, if they need runs of their own.
    fn run_batch(
        &self,
        session: &mut dyn Session,
        items: &[QueuedItem],
        tensors: &Batch,
        after_run: &mut dyn FnMut(),
    ) -> Result<Vec<HeadResult>, Option<BackendError>> {
        // A caller that wants the answer sooner gets an error of its own; the run goes on for the others.
        let deadline = items.iter().map(|item| item.request.deadline).max().unwrap_or_else(Instant::now);
        let unbatched_time = items.iter().map(|item| item.unbatched_time).sum();
        let run = || {
            let scores = self.run_session(session, tensors, unbatched_time, deadline)?;
            if !scores.chosen_labels.is_empty() && scores.chosen_labels.len() != items.len() {
                let found = vec![i64::try_from(scores.chosen_labels.len()).unwrap_or(i64::MAX)];
                return Err(BackendError::OutputShape { rows: items.len(), width: 1, found });
            }
            // Nothing is run from here on.
            after_run();
            let chosen = scores.chosen_labels.iter().copied().chain(std::iter::repeat(None));
            let outputs = items.iter().zip(scores.rows()).zip(chosen);
            Ok(outputs.map(|((item, row), chosen)| self.apply_head(item, row, chosen)).collect())
        };
        match self.catch_panic(run) {
            Some(Err(BackendError::Interrupted)) => {
                Ok(items.iter().map(|_| Err(self.report_backend_error(&BackendError::Interrupted))).collect())
            }
            Some(outputs) => outputs.map_err(Some),
            None => Err(None),
        }
    }

    /// What the scores of one text say. A panic costs this text only.
    fn apply_head(&self, item: &QueuedItem, row: Vec<f32>, chosen: Option<usize>) -> HeadResult {
        let output = self.catch_panic(|| self.pipeline.postprocess(&item.encoded, vec![row], chosen));
        let Some(output) = output else {
            tracing::error!(model = self.label, "prediction head panicked; item failed");
            return Err(ItemError::InferenceFailed);
        };
        Ok(output?)
    }

    /// Runs one text. A panic costs this text only.
    ///
    /// # Errors
    /// [`ItemError`] if the run fails, panics, gives no answer, or its deadline passes between two runs.
    pub fn run_item(&self, session: &mut dyn Session, encoded: &EncodedInput, deadline: Instant) -> HeadResult {
        let run = || {
            let mut rows = Vec::new();
            let mut chosen = None;
            for batch in self.pipeline.batches(encoded) {
                // Only a text of many windows needs more than one run.
                if !rows.is_empty() && Instant::now() >= deadline {
                    return Err(ItemError::DeadlineExceeded);
                }
                let unbatched_time = self.model_load.predict_time(batch.shape());
                let scores = self
                    .run_session(session, &batch, unbatched_time, deadline)
                    .map_err(|error| self.report_backend_error(&error))?;
                rows.extend(scores.rows());
                // Only graphs that take the text itself choose, and those have one row per text.
                chosen = scores.chosen_labels.first().copied().flatten();
            }
            Ok(self.pipeline.postprocess(encoded, rows, chosen)?)
        };
        self.catch_panic(run).unwrap_or_else(|| {
            tracing::error!(model = self.label, "worker panicked; item failed, worker continues");
            Err(ItemError::InferenceFailed)
        })
    }

    /// One run, timed and counted. `unbatched_time`: the predicted time of a run of its own for each of its texts, added up.
    fn run_session(
        &self,
        session: &mut dyn Session,
        batch: &Batch,
        unbatched_time: Duration,
        deadline: Instant,
    ) -> Result<Scores, BackendError> {
        let (scores, elapsed) = measure_time(session.runs_on_caller_thread(), || session.run(batch, deadline));
        let scores = scores?;
        let shape = batch.shape();
        let tokens = batch.token_count();
        self.metrics.record_cost_error(elapsed.cpu, self.model_load.predict_time(shape));
        if let Some(cost_model) = self.model_load.record_run(shape, unbatched_time, elapsed) {
            self.metrics.set_costs(cost_model.coefficients());
        }
        self.metrics.record_batch(shape.rows, tokens, shape.token_count().saturating_sub(tokens), elapsed.wall);
        Ok(scores)
    }

    fn report_backend_error(&self, error: &BackendError) -> ItemError {
        if *error == BackendError::Interrupted {
            tracing::warn!(model = self.label, "inference aborted; deadline exceeded");
            return ItemError::DeadlineExceeded;
        }
        tracing::error!(model = self.label, %error, "inference failed");
        let BackendError::OutputShape { width, found, .. } = error else { return ItemError::InferenceFailed };
        let found = found.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
        ItemError::OutputInvalid(OutputError::Width { expected: *width, found })
    }
}

/// True if a text failed by the model's fault.
fn is_model_failure(output: &HeadResult) -> bool {
    matches!(output, Err(ItemError::InferenceFailed | ItemError::OutputInvalid(_)))
}
