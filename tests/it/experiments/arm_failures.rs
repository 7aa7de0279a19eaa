//! Arms that cannot answer: never the caller's problem, always counted.

use serde_json::{Value, json};

use super::{
    MODEL, Scene, arm_results, create_and_start, fetch_results, post_feedback, predict_as_user,
    second_model_failing_on_hello, send_change, send_change_ok, two_arm_design,
};
use crate::support::model_builder::slow_models;
use crate::support::models_command::{run_models_command, run_models_command_refused};
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

#[test]
fn arm_failure_falls_back_to_control_and_counts_as_wrong() {
    let scene = Scene::with_second_version(&second_model_failing_on_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let mut wire = RawClient::connect(daemon.address);
    let good = predict_as_user(&mut wire, "10 20", "u");
    assert_eq!((&good["model"]["version"], &good["experiment"]["fell_back"]), (&json!("2"), &json!(false)));
    let fallen = predict_as_user(&mut wire, "hello", "u");
    assert_eq!((&fallen["model"]["version"], &fallen["prediction"]), (&json!("1"), &json!("a")));
    assert_eq!(fallen["experiment"], json!({ "name": "colours", "arm": "new", "fell_back": true }));
    // Of a batch, what the arm cannot answer.
    let body = json!({ "texts": ["10", "hello", "20"], "user_id": "u" }).to_string();
    let batch = wire.request(request("POST", "/batch_predict", "", &body)).json::<Value>();
    let of = |place: usize| {
        (
            batch["results"][place]["model"]["version"].clone(),
            batch["results"][place]["experiment"]["fell_back"].clone(),
        )
    };
    assert_eq!(
        [of(0), of(1), of(2)],
        [(json!("2"), json!(false)), (json!("1"), json!(true)), (json!("2"), json!(false))]
    );
    // The control was right, and the arm gave no answer.
    post_feedback(
        &daemon,
        &[
            json!({ "prediction_id": good["prediction_id"], "actual": "b" }),
            json!({ "prediction_id": fallen["prediction_id"], "actual": "a" }),
        ],
    );
    let found = fetch_results(&daemon, "colours", "");
    let new = arm_results(&found, "new");
    assert_eq!(
        (&new["requests"], &new["texts"], &new["failed"]),
        (&json!(3), &json!(5), &json!({ "model-output-invalid": 2 }))
    );
    let feedback = &new["feedback"];
    assert_eq!((&feedback["labelled"], &feedback["correct"], &feedback["failed"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(arm_results(&found, "old")["requests"], 0);
    let failed = r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="failed"}"#;
    assert_eq!(metric(daemon.admin, failed), 2);
}

#[test]
fn arm_timeout_leaves_control_time_to_answer() {
    let scene = Scene::with_second_version(&slow_models::never_answers_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let body = json!({ "text": "hello", "user_id": "u" }).to_string();
    let answer = RawClient::connect(daemon.address).request(request(
        "POST",
        "/predict",
        "X-Request-Timeout-Ms: 4000\r\n",
        &body,
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json::<Value>();
    assert_eq!((&answer["model"]["version"], &answer["experiment"]["fell_back"]), (&json!("1"), &json!(true)));
    assert_eq!(arm_results(&fetch_results(&daemon, "colours", ""), "new")["failed"], json!({ "deadline-exceeded": 1 }));
}

#[test]
fn arm_invalid_request_is_not_counted_as_failure() {
    let scene = Scene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let body = json!({ "text": "1", "labels": ["x"], "user_id": "u" }).to_string();
    let answer = RawClient::connect(daemon.address).request(request("POST", "/predict", "", &body));
    assert_eq!((answer.status, &answer.json::<Value>()["errors"][0]["pointer"]), (422, &json!("/labels")));
    let found = fetch_results(&daemon, "colours", "");
    assert_eq!(
        (&arm_results(&found, "new")["failed"], &arm_results(&found, "old")["failed"]),
        (&json!({}), &json!({}))
    );
}

#[test]
fn experiment_version_in_use_cannot_be_removed() {
    let scene = Scene::new();
    let third = tempfile::tempdir().unwrap();
    let directory = super::second_model().write(third.path(), MODEL, "3");
    let daemon = scene.start();
    run_models_command(&daemon, &["register", MODEL, "3", directory.to_str().unwrap()]);
    let design = json!({ "on": MODEL, "arms": [
        { "name": "old", "version": "1", "weight": 50 }, { "name": "new", "version": "3", "weight": 50 },
    ]});
    send_change_ok(&daemon, "PUT", "colours", "", &design);
    let sentence = run_models_command_refused(&daemon, &["remove", MODEL, "3"]);
    assert!(sentence.contains("version 3 is in experiment colours"), "{sentence}");
    // It was not loaded before, and answers now.
    send_change_ok(&daemon, "POST", "colours", "/start", &json!({}));
    let mut wire = RawClient::connect(daemon.address);
    let answers: Vec<Value> = (0..20).map(|user| predict_as_user(&mut wire, "1", &user.to_string())).collect();
    assert!(answers.iter().all(|answer| answer["experiment"]["fell_back"] == false));
    assert!(answers.iter().any(|answer| answer["model"]["version"] == "3"));
    assert!(run_models_command_refused(&daemon, &["remove", MODEL, "3"]).contains("colours"));
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    run_models_command(&daemon, &["remove", MODEL, "3"]);
    // What is not there cannot be compared.
    let answer = send_change(&daemon, "PUT", "other", "", &design);
    assert_eq!((answer.status, &answer.json::<Value>()["errors"][0]["pointer"]), (422, &json!("/arms/1/version")));
}

#[test]
fn arm_client_disconnect_is_counted_with_wait_time() {
    let scene = Scene::with_second_version(&slow_models::never_answers_hello_queued());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let body = json!({ "text": "hello", "user_id": "u" }).to_string();
    let mut wire = RawClient::connect(daemon.address);
    wire.send(request("POST", "/predict", "", &body));
    block_until("it is in work", || arm_results(&fetch_results(&daemon, "colours", ""), "new")["requests"] == 1);
    drop(wire);
    block_until("it is noticed", || arm_results(&fetch_results(&daemon, "colours", ""), "new")["left"] == 1);
    let left = r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="left"}"#;
    assert_eq!(metric(daemon.admin, left), 1);
}

#[test]
fn experiment_control_missing_uses_active_version() {
    let scene = Scene::new();
    let mut daemon = scene.start();
    run_models_command(&daemon, &["activate", MODEL, "2"]);
    create_and_start(&daemon, "colours", &two_arm_design(1.0, 0.0));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // Its directory is damaged while the server is away.
    std::fs::write(scene.models.path().join(MODEL).join("1/model.onnx"), "x").unwrap();
    daemon = scene.start();
    let mut wire = RawClient::connect(daemon.address);
    block_until("the experiment runs again", || {
        predict_as_user(&mut RawClient::connect(daemon.address), "10", "u")["experiment"] != Value::Null
    });
    let answer = predict_as_user(&mut wire, "10", "u");
    assert_eq!((&answer["model"]["version"], &answer["experiment"]["fell_back"]), (&json!("2"), &json!(true)));
    assert!(
        arm_results(&fetch_results(&daemon, "colours", ""), "old")["failed"]["model-not-ready"].as_u64().unwrap() >= 1
    );
}

#[test]
fn activate_response_names_running_experiment() {
    let scene = Scene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    assert_eq!(run_models_command(&daemon, &["activate", MODEL, "1"])["experiment"], "colours");
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    assert_eq!(run_models_command(&daemon, &["activate", MODEL, "2"])["experiment"], Value::Null);
    // A rollout that is taken back leaves the active version: that must be its control.
    let design = json!({ "on": MODEL, "arms": [{ "name": "old", "version": "1" }, { "name": "new", "version": "2" }],
        "rollout": { "steps": [{ "weight": 1.0 }] } });
    send_change_ok(&daemon, "PUT", "new-one", "", &design);
    let refused = send_change(&daemon, "POST", "new-one", "/start", &json!({}));
    assert_eq!((refused.status, refused.problem_kind()), (409, "conflict".to_owned()), "{refused:?}");
}
