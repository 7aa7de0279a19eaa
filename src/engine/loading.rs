//! How a model version comes into service: read, checked against its golden examples, measured, given its threads.

mod checks;
mod device;
mod logged;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::ThreadPool;

use super::ahead;
use super::batching::Policy;
use super::drifting::{self, Drifting};
use super::lane::Lane;
use super::measuring::{Measured, measure, tokenizer_speed};
use super::model::Model;
use super::queue::Queue;
use super::recycling::Spare;
use super::session::{Runtime, Session};
use super::worker::{self, Shop};
use crate::config::TextDefaults;
use crate::drift;
use crate::metrics::Metrics;
use crate::text::heads::Decision;
use crate::text::input::Input;
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::pipeline::{Encoded, Pipeline};
use crate::text::tokenizer::Tokenizer;
use device::{Fault, Opened};

/// A model that answers a short text faster than this does not queue: handing the text to
/// another thread costs 10 to 40 µs each way, about as much as the run.
const CHEAP_RUN: Duration = Duration::from_micros(150);
/// Time of one run while a model is checked: one that takes longer cannot serve.
pub const LONGEST_CHECK: Duration = Duration::from_secs(10);
/// Tokens of a worker's sample on a GPU.
const SAMPLE_TOKENS: usize = 16;
/// Time that a text may be tokenised on an async thread.
const INLINE_TOKENISING: Duration = Duration::from_micros(250);
/// Most bytes of text that are tokenised on an async thread, however fast the tokenizer is.
const INLINE_BYTES: usize = 16 << 10;

/// Loads so far.
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
    /// SHA-256 of its files, if they were registered: paths and hexadecimal digits.
    pub registered: BTreeMap<String, String>,
}

/// What models are loaded with: the same for all of them.
#[derive(Clone)]
pub struct Host {
    /// Runs graphs.
    pub runtime: Arc<dyn Runtime>,
    /// What models on the cores share.
    pub cores: Lane,
    /// What models on GPUs share.
    pub gpus: Lane,
    /// Tokenises what takes longer than a moment.
    pub tokenizers: Arc<ThreadPool>,
    /// Time of one run while a model is checked.
    pub longest_check: Duration,
    /// What is done with texts where the model does not say.
    pub texts: TextDefaults,
    /// When a window of texts is compared with the model's profile.
    pub drift: drift::Settings,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
}

