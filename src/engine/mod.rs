//! From an async caller to a worker thread and back. No HTTP, no ONNX Runtime.
//!
//! - [`session`]: what the engine wants from an inference runtime
//! - [`loading`]: how a model comes into service; `measuring`: what its runs cost here; [`placement`]: where they run
//! - [`cost`]: what a run costs by its shape (pure)
//! - [`model`]: one served version; [`encoding`]: its texts on their way to the queue
//! - [`batch_invariance`]: whether scores depend on the texts of a batch
//! - [`batching`]: which waiting texts run next, and together (pure)
//! - [`queue`]: the waiting texts of one model
//! - [`gate`]: run permits over all models; [`lane`]: those of the cores, those of the GPUs
//! - [`forecast`]: how long a text would wait
//! - [`worker`]: a thread with a session; [`recycling`]: its next one
//! - [`ahead`]: the threads of a GPU, of which one prepares while another runs; [`loss`]: a GPU that fails for good
//! - [`cache`]: answers given before, and texts that several clients wait for
//! - [`lookup`]: a request's texts against the cache
//! - [`spent`]: where the time of a text went
//! - [`drifting`]: whether texts and answers are still like the model's profile
//!
//! One permit per text, held from admission to reply, bounds everything behind it: a queue
//! cannot be full, so pushing to it cannot fail.

pub mod ahead;
pub mod batch_invariance;
pub mod batching;
pub mod cache;
pub mod cost;
pub mod drifting;
pub mod encoding;
pub mod forecast;
pub mod gate;
pub mod lane;
pub mod loading;
pub mod lookup;
pub mod loss;
mod measuring;
pub mod model;
pub mod placement;
pub mod queue;
pub mod recycling;
pub mod session;
pub mod spent;
pub mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Refused};
use crate::text::heads::{Decision, OutputError};
use crate::text::input::Input;
use crate::text::policy::PolicyError;
use crate::text::tokenizer::TokenizeError;
use cache::Cache;
use lookup::{CacheUse, Lookup};
use model::Model;
use spent::Spent;

/// The answer to one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model decided.
    pub decision: Decision,
    /// Tokens the model saw; words for a model that takes the text itself.
    pub tokens: usize,
    /// Those of them that the tokenizer does not know.
    pub unknown: usize,
    /// True if part of the text was cut off.
    pub truncated: bool,
    /// Where its time went.
    pub spent: Spent,
}

impl Answer {
    /// As somebody gets it who did not wait for its run.
    #[must_use]
    pub fn kept(&self) -> Self {
        Self { spent: Spent::default(), ..self.clone() }
    }

    /// As somebody gets it who has waited for another's run since then.
    #[must_use]
    pub fn joined(&self, since: Instant) -> Self {
        let spent = Spent { since: Some(since), queue: since.elapsed(), ..Spent::default() };
        Self { spent, ..self.clone() }
    }
}

/// Why one text got no answer. The other texts of its request are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The model's policy refuses it.
    #[error("{error}")]
    Refused {
        /// True if it is the second text of a pair.
        second: bool,
        /// Why.
        error: PolicyError,
    },
    /// Too long for the model, or its tokenizer failed.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The runtime gave an error or a worker panicked; the reason is in the log.
    #[error("the model failed on this text")]
    InferenceFailed,
    /// The model's output cannot be an answer.
    #[error(transparent)]
    OutputInvalid(#[from] OutputError),
    /// Its time ran out, while it waited or while it was run.
    #[error("the time for the text was over")]
    DeadlineExceeded,
}

impl TextError {
    /// A word for it, as metrics have it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Tokenize(TokenizeError::TooLong { .. }) => "too-long",
            Self::Tokenize(TokenizeError::NoTokens) => "no-tokens",
            Self::Tokenize(TokenizeError::Grows { .. }) => "grows",
            Self::Tokenize(_) => "tokenizer-failed",
            Self::InferenceFailed => "inference-failed",
            Self::OutputInvalid(_) => "output-invalid",
            Self::DeadlineExceeded => "deadline",
        }
    }
}

/// Why a whole request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All permits are taken, or the answer would come too late.
    #[error("too many texts are being worked on")]
    Overloaded,
    /// Its time ran out.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The model was taken out of service while the request waited.
    #[error("the model is being shut down")]
    Closed,
}

/// Counts a request that is dropped before its answer: its client has left.
struct Left<'a> {
    metrics: &'a Metrics,
    answered: bool,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.http.refused(Refused::Cancelled);
        }
    }
}

/// The wait that is an overload if it lasts, where none may be longer than `max_wait`.
#[must_use]
pub fn patience(max_wait: Duration) -> Duration {
    max_wait / 2
}

