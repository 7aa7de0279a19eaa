//! How much of the time a GPU is busy, and not waiting for the server: with a made-up GPU, whose runs take as long as told
//! and no processor. What a real one would show beside that is `benches/gpu`.
//!
//! `cargo bench --bench overlap`: texts of 16 tokens in requests of 256, by 16 clients in this process; the share of the
//! time in which a run is under way, for runs of a few lengths.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use parking_lot::Mutex;
use predictd::config::{Markup, OnOverflow, TextDefaults};
use predictd::drift;
use predictd::engine::Engine;
use predictd::engine::batching::Policy;
use predictd::engine::batching::window::Caps;
use predictd::engine::encoding;
use predictd::engine::lane::{GpuRules, Lane};
use predictd::engine::loading::{Host, LONGEST_CHECK, ModelSource};
use predictd::engine::lookup::CacheUse;
use predictd::engine::model::Model;
use predictd::engine::placement::Placement;
use predictd::engine::queue::Rules;
use predictd::engine::session::{Graph, RunError, Runtime, Scores, Session};
use predictd::metrics::Metrics;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{FixedAxes, GraphInput, IntegerWidth, ScoreKind, Signature, TokenInput, TokenRole};

/// The server's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LABELS: usize = 77;
const CLIENTS: usize = 16;
const TEXTS: usize = 256;
/// Words that are a token each: with the two around them, 16.
const TEXT: &str = "where is my new card which i have asked for on the first day";
const MEASURED: Duration = Duration::from_secs(3);

/// A GPU that does nothing for as long as a run takes.
#[derive(Clone)]
struct MadeUp {
    signature: Arc<Signature>,
    start: Duration,
    token: Duration,
    busy: Arc<Mutex<(Duration, u32, usize)>>,
}

impl Runtime for MadeUp {
    fn open(&self, _: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        Ok(Box::new(self.clone()))
    }

    fn gpus(&self) -> usize {
        1
    }
}

impl Graph for MadeUp {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn placement(&self) -> Placement {
        Placement { gpus: vec![0], ..Placement::default() }
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for MadeUp {
    fn run(&mut self, batch: &Batch, _: Instant) -> Result<Scores, RunError> {
        let (begun, shape) = (Instant::now(), batch.shape());
        std::thread::sleep(self.start + self.token * u32::try_from(shape.tokens()).unwrap_or(u32::MAX));
        let scores =
            Array2::from_shape_fn((shape.rows, LABELS), |(row, label)| if label == row % LABELS { 1.0 } else { 0.0 });
        let mut busy = self.busy.lock();
        *busy = (busy.0 + begun.elapsed(), busy.1 + 1, busy.2 + shape.rows);
        Ok(scores.into())
    }
}

fn made_up(start: Duration, token: Duration) -> MadeUp {
    let input = |name: &str, role| TokenInput { name: name.to_owned(), role, width: IntegerWidth::Bits64 };
    let inputs = vec![input("input_ids", TokenRole::InputIds), input("attention_mask", TokenRole::AttentionMask)];
    let signature = Signature {
        input: GraphInput::Tokens(inputs),
        fixed: FixedAxes::default(),
        output: "logits".to_owned(),
        scores: ScoreKind::Logits,
        per_token: false,
        applied: None,
        embedding_rows: None,
        width: LABELS,
        batch_dependent: false,
        labels: None,
        many_labels: false,
    };
    MadeUp { signature: Arc::new(signature), start, token, busy: Arc::default() }
}

fn host(runtime: MadeUp, metrics: Arc<Metrics>) -> Host {
    let caps = Caps { rows: 512, tokens: 16_384, time: 50_000, reach: 512 };
    let rules = Rules { policy: Policy::Window, caps, workers: 1, patience: Duration::from_secs(1) };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Host {
        runtime: Arc::new(runtime),
        cores: Lane::of_cores(rules, 0),
        gpus: Lane::of_gpus(rules, GpuRules { pad_to: 8, fit_tokens: false }),
        tokenizers: encoding::pool(cores).unwrap(),
        longest_check: LONGEST_CHECK,
        texts: TextDefaults { on_overflow: OnOverflow::Truncate, markup: Markup::Reject },
        drift: drift::Settings::default(),
        metrics,
    }
}

/// The model's files without its golden answers, which this GPU does not give.
fn files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"] {
        std::fs::copy(format!("models/banking77-minilm/1/{name}"), directory.path().join(name)).unwrap();
    }
    directory
}

async fn measure(start: Duration, token: Duration) {
    let (runtime, metrics, files) = (made_up(start, token), Arc::new(Metrics::new().unwrap()), files());
    let source = ModelSource {
        name: "m".to_owned(),
        version: "1".to_owned(),
        directory: files.path().to_owned(),
        registered: BTreeMap::new(),
    };
    let model = Arc::new(Model::load(&source, &host(runtime.clone(), Arc::clone(&metrics))).unwrap());
    let engine = Arc::new(Engine::new(100_000, Duration::from_secs(10), None, metrics));
    let client = || {
        let (engine, model) = (Arc::clone(&engine), Arc::clone(&model));
        tokio::spawn(async move {
            loop {
                let texts = vec![TEXT.to_owned().into(); TEXTS];
                let deadline = Instant::now() + Duration::from_secs(10);
                engine.predict(&model, texts, deadline, CacheUse::default()).await.unwrap();
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, begun) = (*runtime.busy.lock(), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (after, took) = (*runtime.busy.lock(), begun.elapsed());
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let (busy, runs, texts) = (after.0.saturating_sub(before.0), after.1 - before.1, after.2 - before.2);
    let idle = (took.saturating_sub(busy)) / runs.max(1);
    println!(
        "a run of 512 x 16 takes {:>5.1} ms: busy {:>5.1} % of the time, {:>4.2} ms between runs, {} texts a run, {:.0} texts/s",
        (start + token * 512 * 16).as_secs_f64() * 1e3,
        100.0 * busy.as_secs_f64() / took.as_secs_f64(),
        idle.as_secs_f64() * 1e3,
        texts / usize::try_from(runs.max(1)).unwrap(),
        f64::from(u32::try_from(texts).unwrap()) / took.as_secs_f64(),
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for nanoseconds in [1_100, 2_400, 4_900] {
        runtime.block_on(measure(Duration::from_millis(1), Duration::from_nanos(nanoseconds)));
    }
}
