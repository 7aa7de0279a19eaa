//! One served model version, and how it answers.
//!
//! An item runs in one of three ways: inline on its caller's thread, where the model is cheap; on a worker of the cores,
//! out of the queue (the express worker passes by those in front); or in the pipeline of a GPU.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_text::input::Input;
use predictd_text::pipeline::Pipeline;
use rayon::ThreadPool;
use tokio::sync::OwnedSemaphorePermit;

use super::backend::Session;
use super::cache::FlightLeader;
use super::cancel_guard::CancelGuard;
use super::drift_monitor::DriftMonitor;
use super::error::InferenceError;
use super::item_output::{ItemOutput, ItemResult};
use super::model_runner::ModelRunner;
use super::placement_result::Placement;
use super::queue::InferenceRequest;
use super::timings::Timings;
use super::tokenization::{
    create_tokenize_jobs, estimate_run_time, tokenize, tokenize_and_enqueue, tokenize_in_chunks,
};
use super::wait_estimator::WaitEstimator;

/// Most bytes of text that a cheap model runs on an async thread: about 0.25 ms of work.
const MAX_INLINE_RUN_BYTES: usize = 1 << 10;
/// Most texts of a request that are tokenised, or run by a cheap model, on an async thread.
const MAX_INLINE_ITEMS: usize = 4;
/// Most time that a run may hold an async thread; only a model that is cheap by chance comes near it.
const INLINE_RUN_TIMEOUT: Duration = Duration::from_secs(1);
/// A run that held an async thread for so long was not cheap, whatever the others were.
const SLOW_INLINE_RUN_TIME: Duration = Duration::from_millis(100);
/// How long a cheap model's texts queue after such a run.
const INLINE_COOLDOWN: Duration = Duration::from_mins(1);

/// A model version that answers.
pub struct LoadedVersion {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// One line about the model, from `model.toml`.
    pub description: Option<String>,
    /// Where it runs, and how that was found out.
    pub placement: Placement,
    /// True if a text's scores depend on the texts that run beside it.
    pub is_batch_dependent: bool,
    /// Bytes by which its largest run makes the process grow, where that could be measured.
    pub run_memory_bytes: Option<u64>,
    /// Why texts do not share runs, if so.
    pub unbatchable_reason: Option<&'static str>,
    /// Runs its texts.
    pub runner: Arc<ModelRunner>,
    /// Compares what it is asked with its profile, if it has one.
    pub drift_monitor: Option<DriftMonitor>,
    pub(super) wait_estimator: Arc<WaitEstimator>,
    pub(super) tokenizer_pool: Arc<ThreadPool>,
    /// Most bytes of text that are tokenised on an async thread.
    pub(super) inline_tokenize_bytes: usize,
    /// Sessions for runs on the caller's thread; none unless the model is cheap.
    pub(super) inline_sessions: Vec<Mutex<Box<dyn Session>>>,
    /// Until when texts queue nevertheless, because one of them was not cheap.
    pub(super) inline_cooldown_until: Mutex<Option<Instant>>,
    pub(super) workers: Vec<JoinHandle<()>>,
}

