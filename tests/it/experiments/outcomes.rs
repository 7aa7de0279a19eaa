//! What experiments show, and where rollouts end.

use serde_json::{Value, json};

use super::{NAME, Scene, arm, arms, ask, broken_on_hello, changed, path, results, run, second, tell};
use crate::daemon::Daemon;
use crate::operator::done;
use crate::raw::{Wire, get, metric, request, until};

/// Asks as so many users and tells that `b` would have been right; that of every fifth is `a`.
fn ask_and_tell(daemon: &Daemon, users: std::ops::Range<u32>) {
    let mut wire = Wire::to(daemon.address);
    let mut truths = Vec::new();
    for user in users {
        let answer = ask(&mut wire, &(user % 90).to_string(), &user.to_string());
        let actual = if user % 5 == 0 { "a" } else { "b" };
        truths.push(json!({ "prediction_id": answer["prediction_id"], "actual": actual }));
    }
    tell(daemon, &truths);
}

#[test]
fn results_name_the_better_arm_and_outlast_the_server() {
    let scene = Scene::new();
    let daemon = scene.start();
    done(&daemon, &["activate", NAME, "1"]);
    run(&daemon, "colours", &arms(0.5, 0.5));
    ask_and_tell(&daemon, 0..1_000);
    let judge = |found: &Value| {
        let [old, new] = ["old", "new"].map(|name| arm(found, name).clone());
        let count = |arm: &Value, part: &str| arm["feedback"][part].as_u64().unwrap();
        assert_eq!(count(&old, "labelled") + count(&new, "labelled"), 1_000);
        assert_eq!(old["requests"].as_u64().unwrap() + new["requests"].as_u64().unwrap(), 1_000);
        // One in five is `a`, and `old` always says so.
        let right = [&old, &new].map(|arm| arm["feedback"]["accuracy"].as_f64().unwrap());
        assert!((0.1..0.3).contains(&right[0]) && (0.7..0.9).contains(&right[1]), "{right:?}");
        assert_eq!(new["against_control"]["decision"], "better");
        let verdict = found["verdict"].as_str().unwrap();
        assert!(
            verdict.starts_with("new is better: right in ") && verdict.ends_with("however often you look."),
            "{verdict}"
        );
        assert_eq!((&found["users"], &found["mismatch"]), (&json!(1000.0), &Value::Null));
        [count(&old, "correct"), count(&new, "correct")]
    };
    let before = judge(&results(&daemon, "colours", ""));
    let details = results(&daemon, "colours", "?details=true");
    let new = &arm(&details, "new")["feedback"];
    let wrong = new["labelled"].as_u64().unwrap() - new["correct"].as_u64().unwrap();
    assert_eq!(new["mistakes"], json!([{ "actual": "a", "predicted": "b", "count": wrong }]));
    assert_eq!((new["classes"].as_array().unwrap().len(), new["confusion"].as_array().unwrap().len()), (2, 2));
    assert!(new["calibration_error"].as_f64().unwrap() > 0.0 && new["macro_f1"].as_f64().unwrap() > 0.0);
    // The first decision is kept by whoever looks every few seconds.
    until("it is decided", || {
        arm(&results(&daemon, "colours", ""), "new")["against_control"]["decided"]["better"] == true
    });
    until("it is measured", || {
        let text = Wire::to(daemon.admin).ask(get("/metrics")).body;
        text.contains(r#"predictd_experiment_better{arm="new",experiment="colours"} 1"#)
    });
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = scene.start();
    assert_eq!(judge(&results(&daemon, "colours", "")), before);
    assert_eq!(
        metric(
            daemon.admin,
            r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="answered"}"#
        ),
        0
    );
    // Another phase counts for itself.
    changed(&daemon, "PUT", "colours", "", &arms(0.9, 0.1));
    ask_and_tell(&daemon, 0..20);
    let found = results(&daemon, "colours", "");
    assert!(found["verdict"].as_str().unwrap().starts_with("Too little feedback"), "{found}");
    assert_eq!(judge(&results(&daemon, "colours", "?phase=1")), before);
    changed(&daemon, "POST", "colours", "/promote", &json!({ "arm": "new", "reason": "it is better" }));
    assert_eq!(done(&daemon, &["show", NAME])["active"], "2");
    let history = Wire::to(daemon.admin).ask(get(&format!("/admin/models/{NAME}/history"))).json();
    assert!(
        history.as_array().unwrap().iter().any(|done| {
            (&done["action"], &done["version"], &done["experiment"], &done["reason"])
                == (&json!("promote"), &json!("2"), &json!("colours"), &json!("it is better"))
        }),
        "{history}"
    );
    let shown = Wire::to(daemon.admin).ask(get(&path("colours"))).json();
    assert_eq!((&shown["state"], &shown["outcome"]), (&json!("ended"), &json!("new became the active version")));
}

