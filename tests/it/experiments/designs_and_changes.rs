//! Changes of experiments: all at once, by whom it was seen, and nothing that makes no sense.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use predictd::api::experiments::ExperimentListView;
use serde_json::{Value, json};

use crate::support::daemon_requests::{arm, get_ok, status_and_pointer};
use crate::support::experiment_scene::{
    ExperimentScene, arm_results, create_and_start, experiment_path, fetch_experiment, fetch_history, fetch_results,
    predict_as_user, send_change, send_change_ok, two_arm_design,
};
use crate::support::raw_client::{RawClient, get, metric, request};

#[test]
fn experiment_invalid_design_is_422_with_pointer() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut design = two_arm_design(0.5, 0.5);
        change(&mut design);
        design
    };
    let cases: [(Value, &str); 15] = [
        (two_arm_design(0.5, 0.4), "/arms"),
        (two_arm_design(50.0, 49.0), "/arms"),
        (two_arm_design(1.0, 100.0), "/arms"),
        (two_arm_design(-0.5, 1.5), "/arms/0/weight"),
        (with(&|design| design["arms"] = json!([])), "/arms"),
        (with(&|design| design["arms"][1]["name"] = json!("old")), "/arms/1/name"),
        (with(&|design| design["arms"][1]["name"] = json!("../x")), "/arms/1/name"),
        (with(&|design| design["arms"][1]["version"] = json!("9")), "/arms/1/version"),
        (with(&|design| design["arms"][1]["model"] = json!("nobody")), "/arms/1/model"),
        (with(&|design| design["on"] = json!("nobody")), "/on"),
        (with(&|design| design["control"] = json!("nobody")), "/control"),
        (with(&|design| design["aim"] = json!({ "least": 0 })), "/aim"),
        (with(&|design| design["salt"] = json!("x".repeat(257))), "/salt"),
        (with(&|design| design["rollout"] = json!({ "steps": [] })), "/rollout/steps"),
        (with(&|design| design["anonymous"] = json!("nowhere")), "/anonymous"),
    ];
    for (design, pointer) in cases {
        let answer = send_change(&daemon, "PUT", "colours", "", &design);
        assert_eq!(status_and_pointer(&answer), (422, pointer.to_owned()), "{design}: {answer:?}");
    }
    let unknown = send_change(&daemon, "PUT", "colours", "", &json!({ "arms": [], "x": 1 }));
    assert_eq!(unknown.status, 422);
    for (method, at) in
        [("POST", "/start"), ("POST", "/pause"), ("POST", "/end"), ("DELETE", ""), ("GET", "/results"), ("GET", "")]
    {
        let answer = RawClient::connect(daemon.admin).request(request(
            method,
            &format!("{}{at}", experiment_path("colours")),
            "If-Match: \"1\"\r\n",
            "",
        ));
        assert_eq!((answer.status, answer.problem_kind()), (404, "experiment-not-found".to_owned()), "{method} {at}");
    }
    let list: ExperimentListView = get_ok(daemon.admin, "/admin/experiments");
    assert!(list.experiments.is_empty(), "{list:?}");
}