impl Model {
    /// Reads, checks, opens and measures a model, and starts its workers.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file and what is wrong with it.
    pub fn load(source: &ModelSource, host: &Host) -> Result<Self, ManifestError> {
        // A file that makes a library panic must not keep the other models from being loaded.
        let load = |cores| Self::load_unguarded(source, host, cores);
        let loaded = catch_unwind(AssertUnwindSafe(|| device::on_gpu_or_cores(source, host, load)));
        loaded.unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))
    }

    /// Reads and checks a model, and lets go of it.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn verify(source: &ModelSource, host: &Host) -> Result<(), ManifestError> {
        let verify = |cores| {
            let mut opened = device::open(source, host, cores)?;
            let mut verify = || {
                let mut session = opened.graph.session()?;
                checks::first_runs(&mut opened, session.as_mut(), host.longest_check)?;
                checks::check_longest(&opened.manifest, &opened.pipeline, session.as_mut(), host.longest_check)
            };
            verify().map_err(|error| Fault::of(error, &opened.placement))
        };
        let verified = catch_unwind(AssertUnwindSafe(|| device::on_gpu_or_cores(source, host, verify)));
        verified.unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))
    }

    fn load_unguarded(source: &ModelSource, host: &Host, cores: Option<String>) -> Result<Self, Fault> {
        let begun = Instant::now();
        let opened = device::open(source, host, cores)?;
        let placement = opened.placement.clone();
        Self::start(source, host, begun, opened).map_err(|error| Fault::of(error, &placement))
    }

    /// Checks and measures what was opened, and starts its workers.
    fn start(source: &ModelSource, host: &Host, begun: Instant, mut opened: Opened) -> Result<Self, ManifestError> {
        let lane = if opened.placement.is_gpu() { &host.gpus } else { &host.cores };
        let count = lane.rules.workers.max(1);
        let mut sessions = (0..count).map(|_| opened.graph.session()).collect::<Result<Vec<_>, _>>()?;
        let first = sessions
            .first_mut()
            .ok_or_else(|| ManifestError::new(&opened.manifest.graph_name, "no session could be made"))?;
        let warm_up_began = Instant::now();
        let why_alone = checks::first_runs(&mut opened, first.as_mut(), host.longest_check)?;
        let Opened { mut manifest, mut graph, mut pipeline, placement } = opened;
        let batch_dependent = graph.signature().batch_dependent;
        let error = |reason: String| ManifestError::new(&manifest.graph_name, reason);
        let failed = |reason: String| error(format!("the warm-up failed: {reason}"));
        let measured = match measure(&pipeline, &mut sessions, why_alone.is_none(), (lane, host.longest_check)) {
            Ok(measured) => measured,
            Err(reason) => {
                if let Some(session) = sessions.first_mut() {
                    checks::check_longest(&manifest, &pipeline, session.as_mut(), host.longest_check)?;
                }
                return Err(failed(reason));
            }
        };
        let mut rules = lane.rules;
        if let Some(gpu) = lane.gpu {
            if why_alone.is_none() {
                // Only what padding does not change is padded.
                pad(&mut pipeline, &mut sessions, gpu.pad_to, (&manifest.graph_name, host.longest_check));
            }
            if gpu.fit_tokens {
                rules.caps.tokens = measured.cost.paying_tokens(rules.caps.tokens);
            }
        }
        let inline_bytes = tokenizer_speed(&pipeline)
            .map_or(INLINE_BYTES, |speed| fitting(INLINE_TOKENISING, speed).min(INLINE_BYTES));
        let together = rules.policy.together(rules.caps.rows);
        let together = together.filter(|_| lane.gpu.is_some() && why_alone.is_none());
        let load = lane.forecast.register(measured.cost, together);
        let shop = Arc::new(Shop {
            load_number: LOADED.fetch_add(1, Ordering::Relaxed),
            label: format!("{}/{}", source.name, source.version),
            pipeline,
            queue: Arc::new(Queue::new(rules, Arc::clone(&load), Arc::clone(&lane.gates), why_alone.is_some())),
            gates: Arc::clone(&lane.gates),
            on_gpu: lane.gpu.is_some(),
            lost: lane.lost.clone(),
            load,
            metrics: host.metrics.model(&source.name, &source.version),
            shared: Arc::clone(&host.metrics),
        });
        let kept = (host.drift, &shop.metrics);
        let drifting = Drifting::of(manifest.profile.as_ref(), &shop.pipeline, source, kept)?;
        warn_of_files(source, &manifest, &shop.pipeline);
        report(&shop, &measured, why_alone, inline_bytes);
        let warm_up_took = warm_up_began.elapsed();
        let mut inline = Vec::new();
        // A GPU has one session: a second one would only wait for it, and take memory.
        if measured.short_text <= CHEAP_RUN && lane.gpu.is_none() {
            for _ in 0..count {
                inline.push(Mutex::new(graph.session()?));
            }
        }
        let mut express = None;
        // The other policies are there to be compared with, as they are elsewhere.
        if rules.policy == Policy::Window && lane.gpu.is_none() {
            let mut session = graph.session()?;
            checks::warm_up(&shop.pipeline, session.as_mut(), host.longest_check).map_err(failed)?;
            express = Some(Arc::new(Mutex::new(session)));
        }
        let spare = Spare::of(graph, lane.recycle);
        let regular = spawn_workers(&shop, sessions, lane, spare.as_ref());
        let express_worker = express.clone().map(|session| worker::spawn_express(Arc::clone(&shop), session));
        let workers = regular
            .into_iter()
            .chain(express_worker)
            .collect::<Result<_, _>>()
            .map_err(|e| ManifestError::of_system("a worker thread", &e));
        if workers.is_err() {
            shop.queue.close();
        }
        shop.metrics.loaded(begun.elapsed(), warm_up_took);
        Ok(Self {
            name: source.name.clone(),
            version: source.version.clone(),
            description: manifest.options.description.take(),
            device: placement.device(),
            placement,
            batch_dependent,
            run_memory: measured.run_memory,
            why_alone,
            shop,
            drifting,
            forecast: Arc::clone(&lane.forecast),
            tokenizers: Arc::clone(&host.tokenizers),
            inline_bytes,
            inline,
            // Half of the async threads at least must stay free, and there are as many as workers.
            idle_session: express.filter(|_| count > 1),
            detour: Mutex::default(),
            workers: workers?,
        })
    }
}

