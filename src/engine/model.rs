//! One served model version: loaded, checked against its golden examples, warmed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::cache::Lead;
use super::forecast::Forecast;
use super::gate::Gate;
use super::queue::Job;
use super::session::{Runtime, Session};
use super::worker::{self, Shop};
use super::{Answer, Refusal, TextError};
use crate::config::TextDefaults;
use crate::metrics::{Metrics, PanicPlace};
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::pipeline::{Encoded, Pipeline};
use crate::text::tokenizer::TokenizeError;

/// A model that answers a short text faster than this does not queue: handing the text to
/// another thread costs 10 to 40 µs each way, about as much as the run.
const CHEAP_RUN: Duration = Duration::from_micros(150);
/// Most bytes of text that are tokenised, or run by a cheap model, on an async thread: about 0.25 ms of work.
const INLINE_BYTES: usize = 1 << 10;
/// Most texts of a request that are tokenised, or run by a cheap model, on an async thread.
const INLINE_TEXTS: usize = 4;
/// Time of one run while a model is checked: one that takes longer cannot serve.
pub const LONGEST_CHECK: Duration = Duration::from_secs(10);
/// Most time that a run may hold an async thread; only a model that is cheap by chance comes near it.
const LONGEST_INLINE: Duration = Duration::from_secs(1);
/// A run that held an async thread for so long was not cheap, whatever the others were.
const NOT_CHEAP: Duration = Duration::from_millis(100);
/// How long a cheap model's texts queue after such a run.
const DETOUR: Duration = Duration::from_mins(1);
/// Longest text of the warm-up in words; long enough to size the runtime's buffers once.
const WARM_UP_WORDS: usize = 32;
/// Models that this process has loaded.
static LOADED: AtomicU64 = AtomicU64::new(0);

/// What to load.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Its directory.
    pub directory: PathBuf,
}

/// What models are loaded with: the same for all of them.
#[derive(Clone)]
pub struct Host {
    /// Runs graphs.
    pub runtime: Arc<dyn Runtime>,
    /// Run permits over all models.
    pub gate: Arc<Gate>,
    /// What waits for them.
    pub forecast: Arc<Forecast>,
    /// Worker threads per model.
    pub workers: usize,
    /// Time of one run while a model is checked.
    pub longest_check: Duration,
    /// What is done with texts where the model does not say.
    pub texts: TextDefaults,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
}

/// A model version that answers.
pub struct Model {
    name: String,
    version: String,
    load_number: u64,
    description: Option<String>,
    device: &'static str,
    batch_dependent: bool,
    shop: Arc<Shop>,
    forecast: Arc<Forecast>,
    /// Sessions for runs on the caller's thread; none unless the model is cheap.
    inline: Vec<Mutex<Box<dyn Session>>>,
    /// Until when texts queue nevertheless, because one of them was not cheap.
    detour: Mutex<Option<Instant>>,
    workers: Vec<JoinHandle<()>>,
}

