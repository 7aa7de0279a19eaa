//! A server on the fake runtime, and the requests that it is asked.

use std::sync::Arc;

use predictd::api::predictions::{BatchAnswer, Prediction};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::answers::{item_answer, probabilities};
use crate::support::fake_backend::FakeBackend;
use crate::support::test_server::{Response, TestServer, send_request};
use crate::support::waiting::wait_until;

/// A server on the fake runtime.
pub(crate) struct FakeBackendServer {
    pub(crate) server: TestServer,
    pub(crate) fake: Arc<FakeBackend>,
    _models: TempDir,
}

impl FakeBackendServer {
    /// One model, `m`.
    pub(crate) async fn new(options: &[&str]) -> Self {
        Self::with_models(FakeBackend::default(), &[("m", "")], options).await
    }

    /// Models of these names, with a word for the runtime in their graph files.
    pub(crate) async fn with_models(fake: FakeBackend, names: &[(&str, &str)], options: &[&str]) -> Self {
        let models = tempfile::tempdir().unwrap();
        for (name, graph) in names {
            let directory = models.path().join(name).join("1");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("model.onnx"), if graph.is_empty() { "graph" } else { graph }).unwrap();
        }
        let fake = Arc::new(fake);
        let server = TestServer::start_on(fake.clone(), models.path(), options).await;
        fake.reset_after_warm_up();
        Self { server, fake, _models: models }
    }

    /// Sends a request and does not wait for its answer. Aborting it closes its connection.
    pub(crate) fn send(&self, path: &str, body: &Value, headers: &[(&'static str, &str)]) -> JoinHandle<Response> {
        let mut request = self.server.client.post(format!("{}{path}", self.server.url)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        tokio::spawn(send_request(request))
    }

    pub(crate) fn send_text(&self, text: &str) -> JoinHandle<Response> {
        self.send("/predict", &raw_scores_body(text), &[])
    }

    pub(crate) fn send_batch(&self, texts: &[&str]) -> JoinHandle<Response> {
        self.send("/batch_predict", &raw_scores_batch_body(texts), &[])
    }

    pub(crate) fn free_permits(&self) -> usize {
        self.server.app.inference.engine.free_permits()
    }

    /// Texts that wait in the queue of `m`.
    pub(crate) fn queued_texts(&self) -> usize {
        self.server.app.models.registry.snapshot().resolve(Some("m"), None).unwrap().runner.queue.item_count()
    }

    /// Waits until this many permits are free and nothing else happens to them.
    pub(crate) async fn wait_for_free_permits(&self, permits: usize) {
        wait_until("the permits are free", || self.free_permits() == permits).await;
    }

    /// Waits until this many texts are inside a run.
    pub(crate) async fn wait_for_running_texts(&self, texts: usize) {
        wait_until("the texts are being run", || self.fake.running_texts() == texts).await;
    }

    /// The value of a metric without labels, or with these.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let body = self.server.get("/metrics").await.body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

/// A request whose answer shows the raw scores: `[x, -x]` for the text `echo x`.
pub(crate) fn raw_scores_body(text: &str) -> Value {
    json!({ "text": text, "return_probabilities": true, "raw_scores": true })
}

pub(crate) fn raw_scores_batch_body(texts: &[&str]) -> Value {
    json!({ "texts": texts, "return_probabilities": true, "raw_scores": true })
}

/// The text of an answer, read from its scores.
pub(crate) fn echoed_text(answer: &Prediction) -> String {
    format!("echo {}", probabilities(answer)[0])
}

/// The texts that the items of a batch are the answers to.
#[track_caller]
pub(crate) fn echoed_texts(reply: &Response) -> Vec<String> {
    reply.ok::<BatchAnswer>().results.iter().map(|item| echoed_text(item_answer(item))).collect()
}
