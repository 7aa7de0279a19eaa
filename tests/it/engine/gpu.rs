//! Where models run: what is refused, what falls back, and what is different on a GPU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::Array2;
use parking_lot::Mutex;
use predictd::engine::backend::{Backend, BackendError, Graph, Scores, Session};
use predictd::engine::placement_result::Placement;
use predictd::text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{Signature, TokenRole};
use predictd::text::tensors::Shape;
use serde_json::{Value, json};

use crate::support::answers::label;
use crate::support::daemon::{Daemon, predictd, run_to_exit, serve_command};
use crate::support::daemon_requests::{get_ok, scrape_metrics};
use crate::support::model_builder::onnx_graph::ElementType;
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::ModelServer;
use crate::support::signatures::logits_signature;
use crate::support::test_server::{TestServer, cheap_models};

mod gpu_scheduling;
mod lost_gpu;

/// The GPU build of ONNX Runtime: `deploy/onnxruntime.py --variant cuda --directory target/onnxruntime-cuda`.
const GPU_RUNTIME_DIR: &str = "target/onnxruntime-cuda";

#[test]
fn device_invalid_value_exits_64() {
    let models = cheap_models();
    for (typed, word) in [("gpu", "none of auto, cpu, cuda"), ("cuda:x", "\"x\" is no number of a GPU")] {
        let arguments = ["serve", "--models", models.path().to_str().unwrap(), "--device", typed];
        let (code, said) = run_to_exit(&mut predictd(&arguments));
        assert_eq!((code, said.contains(word)), (64, true), "{said}");
    }
    let (code, said) = run_to_exit(predictd(&["serve"]).env("PREDICTD_DEVICE", "tpu"));
    assert_eq!((code, said.contains("none of auto")), (64, true), "{said}");
}

#[test]
fn device_library_without_cuda_refuses_gpu_serves_cpu() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let (code, said) =
        run_to_exit(&mut serve_command(models.path(), data.path(), &["--device", "cuda", "--log", "off"]));
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("--device cuda:0: this ONNX Runtime has no CUDA provider"), "{said}");
    let daemon = Daemon::start_with(models.path(), data.path(), &["--device", "auto"]);
    let health: Value = get_ok(daemon.address, "/health");
    let model = &health["models"][0];
    assert_eq!((&model["device"], model.get("fallback")), (&json!("cpu"), None));
}

/// The GPU build where there is no GPU; nothing, and a loud word, where this machine is another.
fn gpu_build_without_gpu() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(GPU_RUNTIME_DIR);
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("\n!! SKIPPED: this machine has a GPU; what is said without one is not tested here");
        return None;
    }
    if !directory.is_dir() {
        eprintln!("\n!! SKIPPED: {GPU_RUNTIME_DIR} is not there; `make onnxruntime-cuda` gets it");
        return None;
    }
    Some(directory)
}

#[test]
fn device_named_gpu_missing_exits_64() {
    let Some(library) = gpu_build_without_gpu() else { return };
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let options = ["--onnxruntime", library.to_str().unwrap(), "--device", "cuda", "--log", "off"];
    let (code, said) = run_to_exit(&mut serve_command(models.path(), data.path(), &options));
    assert_eq!(code, 64, "{said}");
    let sentence = said.lines().find(|line| line.starts_with("predictd: ")).unwrap();
    assert!(sentence.starts_with("predictd: --device cuda:0: GPU 0 cannot be used: "), "{said}");
    // Without CUDA's libraries one of those is missing; with them, the driver's.
    assert!(sentence.contains("was not found") && !sentence.contains(GPU_RUNTIME_DIR), "{said}");
}

#[test]
fn device_auto_without_gpu_falls_back_to_cpu() {
    let Some(library) = gpu_build_without_gpu() else { return };
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "a", "1");
    ModelBuilder::plain().manifest_toml("device = \"cpu\"\n").write(models.path(), "b", "1");
    let mut daemon = Daemon::launch(&mut serve_command(
        models.path(),
        data.path(),
        &["--onnxruntime", library.to_str().unwrap(), "--device", "auto"],
    ));
    daemon.wait_for_log("model version loaded");
    daemon.wait_for_log("model version loaded");
    let health: Value = get_ok(daemon.address, "/health");
    let model = &health["models"][0];
    assert_eq!(model["device"], "cpu");
    assert_eq!(health["models"][1].get("fallback"), None, "its manifest names the cores");
    assert!(model["fallback"].as_str().unwrap().contains("was not found"), "{model}");
    assert!(daemon.log().contains("GPU unavailable; models run on the CPU"), "{}", daemon.log());
    let metrics = scrape_metrics(&daemon);
    for (model, fell_back) in [("a", " 1"), ("b", " 0")] {
        let series = format!("predictd_model_device_fallback{{model=\"{model}\"");
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap();
        assert!(line.ends_with(fell_back), "{line}");
    }
}

