//! The server's own router over models whose graphs need no ONNX Runtime.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use clap::Parser;
use ndarray::Array2;
use predictd::Server;
use predictd::cli::Cli;
use predictd::config::ServerSettings;
use predictd::engine::backend::{Backend, BackendError, Graph, Scores, Session};
use predictd::engine::execution_group::ExecutionGroup;
use predictd::engine::load_context::LoadContext;
use predictd::engine::loader::CHECK_RUN_TIMEOUT;
use predictd::engine::scheduler_config::SchedulerConfig;
use predictd::engine::tokenization;
use predictd::registry::models_directory;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{Signature, TokenRole};
use signatures::logits_signature;
use tempfile::TempDir;
use tower::ServiceExt;

#[path = "../it/support/signatures.rs"]
mod signatures;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
/// Small enough for the fuzzer to reach.
const LIMITS: [&str; 6] = ["--max-body", "4096", "--max-text-chars", "256", "--max-client-batch-size", "16"];

/// A server without a socket, with all models ready.
pub struct InProcess {
    runtime: tokio::runtime::Runtime,
    router: Router,
    _data: TempDir,
}

impl InProcess {
    pub fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let path = data.path().to_str().expect("a path in UTF-8");
        let options = ["predictd", "--models", MODELS, "--data-dir", path];
        let args = Cli::parse_from(options.into_iter().chain(LIMITS)).serve;
        let settings = ServerSettings::resolve(args).expect("settings");
        let backend: Arc<dyn Backend> = Arc::new(ConstantBackend);
        let app = Server::with_runtime(&settings, Arc::clone(&backend)).expect("a server").app().clone();
        let config = SchedulerConfig { worker_count: 1, ..predictd::scheduler_config(&settings) };
        let context = LoadContext {
            backend,
            cpu_group: ExecutionGroup::new_cpu(config, 0),
            gpu_group: ExecutionGroup::new_cpu(config, 0),
            tokenizer_pool: tokenization::new_thread_pool(1).expect("a thread"),
            check_run_timeout: CHECK_RUN_TIMEOUT,
            text_defaults: settings.text_defaults,
            drift_settings: predictd::drift::WindowSettings::default(),
            metrics: Arc::clone(&app.telemetry.metrics),
        };
        for source in models_directory::find_models(Path::new(MODELS)).expect("models") {
            app.models.registry.load(&source, &context).expect("a model");
            let loaded = app.models.registry.snapshot().resolve(Some(&source.name), Some(&source.version)).err();
            assert_eq!(loaded, None, "{}", source.name);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("an async runtime");
        Self { runtime, router: predictd::http::router(app), _data: data }
    }

    /// Answers a request, and reads the answer to its end.
    pub fn answer(&self, request: Request<Body>) -> Response<Vec<u8>> {
        self.runtime.block_on(async {
            let Ok(response) = self.router.clone().oneshot(request).await;
            let (head, body) = response.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
            Response::from_parts(head, body.to_vec())
        })
    }
}

/// Gives every text the same scores.
struct ConstantBackend;

impl Backend for ConstantBackend {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let token_inputs: &[_] = match manifest.tokenizer {
            None => &[],
            Some(_) => &[("input_ids", TokenRole::InputIds), ("attention_mask", TokenRole::AttentionMask)],
        };
        let labels = Some(vec!["no".to_owned(), "yes".to_owned()]);
        Ok(Box::new(ConstantGraph(Signature { labels, ..logits_signature(token_inputs, 2) })))
    }
}

struct ConstantGraph(Signature);

impl Graph for ConstantGraph {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        Ok(Box::new(ConstantSession))
    }
}

struct ConstantSession;

impl Session for ConstantSession {
    fn run(&mut self, batch: &Batch, _deadline: Instant) -> Result<Scores, BackendError> {
        Ok(Array2::from_shape_fn((batch.rows(), 2), |(_, label)| [-0.5, 0.5][label]).into())
    }
}
