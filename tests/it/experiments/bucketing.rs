//! Who gets which arm.

use predictd::experiments::bucketing::{Bucketing, choose_arm};
use serde_json::{Value, json};

use super::{MODEL, Scene, create_and_start, predict_as_user, send_change_ok, two_arm_design};
use crate::support::raw_client::{RawClient, request};

/// The arm that a user must be in, by the recipe.
fn expected_arm(salt: &str, user: &str, weights: [f64; 2]) -> &'static str {
    ["old", "new"][choose_arm(weights, Bucketing::from_user(salt, user).position).unwrap()]
}

#[test]
fn bucketing_user_arm_is_stable_across_servers() {
    let (scene, elsewhere) = (Scene::new(), Scene::new());
    let weights = [0.3, 0.7];
    let (daemon, other) = (scene.start(), elsewhere.start());
    for daemon in [&daemon, &other] {
        create_and_start(daemon, "colours", &two_arm_design(weights[0], weights[1]));
    }
    let look = |daemon: &crate::support::daemon::Daemon| -> Vec<String> {
        let mut wire = RawClient::connect(daemon.address);
        let arm = |user: u32| {
            let answer = predict_as_user(&mut wire, "10 20", &format!("user {user}"));
            let arm = answer["experiment"]["arm"].as_str().unwrap().to_owned();
            let (label, version) = if arm == "new" { ("b", "2") } else { ("a", "1") };
            assert_eq!((&answer["prediction"], &answer["model"]["version"]), (&json!(label), &json!(version)));
            assert_eq!(answer["experiment"]["fell_back"], false);
            arm
        };
        (0..200).map(arm).collect()
    };
    let expected: Vec<String> =
        (0..200).map(|user| expected_arm("colours", &format!("user {user}"), weights).to_owned()).collect();
    assert_eq!(look(&daemon), expected);
    assert_eq!(look(&other), expected);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    assert_eq!(look(&scene.start()), expected);
}

#[test]
fn bucketing_user_id_comes_from_header_or_body_only() {
    let scene = Scene::new();
    let daemon = scene.start();
    create_and_start(
        &daemon,
        "colours",
        &json!({ "salt": "s", "anonymous": "control", "on": MODEL, "arms": [
            { "name": "old", "version": "1", "weight": 50 }, { "name": "new", "version": "2", "weight": 50 },
        ]}),
    );
    let user = (0..1_000).map(|i| i.to_string()).find(|user| expected_arm("s", user, [0.5, 0.5]) == "new").unwrap();
    let send = |path: &str, head: &str, body: &Value| {
        RawClient::connect(daemon.address).request(request("POST", path, head, &body.to_string()))
    };
    let head = format!("X-User-Id: {user}\r\n");
    let arm = |answer: &Value| answer["experiment"]["arm"].as_str().unwrap().to_owned();
    // Default model `m`: there is no other.
    assert_eq!(arm(&send("/predict", &head, &json!({ "text": "1" })).json::<Value>()), "new");
    assert_eq!(arm(&send("/predict", &head, &json!({ "text": "1", "user_id": user })).json::<Value>()), "new");
    for (head, body) in [(&*head, json!(["1", "2"])), ("", json!({ "texts": ["1", "2"], "user_id": user }))] {
        let answer = send("/batch_predict", head, &body).json::<Value>();
        assert!(answer["results"].as_array().unwrap().iter().all(|item| arm(item) == "new"), "{answer}");
    }
    let two = send("/predict", &head, &json!({ "text": "1", "user_id": "somebody else" }));
    assert_eq!((two.status, &two.json::<Value>()["errors"][0]["pointer"]), (422, &json!("/user_id")));
    for wrong in [format!("X-User-Id: {}\r\n", "x".repeat(257)), "X-User-Id: \r\n".to_owned(), format!("{head}{head}")]
    {
        let refused = send("/predict", &wrong, &json!({ "text": "1" }));
        assert_eq!((refused.status, refused.problem_kind()), (400, "invalid-header".to_owned()), "{wrong}");
    }
    // Who does not say who it is gets the control, and is not compared with those who do.
    for _ in 0..50 {
        let answer = send("/predict", "", &json!({ "text": "1" })).json::<Value>();
        assert_eq!((&answer["experiment"], &answer["model"]["version"]), (&Value::Null, &json!("1")));
    }
    let found = super::fetch_results(&daemon, "colours", "");
    assert_eq!(
        (&super::arm_results(&found, "old")["requests"], &super::arm_results(&found, "old")["anonymous"]),
        (&json!(0), &json!(0))
    );
    // A version that is asked for is no experiment's business.
    let own = send("/predict", &head, &json!({ "text": "1", "version": "1" })).json::<Value>();
    assert_eq!((&own["experiment"], &own["model"]["version"]), (&Value::Null, &json!("1")));
}

#[test]
fn bucketing_anonymous_requests_are_random() {
    let scene = Scene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    let mut wire = RawClient::connect(daemon.address);
    let mut new = 0;
    for _ in 0..400 {
        let answer = wire.request(request("POST", "/predict", "", r#"{"text":"1"}"#)).json::<Value>();
        new += u32::from(answer["experiment"]["arm"] == "new");
    }
    // Six standard deviations.
    assert!((140..=260).contains(&new), "{new}");
    send_change_ok(&daemon, "POST", "colours", "/end", &json!({}));
    let answer = wire.request(request("POST", "/predict", "", r#"{"text":"1"}"#)).json::<Value>();
    assert_eq!(answer["experiment"], Value::Null);
}
