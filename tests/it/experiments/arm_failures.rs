//! Arms that cannot answer: never the caller's problem, always counted.

use predictd::api::predictions::{ArmAttribution, BatchAnswer, Prediction};
use serde_json::json;

use crate::support::answers::{item_answer, label};
use crate::support::daemon_requests::{fell_back, post, status_and_pointer};
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, arm_results, create_and_start, feedback_item, fetch_arm_results, fetch_results,
    post_feedback_ok, predict_as_user, second_model, second_model_failing_on_hello, send_change, send_change_ok,
    two_arm_design, version_arm,
};
use crate::support::model_builder::slow_models;
use crate::support::models_command::{change_model, change_model_refused};
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

#[test]
fn arm_failure_falls_back_to_control_and_counts_as_wrong() {
    let scene = ExperimentScene::with_second_version(&second_model_failing_on_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let mut wire = RawClient::connect(daemon.address);
    let good = predict_as_user(&mut wire, "10 20", "u");
    assert_eq!((good.model.version.as_str(), fell_back(&good)), ("2", false));
    let fallen = predict_as_user(&mut wire, "hello", "u");
    assert_eq!((fallen.model.version.as_str(), label(&fallen)), ("1", "a"));
    let attribution = ArmAttribution { name: "colours".to_owned(), arm: "new".to_owned(), fell_back: true };
    assert_eq!(fallen.experiment, Some(attribution));
    // Of a batch, what the arm cannot answer.
    let body = json!({ "texts": ["10", "hello", "20"], "user_id": "u" }).to_string();
    let batch: BatchAnswer = wire.request(request("POST", "/batch_predict", "", &body)).ok();
    let answers = batch.results.iter().map(item_answer);
    let versions: Vec<_> = answers.map(|answer| (answer.model.version.as_str(), fell_back(answer))).collect();
    assert_eq!(versions, [("2", false), ("1", true), ("2", false)]);
    // The control was right, and the arm gave no answer.
    post_feedback_ok(&daemon, &[feedback_item(&good, "b"), feedback_item(&fallen, "a")]);
    let found = fetch_results(&daemon, "colours", "");
    let new = arm_results(&found, "new");
    assert_eq!((new.requests, new.texts), (3, 5));
    assert_eq!(new.failed, [("model-output-invalid".to_owned(), 2)].into());
    let feedback = &new.feedback;
    assert_eq!((feedback.labelled, feedback.correct, feedback.failed), (2, 1, 1));
    assert_eq!(arm_results(&found, "old").requests, 0);
    let failed = r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="failed"}"#;
    assert_eq!(metric(daemon.admin, failed), 2);
}

#[test]
fn arm_timeout_leaves_control_time_to_answer() {
    let scene = ExperimentScene::with_second_version(&slow_models::never_answers_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let body = json!({ "text": "hello", "user_id": "u" }).to_string();
    let answer = RawClient::connect(daemon.address).request(request(
        "POST",
        "/predict",
        "X-Request-Timeout-Ms: 4000\r\n",
        &body,
    ));
    let answer: Prediction = answer.ok();
    assert_eq!((answer.model.version.as_str(), fell_back(&answer)), ("1", true));
    let failed = fetch_arm_results(&daemon, "colours", "new").failed;
    assert_eq!(failed, [("deadline-exceeded".to_owned(), 1)].into());
}

#[test]
fn arm_invalid_request_is_not_counted_as_failure() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let answer = post(daemon.address, "/predict", &json!({ "text": "1", "labels": ["x"], "user_id": "u" }));
    assert_eq!(status_and_pointer(&answer), (422, "/labels".to_owned()));
    let found = fetch_results(&daemon, "colours", "");
    for name in ["new", "old"] {
        assert!(arm_results(&found, name).failed.is_empty(), "{found:?}");
    }
}

