//! The waiting texts of one model: pushed by async callers, pulled by worker threads.
//!
//! - `express`: for the worker that runs short texts beside long ones; `place`: where a request stands

mod express_lane;
mod guard;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::FlightLeader;
use super::execution_group::GroupPermits;
use super::scheduler::batch_search::{BatchContext, BatchLimits, Candidate};
use super::scheduler::{
    BatchingStrategy, ItemId, Micros, PendingItem, PendingSet, SchedulerDecision, SchedulingContext,
};
use super::wait_estimator::{LoadGuard, ModelLoad, RunMeans};
use super::{ItemError, ItemOutput};
use crate::text::pipeline::EncodedInput;
pub use guard::QueueGuard;

/// One request, as far as its texts share something.
#[derive(Debug)]
pub struct InferenceRequest {
    /// When it came.
    pub arrived_at: Instant,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// True if it has several texts.
    pub is_bulk: bool,
    cancelled: AtomicBool,
}

impl InferenceRequest {
    /// A request that came now.
    #[must_use]
    pub fn new(deadline: Instant, bulk: bool) -> Arc<Self> {
        Arc::new(Self { arrived_at: Instant::now(), deadline, is_bulk: bulk, cancelled: AtomicBool::new(false) })
    }

    /// True once nobody waits for its answer.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A text on its way to a worker.
#[derive(Debug)]
pub struct QueuedItem {
    /// The request it belongs to.
    pub request: Arc<InferenceRequest>,
    /// The text, tokenised.
    pub encoded: EncodedInput,
    /// What it counts for in a run, padding included; nothing if it needs runs of its own.
    pub padded_length: Option<usize>,
    /// Predicted time of a run of its own.
    pub unbatched_time: Duration,
    /// When its turn has come.
    pub soft_deadline: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<ItemOutput, ItemError>>,
    /// When it was tokenised.
    pub tokenized_at: Instant,
    /// Its share of the engine's bound; given back when the job is dropped.
    pub permit: OwnedSemaphorePermit,
    /// Its share of the model's work.
    pub load_guard: LoadGuard,
    /// Where others get the answer.
    pub leader: Option<FlightLeader>,
}

impl QueuedItem {
    /// Answers the caller and gives the permit back. False if the caller had left.
    #[must_use]
    pub fn send_reply(self, answer: Result<ItemOutput, ItemError>) -> bool {
        // The permit goes first: a caller that sees its answer may send the next request at once.
        drop((self.permit, self.load_guard));
        if let Some(lead) = self.leader {
            lead.complete(&answer);
        }
        self.reply.send(answer).is_ok()
    }
}

/// How a queue hands out its texts.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// Which texts run together.
    pub strategy: BatchingStrategy,
    /// What a run may be at most.
    pub batch_limits: BatchLimits,
    /// Runs at a time.
    pub worker_count: usize,
    /// More work than this, for twice as long, is an overload.
    pub overload_threshold: Duration,
}

/// What a worker gets from the queue.
#[derive(Debug, Default)]
pub struct DispatchedBatch {
    /// The texts to run together; none if none waits any more.
    pub items: Vec<QueuedItem>,
    /// Texts that can no longer be answered in time.
    pub expired_items: Vec<QueuedItem>,
}

/// The queue. Its length is bounded by the engine's permits.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<QueueState>,
    created_at: Instant,
    config: SchedulerConfig,
    model_load: Arc<ModelLoad>,
    permits: Arc<GroupPermits>,
    batching_disabled: AtomicBool,
}

#[derive(Debug, Default)]
struct QueueState {
    pending: PendingSet,
    items: HashMap<ItemId, QueuedItem>,
    next_id: ItemId,
    closed: bool,
    /// Workers that wait for a text, and where they take their turns; the one that ran last is woken first, while what it
    /// ran with is still in its cache.
    parked_workers: Vec<(Thread, usize)>,
    /// Workers that were woken and have not looked yet.
    waking_workers: usize,
    /// The express worker, while it waits.
    parked_express_worker: Option<express_lane::ParkedExpressWorker>,
    /// When there was little work last.
    last_below_threshold: Micros,
    /// There has been too much for some time.
    is_overloaded: bool,
}

