//! Alerts of drift and of a dropped accuracy: `predictd watch --drift`.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, run_to_exit, send_signal};
use crate::support::drift_scene::{
    DriftScene, PROFILE_TEXTS, post_feedback_on_profile_texts, predict_texts, reported_accuracy, reported_drop,
    signal_levels,
};
use crate::support::http_receiver::HttpReceiver;
use crate::support::snapshots::{ADDRESS, TIME, snapshot_settings};
use crate::support::waiting::block_until;
use crate::support::watch_alerts::{wait_for_alerts, wait_for_raw_alerts};

/// A watcher that checks every 20 ms and sends its alerts to `webhook`.
struct DriftWatcher(Child);

impl DriftWatcher {
    fn start(daemon: &Daemon, webhook: &HttpReceiver, options: &[&str]) -> Self {
        let mut command = watch_once_command(daemon, &[&["--webhook", &webhook.url("/")], options].concat());
        Self(command.args(["--interval", "20ms"]).stderr(Stdio::null()).spawn().unwrap())
    }

    fn stop(mut self) {
        send_signal(self.0.id(), "TERM");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for DriftWatcher {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn watch_once_command(daemon: &Daemon, options: &[&str]) -> Command {
    let health = format!("http://{}", daemon.address);
    let admin = format!("http://{}", daemon.admin);
    predictd(&[&["watch", &health, "--drift", &admin], options].concat())
}

/// Status and signal of each alert until now.
fn received_alerts(webhook: &HttpReceiver, count: usize) -> Vec<[String; 2]> {
    wait_for_raw_alerts(webhook, count).iter().map(status_and_signal).collect()
}

fn status_and_signal(alert: &Value) -> [String; 2] {
    [&alert["status"], &alert["drift"]["signal"]].map(|field| field.as_str().unwrap().to_owned())
}

/// What is measured in an alert of drift.
const DISTANCES: [(&str, &str); 2] = [
    (r#""(value|threshold)": [^,\n]+"#, "\"$1\": \"[measured]\""),
    (r"\([\d.]+, from [\d.]+ on it drifts\)", "([measured], from [measured] on it drifts)"),
];

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
fn drift_alert_is_sent_once_and_on_resolution() {
    let scene = DriftScene::with_profile();
    let daemon = scene.start(&["--drift-window", "200"]);
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("retrain");
    let file = directory.path().join("alerts");
    std::fs::write(&program, format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", file.display())).unwrap();
    let mut permissions = std::fs::metadata(&program).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&program, permissions).unwrap();
    let webhook = HttpReceiver::new(&[]);
    let slack = HttpReceiver::new(&[]);
    let pager = HttpReceiver::new(&[]);
    let manager = HttpReceiver::new(&[]);
    let watcher = DriftWatcher::start(
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
    predict_texts(&daemon, &["60"], 200);
    let mut found: Vec<String> = signal_levels(&daemon)
        .into_iter()
        .zip(["labels", "confidence", "lengths", "unknown"])
        .filter(|(level, _)| level == "drifting")
        .map(|(_, signal)| signal.to_owned())
        .collect();
    assert_eq!(found.remove(0), "labels");
    let began = 1 + found.len();
    let sent = wait_for_raw_alerts(&webhook, began).swap_remove(0);
    snapshot_settings(&[&DISTANCES[..], &[ADDRESS, TIME]].concat())
        .bind(|| insta::assert_snapshot!("drift-alert", format!("{sent:#}")));
    let first = wait_for_alerts(&webhook, began).swap_remove(0);
    assert_eq!(first.url, format!("http://{}/admin/drift", daemon.admin));
    let drift = first.drift.unwrap();
    assert_eq!((drift.model.as_str(), drift.version.as_str(), drift.signal.as_str()), ("m", "1", "labels"));
    assert!(drift.value > drift.threshold, "{drift:?}");
    assert!(first.summary.starts_with("live texts of m/1 at http://"), "{}", first.summary);
    predict_texts(&daemon, &PROFILE_TEXTS, 400);
    let all = received_alerts(&webhook, 2 * began);
    assert_eq!([&all[0], &all[began]], [&["drifting", "labels"], &["quiet", "labels"]]);
    let text = slack.wait_for_requests(2 * began)[0].1["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with(":large_orange_circle: live texts of m/1"), "{text}");
    let events = pager.wait_for_requests(2 * began);
    let [trigger, resolve] = [&events[0].1, &events[began].1];
    assert_eq!([&trigger["event_action"], &resolve["event_action"]], ["trigger", "resolve"]);
    assert!(trigger["dedup_key"].is_string() && trigger["dedup_key"] == resolve["dedup_key"], "{trigger} {resolve}");
    let labels = &manager.wait_for_requests(1)[0].1[0]["labels"];
    assert_eq!(
        (&labels["alertname"], &labels["signal"], &labels["severity"]),
        (&json!("PredictdDrift"), &json!("labels"), &json!("note"))
    );
    block_until("the program got the alerts", || {
        std::fs::read_to_string(&file).is_ok_and(|alerts| alerts.lines().count() == 2 * began)
    });
    watcher.stop();
    assert_eq!(webhook.received_requests().len(), 2 * began);
}

#[test]
fn drift_alert_state_survives_restarts() {
    let scene = DriftScene::with_profile();
    let state = scene.data.path().join("state.json");
    let options = ["--state", state.to_str().unwrap()];
    let webhook = HttpReceiver::new(&[]);
    let daemon = scene.start(&["--drift-window", "200"]);
    let watcher = DriftWatcher::start(&daemon, &webhook, &options);
    block_until("the watcher has checked", || reported_accuracy(&daemon).is_some());
    post_feedback_on_profile_texts(&daemon, 150, false);
    assert_eq!(received_alerts(&webhook, 1), [["accuracy_dropped", "accuracy"]]);
    let summary = wait_for_alerts(&webhook, 1).swap_remove(0).summary;
    assert!(summary.contains("is less often right than when it was tried (0.000, where it was 0.750)"), "{summary}");
    watcher.stop();
    // Another watcher reads the state and sends no alert twice.
    let hook = webhook.url("/");
    let again = [&options[..], &["--once", "--webhook", &hook]].concat();
    let (code, log) = run_to_exit(&mut watch_once_command(&daemon, &again));
    assert_eq!((code, webhook.received_requests().len()), (0, 1), "{log}");
    assert!(std::fs::read_to_string(&state).unwrap().contains("m/1 accuracy"));
    post_feedback_on_profile_texts(&daemon, 900, true);
    block_until("the accuracy is back", || reported_drop(&daemon) == Some(false));
    let (code, log) = run_to_exit(&mut watch_once_command(&daemon, &again));
    assert_eq!(
        (code, &received_alerts(&webhook, 2)[1]),
        (0, &["accuracy_back", "accuracy"].map(str::to_owned)),
        "{log}"
    );
}

#[test]
fn drift_watch_sends_key_and_reports_bad_answers() {
    let healthy = HttpReceiver::new(&[(200, "")]);
    let good = HttpReceiver::new(&[(200, "{\"versions\":[]}")]);
    let mut command = predictd(&["watch", &healthy.url(""), "--once", "--drift", &good.url("")]);
    let (code, log) = run_to_exit(command.env("PREDICTD_API_KEY", "CANARY"));
    assert!(code == 0 && !log.contains("CANARY"), "{log}");
    assert!(
        good.heads().contains("authorization: bearer canary")
            && good.received_requests()[0].0 == "/admin/drift?windows=0"
    );
    let too_much = format!("{{\"versions\":[]}}{}", " ".repeat(5 << 20));
    for (status, body, reason) in [
        (401, "{}", "it answered with 401"),
        (200, "{}", "not that of /admin/drift"),
        (200, "[", "not that of /admin/drift"),
        (200, &too_much, "more than 4194304 bytes"),
    ] {
        let server = HttpReceiver::new(&[(status, body)]);
        let (code, log) =
            run_to_exit(&mut predictd(&["watch", &healthy.url(""), "--once", "--drift", &server.url("")]));
        assert!(code == 1 && log.contains(reason) && log.contains("1 of 1 servers do not tell of drift"), "{log}");
    }
    let (code, said) = run_to_exit(&mut predictd(&["watch", &healthy.url(""), "--drift", "CANARY"]));
    assert!(code == 64 && said.contains("--drift") && !said.contains("CANARY"), "{said}");
}