#[test]
fn experiment_version_in_use_cannot_be_removed() {
    let scene = ExperimentScene::new();
    let third = tempfile::tempdir().unwrap();
    let directory = second_model().write(third.path(), MODEL, "3");
    let daemon = scene.start();
    change_model(&daemon, &["register", MODEL, "3", directory.to_str().unwrap()]);
    let arms = [version_arm("old", "1", Some(50.0)), version_arm("new", "3", Some(50.0))];
    let design = json!({ "on": MODEL, "arms": arms });
    send_change_ok(&daemon, "PUT", "colours", "", &design);
    let sentence = change_model_refused(&daemon, &["remove", MODEL, "3"]);
    assert!(sentence.contains("version 3 is in experiment colours"), "{sentence}");
    // It was not loaded before, and answers now.
    send_change_ok(&daemon, "POST", "colours", "/start", &json!({}));
    let mut wire = RawClient::connect(daemon.address);
    let answers: Vec<Prediction> = (0..20).map(|user| predict_as_user(&mut wire, "1", &user.to_string())).collect();
    assert!(answers.iter().all(|answer| !fell_back(answer)));
    assert!(answers.iter().any(|answer| answer.model.version == "3"));
    assert!(change_model_refused(&daemon, &["remove", MODEL, "3"]).contains("colours"));
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    change_model(&daemon, &["remove", MODEL, "3"]);
    // What is not there cannot be compared.
    let answer = send_change(&daemon, "PUT", "other", "", &design);
    assert_eq!(status_and_pointer(&answer), (422, "/arms/1/version".to_owned()));
}

#[test]
fn arm_client_disconnect_is_counted_with_wait_time() {
    let scene = ExperimentScene::with_second_version(&slow_models::never_answers_hello_queued());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.0, 1.0));
    let body = json!({ "text": "hello", "user_id": "u" }).to_string();
    let mut wire = RawClient::connect(daemon.address);
    wire.send(request("POST", "/predict", "", &body));
    block_until("it is in work", || fetch_arm_results(&daemon, "colours", "new").requests == 1);
    drop(wire);
    block_until("it is noticed", || fetch_arm_results(&daemon, "colours", "new").left == 1);
    let left = r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="left"}"#;
    assert_eq!(metric(daemon.admin, left), 1);
}

#[test]
fn experiment_control_missing_uses_active_version() {
    let scene = ExperimentScene::new();
    let mut daemon = scene.start();
    change_model(&daemon, &["activate", MODEL, "2"]);
    create_and_start(&daemon, "colours", &two_arm_design(1.0, 0.0));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // Its directory is damaged while the server is away.
    std::fs::write(scene.models.path().join(MODEL).join("1/model.onnx"), "x").unwrap();
    daemon = scene.start();
    let mut wire = RawClient::connect(daemon.address);
    block_until("the experiment runs again", || {
        predict_as_user(&mut RawClient::connect(daemon.address), "10", "u").experiment.is_some()
    });
    let answer = predict_as_user(&mut wire, "10", "u");
    assert_eq!((answer.model.version.as_str(), fell_back(&answer)), ("2", true));
    assert!(fetch_arm_results(&daemon, "colours", "old").failed["model-not-ready"] >= 1);
}

#[test]
fn activate_response_names_running_experiment() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    assert_eq!(change_model(&daemon, &["activate", MODEL, "1"]).experiment.as_deref(), Some("colours"));
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    assert_eq!(change_model(&daemon, &["activate", MODEL, "2"]).experiment, None);
    // A rollout that is taken back leaves the active version: that must be its control.
    let arms = [version_arm("old", "1", None), version_arm("new", "2", None)];
    let design = json!({ "on": MODEL, "arms": arms, "rollout": { "steps": [{ "weight": 1.0 }] } });
    send_change_ok(&daemon, "PUT", "new-one", "", &design);
    let refused = send_change(&daemon, "POST", "new-one", "/start", &json!({}));
    assert_eq!((refused.status, refused.problem_kind()), (409, "conflict".to_owned()), "{refused:?}");
}
