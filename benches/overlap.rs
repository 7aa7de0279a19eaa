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
use predictd::drift;
use predictd::engine::Engine;
use predictd::engine::backend::{Backend, BackendError, Graph, Scores, Session};
use predictd::engine::cache_lookup::CacheMode;
use predictd::engine::execution_group::{ExecutionGroup, GpuOptions};
use predictd::engine::load_context::LoadContext;
use predictd::engine::loaded_version::LoadedVersion;
use predictd::engine::loader::{self, CHECK_RUN_TIMEOUT};
use predictd::engine::model_source::ModelSource;
use predictd::engine::placement_result::Placement;
use predictd::engine::scheduler::BatchingStrategy;
use predictd::engine::scheduler::batch_search::BatchLimits;
use predictd::engine::scheduler_config::SchedulerConfig;
use predictd::engine::tokenization;
use predictd::metrics::Metrics;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{Signature, TokenRole};
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};
use signatures::logits_signature;

#[path = "../tests/it/support/signatures.rs"]
mod signatures;

/// The server's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LABEL_COUNT: usize = 77;
const CLIENT_COUNT: usize = 16;
const TEXTS_PER_REQUEST: usize = 256;
/// Words that are a token each: with the two around them, 16.
const TEXT: &str = "where is my new card which i have asked for on the first day";
const MEASUREMENT_TIME: Duration = Duration::from_secs(3);

/// A GPU that does nothing for as long as a run takes.
#[derive(Clone)]
struct FakeGpu {
    signature: Arc<Signature>,
    run_time: Duration,
    token_time: Duration,
    totals: Arc<Mutex<(Duration, u32, usize)>>,
}

impl Backend for FakeGpu {
    fn open(&self, _: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        Ok(Box::new(self.clone()))
    }

    fn gpu_count(&self) -> usize {
        1
    }
}

impl Graph for FakeGpu {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn placement(&self) -> Placement {
        Placement { gpu_ids: vec![0], ..Placement::default() }
    }

    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for FakeGpu {
    fn run(&mut self, batch: &Batch, _: Instant) -> Result<Scores, BackendError> {
        let begun = Instant::now();
        let shape = batch.shape();
        std::thread::sleep(self.run_time + self.token_time * u32::try_from(shape.token_count()).unwrap_or(u32::MAX));
        let scores =
            Array2::from_shape_fn(
                (shape.rows, LABEL_COUNT),
                |(row, label)| if label == row % LABEL_COUNT { 1.0 } else { 0.0 },
            );
        let mut busy = self.totals.lock();
        *busy = (busy.0 + begun.elapsed(), busy.1 + 1, busy.2 + shape.rows);
        Ok(scores.into())
    }
}

fn new_fake_gpu(start: Duration, token: Duration) -> FakeGpu {
    let inputs = [("input_ids", TokenRole::InputIds), ("attention_mask", TokenRole::AttentionMask)];
    let signature = logits_signature(&inputs, LABEL_COUNT);
    FakeGpu { signature: Arc::new(signature), run_time: start, token_time: token, totals: Arc::default() }
}

fn load_context(runtime: FakeGpu, metrics: Arc<Metrics>) -> LoadContext {
    let caps = BatchLimits { max_rows: 512, max_tokens: 16_384, max_time: 50_000, search_radius: 512 };
    let rules = SchedulerConfig {
        strategy: BatchingStrategy::Window,
        batch_limits: caps,
        worker_count: 1,
        overload_threshold: Duration::from_secs(1),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    LoadContext {
        backend: Arc::new(runtime),
        cpu_group: ExecutionGroup::new_cpu(rules, 0),
        gpu_group: ExecutionGroup::new_gpu(rules, GpuOptions { pad_to_multiple_of: 8, auto_max_tokens: false }),
        tokenizer_pool: tokenization::new_thread_pool(cores).unwrap(),
        check_run_timeout: CHECK_RUN_TIMEOUT,
        text_defaults: TextPolicies { on_overflow: OverflowPolicy::Truncate, markup: MarkupPolicy::Reject },
        drift_settings: drift::WindowSettings::default(),
        metrics,
    }
}

/// The model's files without its golden answers, which this GPU does not give.
fn copy_model_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"] {
        std::fs::copy(format!("models/banking77-minilm/1/{name}"), directory.path().join(name)).unwrap();
    }
    directory
}

async fn run_client(engine: Arc<Engine>, model: Arc<LoadedVersion>) {
    loop {
        let texts = vec![TEXT.to_owned().into(); TEXTS_PER_REQUEST];
        let deadline = Instant::now() + Duration::from_secs(10);
        engine.infer(&model, texts, deadline, CacheMode::default()).await.unwrap();
    }
}

async fn measure(start: Duration, token: Duration) {
    let runtime = new_fake_gpu(start, token);
    let metrics = Arc::new(Metrics::new().unwrap());
    let copy_model_files = copy_model_files();
    let source = ModelSource {
        name: "m".to_owned(),
        version: "1".to_owned(),
        directory: copy_model_files.path().to_owned(),
        registered_hashes: BTreeMap::new(),
    };
    let model = Arc::new(loader::load(&source, &load_context(runtime.clone(), Arc::clone(&metrics))).unwrap());
    let engine = Arc::new(Engine::new(100_000, Duration::from_secs(10), None, metrics));
    let clients: Vec<_> =
        (0..CLIENT_COUNT).map(|_| tokio::spawn(run_client(Arc::clone(&engine), Arc::clone(&model)))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = *runtime.totals.lock();
    let begun = Instant::now();
    tokio::time::sleep(MEASUREMENT_TIME).await;
    let after = *runtime.totals.lock();
    let took = begun.elapsed();
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let busy = after.0.saturating_sub(before.0);
    let runs = after.1 - before.1;
    let texts = after.2 - before.2;
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
