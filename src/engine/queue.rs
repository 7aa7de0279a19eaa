//! The waiting texts of one model: pushed by async callers, pulled by worker threads.
//!
//! - `express`: for the worker that runs short texts beside long ones; `place`: where a request stands

mod express;
mod place;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batching::window::{Candidate, Caps, Fit};
use super::batching::{Id, Line, Micros, Policy, Situation, Turn, Waiting};
use super::cache::Lead;
use super::forecast::{Entered, Load, Means};
use super::lane::Gates;
use super::{Answer, TextError};
use crate::text::pipeline::Encoded;
pub use place::Place;

/// One request, as far as its texts share something.
#[derive(Debug)]
pub struct Request {
    /// When it came.
    pub arrived: Instant,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// True if it has several texts.
    pub bulk: bool,
    left: AtomicBool,
}

impl Request {
    /// A request that came now.
    #[must_use]
    pub fn new(deadline: Instant, bulk: bool) -> Arc<Self> {
        Arc::new(Self { arrived: Instant::now(), deadline, bulk, left: AtomicBool::new(false) })
    }

    /// True once nobody waits for its answer.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// A text on its way to a worker.
#[derive(Debug)]
pub struct Job {
    /// The request it belongs to.
    pub request: Arc<Request>,
    /// The text, tokenised.
    pub encoded: Encoded,
    /// What it counts for in a run, padding included; nothing if it needs runs of its own.
    pub length: Option<usize>,
    /// Predicted time of a run of its own.
    pub alone: Duration,
    /// When its turn has come.
    pub due: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer, TextError>>,
    /// When it was tokenised.
    pub ready: Instant,
    /// Its share of the engine's bound; given back when the job is dropped.
    pub permit: OwnedSemaphorePermit,
    /// Its share of the model's work.
    pub entered: Entered,
    /// Where others get the answer.
    pub lead: Option<Lead>,
}

impl Job {
    /// Answers the caller and gives the permit back. False if the caller had left.
    #[must_use]
    pub fn answer(self, answer: Result<Answer, TextError>) -> bool {
        // The permit goes first: a caller that sees its answer may send the next request at once.
        drop((self.permit, self.entered));
        if let Some(lead) = self.lead {
            lead.done(&answer);
        }
        self.reply.send(answer).is_ok()
    }
}

/// How a queue hands out its texts.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Which texts run together.
    pub policy: Policy,
    /// What a run may be at most.
    pub caps: Caps,
    /// Runs at a time.
    pub workers: usize,
    /// More work than this, for twice as long, is an overload.
    pub patience: Duration,
}

/// What a worker gets from the queue.
#[derive(Debug, Default)]
pub struct Taken {
    /// The texts to run together; none if none waits any more.
    pub jobs: Vec<Job>,
    /// Texts that can no longer be answered in time.
    pub expired: Vec<Job>,
}

/// The queue. Its length is bounded by the engine's permits.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    started: Instant,
    rules: Rules,
    load: Arc<Load>,
    gates: Arc<Gates>,
    runs_alone: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    jobs: HashMap<Id, Job>,
    next_id: Id,
    closed: bool,
    /// Workers that wait for a text, and where they take their turns; the one that ran last is woken first, while what it
    /// ran with is still in its cache.
    resting: Vec<(Thread, usize)>,
    /// Workers that were woken and have not looked yet.
    waking: usize,
    /// The express worker, while it waits.
    express: Option<express::Waiting>,
    /// When there was little work last.
    calm: Micros,
    /// There has been too much for some time.
    crowded: bool,
}

impl Queue {
    /// The queue of a model. `runs_alone`: its texts are never run together.
    #[must_use]
    pub fn new(rules: Rules, load: Arc<Load>, gates: Arc<Gates>, runs_alone: bool) -> Self {
        Self {
            state: Mutex::default(),
            started: Instant::now(),
            rules,
            load,
            gates,
            runs_alone: AtomicBool::new(runs_alone || rules.policy == Policy::Single),
        }
    }

