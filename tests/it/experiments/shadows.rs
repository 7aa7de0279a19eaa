//! Shadows: they see texts, nobody gets their answers, and what they do to themselves is nobody's problem.

use std::time::Instant;

use serde_json::{Value, json};

use super::{NAME, Scene, ask, results, run};
use crate::fixture::endless;
use crate::raw::{Wire, metric, request, until};

fn shadowed() -> Value {
    json!({ "on": NAME, "arms": [
        { "name": "old", "version": "1", "weight": 1 }, { "name": "shade", "version": "2", "shadow": true },
    ]})
}

#[test]
fn a_shadow_is_compared_and_never_answers() {
    let scene = Scene::new();
    let daemon = scene.start();
    run(&daemon, "colours", &shadowed());
    let mut wire = Wire::to(daemon.address);
    for user in 0..50 {
        let answer = ask(&mut wire, &user.to_string(), &user.to_string());
        assert_eq!((&answer["prediction"], &answer["model"]["version"]), (&json!("a"), &json!("1")));
        assert_eq!(answer["experiment"]["arm"], "old");
    }
    let batch = json!({ "texts": (0..20).map(|n| format!("9 {n}")).collect::<Vec<_>>(), "user_id": "u" });
    assert_eq!(wire.ask(request("POST", "/batch_predict", "", &batch.to_string())).status, 200);
    let seen = |found: &Value| {
        let shadow = &found["shadows"][0];
        ["compared", "skipped", "failed"].map(|part| shadow[part].as_u64().unwrap())
    };
    until("all were shown", || seen(&results(&daemon, "colours", "")).iter().sum::<u64>() == 70);
    let found = results(&daemon, "colours", "");
    let ([compared, _, failed], shadow) = (seen(&found), &found["shadows"][0]);
    assert!(compared >= 30 && failed == 0, "{found}");
    // It says `b` where `a` was answered.
    assert_eq!(shadow["agreement"], 0.0);
    assert!(
        shadow["distance"].as_f64().unwrap() > 0.5 && shadow["milliseconds"]["p50"].as_f64().unwrap() > 0.0,
        "{shadow}"
    );
    assert_eq!(
        metric(daemon.admin, r#"predictd_shadow_texts_total{arm="shade",experiment="colours",outcome="differed"}"#),
        compared
    );
    // What a shadow said counts for nothing else.
    assert_eq!(metric(daemon.admin, r#"predictd_predictions_total{model="m",version="2"}"#), 0);
    assert_eq!(found["verdict"], "There is one arm: nothing is compared by feedback.");
}

#[test]
fn a_shadow_that_never_answers_holds_nobody_up() {
    let scene = Scene::with(&endless::on_hello());
    let daemon = scene.start();
    run(&daemon, "colours", &shadowed());
    let mut wire = Wire::to(daemon.address);
    // More than can wait.
    for user in 0..400 {
        let answer = ask(&mut wire, "hello", &user.to_string());
        assert_eq!((&answer["model"]["version"], &answer["experiment"]["fell_back"]), (&json!("1"), &json!(false)));
    }
    let outcome = |outcome: &str| {
        metric(
            daemon.admin,
            &format!(r#"predictd_shadow_texts_total{{arm="shade",experiment="colours",outcome="{outcome}"}}"#),
        )
    };
    assert!(outcome("skipped") > 100, "the queue has an end");
    until("the first is given up", || outcome("failed") > 0);
    assert_eq!(ask(&mut wire, "10", "u")["model"]["version"], "1");
    // With a run that does not end, the server does.
    let start = Instant::now();
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert!(start.elapsed().as_secs() < 30);
}