fn rollout(steps: &[(f64, u64, u64)], guards: &Value) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|(weight, seconds, requests)| json!({ "weight": weight, "seconds": seconds, "requests": requests }))
        .collect();
    json!({ "on": NAME, "arms": [{ "name": "old", "version": "1" }, { "name": "new", "version": "2" }],
        "rollout": { "steps": steps, "guards": guards } })
}

/// Asks as ever more users until something is so.
fn ask_until(daemon: &Daemon, text: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut wire = Wire::to(daemon.address);
    let user = std::cell::Cell::new(0_u32);
    let wire = std::cell::RefCell::new(&mut wire);
    until(what, || {
        for _ in 0..20 {
            user.set(user.get() + 1);
            let body = json!({ "text": text, "model": NAME, "user_id": user.get().to_string() }).to_string();
            let answer = wire.borrow_mut().ask(request("POST", "/predict", "", &body));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        holds(&Wire::to(daemon.admin).ask(get(&path("new-one"))).json())
    });
    Wire::to(daemon.admin).ask(get(&path("new-one"))).json()
}

#[test]
fn a_version_comes_step_by_step_and_becomes_the_active_one() {
    let scene = Scene::new();
    let daemon = scene.start();
    done(&daemon, &["activate", NAME, "1"]);
    run(&daemon, "new-one", &rollout(&[(5.0, 0, 1), (50.0, 1, 20), (100.0, 0, 10)], &Value::Null));
    let first = Wire::to(daemon.admin).ask(get(&path("new-one"))).json();
    assert_eq!((&first["step"], &first["arms"][1]["weight"]), (&json!(1), &json!(0.05)));
    let ended = ask_until(&daemon, "10", "it is promoted", |found| found["state"] == "ended");
    assert_eq!(
        (&ended["outcome"], ended["phases"].as_array().unwrap().len()),
        (&json!("new became the active version"), 3)
    );
    let weights: Vec<_> =
        ended["phases"].as_array().unwrap().iter().map(|phase| phase["weights"]["new"].clone()).collect();
    assert_eq!(weights, [json!(0.05), json!(0.5), json!(1.0)]);
    assert_eq!(done(&daemon, &["show", NAME])["active"], "2");
    let history = Wire::to(daemon.admin).ask(get(&format!("{}/history", path("new-one")))).json();
    let told: Vec<_> = history.as_array().unwrap().iter().map(|done| done["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["promote", "step", "step", "start", "design"]);
}

#[test]
fn a_rollout_ends_where_somebody_makes_another_version_the_active_one() {
    // The version that comes, and another. Neither is undone, or replaced by what comes.
    for (steps, active) in [([(50.0, 3_600, 1_000_000), (100.0, 0, 0)], "2"), ([(50.0, 0, 0), (100.0, 3, 0)], "3")] {
        let scene = Scene::new();
        second().write(scene.models.path(), NAME, "3");
        let daemon = scene.start();
        done(&daemon, &["activate", NAME, "1"]);
        run(&daemon, "new-one", &rollout(&steps, &json!({ "errors": 0.05 })));
        done(&daemon, &["activate", NAME, active]);
        let ended = ask_until(&daemon, "10", "it ends", |found| found["state"] == "ended");
        assert_eq!(ended["outcome"], json!(format!("version {active} was made the active one meanwhile")));
        assert_eq!(done(&daemon, &["show", NAME])["active"], active);
        let history = Wire::to(daemon.admin).ask(get(&format!("{}/history", path("new-one")))).json();
        assert_eq!((&history[0]["action"], &history[0]["who"]), (&json!("end"), &json!("rollout")));
    }
}

#[test]
fn a_version_that_fails_is_taken_back_with_the_reason_in_the_history() {
    let scene = Scene::with(&broken_on_hello());
    let daemon = scene.start();
    done(&daemon, &["activate", NAME, "1"]);
    run(&daemon, "new-one", &rollout(&[(50.0, 3_600, 1_000_000), (100.0, 0, 0)], &json!({ "errors": 0.05 })));
    let ended = ask_until(&daemon, "hello", "it is taken back", |found| found["state"] == "ended");
    let outcome = ended["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("taken back: ") && outcome.contains("requests failed ("), "{outcome}");
    assert_eq!(done(&daemon, &["show", NAME])["active"], "1");
    assert_eq!(ask(&mut Wire::to(daemon.address), "10", "u")["experiment"], Value::Null);
    let history = Wire::to(daemon.admin).ask(get(&format!("{}/history", path("new-one")))).json();
    assert_eq!((&history[0]["action"], &history[0]["who"]), (&json!("take back"), &json!("rollout")));
    assert!(history[0]["reason"].as_str().unwrap().contains("requests failed"), "{history}");
}
