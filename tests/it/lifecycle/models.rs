//! Models that cannot be loaded, beside others that can.

use serde_json::{Value, json};

use super::Place;
use crate::daemon::Daemon;
use crate::fixture::Model;
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
fn a_corrupt_model_is_listed_as_failed_and_the_other_answers() {
    let place = Place::new();
    let whole = Model::plain();
    whole.clone().with_graph(&whole.graph()[..whole.graph().len() / 2]).write(place.models(), "a-corrupt", "1");
    let expected = json!([["a-corrupt", "failed"], [CHEAP_MODEL, "ready"]]);
    let loaded = |options: &[&str]| {
        let mut daemon = place.launch(options);
        let line = daemon.logged("the model could not be loaded");
        assert_eq!((&line["model"], &line["level"]), (&json!("a-corrupt"), &json!("ERROR")), "{line}");
        assert!(line["error"].as_str().unwrap().starts_with("model.onnx: "), "{line}");
        daemon.logged("the model is ready");
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
