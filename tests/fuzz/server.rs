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
use predictd::config::Settings;
use predictd::engine::encoding;
use predictd::engine::lane::Lane;
use predictd::engine::loading::{Host, LONGEST_CHECK};
use predictd::engine::queue::Rules;
use predictd::engine::session::{Graph, RunError, Runtime, Scores, Session};
use predictd::registry::directory;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::{FixedAxes, GraphInput, IntegerWidth, ScoreKind, Signature, TokenInput, TokenRole};
use tempfile::TempDir;
use tower::ServiceExt;

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
        let settings = Settings::resolve(args).expect("settings");
        let runtime: Arc<dyn Runtime> = Arc::new(Constant);
        let app = Arc::clone(Server::with_runtime(&settings, Arc::clone(&runtime)).expect("a server").app());
        let rules = Rules { workers: 1, ..predictd::rules(&settings) };
        let host = Host {
            runtime,
            cores: Lane::of_cores(rules, 0),
            gpus: Lane::of_cores(rules, 0),
            tokenizers: encoding::pool(1).expect("a thread"),
            longest_check: LONGEST_CHECK,
            texts: settings.texts,
            drift: predictd::drift::Settings::default(),
            metrics: Arc::clone(&app.telemetry.metrics),
        };
        for source in directory::find(Path::new(MODELS)).expect("models") {
            app.models.registry.load(&source, &host).expect("a model");
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
struct Constant;

impl Runtime for Constant {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let token_input = |name: &str, role| TokenInput { name: name.to_owned(), role, width: IntegerWidth::Bits64 };
        let input = match manifest.tokenizer {
            None => GraphInput::Texts { name: "text".to_owned(), rank: 1 },
            Some(_) => GraphInput::Tokens(vec![
                token_input("input_ids", TokenRole::InputIds),
                token_input("attention_mask", TokenRole::AttentionMask),
            ]),
        };
        Ok(Box::new(ConstantGraph(Signature {
            input,
            fixed: FixedAxes::default(),
            output: "logits".to_owned(),
            scores: ScoreKind::Logits,
            per_token: false,
            applied: None,
            width: 2,
            batch_dependent: false,
            labels: Some(vec!["no".to_owned(), "yes".to_owned()]),
            many_labels: false,
            embedding_rows: None,
        })))
    }
}

struct ConstantGraph(Signature);

impl Graph for ConstantGraph {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        Ok(Box::new(ConstantSession))
    }
}

struct ConstantSession;

impl Session for ConstantSession {
    fn run(&mut self, batch: &Batch, _deadline: Instant) -> Result<Scores, RunError> {
        Ok(Array2::from_shape_fn((batch.rows(), 2), |(_, label)| [-0.5, 0.5][label]).into())
    }
}
