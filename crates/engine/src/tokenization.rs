//! From admitted texts to items in the queue.
//!
//! What is tokenised in less time than another thread needs to begin is tokenised where it is. The rest goes to a small
//! pool, in chunks: chunks of one request are tokenised side by side, and the first of them runs while the last waits.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_metrics::PanicSite;
use predictd_text::input::Input;
use predictd_text::pipeline::EncodedInput;
use predictd_text::policy::PolicyError;
use predictd_text::tensors::Shape;
use predictd_text::text_policies::OverflowPolicy;
use predictd_text::tokenizer::{TokenizeError, Tokenizer};
use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cache::FlightLeader;
use super::error::{InferenceError, ItemError};
use super::item_output::ItemResult;
use super::model_runner::ModelRunner;
use super::queue::{InferenceRequest, ItemReply, QueuedItem};
use super::scheduler::{soft_deadline, to_micros};

/// Bytes of text in a chunk: some milliseconds of work.
const MAX_CHUNK_BYTES: usize = 16 << 10;
/// Most texts in a chunk.
const MAX_CHUNK_ITEMS: usize = 64;
/// Bytes of a token in ordinary text, for a first estimate of what a text costs.
const BYTES_PER_TOKEN: usize = 4;

/// A text that is to be tokenised.
pub(super) struct TokenizeJob {
    input: Input,
    /// When its run is due.
    soft_deadline: Instant,
    /// Its share of the model's work is estimated from its bytes.
    reply: ItemReply,
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

/// What is to be done for each text, and where its answer will come.
pub(super) fn create_tokenize_jobs(
    runner: &ModelRunner,
    request: &InferenceRequest,
    inputs: Vec<(Input, Option<FlightLeader>)>,
    mut permits: OwnedSemaphorePermit,
) -> Result<(Vec<TokenizeJob>, Vec<oneshot::Receiver<ItemResult>>), InferenceError> {
    let estimates: Vec<Duration> = inputs.iter().map(|(input, _)| estimate_run_time(runner, input)).collect();
    let total_work = to_micros(estimates.iter().sum());
    let time = to_micros(request.deadline.saturating_duration_since(request.arrived_at));
    let mut jobs = Vec::with_capacity(inputs.len());
    let mut replies = Vec::with_capacity(inputs.len());
    let mut work = 0;
    for ((input, leader), estimate) in inputs.into_iter().zip(estimates) {
        work += to_micros(estimate);
        let soft_deadline = request.arrived_at + Duration::from_micros(soft_deadline(0, time, work, total_work));
        // Every text has a permit: the bound was taken for all of them.
        let permit = permits.split(1).ok_or(InferenceError::Overloaded)?;
        let (sender, receiver) = oneshot::channel();
        let load_guard = runner.model_load.reserve(estimate, 1);
        jobs.push(TokenizeJob { input, soft_deadline, reply: ItemReply { sender, permit, load_guard, leader } });
        replies.push(receiver);
    }
    Ok((jobs, replies))
}

/// Predicted time of the runs of a text, before it is tokenised.
pub(super) fn estimate_run_time(runner: &ModelRunner, input: &Input) -> Duration {
    let Some(tokenizer) = runner.pipeline.tokenizer() else {
        return runner.model_load.predict_time(Shape { rows: 1, length: 1 });
    };
    let tokens = input.byte_len() / BYTES_PER_TOKEN + 2;
    let max_tokens = tokenizer.max_tokens();
    let rows = match tokenizer.on_overflow() {
        OverflowPolicy::Window => tokens.div_ceil(max_tokens).min(Tokenizer::MAX_WINDOWS),
        OverflowPolicy::Error | OverflowPolicy::Truncate => 1,
    };
    runner.model_load.predict_time(Shape { rows, length: tokens.min(max_tokens) })
}

/// Tokenises texts and puts them into the queue. What fails is answered at once.
pub(super) fn tokenize_and_enqueue(
    runner: &ModelRunner,
    request: &Arc<InferenceRequest>,
    jobs: impl IntoIterator<Item = TokenizeJob>,
) {
    let mut items = Vec::new();
    for job in jobs {
        if request.is_cancelled() {
            return;
        }
        match tokenize(runner, job.input) {
            Ok(encoded) => {
                let unbatched_time = unbatched_time(runner, &encoded);
                let load_guard = runner.model_load.reserve(unbatched_time, 1);
                items.push(QueuedItem {
                    request: Arc::clone(request),
                    padded_length: runner.pipeline.padded_row_length(&encoded),
                    encoded,
                    unbatched_time,
                    soft_deadline: job.soft_deadline,
                    tokenized_at: Instant::now(),
                    reply: ItemReply { load_guard, ..job.reply },
                });
            }
            // Its caller may have left.
            Err(error) => _ = job.reply.send(Err(error)),
        }
    }
    runner.queue.push(items, runner.permits.busy_for(runner.load_id));
}

/// Predicted time of all runs that a text needs if it runs alone.
fn unbatched_time(runner: &ModelRunner, encoded: &EncodedInput) -> Duration {
    runner.pipeline.batch_shapes(encoded).map(|shape| runner.model_load.predict_time(shape)).sum()
}

/// Tokenises one text, or two that belong together, as the model's policy lets them pass.
pub(super) fn tokenize(runner: &ModelRunner, input: Input) -> Result<EncodedInput, ItemError> {
    let input = apply_policy(runner, input)?;
    runner.pipeline.encode(input).map_err(|error| {
        if error == TokenizeError::Panicked {
            runner.server_metrics.record_panic(PanicSite::Tokenizer);
            tracing::error!(model = runner.label, "tokenizer panicked; item failed");
        }
        ItemError::Tokenize(error)
    })
}

/// A text as the model's policy lets it pass, with its second one.
fn apply_policy(runner: &ModelRunner, mut input: Input) -> Result<Input, ItemError> {
    if let Some(second) = &mut input.second {
        second.text = apply_text_policy(runner, mem::take(&mut second.text), true)?;
    }
    let text = apply_text_policy(runner, input.text, false)?;
    Ok(Input { text, ..input })
}

fn apply_text_policy(runner: &ModelRunner, text: String, is_second_text: bool) -> Result<String, ItemError> {
    let text =
        runner.pipeline.policy().apply(text).map_err(|error| ItemError::RejectedByPolicy { is_second_text, error })?;
    // A string of ONNX Runtime ends at NUL: a model that takes the text itself would not see what follows.
    if runner.pipeline.tokenizer().is_none() && text.contains('\0') {
        return Err(ItemError::RejectedByPolicy { is_second_text, error: PolicyError::ControlCharacter(0) });
    }
    Ok(text)
}

/// Tokenises a request's texts on the pool, chunk by chunk.
pub(super) fn tokenize_in_chunks(
    pool: &ThreadPool,
    runner: &Arc<ModelRunner>,
    request: &Arc<InferenceRequest>,
    jobs: Vec<TokenizeJob>,
) {
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < MAX_CHUNK_ITEMS
            && bytes < MAX_CHUNK_BYTES
            && let Some(job) = jobs.next()
        {
            bytes += job.input.byte_len();
            chunk.push(job);
        }
        let runner = Arc::clone(runner);
        let request = Arc::clone(request);
        // A panic drops the replies, and so ends the wait of their callers.
        pool.spawn_fifo(move || tokenize_and_enqueue(&runner, &request, chunk));
    }
}
