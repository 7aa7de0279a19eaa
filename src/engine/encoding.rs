//! From admitted texts to jobs in the queue.
//!
//! What is tokenised in less time than another thread needs to begin is tokenised where it is. The rest goes to a small
//! pool, in pieces: pieces of one request are tokenised side by side, and the first of them runs while the last waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::Lead;
use super::forecast::Entered;
use super::queue::{Job, Request};
use super::worker::Shop;
use super::{Answer, TextError};
use crate::metrics::PanicPlace;
use crate::text::input::{Input, Pair};
use crate::text::pipeline::Encoded;
use crate::text::policy::PolicyError;
use crate::text::tokenizer::TokenizeError;

/// Bytes of text in a piece: some milliseconds of work.
const PIECE_BYTES: usize = 16 << 10;
/// Most texts in a piece.
const PIECE_TEXTS: usize = 64;

/// A text that is to be tokenised.
pub(super) struct Order {
    pub(super) input: Input,
    /// Who else waits for its answer.
    pub(super) lead: Option<Lead>,
    /// When its turn to run will have come.
    pub(super) due: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, TextError>>,
    pub(super) permit: OwnedSemaphorePermit,
    /// Its share of the model's work, as estimated from its bytes.
    pub(super) entered: Entered,
}

/// The pool, named and with an end to panics: rayon ends the process otherwise.
///
/// # Errors
/// If the operating system gives no thread.
pub fn pool(threads: usize) -> std::io::Result<Arc<ThreadPool>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|number| format!("predictd-token-{number}"))
        .panic_handler(|_| tracing::error!("a thread of the tokenizer pool panicked"))
        .build()
        .map(Arc::new)
        .map_err(std::io::Error::other)
}

impl Shop {
    /// Tokenises texts and puts them into the queue. What fails is answered at once.
    pub(super) fn encode(&self, request: &Arc<Request>, orders: impl IntoIterator<Item = Order>) {
        let mut jobs = Vec::new();
        for order in orders {
            if request.has_left() {
                return;
            }
            match self.fit(order.input).and_then(|input| self.encode_one(input)) {
                Ok(encoded) => {
                    let (alone, length) = (self.alone(&encoded), self.pipeline.run_length(&encoded));
                    let entered = self.load.enter(alone, 1);
                    let Order { lead, due, reply, permit, .. } = order;
                    let (request, ready) = (Arc::clone(request), Instant::now());
                    jobs.push(Job { request, encoded, length, alone, due, reply, ready, permit, entered, lead });
                }
                Err(error) => {
                    drop((order.permit, order.entered));
                    let answer = Err(error);
                    if let Some(lead) = order.lead {
                        lead.done(&answer);
                    }
                    // Nobody may wait for it any more.
                    order.reply.send(answer).ok();
                }
            }
        }
        self.queue.push(jobs, self.gates.taken_for(self.load_number));
    }

    /// Predicted time of all runs that a text needs if it runs alone.
    fn alone(&self, encoded: &Encoded) -> Duration {
        self.pipeline.shapes(encoded).map(|shape| self.load.predicted(shape)).sum()
    }

    /// Tokenises one text, or two that belong together.
    pub(super) fn encode_one(&self, input: Input) -> Result<Encoded, TextError> {
        self.pipeline.encode(input).map_err(|error| {
            if error == TokenizeError::Panicked {
                self.shared.panicked(PanicPlace::Tokenizer);
                tracing::error!(model = self.label, "the tokenizer panicked on a text; the text got an error");
            }
            TextError::Tokenize(error)
        })
    }

    /// A text as the model's policy lets it pass, with its second one.
    pub(super) fn fit(&self, Input { text, pair }: Input) -> Result<Input, TextError> {
        let pair = match pair {
            Some(Pair { text, whole }) => Some(Pair { text: self.fit_one(text, true)?, whole }),
            None => None,
        };
        Ok(Input { text: self.fit_one(text, false)?, pair })
    }

    fn fit_one(&self, text: String, second: bool) -> Result<String, TextError> {
        let text = self.pipeline.policy().apply(text).map_err(|error| TextError::Refused { second, error })?;
        // A string of ONNX Runtime ends at NUL: a model that takes the text itself would not see what follows.
        if self.pipeline.tokenizer().is_none() && text.contains('\0') {
            return Err(TextError::Refused { second, error: PolicyError::Control(0) });
        }
        Ok(text)
    }
}

/// Tokenises a request's texts on the pool, piece by piece.
pub(super) fn encode_in_pieces(pool: &ThreadPool, shop: &Arc<Shop>, request: &Arc<Request>, orders: Vec<Order>) {
    let mut orders = orders.into_iter().peekable();
    while orders.peek().is_some() {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while piece.len() < PIECE_TEXTS
            && bytes < PIECE_BYTES
            && let Some(order) = orders.next()
        {
            bytes += order.input.bytes();
            piece.push(order);
        }
        let (shop, request) = (Arc::clone(shop), Arc::clone(request));
        // A panic drops the replies, and so is noticed by who waits for them.
        pool.spawn_fifo(move || shop.encode(&request, piece));
    }
}
