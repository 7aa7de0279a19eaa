//! Where models run: what is refused, what falls back, and what is different on a GPU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::Array2;
use parking_lot::Mutex;
use predictd::engine::placement::Placement;
use predictd::engine::session::{Graph, RunError, Runtime, Scores, Session};
use predictd::text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{FixedAxes, GraphInput, IntegerWidth, ScoreKind, Signature, TokenInput, TokenRole};
use predictd::text::tensors::Shape;
use serde_json::json;

use crate::daemon::{Daemon, ends, predictd, serving};
use crate::fixture::onnx::Element;
use crate::fixture::served::Served;
use crate::fixture::{Model, Transformer};
use crate::server::{TestServer, cheap_models};

mod lost;
mod turns;

/// The GPU build of ONNX Runtime: `deploy/onnxruntime.py --variant cuda --directory target/onnxruntime-cuda`.
const GPU_BUILD: &str = "target/onnxruntime-cuda";

#[test]
fn what_is_no_device_is_64() {
    let models = cheap_models();
    for (typed, word) in [("gpu", "none of auto, cpu, cuda"), ("cuda:x", "\"x\" is no number of a GPU")] {
        let arguments = ["serve", "--models", models.path().to_str().unwrap(), "--device", typed];
        let (code, said) = ends(&mut predictd(&arguments));
        assert_eq!((code, said.contains(word)), (64, true), "{said}");
    }
    let (code, said) = ends(predictd(&["serve"]).env("PREDICTD_DEVICE", "tpu"));
    assert_eq!((code, said.contains("none of auto")), (64, true), "{said}");
}

#[test]
fn a_library_without_cuda_refuses_a_gpu_and_serves_on_cores() {
    let (models, data) = (cheap_models(), tempfile::tempdir().unwrap());
    let (code, said) = ends(&mut serving(models.path(), data.path(), &["--device", "cuda", "--log", "off"]));
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("--device cuda:0: this ONNX Runtime has no CUDA provider"), "{said}");
    let daemon = Daemon::with(models.path(), data.path(), &["--device", "auto"]);
    let health = daemon.ask("GET", "/health", "");
    assert_eq!((&health["models"][0]["device"], health["models"][0].get("fallback")), (&json!("cpu"), None));
}

/// The GPU build where there is no GPU; nothing, and a loud word, where this machine is another.
fn gpu_build_without_gpu() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(GPU_BUILD);
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("\n!! SKIPPED: this machine has a GPU; what is said without one is not tested here");
        return None;
    }
    if !directory.is_dir() {
        eprintln!("\n!! SKIPPED: {GPU_BUILD} is not there; `make onnxruntime-cuda` gets it");
        return None;
    }
    Some(directory)
}

#[test]
fn a_named_gpu_that_is_not_there_is_64() {
    let Some(library) = gpu_build_without_gpu() else { return };
    let (models, data) = (cheap_models(), tempfile::tempdir().unwrap());
    let options = ["--onnxruntime", library.to_str().unwrap(), "--device", "cuda", "--log", "off"];
    let (code, said) = ends(&mut serving(models.path(), data.path(), &options));
    assert_eq!(code, 64, "{said}");
    let sentence = said.lines().find(|line| line.starts_with("predictd: ")).unwrap();
    assert!(sentence.starts_with("predictd: --device cuda:0: GPU 0 cannot be used: "), "{said}");
    // Without CUDA's libraries one of those is missing; with them, the driver's.
    assert!(sentence.contains("was not found") && !sentence.contains(GPU_BUILD), "{said}");
}

