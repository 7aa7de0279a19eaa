//! The accuracy of a version by the feedback on its last answers.

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::daemon_requests::scrape_metrics;
use crate::support::drift_scene::{
    DriftScene, expected_accuracy, post_feedback_on_profile_texts, reported_accuracy, reported_drop,
};
use crate::support::models_command::change_model;
use crate::support::raw_client::metric;
use crate::support::waiting::block_until;

fn labelled_count(daemon: &Daemon) -> u64 {
    metric(daemon.admin, "predictd_feedback_labelled_predictions{model=\"m\",version=\"1\"}")
}

#[test]
fn accuracy_drop_is_reported_and_resolved() {
    let scene = DriftScene::with_profile();
    let mut daemon = scene.start(&[]);
    block_until("it was looked", || expected_accuracy(&daemon) == Some(0.75));
    // None right of 99: nothing is known of so few.
    post_feedback_on_profile_texts(&daemon, 99, false);
    block_until("it was looked again", || labelled_count(&daemon) == 99);
    let reported = reported_accuracy(&daemon).unwrap();
    assert_eq!((reported.dropped, reported.accuracy), (None, Some(0.0)));
    assert!(!scrape_metrics(&daemon).contains("\npredictd_accuracy_dropped{"), "nothing is known of so few");
    post_feedback_on_profile_texts(&daemon, 101, true);
    block_until("all are known", || labelled_count(&daemon) == 200);
    assert_eq!(reported_drop(&daemon), Some(true), "101 of 200, where three of four were");
    let line = daemon.wait_for_log("accuracy drop detected");
    assert_eq!((&line["labelled"], &line["correct"], &line["expected"]), (&json!(200), &json!(101), &json!(0.75)));
    let text = scrape_metrics(&daemon);
    for series in [
        "predictd_feedback_accuracy{model=\"m\",version=\"1\"} 0.505",
        "predictd_accuracy_expected{model=\"m\",version=\"1\"} 0.75",
        "predictd_accuracy_dropped{model=\"m\",version=\"1\"} 1",
    ] {
        assert!(text.contains(&format!("\n{series}\n")), "{series}");
    }
    // Only the last 1,000 count.
    post_feedback_on_profile_texts(&daemon, 901, true);
    post_feedback_on_profile_texts(&daemon, 100, true);
    // A list is kept in parts: it may be looked in between.
    block_until("the drop is over", || reported_drop(&daemon) == Some(false) && labelled_count(&daemon) == 1_000);
    daemon.wait_for_log("accuracy drop cleared");
}

#[test]
fn accuracy_recorded_metric_overrides_profile() {
    let scene = DriftScene::with_profile();
    let daemon = scene.start(&[]);
    change_model(&daemon, &["metrics", "m", "1", "accuracy=0.6"]);
    post_feedback_on_profile_texts(&daemon, 200, true);
    block_until("both are known", || {
        reported_accuracy(&daemon).is_some_and(|found| found.expected == Some(0.6) && found.labelled == 200)
    });
    // Something that is no share is none.
    change_model(&daemon, &["metrics", "m", "1", "accuracy=60"]);
    block_until("the profile's counts", || expected_accuracy(&daemon) == Some(0.75));
}

#[test]
fn accuracy_between_thresholds_is_unknown_after_restart() {
    let scene = DriftScene::with_profile();
    let mut daemon = scene.start(&[]);
    block_until("it was looked", || expected_accuracy(&daemon) == Some(0.75));
    assert_eq!(reported_drop(&daemon), None);
    // 0.64, where 0.75 was; two standard errors are 0.08, and four 0.16.
    post_feedback_on_profile_texts(&daemon, 128, true);
    block_until("these are known", || labelled_count(&daemon) == 128);
    assert_eq!(reported_drop(&daemon), Some(false));
    post_feedback_on_profile_texts(&daemon, 72, false);
    block_until("all are known", || labelled_count(&daemon) == 200);
    assert_eq!(reported_drop(&daemon), Some(false));
    daemon.signal("TERM");
    daemon.child.wait().unwrap();
    let daemon = scene.start(&[]);
    block_until("all are known again", || reported_accuracy(&daemon).is_some_and(|accuracy| accuracy.labelled == 200));
    assert_eq!(reported_drop(&daemon), None);
    assert!(!scrape_metrics(&daemon).contains("\npredictd_accuracy_dropped{"));
}

#[test]
fn accuracy_ignores_earlier_version_of_same_name() {
    let scene = DriftScene::with_profile();
    let other = tempfile::tempdir().unwrap();
    let daemon = scene.start(&[]);
    let version = other.path().join("2");
    std::fs::create_dir(&version).unwrap();
    for file in std::fs::read_dir(scene.version_dir()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), version.join(file.file_name())).unwrap();
    }
    let register = || {
        change_model(&daemon, &["register", "m", "2", version.to_str().unwrap()]);
        change_model(&daemon, &["activate", "m", "2"]);
    };
    register();
    post_feedback_on_profile_texts(&daemon, 150, false);
    let labelled = "predictd_feedback_labelled_predictions{model=\"m\",version=\"2\"}";
    block_until("it is known", || metric(daemon.admin, labelled) == 150);
    change_model(&daemon, &["rollback", "m"]);
    change_model(&daemon, &["remove", "m", "2"]);
    register();
    block_until("none is known of the new one", || metric(daemon.admin, labelled) == 0);
}
