//! A thread with a session: wait, take a turn, take texts, run them, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backend::{BackendError, Scores, Session, measure_time};
use super::execution_group::GroupPermits;
use super::gpu_health::GpuFailureSignal;
use super::queue::{DispatchedBatch, Queue, QueuedItem};
use super::session_recycler::SessionRecycler;
use super::timings::Timings;
use super::wait_estimator::{BatchTiming, ModelLoad};
use super::{ItemError, ItemOutput};
use crate::metrics::version_metrics::VersionMetrics;
use crate::metrics::{Metrics, PanicSite};
use crate::text::heads::{HeadOutput, OutputError};
use crate::text::pipeline::{Batch, EncodedInput, Pipeline};
use crate::text::tensors::Shape;

/// What the workers of one model share.
#[derive(Debug)]
pub struct ModelRunner {
    /// A number that no other load has, of this version or another.
    pub load_id: u64,
    /// Name and version, for logs.
    pub label: String,
    /// How texts become answers.
    pub pipeline: Pipeline,
    /// Where texts wait.
    pub queue: Arc<Queue>,
    /// Run permits over all models.
    pub permits: Arc<GroupPermits>,
    /// True if its runs are done on a GPU.
    pub is_on_gpu: bool,
    /// Where it is told that the GPU is lost.
    pub gpu_failure: GpuFailureSignal,
    /// The model's work.
    pub model_load: Arc<ModelLoad>,
    /// Where the model's runs are counted.
    pub metrics: VersionMetrics,
    /// Where events of the whole server are counted.
    pub server_metrics: Arc<Metrics>,
}

/// Why a text has no decision.
#[derive(Debug)]
pub(super) enum RunFailure {
    /// A run failed.
    Backend(BackendError),
    /// Anything else.
    Item(ItemError),
}

/// A session that several threads use in turns.
pub type SharedSession = Arc<Mutex<Box<dyn Session>>>;

/// Texts that a worker has taken.
pub(super) struct PreparedBatch {
    items: Vec<QueuedItem>,
    /// Their tensors; nothing for a text by itself, which may need several runs.
    tensors: Option<Batch>,
}

impl PreparedBatch {
    /// The texts to run.
    pub(super) fn items(&self) -> &[QueuedItem] {
        &self.items
    }

    /// The same, to be taken again.
    pub(super) fn into_items(self) -> Vec<QueuedItem> {
        self.items
    }
}

/// Starts a worker thread. It ends when the queue is closed and empty.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn(
    shop: Arc<ModelRunner>,
    mut session: Box<dyn Session>,
    mut spare: Option<SessionRecycler>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || {
        while shop.queue.wait_for_items(0) {
            // The texts that woke this thread came while a turn was free, and nobody else knows yet that none is.
            let look = || shop.queue.wake_express_worker(Some(Duration::ZERO));
            let turn = shop.permits.pool_for_worker(0).acquire(look);
            // Chosen only now: what came while this thread waited for its turn takes part.
            let taken = shop.queue.next_batch(0, Duration::ZERO);
            if !taken.items.is_empty() {
                turn.mark_started(shop.load_id, shop.predict_run_time(&taken.items));
                shop.queue.wake_express_worker(shop.permits.busy_for(shop.load_id));
            }
            shop.run_and_reply(session.as_mut(), shop.prepare_batch(taken), turn);
            if let Some(spare) = &mut spare {
                spare.record_run(&mut session, &shop);
            }
        }
    })
}

/// Starts the express worker. It ends when the queue is closed.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn_express_worker(shop: Arc<ModelRunner>, session: SharedSession) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-express".to_owned()).spawn(move || {
        let taken_for = || shop.permits.busy_for(shop.load_id);
        while shop.queue.wait_for_express_item(taken_for) {
            let leave = shop.permits.pool_for_worker(0).lock_express();
            let mut session = session.lock();
            let taken = shop.queue.next_express_batch(taken_for());
            shop.run_and_reply(session.as_mut(), shop.prepare_batch(taken), leave);
        }
    })
}

