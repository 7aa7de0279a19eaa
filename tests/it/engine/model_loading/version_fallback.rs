//! A broken version beside a good one of the same model, and a broken default model.

use predictd::api::health::HealthReport;
use predictd::api::predictions::Prediction;
use predictd::api::served_models::ModelList;
use serde_json::json;

use crate::support::answers::label;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{MODEL, ModelServer};

#[tokio::test]
async fn version_broken_falls_back_to_next_lower() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), MODEL, "9");
    ModelBuilder::plain().write(models.path(), MODEL, "8");
    ModelBuilder::plain().with_graph("x").write(models.path(), MODEL, "10");
    let served = ModelServer::from_dir(models, &[]).await;
    let model = served.predict("10").await.model;
    assert_eq!((model.name.as_str(), model.version.as_str()), (MODEL, "9"));
    assert_eq!(served.server.get("/readyz").await.status, 200);
    let asked = |version: &str| {
        served.server.post_json("/predict", json!({ "text": "10", "model": MODEL, "version": version }))
    };
    assert_eq!(asked("8").await.json::<Prediction>().model.version, "8");
    let reply = asked("10").await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (503, "model-not-ready"));
    let reply = asked("11").await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (404, "model-not-found"));
    let list: ModelList = served.server.get_ok("/models").await;
    assert_eq!(list.models[0].active_version, "9");
    assert!(served.version_load_error(MODEL, "10").starts_with("model.onnx: "));
}

#[tokio::test]
async fn default_model_broken_is_not_ready_others_answer() {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "good", "1");
    ModelBuilder::plain().without_file("tokenizer.json").write(models.path(), MODEL, "1");
    let served = ModelServer::from_dir(models, &["--default-model", MODEL]).await;
    let ready = served.server.get("/readyz").await;
    assert_eq!((ready.status, ready.problem_kind().as_str()), (503, "model-not-ready"));
    let health = served.server.get("/health").await;
    assert_eq!((health.status, health.json::<HealthReport>().status.as_str()), (503, "unhealthy"));
    assert_eq!(served.server.get("/livez").await.status, 200);
    assert_eq!(served.predict_error("10").await.problem_kind(), "model-not-ready");
    assert_eq!(label(&served.predict_with("10", json!({ "model": "good" })).await), "a");
}
