//! A waiting text, and the request it belongs to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use predictd_text::pipeline::EncodedInput;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::cache::FlightLeader;
use crate::item_output::ItemResult;
use crate::wait_estimator::LoadGuard;

/// One request, as far as its texts share something.
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
    pub fn new(deadline: Instant, is_bulk: bool) -> Arc<Self> {
        Arc::new(Self { arrived_at: Instant::now(), deadline, is_bulk, cancelled: AtomicBool::new(false) })
    }

    /// True once its caller has left.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Says that its caller has left.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A text on its way to a worker.
pub struct QueuedItem {
    /// The request it belongs to.
    pub request: Arc<InferenceRequest>,
    /// The text, tokenised.
    pub encoded: EncodedInput,
    /// What it counts for in a run, padding included; nothing if it needs runs of its own.
    pub padded_length: Option<usize>,
    /// Predicted time of a run of its own.
    pub unbatched_time: Duration,
    /// When its run is due.
    pub soft_deadline: Instant,
    /// When it was tokenised.
    pub tokenized_at: Instant,
    /// Where the answer goes.
    pub reply: ItemReply,
}

impl QueuedItem {
    /// Time from its arrival until it was tokenised.
    #[must_use]
    pub fn tokenize_time(&self) -> Duration {
        self.tokenized_at.saturating_duration_since(self.request.arrived_at)
    }

    /// Time from then until its run began.
    #[must_use]
    pub fn queue_time(&self, run_start: Instant) -> Duration {
        run_start.saturating_duration_since(self.tokenized_at)
    }
}

/// What a worker gets from the queue.
pub struct DispatchedBatch {
    /// The texts to run together; none if none waits any more.
    pub items: Vec<QueuedItem>,
    /// Texts that can no longer be answered in time.
    pub expired_items: Vec<QueuedItem>,
}

/// Where the answer to a text goes, and what is given back with it.
pub struct ItemReply {
    /// To the caller.
    pub sender: oneshot::Sender<ItemResult>,
    /// The text's share of the engine's bound; given back when this is dropped.
    pub permit: OwnedSemaphorePermit,
    /// Its share of the model's work.
    pub load_guard: LoadGuard,
    /// To others that wait for the same text.
    pub leader: Option<FlightLeader>,
}

impl ItemReply {
    /// Answers the caller and gives the permit back. False if the caller had left.
    #[must_use]
    pub fn send(self, answer: ItemResult) -> bool {
        // The permit goes first: a caller that sees its answer may send the next request at once.
        drop((self.permit, self.load_guard));
        if let Some(leader) = self.leader {
            leader.complete(&answer);
        }
        self.sender.send(answer).is_ok()
    }
}