impl ModelRunner {
    /// Lays out the tensors of texts that run together. Those that can no longer be answered in time are told so.
    pub(super) fn prepare_batch(&self, taken: DispatchedBatch) -> PreparedBatch {
        for job in taken.expired_items {
            // The caller's own clock may have told it first.
            _ = job.send_reply(Err(ItemError::DeadlineExceeded));
        }
        self.assemble(taken.items)
    }

    fn assemble(&self, jobs: Vec<QueuedItem>) -> PreparedBatch {
        let batch = match &jobs[..] {
            [_, _, ..] => {
                let batch = || self.pipeline.batch(jobs.iter().map(|job| &job.encoded));
                let batch = catch_unwind(AssertUnwindSafe(batch));
                // Each of them then runs by itself.
                batch.inspect_err(|_| self.server_metrics.record_panic(PanicSite::Worker)).ok()
            }
            _ => None,
        };
        PreparedBatch { items: jobs, tensors: batch }
    }

    /// What of prepared texts is still waited for.
    pub(super) fn drop_cancelled(&self, prepared: PreparedBatch) -> PreparedBatch {
        if !prepared.items.iter().any(|job| job.reply.is_closed()) {
            return prepared;
        }
        self.assemble(prepared.items.into_iter().filter(|job| !job.reply.is_closed()).collect())
    }

    /// Runs texts and answers their callers; true if all of them failed by the model's fault.
    ///
    /// `leave` is given back once they are decided; on a GPU, where several have run, before that: deciding needs a core.
    pub(super) fn run_and_reply<L>(&self, session: &mut dyn Session, prepared: PreparedBatch, leave: L) -> bool {
        let PreparedBatch { items: jobs, tensors: batch } = prepared;
        let mut leave = Some(leave);
        let start = Instant::now();
        let waited = |job: &QueuedItem| {
            let tokenise = job.tokenized_at.saturating_duration_since(job.request.arrived_at);
            (tokenise, start.saturating_duration_since(job.tokenized_at))
        };
        for (tokenise, queue) in jobs.iter().map(waited) {
            self.metrics.record_wait(tokenise, queue);
        }
        let ran = &mut || drop(leave.take_if(|_| self.is_on_gpu));
        let decisions = self.run_batch_or_each(session, &jobs, batch, ran);
        let run = start.elapsed();
        drop(leave);
        let run_texts = jobs.len();
        if run_texts > 0 {
            self.metrics.record_busy_time(run);
        }
        let is_failed = |decision: &Result<_, ItemError>| {
            matches!(decision, Err(ItemError::InferenceFailed | ItemError::OutputInvalid(_)))
        };
        let failed = run_texts > 0 && decisions.iter().all(is_failed);
        for (job, decision) in jobs.into_iter().zip(decisions) {
            let (tokens, unknown, truncated) =
                (job.encoded.token_count, job.encoded.unknown_count, job.encoded.is_truncated);
            let (tokenise, queue) = waited(&job);
            let spent = Timings {
                arrived_at: Some(job.request.arrived_at),
                tokenize_time: tokenise,
                queue_time: queue,
                run_time: run,
                batch_size: run_texts,
            };
            if !job.send_reply(decision.map(|decision| ItemOutput {
                prediction: decision,
                tokens,
                unknown_tokens: unknown,
                truncated,
                timings: spent,
            })) {
                self.metrics.record_wasted_text();
            }
        }
        failed
    }

    /// The answer to a text that was run on its caller's thread.
    pub(super) fn finish_inline(
        &self,
        encoded: &EncodedInput,
        decision: HeadOutput,
        start: Instant,
        tokenised: Instant,
    ) -> ItemOutput {
        let (tokenise, run) = (tokenised.saturating_duration_since(start), tokenised.elapsed());
        let spent = Timings {
            arrived_at: Some(start),
            tokenize_time: tokenise,
            queue_time: Duration::ZERO,
            run_time: run,
            batch_size: 1,
        };
        self.metrics.record_busy_time(run);
        self.metrics.record_wait(spent.tokenize_time, spent.queue_time);
        let EncodedInput { token_count: tokens, unknown_count: unknown, is_truncated: truncated, .. } = *encoded;
        ItemOutput { prediction: decision, tokens, unknown_tokens: unknown, truncated, timings: spent }
    }

