//! How right a version was lately, as what is told of its answers says.

use serde_json::{Value, json};

use super::{CALM, Place, ask, standing};
use crate::daemon::Daemon;
use crate::operator::done;
use crate::raw::{Wire, get, metric, request, until};

/// Asks so many texts, and tells of each answer whether it was right.
pub fn told(daemon: &Daemon, count: usize, right: bool) {
    let truth = |answer: &Value| {
        let label = answer["prediction"].as_str().unwrap();
        let other = if label == "a" { "b" } else { "a" };
        json!({ "prediction_id": answer["prediction_id"], "actual": if right { label } else { other } })
    };
    let truths: Vec<Value> = ask(daemon, &CALM, count).iter().map(truth).collect();
    let answer = Wire::to(daemon.address).ask(request("POST", "/feedback", "", &json!(truths).to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn accuracy(daemon: &Daemon) -> Value {
    standing(daemon)["accuracy"].clone()
}

fn dropped(daemon: &Daemon) -> Option<bool> {
    accuracy(daemon)["dropped"].as_bool()
}

fn metrics(daemon: &Daemon) -> String {
    Wire::to(daemon.admin).ask(get("/metrics")).body
}

fn labelled(daemon: &Daemon) -> u64 {
    metric(daemon.admin, "predictd_feedback_labelled{model=\"m\",version=\"1\"}")
}

#[test]
fn a_drop_below_the_profile_is_told_and_over_when_the_accuracy_is_back() {
    let place = Place::with_profile();
    let mut daemon = place.start(&[]);
    until("it was looked", || standing(&daemon)["accuracy"]["expected"] == 0.75);
    // None right of 99: nothing is known of so few.
    told(&daemon, 99, false);
    until("it was looked again", || labelled(&daemon) == 99);
    assert_eq!((&accuracy(&daemon)["dropped"], &accuracy(&daemon)["accuracy"]), (&Value::Null, &json!(0.0)));
    assert!(!metrics(&daemon).contains("\npredictd_accuracy_dropped{"), "nothing is known of so few");
    told(&daemon, 101, true);
    until("all are known", || labelled(&daemon) == 200);
    assert_eq!(dropped(&daemon), Some(true), "101 of 200, where three of four were");
    let line = daemon.logged("the model is less often right");
    assert_eq!((&line["labelled"], &line["correct"], &line["expected"]), (&json!(200), &json!(101), &json!(0.75)));
    let text = metrics(&daemon);
    for series in [
        "predictd_feedback_accuracy{model=\"m\",version=\"1\"} 0.505",
        "predictd_expected_accuracy{model=\"m\",version=\"1\"} 0.75",
        "predictd_accuracy_dropped{model=\"m\",version=\"1\"} 1",
    ] {
        assert!(text.contains(&format!("\n{series}\n")), "{series}");
    }
    // Only the last 1,000 count.
    told(&daemon, 901, true);
    told(&daemon, 100, true);
    // A list is kept in parts: it may be looked in between.
    until("the drop is over", || dropped(&daemon) == Some(false) && labelled(&daemon) == 1_000);
    daemon.logged("the model is as often right");
}

#[test]
fn what_was_recorded_of_a_version_counts_before_its_profile() {
    let place = Place::with_profile();
    let daemon = place.start(&[]);
    done(&daemon, &["metrics", "m", "1", "accuracy=0.6"]);
    told(&daemon, 200, true);
    until("both are known", || {
        let accuracy = standing(&daemon)["accuracy"].clone();
        accuracy["expected"] == 0.6 && accuracy["labelled"] == 200
    });
    // Something that is no share is none.
    done(&daemon, &["metrics", "m", "1", "accuracy=60"]);
    until("the profile's counts", || standing(&daemon)["accuracy"]["expected"] == 0.75);
}

#[test]
fn what_is_neither_dropped_nor_back_is_not_known_after_a_restart() {
    let place = Place::with_profile();
    let mut daemon = place.start(&[]);
    until("it was looked", || accuracy(&daemon)["expected"] == 0.75);
    assert_eq!(accuracy(&daemon)["dropped"], Value::Null);
    // 0.64, where 0.75 was; two standard errors are 0.08, and four 0.16.
    told(&daemon, 128, true);
    until("these are known", || labelled(&daemon) == 128);
    assert_eq!(dropped(&daemon), Some(false));
    told(&daemon, 72, false);
    until("all are known", || labelled(&daemon) == 200);
    assert_eq!(dropped(&daemon), Some(false));
    daemon.signal("TERM");
    daemon.child.wait().unwrap();
    let daemon = place.start(&[]);
    until("all are known again", || accuracy(&daemon)["labelled"] == 200);
    assert_eq!(accuracy(&daemon)["dropped"], Value::Null);
    assert!(!metrics(&daemon).contains("\npredictd_accuracy_dropped{"));
}

#[test]
fn answers_of_another_version_of_the_name_do_not_count() {
    let place = Place::with_profile();
    let other = tempfile::tempdir().unwrap();
    let daemon = place.start(&[]);
    let version = other.path().join("2");
    std::fs::create_dir(&version).unwrap();
    for file in std::fs::read_dir(place.version()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), version.join(file.file_name())).unwrap();
    }
    let register = || {
        done(&daemon, &["register", "m", "2", version.to_str().unwrap()]);
        done(&daemon, &["activate", "m", "2"]);
    };
    register();
    told(&daemon, 150, false);
    let labelled = || metric(daemon.admin, "predictd_feedback_labelled{model=\"m\",version=\"2\"}");
    until("it is known", || labelled() == 150);
    done(&daemon, &["rollback", "m"]);
    done(&daemon, &["remove", "m", "2"]);
    register();
    until("none is known of the new one", || labelled() == 0);
}
