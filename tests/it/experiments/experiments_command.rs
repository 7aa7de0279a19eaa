//! `predictd experiments`.

use std::process::Command;

use serde_json::{Value, json};

use super::{Scene, post_feedback, predict_as_user};
use crate::support::daemon::{Daemon, predictd, run_to_exit};
use crate::support::raw_client::RawClient;

fn experiments_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let url = format!("http://{}", daemon.admin);
    predictd(&[&["experiments", "--admin-url", &url], arguments].concat())
}

/// What the command prints.
fn stdout_of(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = experiments_command(daemon, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn experiments_command_create_to_end_works() {
    let scene = Scene::new();
    let daemon = scene.start();
    assert_eq!(stdout_of(&daemon, &["list"]).lines().count(), 1);
    let create =
        ["create", "colours", "--arm", "old=1:50", "--arm", "new=2:50", "--shadow", "shade=m/1:10", "--least", "0.05"];
    assert_eq!(stdout_of(&daemon, &create), "colours: draft, old 50.0 %, new 50.0 %, shade 10.0 % (shadow)\n");
    assert_eq!(
        stdout_of(&daemon, &["start", "colours", "--reason", "why not"]),
        "colours: running, old 50.0 %, new 50.0 %, shade 10.0 % (shadow)\n"
    );
    let shown = stdout_of(&daemon, &["show", "colours"]);
    for line in ["state        running", "arm          new: m/2, 50.0 %", "shadow       shade: m/1, 10.0 %"] {
        assert!(shown.contains(line), "{shown}");
    }
    let mut wire = RawClient::connect(daemon.address);
    let truths: Vec<Value> = (0..400)
        .map(|user| json!({ "prediction_id": predict_as_user(&mut wire, "10", &user.to_string())["prediction_id"], "actual": "b" }))
        .collect();
    post_feedback(&daemon, &truths);
    let results = stdout_of(&daemon, &["results", "colours"]);
    let lines: Vec<&str> = results.lines().collect();
    assert!(lines[0].starts_with("new is better: right in 100.0 % of "), "{results}");
    assert!(lines[3].starts_with("ARM            VERSION"), "{results}");
    assert!(
        lines[4].starts_with("old*           m/1                    50.0 %") && lines[4].contains("0.0 % (0.0 to "),
        "{results}"
    );
    assert!(results.contains("SHADOW         VERSION"), "{results}");
    let json: Value =
        serde_json::from_str(&stdout_of(&daemon, &["results", "colours", "--json", "--details"])).unwrap();
    assert_eq!(json["arms"][1]["feedback"]["classes"][0]["label"], "b");
    assert!(
        stdout_of(&daemon, &["weights", "colours", "old=10", "new=90"])
            .contains("old 10.0 %, new 90.0 %, shade 10.0 % (shadow)")
    );
    assert!(stdout_of(&daemon, &["pause", "colours"]).starts_with("colours: paused"));
    assert!(stdout_of(&daemon, &["start", "colours"]).starts_with("colours: running"));
    assert!(stdout_of(&daemon, &["promote", "colours", "new"]).starts_with("colours: ended"));
    assert!(stdout_of(&daemon, &["history", "colours"]).contains("why not"));
    assert!(stdout_of(&daemon, &["list"]).contains("colours                  ended"));
}

#[test]
fn experiments_command_invalid_or_refused_is_reported() {
    let scene = Scene::new();
    let daemon = scene.start();
    for (arguments, code, sentence) in [
        (&["create", "x", "--arm", "old=1:100"][..], 1, "there is nothing to compare"),
        (&["create", "x", "--arm", "old=1:50", "--arm", "new=2:20"], 1, "add up to 70"),
        (&["create", "x", "--arm", "old"], 64, "NAME=VERSION:WEIGHT"),
        (&["create", "x"], 64, "--arm"),
        (&["create", "X", "--arm", "old=1:50"], 64, "lower-case"),
        (&["start", "nobody"], 1, "There is no experiment of this name"),
        (&["promote", "nobody", "new"], 1, "There is no experiment"),
        (&["create", "x", "--file", "/nowhere"], 1, "/nowhere"),
    ] {
        let (found, said) = run_to_exit(&mut experiments_command(&daemon, arguments));
        assert!(found == code && said.contains(sentence), "{arguments:?}: {found} {said}");
    }
    // A rollout needs no weights.
    let create =
        ["create", "new-one", "--arm", "old=1", "--arm", "new=2", "--steps", "1,5,25,100", "--step-seconds", "60"];
    assert_eq!(stdout_of(&daemon, &create), "new-one: draft, old 100.0 %, new 0.0 %\n");
    let shown = stdout_of(&daemon, &["show", "new-one"]);
    assert!(shown.contains("step 2       5.0 %, 60 s and 1000 requests at least"), "{shown}");
    assert_eq!(stdout_of(&daemon, &["forget", "new-one"]), "the experiment is forgotten\n");
}
