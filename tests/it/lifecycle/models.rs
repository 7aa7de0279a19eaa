//! Models that cannot be loaded, beside others that can.

use std::io::ErrorKind;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::Place;
use crate::daemon::{Daemon, serving};
use crate::fixture::{Model, endless};
use crate::raw::{Wire, get, request};
use crate::server::{CHEAP_MODEL, QUESTION};

fn states(daemon: &Daemon) -> Value {
    let health = Wire::to(daemon.admin).ask(get("/health")).json();
    health["models"].as_array().unwrap().iter().map(|model| json!([model["name"], model["state"]])).collect()
}

fn ask(daemon: &Daemon, model: Option<&str>) -> crate::raw::Answer {
    let body = json!({ "text": QUESTION, "model": model }).to_string();
    Wire::to(daemon.address).ask(request("POST", "/predict", "", &body))
}

#[test]
fn connections_are_refused_until_the_default_model_is_ready_where_that_is_said() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Model::plain().write(models.path(), "good", "1");
    let options = ["--accept", "ready", "--grace", "1s"];
    let mut daemon = Daemon::launch(&mut serving(models.path(), data.path(), &options));
    daemon.logged("connections are accepted");
    let body = r#"{"text": "10"}"#;
    assert_eq!(Wire::to(daemon.address).ask(request("POST", "/predict", "", body)).status, 200);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());

    // It takes long to find out that this one never answers.
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    endless::on_every_text().write(models.path(), "endless", "1");
    let daemon = Daemon::launch(&mut serving(models.path(), data.path(), &options));
    assert_eq!(Wire::to(daemon.admin).ask(get("/readyz")).status, 503);
    assert_eq!(TcpStream::connect(daemon.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success() && !log.contains("\"connections are accepted\""), "{log}");
}

#[test]
fn a_server_is_ready_only_once_every_model_was_tried() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // The default, and one that takes long.
    Model::plain().write(models.path(), "a-good", "1");
    endless::on_every_text().write(models.path(), "b-endless", "1");
    let at_once = serving(models.path(), data.path(), &["--grace", "1s"]);
    let when_ready = serving(models.path(), data.path(), &["--grace", "1s", "--accept", "ready"]);
    for (mut command, status) in [(at_once, Some(200)), (when_ready, None)] {
        let mut daemon = Daemon::launch(&mut command);
        assert_eq!(daemon.logged("the model is ready")["model"], "a-good");
        // A proxy would send it requests for the other.
        assert_eq!(Wire::to(daemon.admin).ask(get("/readyz")).problem(), "model-not-ready");
        assert_eq!(Wire::to(daemon.admin).ask(get("/health")).status, 503);
        if let Some(status) = status {
            let body = r#"{"text": "10"}"#;
            assert_eq!(Wire::to(daemon.address).ask(request("POST", "/predict", "", body)).status, status);
        } else {
            assert_eq!(TcpStream::connect(daemon.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(states(&daemon), json!([["a-good", "ready"], ["b-endless", "loading"]]));
        daemon.signal("TERM");
        let (status, log) = daemon.wait();
        assert!(status.success() && !log.contains("\"connections are accepted\""), "{log}");
    }
}

#[test]
fn a_corrupt_model_is_listed_as_failed_and_the_other_answers() {
    let place = Place::new();
    let whole = Model::plain();
    whole.clone().with_graph(&whole.graph()[..whole.graph().len() / 2]).write(place.models(), "a-corrupt", "1");
    let expected = json!([["a-corrupt", "failed"], [CHEAP_MODEL, "ready"]]);
    let loaded = |options: &[&str]| {
        let mut daemon = place.launch(options);
        // The default goes first.
        if !options.is_empty() {
            daemon.logged("the model is ready");
        }
        let line = daemon.logged("the model could not be loaded");
        assert_eq!((&line["model"], &line["level"]), (&json!("a-corrupt"), &json!("ERROR")), "{line}");
        assert!(line["error"].as_str().unwrap().starts_with("model.onnx: "), "{line}");
        if options.is_empty() {
            daemon.logged("the model is ready");
        }
        assert_eq!(states(&daemon), expected);
        assert_eq!(ask(&daemon, Some(CHEAP_MODEL)).json()["prediction"], "card_arrival");
        assert_eq!(ask(&daemon, Some("a-corrupt")).problem(), "model-not-ready");
        daemon
    };

    let daemon = loaded(&["--default-model", CHEAP_MODEL]);
    assert_eq!(ask(&daemon, None).status, 200);
    for address in [daemon.address, daemon.admin] {
        assert_eq!(Wire::to(address).ask(get("/readyz")).status, 200);
        assert_eq!(Wire::to(address).ask(get("/health")).status, 200);
    }

    drop(daemon);
    // The first by name is the default: without it the server is not ready, and says so at both doors.
    let daemon = loaded(&[]);
    assert_eq!(ask(&daemon, None).problem(), "model-not-ready");
    for address in [daemon.address, daemon.admin] {
        assert_eq!(Wire::to(address).ask(get("/readyz")).problem(), "model-not-ready");
        let health = Wire::to(address).ask(get("/health"));
        assert_eq!((health.status, &health.json()["status"]), (503, &json!("unhealthy")));
        assert_eq!(Wire::to(address).ask(get("/livez")).status, 200);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}
