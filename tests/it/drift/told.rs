//! Who is told of drift and of an accuracy that drops: `predictd watch --drift`.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::accuracy::told;
use super::{CALM, Place, ask, levels, standing};
use crate::daemon::{Daemon, ends, predictd, signal};
use crate::raw::until;
use crate::receiver::Receiver;

/// A watcher that looks every 20 ms, and tells `webhook`.
struct Watcher(Child);

impl Watcher {
    fn of(daemon: &Daemon, webhook: &Receiver, options: &[&str]) -> Self {
        let mut command = once(daemon, &[&["--webhook", &webhook.url("/")], options].concat());
        Self(command.args(["--interval", "20ms"]).stderr(Stdio::null()).spawn().unwrap())
    }

    fn stop(mut self) {
        signal(self.0.id(), "TERM");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn once(daemon: &Daemon, options: &[&str]) -> Command {
    let (health, admin) = (format!("http://{}", daemon.address), format!("http://{}", daemon.admin));
    predictd(&[&["watch", &health, "--drift", &admin], options].concat())
}

/// What was told so far: status and signal of each alert.
fn alerts(webhook: &Receiver, count: usize) -> Vec<(String, String)> {
    let string = |value: &Value| value.as_str().unwrap().to_owned();
    webhook
        .requests(count)
        .iter()
        .map(|(_, alert)| (string(&alert["status"]), string(&alert["drift"]["signal"])))
        .collect()
}

fn pair(status: &str, signal: &str) -> (String, String) {
    (status.to_owned(), signal.to_owned())
}

#[test]
fn drift_is_told_once_and_once_more_when_it_is_over() {
    let place = Place::with_profile();
    let daemon = place.start(&["--drift-window", "200"]);
    let told_to = tempfile::tempdir().unwrap();
    let (program, file) = (told_to.path().join("retrain"), told_to.path().join("told"));
    std::fs::write(&program, format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", file.display())).unwrap();
    let mut permissions = std::fs::metadata(&program).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&program, permissions).unwrap();
    let (webhook, slack, pager, manager) =
        (Receiver::new(&[]), Receiver::new(&[]), Receiver::new(&[]), Receiver::new(&[]));
    let watcher = Watcher::of(
        &daemon,
        &webhook,
        &[
            "--command",
            program.to_str().unwrap(),
            "--slack",
            &slack.url("/"),
            "--pagerduty",
            "k",
            "--pagerduty-url",
            &pager.url("/"),
            "--alertmanager",
            &manager.url(""),
        ],
    );
    ask(&daemon, &["60"], 200);
    let mut found: Vec<String> = levels(&daemon)
        .into_iter()
        .zip(["labels", "confidence", "lengths", "unknown"])
        .filter(|(level, _)| level == "drifting")
        .map(|(_, signal)| signal.to_owned())
        .collect();
    assert_eq!(found.remove(0), "labels");
    let began = 1 + found.len();
    let first = webhook.requests(began)[0].1.clone();
    assert_eq!(
        (&first["status"], &first["url"]),
        (&json!("drifting"), &json!(format!("http://{}/admin/drift", daemon.admin)))
    );
    let drift = &first["drift"];
    assert_eq!((&drift["model"], &drift["version"], &drift["signal"]), (&json!("m"), &json!("1"), &json!("labels")));
    assert!(drift["value"].as_f64() > drift["threshold"].as_f64() && first.get("check").is_none(), "{first}");
    assert!(first["summary"].as_str().unwrap().starts_with("live texts of m/1 at http://"), "{first}");
    ask(&daemon, &CALM, 400);
    let all = alerts(&webhook, 2 * began);
    assert_eq!((&all[0], &all[began]), (&pair("drifting", "labels"), &pair("quiet", "labels")));
    let text = slack.requests(2 * began)[0].1["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with(":large_orange_circle: live texts of m/1"), "{text}");
    let events = pager.requests(2 * began);
    let event = |place: usize, field: &str| events[place].1[field].as_str().unwrap().to_owned();
    assert_eq!((event(0, "event_action"), event(began, "event_action")), ("trigger".to_owned(), "resolve".to_owned()));
    assert_eq!(event(0, "dedup_key"), event(began, "dedup_key"));
    let labels = &manager.requests(1)[0].1[0]["labels"];
    assert_eq!(
        (&labels["alertname"], &labels["signal"], &labels["severity"]),
        (&json!("PredictdDrift"), &json!("labels"), &json!("note"))
    );
    until("the program was told", || {
        std::fs::read_to_string(&file).is_ok_and(|told| told.lines().count() == 2 * began)
    });
    watcher.stop();
    assert_eq!(webhook.received().len(), 2 * began);
}

#[test]
fn what_was_told_of_drift_and_accuracy_outlasts_watcher_and_server() {
    let place = Place::with_profile();
    let state = place.data.path().join("state.json");
    let options = ["--state", state.to_str().unwrap()];
    let webhook = Receiver::new(&[]);
    let daemon = place.start(&["--drift-window", "200"]);
    let watcher = Watcher::of(&daemon, &webhook, &options);
    until("it was looked", || standing(&daemon)["accuracy"].is_object());
    told(&daemon, 150, false);
    assert_eq!(alerts(&webhook, 1), [pair("accuracy_dropped", "accuracy")]);
    let summary = webhook.requests(1)[0].1["summary"].as_str().unwrap().to_owned();
    assert!(summary.contains("is less often right than when it was tried (0.000, where it was 0.750)"), "{summary}");
    watcher.stop();
    // Another watcher knows it, and tells nothing twice.
    let hook = webhook.url("/");
    let again = [&options[..], &["--once", "--webhook", &hook]].concat();
    let (code, log) = ends(&mut once(&daemon, &again));
    assert_eq!((code, webhook.received().len()), (0, 1), "{log}");
    assert!(std::fs::read_to_string(&state).unwrap().contains("m/1 accuracy"));
    told(&daemon, 900, true);
    until("the accuracy is back", || standing(&daemon)["accuracy"]["dropped"] == false);
    let (code, log) = ends(&mut once(&daemon, &again));
    assert_eq!((code, alerts(&webhook, 2).pop()), (0, Some(pair("accuracy_back", "accuracy"))), "{log}");
}

#[test]
fn a_key_is_sent_and_a_server_that_says_nothing_is_no_good_look() {
    let healthy = Receiver::new(&[(200, "")]);
    let look = |server: &Receiver, key: Option<&str>| {
        let mut command = predictd(&["watch", &healthy.url(""), "--once", "--drift", &server.url("")]);
        if let Some(key) = key {
            command.env("PREDICTD_API_KEY", key);
        }
        ends(&mut command)
    };
    let good = Receiver::new(&[(200, "{\"versions\":[]}")]);
    let (code, log) = look(&good, Some("CANARY"));
    assert!(code == 0 && !log.contains("CANARY"), "{log}");
    assert!(good.heads().contains("authorization: bearer canary") && good.received()[0].0 == "/admin/drift?windows=0");
    for (status, body, reason) in [
        (401, "{}", "it answered with 401"),
        (200, "{}", "not that of /admin/drift"),
        (200, "[", "not that of /admin/drift"),
    ] {
        let (code, log) = look(&Receiver::new(&[(status, body)]), None);
        assert!(code == 1 && log.contains(reason) && log.contains("1 of 1 servers do not tell of drift"), "{log}");
    }
    let too_much = format!("{{\"versions\":[]}}{}", " ".repeat(5 << 20));
    let (code, log) = look(&Receiver::new(&[(200, &too_much)]), None);
    assert!(code == 1 && log.contains("more than 4194304 bytes"), "{log}");
    let (code, said) = ends(&mut predictd(&["watch", &healthy.url(""), "--drift", "CANARY"]));
    assert!(code == 64 && said.contains("--drift") && !said.contains("CANARY"), "{said}");
}
