//! Arms that cannot answer: never the caller's problem, always counted.

use serde_json::{Value, json};

use super::{NAME, Scene, arm, arms, ask, broken_on_hello, change, changed, results, run, tell};
use crate::fixture::endless;
use crate::operator::{done, refused};
use crate::raw::{Wire, metric, request};

#[test]
fn an_arm_that_fails_falls_back_and_its_failures_count_as_wrong() {
    let scene = Scene::with(&broken_on_hello());
    let daemon = scene.start();
    run(&daemon, "colours", &arms(0.0, 1.0));
    let mut wire = Wire::to(daemon.address);
    let good = ask(&mut wire, "10 20", "u");
    assert_eq!((&good["model"]["version"], &good["experiment"]["fell_back"]), (&json!("2"), &json!(false)));
    let fallen = ask(&mut wire, "hello", "u");
    assert_eq!((&fallen["model"]["version"], &fallen["prediction"]), (&json!("1"), &json!("a")));
    assert_eq!(fallen["experiment"], json!({ "name": "colours", "arm": "new", "fell_back": true }));
    // Of a batch, what the arm cannot answer.
    let body = json!({ "texts": ["10", "hello", "20"], "user_id": "u" }).to_string();
    let batch = wire.ask(request("POST", "/batch_predict", "", &body)).json();
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
    tell(
        &daemon,
        &[
            json!({ "prediction_id": good["prediction_id"], "actual": "b" }),
            json!({ "prediction_id": fallen["prediction_id"], "actual": "a" }),
        ],
    );
    let found = results(&daemon, "colours", "");
    let new = arm(&found, "new");
    assert_eq!(
        (&new["requests"], &new["texts"], &new["failed"]),
        (&json!(3), &json!(5), &json!({ "model-output-invalid": 2 }))
    );
    let feedback = &new["feedback"];
    assert_eq!((&feedback["labelled"], &feedback["correct"], &feedback["failed"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(arm(&found, "old")["requests"], 0);
    let failed = r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="failed"}"#;
    assert_eq!(metric(daemon.admin, failed), 2);
}

#[test]
fn an_arm_that_takes_too_long_leaves_the_control_its_time() {
    let scene = Scene::with(&endless::on_hello());
    let daemon = scene.start();
    run(&daemon, "colours", &arms(0.0, 1.0));
    let body = json!({ "text": "hello", "user_id": "u" }).to_string();
    let answer = Wire::to(daemon.address).ask(request("POST", "/predict", "X-Request-Timeout-Ms: 4000\r\n", &body));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!((&answer["model"]["version"], &answer["experiment"]["fell_back"]), (&json!("1"), &json!(true)));
    assert_eq!(arm(&results(&daemon, "colours", ""), "new")["failed"], json!({ "deadline-exceeded": 1 }));
}

#[test]
fn a_request_that_is_wrong_is_nobodys_failure() {
    let scene = Scene::new();
    let daemon = scene.start();
    run(&daemon, "colours", &arms(0.0, 1.0));
    let body = json!({ "text": "1", "labels": ["x"], "user_id": "u" }).to_string();
    let answer = Wire::to(daemon.address).ask(request("POST", "/predict", "", &body));
    assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!("/labels")));
    let found = results(&daemon, "colours", "");
    assert_eq!((&arm(&found, "new")["failed"], &arm(&found, "old")["failed"]), (&json!({}), &json!({})));
}

#[test]
fn a_version_that_an_experiment_uses_is_not_removed() {
    let scene = Scene::new();
    let third = tempfile::tempdir().unwrap();
    let directory = super::second().write(third.path(), NAME, "3");
    let daemon = scene.start();
    done(&daemon, &["register", NAME, "3", directory.to_str().unwrap()]);
    let design = json!({ "on": NAME, "arms": [
        { "name": "old", "version": "1", "weight": 50 }, { "name": "new", "version": "3", "weight": 50 },
    ]});
    changed(&daemon, "PUT", "colours", "", &design);
    let sentence = refused(&daemon, &["remove", NAME, "3"]);
    assert!(sentence.contains("version 3 is in experiment colours"), "{sentence}");
    // It was not loaded before, and answers now.
    changed(&daemon, "POST", "colours", "/start", &json!({}));
    let mut wire = Wire::to(daemon.address);
    let answers: Vec<Value> = (0..20).map(|user| ask(&mut wire, "1", &user.to_string())).collect();
    assert!(answers.iter().all(|answer| answer["experiment"]["fell_back"] == false));
    assert!(answers.iter().any(|answer| answer["model"]["version"] == "3"));
    assert!(refused(&daemon, &["remove", NAME, "3"]).contains("colours"));
    changed(&daemon, "POST", "colours", "/end", &json!({}));
    done(&daemon, &["remove", NAME, "3"]);
    // What is not there cannot be compared.
    let answer = change(&daemon, "PUT", "other", "", &design);
    assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!("/arms/1/version")));
}
