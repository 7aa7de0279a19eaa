//! A server in this process, and a client for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use predictd::api::health::HealthReport;
use predictd::api::predictions::{BatchAnswer, BatchItem, Prediction};
use predictd::api::problem::Problem;
use predictd::api::served_models::ModelDetail;
use predictd::cli::Cli;
use predictd::config::ServerSettings;
use predictd::engine::backend::Backend;
use predictd::engine::scheduler::BatchingStrategy;
use predictd::engine::scheduler::batch_search::{BatchLimits, CPU_SEARCH_RADIUS};
use predictd::engine::scheduler_config::SchedulerConfig;
use predictd::http::App;
use predictd::http::listeners::Listeners;
use predictd::shutdown::Shutdown;
use predictd::{Server, ServerError};
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::answers::kind;

/// The cheaper of the shipped models.
pub const CHEAP_MODEL: &str = "banking77-tfidf";

/// A question that every BANKING77 model answers with `card_arrival`.
pub const QUESTION: &str = "My new card has not come yet, where is it?";

/// A body that asks it.
pub fn question_body() -> String {
    json!({ "text": QUESTION }).to_string()
}

/// A running server. It stops when [`TestServer::stop`] is called or the test's runtime ends.
pub struct TestServer {
    pub url: String,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub app: App,
    pub shutdown: Shutdown,
    pub client: reqwest::Client,
    pub task: JoinHandle<Result<(), ServerError>>,
    /// The directory that `--data-dir` names.
    pub data: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Response {
    /// The body as a wire type; as a [`Value`] where the test is about the JSON itself.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// The problem that an error is, which must say what the status and the headers say.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status, "{problem:?}");
        assert_eq!(problem.instance.as_deref(), Some(self.headers["x-request-id"].to_str().unwrap()));
        problem
    }

    /// The kind of a problem: the last part of its type.
    #[track_caller]
    pub fn problem_kind(&self) -> String {
        kind(&self.problem()).to_owned()
    }
}

/// The models that come with the repository.
pub fn shipped_models() -> &'static Path {
    Path::new("models")
}

/// A model directory with only the cheaper of the shipped models: it loads in a moment.
pub fn cheap_models() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let shipped = std::path::absolute(shipped_models()).unwrap().join(CHEAP_MODEL);
    std::os::unix::fs::symlink(shipped, directory.path().join(CHEAP_MODEL)).unwrap();
    directory
}

/// Tests ask the model, not what it said before, unless their options say otherwise.
pub fn uncached<'a>(options: &[&str]) -> std::slice::Iter<'a, &'a str> {
    if options.contains(&"--cache-bytes") { [].iter() } else { ["--cache-bytes", "0"].iter() }
}

/// A client in the making.
pub fn client() -> reqwest::ClientBuilder {
    // Another test of this process may have chosen the same already.
    tokio_rustls::rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy()
}

impl TestServer {
    /// A server of the cheaper model that has answered.
    pub async fn start_cheap(options: &[&str]) -> Self {
        let server = Self::start(cheap_models().path(), options).await;
        crate::support::problems::assert_alive(&server).await;
        server
    }

    /// A server on ONNX Runtime, ready, with `options` as on the command line.
    pub async fn start(models: &Path, options: &[&str]) -> Self {
        let server = Self::launch(models, options, Server::prepare);
        server.wait_loaded().await;
        server
    }

    /// The same on another runtime.
    pub async fn start_on(runtime: Arc<dyn Backend>, models: &Path, options: &[&str]) -> Self {
        let server = Self::launch(models, options, |settings| Server::with_runtime(settings, runtime));
        server.wait_loaded().await;
        server
    }

    /// A server that may still be loading its models.
    pub fn launch(
        models: &Path,
        options: &[&str],
        prepare: impl FnOnce(&ServerSettings) -> Result<Server, ServerError>,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let paths = [models.to_str().unwrap(), data.path().to_str().unwrap()];
        let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let fixed = ["--models", paths[0], "--data-dir", paths[1]]
            .into_iter()
            .chain(listeners)
            .chain(uncached(options).copied());
        let args = Cli::parse_from(std::iter::once("predictd").chain(fixed).chain(options.iter().copied())).serve;
        let settings = ServerSettings::resolve(args).unwrap();
        let server = prepare(&settings).unwrap();
        let listeners = Listeners::bind(&settings.access).unwrap();
        let address: SocketAddr = listeners.data.to_string().parse().unwrap();
        let admin: SocketAddr = listeners.admin.to_string().parse().unwrap();
        let app = server.app().clone();
        let shutdown = Shutdown::default();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { server.run(listeners, &shutdown).await }
        });
        let client = client().build().unwrap();
        Self { url: format!("http://{address}"), address, admin, app, shutdown, client, task, data }
    }

    /// Waits until no model is being loaded any more.
    pub async fn wait_loaded(&self) {
        for _ in 0..6_000 {
            if self.health().await.models.iter().all(|model| model.state != "loading") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the models were not loaded within a minute");
    }

    pub async fn get(&self, path: &str) -> Response {
        send_request(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Posts a body as JSON, whether it is JSON or not.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        send_request(request.body(body)).await
    }

    /// Posts a JSON value.
    pub async fn post_json(&self, path: &str, body: Value) -> Response {
        self.post(path, body.to_string()).await
    }

    /// What a `GET` of this path answers with 200.
    pub async fn get_ok<T: DeserializeOwned>(&self, path: &str) -> T {
        self.get(path).await.ok()
    }

    /// The answer to a text.
    pub async fn predict(&self, text: &str) -> Prediction {
        self.predict_with(json!({ "text": text })).await
    }

    /// What `/predict` answers to this body.
    pub async fn predict_with(&self, body: Value) -> Prediction {
        self.post_json("/predict", body).await.ok()
    }

    /// What `/batch_predict` answers to this body, one item per text.
    pub async fn batch_predict(&self, body: Value) -> Vec<BatchItem> {
        self.post_json("/batch_predict", body).await.ok::<BatchAnswer>().results
    }

    pub async fn health(&self) -> HealthReport {
        self.get("/health").await.json()
    }

    /// What `/models/NAME` says.
    pub async fn model(&self, name: &str) -> ModelDetail {
        self.get_ok(&format!("/models/{name}")).await
    }

    /// Stops the server and says how it ended.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.shutdown.drain.cancel();
        // Idle connections of the client must not hold the server.
        drop(self.client);
        self.task.await.unwrap()
    }
}

/// Sends a request and reads the answer.
pub async fn send_request(request: reqwest::RequestBuilder) -> Response {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    Response { status, headers, body: response.text().await.unwrap() }
}

/// How one worker's queue hands out its texts, where a model is loaded without a server.
pub(crate) fn one_worker_rules() -> SchedulerConfig {
    let caps = BatchLimits { max_rows: 64, max_tokens: 256, max_time: 200_000, search_radius: CPU_SEARCH_RADIUS };
    SchedulerConfig {
        strategy: BatchingStrategy::Window,
        batch_limits: caps,
        worker_count: 1,
        overload_threshold: Duration::from_millis(500),
    }
}

/// A variable that a test is given.
#[expect(clippy::disallowed_methods, reason = "a test is no server")]
pub fn test_env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