/// Admits requests to models.
#[derive(Debug)]
pub struct Engine {
    permits: Arc<Semaphore>,
    /// How many there are.
    most: usize,
    /// For a text that nobody waits for.
    aside: Arc<Semaphore>,
    max_wait: Duration,
    cache: Option<Arc<Cache>>,
    given_up: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// An engine that works on at most `max_inflight_texts` texts at a time, and admits none that would wait longer
    /// than `max_wait`.
    #[must_use]
    pub fn new(
        max_inflight_texts: usize,
        max_wait: Duration,
        cache: Option<Arc<Cache>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_inflight_texts)),
            most: max_inflight_texts,
            aside: Arc::new(Semaphore::new(1)),
            max_wait,
            cache,
            given_up: CancellationToken::new(),
            metrics,
        }
    }

    /// True while no text is in work.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free_permits() >= self.most
    }

    /// Answers a text that nobody waits for: outside of the cache, of permits, and of what is counted of answers.
    /// Nothing if it gets no answer. One at a time.
    pub async fn aside(&self, model: &Arc<Model>, input: Input, deadline: Instant) -> Option<Answer> {
        let permit = Arc::clone(&self.aside).acquire_owned().await.ok()?;
        let answer = model.answer(vec![(input, None)], permit, deadline);
        let answers = tokio::select! {
            answers = tokio::time::timeout_at(deadline.into(), answer) => answers.ok()?.ok()?,
            () = self.given_up.cancelled() => return None,
        };
        answers.into_iter().next()?.ok()
    }

    /// Permits that nobody holds.
    #[must_use]
    pub fn free_permits(&self) -> usize {
        self.permits.available_permits()
    }

    /// True if answers are kept at all.
    #[must_use]
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// True if answers of this model are kept for the next who asks the same.
    #[must_use]
    pub fn caches(&self, model: &Model) -> bool {
        // An answer that depends on the texts beside it is nobody else's.
        self.has_cache() && !model.batch_dependent()
    }

    /// Bytes and answers in the cache.
    #[must_use]
    pub fn cache_size(&self) -> (u64, usize) {
        self.cache.as_ref().map_or((0, 0), |cache| cache.size())
    }

    /// Answers `inputs` in order.
    ///
    /// A text whose answer is in the cache needs no permit and no time: it is answered however busy the server is.
    /// Dropping the future takes the texts that are not yet running out of the queue.
    ///
    /// # Errors
    /// [`Refusal`] if nothing of the request could be answered. What goes wrong with a
    /// single text stands at its place in the list.
    pub async fn predict(
        &self,
        model: &Arc<Model>,
        inputs: Vec<Input>,
        deadline: Instant,
        cache_use: CacheUse,
    ) -> Result<Vec<Result<Answer, TextError>>, Refusal> {
        if Instant::now() >= deadline {
            // A cheap model would run the text before anybody looks at the clock.
            self.metrics.http.refused(Refused::Deadline);
            return Err(Refusal::DeadlineExceeded);
        }
        let cache = self.cache.as_ref().filter(|_| self.caches(model));
        let lookup = Lookup::of(cache, cache_use, model, inputs, deadline);
        if cache.is_some() && cache_use == CacheUse::Full {
            self.metrics.looked_up(lookup.hits(), lookup.joined(), lookup.misses());
        }
        let lookup = match lookup.answered() {
            Ok(answers) => return Ok(answers),
            Err(lookup) => lookup,
        };
        let permits = self.admit(model, &lookup, deadline)?;
        let mut left = Left { metrics: &self.metrics, answered: false };
        let answers = tokio::select! {
            biased;
            answers = tokio::time::timeout_at(deadline.into(), lookup.finish(model, permits)) => answers,
            () = self.given_up.cancelled() => Ok(Err(Refusal::Closed)),
        };
        left.answered = true;
        let Ok(answers) = answers else {
            self.metrics.http.refused(Refused::Deadline);
            return Err(Refusal::DeadlineExceeded);
        };
        let answers = answers?;
        let late = |answer: &Result<Answer, TextError>| matches!(answer, Err(TextError::DeadlineExceeded));
        if !answers.is_empty() && answers.iter().all(late) {
            self.metrics.http.refused(Refused::Deadline);
        }
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            model.metrics().failed(error.kind());
        }
        Ok(answers)
    }

    /// Refuses everything that is not answered yet, and everything that comes: the server ends.
    pub fn give_up(&self) {
        self.given_up.cancel();
    }

    /// One permit per text, or none at all: what would come too late anyway is told so at once.
    fn admit(&self, model: &Model, lookup: &Lookup, deadline: Instant) -> Result<OwnedSemaphorePermit, Refusal> {
        // Texts that are being run for somebody else add no work, and were found to be in time.
        if lookup.misses() > 0 {
            self.in_time(model, lookup, deadline)?;
        }
        let wanted = u32::try_from(lookup.misses() + lookup.joined()).ok();
        let permits = wanted.and_then(|wanted| self.permits.clone().try_acquire_many_owned(wanted).ok());
        permits.ok_or_else(|| self.refused(Refused::Overloaded, Refusal::Overloaded))
    }

    /// Whether the texts to run can be answered in time, as far as that can be told.
    fn in_time(&self, model: &Model, lookup: &Lookup, deadline: Instant) -> Result<(), Refusal> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (wait, own) = (model.wait(), model.time_for(lookup.to_run()));
        if own >= left {
            // However little there is to do: to try again with as little time would not help.
            return Err(self.refused(Refused::Deadline, Refusal::DeadlineExceeded));
        }
        // A forecast is not exact: the last quarter of the time is kept for what it did not know.
        let late = !wait.is_zero() && wait.saturating_add(own) > left.saturating_sub(left / 4);
        if wait > self.max_wait || late {
            return Err(self.refused(Refused::Overloaded, Refusal::Overloaded));
        }
        Ok(())
    }

    fn refused(&self, reason: Refused, refusal: Refusal) -> Refusal {
        self.metrics.http.refused(reason);
        refusal
    }
}
