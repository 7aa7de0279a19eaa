//! `predictd experiments`.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{Daemon, predictd};
use crate::support::experiment_scene::{
    ExperimentScene, feedback_item, is_decided_better, post_feedback_ok, predict_as_user,
};
use crate::support::raw_client::RawClient;
use crate::support::snapshots::{TIME, snapshot_settings, transcript};
use crate::support::waiting::block_until;

fn experiments_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let url = format!("http://{}", daemon.admin);
    predictd(&[&["experiments", "--admin-url", &url], arguments].concat())
}

/// Runs one command after the other; what a terminal shows.
fn transcripts(daemon: &Daemon, steps: &[&[&str]]) -> String {
    let pages = steps
        .iter()
        .map(|step| transcript(&[&["experiments"], *step].concat(), &mut experiments_command(daemon, step)));
    pages.collect()
}

/// Times of answers, what a shadow had time for, when the first decision fell, and digits that depend on the processor.
const MEASURED: [(&str, &str); 7] = [
    (r"[\d.]+ +[\d.]+ +(\d+ +[\d.]+ % \()", "[ms] [ms] $1"),
    (r"\n(shade +m/1 +10\.0 %) .*", "\n$1 [measured]"),
    (r"  decided \[time\]: .*", "  decided [time]: [verdict]"),
    (r#"(?s)"decided": \{.*?\}"#, r#""decided": "[first decision]""#),
    (r#""(p50|p90|p99|agreement|compared|distance|skipped)": [^,\n]+"#, r#""$1": "[measured]""#),
    (r"\d\.\d+e-\d+", "[tiny]"),
    (r"(\d\.\d{4})\d{4,}", "$1"),
];

#[test]
fn experiments_command_create_to_end_matches_snapshot() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    let create =
        ["create", "colours", "--arm", "old=1:50", "--arm", "new=2:50", "--shadow", "shade=m/1:10", "--least", "0.05"];
    let start = ["start", "colours", "--reason", "why not"];
    let mut pages = transcripts(&daemon, &[&["list"], &create, &start, &["show", "colours"]]);
    let mut wire = RawClient::connect(daemon.address);
    let feedback: Vec<Value> =
        (0..400).map(|user| feedback_item(&predict_as_user(&mut wire, "10", &user.to_string()), "b")).collect();
    post_feedback_ok(&daemon, &feedback);
    // The first decision is stored by the process that evaluates every few seconds.
    block_until("it is decided", || is_decided_better(&daemon, "colours", "new"));
    pages.push_str(&transcripts(
        &daemon,
        &[
            &["results", "colours"],
            &["results", "colours", "--json", "--details"],
            &["weights", "colours", "old=10", "new=90"],
            &["pause", "colours"],
            &["start", "colours"],
            &["promote", "colours", "new"],
            &["history", "colours"],
            &["list"],
        ],
    ));
    snapshot_settings(&[&[TIME], &MEASURED[..]].concat()).bind(|| insta::assert_snapshot!("experiments", pages));
}

#[test]
fn experiments_command_refusals_and_rollout_match_snapshot() {
    let scene = ExperimentScene::new();
    let daemon = scene.start();
    let rollout =
        ["create", "new-one", "--arm", "old=1", "--arm", "new=2", "--steps", "1,5,25,100", "--step-seconds", "60"];
    let pages = transcripts(
        &daemon,
        &[
            &["create", "x", "--arm", "old=1:100"],
            &["create", "x", "--arm", "old=1:50", "--arm", "new=2:20"],
            &["create", "x", "--arm", "old"],
            &["create", "x"],
            &["create", "X", "--arm", "old=1:50"],
            &["start", "nobody"],
            &["promote", "nobody", "new"],
            &["create", "x", "--file", "/nowhere"],
            // A rollout needs no weights.
            &rollout,
            &["show", "new-one"],
            &["forget", "new-one"],
        ],
    );
    snapshot_settings(&[TIME]).bind(|| insta::assert_snapshot!("experiments-refusals", pages));
}
