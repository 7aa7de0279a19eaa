//! The waiting texts of one model: pushed by async callers, pulled by worker threads.
//!
//! - `item`: a text that waits; `state`: what is behind the queue's lock
//! - `express_lane`: for the worker that runs short texts beside long ones

mod express_lane;
mod item;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use predictd_stats::to_f64;

use super::group_permits::GroupPermits;
use super::scheduler::batch_search::{BatchContext, Candidate};
use super::scheduler::{BatchingStrategy, Micros, PendingItem, SchedulingContext, to_micros};
use super::scheduler_config::SchedulerConfig;
use super::wait_estimator::{ModelLoad, RunMeans};
use express_lane::{EXPRESS_POLL_INTERVAL, ParkedExpressWorker, max_express_work};
pub use item::{DispatchedBatch, InferenceRequest, ItemReply, QueuedItem};
use state::{QueueState, park_worker};

/// The queue. Its length is bounded by the engine's permits.
pub struct Queue {
    state: Mutex<QueueState>,
    created_at: Instant,
    config: SchedulerConfig,
    model_load: Arc<ModelLoad>,
    permits: GroupPermits,
    batching_disabled: AtomicBool,
}

impl Queue {
    /// The queue of a model. `runs_alone`: its texts are never run together.
    #[must_use]
    pub fn new(config: SchedulerConfig, model_load: Arc<ModelLoad>, permits: GroupPermits, runs_alone: bool) -> Self {
        Self {
            state: Mutex::default(),
            created_at: Instant::now(),
            config,
            model_load,
            permits,
            batching_disabled: AtomicBool::new(runs_alone || config.strategy == BatchingStrategy::Single),
        }
    }

    /// True if texts are never run together.
    #[must_use]
    pub fn is_batching_disabled(&self) -> bool {
        self.batching_disabled.load(Ordering::Relaxed)
    }

    /// From now on texts are never run together.
    pub fn disable_batching(&self) {
        self.batching_disabled.store(true, Ordering::Relaxed);
        self.model_load.disable_batching();
    }

    /// Adds texts of one request. A queue that is closed, and one whose request was taken out, drops them.
    ///
    /// `busy_for`: for how long all permits are taken; nothing if one is free.
    pub fn push(&self, items: Vec<QueuedItem>, busy_for: Option<Duration>) {
        let state = self.state.lock();
        if !state.closed {
            self.enqueue(state, items, busy_for);
        }
    }

    /// Adds texts that were taken and not run, also to a queue that was closed meanwhile: they are to be finished.
    pub fn requeue(&self, items: Vec<QueuedItem>) {
        self.enqueue(self.state.lock(), items, None);
    }

