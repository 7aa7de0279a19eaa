//! Broken model directories: refused with the file and the reason, beside models that go on serving.

mod broken_tokenizers;
mod damaged_files;
mod external_weights;
mod integer_division;
mod subgraphs;
mod version_fallback;
mod wrong_files;

use predictd::api::health::HealthReport;
use serde_json::json;
use tempfile::TempDir;

use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{MODEL, ModelServer};

/// A directory with a good model named `good`, the default, for broken ones to stand beside.
fn models_with_good_one() -> TempDir {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "good", "1");
    models
}

/// Starts a server on a broken model and a good one, checks that only the good one answers, and
/// returns the reason.
async fn load_error_beside_good_one(models: TempDir) -> String {
    let served = ModelServer::from_dir(models, &["--default-model", "good"]).await;
    let health = served.server.get("/health").await;
    assert_eq!((health.status, health.json::<HealthReport>().status.as_str()), (200, "healthy"));
    let models = health.json::<HealthReport>().models;
    let states: Vec<(String, String)> = models.into_iter().map(|model| (model.name, model.state)).collect();
    assert_eq!(states, [("good".to_owned(), "ready".to_owned()), (MODEL.to_owned(), "failed".to_owned())]);
    assert_eq!(served.server.get("/readyz").await.status, 200);
    assert_eq!(served.predict("10 20").await.model.name, "good");
    let reply = served.server.post_json("/predict", json!({ "text": "10", "model": MODEL })).await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (503, "model-not-ready"));
    assert!(reply.headers.contains_key("retry-after"));
    let reason = served.version_load_error(MODEL, "1");
    // The reason is for the operator: no response shows the contents of the files.
    assert!(!reply.body.contains(&reason), "{}", reply.body);
    assert_eq!(reason.lines().count(), 1, "{reason}");
    served.server.stop().await.unwrap();
    reason
}

/// The same for a model.
async fn load_error_of(model: &ModelBuilder) -> String {
    let models = models_with_good_one();
    model.write(models.path(), MODEL, "1");
    load_error_beside_good_one(models).await
}
