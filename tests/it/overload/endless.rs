//! Graphs whose runs never end: the watchdog ends them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd::config::{Markup, OnOverflow, TextDefaults};
use predictd::engine::encoding;
use predictd::engine::lane::Lane;
use predictd::engine::loading::Host;
use predictd::metrics::Metrics;
use predictd::onnx::OnnxRuntime;
use predictd::registry::version::Version;
use predictd::registry::{Failure, Registry, State, directory};
use serde_json::json;

use crate::daemon::{Daemon, serving};
use crate::fixture::served::Served;
use crate::fixture::{Model, endless};
use crate::raw::{Answer, Wire, get, request};
use crate::scheduling::until;
use crate::server::one_worker;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_ends_is_ended_with_its_requests_time() {
    for model in [endless::on_hello(), endless::on_hello_in_a_queue()] {
        let served = Served::with(&model, &["--workers", "2", "--timeout", "300ms"]).await;
        for _ in 0..3 {
            let reply = served.refused("hello").await;
            assert_eq!((reply.status, reply.problem().as_str()), (504, "deadline-exceeded"));
        }
        // Both workers are free again, and the model answers as ever.
        assert_eq!(served.raw("10 20").await, (vec![35.0, 3.5], 4));
        let batch = served.batch(&["10", "20", "30", "40"]).await;
        assert!(batch.iter().all(|item| item["prediction"] == "a"), "{batch:?}");
        until("the permits are free", || served.server.app.engine.free_permits() == 4_096).await;
        let metrics = served.server.get("/metrics").await.body;
        assert!(metrics.contains("predictd_refused_total{reason=\"deadline\"} "), "{metrics}");
        served.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_never_end_do_not_hold_the_threads_of_http() {
    let served = Served::with(&endless::on_hello(), &["--workers", "2"]).await;
    let skips_queue = || served.server.app.registry.snapshot().resolve(None, None).unwrap().skips_queue();
    assert!(skips_queue(), "the model is too slow for this test");
    assert_eq!(served.refused("hello").await.status, 504);
    assert!(!skips_queue());
    // More of them than there are threads: each waits for its worker, and nobody else for them.
    let hello = json!({ "text": "hello" });
    let waiting = async || served.server.ask("/predict", hello.clone()).await;
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

fn ask(daemon: &Daemon, model: &str, text: &str, milliseconds: u32) -> Answer {
    let time = format!("X-Request-Timeout-Ms: {milliseconds}\r\n");
    let body = json!({ "text": text, "model": model }).to_string();
    Wire::to(daemon.address).ask(request("POST", "/predict", &time, &body))
}

#[test]
fn other_models_answer_beside_it_and_a_signal_ends_all() {
    let (models, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    endless::on_hello_in_a_queue().write(models.path(), "endless", "1");
    Model::plain().write(models.path(), "good", "1");
    let mut daemon = Daemon::start(&mut serving(models.path(), data.path(), &["--grace", "1s", "--workers", "2"]));
    daemon.logged("the model is ready");
    // One worker of two is busy all the time.
    let mut waits = Wire::to(daemon.address);
    let body = json!({ "text": "hello", "model": "endless" }).to_string();
    waits.send(request("POST", "/predict", "X-Request-Timeout-Ms: 60000\r\n", &body));
    // What came before its run began could share it, and would wait as long.
    let runs = r#"predictd_queue_seconds_count{model="endless",version="1"} 1"#;
    while !Wire::to(daemon.admin).ask(get("/metrics")).body.contains(runs) {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        assert_eq!(ask(&daemon, "good", "10", 60_000).status, 200);
        assert_eq!(ask(&daemon, "endless", "10", 60_000).status, 200);
    }
    assert_eq!(ask(&daemon, "endless", "hello", 300).problem(), "deadline-exceeded");
    for address in [daemon.address, daemon.admin] {
        assert_eq!(Wire::to(address).ask(get("/readyz")).status, 200);
    }
    daemon.signal("TERM");
    assert_eq!(waits.answer().problem(), "shutting-down");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_model_that_never_answers_fails_and_the_next_one_is_loaded() {
    let models = tempfile::tempdir().unwrap();
    endless::on_every_text().write(models.path(), "a-endless", "1");
    Model::plain().write(models.path(), "good", "1");
    let sources = directory::find(models.path()).unwrap();
    let registry = Registry::of(&sources, Some("good")).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let host = Host {
        runtime: Arc::new(OnnxRuntime::start(None).unwrap()),
        cores: Lane::of_cores(one_worker(), 0),
        gpus: Lane::of_cores(one_worker(), 0),
        tokenizers: encoding::pool(1).unwrap(),
        // Shorter than a server gives, for the sake of those who wait for this test.
        longest_check: Duration::from_millis(300),
        texts: TextDefaults { on_overflow: OnOverflow::Error, markup: Markup::Allow },
        drift: predictd::drift::Settings::default(),
        metrics,
    };
    for source in &sources {
        _ = registry.load(source, &host);
    }
    let snapshot = registry.snapshot();
    let State::Failed(Failure { reason, .. }) = &snapshot.models["a-endless"].versions[&Version::new("1")] else {
        panic!("a model that never answers cannot be ready")
    };
    assert_eq!(reason, "model.onnx: the warm-up failed: the run was interrupted at its deadline");
    assert!(snapshot.is_ready());
    registry.close(Instant::now() + Duration::from_secs(5));
}
