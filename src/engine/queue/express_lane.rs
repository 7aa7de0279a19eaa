//! For the express worker: one thread per model that needs no turn of the gate.
//!
//! Where every turn is taken by a run that still takes long, a short text would wait for many times its own work: behind
//! long texts, behind a slow model, behind a run that is stuck. The express worker runs it beside them; the system
//! shares the cores. It does so only where a text would wait longer than until it is due, so that texts of usual length
//! share runs as ever.

use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::super::scheduler::batch_search::BatchContext;
use super::super::scheduler::{Micros, SOFT_DEADLINE_FACTOR, SchedulingContext};
use super::{DispatchedBatch, Queue, QueueState};

/// How often the express worker looks again while texts wait: only time shows that a run is stuck.
const EXPRESS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The express worker, waiting.
#[derive(Debug)]
pub(super) struct ParkedExpressWorker {
    pub(super) thread: Thread,
    /// It looks again by itself.
    is_polling: bool,
}

/// The longest work for which it is worth running beside runs that take `taken`.
fn max_express_work(taken: Option<Duration>) -> Micros {
    let taken = taken.unwrap_or_default().as_micros();
    Micros::try_from(taken).unwrap_or(Micros::MAX) / SOFT_DEADLINE_FACTOR
}

impl QueueState {
    /// The express worker, if it is to look now.
    pub(super) fn take_express_worker_to_wake(&mut self, taken: Option<Duration>) -> Option<Thread> {
        let looks_again = self.parked_express_worker.as_ref()?.is_polling;
        let now =
            taken.is_some() && (!looks_again || self.pending.find_express_item(max_express_work(taken)).is_some());
        now.then(|| self.parked_express_worker.take())?.map(|waiting| waiting.thread)
    }
}

impl Queue {
    /// Lets the express worker look, if a text waits for it. `taken`: for how long all turns of the gate are taken.
    pub fn wake_express_worker(&self, taken: Option<Duration>) {
        let woken = self.state.lock().take_express_worker_to_wake(taken);
        if let Some(thread) = woken {
            thread.unpark();
        }
    }

    /// Waits until a text is worth running beside those that have all turns of the gate, as `taken` tells. False: the
    /// queue was closed.
    pub fn wait_for_express_item(&self, taken: impl Fn() -> Option<Duration>) -> bool {
        let mut state = self.state.lock();
        while !state.closed {
            if state.pending.find_express_item(max_express_work(taken())).is_some() {
                return true;
            }
            let looks_again = !state.pending.is_empty();
            state.parked_express_worker =
                Some(ParkedExpressWorker { thread: thread::current(), is_polling: looks_again });
            MutexGuard::unlocked(&mut state, || {
                if looks_again { thread::park_timeout(EXPRESS_POLL_INTERVAL) } else { thread::park() }
            });
            state.parked_express_worker = None;
        }
        false
    }

    /// Takes the texts to run beside those that have all turns of the gate for so long.
    #[must_use]
    pub fn next_express_batch(&self, taken: Option<Duration>) -> DispatchedBatch {
        let (means, cost) = (self.model_load.means(), self.model_load.cost_model());
        let mut state = self.state.lock();
        let now = self.micros_since_creation(Instant::now());
        let expired = state.pop_expired(now);
        let fit = BatchContext { now, cost_model: &cost, slowdown: means.slowdown, limits: self.config.batch_limits };
        let situation = SchedulingContext { batch_context: fit, idle_workers: 0, is_overloaded: false };
        let ids = state.pending.take_express_batch(max_express_work(taken), self.strategy(), &situation);
        DispatchedBatch { items: state.take_items(&ids), expired_items: expired }
    }
}
