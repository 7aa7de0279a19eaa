//! What experiments show.

use serde_json::{Value, json};

use super::{
    MODEL, Scene, arm_results, create_and_start, experiment_path, fetch_results, post_feedback, predict_as_user,
    send_change_ok, two_arm_design,
};
use crate::support::daemon::Daemon;
use crate::support::models_command::run_models_command;
use crate::support::raw_client::{RawClient, get, metric};
use crate::support::waiting::block_until;

/// Asks as so many users and tells that `b` would have been right; that of every fifth is `a`.
fn predict_and_send_feedback(daemon: &Daemon, users: std::ops::Range<u32>) {
    let mut wire = RawClient::connect(daemon.address);
    let mut truths = Vec::new();
    for user in users {
        let answer = predict_as_user(&mut wire, &(user % 90).to_string(), &user.to_string());
        let actual = if user % 5 == 0 { "a" } else { "b" };
        truths.push(json!({ "prediction_id": answer["prediction_id"], "actual": actual }));
    }
    post_feedback(daemon, &truths);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
fn results_name_better_arm_and_survive_restart() {
    let scene = Scene::new();
    let daemon = scene.start();
    run_models_command(&daemon, &["activate", MODEL, "1"]);
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    predict_and_send_feedback(&daemon, 0..1_000);
    let judge = |found: &Value| {
        let [old, new] = ["old", "new"].map(|name| arm_results(found, name).clone());
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
    let before = judge(&fetch_results(&daemon, "colours", ""));
    let details = fetch_results(&daemon, "colours", "?details=true");
    let new = &arm_results(&details, "new")["feedback"];
    let wrong = new["labelled"].as_u64().unwrap() - new["correct"].as_u64().unwrap();
    assert_eq!(new["mistakes"], json!([{ "actual": "a", "predicted": "b", "count": wrong }]));
    assert_eq!((new["classes"].as_array().unwrap().len(), new["confusion"].as_array().unwrap().len()), (2, 2));
    assert!(new["calibration_error"].as_f64().unwrap() > 0.0 && new["macro_f1"].as_f64().unwrap() > 0.0);
    // The first decision is stored by the process that evaluates every few seconds.
    block_until("it is decided", || {
        arm_results(&fetch_results(&daemon, "colours", ""), "new")["against_control"]["decided"]["better"] == true
    });
    block_until("it is measured", || {
        let text = RawClient::connect(daemon.admin).request(get("/metrics")).body;
        text.contains(r#"predictd_experiment_verdict{arm="new",experiment="colours"} 1"#)
    });
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = scene.start();
    assert_eq!(judge(&fetch_results(&daemon, "colours", "")), before);
    assert_eq!(
        metric(
            daemon.admin,
            r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="answered"}"#
        ),
        0
    );
    // Another phase counts for itself.
    send_change_ok(&daemon, "PUT", "colours", "", &two_arm_design(0.9, 0.1));
    predict_and_send_feedback(&daemon, 0..20);
    let found = fetch_results(&daemon, "colours", "");
    assert!(found["verdict"].as_str().unwrap().starts_with("Too little feedback"), "{found}");
    assert_eq!(judge(&fetch_results(&daemon, "colours", "?phase=1")), before);
    send_change_ok(&daemon, "POST", "colours", "/promote", &json!({ "arm": "new", "reason": "it is better" }));
    assert_eq!(run_models_command(&daemon, &["show", MODEL])["active"], "2");
    let history =
        RawClient::connect(daemon.admin).request(get(&format!("/admin/models/{MODEL}/history"))).json::<Value>();
    assert!(
        history.as_array().unwrap().iter().any(|done| {
            (&done["action"], &done["version"], &done["experiment"], &done["reason"])
                == (&json!("promote"), &json!("2"), &json!("colours"), &json!("it is better"))
        }),
        "{history}"
    );
    let shown = RawClient::connect(daemon.admin).request(get(&experiment_path("colours"))).json::<Value>();
    assert_eq!((&shown["state"], &shown["outcome"]), (&json!("ended"), &json!("new became the active version")));
}
