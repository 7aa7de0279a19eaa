//! A server on ONNX Runtime with models that a test has written.

use predictd::registry::VersionState;
use predictd::registry::version_name::VersionName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::model_builder::ModelBuilder;
use crate::support::assertions::to_f64s;
use crate::support::test_server::{Response, TestServer, send_request};

/// Name of the model that a test is about.
pub(crate) const MODEL: &str = "m";

/// A server and its directory of models.
pub(crate) struct ModelServer {
    pub(crate) server: TestServer,
    _models: TempDir,
}

impl ModelServer {
    /// A server whose only model is this one.
    pub(crate) async fn new(model: &ModelBuilder) -> Self {
        Self::with_options(model, &[]).await
    }

    /// The same with options.
    pub(crate) async fn with_options(model: &ModelBuilder, options: &[&str]) -> Self {
        let models = tempfile::tempdir().unwrap();
        model.write(models.path(), MODEL, "1");
        Self::from_dir(models, options).await
    }

    /// A server on this directory.
    pub(crate) async fn from_dir(models: TempDir, options: &[&str]) -> Self {
        let server = TestServer::start(models.path(), options).await;
        Self { server, _models: models }
    }

    /// The answer to a text.
    pub(crate) async fn predict(&self, text: &str) -> Value {
        self.predict_with(text, json!({})).await
    }

    /// The same with options in the request.
    pub(crate) async fn predict_with(&self, text: &str, mut body: Value) -> Value {
        body["text"] = json!(text);
        let reply = self.server.post_json("/predict", body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json::<Value>()
    }

    /// The raw scores of a text, and its tokens.
    pub(crate) async fn raw_scores(&self, text: &str) -> (Vec<f64>, u64) {
        let answer = self.predict_with(text, json!({ "return_probabilities": true, "raw_scores": true })).await;
        (to_f64s(&answer["probabilities"]), answer["tokens"].as_u64().unwrap())
    }

    /// The number that a regression model gives for a text.
    pub(crate) async fn score(&self, text: &str) -> f64 {
        self.predict(text).await["score"].as_f64().unwrap()
    }

    /// The response to a text that the client waits for only so long.
    pub(crate) async fn predict_within(&self, text: &str, milliseconds: &str) -> Response {
        let url = format!("{}/predict", self.server.url);
        let request = self.server.client.post(url).header("x-request-timeout-ms", milliseconds);
        send_request(request.json(&json!({ "text": text }))).await
    }

    /// A response that is an error.
    pub(crate) async fn predict_error(&self, text: &str) -> Response {
        let reply = self.server.post_json("/predict", json!({ "text": text })).await;
        assert_ne!(reply.status, 200, "{}", reply.body);
        reply
    }

    pub(crate) async fn batch_predict(&self, texts: &[&str]) -> Vec<Value> {
        let reply = self.server.post_json("/batch_predict", json!({ "texts": texts })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json::<Value>()["results"].as_array().unwrap().clone()
    }

    /// What `/models/m` says about its first version.
    pub(crate) async fn model_info(&self) -> Value {
        self.server.get(&format!("/models/{MODEL}")).await.json::<Value>()["versions"][0].clone()
    }

    /// Why a model version did not load, as the operator reads it.
    pub(crate) fn version_load_error(&self, name: &str, version: &str) -> String {
        match &self.server.app.models.registry.snapshot().models[name].versions[&VersionName::new(version)] {
            VersionState::Failed(failure) => failure.reason.clone(),
            other => panic!("{name}/{version} is {}", other.name()),
        }
    }
}

/// Why a server refuses a model.
pub(crate) async fn load_error(model: &ModelBuilder) -> String {
    ModelServer::new(model).await.version_load_error(MODEL, "1")
}
