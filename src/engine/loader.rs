//! How a model version comes into service: read, checked against its golden examples, measured, given its threads.

mod checks;
mod device_fallback;
mod mlflow_checks;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::ThreadPool;

use super::backend::{Backend, Session};
use super::calibration::{Calibration, calibrate, tokenizer_seconds_per_byte};
use super::drift_monitor::{self, DriftMonitor};
use super::execution_group::ExecutionGroup;
use super::gpu_pipeline;
use super::loaded_version::LoadedVersion;
use super::queue::Queue;
use super::scheduler::BatchingStrategy;
use super::session_recycler::SessionRecycler;
use super::worker::{self, ModelRunner};
use crate::config::TextPolicies;
use crate::drift;
use crate::metrics::Metrics;
use crate::text::heads::HeadOutput;
use crate::text::input::Input;
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::pipeline::{EncodedInput, Pipeline};
use crate::text::tokenizer::Tokenizer;
use device_fallback::{LoadError, OpenedModel};

/// A model that answers a short text faster than this does not queue: handing the text to
/// another thread costs 10 to 40 µs each way, about as much as the run.
const INLINE_MODEL_RUN_TIME: Duration = Duration::from_micros(150);
/// Time of one run while a model is checked: one that takes longer cannot serve.
pub const CHECK_RUN_TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens of a worker's sample on a GPU.
const SAMPLE_TOKENS: usize = 16;
/// Time that a text may be tokenised on an async thread.
const INLINE_TOKENIZE_TIME: Duration = Duration::from_micros(250);
/// Most bytes of text that are tokenised on an async thread, however fast the tokenizer is.
const MAX_INLINE_TOKENIZE_BYTES: usize = 16 << 10;

/// Loads so far.
static NEXT_LOAD_ID: AtomicU64 = AtomicU64::new(0);

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
    pub registered_hashes: BTreeMap<String, String>,
}

/// What models are loaded with: the same for all of them.
#[derive(Clone)]
pub struct LoadContext {
    /// Runs graphs.
    pub backend: Arc<dyn Backend>,
    /// What models on the cores share.
    pub cpu_group: ExecutionGroup,
    /// What models on GPUs share.
    pub gpu_group: ExecutionGroup,
    /// Tokenises what takes longer than a moment.
    pub tokenizer_pool: Arc<ThreadPool>,
    /// Time of one run while a model is checked.
    pub check_run_timeout: Duration,
    /// What is done with texts where the model does not say.
    pub text_defaults: TextPolicies,
    /// When a window of texts is compared with the model's profile.
    pub drift_settings: drift::WindowSettings,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
}

