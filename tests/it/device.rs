//! Where models run: what is refused, what falls back, and what is different on a GPU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ndarray::Array2;
use parking_lot::Mutex;
use predictd::engine::placement::Placement;
use predictd::engine::session::{Graph, RunError, Runtime, Scores, Session};
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{GraphInput, IntegerWidth, ScoreKind, Signature, TokenInput, TokenRole};
use predictd::text::tensors::Shape;
use serde_json::json;

use crate::daemon::{Daemon, ends, predictd, serving};
use crate::fixture::onnx::Element;
use crate::fixture::served::Served;
use crate::fixture::{Model, Transformer};
use crate::server::{TestServer, cheap_models};

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

/// Two GPUs that give every text the same scores, or refuse the model.
#[derive(Default)]
struct Gpus {
    refused: Option<String>,
    shapes: Mutex<Vec<Shape>>,
    sessions: Mutex<usize>,
}

#[derive(Clone)]
struct OnGpus(Arc<Gpus>, Arc<Signature>);

impl Runtime for OnGpus {
    fn open(&self, _: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        match &self.0.refused {
            None => Ok(Box::new(self.clone())),
            Some(_) => Err(ManifestError::new("model.onnx", "it does not run on GPU 0: the test asked for it")),
        }
    }

    fn gpus(&self) -> usize {
        2
    }

    fn refused(&self) -> Option<String> {
        self.0.refused.clone()
    }
}

impl Graph for OnGpus {
    fn signature(&self) -> &Signature {
        &self.1
    }

    fn placement(&self) -> Placement {
        Placement { gpus: vec![0, 1], ..Placement::default() }
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        *self.0.sessions.lock() += 1;
        Ok(Box::new(self.clone()))
    }
}

impl Session for OnGpus {
    fn run(&mut self, batch: &Batch, _: Instant) -> Result<Scores, RunError> {
        self.0.shapes.lock().push(batch.shape());
        Ok(Array2::from_shape_fn((batch.rows(), 2), |(_, column)| if column == 0 { 1.0 } else { 0.0 }).into())
    }
}

fn on_gpus(refused: Option<&str>) -> OnGpus {
    let input = |name: &str, role| TokenInput { name: name.to_owned(), role, width: IntegerWidth::Bits64 };
    let signature = Signature {
        input: GraphInput::Tokens(vec![
            input("input_ids", TokenRole::InputIds),
            input("attention_mask", TokenRole::AttentionMask),
        ]),
        scores: ScoreKind::Logits,
        width: 2,
        batch_dependent: false,
        labels: None,
        many_labels: false,
    };
    OnGpus(Arc::new(Gpus { refused: refused.map(str::to_owned), ..Gpus::default() }), Arc::new(signature))
}

#[tokio::test]
async fn a_gpu_has_one_session_large_runs_and_lengths_in_eights() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(None);
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &["--workers", "4"]).await;
    assert_eq!(*runtime.0.sessions.lock(), 2, "one for each GPU, none beside them");
    assert_eq!(server.get("/health").await.json()["models"][0]["device"], "cuda:0,1");
    let largest = runtime.0.shapes.lock().iter().map(|shape| shape.tokens()).max().unwrap();
    assert!(largest >= 8_192, "the largest run that was measured has {largest} tokens");
    assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.json()["prediction"], "a");
    // Five tokens, which were asked before nowhere; workers may still be at their first runs.
    let shapes = runtime.0.shapes.lock().clone();
    let after = shapes.iter().rposition(|shape| shape.tokens() == largest).unwrap();
    assert!(shapes[after..].contains(&Shape { rows: 1, length: 8 }), "{shapes:?}");
}

#[tokio::test]
async fn a_model_that_no_named_gpu_runs_stops_the_start() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let sentence = "--device cuda:0: models/m/1 does not run on GPU 0";
    let server = TestServer::launch(models.path(), &[], |settings| {
        predictd::Server::with_runtime(settings, Arc::new(on_gpus(Some(sentence))))
    });
    let error = server.task.await.unwrap().unwrap_err();
    assert!(matches!(&error, predictd::RunError::Configuration(told) if told == sentence), "{error:?}");
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
