//! What experiments show.

use predictd::api::experiment_results::{ConfusionCellView, ExperimentResultsView};
use predictd::api::models::AuditEntryView;
use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{get_ok, scrape_metrics};
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, arm_results, create_and_start, feedback_item, fetch_experiment, fetch_results,
    is_decided_better, post_feedback_ok, predict_as_user, send_change_ok, two_arm_design,
};
use crate::support::models_command::{change_model, recorded_active_version};
use crate::support::raw_client::{RawClient, metric};
use crate::support::waiting::block_until;

/// Sends a text of each user, and `b` as the right label; for every fifth `a`.
fn post_feedback_as_users(daemon: &Daemon, users: std::ops::Range<u32>) {
    let mut wire = RawClient::connect(daemon.address);
    let mut feedback = Vec::new();
    for user in users {
        let answer = predict_as_user(&mut wire, &(user % 90).to_string(), &user.to_string());
        feedback.push(feedback_item(&answer, if user % 5 == 0 { "a" } else { "b" }));
    }
    post_feedback_ok(daemon, &feedback);
}

/// Asserts that the results of 1,000 users favour `new`. Returns the right answers of each arm.
fn assert_new_is_better(found: &ExperimentResultsView) -> [u64; 2] {
    let [old, new] = ["old", "new"].map(|name| arm_results(found, name));
    assert_eq!(old.feedback.labelled + new.feedback.labelled, 1_000);
    assert_eq!(old.requests + new.requests, 1_000);
    // One in five is `a`, and `old` always says so.
    let right = [old, new].map(|arm| arm.feedback.accuracy.unwrap());
    assert!((0.1..0.3).contains(&right[0]) && (0.7..0.9).contains(&right[1]), "{right:?}");
    assert_eq!(new.against_control.as_ref().unwrap().decision, "better");
    let verdict = &found.verdict;
    assert!(
        verdict.starts_with("new is better: right in ") && verdict.ends_with("however often you look."),
        "{verdict}"
    );
    assert!((found.users - 1_000.0).abs() < f64::EPSILON && found.mismatch.is_none(), "{found:?}");
    [old.feedback.correct, new.feedback.correct]
}

#[test]
fn results_name_better_arm_and_survive_restart() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    change_model(&daemon, &["activate", MODEL, "1"]);
    create_and_start(&daemon, "colours", &two_arm_design(0.5, 0.5));
    post_feedback_as_users(&daemon, 0..1_000);
    let before = assert_new_is_better(&fetch_results(&daemon, "colours", ""));
    let details = fetch_results(&daemon, "colours", "?details=true");
    let new = &arm_results(&details, "new").feedback;
    let count = new.labelled - new.correct;
    let mistake = ConfusionCellView { actual: "a".to_owned(), predicted: "b".to_owned(), count };
    assert_eq!(new.mistakes, [mistake]);
    assert_eq!((new.classes.len(), new.confusion.len()), (2, 2));
    assert!(new.calibration_error.unwrap() > 0.0 && new.macro_f1.unwrap() > 0.0, "{new:?}");
    // The first decision is stored by the process that evaluates every few seconds.
    block_until("it is decided", || is_decided_better(&daemon, "colours", "new"));
    block_until("it is measured", || {
        scrape_metrics(&daemon).contains(r#"predictd_experiment_verdict{arm="new",experiment="colours"} 1"#)
    });
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = scene.start();
    assert_eq!(assert_new_is_better(&fetch_results(&daemon, "colours", "")), before);
    assert_eq!(
        metric(
            daemon.admin,
            r#"predictd_experiment_requests_total{arm="new",experiment="colours",outcome="answered"}"#
        ),
        0
    );
    // Another phase counts for itself.
    send_change_ok(&daemon, "PUT", "colours", "", &two_arm_design(0.9, 0.1));
    post_feedback_as_users(&daemon, 0..20);
    let found = fetch_results(&daemon, "colours", "");
    assert!(found.verdict.starts_with("Too little feedback"), "{found:?}");
    assert_eq!(assert_new_is_better(&fetch_results(&daemon, "colours", "?phase=1")), before);
    send_change_ok(&daemon, "POST", "colours", "/promote", &json!({ "arm": "new", "reason": "it is better" }));
    assert_eq!(recorded_active_version(&daemon, MODEL).as_deref(), Some("2"));
    let history: Vec<AuditEntryView> = get_ok(daemon.admin, &format!("/admin/models/{MODEL}/history"));
    let is_promotion = |done: &&AuditEntryView| done.action == "promote" && done.version.as_deref() == Some("2");
    let promotion = history.iter().find(is_promotion).unwrap_or_else(|| panic!("{history:?}"));
    assert_eq!((promotion.experiment.as_deref(), promotion.reason.as_deref()), (Some("colours"), Some("it is better")));
    let shown = fetch_experiment(&daemon, "colours");
    assert_eq!((shown.state.as_str(), shown.outcome.as_deref()), ("ended", Some("new became the active version")));
}