impl LoadedVersion {
    /// Reads, checks, opens and measures a model, and starts its workers.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file and what is wrong with it.
    pub fn load(source: &ModelSource, host: &LoadContext) -> Result<Self, ManifestError> {
        // A file that makes a library panic must not keep the other models from being loaded.
        let load = |cores| Self::load_unguarded(source, host, cores);
        let loaded = catch_unwind(AssertUnwindSafe(|| device_fallback::load_with_cpu_fallback(source, host, load)));
        loaded.unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))
    }

    /// Reads and checks a model, and lets go of it.
    ///
    /// # Errors
    /// As [`LoadedVersion::model_load`].
    pub fn verify(source: &ModelSource, host: &LoadContext) -> Result<(), ManifestError> {
        let verify = |cores| {
            let mut opened = device_fallback::open_model(source, host, cores)?;
            let mut verify = || {
                let mut session = opened.graph.create_session()?;
                checks::run_load_checks(&mut opened, session.as_mut(), host.check_run_timeout)?;
                checks::check_max_length(&opened.manifest, &opened.pipeline, session.as_mut(), host.check_run_timeout)
            };
            verify().map_err(|error| LoadError::with_placement(error, &opened.placement))
        };
        let verified = catch_unwind(AssertUnwindSafe(|| device_fallback::load_with_cpu_fallback(source, host, verify)));
        verified.unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))
    }

    fn load_unguarded(source: &ModelSource, host: &LoadContext, cores: Option<String>) -> Result<Self, LoadError> {
        let begun = Instant::now();
        let opened = device_fallback::open_model(source, host, cores)?;
        let placement = opened.placement.clone();
        Self::start(source, host, begun, opened).map_err(|error| LoadError::with_placement(error, &placement))
    }

    /// Checks and measures what was opened, and starts its workers.
    #[expect(clippy::too_many_lines, reason = "is split with its circle of imports")]
    fn start(
        source: &ModelSource,
        host: &LoadContext,
        begun: Instant,
        mut opened: OpenedModel,
    ) -> Result<Self, ManifestError> {
        let lane = if opened.placement.is_gpu() { &host.gpu_group } else { &host.cpu_group };
        let count = lane.scheduler_config.worker_count.max(1);
        let mut sessions = (0..count).map(|_| opened.graph.create_session()).collect::<Result<Vec<_>, _>>()?;
        let first = sessions
            .first_mut()
            .ok_or_else(|| ManifestError::new(&opened.manifest.graph_name, "no session could be made"))?;
        let warm_up_began = Instant::now();
        let why_alone = checks::run_load_checks(&mut opened, first.as_mut(), host.check_run_timeout)?;
        let OpenedModel { mut manifest, mut graph, mut pipeline, placement } = opened;
        let batch_dependent = graph.signature().batch_dependent;
        let error = |reason: String| ManifestError::new(&manifest.graph_name, reason);
        let failed = |reason: String| error(format!("the warm-up failed: {reason}"));
        let measured = match calibrate(&pipeline, &mut sessions, why_alone.is_none(), (lane, host.check_run_timeout)) {
            Ok(measured) => measured,
            Err(reason) => {
                if let Some(session) = sessions.first_mut() {
                    checks::check_max_length(&manifest, &pipeline, session.as_mut(), host.check_run_timeout)?;
                }
                return Err(failed(reason));
            }
        };
        let mut rules = lane.scheduler_config;
        if let Some(gpu) = lane.gpu {
            if why_alone.is_none() {
                // Only what padding does not change is padded.
                enable_length_padding(
                    &mut pipeline,
                    &mut sessions,
                    gpu.pad_to_multiple_of,
                    (&manifest.graph_name, host.check_run_timeout),
                );
            }
            if gpu.auto_max_tokens {
                rules.batch_limits.max_tokens = measured.cost_model.saturation_tokens(rules.batch_limits.max_tokens);
            }
        }
        let inline_bytes = tokenizer_seconds_per_byte(&pipeline).map_or(MAX_INLINE_TOKENIZE_BYTES, |speed| {
            bytes_within(INLINE_TOKENIZE_TIME, speed).min(MAX_INLINE_TOKENIZE_BYTES)
        });
        let together = rules.strategy.max_batch_items(rules.batch_limits.max_rows);
        let together = together.filter(|_| lane.gpu.is_some() && why_alone.is_none());
        let load = lane.wait_estimator.register(measured.cost_model, together);
        let shop = Arc::new(ModelRunner {
            load_id: NEXT_LOAD_ID.fetch_add(1, Ordering::Relaxed),
            label: format!("{}/{}", source.name, source.version),
            pipeline,
            queue: Arc::new(Queue::new(rules, Arc::clone(&load), Arc::clone(&lane.permits), why_alone.is_some())),
            permits: Arc::clone(&lane.permits),
            is_on_gpu: lane.gpu.is_some(),
            gpu_failure: lane.gpu_failure.clone(),
            model_load: load,
            metrics: host.metrics.model(&source.name, &source.version),
            server_metrics: Arc::clone(&host.metrics),
        });
        let kept = (host.drift_settings, &shop.metrics);
        let drifting = DriftMonitor::new(manifest.profile.as_ref(), &shop.pipeline, source, kept)?;
        log_file_warnings(source, &manifest, &shop.pipeline);
        report_costs(&shop, &measured, why_alone, inline_bytes);
        let warm_up_took = warm_up_began.elapsed();
        let mut inline = Vec::new();
        // A GPU has one session: a second one would only wait for it, and take memory.
        if measured.short_item_time <= INLINE_MODEL_RUN_TIME && lane.gpu.is_none() {
            for _ in 0..count {
                inline.push(Mutex::new(graph.create_session()?));
            }
        }
        let mut express = None;
        // The other policies are there to be compared with, as they are elsewhere.
        if rules.strategy == BatchingStrategy::Window && lane.gpu.is_none() {
            let mut session = graph.create_session()?;
            checks::warm_up(&shop.pipeline, session.as_mut(), host.check_run_timeout).map_err(failed)?;
            express = Some(Arc::new(Mutex::new(session)));
        }
        let spare = SessionRecycler::new(graph, lane.runs_per_session);
        let regular = spawn_workers(&shop, sessions, lane, spare.as_ref());
        let express_worker = express.clone().map(|session| worker::spawn_express_worker(Arc::clone(&shop), session));
        let workers = regular
            .into_iter()
            .chain(express_worker)
            .collect::<Result<_, _>>()
            .map_err(|e| ManifestError::from_io("a worker thread", &e));
        if workers.is_err() {
            shop.queue.close();
        }
        shop.metrics.record_load(begun.elapsed(), warm_up_took);
        Ok(Self {
            name: source.name.clone(),
            version: source.version.clone(),
            description: manifest.options.description.take(),
            device: placement.device(),
            placement,
            is_batch_dependent: batch_dependent,
            run_memory_bytes: measured.run_memory_bytes,
            unbatchable_reason: why_alone,
            runner: shop,
            drift_monitor: drifting,
            wait_estimator: Arc::clone(&lane.wait_estimator),
            tokenizer_pool: Arc::clone(&host.tokenizer_pool),
            inline_tokenize_bytes: inline_bytes,
            inline_sessions: inline,
            // Half of the async threads at least must stay free, and there are as many as workers.
            idle_session: express.filter(|_| count > 1),
            inline_cooldown_until: Mutex::default(),
            workers: workers?,
        })
    }
}

