//! Who gets which arm.

use predictd::api::predictions::{BatchAnswer, Prediction};
use predictd::experiments::bucketing::{Bucketing, choose_arm};
use serde_json::{Value, json};

use crate::support::answers::{item_answer, label};
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{arm, fell_back, status_and_pointer};
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, create_and_start, fetch_arm_results, predict_as_user, send_change_ok, two_arm_design,
};
use crate::support::raw_client::{RawClient, RawResponse, request};

/// The arm that a user must be in, by the recipe.
fn expected_arm(salt: &str, user: &str, weights: [f64; 2]) -> &'static str {
    ["old", "new"][choose_arm(weights, Bucketing::from_user(salt, user).position).unwrap()]
}

/// The arms of 200 users, whose answers must be those of their arms.
fn chosen_arms(daemon: &Daemon) -> Vec<String> {
    let mut wire = RawClient::connect(daemon.address);
    let chosen_arm = |user: u32| {
        let answer = predict_as_user(&mut wire, "10 20", &format!("user {user}"));
        let arm = arm(&answer).unwrap();
        let expected = if arm == "new" { ("b", "2") } else { ("a", "1") };
        assert_eq!((label(&answer), answer.model.version.as_str()), expected);
        assert!(!fell_back(&answer), "{answer:?}");
        arm.to_owned()
    };
    (0..200).map(chosen_arm).collect()
}

#[test]
fn bucketing_user_arm_is_stable_across_servers() {
    let scene = ExperimentScene::new();
    let elsewhere = ExperimentScene::new();
    let weights = [0.3, 0.7];
    let daemon = scene.start();
    let other = elsewhere.start();
    for daemon in [&daemon, &other] {
        create_and_start(daemon, "colours", &two_arm_design(weights[0], weights[1]));
    }
    let expected: Vec<String> =
        (0..200).map(|user| expected_arm("colours", &format!("user {user}"), weights).to_owned()).collect();
    assert_eq!(chosen_arms(&daemon), expected);
    assert_eq!(chosen_arms(&other), expected);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    assert_eq!(chosen_arms(&scene.start()), expected);
}

fn post_with_head(daemon: &Daemon, path: &str, head: &str, body: &Value) -> RawResponse {
    RawClient::connect(daemon.address).request(request("POST", path, head, &body.to_string()))
}

fn predict_with_head(daemon: &Daemon, head: &str, body: &Value) -> Prediction {
    post_with_head(daemon, "/predict", head, body).ok()
}

#[test]
fn bucketing_user_id_comes_from_header_or_body_only() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    // As an operator writes it: without the fields that may be left out, the weights as whole numbers.
    let arms =
        json!([{ "name": "old", "version": "1", "weight": 50 }, { "name": "new", "version": "2", "weight": 50 }]);
    let design = json!({ "salt": "s", "anonymous": "control", "on": MODEL, "arms": arms });
    create_and_start(&daemon, "colours", &design);
    let user = (0..1_000).map(|i| i.to_string()).find(|user| expected_arm("s", user, [0.5, 0.5]) == "new").unwrap();
    let head = format!("X-User-Id: {user}\r\n");
    // Default model `m`: there is no other.
    assert_eq!(arm(&predict_with_head(&daemon, &head, &json!({ "text": "1" }))), Some("new"));
    assert_eq!(arm(&predict_with_head(&daemon, &head, &json!({ "text": "1", "user_id": user }))), Some("new"));
    for (head, body) in [(&*head, json!(["1", "2"])), ("", json!({ "texts": ["1", "2"], "user_id": user }))] {
        let batch: BatchAnswer = post_with_head(&daemon, "/batch_predict", head, &body).ok();
        assert!(batch.results.iter().all(|item| arm(item_answer(item)) == Some("new")), "{batch:?}");
    }
    let two = post_with_head(&daemon, "/predict", &head, &json!({ "text": "1", "user_id": "somebody else" }));
    assert_eq!(status_and_pointer(&two), (422, "/user_id".to_owned()));
    for wrong in [format!("X-User-Id: {}\r\n", "x".repeat(257)), "X-User-Id: \r\n".to_owned(), format!("{head}{head}")]
    {
        let refused = post_with_head(&daemon, "/predict", &wrong, &json!({ "text": "1" }));
        assert_eq!((refused.status, refused.problem_kind()), (400, "invalid-header".to_owned()), "{wrong}");
    }
    // A request without a user gets the control, and does not count in the comparison.
    for _ in 0..50 {
        let answer = predict_with_head(&daemon, "", &json!({ "text": "1" }));
        assert_eq!((&answer.experiment, answer.model.version.as_str()), (&None, "1"));
    }
    let old = fetch_arm_results(&daemon, "colours", "old");
    assert_eq!((old.requests, old.anonymous), (0, 0));
    // A version that is asked for is no experiment's business.
    let own = predict_with_head(&daemon, &head, &json!({ "text": "1", "version": "1" }));
    assert_eq!((&own.experiment, own.model.version.as_str()), (&None, "1"));
}

#[test]
fn bucketing_anonymous_requests_are_random() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    let mut wire = RawClient::connect(daemon.address);
    let mut predict = || -> Prediction { wire.request(request("POST", "/predict", "", r#"{"text":"1"}"#)).ok() };
    let new = (0..400).filter(|_| arm(&predict()) == Some("new")).count();
    // Six standard deviations.
    assert!((140..=260).contains(&new), "{new}");
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    assert_eq!(predict().experiment, None);
}
