//! A broken version beside a good one of the same model, and a broken default model.

use serde_json::json;

use crate::fixture::Model;
use crate::fixture::served::{NAME, Served};

#[tokio::test]
async fn the_next_lower_version_answers_for_a_broken_one() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), NAME, "9");
    Model::plain().write(models.path(), NAME, "8");
    Model::plain().with_graph("x").write(models.path(), NAME, "10");
    let served = Served::of(models, &[]).await;
    assert_eq!(served.predict("10").await["model"], json!({ "name": NAME, "version": "9" }));
    assert_eq!(served.server.get("/readyz").await.status, 200);
    let asked =
        |version: &str| served.server.ask("/predict", json!({ "text": "10", "model": NAME, "version": version }));
    assert_eq!(asked("8").await.json()["model"]["version"], "8");
    let reply = asked("10").await;
    assert_eq!((reply.status, reply.problem().as_str()), (503, "model-not-ready"));
    let reply = asked("11").await;
    assert_eq!((reply.status, reply.problem().as_str()), (404, "model-not-found"));
    let list = served.server.get("/models").await.json();
    assert_eq!(list["models"][0]["active_version"], "9");
    assert!(served.reason(NAME, "10").starts_with("model.onnx: "));
}

#[tokio::test]
async fn a_broken_default_model_is_not_ready_but_others_answer() {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "good", "1");
    Model::plain().without("tokenizer.json").write(models.path(), NAME, "1");
    let served = Served::of(models, &["--default-model", NAME]).await;
    let ready = served.server.get("/readyz").await;
    assert_eq!((ready.status, ready.problem().as_str()), (503, "model-not-ready"));
    let health = served.server.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("unhealthy")));
    assert_eq!(served.server.get("/livez").await.status, 200);
    assert_eq!(served.refused("10").await.problem(), "model-not-ready");
    assert_eq!(served.predict_with("10", json!({ "model": "good" })).await["prediction"], "a");
}