#[test]
fn auto_falls_back_and_says_so() {
    let Some(library) = gpu_build_without_gpu() else { return };
    let (models, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Model::plain().write(models.path(), "a", "1");
    Model::plain().options("device = \"cpu\"\n").write(models.path(), "b", "1");
    let mut daemon = Daemon::launch(&mut serving(
        models.path(),
        data.path(),
        &["--onnxruntime", library.to_str().unwrap(), "--device", "auto"],
    ));
    daemon.logged("the model is ready");
    daemon.logged("the model is ready");
    let health = daemon.ask("GET", "/health", "");
    let model = &health["models"][0];
    assert_eq!(model["device"], "cpu");
    assert_eq!(health["models"][1].get("fallback"), None, "it asked for the cores");
    assert!(model["fallback"].as_str().unwrap().contains("was not found"), "{model}");
    assert!(daemon.log().contains("no GPU is used: models run on the cores"), "{}", daemon.log());
    let metrics = crate::daemon::exchange(daemon.admin, "GET", "/metrics", "");
    for (model, fell_back) in [("a", " 1"), ("b", " 0")] {
        let series = format!("predictd_model_device_fallback{{model=\"{model}\"");
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap();
        assert!(line.ends_with(fell_back), "{line}");
    }
}

#[tokio::test]
async fn scores_of_half_precision_are_read() {
    let logits = Transformer::new(&["input_ids"]).logit(&[("input_ids", 0.25)]).logit(&[("input_ids", 0.5)]);
    let served = Served::new(&logits.score(Element::Float16).model().labels(&["a", "b"])).await;
    // 2 + 10 + 3 = 15: a half and a quarter of it, which float16 holds exactly.
    assert_eq!(served.raw("10").await.0, [3.75, 7.5]);
}

/// Two GPUs that give every text the same scores, or refuse the model, or fail.
#[derive(Default)]
struct Gpus {
    /// Why no graph runs there, as the server is told.
    refused: Option<String>,
    /// What every run there fails with.
    fails: Option<&'static str>,
    /// The option that lets nothing fall back.
    must_run_on: Option<&'static str>,
    /// The other label answers in runs of this length.
    wrong_at: Option<usize>,
    /// Time of a run of several texts.
    takes: Duration,
    /// Runs of this length fail, once the server has started.
    fails_at: Mutex<Option<usize>>,
    /// Every run fails, once that is so.
    lost: AtomicBool,
    /// There is only one of them.
    alone: bool,
    /// The next run does not end before it is told to.
    hold: turns::Hold,
    /// Models in the order of their runs.
    ran: Mutex<Vec<String>>,
    shapes: Mutex<Vec<Shape>>,
    sessions: Mutex<usize>,
}

#[derive(Clone)]
struct OnGpus {
    gpus: Arc<Gpus>,
    signature: Arc<Signature>,
    on_cores: bool,
    model: String,
}

impl OnGpus {
    /// Waits until the three threads that each of so many models has for each GPU have run their sample of 16 tokens.
    async fn until_prepared(&self, models: usize) {
        let sample = Shape { rows: 1, length: 16 };
        let seen = || self.gpus.shapes.lock().iter().filter(|&&shape| shape == sample).count();
        while seen() < 3 * models * self.gpus() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Runtime for OnGpus {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let on_cores = manifest.options.device == Some(ModelDevice::Cpu);
        match &self.gpus.refused {
            None => {
                let model = manifest.graph_directory.parent().and_then(Path::file_name).unwrap();
                Ok(Box::new(Self { on_cores, model: model.to_str().unwrap().to_owned(), ..self.clone() }))
            }
            Some(sentence) => {
                let error = ManifestError::new("model.onnx", "it does not run on GPU 0: the test asked for it");
                Err(error.refused(sentence.clone()))
            }
        }
    }

    fn gpus(&self) -> usize {
        if self.gpus.alone { 1 } else { 2 }
    }

    fn must_run_on(&self) -> Option<String> {
        self.gpus.must_run_on.map(str::to_owned)
    }
}

impl Graph for OnGpus {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn placement(&self) -> Placement {
        let gpus: Vec<u32> = if self.on_cores { Vec::new() } else { (0..).take(self.gpus()).collect() };
        Placement { gpus, ..Placement::default() }
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        *self.gpus.sessions.lock() += 1;
        Ok(Box::new(self.clone()))
    }
}

impl Session for OnGpus {
    fn run(&mut self, batch: &Batch, _: Instant) -> Result<Scores, RunError> {
        if let Some(reason) = self.gpus.fails.filter(|_| !self.on_cores) {
            return Err(RunError::Failed(reason.to_owned()));
        }
        let shape = batch.shape();
        if self.gpus.lost.load(Ordering::Relaxed) || *self.gpus.fails_at.lock() == Some(shape.length) {
            return Err(RunError::Failed("CUDA failure 700: an illegal memory access".to_owned()));
        }
        self.gpus.shapes.lock().push(shape);
        self.gpus.ran.lock().push(self.model.clone());
        self.gpus.hold.pass();
        if shape.rows > 1 {
            std::thread::sleep(self.gpus.takes);
        }
        let first = usize::from(self.gpus.wrong_at == Some(shape.length));
        Ok(Array2::from_shape_fn((shape.rows, 2), |(_, column)| if column == first { 1.0 } else { 0.0 }).into())
    }
}

fn on_gpus(gpus: Gpus) -> OnGpus {
    let input = |name: &str, role| TokenInput { name: name.to_owned(), role, width: IntegerWidth::Bits64 };
    let signature = Signature {
        input: GraphInput::Tokens(vec![
            input("input_ids", TokenRole::InputIds),
            input("attention_mask", TokenRole::AttentionMask),
        ]),
        fixed: FixedAxes::default(),
        output: "logits".to_owned(),
        scores: ScoreKind::Logits,
        per_token: false,
        applied: None,
        embedding_rows: None,
        width: 2,
        batch_dependent: false,
        labels: None,
        many_labels: false,
    };
    OnGpus { gpus: Arc::new(gpus), signature: Arc::new(signature), on_cores: false, model: String::new() }
}

/// How a server ends that is to run this model on these GPUs.
async fn end_of_start(model: Model, gpus: Gpus) -> String {
    let models = tempfile::tempdir().unwrap();
    model.write(models.path(), "m", "1");
    let server = TestServer::launch(models.path(), &[], |settings| {
        predictd::Server::with_runtime(settings, Arc::new(on_gpus(gpus)))
    });
    match server.task.await.unwrap().unwrap_err() {
        predictd::RunError::Configuration(told) => told,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_gpu_has_one_session_large_runs_and_lengths_in_eights() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus::default());
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &["--workers", "4"]).await;
    assert_eq!(*runtime.gpus.sessions.lock(), 2, "one for each GPU, none beside them");
    assert_eq!(server.get("/health").await.json()["models"][0]["device"], "cuda:0,1");
    let largest = runtime.gpus.shapes.lock().iter().map(|shape| shape.tokens()).max().unwrap();
    assert!(largest >= 8_192, "the largest run that was measured has {largest} tokens");
    assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.json()["prediction"], "a");
    // Five tokens, which were asked before nowhere; workers may still be at their first runs.
    let shapes = runtime.gpus.shapes.lock().clone();
    let after = shapes.iter().rposition(|shape| shape.tokens() == largest).unwrap();
    assert!(shapes[after..].contains(&Shape { rows: 1, length: 8 }), "{shapes:?}");
}