    /// How long the run of these texts will take, as runs are just now.
    pub(super) fn predict_run_time(&self, jobs: &[QueuedItem]) -> Duration {
        let time = match jobs {
            [job] => job.unbatched_time,
            jobs => {
                let length = jobs.iter().filter_map(|job| job.padded_length).max().unwrap_or(1);
                self.model_load.predict_time(Shape { rows: jobs.len(), length })
            }
        };
        time.mul_f64(self.model_load.means().slowdown)
    }

    /// Runs texts together; if that fails, each by itself, so that a text's fault is its own.
    fn run_batch_or_each(
        &self,
        session: &mut dyn Session,
        jobs: &[QueuedItem],
        batch: Option<Batch>,
        ran: &mut dyn FnMut(),
    ) -> Vec<Result<HeadOutput, ItemError>> {
        let mut failure = None;
        if let [_, _, ..] = jobs {
            let together = batch.map_or(Err(None), |batch| self.run_batch(session, jobs, &batch, ran));
            match together {
                Ok(decisions) => return decisions,
                Err(error) => failure = error,
            }
            tracing::warn!(model = self.label, texts = jobs.len(), "batch failed; items run one by one");
        }
        let mut score = |job: &QueuedItem| self.run_item(session, &job.encoded, job.request.deadline);
        let decisions: Vec<_> = jobs.iter().map(&mut score).collect();
        if matches!(failure, Some(BackendError::OutputShape { .. })) && decisions.iter().all(Result::is_ok) {
            tracing::error!(model = self.label, "graph accepts one item at a time; batching disabled");
            self.queue.disable_batching();
        }
        decisions
    }

