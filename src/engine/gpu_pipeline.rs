//! The threads that keep a GPU busy.
//!
//! A GPU would wait while a thread chooses texts, lays out their tensors, turns scores into decisions and sends answers:
//! for a small model as long as it runs. So a model has a few threads for each GPU, which share its session there and take
//! turns. While one runs, another prepares the next run, and others answer the last.
//!
//! Texts that are prepared get no more company. So that is done as late as it may be: when the run under way is
//! about to end, by its predicted time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backend::{BackendError, Scores, Session};
use super::gpu_health::GpuFailureDetector;
use super::worker::{ModelRunner, SharedSession};
use crate::text::pipeline::Batch;

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
/// Time of a run of the sample.
const SAMPLE_RUN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a model's threads for one GPU share.
struct GpuWorkerGroup {
    /// Which of the model's GPUs it is.
    gpu_index: usize,
    session: SharedSession,
    /// Who holds it waits for texts, and for the turn to run them: one thread at a time, so that a model has one place
    /// among the others that wait for this GPU.
    prepare_lock: Mutex<()>,
    /// A run that works.
    sample_batch: Option<Batch>,
}

/// The session, which a thread with the turn finds free.
struct SharedGpuSession(SharedSession);

impl Session for SharedGpuSession {
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError> {
        self.0.lock().run(batch, deadline)
    }

    fn runs_on_caller_thread(&self) -> bool {
        self.0.lock().runs_on_caller_thread()
    }
}

/// Starts the threads of a GPU, which is of this number among those of the model. They end when the queue is closed and
/// empty. Each runs the sample before anything else: libraries of GPUs prepare a thread at its first run, which takes long.
#[must_use]
pub fn spawn(
    shop: &Arc<ModelRunner>,
    number: usize,
    session: Box<dyn Session>,
    sample: Option<Batch>,
) -> Vec<std::io::Result<JoinHandle<()>>> {
    let place = Arc::new(GpuWorkerGroup {
        gpu_index: number,
        session: Arc::new(Mutex::new(session)),
        prepare_lock: Mutex::default(),
        sample_batch: sample,
    });
    let spawn = |_| {
        let (shop, place) = (Arc::clone(shop), Arc::clone(&place));
        std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || place.run_worker(&shop))
    };
    (0..THREADS_PER_GPU).map(spawn).collect()
}

impl GpuWorkerGroup {
    fn run_worker(&self, shop: &ModelRunner) {
        let (mut session, mut ahead) = (SharedGpuSession(Arc::clone(&self.session)), INITIAL_PREP_TIME);
        let mut suspicion = match self.run_sample() {
            Ok(()) => self.sample_batch.as_ref().map(|_| GpuFailureDetector::default()),
            Err(error) => {
                tracing::warn!(model = shop.label, %error, "sample batch failed; GPU failure detection disabled");
                None
            }
        };
        let gate = shop.permits.pool_for_worker(self.gpu_index);
        loop {
            let front = self.prepare_lock.lock();
            // A thread that waits for texts where it could not run them would be woken in vain.
            gate.wait_available_within(ahead + WAKE_UP_MARGIN);
            if !shop.queue.wait_for_items(self.gpu_index) {
                return;
            }
            if gate.available() == 0 && shop.permits.available() > 0 {
                // Another GPU does nothing: its thread rests, or is on its way and sees the text before it does.
                drop(front);
                shop.queue.wake_others();
                gate.wait_available(HANDOFF_GRACE);
                continue;
            }
            let next = gate.acquire_next(ahead + WAKE_UP_MARGIN);
            let begun = Instant::now();
            let prepared = shop.prepare_batch(shop.queue.next_batch(self.gpu_index, next.remaining()));
            if prepared.items().is_empty() {
                continue;
            }
            ahead = ahead.mul_f64(1.0 - PREP_TIME_EWMA_ALPHA) + begun.elapsed().mul_f64(PREP_TIME_EWMA_ALPHA);
            let Some(turn) = next.acquire(shop.load_id, shop.predict_run_time(prepared.items())) else {
                shop.queue.requeue(prepared.into_items());
                continue;
            };
            drop(front);
            let prepared = shop.drop_cancelled(prepared);
            if prepared.items().is_empty() {
                continue;
            }
            let failed = shop.run_and_reply(&mut session, prepared, turn);
            if let Some(suspicion) = &mut suspicion
                && let Some(reason) = suspicion.record_run(failed, || self.retry_sample(shop))
            {
                tracing::error!(model = shop.label, reason, "GPU lost; sample batch fails repeatedly");
                shop.gpu_failure.report(format!("a GPU is lost: {} fails on every text ({reason})", shop.label));
            }
        }
    }

    /// Runs the sample in a turn. Behind a run that is stuck there is nothing to be learned.
    fn retry_sample(&self, shop: &ModelRunner) -> Result<(), BackendError> {
        let next = shop.permits.pool_for_worker(self.gpu_index).acquire_next(Duration::ZERO);
        let _turn = next.acquire(shop.load_id, INITIAL_PREP_TIME).ok_or(BackendError::Interrupted)?;
        self.run_sample()
    }

    fn run_sample(&self) -> Result<(), BackendError> {
        let Some(sample) = &self.sample_batch else { return Ok(()) };
        self.session.lock().run(sample, Instant::now() + SAMPLE_RUN_TIMEOUT).map(|_| ())
    }
}
