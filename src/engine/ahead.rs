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

use super::loss::Suspicion;
use super::session::{RunError, Scores, Session};
use super::worker::{SharedSession, Shop};
use crate::text::pipeline::Batch;

/// Threads of a model for each GPU: one runs, one prepares, one answers.
const THREADS: usize = 3;
/// Time that preparing a run is taken to need before it has been seen.
const FIRST_AHEAD: Duration = Duration::from_millis(1);
/// What was seen last counts for so much of that time.
const LAST_SEEN: f64 = 0.2;
/// So much sooner than it seems necessary: threads wake late.
const MARGIN: Duration = Duration::from_micros(250);
/// Time that a thread of another GPU gets to take what waits.
const ON_ITS_WAY: Duration = Duration::from_millis(1);
/// Time of a run of the sample.
const LONGEST_SAMPLE: Duration = Duration::from_secs(10);

/// What a model's threads for one GPU share.
struct Place {
    /// Which of the model's GPUs it is.
    number: usize,
    session: SharedSession,
    /// Who holds it waits for texts, and for the turn to run them: one thread at a time, so that a model has one place
    /// among the others that wait for this GPU.
    front: Mutex<()>,
    /// A run that works.
    sample: Option<Batch>,
}

/// The session, which a thread with the turn finds free.
struct Shared(SharedSession);

impl Session for Shared {
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        self.0.lock().run(batch, deadline)
    }

    fn runs_here(&self) -> bool {
        self.0.lock().runs_here()
    }
}

/// Starts the threads of a GPU, which is of this number among those of the model. They end when the queue is closed and
/// empty. Each runs the sample before anything else: libraries of GPUs prepare a thread at its first run, which takes long.
#[must_use]
pub fn spawn(
    shop: &Arc<Shop>,
    number: usize,
    session: Box<dyn Session>,
    sample: Option<Batch>,
) -> Vec<std::io::Result<JoinHandle<()>>> {
    let place = Arc::new(Place { number, session: Arc::new(Mutex::new(session)), front: Mutex::default(), sample });
    let spawn = |_| {
        let (shop, place) = (Arc::clone(shop), Arc::clone(&place));
        std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || place.work(&shop))
    };
    (0..THREADS).map(spawn).collect()
}

impl Place {
    fn work(&self, shop: &Shop) {
        let (mut session, mut ahead) = (Shared(Arc::clone(&self.session)), FIRST_AHEAD);
        let mut suspicion = match self.run_sample() {
            Ok(()) => self.sample.as_ref().map(|_| Suspicion::default()),
            Err(error) => {
                tracing::warn!(model = shop.label, %error, "a worker's first run failed");
                None
            }
        };
        let gate = shop.gates.of_worker(self.number);
        loop {
            let front = self.front.lock();
            // A thread that waits for texts where it could not run them would be woken in vain.
            gate.wait_near(ahead + MARGIN);
            if !shop.queue.wait(self.number) {
                return;
            }
            if gate.free() == 0 && shop.gates.free() > 0 {
                // Another GPU does nothing: its thread rests, or is on its way and sees the text before it does.
                drop(front);
                shop.queue.pass_on();
                gate.wait_free(ON_ITS_WAY);
                continue;
            }
            let next = gate.wait_next(ahead + MARGIN);
            let begun = Instant::now();
            let prepared = shop.prepared(shop.queue.take(self.number, next.rest()));
            if prepared.jobs().is_empty() {
                continue;
            }
            ahead = ahead.mul_f64(1.0 - LAST_SEEN) + begun.elapsed().mul_f64(LAST_SEEN);
            let Some(turn) = next.turn(shop.load_number, shop.predicted(prepared.jobs())) else {
                shop.queue.give_back(prepared.into_jobs());
                continue;
            };
            drop(front);
            let prepared = shop.still_wanted(prepared);
            if prepared.jobs().is_empty() {
                continue;
            }
            let failed = shop.work_off(&mut session, prepared, turn);
            if let Some(suspicion) = &mut suspicion
                && let Some(reason) = suspicion.after_run(failed, || self.try_again(shop))
            {
                tracing::error!(model = shop.label, reason, "the GPU fails on a text that it has answered: it is lost");
                shop.lost.tell(format!("a GPU is lost: {} fails on every text ({reason})", shop.label));
            }
        }
    }

    /// Runs the sample in a turn. Behind a run that is stuck there is nothing to be learned.
    fn try_again(&self, shop: &Shop) -> Result<(), RunError> {
        let next = shop.gates.of_worker(self.number).wait_next(Duration::ZERO);
        let _turn = next.turn(shop.load_number, FIRST_AHEAD).ok_or(RunError::Interrupted)?;
        self.run_sample()
    }

    fn run_sample(&self) -> Result<(), RunError> {
        let Some(sample) = &self.sample else { return Ok(()) };
        self.session.lock().run(sample, Instant::now() + LONGEST_SAMPLE).map(|_| ())
    }
}