/// Tells the operator what keeps no model from serving.
fn log_file_warnings(source: &ModelSource, manifest: &Manifest, pipeline: &Pipeline) {
    let of_another = manifest.profile_graph_differs.then_some(drift_monitor::PROFILE_MISMATCH_WARNING);
    for warning in of_another.into_iter().chain(pipeline.warnings().iter().map(String::as_str)) {
        tracing::warn!(model = source.name, version = source.version, "{warning}");
    }
}

/// The threads that run a model's texts: one for each session on the cores, several on a GPU.
fn spawn_workers(
    shop: &Arc<ModelRunner>,
    sessions: Vec<Box<dyn Session>>,
    lane: &ExecutionGroup,
    spare: Option<&SessionRecycler>,
) -> Vec<std::io::Result<JoinHandle<()>>> {
    if lane.gpu.is_none() {
        let spawn = |session| worker::spawn(Arc::clone(shop), session, spare.cloned());
        return sessions.into_iter().map(spawn).collect();
    }
    let most = shop.pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let sample = shop.pipeline.cost_probe(SAMPLE_TOKENS.min(most)).ok().map(|sample| shop.pipeline.batch([&sample]));
    let spawn = |(number, session)| gpu_pipeline::spawn(shop, number, session, sample.clone());
    (0..).zip(sessions).flat_map(spawn).collect()
}

/// Bytes that take this time at so many seconds a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn bytes_within(time: Duration, seconds_per_byte: f64) -> usize {
    (time.as_secs_f64() / seconds_per_byte.max(f64::MIN_POSITIVE)) as usize
}

/// What the model costs on this machine, for the operator.
fn report_costs(shop: &ModelRunner, measured: &Calibration, why_alone: Option<&str>, inline_bytes: usize) {
    let [run, token, square] = measured.cost_model.coefficients();
    shop.metrics.set_costs(measured.cost_model.coefficients());
    tracing::info!(
        model = shop.label,
        run_ms = run * 1e3,
        token_us = token * 1e6,
        token_squared_ns = square * 1e9,
        free_padding_tokens = measured.cost_model.overhead_tokens(),
        shares_runs = !shop.queue.is_batching_disabled(),
        inline_bytes,
        "cost model calibrated"
    );
    if let Some(reason) = why_alone {
        tracing::warn!(model = shop.label, reason, "batching disabled for this model");
    }
}

/// Rounds lengths of runs up, unless golden examples have other answers then.
fn enable_length_padding(
    pipeline: &mut Pipeline,
    sessions: &mut [Box<dyn Session>],
    to: usize,
    (graph, longest): (&str, Duration),
) {
    pipeline.set_pad_multiple(to);
    if let Some(session) = sessions.first_mut()
        && let Err(error) = checks::check_golden(pipeline, session.as_mut(), longest)
    {
        tracing::warn!(graph, %error, "length rounding disabled; golden examples fail with it");
        pipeline.set_pad_multiple(1);
    }
}

pub(super) fn predict_input(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    input: Input,
    longest: Duration,
) -> Result<HeadOutput, String> {
    let encoded = pipeline.encode(input).map_err(|error| error.to_string())?;
    predict_encoded(pipeline, session, &encoded, longest)
}

/// Runs one text by itself and decides.
///
/// # Errors
/// What the runtime says, or why its output cannot be an answer.
pub(crate) fn predict_encoded(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    encoded: &EncodedInput,
    longest: Duration,
) -> Result<HeadOutput, String> {
    let (mut rows, mut chosen) = (Vec::new(), None);
    for batch in pipeline.batches(encoded) {
        let scores = session.run(&batch, Instant::now() + longest).map_err(|error| error.to_string())?;
        rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
        chosen = scores.chosen_labels.first().copied().flatten();
    }
    pipeline.postprocess(encoded, rows, chosen).map_err(|error| error.to_string())
}
