//! ONNX Runtime: the only module that imports `ort`.
//!
//! The library is loaded at run time. One environment serves the process; its telemetry is
//! off. Sessions of one graph share their weights: ONNX Runtime shares packed weights only
//! between sessions that were also given the same initializers, so both are handed to each.

mod facts;
mod inputs;
mod library;
mod messages;
mod outlets;
mod protobuf;
mod watchdog;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ndarray::Array2;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::RunOptions;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::DynValue;
use parking_lot::Mutex;

use crate::engine::session::{Graph, GraphFacts, RunError, Runtime, Scores, Session};
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::pipeline::Batch;
use crate::text::signature::{GraphInput, ScoreKind, Signature};
use crate::text::tensors::TokenBatch;
use inputs::inputs;
use messages::{explain, log, short};
use outlets::{Choice, Output, choice_output, graph_input, maps, scores_output};
use watchdog::{Stop, UnderWay, Watchdog};
use weights::{read_external, shared_tensors};

/// Operators that measure a whole batch to scale it: a text's scores then depend on its neighbours.
const BATCH_DEPENDENT: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"];

/// A run of more padded tokens than this gives its memory back: attention needs memory by the
/// square of the length, and every session would keep that of the longest text it ever saw.
const OUTLIER_TOKENS: usize = 256;
/// Time to make one session of a graph.
const LONGEST_LOAD: Duration = Duration::from_mins(2);
/// Time of the run that finds how many scores a graph gives.
const LONGEST_PROBE: Duration = Duration::from_secs(10);

/// ONNX Runtime allows one environment per process, ever.
static ENVIRONMENT: OnceLock<(Environment, Arc<Watchdog>)> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// The loaded library.
pub struct OnnxRuntime {
    environment: Environment,
    under_way: UnderWay,
    share_weights: bool,
    threads: usize,
    spin: bool,
}

