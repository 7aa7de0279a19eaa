//! How right a version was lately, as what is told of its answers says.

use serde_json::{Value, json};

use super::{CALM, Place, ask, standing};
use crate::daemon::Daemon;
use crate::operator::done;
use crate::raw::{Wire, metric, request, until};

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

fn dropped(daemon: &Daemon) -> Option<bool> {
    standing(daemon)["accuracy"]["dropped"].as_bool()
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
    assert_eq!((dropped(&daemon), &standing(&daemon)["accuracy"]["accuracy"]), (Some(false), &json!(0.0)));
    told(&daemon, 101, true);
    until("all are known", || labelled(&daemon) == 200);
    assert_eq!(dropped(&daemon), Some(true), "101 of 200, where three of four were");
    let line = daemon.logged("the model is less often right");
    assert_eq!((&line["labelled"], &line["correct"], &line["expected"]), (&json!(200), &json!(101), &json!(0.75)));
    let text = Wire::to(daemon.admin).ask(crate::raw::get("/metrics")).body;
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
    until("the drop is over", || dropped(&daemon) == Some(false));
    assert_eq!(labelled(&daemon), 1_000);
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
