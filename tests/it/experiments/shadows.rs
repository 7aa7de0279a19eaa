//! Shadows: they see texts, nobody gets their answers, and what they do to themselves is nobody's problem.

use std::time::Instant;

use serde_json::{Value, json};

use super::{MODEL, Scene, create_and_start, fetch_results, predict_as_user};
use crate::support::model_builder::slow_models;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

fn shadow_design() -> Value {
    json!({ "on": MODEL, "arms": [
        { "name": "old", "version": "1", "weight": 1 }, { "name": "shade", "version": "2", "shadow": true },
    ]})
}

#[test]
fn shadow_is_compared_but_never_answers() {
    let scene = Scene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &shadow_design());
    let mut wire = RawClient::connect(daemon.address);
    for user in 0..50 {
        let answer = predict_as_user(&mut wire, &user.to_string(), &user.to_string());
        assert_eq!((&answer["prediction"], &answer["model"]["version"]), (&json!("a"), &json!("1")));
        assert_eq!(answer["experiment"]["arm"], "old");
    }
    let batch = json!({ "texts": (0..20).map(|n| format!("9 {n}")).collect::<Vec<_>>(), "user_id": "u" });
    assert_eq!(wire.request(request("POST", "/batch_predict", "", &batch.to_string())).status, 200);
    let seen = |found: &Value| {
        let shadow = &found["shadows"][0];
        ["compared", "skipped", "failed"].map(|part| shadow[part].as_u64().unwrap())
    };
    block_until("all were shown", || seen(&fetch_results(&daemon, "colours", "")).iter().sum::<u64>() == 70);
    let found = fetch_results(&daemon, "colours", "");
    let [compared, _, failed] = seen(&found);
    let shadow = &found["shadows"][0];
    assert!(compared >= 30 && failed == 0, "{found}");
    // It says `b` where `a` was answered.
    assert_eq!(shadow["agreement"], 0.0);
    assert!(
        shadow["distance"].as_f64().unwrap() > 0.5 && shadow["milliseconds"]["p50"].as_f64().unwrap() > 0.0,
        "{shadow}"
    );
    assert_eq!(
        metric(daemon.admin, r#"predictd_shadow_items_total{arm="shade",experiment="colours",outcome="differed"}"#),
        compared
    );
    // What a shadow said counts for nothing else.
    assert_eq!(metric(daemon.admin, r#"predictd_predictions_total{model="m",version="2"}"#), 0);
    assert_eq!(found["verdict"], "There is one arm: nothing is compared by feedback.");
}

#[test]
fn shadow_hanging_delays_no_request() {
    let scene = Scene::with_second_version(&slow_models::never_answers_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &shadow_design());
    let mut wire = RawClient::connect(daemon.address);
    // More than can wait.
    for user in 0..400 {
        let answer = predict_as_user(&mut wire, "hello", &user.to_string());
        assert_eq!((&answer["model"]["version"], &answer["experiment"]["fell_back"]), (&json!("1"), &json!(false)));
    }
    let outcome = |outcome: &str| {
        metric(
            daemon.admin,
            &format!(r#"predictd_shadow_items_total{{arm="shade",experiment="colours",outcome="{outcome}"}}"#),
        )
    };
    assert!(outcome("skipped") > 100, "the queue has an end");
    block_until("the first is given up", || outcome("failed") > 0);
    assert_eq!(predict_as_user(&mut wire, "10", "u")["model"]["version"], "1");
    // With a run that does not end, the server does.
    let start = Instant::now();
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert!(start.elapsed().as_secs() < 30);
}