impl OnnxRuntime {
    /// Finds and loads the library, with telemetry and chatter off.
    ///
    /// # Errors
    /// One sentence that names the library, what is wrong with it, and the cure.
    pub fn start(named: Option<&Path>) -> Result<Self, String> {
        let _one_at_a_time = STARTING.lock();
        if let Some((environment, watchdog)) = ENVIRONMENT.get() {
            return Ok(Self::of(environment, watchdog));
        }
        let path = library::find(named)?;
        let unusable =
            |reason: &str| format!("{} cannot be used as ONNX Runtime ({reason}): {}", path.display(), library::REMEDY);
        let builder = ort::init_from(&path).map_err(|error| unusable(&error.to_string()))?;
        let environment = builder
            .with_name("predictd")
            .with_telemetry(false)
            .with_logger(Arc::new(|level, _, _, _, message| log(level, message)))
            .build()
            .map_err(|error| unusable(&error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        tracing::info!(library = %path.display(), "ONNX Runtime is loaded");
        let watchdog = Watchdog::start().map_err(|error| format!("no thread could be started: {error}"))?;
        let (environment, watchdog) = ENVIRONMENT.get_or_init(|| (environment, watchdog));
        Ok(Self::of(environment, watchdog))
    }

    fn of(environment: &Environment, watchdog: &Arc<Watchdog>) -> Self {
        Self {
            environment: environment.clone(),
            under_way: UnderWay::new(watchdog),
            share_weights: true,
            threads: 1,
            spin: false,
        }
    }

    /// The same runtime with so many threads for each run, which may wait busily for the next.
    #[must_use]
    pub fn with_threads(mut self, threads: usize, spin: bool) -> Self {
        (self.threads, self.spin) = (threads, spin);
        self
    }

    /// The same runtime with weights of its own for every session: for measuring what sharing saves.
    #[must_use]
    pub fn without_shared_weights(mut self) -> Self {
        self.share_weights = false;
        self
    }
}

impl Runtime for OnnxRuntime {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let bytes = std::mem::take(&mut manifest.graph);
        let name = manifest.graph_name.clone();
        let error = |reason: String| ManifestError::new(&name, reason);
        let scan = protobuf::scan(&bytes).map_err(|e| error(e.to_string()))?;
        let external = read_external(&scan.external, manifest)?;
        let initializers =
            if self.share_weights { shared_tensors(&scan).map_err(|e| error(e.to_string()))? } else { Vec::new() };
        let mut facts = facts::of_file(&scan, &BATCH_DEPENDENT);
        let batch_dependent = !facts.batch_dependent.is_empty();
        let (mut labels, mut numbers) = (scan.class_labels.clone(), scan.class_numbers.clone());
        let mut weights = Weights {
            environment: self.environment.clone(),
            under_way: self.under_way.clone(),
            threads: self.threads,
            spin: self.spin,
            prepacked: self.share_weights.then(PrepackedWeights::new),
            initializers,
            external,
            bytes: Vec::new(),
        };
        weights.bytes = bytes;
        let mut first = weights.session().map_err(|e| error(explain(&e)))?;
        facts.inputs = facts::ports(first.inputs());
        facts.outputs = facts::ports(first.outputs());
        let input = graph_input(first.inputs()).map_err(error)?;
        let scores = scores_output(first.outputs(), &input).map_err(error)?;
        // A map's scores come in the order of its keys, which need not be that of the graph.
        if matches!(scores.output, Output::Maps(..)) {
            labels.sort_unstable();
            numbers.sort_unstable();
        }
        let choice = choice_output(first.outputs(), &input);
        let many_labels = choice.as_ref().is_some_and(|choice| choice.many);
        // A graph that names no classes chooses among those of labels.json.
        let names = if labels.is_empty() { manifest.labels.clone().unwrap_or_default() } else { labels.clone() };
        let choice = choice.filter(|choice| !choice.many).map(|output| Choice { output, names, numbers });
        let mut session = OnnxSession {
            one_thread: self.threads == 1,
            input: input.clone(),
            output: scores.output,
            choice,
            width: scores.width.unwrap_or(0),
            per_token: scores.kind == ScoreKind::TokenLogits,
            under_way: self.under_way.clone(),
            session: first,
        };
        let width = match scores.width {
            Some(width) => width,
            None => session.probe().map_err(|e| error(format!("a first run failed: {e}")))?,
        };
        session.width = width;
        first = session.session;
        let labels = Some(labels).filter(|labels| !labels.is_empty());
        let signature = Signature { input, scores: scores.kind, width, batch_dependent, labels, many_labels };
        let (output, choice) = (session.output, session.choice);
        Ok(Box::new(OnnxGraph { weights, signature, facts, output, choice, name, first: Some(first) }))
    }

    fn device(&self) -> &'static str {
        "cpu"
    }

    fn end(&self, until: Instant) {
        self.under_way.end(until);
    }
}

/// What sessions of one graph are made from.
struct Weights {
    environment: Environment,
    under_way: UnderWay,
    bytes: Vec<u8>,
    initializers: Vec<(String, Arc<DynValue>)>,
    external: BTreeMap<String, Arc<[u8]>>,
    prepacked: Option<PrepackedWeights>,
    threads: usize,
    spin: bool,
}

impl Weights {
    fn session(&self) -> ort::Result<ort::session::Session> {
        if self.under_way.has_ended() {
            return Err(ort::Error::new("the server stops"));
        }
        let mut builder = self.options()?;
        for (name, tensor) in &self.initializers {
            builder = builder.with_initializer(name, Arc::clone(tensor))?;
        }
        for (file, content) in &self.external {
            builder = builder.with_external_initializer_file_in_memory(file, Arc::clone(content))?;
        }
        if let Some(prepacked) = &self.prepacked {
            builder = builder.with_prepacked_weights(prepacked)?;
        }
        let _watch = self.under_way.watch(Instant::now() + LONGEST_LOAD, Stop::Load(builder.canceler()));
        builder.commit_from_memory(&self.bytes)
    }

    /// One thread, which is the worker's own, and no spinning unless asked for; warnings only (a session that logs
    /// more formats every message of every run, which costs 0.1 ms a run).
    fn options(&self) -> ort::Result<SessionBuilder> {
        Ok(ort::session::Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(self.spin)?
            .with_log_level(LogLevel::Warning)?
            .with_flush_to_zero()?)
    }
}

struct OnnxGraph {
    weights: Weights,
    signature: Signature,
    facts: GraphFacts,
    output: Output,
    choice: Option<Choice>,
    name: String,
    first: Option<ort::session::Session>,
}