    /// One run for texts of one row each; the runtime's error, or nothing after a panic, if they need runs of their own.
    fn run_batch(
        &self,
        session: &mut dyn Session,
        jobs: &[QueuedItem],
        batch: &Batch,
        ran: &mut dyn FnMut(),
    ) -> Result<Vec<Result<HeadOutput, ItemError>>, Option<BackendError>> {
        // Who wants the answer sooner gets an error of his own; the run goes on for the others.
        let deadline = jobs.iter().map(|job| job.request.deadline).max().unwrap_or_else(Instant::now);
        let alone = jobs.iter().map(|job| job.unbatched_time).sum();
        let run = || {
            let scores = self.run_session(session, batch, alone, deadline)?;
            if !scores.chosen_labels.is_empty() && scores.chosen_labels.len() != jobs.len() {
                let found = vec![i64::try_from(scores.chosen_labels.len()).unwrap_or(i64::MAX)];
                return Err(BackendError::OutputShape { rows: jobs.len(), width: 1, found });
            }
            // Nothing is run from here on.
            ran();
            let chosen = scores.chosen_labels.into_iter().chain(std::iter::repeat(None));
            let rows = scores.values.rows().into_iter().map(|row| vec![row.to_vec()]);
            let decide = |((job, row), chosen): ((&QueuedItem, _), _)| self.apply_head(job, row, chosen);
            Ok(jobs.iter().zip(rows).zip(chosen).map(decide).collect())
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Err(BackendError::Interrupted)) => {
                Ok(jobs.iter().map(|_| Err(self.report_backend_error(&BackendError::Interrupted))).collect())
            }
            Ok(decisions) => decisions.map_err(Some),
            Err(_) => {
                self.server_metrics.record_panic(PanicSite::Worker);
                Err(None)
            }
        }
    }

    /// What the scores of one text say. A panic costs this text only.
    fn apply_head(
        &self,
        job: &QueuedItem,
        rows: Vec<Vec<f32>>,
        chosen: Option<usize>,
    ) -> Result<HeadOutput, ItemError> {
        let decide = || self.pipeline.postprocess(&job.encoded, rows, chosen);
        let decided = catch_unwind(AssertUnwindSafe(decide)).map(|decided| decided.map_err(ItemError::from));
        decided.unwrap_or_else(|_| {
            self.server_metrics.record_panic(PanicSite::Worker);
            tracing::error!(model = self.label, "prediction head panicked; item failed");
            Err(ItemError::InferenceFailed)
        })
    }

    /// Runs one text. A panic costs this text only.
    ///
    /// # Errors
    /// [`ItemError`] if the run fails, panics, gives no answer, or its deadline passes between two runs.
    pub fn run_item(
        &self,
        session: &mut dyn Session,
        encoded: &EncodedInput,
        deadline: Instant,
    ) -> Result<HeadOutput, ItemError> {
        self.try_run_item(session, encoded, deadline).map_err(|fault| self.report_failure(fault))
    }

    /// The same, for a caller who may try again: nothing is logged or counted but a panic.
    pub(super) fn try_run_item(
        &self,
        session: &mut dyn Session,
        encoded: &EncodedInput,
        deadline: Instant,
    ) -> Result<HeadOutput, RunFailure> {
        let run = || -> Result<HeadOutput, RunFailure> {
            let (mut rows, mut chosen) = (Vec::new(), None);
            for batch in self.pipeline.batches(encoded) {
                // Only a text of many windows needs more than one run.
                if !rows.is_empty() && Instant::now() >= deadline {
                    return Err(RunFailure::Item(ItemError::DeadlineExceeded));
                }
                let alone = self.model_load.predict_time(batch.shape());
                let scores = self.run_session(session, &batch, alone, deadline).map_err(RunFailure::Backend)?;
                rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
                // Only graphs that take the text itself choose, and those have one row per text.
                chosen = scores.chosen_labels.first().copied().flatten();
            }
            self.pipeline.postprocess(encoded, rows, chosen).map_err(|error| RunFailure::Item(error.into()))
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.server_metrics.record_panic(PanicSite::Worker);
            tracing::error!(model = self.label, "worker panicked; item failed, worker continues");
            Err(RunFailure::Item(ItemError::InferenceFailed))
        })
    }

    /// What the caller is told; the log and the metrics are told as well.
    pub(super) fn report_failure(&self, fault: RunFailure) -> ItemError {
        match fault {
            RunFailure::Backend(error) => self.report_backend_error(&error),
            RunFailure::Item(error) => error,
        }
    }

    /// One run, timed and counted. `alone`: the predicted time of a run of its own for each of its texts, added up.
    fn run_session(
        &self,
        session: &mut dyn Session,
        batch: &Batch,
        alone: Duration,
        deadline: Instant,
    ) -> Result<Scores, BackendError> {
        let (scores, took) = measure_time(session.runs_on_caller_thread(), || session.run(batch, deadline));
        let scores = scores?;
        let (shape, tokens) = (batch.shape(), batch.token_count());
        self.metrics.record_cost_error(took.cpu, self.model_load.predict_time(shape));
        if let Some(cost) = self.model_load.record_run(&BatchTiming { shape, unbatched_time: alone, elapsed: took }) {
            self.metrics.set_costs(cost.coefficients());
        }
        self.metrics.record_batch(shape.rows, tokens, shape.token_count().saturating_sub(tokens), took.wall);
        Ok(scores)
    }

    fn report_backend_error(&self, error: &BackendError) -> ItemError {
        if *error == BackendError::Interrupted {
            tracing::warn!(model = self.label, "inference aborted; deadline exceeded");
            return ItemError::DeadlineExceeded;
        }
        tracing::error!(model = self.label, %error, "inference failed");
        match error {
            BackendError::Failed(_) | BackendError::OutOfBounds(_) | BackendError::Interrupted => {
                ItemError::InferenceFailed
            }
            BackendError::OutputShape { width, found, .. } => {
                let found = found.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
                ItemError::OutputInvalid(OutputError::Width { expected: *width, found })
            }
        }
    }
}
