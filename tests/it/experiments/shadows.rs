//! Shadows: they see texts, no client gets their answers, and their failures change no answer.

use std::time::Instant;

use predictd::api::experiment_results::ShadowResultView;
use predictd::api::experiments::ArmBody;
use serde_json::{Value, json};

use crate::support::answers::label;
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{arm, fell_back};
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, create_and_start, fetch_results, predict_as_user, version_arm,
};
use crate::support::model_builder::slow_models;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

fn shadow_design() -> Value {
    let shade = ArmBody { shadow: true, ..version_arm("shade", "2", None) };
    json!({ "on": MODEL, "arms": [version_arm("old", "1", Some(1.0)), shade] })
}

fn fetch_shadow_results(daemon: &Daemon) -> ShadowResultView {
    fetch_results(daemon, "colours", "").shadows.swap_remove(0)
}

#[test]
fn shadow_is_compared_but_never_answers() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &shadow_design());
    let mut wire = RawClient::connect(daemon.address);
    for user in 0..50 {
        let answer = predict_as_user(&mut wire, &user.to_string(), &user.to_string());
        assert_eq!((label(&answer), answer.model.version.as_str(), arm(&answer)), ("a", "1", Some("old")));
    }
    let batch = json!({ "texts": (0..20).map(|n| format!("9 {n}")).collect::<Vec<_>>(), "user_id": "u" });
    assert_eq!(wire.request(request("POST", "/batch_predict", "", &batch.to_string())).status, 200);
    block_until("all were shown", || {
        let shadow = fetch_shadow_results(&daemon);
        shadow.compared + shadow.skipped + shadow.failed == 70
    });
    let shadow = fetch_shadow_results(&daemon);
    assert!(shadow.compared >= 30 && shadow.failed == 0, "{shadow:?}");
    // It says `b` where `a` was answered.
    assert_eq!(shadow.agreement, Some(0.0));
    assert!(shadow.distance.unwrap() > 0.5 && shadow.milliseconds.p50.unwrap() > 0.0, "{shadow:?}");
    assert_eq!(
        metric(daemon.admin, r#"predictd_shadow_items_total{arm="shade",experiment="colours",outcome="differed"}"#),
        shadow.compared
    );
    // What a shadow said counts for nothing else.
    assert_eq!(metric(daemon.admin, r#"predictd_predictions_total{model="m",version="2"}"#), 0);
    let verdict = fetch_results(&daemon, "colours", "").verdict;
    assert_eq!(verdict, "There is one arm: nothing is compared by feedback.");
}

#[test]
fn shadow_hanging_delays_no_request() {
    let scene = ExperimentScene::with_second_version(&slow_models::never_answers_hello());
    let daemon = scene.start();
    create_and_start(&daemon, "colours", &shadow_design());
    let mut wire = RawClient::connect(daemon.address);
    // More than can wait.
    for user in 0..400 {
        let answer = predict_as_user(&mut wire, "hello", &user.to_string());
        assert_eq!((answer.model.version.as_str(), fell_back(&answer)), ("1", false));
    }
    let outcome = |outcome: &str| {
        metric(
            daemon.admin,
            &format!(r#"predictd_shadow_items_total{{arm="shade",experiment="colours",outcome="{outcome}"}}"#),
        )
    };
    assert!(outcome("skipped") > 100, "the queue has an end");
    block_until("the first is given up", || outcome("failed") > 0);
    assert_eq!(predict_as_user(&mut wire, "10", "u").model.version, "1");
    // With a run that does not end, the server does.
    let start = Instant::now();
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert!(start.elapsed().as_secs() < 30);
}