impl Graph for OnnxGraph {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn facts(&self) -> GraphFacts {
        self.facts.clone()
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        let session = match self.first.take() {
            Some(first) => first,
            None => self.weights.session().map_err(|e| ManifestError::new(&self.name, explain(&e)))?,
        };
        Ok(Box::new(OnnxSession {
            one_thread: self.weights.threads == 1,
            session,
            input: self.signature.input.clone(),
            output: self.output.clone(),
            choice: self.choice.clone(),
            width: self.signature.width,
            per_token: self.signature.scores == ScoreKind::TokenLogits,
            under_way: self.weights.under_way.clone(),
        }))
    }
}

struct OnnxSession {
    one_thread: bool,
    session: ort::session::Session,
    input: GraphInput,
    output: Output,
    choice: Option<Choice>,
    /// Scores of a text, or of each of its tokens.
    width: usize,
    per_token: bool,
    under_way: UnderWay,
}

impl Session for OnnxSession {
    fn runs_here(&self) -> bool {
        self.one_thread
    }

    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        let scores = self.run_unchecked(batch, deadline)?;
        let shape = || scores.values.shape().iter().map(|&n| i64::try_from(n).unwrap_or(-1)).collect();
        let width = if self.per_token { self.width * batch.shape().length } else { self.width };
        if scores.values.dim() == (batch.rows(), width) {
            Ok(scores)
        } else {
            Err(RunError::Shape { rows: batch.rows(), width, found: shape() })
        }
    }
}

impl OnnxSession {
    fn run_unchecked(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, RunError> {
        if self.under_way.has_ended() {
            return Err(RunError::Interrupted);
        }
        let failed = |error: ort::Error| RunError::Failed(short(error.message()).to_owned());
        let inputs = inputs(&self.input, batch).map_err(failed)?;
        let (Output::Tensor(name) | Output::Maps(name, _)) = &self.output;
        let mut options = RunOptions::new().map_err(failed)?;
        if let Batch::Tokens(tokens) = batch
            && tokens.rows * tokens.length > OUTLIER_TOKENS
        {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
        }
        let options = Arc::new(options);
        let watch = self.under_way.watch(deadline, Stop::Run(Arc::clone(&options)));
        let outputs = self.session.run_with_options(inputs, &options);
        let outputs =
            outputs.map_err(|error| if watch.was_stopped() { RunError::Interrupted } else { failed(error) })?;
        drop(watch);
        let value = outputs.get(name).ok_or_else(|| RunError::Failed(format!("the run gave no output {name}")))?;
        let values = match &self.output {
            Output::Tensor(_) => {
                let (shape, data) = value.try_extract_tensor::<f32>().map_err(failed)?;
                let wrong = || RunError::Shape { rows: batch.rows(), width: self.width, found: shape.to_vec() };
                // The scores of a text's tokens stand in one row.
                let (rows, width) = match shape[..] {
                    [rows, width] => (rows, width),
                    [rows, tokens, width] if self.per_token => (rows, tokens.saturating_mul(width)),
                    _ => return Err(wrong()),
                };
                let dims = (usize::try_from(rows).map_err(|_| wrong())?, usize::try_from(width).map_err(|_| wrong())?);
                Array2::from_shape_vec(dims, data.to_vec()).map_err(|_| wrong())?
            }
            Output::Maps(_, named) => maps(value, *named).map_err(failed)?,
        };
        match &self.choice {
            Some(choice) => Ok(Scores { chosen: choice.read(&outputs).map_err(failed)?, values }),
            None => Ok(values.into()),
        }
    }

    /// The number of scores, for a graph that leaves it open.
    fn probe(&mut self) -> Result<usize, RunError> {
        let batch = match &self.input {
            GraphInput::Texts { .. } => Batch::Texts(vec!["one short text".to_owned()]),
            GraphInput::Tokens(_) => {
                let one = || vec![1_i64];
                Batch::Tokens(TokenBatch {
                    rows: 1,
                    length: 1,
                    input_ids: one(),
                    attention_mask: one(),
                    token_type_ids: vec![0],
                    position_ids: vec![0],
                })
            }
        };
        Ok(self.run_unchecked(&batch, Instant::now() + LONGEST_PROBE)?.values.ncols())
    }
}