impl Model {
    /// Reads, checks, opens and warms a model, and starts its workers.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file and what is wrong with it.
    pub fn load(source: &ModelSource, host: &Host) -> Result<Self, ManifestError> {
        // A file that makes a library panic must not keep the other models from being loaded.
        let loaded = catch_unwind(AssertUnwindSafe(|| Self::load_unguarded(source, host)));
        loaded.unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))
    }

    fn load_unguarded(source: &ModelSource, host: &Host) -> Result<Self, ManifestError> {
        let mut manifest = Manifest::read(&source.directory)?;
        let mut graph = host.runtime.open(&mut manifest)?;
        let pipeline = Pipeline::assemble(&mut manifest, graph.signature(), host.texts)?;
        let mut shop = Shop {
            label: format!("{}/{}", source.name, source.version),
            pipeline,
            queue: Arc::default(),
            gate: Arc::clone(&host.gate),
            load: host.forecast.register(Duration::ZERO),
            metrics: Arc::clone(&host.metrics),
        };
        let mut sessions = Vec::new();
        for _ in 0..host.workers.max(1) {
            sessions.push(graph.session()?);
        }
        let first =
            sessions.first_mut().ok_or_else(|| ManifestError::new(&manifest.graph_name, "no session could be made"))?;
        check_golden(&shop, first.as_mut(), host.longest_check)?;
        let mut cost = Duration::MAX;
        for session in &mut sessions {
            cost = cost.min(warm_up(&shop, session.as_mut(), &manifest.graph_name, host.longest_check)?);
        }
        shop.load = host.forecast.register(cost);
        let shop = Arc::new(shop);
        let mut inline = Vec::new();
        if cost <= CHEAP_RUN {
            for _ in 0..host.workers.max(1) {
                inline.push(Mutex::new(graph.session()?));
            }
        }
        let error = |e: std::io::Error| {
            ManifestError::new(&manifest.graph_name, format!("no worker thread could be started: {e}"))
        };
        let workers = sessions
            .into_iter()
            .map(|session| worker::spawn(Arc::clone(&shop), session).map_err(error))
            .collect::<Result<_, _>>();
        if workers.is_err() {
            shop.queue.close();
        }
        Ok(Self {
            name: source.name.clone(),
            version: source.version.clone(),
            load_number: LOADED.fetch_add(1, Ordering::Relaxed),
            description: manifest.options.description.take(),
            device: host.runtime.device(),
            batch_dependent: graph.signature().batch_dependent,
            shop,
            forecast: Arc::clone(&host.forecast),
            inline,
            detour: Mutex::default(),
            workers: workers?,
        })
    }

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
        self.load_number
    }

    /// One line about the model, from `model.toml`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Where it runs.
    #[must_use]
    pub fn device(&self) -> &'static str {
        self.device
    }

    /// True if a text's scores depend on the texts that run beside it.
    #[must_use]
    pub fn batch_dependent(&self) -> bool {
        self.batch_dependent
    }

    /// True if short texts are answered on the caller's thread.
    #[must_use]
    pub fn skips_queue(&self) -> bool {
        !self.inline.is_empty() && self.detour.lock().is_none_or(|end| Instant::now() >= end)
    }

    /// Labels, head and tokenizer.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.shop.pipeline
    }

    /// Time until the texts that were admitted are answered.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.forecast.wait(&self.shop.load)
    }

    /// Texts that wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shop.queue.len()
    }

    /// Answers `texts`, whose permits `permits` holds, in order, and those who wait for any of them.
    ///
    /// # Errors
    /// [`Refusal`] if the policy refuses a text, or the model is shut down meanwhile.
    pub async fn answer(
        self: &Arc<Self>,
        texts: Vec<(String, Option<Lead>)>,
        mut permits: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Vec<Result<Answer, TextError>>, Refusal> {
        let (texts, leads): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        let short = texts.len() <= INLINE_TEXTS && texts.iter().map(String::len).sum::<usize>() <= INLINE_BYTES;
        if short
            && self.skips_queue()
            && let Some(mut session) = self.inline.iter().find_map(Mutex::try_lock)
        {
            let texts = self.fit(texts)?;
            let answer = |(text, lead): (String, Option<Lead>)| {
                let answer = self.answer_here(session.as_mut(), text, deadline);
                if let Some(lead) = lead {
                    lead.done(&answer);
                }
                answer
            };
            return Ok(texts.into_iter().zip(leads).map(answer).collect());
        }
        let mut entered = self.shop.load.enter(texts.len());
        let encoded = if short {
            self.encode_all(texts, &CancellationToken::new())?
        } else {
            self.encode_elsewhere(texts).await?
        };
        let (mut jobs, mut answers) = (Vec::with_capacity(encoded.len()), Vec::with_capacity(encoded.len()));
        for (encoded, lead) in encoded.into_iter().zip(leads) {
            // Every text has a permit: the bound was taken for all of them.
            let permit = permits.split(1).ok_or(Refusal::Overloaded)?;
            answers.push(match encoded {
                Ok(encoded) => {
                    let (reply, answer) = oneshot::channel();
                    jobs.push(Job { encoded, deadline, reply, permit, entered: entered.split_one(), lead });
                    Ok(answer)
                }
                Err(error) => {
                    if let Some(lead) = lead {
                        lead.done(&Err(error.clone()));
                    }
                    Err(error)
                }
            });
        }
        // Texts that failed are waited for by nobody.
        drop(entered);
        let places = self.shop.queue.push(jobs);
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => answer.await.map_err(|_| Refusal::Closed)?,
                Err(error) => Err(error),
            });
        }
        places.served();
        Ok(results)
    }

    /// The cheap way: tokenise and run on this thread.
    fn answer_here(&self, session: &mut dyn Session, text: String, deadline: Instant) -> Result<Answer, TextError> {
        let encoded = self.encode(text)?;
        let start = Instant::now();
        let decision = self.shop.score(session, &encoded, deadline.min(start + LONGEST_INLINE));
        if start.elapsed() >= NOT_CHEAP {
            *self.detour.lock() = Some(Instant::now() + DETOUR);
            tracing::warn!(
                model = self.shop.label,
                "a text took a cheap model very long: its texts queue for a minute"
            );
        }
        Ok(Answer { decision: decision?, tokens: encoded.tokens, truncated: encoded.truncated })
    }

    /// Checks and tokenises on the bounded pool for blocking work, so that a long text stops no other request.
    async fn encode_elsewhere(
        self: &Arc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Encoded, TextError>>, Refusal> {
        let (model, left) = (Arc::clone(self), CancellationToken::new());
        // Set when this future is dropped: the pool cannot stop a task that has begun.
        let _guard = left.clone().drop_guard();
        tokio::task::spawn_blocking(move || model.encode_all(texts, &left)).await.map_err(|_| Refusal::Closed)?
    }

    fn encode_all(
        &self,
        texts: Vec<String>,
        left: &CancellationToken,
    ) -> Result<Vec<Result<Encoded, TextError>>, Refusal> {
        let texts = self.fit(texts)?;
        Ok(texts.into_iter().take_while(|_| !left.is_cancelled()).map(|text| self.encode(text)).collect())
    }

    /// The texts as the model's policy lets them pass.
    fn fit(&self, texts: Vec<String>) -> Result<Vec<String>, Refusal> {
        let policy = self.shop.pipeline.policy();
        let fit = |(index, text)| policy.apply(text).map_err(|error| Refusal::Unfit { index, error });
        texts.into_iter().enumerate().map(fit).collect()
    }

    fn encode(&self, text: String) -> Result<Encoded, TextError> {
        self.shop.pipeline.encode(text).map_err(|error| {
            if error == TokenizeError::Panicked {
                self.shop.metrics.panicked(PanicPlace::Tokenizer);
                tracing::error!(model = self.shop.label, "the tokenizer panicked on a text; the text got an error");
            }
            TextError::Tokenize(error)
        })
    }

    /// Ends the workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        self.shop.queue.close();
        while Instant::now() < deadline && !self.workers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
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

/// Runs the golden examples. The reason names an example by its number, not by its text.
fn check_golden(shop: &Shop, session: &mut dyn Session, longest: Duration) -> Result<(), ManifestError> {
    let Some(golden) = shop.pipeline.golden() else { return Ok(()) };
    golden.check().map_err(|reason| ManifestError::new("golden.json", reason))?;
    for (number, example) in (1..).zip(&golden.examples) {
        let error = |reason: String| ManifestError::new("golden.json", format!("example {number}: {reason}"));
        let decision = run_once(shop, session, example.text.clone(), longest).map_err(|e| error(e.to_string()))?;
        example.check(&decision, shop.pipeline.labels(), golden.tolerance).map_err(error)?;
    }
    Ok(())
}

/// Runs a long text once, to size the runtime's buffers, and times a short one: the best of three.
fn warm_up(shop: &Shop, session: &mut dyn Session, graph: &str, longest: Duration) -> Result<Duration, ManifestError> {
    let error = |e: TextError| ManifestError::new(graph, format!("the warm-up failed: {e}"));
    match run_once(shop, session, "word ".repeat(WARM_UP_WORDS), longest) {
        // A model may take fewer tokens than this and refuse longer texts.
        Ok(_) | Err(TextError::Tokenize(TokenizeError::TooLong { .. })) => {}
        Err(failure) => return Err(error(failure)),
    }
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        run_once(shop, session, "one short text".to_owned(), longest).map_err(error)?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn run_once(
    shop: &Shop,
    session: &mut dyn Session,
    text: String,
    longest: Duration,
) -> Result<crate::text::heads::Decision, TextError> {
    let run = || {
        let encoded = shop.pipeline.encode(text)?;
        shop.score(session, &encoded, Instant::now() + longest)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(TextError::InferenceFailed))
}
