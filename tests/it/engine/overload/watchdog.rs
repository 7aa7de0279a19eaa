//! Graphs whose runs never end: the watchdog ends them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd::engine::execution_group::ExecutionGroup;
use predictd::engine::load_context::LoadContext;
use predictd::engine::tokenization;
use predictd::metrics::Metrics;
use predictd::onnx::OnnxRuntime;
use predictd::registry::version_name::VersionName;
use predictd::registry::{LoadFailure, Registry, VersionState, models_directory};
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};
use serde_json::json;

use crate::support::answers::{item_answer, label};
use crate::support::daemon::{Daemon, serve_command};
use crate::support::daemon_requests::scrape_metrics;
use crate::support::model_builder::{ModelBuilder, slow_models};
use crate::support::model_server::ModelServer;
use crate::support::raw_client::{RawClient, RawResponse, get, request};
use crate::support::test_server::one_worker_rules;
use crate::support::waiting::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn watchdog_hung_run_ends_at_deadline() {
    for model in [slow_models::never_answers_hello(), slow_models::never_answers_hello_queued()] {
        let served = ModelServer::with_options(&model, &["--workers", "2"]).await;
        for _ in 0..3 {
            let reply = served.predict_within("hello", "300").await;
            assert_eq!((reply.status, reply.problem_kind().as_str()), (504, "deadline-exceeded"));
        }
        // Both workers are free again, and the model answers as ever.
        assert_eq!(served.raw_scores("10 20").await, (vec![35.0, 3.5], 4));
        let batch = served.batch_predict(&["10", "20", "30", "40"]).await;
        assert!(batch.iter().all(|item| label(item_answer(item)) == "a"), "{batch:?}");
        wait_until("the permits are free", || served.server.app.inference.engine.free_permits() == 4_096).await;
        let metrics = served.server.get("/metrics").await.body;
        assert!(metrics.contains("predictd_requests_rejected_total{reason=\"deadline\"} "), "{metrics}");
        served.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchdog_hung_runs_do_not_block_http() {
    let served = ModelServer::with_options(&slow_models::never_answers_hello(), &["--workers", "2"]).await;
    let skips_queue = || served.server.app.models.registry.snapshot().resolve(None, None).unwrap().can_run_inline();
    assert!(skips_queue(), "the model is too slow for this test");
    assert_eq!(served.predict_error("hello").await.status, 504);
    assert!(!skips_queue());
    // More of them than there are threads: each waits for its worker, and no other request waits for them.
    let hello = json!({ "text": "hello" });
    let waiting = async || served.server.post_json("/predict", hello.clone()).await;
    let probes = async {
        for _ in 0..20 {
            assert_eq!(served.server.get("/health").await.status, 200);
        }
    };
    tokio::select! {
        biased;
        _ = async { tokio::join!(waiting(), waiting(), waiting(), waiting()) } => panic!("the probes came last"),
        () = probes => {}
    }
    served.server.stop().await.unwrap();
}

fn predict_with_timeout(daemon: &Daemon, model: &str, text: &str, milliseconds: u32) -> RawResponse {
    let time = format!("X-Request-Timeout-Ms: {milliseconds}\r\n");
    let body = json!({ "text": text, "model": model }).to_string();
    RawClient::connect(daemon.address).request(request("POST", "/predict", &time, &body))
}

#[test]
fn watchdog_hung_model_leaves_others_and_shutdown_working() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    slow_models::never_answers_hello_queued().write(models.path(), "endless", "1");
    ModelBuilder::plain().write(models.path(), "good", "1");
    let mut daemon =
        Daemon::start(&mut serve_command(models.path(), data.path(), &["--drain-timeout", "1s", "--workers", "2"]));
    daemon.wait_for_log("model version loaded");
    // One worker of two is busy all the time.
    let mut waits = RawClient::connect(daemon.address);
    let body = json!({ "text": "hello", "model": "endless" }).to_string();
    waits.send(request("POST", "/predict", "X-Request-Timeout-Ms: 60000\r\n", &body));
    // What came before its run began could share it, and would wait as long.
    let runs = r#"predictd_queue_duration_seconds_count{model="endless",version="1"} 1"#;
    while !scrape_metrics(&daemon).contains(runs) {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        assert_eq!(predict_with_timeout(&daemon, "good", "10", 60_000).status, 200);
        assert_eq!(predict_with_timeout(&daemon, "endless", "10", 60_000).status, 200);
    }
    assert_eq!(predict_with_timeout(&daemon, "endless", "hello", 300).problem_kind(), "deadline-exceeded");
    for address in [daemon.address, daemon.admin] {
        assert_eq!(RawClient::connect(address).request(get("/readyz")).status, 200);
    }
    daemon.signal("TERM");
    assert_eq!(waits.read_response().problem_kind(), "shutting-down");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn watchdog_hung_load_fails_and_next_model_loads() {
    let models = tempfile::tempdir().unwrap();
    slow_models::never_answers().write(models.path(), "a-endless", "1");
    ModelBuilder::plain().write(models.path(), "good", "1");
    let sources = models_directory::find_models(models.path()).unwrap();
    let registry = Registry::from_sources(&sources, Some("good")).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let host = LoadContext {
        backend: Arc::new(OnnxRuntime::load(None).unwrap()),
        cpu_group: ExecutionGroup::new_cpu(one_worker_rules(), 0),
        gpu_group: ExecutionGroup::new_cpu(one_worker_rules(), 0),
        tokenizer_pool: tokenization::new_thread_pool(1).unwrap(),
        // Shorter than a server gives, for the sake of those who wait for this test.
        check_run_timeout: Duration::from_millis(300),
        text_defaults: TextPolicies { on_overflow: OverflowPolicy::Error, markup: MarkupPolicy::Allow },
        drift_settings: predictd::drift::WindowSettings::default(),
        metrics,
    };
    for source in &sources {
        _ = registry.load(source, &host);
    }
    let snapshot = registry.snapshot();
    let VersionState::Failed(LoadFailure { reason, .. }) =
        &snapshot.models["a-endless"].versions[&VersionName::new("1")]
    else {
        panic!("a model that never answers cannot be ready")
    };
    assert_eq!(reason, "model.onnx: the warm-up failed: the run was interrupted at its deadline");
    assert!(snapshot.is_ready());
    registry.close(Instant::now() + Duration::from_secs(5));
}