/// Tells the operator what keeps no model from serving.
fn warn_of_files(source: &ModelSource, manifest: &Manifest, pipeline: &Pipeline) {
    let of_another = manifest.profile_is_of_another.then_some(drifting::OF_ANOTHER);
    for warning in of_another.into_iter().chain(pipeline.warnings().iter().map(String::as_str)) {
        tracing::warn!(model = source.name, version = source.version, "{warning}");
    }
}

/// The threads that run a model's texts: one for each session on the cores, several on a GPU.
fn spawn_workers(
    shop: &Arc<Shop>,
    sessions: Vec<Box<dyn Session>>,
    lane: &Lane,
    spare: Option<&Spare>,
) -> Vec<std::io::Result<JoinHandle<()>>> {
    if lane.gpu.is_none() {
        let spawn = |session| worker::spawn(Arc::clone(shop), session, spare.cloned());
        return sessions.into_iter().map(spawn).collect();
    }
    let most = shop.pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let sample = shop.pipeline.sample(SAMPLE_TOKENS.min(most)).ok().map(|sample| shop.pipeline.batch([&sample]));
    let spawn = |(number, session)| ahead::spawn(shop, number, session, sample.clone());
    (0..).zip(sessions).flat_map(spawn).collect()
}

/// Bytes that take this time at so many seconds a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn fitting(time: Duration, seconds_per_byte: f64) -> usize {
    (time.as_secs_f64() / seconds_per_byte.max(f64::MIN_POSITIVE)) as usize
}

/// What the model costs on this machine, for the operator.
fn report(shop: &Shop, measured: &Measured, why_alone: Option<&str>, inline_bytes: usize) {
    let [run, token, square] = measured.cost.parts();
    shop.metrics.costs(measured.cost.parts());
    tracing::info!(
        model = shop.label,
        run_ms = run * 1e3,
        token_us = token * 1e6,
        token_squared_ns = square * 1e9,
        free_padding_tokens = measured.cost.tokens_per_run(),
        shares_runs = !shop.queue.runs_alone(),
        inline_bytes,
        "what a run costs was measured"
    );
    if let Some(reason) = why_alone {
        tracing::warn!(model = shop.label, reason, "texts of this model do not share batches");
    }
}

/// Rounds lengths of runs up, unless golden examples have other answers then.
fn pad(pipeline: &mut Pipeline, sessions: &mut [Box<dyn Session>], to: usize, (graph, longest): (&str, Duration)) {
    pipeline.pad_to(to);
    if let Some(session) = sessions.first_mut()
        && let Err(error) = checks::check_golden(pipeline, session.as_mut(), longest)
    {
        tracing::warn!(graph, %error, "lengths of runs are not rounded up: the model answers differently then");
        pipeline.pad_to(1);
    }
}

pub(super) fn decide(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    input: Input,
    longest: Duration,
) -> Result<Decision, String> {
    let encoded = pipeline.encode(input).map_err(|error| error.to_string())?;
    decide_encoded(pipeline, session, &encoded, longest)
}

/// Runs one text by itself and decides.
///
/// # Errors
/// What the runtime says, or why its output cannot be an answer.
pub(crate) fn decide_encoded(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    encoded: &Encoded,
    longest: Duration,
) -> Result<Decision, String> {
    let (mut rows, mut chosen) = (Vec::new(), None);
    for batch in pipeline.runs(encoded) {
        let scores = session.run(&batch, Instant::now() + longest).map_err(|error| error.to_string())?;
        rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
        chosen = scores.chosen.first().copied().flatten();
    }
    pipeline.decide(encoded, rows, chosen).map_err(|error| error.to_string())
}