impl Queue {
    /// The queue of a model. `runs_alone`: its texts are never run together.
    #[must_use]
    pub fn new(rules: SchedulerConfig, load: Arc<ModelLoad>, gates: Arc<GroupPermits>, runs_alone: bool) -> Self {
        Self {
            state: Mutex::default(),
            created_at: Instant::now(),
            config: rules,
            model_load: load,
            permits: gates,
            batching_disabled: AtomicBool::new(runs_alone || rules.strategy == BatchingStrategy::Single),
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
    /// `taken`: for how long all turns of the gate are taken; nothing if one is free.
    pub fn push(&self, jobs: Vec<QueuedItem>, taken: Option<Duration>) {
        let state = self.state.lock();
        if !state.closed {
            self.enqueue(state, jobs, taken);
        }
    }

    /// Adds texts that were taken and not run, also to a queue that was closed meanwhile: they are to be finished.
    pub fn requeue(&self, jobs: Vec<QueuedItem>) {
        self.enqueue(self.state.lock(), jobs, None);
    }

    fn enqueue(&self, mut state: MutexGuard<'_, QueueState>, jobs: Vec<QueuedItem>, taken: Option<Duration>) {
        let mut added = 0;
        for job in jobs {
            if job.request.is_cancelled() {
                continue;
            }
            let waiting = self.pending_item(&job);
            let id = state.next_id;
            state.next_id += 1;
            state.pending.push(id, waiting);
            state.items.insert(id, job);
            added += 1;
        }
        let mut woken = state.take_workers_to_wake(added, &self.permits);
        woken.extend(state.take_express_worker_to_wake(taken));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn pending_item(&self, job: &QueuedItem) -> PendingItem {
        let alone = Micros::try_from(job.unbatched_time.as_micros()).unwrap_or(Micros::MAX).max(1);
        let candidate = Candidate {
            length: job.padded_length.unwrap_or(1),
            unbatched_time: alone,
            deadline: self.micros_since_creation(job.request.deadline),
        };
        PendingItem {
            candidate,
            arrived_at: self.micros_since_creation(job.request.arrived_at),
            soft_deadline: self.micros_since_creation(job.soft_deadline),
            is_bulk: job.request.is_bulk,
            is_batchable: job.padded_length.is_some() && !self.is_batching_disabled(),
        }
    }

    /// Takes out the texts of a request whose caller has left, and lets in no more of them.
    pub fn cancel(&self, request: &Arc<InferenceRequest>) {
        request.cancelled.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        let theirs = |job: &QueuedItem| Arc::ptr_eq(&job.request, request);
        let ids: Vec<ItemId> = state.items.iter().filter(|(_, job)| theirs(job)).map(|(&id, _)| id).collect();
        let left: Vec<Option<QueuedItem>> = ids.iter().map(|id| state.remove(*id)).collect();
        drop(state);
        // The jobs go after the lock: each wakes a semaphore.
        drop(left);
    }

    /// Waits until there is a text; `place`: where the worker takes its turns. False: the queue was closed and is empty.
    pub fn wait_for_items(&self, place: usize) -> bool {
        let mut state = self.state.lock();
        while state.pending.is_empty() && !state.closed {
            park_worker(&mut state, place, None);
        }
        !state.pending.is_empty()
    }

    /// Wakes the workers that rest, if a text waits: whoever was woken leaves it to them.
    pub fn wake_others(&self) {
        let mut state = self.state.lock();
        let woken =
            if state.pending.is_empty() { Vec::new() } else { state.take_workers_to_wake(usize::MAX, &self.permits) };
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn strategy(&self) -> BatchingStrategy {
        if self.is_batching_disabled() { BatchingStrategy::Single } else { self.config.strategy }
    }

    /// Takes the texts to run now, and those that cannot be answered in time any more.
    ///
    /// The worker takes its turns at `place`, and the run of these begins in `rest`.
    pub fn next_batch(&self, place: usize, rest: Duration) -> DispatchedBatch {
        // So many other runs may begin at once.
        let free = self.permits.available();
        let (means, cost) = (self.model_load.means(), self.model_load.cost_model());
        let mut taken = DispatchedBatch::default();
        let mut state = self.state.lock();
        loop {
            let now = self.micros_since_creation(Instant::now());
            taken.expired_items.extend(state.pop_expired(now));
            let crowded = self.update_overload_state(&mut state, now, &means);
            let start = now.saturating_add(Micros::try_from(rest.as_micros()).unwrap_or(Micros::MAX));
            let fit = BatchContext {
                now: start,
                cost_model: &cost,
                slowdown: means.slowdown,
                limits: self.config.batch_limits,
            };
            let situation = SchedulingContext {
                batch_context: fit,
                idle_workers: (state.parked_workers.len() + state.waking_workers).min(free),
                is_overloaded: crowded,
            };
            match state.pending.schedule(self.strategy(), &situation) {
                SchedulerDecision::Idle => break,
                SchedulerDecision::WaitUntil(until) => {
                    let until = self.created_at + Duration::from_micros(until);
                    park_worker(&mut state, place, Some(until));
                }
                SchedulerDecision::Dispatch(ids) => {
                    taken.items = state.take_items(&ids);
                    if !taken.items.is_empty() {
                        break;
                    }
                }
            }
        }
        taken
    }

    /// True if there has been more work than can be done in the time that callers are patient, for twice as long.
    fn update_overload_state(&self, state: &mut QueueState, now: Micros, means: &RunMeans) -> bool {
        let patience = self.config.overload_threshold.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let [work, texts, workers] =
            [state.pending.total_work() as f64, state.pending.len() as f64, self.config.worker_count.max(1) as f64];
        let wait = self.model_load.batched_seconds(means, work / 1e6, texts) / workers;
        let was = state.is_overloaded;
        // It is over only when the queue is clearly shorter than that at which it began.
        if wait < if was { patience / 2.0 } else { patience } {
            state.last_below_threshold = now;
        }
        state.is_overloaded = u128::from(now.saturating_sub(state.last_below_threshold))
            > 2 * self.config.overload_threshold.as_micros()
            || (was && state.last_below_threshold != now);
        state.is_overloaded
    }

    /// Lets the workers finish what waits and then end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let mut woken = state.take_workers_to_wake(usize::MAX, &self.permits);
        woken.extend(state.parked_express_worker.take().map(|waiting| waiting.thread));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    /// For how long the oldest text has waited.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        let state = self.state.lock();
        state.items.values().map(|job| job.tokenized_at.elapsed()).max().unwrap_or_default()
    }

    /// Texts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// True if no text waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn micros_since_creation(&self, at: Instant) -> Micros {
        Micros::try_from(at.saturating_duration_since(self.created_at).as_micros()).unwrap_or(Micros::MAX)
    }
}

/// Waits until there may be something to do, or until a time.
fn park_worker(state: &mut MutexGuard<'_, QueueState>, place: usize, until: Option<Instant>) {
    let own = thread::current();
    state.parked_workers.push((own.clone(), place));
    MutexGuard::unlocked(state, || match until {
        None => thread::park(),
        Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
    });
    // A thread may also wake by itself: then nobody has taken it from the list.
    match state.parked_workers.iter().position(|(resting, _)| resting.id() == own.id()) {
        Some(place) => _ = state.parked_workers.remove(place),
        None => state.waking_workers -= 1,
    }
}

impl QueueState {
    /// Takes so many resting workers from the list, to be woken once the lock is free: first those that find a turn.
    /// Where none does, all: who has a turn first runs the texts.
    fn take_workers_to_wake(&mut self, workers: usize, gates: &GroupPermits) -> Vec<Thread> {
        let mut workers = workers;
        if gates.is_per_device() && (1..self.parked_workers.len()).contains(&workers) {
            let finds_a_turn = |place: usize| gates.pool_for_worker(place).available() > 0;
            self.parked_workers.sort_by_cached_key(|(_, place)| finds_a_turn(*place));
            if !self.parked_workers.last().is_some_and(|(_, place)| finds_a_turn(*place)) {
                workers = usize::MAX;
            }
        }
        let woken = self.parked_workers.split_off(self.parked_workers.len().saturating_sub(workers));
        self.waking_workers += woken.len();
        woken.into_iter().map(|(thread, _)| thread).collect()
    }

    /// Takes out what cannot be answered in time any more.
    fn pop_expired(&mut self, now: Micros) -> Vec<QueuedItem> {
        let mut expired = Vec::new();
        while let Some(id) = self.pending.pop_expired(now) {
            expired.extend(self.items.remove(&id));
        }
        expired
    }

    /// The jobs of texts that were taken out of the line.
    fn take_items(&mut self, ids: &[ItemId]) -> Vec<QueuedItem> {
        let jobs = ids.iter().filter_map(|id| self.items.remove(id));
        // A caller that left while its texts were being taken out needs no run either.
        jobs.filter(|job| !job.reply.is_closed()).collect()
    }

    fn remove(&mut self, id: ItemId) -> Option<QueuedItem> {
        self.pending.remove(id);
        self.items.remove(&id)
    }
}
