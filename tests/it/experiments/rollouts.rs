//! Where rollouts end.

use serde_json::{Value, json};

use super::{
    MODEL, Scene, create_and_start, experiment_path, predict_as_user, second_model, second_model_failing_on_hello,
};
use crate::support::daemon::Daemon;
use crate::support::models_command::run_models_command;
use crate::support::raw_client::{RawClient, get, request};
use crate::support::waiting::block_until;

fn rollout_design(steps: &[(f64, u64, u64)], guards: &Value) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|(weight, seconds, requests)| json!({ "weight": weight, "seconds": seconds, "requests": requests }))
        .collect();
    json!({ "on": MODEL, "arms": [{ "name": "old", "version": "1" }, { "name": "new", "version": "2" }],
        "rollout": { "steps": steps, "guards": guards } })
}

/// Asks as ever more users until something is so.
fn predict_until(daemon: &Daemon, text: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut wire = RawClient::connect(daemon.address);
    let user = std::cell::Cell::new(0_u32);
    let wire = std::cell::RefCell::new(&mut wire);
    block_until(what, || {
        for _ in 0..20 {
            user.set(user.get() + 1);
            let body = json!({ "text": text, "model": MODEL, "user_id": user.get().to_string() }).to_string();
            let answer = wire.borrow_mut().request(request("POST", "/predict", "", &body));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        holds(&RawClient::connect(daemon.admin).request(get(&experiment_path("new-one"))).json::<Value>())
    });
    RawClient::connect(daemon.admin).request(get(&experiment_path("new-one"))).json::<Value>()
}

#[test]
fn rollout_completed_activates_version() {
    let scene = Scene::new();
    let daemon = scene.start();
    run_models_command(&daemon, &["activate", MODEL, "1"]);
    create_and_start(&daemon, "new-one", &rollout_design(&[(5.0, 0, 1), (50.0, 1, 20), (100.0, 0, 10)], &Value::Null));
    let first = RawClient::connect(daemon.admin).request(get(&experiment_path("new-one"))).json::<Value>();
    assert_eq!((&first["step"], &first["arms"][1]["weight"]), (&json!(1), &json!(0.05)));
    let ended = predict_until(&daemon, "10", "it is promoted", |found| found["state"] == "ended");
    assert_eq!(
        (&ended["outcome"], ended["phases"].as_array().unwrap().len()),
        (&json!("new became the active version"), 3)
    );
    let weights: Vec<_> =
        ended["phases"].as_array().unwrap().iter().map(|phase| phase["weights"]["new"].clone()).collect();
    assert_eq!(weights, [json!(0.05), json!(0.5), json!(1.0)]);
    assert_eq!(run_models_command(&daemon, &["show", MODEL])["active"], "2");
    let history = RawClient::connect(daemon.admin)
        .request(get(&format!("{}/history", experiment_path("new-one"))))
        .json::<Value>();
    let told: Vec<_> = history.as_array().unwrap().iter().map(|done| done["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["promote", "step", "step", "start", "design"]);
}

#[test]
fn rollout_ends_when_another_version_is_activated() {
    // The version that comes, and another. Neither is undone, or replaced by what comes.
    for (steps, active) in [([(50.0, 3_600, 1_000_000), (100.0, 0, 0)], "2"), ([(50.0, 0, 0), (100.0, 3, 0)], "3")] {
        let scene = Scene::new();
        second_model().write(scene.models.path(), MODEL, "3");
        let daemon = scene.start();
        run_models_command(&daemon, &["activate", MODEL, "1"]);
        create_and_start(&daemon, "new-one", &rollout_design(&steps, &json!({ "errors": 0.05 })));
        run_models_command(&daemon, &["activate", MODEL, active]);
        let ended = predict_until(&daemon, "10", "it ends", |found| found["state"] == "ended");
        assert_eq!(ended["outcome"], json!(format!("version {active} was made the active one meanwhile")));
        assert_eq!(run_models_command(&daemon, &["show", MODEL])["active"], active);
        let history = RawClient::connect(daemon.admin)
            .request(get(&format!("{}/history", experiment_path("new-one"))))
            .json::<Value>();
        assert_eq!((&history[0]["action"], &history[0]["who"]), (&json!("end"), &json!("rollout")));
    }
}

#[test]
fn rollout_failing_version_is_rolled_back_with_reason() {
    let scene = Scene::with_second_version(&second_model_failing_on_hello());
    let daemon = scene.start();
    run_models_command(&daemon, &["activate", MODEL, "1"]);
    create_and_start(
        &daemon,
        "new-one",
        &rollout_design(&[(50.0, 3_600, 1_000_000), (100.0, 0, 0)], &json!({ "errors": 0.05 })),
    );
    let ended = predict_until(&daemon, "hello", "it is taken back", |found| found["state"] == "ended");
    let outcome = ended["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("taken back: ") && outcome.contains("requests failed ("), "{outcome}");
    assert_eq!(run_models_command(&daemon, &["show", MODEL])["active"], "1");
    assert_eq!(predict_as_user(&mut RawClient::connect(daemon.address), "10", "u")["experiment"], Value::Null);
    let history = RawClient::connect(daemon.admin)
        .request(get(&format!("{}/history", experiment_path("new-one"))))
        .json::<Value>();
    assert_eq!((&history[0]["action"], &history[0]["who"]), (&json!("take back"), &json!("rollout")));
    assert!(history[0]["reason"].as_str().unwrap().contains("requests failed"), "{history}");
}
