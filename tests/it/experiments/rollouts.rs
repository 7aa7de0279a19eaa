//! Where rollouts end.

use predictd::api::experiments::{ExperimentDesignBody, ExperimentView, GuardrailsBody, RolloutBody, RolloutStepBody};
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::daemon_requests::get_ok;
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, create_and_start, experiment_path, fetch_experiment, fetch_history, predict_as_user,
    second_model, second_model_failing_on_hello, send_change_ok, version_arm,
};
use crate::support::models_command::{change_model, recorded_active_version};
use crate::support::raw_client::{RawClient, request};
use crate::support::waiting::block_until;

/// Steps are weight, seconds and requests.
fn rollout_design(steps: &[(f64, u64, u64)], guards: Option<GuardrailsBody>) -> Value {
    let steps = steps.iter().map(|&(weight, seconds, requests)| RolloutStepBody {
        weight,
        seconds: Some(seconds),
        requests: Some(requests),
    });
    json!(ExperimentDesignBody {
        on: Some(MODEL.to_owned()),
        arms: vec![version_arm("old", "1", None), version_arm("new", "2", None)],
        rollout: Some(RolloutBody { steps: steps.collect(), guards }),
        ..ExperimentDesignBody::default()
    })
}

/// The default guardrails without that of p99, with 5 % of the requests allowed to fail.
fn lenient_guards() -> GuardrailsBody {
    GuardrailsBody { errors: Some(0.05), p99: None, ..GuardrailsBody::default() }
}

/// Asks as ever more users until something is so.
fn predict_until(daemon: &Daemon, text: &str, what: &str, holds: impl Fn(&ExperimentView) -> bool) -> ExperimentView {
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
        holds(&fetch_experiment(daemon, "new-one"))
    });
    fetch_experiment(daemon, "new-one")
}

#[test]
fn rollout_fields_left_out_get_defaults() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    let arms = json!([{ "name": "old", "version": "1" }, { "name": "new", "version": "2" }]);
    for (name, rollout, errors) in [
        ("plain", json!({ "steps": [{ "weight": 5 }, { "weight": 100 }] }), 0.01),
        ("guarded", json!({ "steps": [{ "weight": 0.05 }, { "weight": 1 }], "guards": { "errors": 0.05 } }), 0.05),
    ] {
        send_change_ok(&daemon, "PUT", name, "", &json!({ "on": MODEL, "arms": arms, "rollout": rollout }));
        let found: Value = get_ok(daemon.admin, &experiment_path(name));
        let steps = [0.05, 1.0].map(|weight| json!({ "weight": weight, "seconds": 3_600, "requests": 1_000 }));
        let guards = json!({ "errors": errors, "p99": 2.0, "accuracy": 0.0 });
        assert_eq!(found["rollout"], json!({ "steps": steps, "guards": guards }), "{found}");
    }
}

#[test]
fn rollout_completed_activates_version() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    change_model(&daemon, &["activate", MODEL, "1"]);
    // Without the guard of p99: a test's machine may be busy.
    let steps = [(5.0, 0, 1), (50.0, 1, 20), (100.0, 0, 10)];
    create_and_start(&daemon, "new-one", &rollout_design(&steps, Some(lenient_guards())));
    let first = fetch_experiment(&daemon, "new-one");
    assert_eq!((first.step, first.design.arms[1].weight), (Some(1), Some(0.05)));
    let ended = predict_until(&daemon, "10", "it is promoted", |found| found.state == "ended");
    assert_eq!(ended.outcome.as_deref(), Some("new became the active version"));
    let weights: Vec<f64> = ended.phases.iter().map(|phase| phase.weights["new"]).collect();
    assert_eq!(weights, [0.05, 0.5, 1.0]);
    assert_eq!(recorded_active_version(&daemon, MODEL).as_deref(), Some("2"));
    let history = fetch_history(&daemon, "new-one");
    let actions: Vec<&str> = history.iter().map(|done| done.action.as_str()).collect();
    assert_eq!(actions, ["promote", "step", "step", "start", "design"]);
}

#[test]
fn rollout_ends_when_another_version_is_activated() {
    // The version that comes, and another. Neither is undone, or replaced by what comes.
    for (steps, active) in [([(50.0, 3_600, 1_000_000), (100.0, 0, 0)], "2"), ([(50.0, 0, 0), (100.0, 3, 0)], "3")] {
        let scene = ExperimentScene::new();
        second_model().write(scene.models.path(), MODEL, "3");
        let daemon = scene.start();
        change_model(&daemon, &["activate", MODEL, "1"]);
        create_and_start(&daemon, "new-one", &rollout_design(&steps, Some(lenient_guards())));
        change_model(&daemon, &["activate", MODEL, active]);
        let ended = predict_until(&daemon, "10", "it ends", |found| found.state == "ended");
        assert_eq!(ended.outcome, Some(format!("version {active} was made the active one meanwhile")));
        assert_eq!(recorded_active_version(&daemon, MODEL).as_deref(), Some(active));
        let last = fetch_history(&daemon, "new-one").swap_remove(0);
        assert_eq!((last.action.as_str(), last.who.as_str()), ("end", "rollout"));
    }
}

#[test]
fn rollout_failing_version_is_rolled_back_with_reason() {
    let scene = ExperimentScene::with_second_version(&second_model_failing_on_hello());
    let daemon = scene.start();
    change_model(&daemon, &["activate", MODEL, "1"]);
    create_and_start(
        &daemon,
        "new-one",
        &rollout_design(&[(50.0, 3_600, 1_000_000), (100.0, 0, 0)], Some(lenient_guards())),
    );
    let ended = predict_until(&daemon, "hello", "it is taken back", |found| found.state == "ended");
    let outcome = ended.outcome.unwrap();
    assert!(outcome.starts_with("taken back: ") && outcome.contains("requests failed ("), "{outcome}");
    assert_eq!(recorded_active_version(&daemon, MODEL).as_deref(), Some("1"));
    // The end is recorded before predictions follow it.
    block_until("no arm is chosen", || {
        predict_as_user(&mut RawClient::connect(daemon.address), "10", "u").experiment.is_none()
    });
    let last = fetch_history(&daemon, "new-one").swap_remove(0);
    assert_eq!((last.action.as_str(), last.who.as_str()), ("take back", "rollout"));
    assert!(last.reason.as_deref().unwrap().contains("requests failed"), "{last:?}");
}
