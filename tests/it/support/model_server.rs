//! A server on ONNX Runtime with models that a test has written.

use predictd::api::predictions::{BatchItem, Prediction};
use predictd::api::served_models::VersionFacts;
use predictd::registry::VersionState;
use predictd::registry::version_name::VersionName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::model_builder::ModelBuilder;
use crate::support::answers::{probabilities, score};
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
    pub(crate) async fn predict(&self, text: &str) -> Prediction {
        self.predict_with(text, json!({})).await
    }

    /// The same with options in the request.
    pub(crate) async fn predict_with(&self, text: &str, options: Value) -> Prediction {
        self.respond_with(text, options).await.ok()
    }

    /// The response to a text with options.
    pub(crate) async fn respond_with(&self, text: &str, mut body: Value) -> Response {
        body["text"] = json!(text);
        self.server.post_json("/predict", body).await
    }

    /// The raw scores of a text, and its tokens.
    pub(crate) async fn raw_scores(&self, text: &str) -> (Vec<f64>, usize) {
        let answer = self.predict_with(text, json!({ "return_probabilities": true, "raw_scores": true })).await;
        (probabilities(&answer), answer.tokens)
    }

    /// The number that a regression model gives for a text.
    pub(crate) async fn score(&self, text: &str) -> f64 {
        score(&self.predict(text).await)
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

    pub(crate) async fn batch_predict(&self, texts: &[&str]) -> Vec<BatchItem> {
        self.server.batch_predict(json!({ "texts": texts })).await
    }

    /// What the first version of the model, which is ready, does and takes.
    pub(crate) async fn model_info(&self) -> VersionFacts {
        let version = self.server.model(MODEL).await.versions.swap_remove(0);
        version.facts.unwrap_or_else(|| panic!("version {} is {}", version.version, version.state))
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
