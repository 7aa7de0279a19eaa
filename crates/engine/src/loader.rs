//! How a model version comes into service: read, checked against its golden examples, measured, given its threads.

mod checks;
mod cpu_retry;
mod mlflow_checks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::pipeline::Pipeline;

use super::backend::{Graph, Session};
use super::calibration::{Calibration, CalibrationConfig, calibrate, inline_tokenize_bytes};
use super::drift_monitor::{DriftMonitor, PROFILE_MISMATCH_WARNING};
use super::execution_group::ExecutionGroup;
use super::gpu_pipeline;
use super::group_permits::GroupPermits;
use super::load_context::LoadContext;
use super::loaded_version::LoadedVersion;
use super::model_runner::ModelRunner;
use super::model_source::ModelSource;
use super::queue::Queue;
use super::scheduler::BatchingStrategy;
use super::scheduler_config::SchedulerConfig;
use super::session_recycler::SessionRecycler;
use super::trial_session::TrialSession;
use super::worker;
use checks::{check_golden, check_max_length, run_load_checks, warm_up, warm_up_error};
use cpu_retry::{OpenedModel, load_with_cpu_fallback};

/// A model that answers a short text faster than this does not queue: handing the text to
/// another thread costs 10 to 40 µs each way, about as much as the run.
const INLINE_MODEL_RUN_TIME: Duration = Duration::from_micros(150);
/// Time of one run while a model is checked: one that takes longer cannot serve.
pub const CHECK_RUN_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads so far.
static NEXT_LOAD_ID: AtomicU64 = AtomicU64::new(0);

/// Loads a model version onto the devices of its execution group.
struct Loader<'a> {
    source: &'a ModelSource,
    context: &'a LoadContext,
    group: &'a ExecutionGroup,
}

/// What the checks and the measurement of a model found.
struct CheckedModel {
    /// Why texts do not share runs, if so.
    unbatchable_reason: Option<&'static str>,
    calibration: Calibration,
    scheduler_config: SchedulerConfig,
    /// Most bytes of text that are tokenised on an async thread.
    inline_tokenize_bytes: usize,
}

/// Reads, checks, opens and measures a model, and starts its workers.
///
/// # Errors
/// [`ManifestError`] naming the file and what is wrong with it.
pub fn load(source: &ModelSource, context: &LoadContext) -> Result<LoadedVersion, ManifestError> {
    load_with_cpu_fallback(source, context, |opened| {
        let group = if opened.placement.is_gpu() { &context.gpu_group } else { &context.cpu_group };
        Loader { source, context, group }.start(opened)
    })
}

/// Reads and checks a model, and drops it.
///
/// # Errors
/// As [`load`].
pub fn verify(source: &ModelSource, context: &LoadContext) -> Result<(), ManifestError> {
    let run_timeout = context.check_run_timeout;
    load_with_cpu_fallback(source, context, |mut opened| {
        let mut session = opened.graph.create_session()?;
        let session = session.as_mut();
        run_load_checks(&mut opened, session, run_timeout)?;
        let OpenedModel { manifest, pipeline, .. } = &opened;
        check_max_length(&mut TrialSession { pipeline, session, run_timeout }, manifest)
    })
}

