//! The waiting texts of one model: pushed by async callers, pulled by worker threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batching::{Id, Line, Micros};
use super::cache::Lead;
use super::forecast::Entered;
use super::{Answer, TextError};
use crate::text::pipeline::Encoded;

/// A text on its way to a worker.
#[derive(Debug)]
pub struct Job {
    /// The text, tokenised.
    pub encoded: Encoded,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer, TextError>>,
    /// Its share of the engine's bound; given back when the job is dropped.
    pub permit: OwnedSemaphorePermit,
    /// Its share of the model's work.
    pub entered: Entered,
    /// Where others get the answer.
    pub lead: Option<Lead>,
}

impl Job {
    /// Answers the caller, who may have left, and gives the permit back.
    pub fn answer(self, answer: Result<Answer, TextError>) {
        // The permit goes first: a caller that sees its answer may send the next request at once.
        drop((self.permit, self.entered));
        if let Some(lead) = self.lead {
            lead.done(&answer);
        }
        // An error here means that nobody waits for the answer any more.
        self.reply.send(answer).ok();
    }
}

/// What a worker gets from the queue.
#[derive(Debug, Default)]
pub struct Taken {
    /// The text to run, if any still waits.
    pub job: Option<Job>,
    /// Texts whose deadline passed while they waited.
    pub expired: Vec<Job>,
}

/// The queue. Its length is bounded by the engine's permits.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    jobs: HashMap<Id, Job>,
    next_id: Id,
    closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), started: Instant::now() }
    }
}

impl Queue {
    /// Adds the texts of one request.
    ///
    /// The returned places must be kept until the answers are there: dropping them takes the
    /// texts that still wait out of the queue. A closed queue drops the jobs at once.
    pub fn push(self: &Arc<Self>, jobs: Vec<Job>) -> Places {
        let mut ids = Vec::with_capacity(jobs.len());
        let mut state = self.state.lock();
        if !state.closed {
            for job in jobs {
                let (id, deadline) = (state.next_id, self.micros(job.deadline));
                state.next_id += 1;
                state.line.push(id, deadline);
                state.jobs.insert(id, job);
                ids.push((id, deadline));
            }
        }
        drop(state);
        match ids.len() {
            0 => {}
            1 => _ = self.ready.notify_one(),
            _ => _ = self.ready.notify_all(),
        }
        Places { queue: Arc::clone(self), ids }
    }

    /// Waits until there is a text. False: the queue was closed and is empty.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        self.ready.wait_while(&mut state, |state| state.line.is_empty() && !state.closed);
        !state.line.is_empty()
    }

    /// Takes the text to run now, and those that nobody waits for any more.
    pub fn take(&self) -> Taken {
        let now = self.micros(Instant::now());
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        while let Some(id) = state.line.pop_expired(now) {
            taken.expired.extend(state.jobs.remove(&id));
        }
        while let Some(id) = state.line.pop_next() {
            // A caller that left while its places were being taken out needs no run either.
            taken.job = state.jobs.remove(&id).filter(|job| !job.reply.is_closed());
            if taken.job.is_some() {
                break;
            }
        }
        taken
    }

    /// Lets the workers finish what waits and then end.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
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

/// The places of one request's texts in a queue.
#[derive(Debug)]
pub struct Places {
    queue: Arc<Queue>,
    ids: Vec<(Id, Micros)>,
}

impl Places {
    /// To be called when all answers are there: nothing is left to take out.
    pub fn served(mut self) {
        self.ids.clear();
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let mut left = Vec::new();
        let mut state = self.queue.state.lock();
        for &(id, deadline) in &self.ids {
            if state.line.remove(id, deadline) {
                left.extend(state.jobs.remove(&id));
            }
        }
        drop(state);
        // The jobs go after the lock: each wakes a semaphore.
        drop(left);
    }
}
