//! Changes of experiments: all at once, by whom it was seen, and nothing that makes no sense.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{NAME, Scene, arm, arms, ask, change, changed, path, results, run};
use crate::raw::{Wire, get, metric, request};

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let scene = Scene::new();
    let daemon = scene.start();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut design = arms(0.5, 0.5);
        change(&mut design);
        design
    };
    let cases: [(Value, &str); 15] = [
        (arms(0.5, 0.4), "/arms"),
        (arms(50.0, 49.0), "/arms"),
        (arms(1.0, 100.0), "/arms"),
        (arms(-0.5, 1.5), "/arms/0/weight"),
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
        let answer = change(&daemon, "PUT", "colours", "", &design);
        assert_eq!(
            (answer.status, &answer.json()["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{design}: {answer:?}"
        );
    }
    let unknown = change(&daemon, "PUT", "colours", "", &json!({ "arms": [], "x": 1 }));
    assert_eq!(unknown.status, 422);
    for (method, at) in
        [("POST", "/start"), ("POST", "/pause"), ("POST", "/end"), ("DELETE", ""), ("GET", "/results"), ("GET", "")]
    {
        let answer =
            Wire::to(daemon.admin).ask(request(method, &format!("{}{at}", path("colours")), "If-Match: \"1\"\r\n", ""));
        assert_eq!((answer.status, answer.problem()), (404, "experiment-not-found".to_owned()), "{method} {at}");
    }
    assert_eq!(Wire::to(daemon.admin).ask(get("/admin/experiments")).json()["experiments"], json!([]));
}

#[test]
fn a_change_says_what_it_was_decided_on() {
    let scene = Scene::new();
    let daemon = scene.start();
    let send = |head: &str, method: &str, at: &str, body: &Value| {
        Wire::to(daemon.admin).ask(request(method, &format!("{}{at}", path("colours")), head, &body.to_string()))
    };
    let once = "Idempotency-Key: k1\r\n";
    let made = send(once, "PUT", "", &arms(0.5, 0.5));
    assert_eq!((made.status, made.header("etag")), (200, Some("\"1\"")), "{made:?}");
    let again = send(once, "PUT", "", &arms(0.5, 0.5));
    assert_eq!(again.status, 428, "it is there now, and was not seen: {again:?}");
    assert_eq!(send("", "PUT", "", &arms(0.1, 0.9)).status, 428);
    assert_eq!(send("If-Match: \"7\"\r\n", "PUT", "", &arms(0.1, 0.9)).status, 412);
    assert_eq!(send("", "POST", "/start", &json!({})).status, 428);
    let start = "If-Match: \"1\"\r\nIdempotency-Key: k2\r\n";
    let [first, repeated] = [(); 2].map(|()| send(start, "POST", "/start", &json!({})));
    assert_eq!((first.status, repeated.status), (200, 200));
    assert_eq!((first.json(), repeated.header("etag")), (repeated.json(), Some("\"2\"")));
    // The same design changes nothing; other arms are another experiment.
    assert_eq!(changed(&daemon, "PUT", "colours", "", &arms(0.5, 0.5))["changed"], false);
    let mut other = arms(0.5, 0.5);
    other["arms"][1]["version"] = json!("1");
    let refused = change(&daemon, "PUT", "colours", "", &other);
    assert_eq!((refused.status, refused.problem()), (409, "conflict".to_owned()));
    // A second one on the same model waits for its turn.
    changed(&daemon, "PUT", "second", "", &arms(0.5, 0.5));
    let refused = change(&daemon, "POST", "second", "/start", &json!({}));
    assert_eq!((refused.status, refused.problem()), (409, "conflict".to_owned()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("colours runs on m"), "{refused:?}");
    changed(&daemon, "POST", "colours", "/pause", &json!({ "reason": "lunch" }));
    changed(&daemon, "POST", "second", "/start", &json!({}));
    assert_eq!(change(&daemon, "POST", "colours", "/start", &json!({})).status, 409);
    // What has begun is kept; a draft is not.
    assert_eq!(change(&daemon, "DELETE", "second", "", &json!(null)).status, 409);
    changed(&daemon, "PUT", "draft", "", &arms(0.5, 0.5));
    assert_eq!(changed(&daemon, "DELETE", "draft", "", &json!(null))["experiment"], Value::Null);
    assert_eq!(Wire::to(daemon.admin).ask(get(&path("draft"))).status, 404);
    let history = Wire::to(daemon.admin).ask(get(&format!("{}/history", path("colours")))).json();
    let told: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|done| (done["action"].as_str().unwrap(), done["reason"].as_str()))
        .collect();
    assert_eq!(told, [("pause", Some("lunch")), ("start", None), ("design", None)]);
}

#[test]
fn weights_change_at_once_and_no_request_fails() {
    let scene = Scene::new();
    let daemon = scene.start_with(&["--log", "off,predictd=info,predictd::http=off"]);
    run(&daemon, "colours", &arms(1.0, 0.0));
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (stop, asked, address) = (&stop, &asked, daemon.address);
            scope.spawn(move || {
                let mut wire = Wire::to(address);
                while !stop.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    let answer = ask(&mut wire, &(number % 90).to_string(), &format!("{client} {number}"));
                    let (arm, version) =
                        (answer["experiment"]["arm"].as_str(), answer["model"]["version"].as_str().unwrap());
                    // The version that is active, while it is paused.
                    assert!(matches!((arm, version), (Some("old"), "1") | (Some("new"), "2") | (None, _)), "{answer}");
                }
            });
        }
        let mut wire = Wire::to(daemon.address);
        for _ in 0..10 {
            changed(&daemon, "PUT", "colours", "", &arms(0.0, 1.0));
            assert_eq!(ask(&mut wire, "1", "u")["model"]["version"], "2");
            changed(&daemon, "PUT", "colours", "", &arms(100.0, 0.0));
            assert_eq!(ask(&mut wire, "1", "u")["model"]["version"], "1");
            changed(&daemon, "POST", "colours", "/pause", &json!({}));
            assert_eq!(ask(&mut wire, "1", "u")["experiment"], Value::Null);
            changed(&daemon, "POST", "colours", "/start", &json!({}));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 100);
    let failures = r#"predictd_http_requests_ended_total{outcome="failure",route="/predict"}"#;
    assert_eq!(metric(daemon.admin, failures), 0);
    // Every change of the weights began a phase of its own, and a pause none.
    let found = results(&daemon, "colours", "?phase=2");
    assert_eq!(
        (&found["phase"], &arm(&found, "new")["weight"], &arm(&found, "old")["requests"]),
        (&json!(2), &json!(1.0), &json!(0))
    );
    assert_eq!(Wire::to(daemon.admin).ask(get(&path("colours"))).json()["phases"].as_array().unwrap().len(), 21);
    let answer = Wire::to(daemon.admin).ask(get(&format!("{}/results?phase=22", path("colours"))));
    assert_eq!((answer.status, answer.problem()), (409, "conflict".to_owned()));
    assert_eq!(NAME, "m");
}
