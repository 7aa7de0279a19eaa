//! One served model version, and how it answers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::ThreadPool;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batching::{Micros, due};
use super::cache::Lead;
use super::drifting::Drifting;
use super::encoding::{Order, encode_in_pieces};
use super::forecast::{Forecast, Load};
use super::placement::Placement;
use super::queue::{Place, Request};
use super::session::{RunError, Session};
use super::worker::{Fault, SharedSession, Shop};
use super::{Answer, Refusal, TextError};
use crate::metrics::model::ModelMetrics;
use crate::text::input::Input;
use crate::text::pipeline::Pipeline;
use crate::text::tensors::Shape;
use crate::text::tokenizer::Tokenizer;

/// Most bytes of text that a cheap model runs on an async thread: about 0.25 ms of work.
const INLINE_RUN_BYTES: usize = 1 << 10;
/// Most texts of a request that are tokenised, or run by a cheap model, on an async thread.
const INLINE_TEXTS: usize = 4;
/// Most time that a run may hold an async thread; only a model that is cheap by chance comes near it.
const LONGEST_INLINE: Duration = Duration::from_secs(1);
/// Longest predicted run of a text that holds an async thread while nothing else is run.
const LONGEST_WHEN_IDLE: Duration = Duration::from_millis(5);
/// A run that held an async thread for so long was not cheap, whatever the others were.
const NOT_CHEAP: Duration = Duration::from_millis(100);
/// How long a cheap model's texts queue after such a run.
const DETOUR: Duration = Duration::from_mins(1);
/// Bytes of a token in ordinary text, for a first estimate of what a text costs.
const BYTES_PER_TOKEN: usize = 4;

/// A model version that answers.
pub struct Model {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) description: Option<String>,
    pub(super) device: String,
    pub(super) placement: Placement,
    pub(super) batch_dependent: bool,
    pub(super) run_memory: Option<u64>,
    pub(super) why_alone: Option<&'static str>,
    pub(super) shop: Arc<Shop>,
    /// None without a profile.
    pub(super) drifting: Option<Drifting>,
    pub(super) forecast: Arc<Forecast>,
    pub(super) tokenizers: Arc<ThreadPool>,
    /// Most bytes of text that are tokenised on an async thread.
    pub(super) inline_bytes: usize,
    /// Sessions for runs on the caller's thread; none unless the model is cheap.
    pub(super) inline: Vec<Mutex<Box<dyn Session>>>,
    /// The express worker's session, which runs a text on its caller's thread while nothing else is run; none where that
    /// would hold all async threads.
    pub(super) idle_session: Option<SharedSession>,
    /// Until when texts queue nevertheless, because one of them was not cheap.
    pub(super) detour: Mutex<Option<Instant>>,
    pub(super) workers: Vec<JoinHandle<()>>,
}

/// What became of texts that could have been run at once.
enum Idle {
    Answered(Result<Answer, TextError>),
    Busy(Vec<Input>, Vec<Option<Lead>>),
}

impl Model {
    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version of the model.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A number that no other load has, of this version or another.
    #[must_use]
    pub fn load_number(&self) -> u64 {
        self.shop.load_number
    }

    /// One line about the model, from `model.toml`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How that was found out.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// True if a text's scores depend on the texts that run beside it.
    #[must_use]
    pub fn batch_dependent(&self) -> bool {
        self.batch_dependent
    }

    /// Bytes by which its largest run makes the process grow, where that could be told.
    #[must_use]
    pub fn run_memory(&self) -> Option<u64> {
        self.run_memory
    }

    /// True if texts, of one request or several, may share a run.
    #[must_use]
    pub fn shares_runs(&self) -> bool {
        !self.shop.queue.runs_alone()
    }