#[test]
fn experiment_change_needs_if_match_and_is_idempotent() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    let send = |head: &str, method: &str, at: &str, body: &Value| {
        RawClient::connect(daemon.admin).request(request(
            method,
            &format!("{}{at}", experiment_path("colours")),
            head,
            &body.to_string(),
        ))
    };
    let once = "Idempotency-Key: k1\r\n";
    let made = send(once, "PUT", "", &two_arm_design(0.5, 0.5));
    assert_eq!((made.status, made.header("etag")), (200, Some("\"1\"")), "{made:?}");
    let again = send(once, "PUT", "", &two_arm_design(0.5, 0.5));
    assert_eq!((again.status, &again.body), (200, &made.body), "the same request is answered as it was");
    let another = send("Idempotency-Key: k9\r\n", "PUT", "", &two_arm_design(0.5, 0.5));
    assert_eq!((another.status, another.problem_kind()), (428, "precondition-required".to_owned()));
    assert_eq!(send("", "PUT", "", &two_arm_design(0.1, 0.9)).status, 428);
    assert_eq!(send("If-Match: \"7\"\r\n", "PUT", "", &two_arm_design(0.1, 0.9)).status, 412);
    assert_eq!(send("", "POST", "/start", &json!({})).status, 428);
    let start = "If-Match: \"1\"\r\nIdempotency-Key: k2\r\n";
    let [first, repeated] = [(); 2].map(|()| send(start, "POST", "/start", &json!({})));
    assert_eq!((first.status, repeated.status), (200, 200));
    assert_eq!((&first.body, repeated.header("etag")), (&repeated.body, Some("\"2\"")));
    // The same design changes nothing; other arms are another experiment.
    assert!(!send_change_ok(&daemon, "PUT", "colours", "", &two_arm_design(0.5, 0.5)).changed);
    let mut other = two_arm_design(0.5, 0.5);
    other["arms"][1]["version"] = json!("1");
    let refused = send_change(&daemon, "PUT", "colours", "", &other);
    assert_eq!((refused.status, refused.problem_kind()), (409, "conflict".to_owned()));
    // A second one on the same model waits for its turn.
    send_change_ok(&daemon, "PUT", "second", "", &two_arm_design(0.5, 0.5));
    let refused = send_change(&daemon, "POST", "second", "/start", &json!({}));
    assert_eq!((refused.status, refused.problem_kind()), (409, "conflict".to_owned()));
    assert!(refused.problem().detail.contains("colours runs on m"), "{refused:?}");
    send_change_ok(&daemon, "POST", "colours", "/pause", &json!({ "reason": "lunch" }));
    send_change_ok(&daemon, "POST", "second", "/start", &json!({}));
    assert_eq!(send_change(&daemon, "POST", "colours", "/start", &json!({})).status, 409);
    // What has begun is kept; a draft is not.
    assert_eq!(send_change(&daemon, "DELETE", "second", "", &json!(null)).status, 409);
    send_change_ok(&daemon, "PUT", "draft", "", &two_arm_design(0.5, 0.5));
    assert!(send_change_ok(&daemon, "DELETE", "draft", "", &json!(null)).experiment.is_none());
    assert_eq!(RawClient::connect(daemon.admin).request(get(&experiment_path("draft"))).status, 404);
    let history = fetch_history(&daemon, "colours");
    let entries: Vec<_> = history.iter().map(|done| (done.action.as_str(), done.reason.as_deref())).collect();
    assert_eq!(entries, [("pause", Some("lunch")), ("start", None), ("design", None)]);
}

#[test]
fn experiment_weight_change_fails_no_request() {
    let scene = ExperimentScene::new();
    let daemon = scene.start_with(&["--log", "off,predictd=info,predictd_http=off"]);
    create_and_start(&daemon, "colours", &two_arm_design(1.0, 0.0));
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let stop = &stop;
            let asked = &asked;
            let address = daemon.address;
            scope.spawn(move || {
                let mut wire = RawClient::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    let answer = predict_as_user(&mut wire, &(number % 90).to_string(), &format!("{client} {number}"));
                    let arm_and_version = (arm(&answer), answer.model.version.as_str());
                    // The version that is active, while it is paused.
                    let fits = matches!(arm_and_version, (Some("old"), "1") | (Some("new"), "2") | (None, _));
                    assert!(fits, "{answer:?}");
                }
            });
        }
        let mut wire = RawClient::connect(daemon.address);
        for _ in 0..10 {
            send_change_ok(&daemon, "PUT", "colours", "", &two_arm_design(0.0, 1.0));
            assert_eq!(predict_as_user(&mut wire, "1", "u").model.version, "2");
            send_change_ok(&daemon, "PUT", "colours", "", &two_arm_design(100.0, 0.0));
            assert_eq!(predict_as_user(&mut wire, "1", "u").model.version, "1");
            send_change_ok(&daemon, "POST", "colours", "/pause", &json!({}));
            assert_eq!(predict_as_user(&mut wire, "1", "u").experiment, None);
            send_change_ok(&daemon, "POST", "colours", "/start", &json!({}));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 100);
    let failures = r#"predictd_http_requests_ended_total{outcome="failure",route="/predict"}"#;
    assert_eq!(metric(daemon.admin, failures), 0);
    // Every change of the weights began a phase of its own, and a pause none.
    let found = fetch_results(&daemon, "colours", "?phase=2");
    assert_eq!((found.phase, arm_results(&found, "old").requests), (2, 0));
    assert!((arm_results(&found, "new").weight - 1.0).abs() < f64::EPSILON, "{found:?}");
    assert_eq!(fetch_experiment(&daemon, "colours").phases.len(), 21);
    let answer =
        RawClient::connect(daemon.admin).request(get(&format!("{}/results?phase=22", experiment_path("colours"))));
    assert_eq!((answer.status, answer.problem_kind()), (409, "conflict".to_owned()));
}