    fn enqueue(&self, mut state: MutexGuard<'_, QueueState>, items: Vec<QueuedItem>, busy_for: Option<Duration>) {
        let mut added = 0;
        for item in items {
            if item.request.is_cancelled() {
                continue;
            }
            let pending = self.pending_item(&item);
            let id = state.next_id;
            state.next_id += 1;
            state.pending.push(id, pending);
            state.items.insert(id, item);
            added += 1;
        }
        let mut woken = state.take_workers_to_wake(added, &self.permits);
        woken.extend(state.take_express_worker_to_wake(busy_for));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn pending_item(&self, item: &QueuedItem) -> PendingItem {
        let candidate = Candidate {
            length: item.padded_length.unwrap_or(1),
            unbatched_time: to_micros(item.unbatched_time).max(1),
            deadline: self.micros_since_creation(item.request.deadline),
        };
        PendingItem {
            candidate,
            arrived_at: self.micros_since_creation(item.request.arrived_at),
            soft_deadline: self.micros_since_creation(item.soft_deadline),
            is_bulk: item.request.is_bulk,
            is_batchable: item.padded_length.is_some() && !self.is_batching_disabled(),
        }
    }

    /// Takes out the texts of a request whose caller has left, and lets in no more of them.
    pub fn cancel(&self, request: &Arc<InferenceRequest>) {
        request.cancel();
        let mut state = self.state.lock();
        let cancelled: Vec<_> = state.items.extract_if(|_, item| Arc::ptr_eq(&item.request, request)).collect();
        for (id, _) in &cancelled {
            state.pending.remove(*id);
        }
        drop(state);
        // The items are dropped after the lock: each wakes a semaphore.
        drop(cancelled);
    }

    /// Waits until there is a text; `gpu_index`: the number of the worker's GPU. False: the queue was closed and is
    /// empty.
    pub fn wait_for_items(&self, gpu_index: usize) -> bool {
        let mut state = self.state.lock();
        while state.pending.is_empty() && !state.closed {
            park_worker(&mut state, gpu_index);
        }
        !state.pending.is_empty()
    }

    /// Wakes the parked workers, if a text waits: the worker that was woken leaves it to them.
    pub fn wake_others(&self) {
        let mut state = self.state.lock();
        if state.pending.is_empty() {
            return;
        }
        let woken = state.take_workers_to_wake(usize::MAX, &self.permits);
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn strategy(&self) -> BatchingStrategy {
        if self.is_batching_disabled() { BatchingStrategy::Single } else { self.config.strategy }
    }

    /// Takes the texts to run now, and those that cannot be answered in time any more.
    ///
    /// The run of these texts begins in `remaining`.
    pub fn next_batch(&self, remaining: Duration) -> DispatchedBatch {
        // So many other runs may begin at once.
        let free = self.permits.available();
        let means = self.model_load.means();
        let cost_model = self.model_load.cost_model();
        let mut expired_items = Vec::new();
        let mut state = self.state.lock();
        loop {
            let now = self.micros_since_creation(Instant::now());
            expired_items.extend(state.pop_expired(now));
            let is_overloaded = self.update_overload_state(&mut state, now, &means);
            let batch_context = BatchContext {
                now: now.saturating_add(to_micros(remaining)),
                cost_model: &cost_model,
                slowdown: means.slowdown,
                limits: self.config.batch_limits,
            };
            let context = SchedulingContext {
                batch_context,
                idle_workers: (state.parked_workers.len() + state.waking_workers).min(free),
                is_overloaded,
            };
            let ids = state.pending.schedule(self.strategy(), &context);
            let items = state.take_items(&ids);
            // Those that were taken may all be of callers that have left.
            if ids.is_empty() || !items.is_empty() {
                return DispatchedBatch { items, expired_items };
            }
        }
    }

    /// True if there has been more work than can be done in the overload threshold, for twice as long.
    fn update_overload_state(&self, state: &mut QueueState, now: Micros, means: &RunMeans) -> bool {
        let threshold = self.config.overload_threshold.as_secs_f64();
        let texts = state.pending.len() as u64;
        let workers = self.config.worker_count.max(1) as u64;
        let [work, texts, workers] = [state.pending.total_work, texts, workers].map(to_f64);
        let wait = self.model_load.batched_seconds(means, work / 1e6, texts) / workers;
        let was_overloaded = state.is_overloaded;
        // It is over only when the queue is clearly shorter than that at which it began.
        if wait < if was_overloaded { threshold / 2.0 } else { threshold } {
            state.last_below_threshold = now;
        }
        state.is_overloaded = u128::from(now.saturating_sub(state.last_below_threshold))
            > 2 * self.config.overload_threshold.as_micros()
            || (was_overloaded && state.last_below_threshold != now);
        state.is_overloaded
    }

    /// Lets the workers finish what waits and then end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let mut woken = state.take_workers_to_wake(usize::MAX, &self.permits);
        woken.extend(state.parked_express_worker.take().map(|worker| worker.thread));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    /// For how long the oldest text has waited.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        let state = self.state.lock();
        state.items.values().map(|item| item.tokenized_at.elapsed()).max().unwrap_or_default()
    }

    /// Texts that wait.
    #[must_use]
    pub fn item_count(&self) -> usize {
        self.state.lock().pending.len()
    }

    fn micros_since_creation(&self, at: Instant) -> Micros {
        to_micros(at.saturating_duration_since(self.created_at))
    }

    /// Lets the express worker look, if a text waits for it. `busy_for`: for how long all permits are taken.
    pub fn wake_express_worker(&self, busy_for: Option<Duration>) {
        let woken = self.state.lock().take_express_worker_to_wake(busy_for);
        if let Some(thread) = woken {
            thread.unpark();
        }
    }

    /// Waits until a text is worth running beside those that hold all permits. `busy_for` returns for how long they do.
    /// False: the queue was closed.
    pub fn wait_for_express_item(&self, busy_for: impl Fn() -> Option<Duration>) -> bool {
        let mut state = self.state.lock();
        while !state.closed {
            if state.pending.find_express_item(max_express_work(busy_for())).is_some() {
                return true;
            }
            let is_polling = !state.pending.is_empty();
            state.parked_express_worker = Some(ParkedExpressWorker { thread: thread::current(), is_polling });
            MutexGuard::unlocked(&mut state, || {
                if is_polling { thread::park_timeout(EXPRESS_POLL_INTERVAL) } else { thread::park() }
            });
            state.parked_express_worker = None;
        }
        false
    }

    /// Takes the texts to run beside those that hold all permits for so long.
    #[must_use]
    pub fn next_express_batch(&self, busy_for: Option<Duration>) -> DispatchedBatch {
        let means = self.model_load.means();
        let cost_model = self.model_load.cost_model();
        let mut state = self.state.lock();
        let now = self.micros_since_creation(Instant::now());
        let expired_items = state.pop_expired(now);
        let batch_context =
            BatchContext { now, cost_model: &cost_model, slowdown: means.slowdown, limits: self.config.batch_limits };
        let context = SchedulingContext { batch_context, idle_workers: 0, is_overloaded: false };
        let ids = state.pending.take_express_batch(max_express_work(busy_for), self.strategy(), &context);
        DispatchedBatch { items: state.take_items(&ids), expired_items }
    }
}