#[tokio::test]
async fn a_model_that_no_named_gpu_runs_stops_the_start() {
    let sentence = "--device cuda:0: models/m/1 does not run on GPU 0";
    let refused = Gpus { refused: Some(sentence.to_owned()), ..Gpus::default() };
    assert_eq!(end_of_start(Model::plain(), refused).await, sentence);
}

const NO_MEMORY: &str = "CUDA failure 2: out of memory in /a/secret/place.cc";

#[tokio::test]
async fn a_model_that_fails_once_it_is_placed_runs_on_the_cores() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus { fails: Some(NO_MEMORY), ..Gpus::default() });
    let server = TestServer::start_on(Arc::new(runtime), models.path(), &[]).await;
    let model = server.get("/health").await.json()["models"][0].clone();
    assert_eq!(model["device"], "cpu", "{model}");
    let told = "it does not work on cuda:0,1: the warm-up failed: CUDA failure 2: out of memory in place.cc";
    assert_eq!(model["fallback"], told);
    assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.json()["prediction"], "a");
}

#[tokio::test]
async fn a_model_that_fails_once_it_is_placed_stops_a_start_that_names_gpus() {
    let fails = Gpus { fails: Some(NO_MEMORY), must_run_on: Some("--device cuda:0,1"), ..Gpus::default() };
    let told = end_of_start(Model::plain(), fails).await;
    let begin = "--device cuda:0,1: m/1 does not work on cuda:0,1: the warm-up failed: CUDA failure 2";
    assert!(told.starts_with(begin), "{told}");
}

#[tokio::test]
async fn lengths_are_not_rounded_up_where_golden_answers_change() {
    let models = tempfile::tempdir().unwrap();
    let golden = json!({ "examples": [{ "text": "10 20 30", "label": "a" }] });
    Model::plain().file("golden.json", golden.to_string()).write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus { wrong_at: Some(8), ..Gpus::default() });
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &[]).await;
    runtime.gpus.shapes.lock().clear();
    assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.json()["prediction"], "a");
    let shapes = runtime.gpus.shapes.lock().clone();
    assert!(shapes.contains(&Shape { rows: 1, length: 5 }), "{shapes:?}");
}

#[tokio::test]
async fn a_run_on_a_gpu_takes_more_texts_than_lie_in_reach_on_cores() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus { takes: Duration::from_millis(30), ..Gpus::default() });
    let options = ["--max-run-time", "10s", "--max-batch-texts", "1000"];
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &options).await;
    runtime.gpus.shapes.lock().clear();
    let texts = vec!["10 20 30"; 1_000];
    assert_eq!(server.ask("/batch_predict", json!({ "texts": texts })).await.status, 200);
    let shapes = runtime.gpus.shapes.lock().clone();
    assert!(shapes.iter().any(|shape| shape.rows > 129 && shape.length == 8), "{shapes:?}");
}

#[tokio::test]
async fn padding_counts_in_the_limits_of_a_run() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus { takes: Duration::from_millis(10), ..Gpus::default() });
    let options = ["--max-run-time", "10s", "--max-run-tokens", "80"];
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &options).await;
    runtime.gpus.shapes.lock().clear();
    // Sixteen of them have 80 tokens, and 128 with their padding.
    let texts = vec!["10 20 30"; 120];
    assert_eq!(server.ask("/batch_predict", json!({ "texts": texts })).await.status, 200);
    let shapes = runtime.gpus.shapes.lock().clone();
    assert_eq!(shapes.iter().map(|shape| shape.tokens()).max(), Some(80), "{shapes:?}");
}

#[tokio::test]
async fn a_model_may_ask_for_cores_and_for_nothing_else() {
    let served = Served::new(&Model::plain().options("device = \"cpu\"\n")).await;
    assert_eq!(served.predict("10").await["prediction"], "a");
    let models = tempfile::tempdir().unwrap();
    Model::plain().options("device = \"cuda\"\n").write(models.path(), "m", "1");
    let error = Manifest::read(&models.path().join("m/1")).unwrap_err().to_string();
    assert!(error.contains("model.toml") && error.contains("cuda"), "{error}");
}