impl LoadedVersion {
    /// True if texts, of one request or several, may share a run.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        !self.runner.queue.is_batching_disabled()
    }

    /// True if short texts are answered on the caller's thread.
    #[must_use]
    pub fn can_run_inline(&self) -> bool {
        !self.inline_sessions.is_empty()
            && self.inline_cooldown_until.lock().is_none_or(|cooldown_end| Instant::now() >= cooldown_end)
    }

    /// Labels, head and tokenizer.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.runner.pipeline
    }

    /// Time until the texts that were admitted are answered.
    #[must_use]
    pub fn wait_time(&self) -> Duration {
        self.wait_estimator.wait_time(&self.runner.model_load)
    }

    /// Predicted time for texts that need not wait, before they are tokenised.
    #[must_use]
    pub fn service_time<'a>(&self, inputs: impl ExactSizeIterator<Item = &'a Input>) -> Duration {
        let count = inputs.len();
        let work = inputs.map(|input| estimate_run_time(&self.runner, input)).sum();
        self.wait_estimator.service_time(&self.runner.model_load, work, count)
    }

    /// Answers `inputs`, whose permits `permits` holds, in order, and the requests that wait for any of them.
    ///
    /// # Errors
    /// [`InferenceError`] if the model is shut down meanwhile.
    pub async fn infer(
        &self,
        inputs: Vec<(Input, Option<FlightLeader>)>,
        permits: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Vec<ItemResult>, InferenceError> {
        let bytes = inputs.iter().map(|(input, _)| input.byte_len()).sum::<usize>();
        let is_small = inputs.len() <= MAX_INLINE_ITEMS;
        if is_small
            && bytes <= MAX_INLINE_RUN_BYTES
            && self.can_run_inline()
            && let Some(mut session) = self.inline_sessions.iter().find_map(Mutex::try_lock)
        {
            return Ok(inputs
                .into_iter()
                .map(|(input, leader)| self.answer_inline(session.as_mut(), input, leader, deadline))
                .collect());
        }
        // Counted from here on: what comes while these texts are still being read must wait for them.
        let work = inputs.iter().map(|(input, _)| estimate_run_time(&self.runner, input)).sum();
        let load_guard = self.runner.model_load.reserve(work, inputs.len());
        let request = InferenceRequest::new(deadline, inputs.len() > 1);
        // From here on, dropping this future takes out of the queue what has come there.
        let on_cancel = || self.runner.queue.cancel(&request);
        let mut cancel_guard = CancelGuard { is_answered: false, on_cancel };
        let (jobs, replies) = create_tokenize_jobs(&self.runner, &request, inputs, permits)?;
        if is_small && bytes <= self.inline_tokenize_bytes {
            tokenize_and_enqueue(&self.runner, &request, jobs);
        } else {
            tokenize_in_chunks(&self.tokenizer_pool, &self.runner, &request, jobs);
        }
        // From here on each text counts for itself.
        drop(load_guard);
        let mut outputs = Vec::with_capacity(replies.len());
        for reply in replies {
            outputs.push(reply.await.map_err(|_| InferenceError::Closed)?);
        }
        cancel_guard.is_answered = true;
        Ok(outputs)
    }

    /// Answers a text of a cheap model on this thread, and the requests that wait for it.
    fn answer_inline(
        &self,
        session: &mut dyn Session,
        input: Input,
        leader: Option<FlightLeader>,
        deadline: Instant,
    ) -> ItemResult {
        let output = self.run_inline(session, input, deadline);
        if let Some(leader) = leader {
            leader.complete(&output);
        }
        output
    }

    /// Tokenises and runs a text on this thread.
    fn run_inline(&self, session: &mut dyn Session, input: Input, deadline: Instant) -> ItemResult {
        let start = Instant::now();
        let encoded = tokenize(&self.runner, input)?;
        let tokenized_at = Instant::now();
        let prediction = self.runner.run_item(session, &encoded, deadline.min(tokenized_at + INLINE_RUN_TIMEOUT));
        if tokenized_at.elapsed() >= SLOW_INLINE_RUN_TIME {
            *self.inline_cooldown_until.lock() = Some(Instant::now() + INLINE_COOLDOWN);
            tracing::warn!(
                model = self.runner.label,
                "inline inference suspended for one minute; a short item took too long"
            );
        }
        let prediction = prediction?;
        let timings = Timings {
            arrived_at: Some(start),
            tokenize_time: tokenized_at.saturating_duration_since(start),
            queue_time: Duration::ZERO,
            run_time: tokenized_at.elapsed(),
            batch_size: 1,
        };
        self.runner.metrics.record_busy_time(timings.run_time);
        self.runner.metrics.record_wait(timings.tokenize_time, timings.queue_time);
        Ok(ItemOutput::new(&encoded, prediction, timings))
    }

    /// Ends the workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        self.runner.queue.close();
        while Instant::now() < deadline && !self.workers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for LoadedVersion {
    fn drop(&mut self) {
        self.runner.queue.close();
    }
}

impl std::fmt::Debug for LoadedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}
