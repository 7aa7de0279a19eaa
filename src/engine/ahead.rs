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
const MARGIN: Duration = Duration::from_micros(100);
/// Time of a thread's first run, which nobody waits for.
const LONGEST_FIRST_RUN: Duration = Duration::from_secs(10);

/// A session that threads take turns with: who has the turn finds it free.
struct Shared(SharedSession);

impl Session for Shared {
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        self.0.lock().run(batch, deadline)
    }

    fn runs_here(&self) -> bool {
        self.0.lock().runs_here()
    }
}

/// Starts the threads of the GPU of this number, counted among those of the model. They end when the queue is closed and
/// empty. Each runs the sample before anything else: libraries of GPUs prepare a thread at its first run, which takes long.
#[must_use]
pub fn spawn(
    shop: &Arc<Shop>,
    number: usize,
    session: Box<dyn Session>,
    sample: Option<&Batch>,
) -> Vec<std::io::Result<JoinHandle<()>>> {
    let session = Arc::new(Mutex::new(session));
    let spawn = |_| {
        let (shop, session, sample) = (Arc::clone(shop), Shared(Arc::clone(&session)), sample.cloned());
        let name = "predictd-worker".to_owned();
        std::thread::Builder::new().name(name).spawn(move || work(&shop, number, session, sample))
    };
    (0..THREADS).map(spawn).collect()
}

fn work(shop: &Shop, number: usize, mut session: Shared, sample: Option<Batch>) {
    if let Some(sample) = &sample
        && let Err(error) = session.run(sample, Instant::now() + LONGEST_FIRST_RUN)
    {
        tracing::warn!(model = shop.label, %error, "a worker's first run failed");
    }
    let (mut suspicion, mut ahead) = (sample.map(Suspicion::of), FIRST_AHEAD);
    while shop.queue.wait() {
        let next = shop.gates.of_worker(number).wait_next(ahead + MARGIN);
        let begun = Instant::now();
        let taken = shop.queue.take(shop.gates.free_beside(number));
        let prepared = shop.prepared(taken);
        if prepared.jobs().is_empty() {
            // Those that can no longer be answered in time are told so.
            drop(next);
            shop.work_off(&mut session, prepared, ());
            continue;
        }
        ahead = ahead.mul_f64(1.0 - LAST_SEEN) + begun.elapsed().mul_f64(LAST_SEEN);
        let turn = next.turn(shop.load_number, shop.predicted(prepared.jobs()));
        let failed = shop.work_off(&mut session, prepared, turn);
        if let Some(reason) = suspicion.as_mut().and_then(|own| own.after_run(&mut session, failed)) {
            tracing::error!(model = shop.label, reason, "the GPU fails on a text that it has answered: it is lost");
            shop.lost.tell(format!("a GPU is lost: {} fails on every text ({reason})", shop.label));
        }
    }
}
