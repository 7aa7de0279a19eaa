//! From admitted texts to jobs in the queue.
//!
//! What is tokenised in less time than another thread needs to begin is tokenised where it is. The rest goes to a small
//! pool, in pieces: pieces of one request are tokenised side by side, and the first of them runs while the last waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::FlightLeader;
use super::queue::{InferenceRequest, QueuedItem};
use super::wait_estimator::LoadGuard;
use super::worker::ModelRunner;
use super::{ItemError, ItemOutput};
use crate::metrics::PanicSite;
use crate::text::input::{Input, SecondText};
use crate::text::pipeline::EncodedInput;
use crate::text::policy::PolicyError;
use crate::text::tokenizer::TokenizeError;

/// Bytes of text in a piece: some milliseconds of work.
const MAX_CHUNK_BYTES: usize = 16 << 10;
/// Most texts in a piece.
const MAX_CHUNK_ITEMS: usize = 64;

/// A text that is to be tokenised.
pub(super) struct TokenizeJob {
    pub(super) input: Input,
    /// Who else waits for its answer.
    pub(super) leader: Option<FlightLeader>,
    /// When its turn to run will have come.
    pub(super) soft_deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<ItemOutput, ItemError>>,
    pub(super) permit: OwnedSemaphorePermit,
    /// Its share of the model's work, as estimated from its bytes.
    pub(super) load_guard: LoadGuard,
}

/// The pool, named and with an end to panics: rayon ends the process otherwise.
///
/// # Errors
/// If the operating system gives no thread.
pub fn new_thread_pool(threads: usize) -> std::io::Result<Arc<ThreadPool>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|number| format!("predictd-token-{number}"))
        .panic_handler(|_| tracing::error!("tokenizer thread panicked"))
        .build()
        .map(Arc::new)
        .map_err(std::io::Error::other)
}

impl ModelRunner {
    /// Tokenises texts and puts them into the queue. What fails is answered at once.
    pub(super) fn tokenize_and_enqueue(
        &self,
        request: &Arc<InferenceRequest>,
        orders: impl IntoIterator<Item = TokenizeJob>,
    ) {
        let mut jobs = Vec::new();
        for order in orders {
            if request.is_cancelled() {
                return;
            }
            match self.apply_policy(order.input).and_then(|input| self.tokenize(input)) {
                Ok(encoded) => {
                    let (alone, length) = (self.unbatched_time(&encoded), self.pipeline.padded_row_length(&encoded));
                    let entered = self.model_load.reserve(alone, 1);
                    let TokenizeJob { leader: lead, soft_deadline: due, reply, permit, .. } = order;
                    let (request, ready) = (Arc::clone(request), Instant::now());
                    jobs.push(QueuedItem {
                        request,
                        encoded,
                        padded_length: length,
                        unbatched_time: alone,
                        soft_deadline: due,
                        reply,
                        tokenized_at: ready,
                        permit,
                        load_guard: entered,
                        leader: lead,
                    });
                }
                Err(error) => {
                    drop((order.permit, order.load_guard));
                    let answer = Err(error);
                    if let Some(lead) = order.leader {
                        lead.complete(&answer);
                    }
                    // Nobody may wait for it any more.
                    order.reply.send(answer).ok();
                }
            }
        }
        self.queue.push(jobs, self.permits.busy_for(self.load_id));
    }

    /// Predicted time of all runs that a text needs if it runs alone.
    fn unbatched_time(&self, encoded: &EncodedInput) -> Duration {
        self.pipeline.batch_shapes(encoded).map(|shape| self.model_load.predict_time(shape)).sum()
    }

    /// Tokenises one text, or two that belong together.
    pub(super) fn tokenize(&self, input: Input) -> Result<EncodedInput, ItemError> {
        self.pipeline.encode(input).map_err(|error| {
            if error == TokenizeError::Panicked {
                self.server_metrics.record_panic(PanicSite::Tokenizer);
                tracing::error!(model = self.label, "tokenizer panicked; item failed");
            }
            ItemError::Tokenize(error)
        })
    }

    /// A text as the model's policy lets it pass, with its second one.
    pub(super) fn apply_policy(&self, Input { text, second: pair }: Input) -> Result<Input, ItemError> {
        let pair = match pair {
            Some(SecondText { text, truncate_only_first: whole }) => {
                Some(SecondText { text: self.apply_text_policy(text, true)?, truncate_only_first: whole })
            }
            None => None,
        };
        Ok(Input { text: self.apply_text_policy(text, false)?, second: pair })
    }

    fn apply_text_policy(&self, text: String, second: bool) -> Result<String, ItemError> {
        let text = self
            .pipeline
            .policy()
            .apply(text)
            .map_err(|error| ItemError::RejectedByPolicy { is_second_text: second, error })?;
        // A string of ONNX Runtime ends at NUL: a model that takes the text itself would not see what follows.
        if self.pipeline.tokenizer().is_none() && text.contains('\0') {
            return Err(ItemError::RejectedByPolicy {
                is_second_text: second,
                error: PolicyError::ControlCharacter(0),
            });
        }
        Ok(text)
    }
}

/// Tokenises a request's texts on the pool, piece by piece.
pub(super) fn tokenize_in_chunks(
    pool: &ThreadPool,
    shop: &Arc<ModelRunner>,
    request: &Arc<InferenceRequest>,
    orders: Vec<TokenizeJob>,
) {
    let mut orders = orders.into_iter().peekable();
    while orders.peek().is_some() {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while piece.len() < MAX_CHUNK_ITEMS
            && bytes < MAX_CHUNK_BYTES
            && let Some(order) = orders.next()
        {
            bytes += order.input.byte_len();
            piece.push(order);
        }
        let (shop, request) = (Arc::clone(shop), Arc::clone(request));
        // A panic drops the replies, and so is noticed by who waits for them.
        pool.spawn_fifo(move || shop.tokenize_and_enqueue(&request, piece));
    }
}