#[tokio::test]
async fn gpu_half_precision_scores_are_read() {
    let logits = TransformerBuilder::new(&["input_ids"]).logit(&[("input_ids", 0.25)]).logit(&[("input_ids", 0.5)]);
    let served = ModelServer::new(&logits.output_element(ElementType::Float16).model().labels(&["a", "b"])).await;
    // 2 + 10 + 3 = 15: a half and a quarter of it, which float16 holds exactly.
    assert_eq!(served.raw_scores("10").await.0, [3.75, 7.5]);
}

/// Two GPUs that give every text the same scores, or refuse the model, or fail.
#[derive(Default)]
struct FakeGpus {
    /// Why no graph runs there: the reason that the backend gives.
    unsupported_reason: Option<String>,
    /// What every run there fails with.
    run_error: Option<&'static str>,
    /// Nothing may fall back to the CPU.
    required: bool,
    /// The other label answers in runs of this length.
    wrong_at_length: Option<usize>,
    /// Time of a run of several texts.
    run_time: Duration,
    /// Runs of this length fail, once the server has started.
    failing_length: Mutex<Option<usize>>,
    /// Every run fails, once that is so.
    lost: AtomicBool,
    /// There is only one of them.
    single_gpu: bool,
    /// While held, the next run does not end.
    hold: gpu_scheduling::RunHold,
    /// Models in the order of their runs.
    run_models: Mutex<Vec<String>>,
    shapes: Mutex<Vec<Shape>>,
    sessions: Mutex<usize>,
}

#[derive(Clone)]
struct FakeGpuBackend {
    gpus: Arc<FakeGpus>,
    signature: Arc<Signature>,
    on_cpu: bool,
    model: String,
}

impl FakeGpuBackend {
    /// Waits until the three threads that each of so many models has for each GPU have run their sample of 16 tokens.
    async fn wait_until_prepared(&self, models: usize) {
        let sample = Shape { rows: 1, length: 16 };
        let seen = || self.gpus.shapes.lock().iter().filter(|&&shape| shape == sample).count();
        while seen() < 3 * models * self.gpu_count() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Backend for FakeGpuBackend {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let on_cores = manifest.options.device == Some(ModelDevice::Cpu);
        match &self.gpus.unsupported_reason {
            None => {
                let model = manifest.graph_directory.parent().and_then(Path::file_name).unwrap();
                Ok(Box::new(Self { on_cpu: on_cores, model: model.to_str().unwrap().to_owned(), ..self.clone() }))
            }
            Some(sentence) => {
                let error = ManifestError::new("model.onnx", "it does not run on GPU 0: the test asked for it");
                Err(error.with_device_refusal(sentence.clone()))
            }
        }
    }

    fn gpu_count(&self) -> usize {
        if self.gpus.single_gpu { 1 } else { 2 }
    }

    fn requires_gpu(&self) -> bool {
        self.gpus.required
    }
}

impl Graph for FakeGpuBackend {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn placement(&self) -> Placement {
        let gpus: Vec<u32> = if self.on_cpu { Vec::new() } else { (0..).take(self.gpu_count()).collect() };
        Placement { gpu_ids: gpus, ..Placement::default() }
    }

    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        *self.gpus.sessions.lock() += 1;
        Ok(Box::new(self.clone()))
    }
}

impl Session for FakeGpuBackend {
    fn run(&mut self, batch: &Batch, _: Instant) -> Result<Scores, BackendError> {
        if let Some(reason) = self.gpus.run_error.filter(|_| !self.on_cpu) {
            return Err(BackendError::Failed(reason.to_owned()));
        }
        let shape = batch.shape();
        if self.gpus.lost.load(Ordering::Relaxed) || *self.gpus.failing_length.lock() == Some(shape.length) {
            return Err(BackendError::Failed("CUDA failure 700: an illegal memory access".to_owned()));
        }
        self.gpus.shapes.lock().push(shape);
        self.gpus.run_models.lock().push(self.model.clone());
        self.gpus.hold.wait_if_held();
        if shape.rows > 1 {
            std::thread::sleep(self.gpus.run_time);
        }
        let first = usize::from(self.gpus.wrong_at_length == Some(shape.length));
        Ok(Array2::from_shape_fn((shape.rows, 2), |(_, column)| if column == first { 1.0 } else { 0.0 }).into())
    }
}

fn fake_gpu_backend(gpus: FakeGpus) -> FakeGpuBackend {
    let inputs = [("input_ids", TokenRole::InputIds), ("attention_mask", TokenRole::AttentionMask)];
    let signature = logits_signature(&inputs, 2);
    FakeGpuBackend { gpus: Arc::new(gpus), signature: Arc::new(signature), on_cpu: false, model: String::new() }
}

