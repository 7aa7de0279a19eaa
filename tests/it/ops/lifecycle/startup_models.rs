//! Models that cannot be loaded, beside others that can.

use std::io::ErrorKind;
use std::net::TcpStream;

use predictd::api::health::HealthReport;
use serde_json::json;

use super::Scene;
use crate::support::answers::label;
use crate::support::daemon::{Daemon, serve_command};
use crate::support::model_builder::{ModelBuilder, slow_models};
use crate::support::raw_client::{RawClient, get, request};
use crate::support::test_server::{CHEAP_MODEL, QUESTION};

/// Name and state of each version.
fn model_states(daemon: &Daemon) -> Vec<[String; 2]> {
    let health: HealthReport = RawClient::connect(daemon.admin).request(get("/health")).json();
    health.models.into_iter().map(|model| [model.name, model.state]).collect()
}

fn predict_with(daemon: &Daemon, model: Option<&str>) -> crate::support::raw_client::RawResponse {
    let body = json!({ "text": QUESTION, "model": model }).to_string();
    RawClient::connect(daemon.address).request(request("POST", "/predict", "", &body))
}

#[test]
fn startup_listen_when_ready_refuses_connections_before() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    ModelBuilder::plain().write(models.path(), "good", "1");
    let options = ["--accept", "ready", "--drain-timeout", "1s"];
    let mut daemon = Daemon::launch(&mut serve_command(models.path(), data.path(), &options));
    daemon.wait_for_log("data listener opened");
    let body = r#"{"text": "10"}"#;
    assert_eq!(RawClient::connect(daemon.address).request(request("POST", "/predict", "", body)).status, 200);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());

    // It takes long to find out that this one never answers.
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    slow_models::never_answers().write(models.path(), "endless", "1");
    let daemon = Daemon::launch(&mut serve_command(models.path(), data.path(), &options));
    assert_eq!(RawClient::connect(daemon.admin).request(get("/readyz")).status, 503);
    assert_eq!(TcpStream::connect(daemon.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success() && !log.contains("\"data listener opened\""), "{log}");
}

#[test]
fn startup_ready_once_every_model_was_tried() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // The default, and one that takes long.
    ModelBuilder::plain().write(models.path(), "a-good", "1");
    slow_models::never_answers().write(models.path(), "b-endless", "1");
    let at_once = serve_command(models.path(), data.path(), &["--drain-timeout", "1s"]);
    let when_ready = serve_command(models.path(), data.path(), &["--drain-timeout", "1s", "--accept", "ready"]);
    for (mut command, status) in [(at_once, Some(200)), (when_ready, None)] {
        let mut daemon = Daemon::launch(&mut command);
        assert_eq!(daemon.wait_for_log("model version loaded")["model"], "a-good");
        // A proxy would send it requests for the other.
        assert_eq!(RawClient::connect(daemon.admin).request(get("/readyz")).problem_kind(), "model-not-ready");
        assert_eq!(RawClient::connect(daemon.admin).request(get("/health")).status, 503);
        if let Some(status) = status {
            let body = r#"{"text": "10"}"#;
            assert_eq!(
                RawClient::connect(daemon.address).request(request("POST", "/predict", "", body)).status,
                status
            );
        } else {
            assert_eq!(TcpStream::connect(daemon.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(model_states(&daemon), [["a-good", "ready"], ["b-endless", "loading"]]);
        daemon.signal("TERM");
        let (status, log) = daemon.wait();
        assert!(status.success() && !log.contains("\"data listener opened\""), "{log}");
    }
}

#[test]
fn startup_corrupt_model_is_failed_others_answer() {
    let place = Scene::new();
    let whole = ModelBuilder::plain();
    whole.clone().with_graph(&whole.graph_bytes()[..whole.graph_bytes().len() / 2]).write(
        place.models(),
        "a-corrupt",
        "1",
    );
    let expected = [["a-corrupt", "failed"], [CHEAP_MODEL, "ready"]];
    let loaded = |options: &[&str]| {
        let mut daemon = place.launch(options);
        // The default goes first.
        if !options.is_empty() {
            daemon.wait_for_log("model version loaded");
        }
        let line = daemon.wait_for_log("model version load failed");
        assert_eq!((&line["model"], &line["level"]), (&json!("a-corrupt"), &json!("ERROR")), "{line}");
        assert!(line["error"].as_str().unwrap().starts_with("model.onnx: "), "{line}");
        if options.is_empty() {
            daemon.wait_for_log("model version loaded");
        }
        assert_eq!(model_states(&daemon), expected);
        assert_eq!(label(&predict_with(&daemon, Some(CHEAP_MODEL)).ok()), "card_arrival");
        assert_eq!(predict_with(&daemon, Some("a-corrupt")).problem_kind(), "model-not-ready");
        daemon
    };

    let daemon = loaded(&["--default-model", CHEAP_MODEL]);
    assert_eq!(predict_with(&daemon, None).status, 200);
    for address in [daemon.address, daemon.admin] {
        assert_eq!(RawClient::connect(address).request(get("/readyz")).status, 200);
        assert_eq!(RawClient::connect(address).request(get("/health")).status, 200);
    }

    drop(daemon);
    // The first by name is the default: without it the server is not ready, and says so at both doors.
    let daemon = loaded(&[]);
    assert_eq!(predict_with(&daemon, None).problem_kind(), "model-not-ready");
    for address in [daemon.address, daemon.admin] {
        assert_eq!(RawClient::connect(address).request(get("/readyz")).problem_kind(), "model-not-ready");
        let health = RawClient::connect(address).request(get("/health"));
        assert_eq!((health.status, health.json::<HealthReport>().status.as_str()), (503, "unhealthy"));
        assert_eq!(RawClient::connect(address).request(get("/livez")).status, 200);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}
