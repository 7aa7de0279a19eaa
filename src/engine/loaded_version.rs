//! One served model version, and how it answers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::ThreadPool;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::backend::{BackendError, Session};
use super::cache::FlightLeader;
use super::drift_monitor::DriftMonitor;
use super::placement::Placement;
use super::queue::{InferenceRequest, QueueGuard};
use super::scheduler::{Micros, soft_deadline};
use super::tokenization::{TokenizeJob, tokenize_in_chunks};
use super::wait_estimator::{ModelLoad, WaitEstimator};
use super::worker::{ModelRunner, RunFailure, SharedSession};
use super::{InferenceError, ItemError, ItemOutput};
use crate::metrics::version_metrics::VersionMetrics;
use crate::text::input::Input;
use crate::text::pipeline::Pipeline;
use crate::text::tensors::Shape;
use crate::text::tokenizer::Tokenizer;

/// Most bytes of text that a cheap model runs on an async thread: about 0.25 ms of work.
const MAX_INLINE_RUN_BYTES: usize = 1 << 10;
/// Most texts of a request that are tokenised, or run by a cheap model, on an async thread.
const MAX_INLINE_ITEMS: usize = 4;
/// Most time that a run may hold an async thread; only a model that is cheap by chance comes near it.
const INLINE_RUN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest predicted run of a text that holds an async thread while nothing else is run.
const MAX_IDLE_RUN_TIME: Duration = Duration::from_millis(5);
/// A run that held an async thread for so long was not cheap, whatever the others were.
const SLOW_INLINE_RUN_TIME: Duration = Duration::from_millis(100);
/// How long a cheap model's texts queue after such a run.
const INLINE_COOLDOWN: Duration = Duration::from_mins(1);
/// Bytes of a token in ordinary text, for a first estimate of what a text costs.
const BYTES_PER_TOKEN: usize = 4;

/// A model version that answers.
pub struct LoadedVersion {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) description: Option<String>,
    pub(super) device: String,
    pub(super) placement: Placement,
    pub(super) is_batch_dependent: bool,
    pub(super) run_memory_bytes: Option<u64>,
    pub(super) unbatchable_reason: Option<&'static str>,
    pub(super) runner: Arc<ModelRunner>,
    /// None without a profile.
    pub(super) drift_monitor: Option<DriftMonitor>,
    pub(super) wait_estimator: Arc<WaitEstimator>,
    pub(super) tokenizer_pool: Arc<ThreadPool>,
    /// Most bytes of text that are tokenised on an async thread.
    pub(super) inline_tokenize_bytes: usize,
    /// Sessions for runs on the caller's thread; none unless the model is cheap.
    pub(super) inline_sessions: Vec<Mutex<Box<dyn Session>>>,
    /// The express worker's session, which runs a text on its caller's thread while nothing else is run; none where that
    /// would hold all async threads.
    pub(super) idle_session: Option<SharedSession>,
    /// Until when texts queue nevertheless, because one of them was not cheap.
    pub(super) inline_cooldown_until: Mutex<Option<Instant>>,
    pub(super) workers: Vec<JoinHandle<()>>,
}

/// What became of texts that could have been run at once.
enum IdleRunOutcome {
    Completed(Result<ItemOutput, ItemError>),
    Declined(Vec<Input>, Vec<Option<FlightLeader>>),
}

impl LoadedVersion {
    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version of the model.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A number that no other load has, of this version or another.
    #[must_use]
    pub fn load_id(&self) -> u64 {
        self.runner.load_id
    }

    /// One line about the model, from `model.toml`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How that was found out.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// True if a text's scores depend on the texts that run beside it.
    #[must_use]
    pub fn is_batch_dependent(&self) -> bool {
        self.is_batch_dependent
    }

    /// Bytes by which its largest run makes the process grow, where that could be told.
    #[must_use]
    pub fn run_memory_bytes(&self) -> Option<u64> {
        self.run_memory_bytes
    }