    /// True if texts are never run together.
    #[must_use]
    pub fn runs_alone(&self) -> bool {
        self.runs_alone.load(Ordering::Relaxed)
    }

    /// From now on texts are never run together.
    pub fn run_alone(&self) {
        self.runs_alone.store(true, Ordering::Relaxed);
        self.load.run_alone();
    }

    /// Adds texts of one request. A queue that is closed, and one whose request was taken out, drops them.
    ///
    /// `taken`: for how long all turns of the gate are taken; nothing if one is free.
    pub fn push(&self, jobs: Vec<Job>, taken: Option<Duration>) {
        let state = self.state.lock();
        if !state.closed {
            self.add(state, jobs, taken);
        }
    }

    /// Adds texts that were taken and not run, also to a queue that was closed meanwhile: they are to be finished.
    pub fn give_back(&self, jobs: Vec<Job>) {
        self.add(self.state.lock(), jobs, None);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, jobs: Vec<Job>, taken: Option<Duration>) {
        let mut added = 0;
        for job in jobs {
            if job.request.has_left() {
                continue;
            }
            let waiting = self.waiting(&job);
            let id = state.next_id;
            state.next_id += 1;
            state.line.push(id, waiting);
            state.jobs.insert(id, job);
            added += 1;
        }
        let mut woken = state.wake(added, &self.gates);
        woken.extend(state.wake_express(taken));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn waiting(&self, job: &Job) -> Waiting {
        let alone = Micros::try_from(job.alone.as_micros()).unwrap_or(Micros::MAX).max(1);
        let candidate =
            Candidate { length: job.length.unwrap_or(1), alone, deadline: self.micros(job.request.deadline) };
        Waiting {
            candidate,
            arrived: self.micros(job.request.arrived),
            due: self.micros(job.due),
            bulk: job.request.bulk,
            joins: job.length.is_some() && !self.runs_alone(),
        }
    }

    /// Takes out the texts of a request whose caller has left, and lets in no more of them.
    pub fn leave(&self, request: &Arc<Request>) {
        request.left.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        let theirs = |job: &Job| Arc::ptr_eq(&job.request, request);
        let ids: Vec<Id> = state.jobs.iter().filter(|(_, job)| theirs(job)).map(|(&id, _)| id).collect();
        let left: Vec<Option<Job>> = ids.iter().map(|id| state.remove(*id)).collect();
        drop(state);
        // The jobs go after the lock: each wakes a semaphore.
        drop(left);
    }

    /// Waits until there is a text; `place`: where the worker takes its turns. False: the queue was closed and is empty.
    pub fn wait(&self, place: usize) -> bool {
        let mut state = self.state.lock();
        while state.line.is_empty() && !state.closed {
            sleep(&mut state, place, None);
        }
        !state.line.is_empty()
    }

    /// Wakes the workers that rest, if a text waits: whoever was woken leaves it to them.
    pub fn pass_on(&self) {
        let mut state = self.state.lock();
        let woken = if state.line.is_empty() { Vec::new() } else { state.wake(usize::MAX, &self.gates) };
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    fn policy(&self) -> Policy {
        if self.runs_alone() { Policy::Single } else { self.rules.policy }
    }

    /// Takes the texts to run now, and those that cannot be answered in time any more.
    ///
    /// The worker takes its turns at `place`, and the run of these begins in `rest`.
    pub fn take(&self, place: usize, rest: Duration) -> Taken {
        // So many other runs may begin at once.
        let free = self.gates.free();
        let (means, cost) = (self.load.means(), self.load.cost());
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        loop {
            let now = self.micros(Instant::now());
            taken.expired.extend(state.pop_hopeless(now));
            let crowded = self.is_crowded(&mut state, now, &means);
            let start = now.saturating_add(Micros::try_from(rest.as_micros()).unwrap_or(Micros::MAX));
            let fit = Fit { now: start, cost: &cost, slowdown: means.slowdown, caps: self.rules.caps };
            let situation = Situation { fit, idle: (state.resting.len() + state.waking).min(free), crowded };
            match state.line.take(self.policy(), &situation) {
                Turn::Rest => break,
                Turn::Wait(until) => {
                    let until = self.started + Duration::from_micros(until);
                    sleep(&mut state, place, Some(until));
                }
                Turn::Run(ids) => {
                    taken.jobs = state.jobs_of(&ids);
                    if !taken.jobs.is_empty() {
                        break;
                    }
                }
            }
        }
        taken
    }

    /// True if there has been more work than can be done in the time that callers are patient, for twice as long.
    fn is_crowded(&self, state: &mut State, now: Micros, means: &Means) -> bool {
        let patience = self.rules.patience.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let [work, texts, workers] =
            [state.line.work() as f64, state.line.len() as f64, self.rules.workers.max(1) as f64];
        let wait = self.load.together(means, work / 1e6, texts) / workers;
        let was = state.crowded;
        // It is over only when the queue is clearly shorter than that at which it began.
        if wait < if was { patience / 2.0 } else { patience } {
            state.calm = now;
        }
        state.crowded = u128::from(now.saturating_sub(state.calm)) > 2 * self.rules.patience.as_micros()
            || (was && state.calm != now);
        state.crowded
    }

    /// Lets the workers finish what waits and then end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let mut woken = state.wake(usize::MAX, &self.gates);
        woken.extend(state.express.take().map(|waiting| waiting.thread));
        drop(state);
        woken.iter().for_each(Thread::unpark);
    }

    /// For how long the oldest text has waited.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        let state = self.state.lock();
        state.jobs.values().map(|job| job.ready.elapsed()).max().unwrap_or_default()
    }

