//! From an async caller to a worker thread and back. No HTTP, no ONNX Runtime.
//!
//! - [`session`]: what the engine wants from an inference runtime
//! - [`model`]: one served version: loaded, checked, warmed, with its threads
//! - [`batching`]: which waiting text runs next (pure)
//! - [`queue`]: the waiting texts of one model
//! - [`gate`]: run permits over all models
//! - [`worker`]: the thread that owns a session
//!
//! One permit per text, held from admission to reply, bounds everything behind it: a queue
//! cannot be full, so pushing to it cannot fail.

pub mod batching;
pub mod gate;
pub mod model;
pub mod queue;
pub mod session;
pub mod worker;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Metrics, Refused};
use crate::text::heads::{Decision, OutputError};
use crate::text::tokenizer::TokenizeError;
use model::Model;

/// The answer to one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model decided.
    pub decision: Decision,
    /// Tokens the model saw; words for a model that takes the text itself.
    pub tokens: usize,
    /// True if part of the text was cut off.
    pub truncated: bool,
}

/// Why one text got no answer. The other texts of its request are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Too long for the model, or its tokenizer failed.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The runtime gave an error or a worker panicked; the reason is in the log.
    #[error("the model failed on this text")]
    InferenceFailed,
    /// The model's output cannot be an answer.
    #[error(transparent)]
    OutputInvalid(#[from] OutputError),
    /// Its time ran out before it was run.
    #[error("the deadline passed before the text was run")]
    DeadlineExceeded,
}

/// Why a whole request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All permits are taken.
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
            self.metrics.refused(Refused::Cancelled);
        }
    }
}

/// Admits requests to models.
#[derive(Debug)]
pub struct Engine {
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// An engine that works on at most `max_inflight_texts` texts at a time.
    #[must_use]
    pub fn new(max_inflight_texts: usize, metrics: Arc<Metrics>) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_inflight_texts)), metrics }
    }

    /// Permits that nobody holds.
    #[must_use]
    pub fn free_permits(&self) -> usize {
        self.permits.available_permits()
    }

    /// Answers `texts` in order.
    ///
    /// Dropping the future takes the texts that are not yet running out of the queue.
    ///
    /// # Errors
    /// [`Refusal`] if nothing of the request could be answered. What goes wrong with a
    /// single text stands at its place in the list.
    pub async fn predict(
        &self,
        model: &Arc<Model>,
        texts: Vec<String>,
        deadline: Instant,
    ) -> Result<Vec<Result<Answer, TextError>>, Refusal> {
        let permits = self.admit(texts.len())?;
        let mut left = Left { metrics: &self.metrics, answered: false };
        let answers = tokio::time::timeout_at(deadline.into(), model.answer(texts, permits, deadline)).await;
        left.answered = true;
        answers.unwrap_or_else(|_| {
            self.metrics.refused(Refused::Deadline);
            Err(Refusal::DeadlineExceeded)
        })
    }

    /// One permit per text, or none at all.
    fn admit(&self, texts: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let wanted = u32::try_from(texts).map_err(|_| Refusal::Overloaded)?;
        self.permits.clone().try_acquire_many_owned(wanted).map_err(|_| {
            self.metrics.refused(Refused::Overloaded);
            Refusal::Overloaded
        })
    }
}