impl Loader<'_> {
    /// Checks and measures what was opened, and starts its workers.
    fn start(&self, mut opened: OpenedModel) -> Result<LoadedVersion, ManifestError> {
        let mut sessions = self.open_sessions(opened.graph.as_mut())?;
        let warm_up_start = Instant::now();
        let checked = self.check_and_calibrate(&mut opened, &mut sessions)?;
        let OpenedModel { load_start, mut manifest, mut graph, pipeline, placement, drift } = opened;
        let is_batch_dependent = graph.signature().batch_dependent;
        let runner = self.build_runner(pipeline, &checked);
        let drift_monitor = (manifest.profile.take().zip(drift))
            .map(|(profile, drift)| DriftMonitor::new(profile, drift, self.source, &runner.metrics));
        self.log_file_warnings(&manifest, &runner.pipeline);
        report_costs(&runner, &checked);
        let warm_up_time = warm_up_start.elapsed();
        // A GPU has one session: a second one would only wait for it, and take memory.
        let runs_inline = checked.calibration.short_item_time <= INLINE_MODEL_RUN_TIME && self.group.gpu.is_none();
        let inline_sessions = if runs_inline { self.open_sessions(graph.as_mut())? } else { Vec::new() };
        let express_session = self.open_express_session(graph.as_mut(), &runner, &manifest)?;
        let recycler = SessionRecycler::new(graph, self.group.runs_per_session);
        let workers = self.spawn_workers(&runner, sessions, express_session, recycler.as_ref());
        if workers.is_err() {
            runner.queue.close();
        }
        runner.metrics.record_load(load_start.elapsed(), warm_up_time);
        Ok(LoadedVersion {
            name: self.source.name.clone(),
            version: self.source.version.clone(),
            description: manifest.options.description.take(),
            placement,
            is_batch_dependent,
            run_memory_bytes: checked.calibration.run_memory_bytes,
            unbatchable_reason: checked.unbatchable_reason,
            runner,
            drift_monitor,
            wait_estimator: Arc::clone(&self.group.wait_estimator),
            tokenizer_pool: Arc::clone(&self.context.tokenizer_pool),
            inline_tokenize_bytes: checked.inline_tokenize_bytes,
            inline_sessions: inline_sessions.into_iter().map(Mutex::new).collect(),
            inline_cooldown_until: Mutex::default(),
            workers: workers?,
        })
    }

    /// A session for each worker.
    fn open_sessions(&self, graph: &mut dyn Graph) -> Result<Vec<Box<dyn Session>>, ManifestError> {
        (0..self.group.scheduler_config.worker_count.max(1)).map(|_| graph.create_session()).collect()
    }

    /// Checks what the model's files say, measures its runs, and settles how its texts share them.
    fn check_and_calibrate(
        &self,
        opened: &mut OpenedModel,
        sessions: &mut [Box<dyn Session>],
    ) -> Result<CheckedModel, ManifestError> {
        let run_timeout = self.context.check_run_timeout;
        let first = sessions
            .first_mut()
            .ok_or_else(|| ManifestError::new(&opened.manifest.graph_name, "no session could be made"))?;
        let unbatchable_reason = run_load_checks(opened, first.as_mut(), run_timeout)?;
        let batch_limits = self.group.scheduler_config.batch_limits;
        let is_batchable = unbatchable_reason.is_none();
        let config = CalibrationConfig { batch_limits, is_batchable, is_gpu: self.group.gpu.is_some() };
        let mut trials = self.trials(&opened.pipeline, sessions);
        let calibration = calibrate(&mut trials, config).or_else(|reason| {
            trials.first_mut().map_or(Ok(()), |trial| check_max_length(trial, &opened.manifest))?;
            Err(warm_up_error(&opened.manifest, reason))
        })?;
        let mut scheduler_config = self.group.scheduler_config;
        if let Some(gpu) = self.group.gpu {
            if is_batchable {
                // Only what padding does not change is padded.
                self.enable_length_padding(opened, sessions, gpu.pad_to_multiple_of);
            }
            if gpu.auto_max_tokens {
                let limits = &mut scheduler_config.batch_limits;
                limits.max_tokens = calibration.cost_model.saturation_tokens(limits.max_tokens);
            }
        }
        let inline_tokenize_bytes = inline_tokenize_bytes(&opened.pipeline);
        Ok(CheckedModel { unbatchable_reason, calibration, scheduler_config, inline_tokenize_bytes })
    }

    /// A session for each worker, on trial.
    fn trials<'b>(&self, pipeline: &'b Pipeline, sessions: &'b mut [Box<dyn Session>]) -> Vec<TrialSession<'b>> {
        let run_timeout = self.context.check_run_timeout;
        sessions.iter_mut().map(|session| TrialSession { pipeline, session: session.as_mut(), run_timeout }).collect()
    }

    /// Rounds lengths of runs up, unless golden examples have other answers then.
    fn enable_length_padding(&self, opened: &mut OpenedModel, sessions: &mut [Box<dyn Session>], multiple: usize) {
        opened.pipeline.set_pad_multiple(multiple);
        let mut trials = self.trials(&opened.pipeline, sessions);
        if let Err(error) = trials.first_mut().map_or(Ok(()), check_golden) {
            let graph = opened.manifest.graph_name.as_str();
            tracing::warn!(graph, %error, "length rounding disabled; golden examples fail with it");
            opened.pipeline.set_pad_multiple(1);
        }
    }

    /// What the model's workers share.
    fn build_runner(&self, pipeline: Pipeline, checked: &CheckedModel) -> Arc<ModelRunner> {
        let CheckedModel { scheduler_config, calibration, unbatchable_reason, .. } = checked;
        let fills_batches = self.group.gpu.is_some()
            && unbatchable_reason.is_none()
            && scheduler_config.strategy == BatchingStrategy::Window;
        let full_batch_rows = fills_batches.then_some(scheduler_config.batch_limits.max_rows);
        let model_load = self.group.wait_estimator.register(calibration.cost_model, full_batch_rows);
        let permits = self.group.permits.clone();
        let queue =
            Queue::new(*scheduler_config, Arc::clone(&model_load), permits.clone(), unbatchable_reason.is_some());
        Arc::new(ModelRunner {
            load_id: NEXT_LOAD_ID.fetch_add(1, Ordering::Relaxed),
            label: format!("{}/{}", self.source.name, self.source.version),
            pipeline,
            queue,
            permits,
            is_on_gpu: self.group.gpu.is_some(),
            gpu_failure: self.group.gpu_failure.clone(),
            model_load,
            metrics: self.context.metrics.model(&self.source.name, &self.source.version),
            server_metrics: Arc::clone(&self.context.metrics),
        })
    }

    /// Tells the operator what keeps no model from serving.
    fn log_file_warnings(&self, manifest: &Manifest, pipeline: &Pipeline) {
        let mismatch = manifest.profile_graph_differs.then_some(PROFILE_MISMATCH_WARNING);
        for warning in mismatch.into_iter().chain(pipeline.warnings.iter().map(String::as_str)) {
            tracing::warn!(model = self.source.name, version = self.source.version, "{warning}");
        }
    }

    /// The session of the express worker, on the cores.
    fn open_express_session(
        &self,
        graph: &mut dyn Graph,
        runner: &ModelRunner,
        manifest: &Manifest,
    ) -> Result<Option<Box<dyn Session>>, ManifestError> {
        if self.group.scheduler_config.strategy != BatchingStrategy::Window || self.group.gpu.is_some() {
            return Ok(None);
        }
        let mut session = graph.create_session()?;
        let run_timeout = self.context.check_run_timeout;
        let mut trial = TrialSession { pipeline: &runner.pipeline, session: session.as_mut(), run_timeout };
        warm_up(&mut trial).map_err(|reason| warm_up_error(manifest, reason))?;
        Ok(Some(session))
    }

    /// The threads that run a model's texts: one for each session on the cores and the express worker, several on a GPU.
    fn spawn_workers(
        &self,
        runner: &Arc<ModelRunner>,
        sessions: Vec<Box<dyn Session>>,
        express_session: Option<Box<dyn Session>>,
        recycler: Option<&SessionRecycler>,
    ) -> Result<Vec<JoinHandle<()>>, ManifestError> {
        let workers: std::io::Result<_> = match &self.group.permits {
            GroupPermits::Gpu(gpus) => gpu_pipeline::spawn(runner, gpus, sessions),
            GroupPermits::Cpu(permits) => {
                let workers = sessions
                    .into_iter()
                    .map(|session| worker::spawn(Arc::clone(runner), Arc::clone(permits), session, recycler.cloned()));
                let express_worker = express_session
                    .map(|session| worker::spawn_express_worker(Arc::clone(runner), Arc::clone(permits), session));
                workers.chain(express_worker).collect()
            }
        };
        workers.map_err(|error| ManifestError::from_io("a worker thread", &error))
    }
}

/// What the model costs on this machine, for the operator.
fn report_costs(runner: &ModelRunner, checked: &CheckedModel) {
    let cost_model = checked.calibration.cost_model;
    let [overhead, token, square] = cost_model.coefficients();
    runner.metrics.set_costs(cost_model.coefficients());
    tracing::info!(
        model = runner.label,
        overhead_ms = overhead * 1e3,
        token_us = token * 1e6,
        token_squared_ns = square * 1e9,
        free_padding_tokens = cost_model.overhead_tokens(),
        batching_enabled = !runner.queue.is_batching_disabled(),
        inline_tokenize_bytes = checked.inline_tokenize_bytes,
        "cost model calibrated"
    );
    if let Some(reason) = checked.unbatchable_reason {
        tracing::warn!(model = runner.label, reason, "batching disabled for this model");
    }
}