    /// Texts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().line.len()
    }

    /// True if no text waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn micros(&self, at: Instant) -> Micros {
        Micros::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(Micros::MAX)
    }
}

/// Waits until there may be something to do, or until a time.
fn sleep(state: &mut MutexGuard<'_, State>, place: usize, until: Option<Instant>) {
    let own = thread::current();
    state.resting.push((own.clone(), place));
    MutexGuard::unlocked(state, || match until {
        None => thread::park(),
        Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
    });
    // A thread may also wake by itself: then nobody has taken it from the list.
    match state.resting.iter().position(|(resting, _)| resting.id() == own.id()) {
        Some(place) => _ = state.resting.remove(place),
        None => state.waking -= 1,
    }
}

impl State {
    /// Takes so many resting workers from the list, to be woken once the lock is free: first those that find a turn.
    /// Where none does, all: who has a turn first runs the texts.
    fn wake(&mut self, workers: usize, gates: &Gates) -> Vec<Thread> {
        let mut workers = workers;
        if gates.are_several() && (1..self.resting.len()).contains(&workers) {
            let finds_a_turn = |place: usize| gates.of_worker(place).free() > 0;
            self.resting.sort_by_cached_key(|(_, place)| finds_a_turn(*place));
            if !self.resting.last().is_some_and(|(_, place)| finds_a_turn(*place)) {
                workers = usize::MAX;
            }
        }
        let woken = self.resting.split_off(self.resting.len().saturating_sub(workers));
        self.waking += woken.len();
        woken.into_iter().map(|(thread, _)| thread).collect()
    }

    /// Takes out what cannot be answered in time any more.
    fn pop_hopeless(&mut self, now: Micros) -> Vec<Job> {
        let mut expired = Vec::new();
        while let Some(id) = self.line.pop_hopeless(now) {
            expired.extend(self.jobs.remove(&id));
        }
        expired
    }

    /// The jobs of texts that were taken out of the line.
    fn jobs_of(&mut self, ids: &[Id]) -> Vec<Job> {
        let jobs = ids.iter().filter_map(|id| self.jobs.remove(id));
        // A caller that left while its texts were being taken out needs no run either.
        jobs.filter(|job| !job.reply.is_closed()).collect()
    }

    fn remove(&mut self, id: Id) -> Option<Job> {
        self.line.remove(id);
        self.jobs.remove(&id)
    }
}