    /// True if texts, of one request or several, may share a run.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        !self.runner.queue.is_batching_disabled()
    }

    /// Why texts do not share runs, if so.
    #[must_use]
    pub fn unbatchable_reason(&self) -> Option<&'static str> {
        self.unbatchable_reason
    }

    /// True if short texts are answered on the caller's thread.
    #[must_use]
    pub fn can_run_inline(&self) -> bool {
        !self.inline_sessions.is_empty() && !self.has_inline_cooldown()
    }

    fn start_inline_cooldown(&self) {
        *self.inline_cooldown_until.lock() = Some(Instant::now() + INLINE_COOLDOWN);
        tracing::warn!(
            model = self.runner.label,
            "inline inference suspended for one minute; a short item took too long"
        );
    }

    fn has_inline_cooldown(&self) -> bool {
        self.inline_cooldown_until.lock().is_some_and(|end| Instant::now() < end)
    }

    /// Labels, head and tokenizer.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.runner.pipeline
    }

    /// What its runs cost and how much of them there is.
    #[must_use]
    pub fn model_load(&self) -> &ModelLoad {
        &self.runner.model_load
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
        let work = inputs.map(|input| self.estimate_run_time(input.byte_len())).sum();
        self.wait_estimator.service_time(&self.runner.model_load, work, count)
    }

    /// Where its texts and runs are counted.
    #[must_use]
    pub fn metrics(&self) -> &VersionMetrics {
        &self.runner.metrics
    }

    /// Compares what it is asked with its profile, if it has one.
    #[must_use]
    pub fn drift_monitor(&self) -> Option<&DriftMonitor> {
        self.drift_monitor.as_ref()
    }

    /// For how long the oldest text has waited for a worker.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        self.runner.queue.oldest_wait()
    }

    /// Texts that wait for a worker.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.runner.queue.len()
    }

    /// Runs so far, tokens of texts in them, and tokens of padding.
    #[must_use]
    pub fn runs_and_tokens(&self) -> [u64; 3] {
        self.runner.metrics.batch_and_token_totals()
    }

    /// Answers `inputs`, whose permits `permits` holds, in order, and those who wait for any of them.
    ///
    /// # Errors
    /// [`InferenceError`] if the model is shut down meanwhile.
    pub async fn infer(
        self: &Arc<Self>,
        inputs: Vec<(Input, Option<FlightLeader>)>,
        permits: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Vec<Result<ItemOutput, ItemError>>, InferenceError> {
        let (inputs, leads): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let bytes = inputs.iter().map(Input::byte_len).sum::<usize>();
        let few = inputs.len() <= MAX_INLINE_ITEMS;
        if few
            && bytes <= MAX_INLINE_RUN_BYTES
            && self.can_run_inline()
            && let Some(mut session) = self.inline_sessions.iter().find_map(Mutex::try_lock)
        {
            let answer = |(input, lead): (Input, Option<FlightLeader>)| {
                let fit = self.runner.apply_policy(input);
                let answer = fit.and_then(|input| self.run_inline(session.as_mut(), input, deadline));
                if let Some(lead) = lead {
                    lead.complete(&answer);
                }
                answer
            };
            return Ok(inputs.into_iter().zip(leads).map(answer).collect());
        }
        let (inputs, leads) = match self.try_run_idle(inputs, leads, deadline) {
            IdleRunOutcome::Completed(answer) => return Ok(vec![answer]),
            IdleRunOutcome::Declined(inputs, leads) => (inputs, leads),
        };
        // Counted from here on: who comes while these texts are still being read must wait for them.
        let reading = self
            .runner
            .model_load
            .reserve(inputs.iter().map(|input| self.estimate_run_time(input.byte_len())).sum(), inputs.len());
        let request = InferenceRequest::new(deadline, inputs.len() > 1);
        // From here on, dropping this future takes out of the queue what has come there.
        let place = QueueGuard::new(&self.runner.queue, &request);
        let (orders, answers) =
            self.create_tokenize_jobs(&request, inputs.into_iter().zip(leads).collect(), permits)?;
        if few && bytes <= self.inline_tokenize_bytes {
            self.runner.tokenize_and_enqueue(&request, orders);
        } else {
            tokenize_in_chunks(&self.tokenizer_pool, &self.runner, &request, orders);
        }
        // From here on each text counts for itself.
        drop(reading);
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.map_err(|_| InferenceError::Closed)?);
        }
        place.disarm();
        Ok(results)
    }

    /// Runs a single short text on this thread if nothing else is being run: two threads need not be woken then.
    ///
    /// A run that takes much longer than it should is given up, and the text queues as if it had not been tried.
    fn try_run_idle(
        &self,
        inputs: Vec<Input>,
        mut leads: Vec<Option<FlightLeader>>,
        deadline: Instant,
    ) -> IdleRunOutcome {
        let short = self.inline_tokenize_bytes.min(MAX_INLINE_RUN_BYTES);
        let estimate = match &inputs[..] {
            [input] if input.byte_len() <= short && !self.has_inline_cooldown() => {
                self.estimate_run_time(input.byte_len())
            }
            _ => return IdleRunOutcome::Declined(inputs, leads),
        };
        if estimate <= MAX_IDLE_RUN_TIME
            && let Some(session) = &self.idle_session
            && let Some(turn) = self.runner.permits.pool_for_worker(0).try_acquire_idle()
            && let Some(mut session) = session.try_lock()
        {
            let Some(input) = inputs.first().cloned() else { return IdleRunOutcome::Declined(inputs, leads) };
            let _entered = self.runner.model_load.reserve(estimate, 1);
            turn.mark_started(self.runner.load_id, estimate);
            let start = Instant::now();
            let run = || {
                self.runner.apply_policy(input).and_then(|input| self.runner.tokenize(input)).and_then(|encoded| {
                    let tokenised = Instant::now();
                    let until = deadline.min(Instant::now() + SLOW_INLINE_RUN_TIME);
                    match self.runner.try_run_item(session.as_mut(), &encoded, until) {
                        Err(RunFailure::Backend(BackendError::Interrupted)) if Instant::now() < deadline => Ok(None),
                        Err(fault) => Err(self.runner.report_failure(fault)),
                        Ok(decision) => Ok(Some(self.runner.finish_inline(&encoded, decision, start, tokenised))),
                    }
                })
            };
            // With one client there is nobody to wait, and the hand-over costs a fiftieth of a run of MiniLM.
            let answer = if self.runner.server_metrics.http.open_connections() > 1 { run_blocking(run) } else { run() };
            let Some(answer) = answer.transpose() else {
                self.start_inline_cooldown();
                return IdleRunOutcome::Declined(inputs, leads);
            };
            if let Some(lead) = leads.pop().flatten() {
                lead.complete(&answer);
            }
            return IdleRunOutcome::Completed(answer);
        }
        IdleRunOutcome::Declined(inputs, leads)
    }

    /// What is to be done for each text, and where its answer will come.
    #[expect(clippy::type_complexity, reason = "two lists that belong together")]
    fn create_tokenize_jobs(
        &self,
        request: &InferenceRequest,
        inputs: Vec<(Input, Option<FlightLeader>)>,
        mut permits: OwnedSemaphorePermit,
    ) -> Result<(Vec<TokenizeJob>, Vec<oneshot::Receiver<Result<ItemOutput, ItemError>>>), InferenceError> {
        let micros = |time: Duration| Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX);
        let estimates: Vec<Duration> =
            inputs.iter().map(|(input, _)| self.estimate_run_time(input.byte_len())).collect();
        let all = micros(estimates.iter().sum());
        let time = micros(request.deadline.saturating_duration_since(request.arrived_at));
        let (mut orders, mut answers) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        let mut work = 0;
        for ((input, lead), estimate) in inputs.into_iter().zip(estimates) {
            work += micros(estimate);
            let due = request.arrived_at + Duration::from_micros(soft_deadline(0, time, work, all));
            // Every text has a permit: the bound was taken for all of them.
            let permit = permits.split(1).ok_or(InferenceError::Overloaded)?;
            let (reply, answer) = oneshot::channel();
            orders.push(TokenizeJob {
                input,
                leader: lead,
                soft_deadline: due,
                reply,
                permit,
                load_guard: self.runner.model_load.reserve(estimate, 1),
            });
            answers.push(answer);
        }
        Ok((orders, answers))
    }

    /// Predicted time of the runs of a text of so many bytes, before it is tokenised.
    fn estimate_run_time(&self, bytes: usize) -> Duration {
        let Some(tokenizer) = self.pipeline().tokenizer() else {
            return self.runner.model_load.predict_time(Shape { rows: 1, length: 1 });
        };
        let (tokens, most) = (bytes / BYTES_PER_TOKEN + 2, tokenizer.max_tokens());
        let rows = match tokenizer.on_overflow() {
            crate::config::OverflowPolicy::Window => tokens.div_ceil(most).min(Tokenizer::MAX_WINDOWS),
            crate::config::OverflowPolicy::Error | crate::config::OverflowPolicy::Truncate => 1,
        };
        self.runner.model_load.predict_time(Shape { rows, length: tokens.min(most) })
    }

    /// The cheap way: tokenise and run on this thread.
    fn run_inline(&self, session: &mut dyn Session, input: Input, deadline: Instant) -> Result<ItemOutput, ItemError> {
        let start = Instant::now();
        let encoded = self.runner.tokenize(input)?;
        let tokenised = Instant::now();
        let decision = self.runner.run_item(session, &encoded, deadline.min(tokenised + INLINE_RUN_TIMEOUT));
        if tokenised.elapsed() >= SLOW_INLINE_RUN_TIME {
            self.start_inline_cooldown();
        }
        Ok(self.runner.finish_inline(&encoded, decision?, start, tokenised))
    }

    /// Ends the workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        self.runner.queue.close();
        while Instant::now() < deadline && !self.workers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Does work that holds this async thread for milliseconds, while another takes over what waits for it: the other
/// connections' events among it, which one thread at a time looks for.
fn run_blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
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