/// How a server ends that is to run this model on these GPUs.
async fn start_error(model: ModelBuilder, gpus: FakeGpus) -> String {
    let models = tempfile::tempdir().unwrap();
    model.write(models.path(), "m", "1");
    let server = TestServer::launch(models.path(), &["--device", "cuda:0,1"], |settings| {
        predictd::Server::with_runtime(settings, Arc::new(fake_gpu_backend(gpus)))
    });
    match server.task.await.unwrap().unwrap_err() {
        predictd::ServerError::Configuration(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn gpu_has_one_session_large_batches_padded_to_eights() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus::default());
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &["--workers", "4"]).await;
    assert_eq!(*runtime.gpus.sessions.lock(), 2, "one for each GPU, none beside them");
    assert_eq!(server.health().await.models[0].device.as_deref(), Some("cuda:0,1"));
    let largest = runtime.gpus.shapes.lock().iter().map(|shape| shape.token_count()).max().unwrap();
    assert!(largest >= 8_192, "the largest run that was measured has {largest} tokens");
    assert_eq!(label(&server.predict("10 20 30").await), "a");
    // Five tokens, which were asked before nowhere; workers may still be at their first runs.
    let shapes = runtime.gpus.shapes.lock().clone();
    let after = shapes.iter().rposition(|shape| shape.token_count() == largest).unwrap();
    assert!(shapes[after..].contains(&Shape { rows: 1, length: 8 }), "{shapes:?}");
}

#[tokio::test]
async fn gpu_named_but_model_unsupported_stops_start() {
    let sentence = "models/m/1 does not run on GPU 0";
    let refused = FakeGpus { unsupported_reason: Some(sentence.to_owned()), ..FakeGpus::default() };
    assert_eq!(start_error(ModelBuilder::plain(), refused).await, format!("--device cuda:0,1: {sentence}"));
}

const OUT_OF_MEMORY_ERROR: &str = "CUDA failure 2: out of memory in /a/secret/place.cc";

#[tokio::test]
async fn gpu_auto_failing_model_falls_back_to_cpu() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus { run_error: Some(OUT_OF_MEMORY_ERROR), ..FakeGpus::default() });
    let server = TestServer::start_on(Arc::new(runtime), models.path(), &[]).await;
    let model = server.health().await.models.swap_remove(0);
    assert_eq!(model.device.as_deref(), Some("cpu"), "{model:?}");
    let reason = "it does not work on cuda:0,1: the warm-up failed: CUDA failure 2: out of memory in place.cc";
    assert_eq!(model.fallback.as_deref(), Some(reason));
    assert_eq!(label(&server.predict("10 20 30").await), "a");
}

#[tokio::test]
async fn gpu_named_failing_model_stops_start() {
    let fails = FakeGpus { run_error: Some(OUT_OF_MEMORY_ERROR), required: true, ..FakeGpus::default() };
    let reason = start_error(ModelBuilder::plain(), fails).await;
    let begin = "--device cuda:0,1: m/1 does not work on cuda:0,1: the warm-up failed: CUDA failure 2";
    assert!(reason.starts_with(begin), "{reason}");
}

#[tokio::test]
async fn gpu_padding_to_eights_is_off_if_golden_answers_change() {
    let models = tempfile::tempdir().unwrap();
    let golden = json!({ "examples": [{ "text": "10 20 30", "label": "a" }] });
    ModelBuilder::plain().file("golden.json", golden.to_string()).write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus { wrong_at_length: Some(8), ..FakeGpus::default() });
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &[]).await;
    runtime.gpus.shapes.lock().clear();
    assert_eq!(label(&server.predict("10 20 30").await), "a");
    let shapes = runtime.gpus.shapes.lock().clone();
    assert!(shapes.contains(&Shape { rows: 1, length: 5 }), "{shapes:?}");
}

#[tokio::test]
async fn gpu_batch_takes_more_texts_than_cpu_search_radius() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus { run_time: Duration::from_millis(30), ..FakeGpus::default() });
    let options = ["--max-batch-time", "10s", "--max-client-batch-size", "1000"];
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &options).await;
    runtime.gpus.shapes.lock().clear();
    let texts = vec!["10 20 30"; 1_000];
    assert_eq!(server.post_json("/batch_predict", json!({ "texts": texts })).await.status, 200);
    let shapes = runtime.gpus.shapes.lock().clone();
    assert!(shapes.iter().any(|shape| shape.rows > 129 && shape.length == 8), "{shapes:?}");
}

#[tokio::test]
async fn gpu_batch_limits_count_padding() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus { run_time: Duration::from_millis(10), ..FakeGpus::default() });
    let options = ["--max-batch-time", "10s", "--max-batch-tokens", "80"];
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &options).await;
    runtime.gpus.shapes.lock().clear();
    // Sixteen of them have 80 tokens, and 128 with their padding.
    let texts = vec!["10 20 30"; 120];
    assert_eq!(server.post_json("/batch_predict", json!({ "texts": texts })).await.status, 200);
    let shapes = runtime.gpus.shapes.lock().clone();
    assert_eq!(shapes.iter().map(|shape| shape.token_count()).max(), Some(80), "{shapes:?}");
}

#[tokio::test]
async fn gpu_model_manifest_may_force_cpu_only() {
    let served = ModelServer::new(&ModelBuilder::plain().manifest_toml("device = \"cpu\"\n")).await;
    assert_eq!(label(&served.predict("10").await), "a");
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().manifest_toml("device = \"cuda\"\n").write(models.path(), "m", "1");
    let error = Manifest::load(&models.path().join("m/1")).unwrap_err().to_string();
    assert!(error.contains("model.toml") && error.contains("cuda"), "{error}");
}