    /// Why texts do not share runs, if so.
    #[must_use]
    pub fn why_alone(&self) -> Option<&'static str> {
        self.why_alone
    }

    /// True if short texts are answered on the caller's thread.
    #[must_use]
    pub fn skips_queue(&self) -> bool {
        !self.inline.is_empty() && !self.has_detour()
    }

    fn take_detour(&self) {
        *self.detour.lock() = Some(Instant::now() + DETOUR);
        tracing::warn!(model = self.shop.label, "a short text took the model very long: its texts queue for a minute");
    }

    fn has_detour(&self) -> bool {
        self.detour.lock().is_some_and(|end| Instant::now() < end)
    }

    /// Labels, head and tokenizer.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.shop.pipeline
    }

    /// What its runs cost and how much of them there is.
    #[must_use]
    pub fn work(&self) -> &Load {
        &self.shop.load
    }

    /// Time until the texts that were admitted are answered.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.forecast.wait(&self.shop.load)
    }

    /// Predicted time for texts that need not wait, before they are tokenised.
    #[must_use]
    pub fn time_for<'a>(&self, inputs: impl ExactSizeIterator<Item = &'a Input>) -> Duration {
        let count = inputs.len();
        let work = inputs.map(|input| self.estimate(input.bytes())).sum();
        self.forecast.time_for(&self.shop.load, work, count)
    }

    /// Where its texts and runs are counted.
    #[must_use]
    pub fn metrics(&self) -> &ModelMetrics {
        &self.shop.metrics
    }

    /// Compares what it is asked with its profile, if it has one.
    #[must_use]
    pub fn drifting(&self) -> Option<&Drifting> {
        self.drifting.as_ref()
    }

    /// For how long the oldest text has waited for a worker.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.shop.queue.oldest()
    }

    /// Texts that wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shop.queue.len()
    }

    /// Runs so far, tokens of texts in them, and tokens of padding.
    #[must_use]
    pub fn runs_and_tokens(&self) -> [u64; 3] {
        self.shop.metrics.runs_and_tokens()
    }

    /// Answers `inputs`, whose permits `permits` holds, in order, and those who wait for any of them.
    ///
    /// # Errors
    /// [`Refusal`] if the model is shut down meanwhile.
    pub async fn answer(
        self: &Arc<Self>,
        inputs: Vec<(Input, Option<Lead>)>,
        permits: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Vec<Result<Answer, TextError>>, Refusal> {
        let (inputs, leads): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let bytes = inputs.iter().map(Input::bytes).sum::<usize>();
        let few = inputs.len() <= INLINE_TEXTS;
        if few
            && bytes <= INLINE_RUN_BYTES
            && self.skips_queue()
            && let Some(mut session) = self.inline.iter().find_map(Mutex::try_lock)
        {
            let answer = |(input, lead): (Input, Option<Lead>)| {
                let fit = self.shop.fit(input);
                let answer = fit.and_then(|input| self.answer_here(session.as_mut(), input, deadline));
                if let Some(lead) = lead {
                    lead.done(&answer);
                }
                answer
            };
            return Ok(inputs.into_iter().zip(leads).map(answer).collect());
        }
        let (inputs, leads) = match self.answer_if_idle(inputs, leads, deadline) {
            Idle::Answered(answer) => return Ok(vec![answer]),
            Idle::Busy(inputs, leads) => (inputs, leads),
        };
        // Counted from here on: who comes while these texts are still being read must wait for them.
        let reading = self.shop.load.enter(inputs.iter().map(|input| self.estimate(input.bytes())).sum(), inputs.len());
        let request = Request::new(deadline, inputs.len() > 1);
        // From here on, dropping this future takes out of the queue what has come there.
        let place = Place::new(&self.shop.queue, &request);
        let (orders, answers) = self.orders(&request, inputs.into_iter().zip(leads).collect(), permits)?;
        if few && bytes <= self.inline_bytes {
            self.shop.encode(&request, orders);
        } else {
            encode_in_pieces(&self.tokenizers, &self.shop, &request, orders);
        }
        // From here on each text counts for itself.
        drop(reading);
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.map_err(|_| Refusal::Closed)?);
        }
        place.served();
        Ok(results)
    }

    /// Runs a single short text on this thread if nothing else is being run: two threads need not be woken then.
    ///
    /// A run that takes much longer than it should is given up, and the text queues as if it had not been tried.
    fn answer_if_idle(&self, inputs: Vec<Input>, mut leads: Vec<Option<Lead>>, deadline: Instant) -> Idle {
        let short = self.inline_bytes.min(INLINE_RUN_BYTES);
        let estimate = match &inputs[..] {
            [input] if input.bytes() <= short && !self.has_detour() => self.estimate(input.bytes()),
            _ => return Idle::Busy(inputs, leads),
        };
        if estimate <= LONGEST_WHEN_IDLE
            && let Some(session) = &self.idle_session
            && let Some(turn) = self.shop.gates.of_worker(0).turn_if_idle()
            && let Some(mut session) = session.try_lock()
        {
            let Some(input) = inputs.first().cloned() else { return Idle::Busy(inputs, leads) };
            let _entered = self.shop.load.enter(estimate, 1);
            turn.begins(self.shop.load_number, estimate);
            let start = Instant::now();
            let run = || {
                self.shop.fit(input).and_then(|input| self.shop.encode_one(input)).and_then(|encoded| {
                    let tokenised = Instant::now();
                    let until = deadline.min(Instant::now() + NOT_CHEAP);
                    match self.shop.try_score(session.as_mut(), &encoded, until) {
                        Err(Fault::Run(RunError::Interrupted)) if Instant::now() < deadline => Ok(None),
                        Err(fault) => Err(self.shop.told(fault)),
                        Ok(decision) => Ok(Some(self.shop.ran_here(&encoded, decision, start, tokenised))),
                    }
                })
            };
            // With one client there is nobody to wait, and the hand-over costs a fiftieth of a run of MiniLM.
            let answer = if self.shop.shared.http.connections() > 1 { holding_thread(run) } else { run() };
            let Some(answer) = answer.transpose() else {
                self.take_detour();
                return Idle::Busy(inputs, leads);
            };
            if let Some(lead) = leads.pop().flatten() {
                lead.done(&answer);
            }
            return Idle::Answered(answer);
        }
        Idle::Busy(inputs, leads)
    }

    /// What is to be done for each text, and where its answer will come.
    #[expect(clippy::type_complexity, reason = "two lists that belong together")]
    fn orders(
        &self,
        request: &Request,
        inputs: Vec<(Input, Option<Lead>)>,
        mut permits: OwnedSemaphorePermit,
    ) -> Result<(Vec<Order>, Vec<oneshot::Receiver<Result<Answer, TextError>>>), Refusal> {
        let micros = |time: Duration| Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX);
        let estimates: Vec<Duration> = inputs.iter().map(|(input, _)| self.estimate(input.bytes())).collect();
        let all = micros(estimates.iter().sum());
        let time = micros(request.deadline.saturating_duration_since(request.arrived));
        let (mut orders, mut answers) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
        let mut work = 0;
        for ((input, lead), estimate) in inputs.into_iter().zip(estimates) {
            work += micros(estimate);
            let due = request.arrived + Duration::from_micros(due(0, time, work, all));
            // Every text has a permit: the bound was taken for all of them.
            let permit = permits.split(1).ok_or(Refusal::Overloaded)?;
            let (reply, answer) = oneshot::channel();
            orders.push(Order { input, lead, due, reply, permit, entered: self.shop.load.enter(estimate, 1) });
            answers.push(answer);
        }
        Ok((orders, answers))
    }

    /// Predicted time of the runs of a text of so many bytes, before it is tokenised.
    fn estimate(&self, bytes: usize) -> Duration {
        let Some(tokenizer) = self.pipeline().tokenizer() else {
            return self.shop.load.predicted(Shape { rows: 1, length: 1 });
        };
        let (tokens, most) = (bytes / BYTES_PER_TOKEN + 2, tokenizer.max_tokens());
        let rows = match tokenizer.on_overflow() {
            crate::config::OnOverflow::Window => tokens.div_ceil(most).min(Tokenizer::MAX_WINDOWS),
            crate::config::OnOverflow::Error | crate::config::OnOverflow::Truncate => 1,
        };
        self.shop.load.predicted(Shape { rows, length: tokens.min(most) })
    }

    /// The cheap way: tokenise and run on this thread.
    fn answer_here(&self, session: &mut dyn Session, input: Input, deadline: Instant) -> Result<Answer, TextError> {
        let start = Instant::now();
        let encoded = self.shop.encode_one(input)?;
        let tokenised = Instant::now();
        let decision = self.shop.score(session, &encoded, deadline.min(tokenised + LONGEST_INLINE));
        if tokenised.elapsed() >= NOT_CHEAP {
            self.take_detour();
        }
        Ok(self.shop.ran_here(&encoded, decision?, start, tokenised))
    }

    /// Ends the workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        self.shop.queue.close();
        while Instant::now() < deadline && !self.workers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Does work that holds this async thread for milliseconds, while another takes over what waits for it: the other
/// connections' events among it, which one thread at a time looks for.
fn holding_thread<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shop.queue.close();
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}
