//! The threads that keep a GPU busy.
//!
//! A GPU would wait while a thread chooses texts, lays out their tensors, turns scores into decisions and sends answers:
//! for a small model as long as it runs. So a model has a few threads for each GPU, which share its session there. While
//! one runs, another prepares the next run, and others answer the last.
//!
//! Texts that are prepared get no more company. So that is done as late as it may be: when the run under way is
//! about to end, by its predicted time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_text::pipeline::Batch;
use predictd_text::tokenizer::Tokenizer;

use super::backend::{BackendError, Scores, Session};
use super::gpu_health::GpuFailureDetector;
use super::gpu_permits::GpuPermits;
use super::model_runner::ModelRunner;

/// Threads of a model for each GPU: one runs, one prepares, one answers.
const THREADS_PER_GPU: usize = 3;
/// Time that preparing a run is taken to need before it has been seen.
const INITIAL_PREP_TIME: Duration = Duration::from_millis(1);
/// What was seen last counts for so much of that time.
const PREP_TIME_EWMA_ALPHA: f64 = 0.2;
/// So much sooner than it seems necessary: threads wake late.
const WAKE_UP_MARGIN: Duration = Duration::from_micros(250);
/// Time that a thread of another GPU gets to take what waits.
const HANDOFF_GRACE: Duration = Duration::from_millis(1);
/// Tokens of the sample.
const SAMPLE_TOKENS: usize = 16;
/// Time of a run of the sample.
const SAMPLE_RUN_TIMEOUT: Duration = Duration::from_secs(10);

/// A session that several threads use, one at a time. A thread with the permit finds it free.
#[derive(Clone)]
struct SharedSession(Arc<Mutex<Box<dyn Session>>>);

impl Session for SharedSession {
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError> {
        self.0.lock().run(batch, deadline)
    }

    fn runs_on_caller_thread(&self) -> bool {
        self.0.lock().runs_on_caller_thread()
    }
}

/// Starts a model's threads for each GPU, with a session there. They end when the queue is closed and empty. Each runs a
/// sample before anything else: libraries of GPUs prepare a thread at its first run, which takes long.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn(
    runner: &Arc<ModelRunner>,
    gpus: &[Arc<GpuPermits>],
    sessions: Vec<Box<dyn Session>>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let max_tokens = runner.pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let sample = runner.pipeline.cost_probe(SAMPLE_TOKENS.min(max_tokens)).ok();
    let sample_batch = sample.map(|sample| runner.pipeline.batch([&sample]));
    let mut threads = Vec::new();
    for ((gpu_index, permits), session) in gpus.iter().enumerate().zip(sessions) {
        let group = Arc::new(GpuWorkerGroup {
            gpu_index,
            permits: Arc::clone(permits),
            session: SharedSession(Arc::new(Mutex::new(session))),
            prepare_lock: Mutex::default(),
            sample_batch: sample_batch.clone(),
        });
        for _ in 0..THREADS_PER_GPU {
            let runner = Arc::clone(runner);
            let group = Arc::clone(&group);
            let thread = std::thread::Builder::new().name("predictd-worker".to_owned());
            threads.push(thread.spawn(move || group.run_worker(&runner))?);
        }
    }
    Ok(threads)
}

/// What a model's threads for one GPU share.
struct GpuWorkerGroup {
    /// Which of the model's GPUs it is.
    gpu_index: usize,
    permits: Arc<GpuPermits>,
    session: SharedSession,
    /// The thread that holds it waits for texts, and for a permit to run them: one thread at a time, so that a model has
    /// one place among the others that wait for this GPU.
    prepare_lock: Mutex<()>,
    /// A run that works.
    sample_batch: Option<Batch>,
}

impl GpuWorkerGroup {
    fn run_worker(&self, runner: &ModelRunner) {
        let mut session = self.session.clone();
        let mut prep_time = INITIAL_PREP_TIME;
        let mut failure_detector = match self.run_sample() {
            Ok(()) => self.sample_batch.as_ref().map(|_| GpuFailureDetector::default()),
            Err(error) => {
                tracing::warn!(model = runner.label, %error, "sample batch failed; GPU failure detection disabled");
                None
            }
        };
        loop {
            let prepare_lock = self.prepare_lock.lock();
            // A thread that waits for texts where it could not run them would be woken in vain.
            self.permits.wait_available_within(prep_time + WAKE_UP_MARGIN);
            if !runner.queue.wait_for_items(self.gpu_index) {
                return;
            }
            if !self.permits.is_available() && runner.permits.available() > 0 {
                // Another GPU does nothing: its thread is parked, or on its way and sees the text before it parks.
                drop(prepare_lock);
                runner.queue.wake_others();
                self.permits.wait_available(HANDOFF_GRACE);
                continue;
            }
            let next = self.permits.acquire_next(prep_time + WAKE_UP_MARGIN);
            let prep_start = Instant::now();
            let prepared = runner.prepare_batch(runner.queue.next_batch(next.remaining));
            if prepared.items.is_empty() {
                continue;
            }
            prep_time =
                prep_time.mul_f64(1.0 - PREP_TIME_EWMA_ALPHA) + prep_start.elapsed().mul_f64(PREP_TIME_EWMA_ALPHA);
            let Some(permit) = next.acquire(runner.load_id, runner.predict_run_time(&prepared.items)) else {
                runner.queue.requeue(prepared.items);
                continue;
            };
            drop(prepare_lock);
            let prepared = runner.drop_cancelled(prepared);
            if prepared.items.is_empty() {
                continue;
            }
            let failed = runner.run_and_reply(&mut session, prepared, permit);
            if let Some(failure_detector) = &mut failure_detector
                && let Some(reason) = failure_detector.record_run(failed, || self.retry_sample(runner))
            {
                tracing::error!(model = runner.label, reason, "GPU lost; sample batch fails repeatedly");
                runner.gpu_failure.report(format!("a GPU is lost: {} fails on every text ({reason})", runner.label));
            }
        }
    }

    /// Runs the sample with a permit. Behind a run that is stuck there is nothing to be learned.
    fn retry_sample(&self, runner: &ModelRunner) -> Result<(), BackendError> {
        let next = self.permits.acquire_next(Duration::ZERO);
        let _permit = next.acquire(runner.load_id, INITIAL_PREP_TIME).ok_or(BackendError::Interrupted)?;
        self.run_sample()
    }

    fn run_sample(&self) -> Result<(), BackendError> {
        let Some(sample) = &self.sample_batch else { return Ok(()) };
        self.session.0.lock().run(sample, Instant::now() + SAMPLE_RUN_TIMEOUT).map(|_| ())
    }
}
