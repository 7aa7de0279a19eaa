//! What a server says of live texts: in `/admin/drift`, in its metrics, in its log.

use predictd::api::drift::DriftReportView;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, run_to_exit, serve_command};
use crate::support::daemon_requests::{get_ok, scrape_metrics};
use crate::support::drift_scene::{
    DriftScene, PROFILE_TEXTS, drift_report, post_feedback_on_profile_texts, predict_texts, profile_comparison,
    reported_accuracy, signal_levels,
};
use crate::support::models_command::change_model;
use crate::support::raw_client::{RawClient, get, metric};
use crate::support::snapshots::{TIME, snapshot_settings};
use crate::support::waiting::block_until;

const WINDOW_OPTIONS: &[&str] = &["--drift-window", "200"];

fn drift_metric(daemon: &Daemon, signal: &str) -> u64 {
    metric(daemon.admin, &format!("predictd_drift_detected{{model=\"m\",signal=\"{signal}\",version=\"1\"}}"))
}

fn closed_windows(daemon: &Daemon) -> u64 {
    metric(daemon.admin, "predictd_drift_windows_total{model=\"m\",version=\"1\"}")
}

#[test]
fn drift_is_reported_after_one_window_resolved_after_two() {
    let scene = DriftScene::with_profile();
    let mut daemon = scene.start(WINDOW_OPTIONS);
    let start = drift_report(&daemon);
    assert_eq!((start.model.as_str(), start.version.as_str(), start.state.as_str()), ("m", "1", "ready"));
    let drift = start.drift.unwrap();
    assert_eq!((drift.profile.texts, drift.profile.accuracy), (400, Some(0.75)));
    assert_eq!((drift.window_texts, drift.needed, drift.longest_seconds), (200, 100, Some(3_600.0)));
    assert_eq!(drift.signals[0].window, None);
    predict_texts(&daemon, &PROFILE_TEXTS, 200);
    assert_eq!(signal_levels(&daemon), ["quiet"; 4]);
    assert_eq!((drift_metric(&daemon, "labels"), closed_windows(&daemon)), (0, 1));
    // All of one label, and not the other.
    predict_texts(&daemon, &["60", "70"], 199);
    assert_eq!(profile_comparison(&daemon).open_texts, 199);
    predict_texts(&daemon, &["60"], 1);
    let logged = daemon.wait_for_log("drift detected");
    assert_eq!((&logged["signal"], &logged["window"], &logged["texts"]), (&json!("labels"), &json!(2), &json!(200)));
    assert_eq!(
        (signal_levels(&daemon)[0].as_str(), drift_metric(&daemon, "labels"), closed_windows(&daemon)),
        ("drifting", 1, 2)
    );
    let signal = profile_comparison(&daemon).signals.swap_remove(0);
    let distance = signal.distance.unwrap();
    assert!(distance.value > distance.threshold && distance.js > 0.1, "{distance:?}");
    assert!(humantime::parse_rfc3339(signal.since.as_deref().unwrap()).is_ok(), "{signal:?}");
    let text = scrape_metrics(&daemon);
    for name in ["predictd_drift_divergence", "predictd_drift_threshold"] {
        assert!(text.contains(&format!("\n{name}{{model=\"m\",signal=\"labels\",version=\"1\"}} ")), "{name}");
    }
    predict_texts(&daemon, &PROFILE_TEXTS, 200);
    assert_eq!(drift_metric(&daemon, "labels"), 1);
    predict_texts(&daemon, &PROFILE_TEXTS, 200);
    assert_eq!(drift_metric(&daemon, "labels"), 0);
    daemon.wait_for_log("drift cleared");
    let closed = profile_comparison(&daemon).windows;
    let levels: Vec<_> = closed.iter().map(|window| (window.number, window.signals[0].level.as_str())).collect();
    assert_eq!(levels, [(1, "quiet"), (2, "drifting"), (3, "drifting"), (4, "quiet")]);
    // As many of them as the query says.
    for (count, expected) in [(0, &[][..]), (1, &[4]), (24, &[1, 2, 3, 4])] {
        let mut report: DriftReportView = get_ok(daemon.admin, &format!("/admin/drift?windows={count}"));
        let closed = report.versions.swap_remove(0).drift.unwrap().windows;
        assert_eq!(closed.iter().map(|window| window.number).collect::<Vec<_>>(), expected);
    }
    for wrong in ["25", "-1", "x", "1&texts=1"] {
        let answer = RawClient::connect(daemon.admin).request(get(&format!("/admin/drift?windows={wrong}")));
        assert!(answer.status == 422 && answer.body.contains("`windows`, 0 to 24"), "{answer:?}");
    }
}

#[test]
fn drift_report_matches_snapshot() {
    let scene = DriftScene::with_profile();
    let daemon = scene.start(WINDOW_OPTIONS);
    predict_texts(&daemon, &PROFILE_TEXTS, 50);
    post_feedback_on_profile_texts(&daemon, 150, true);
    predict_texts(&daemon, &["60"], 210);
    block_until("the feedback is counted", || reported_accuracy(&daemon).is_some_and(|found| found.labelled == 150));
    let report: Value = get_ok(daemon.admin, "/admin/drift");
    let distances = (r#""(value|threshold|clear_below|psi|js)": [^,\n]+"#, "\"$1\": \"[measured]\"");
    snapshot_settings(&[distances, TIME]).bind(|| insta::assert_snapshot!("drift-report", format!("{report:#}")));
}

#[test]
fn drift_route_of_stopping_server_is_503() {
    let scene = DriftScene::with_profile();
    let mut daemon = scene.start(&["--drain-delay", "2s"]);
    assert_eq!(drift_report(&daemon).state, "ready");
    daemon.signal("TERM");
    block_until("it stops", || RawClient::connect(daemon.admin).request(get("/readyz")).status == 503);
    let answer = RawClient::connect(daemon.admin).request(get("/admin/drift"));
    assert_eq!((answer.status, &*answer.problem().title), (503, "The server is shutting down"));
    daemon.child.wait().unwrap();
}

#[test]
fn drift_counts_unknown_tokens_and_cache_hits() {
    let scene = DriftScene::with_profile();
    let daemon = scene.start(&["--drift-window", "200", "--cache-bytes", "1048576"]);
    // Each text is run once, and the others come from the cache.
    for _ in 0..2 {
        predict_texts(&daemon, &PROFILE_TEXTS, 50);
    }
    predict_texts(&daemon, &["60 zwei", "10 20 drei"], 2);
    predict_texts(&daemon, &["60 zwei", "10 20 drei"], 98);
    assert!(metric(daemon.admin, "predictd_cache_lookups_total{result=\"hit\"}") > 100);
    assert_eq!(signal_levels(&daemon)[3], "drifting");
    assert_eq!(closed_windows(&daemon), 1);
}

#[test]
fn drift_window_closes_by_time() {
    let scene = DriftScene::with_profile();
    let daemon = scene.start(&["--drift-window", "1000", "--drift-max-window-age", "1500ms"]);
    predict_texts(&daemon, &["60"], 150);
    assert_eq!(closed_windows(&daemon), 0);
    block_until("the window was closed", || closed_windows(&daemon) == 1);
    assert_eq!((signal_levels(&daemon)[0].as_str(), profile_comparison(&daemon).windows[0].texts), ("drifting", 150));
    predict_texts(&daemon, &["60"], 99);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(closed_windows(&daemon), 1, "too few to be judged");
}

fn changed_json(good: &str, change: fn(&mut Value)) -> String {
    let mut value = serde_json::from_str(good).unwrap();
    change(&mut value);
    value.to_string()
}

#[test]
fn drift_profile_of_another_model_fails_load() {
    let scene = DriftScene::with_profile();
    let path = scene.version_dir().join("profile.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (content, reason) in [
        ("{".to_owned(), "profile.json: EOF"),
        (String::new(), "profile.json: it is empty"),
        (
            changed_json(&good, |p| p["labels"][0]["label"] = json!("c")),
            "profile.json: labels: \\\"a\\\", which the model has, is missing",
        ),
        (changed_json(&good, |p| p["texts"] = json!(401)), "profile.json: labels and other: the counts add up to 400"),
        (changed_json(&good, |p| p["version"] = json!(2)), "profile.json: version: 2, where 1 is understood"),
        (changed_json(&good, |p| p["colour"] = json!("red")), "profile.json: unknown field `colour`"),
        (format!("{good}{}", " ".repeat(17 << 20)), "profile.json: it is larger than the limit"),
    ] {
        std::fs::write(&path, content).unwrap();
        let output = predictd(&["check", scene.version_dir().to_str().unwrap(), "--json"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(reason), "{reason}: {said}");
    }
    let mut daemon = Daemon::launch(&mut serve_command(scene.models.path(), scene.data.path(), &[]));
    assert!(daemon.wait_for_log("model version load failed")["error"].as_str().unwrap().starts_with("profile.json: "));
    assert_eq!(drift_report(&daemon).state, "failed");
    // One of a model whose tokenizer tells what it does not know does not fit another.
    std::fs::write(&path, &good).unwrap();
    let digest = format!("[sha256]\n\"profile.json\" = \"{}\"", "0".repeat(64));
    std::fs::write(scene.version_dir().join("model.toml"), digest).unwrap();
    let (code, said) = run_to_exit(&mut predictd(&["check", scene.version_dir().to_str().unwrap()]));
    assert!(code == 1 && said.contains("profile.json: its SHA-256 is not the one in model.toml"), "{said}");
}

#[test]
fn drift_window_limits_and_small_window_warning() {
    let scene = DriftScene::with_profile();
    for (options, word) in [
        (["--drift-window", "99"], "--drift-window 99 is not between 100 and 1000000"),
        (["--drift-window", "1000001"], "--drift-window"),
        (["--drift-max-window-age", "8d"], "--drift-max-window-age"),
    ] {
        let (code, said) = run_to_exit(&mut serve_command(scene.models.path(), scene.data.path(), &options));
        assert!(code == 64 && said.contains(word), "{options:?}: {code} {said}");
    }
    // Unknown tokens come many at a time: chance moves their share far.
    let path = scene.version_dir().join("profile.json");
    let mut profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sums = json!({ "tokens": 4_000, "unknown": 1_000, "tokens_squared": 40_000, "tokens_by_unknown": 10_000, "unknown_squared": 8_500 });
    profile["unknown"] = sums;
    std::fs::write(&path, profile.to_string()).unwrap();
    let mut daemon = scene.start(&["--drift-window", "100", "--drift-max-window-age", "0s"]);
    assert_eq!(profile_comparison(&daemon).longest_seconds, None);
    let log = daemon.log();
    assert!(log.contains("too small for some drift signals"), "{log}");
    daemon.signal("TERM");
    daemon.child.wait().unwrap();
}

fn count_series_of_second_version(daemon: &Daemon) -> usize {
    let of_version = |line: &&str| line.starts_with("predictd_drift") && line.contains("version=\"2\"");
    scrape_metrics(daemon).lines().filter(of_version).count()
}

#[test]
fn drift_state_is_per_version_and_removed_with_it() {
    let scene = DriftScene::new();
    let others = tempfile::tempdir().unwrap();
    let daemon = scene.start(WINDOW_OPTIONS);
    let report: Value = get_ok(daemon.admin, "/admin/drift");
    assert_eq!(
        report,
        json!({ "versions": [{ "model": "m", "version": "1", "state": "ready" }] }),
        "it has no profile"
    );
    let other = others.path().join("2");
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(scene.version_dir()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    scene.write_profile(&other);
    change_model(&daemon, &["register", "m", "2", other.to_str().unwrap()]);
    change_model(&daemon, &["activate", "m", "2"]);
    predict_texts(&daemon, &["60"], 200);
    // Three of each of four signals, and the windows.
    assert_eq!(count_series_of_second_version(&daemon), 13);
    let report: DriftReportView = get_ok(daemon.admin, "/admin/drift");
    let compared = report.versions.iter().filter_map(|version| version.drift.as_ref());
    let levels: Vec<&str> = compared.map(|drift| drift.signals[0].level.as_str()).collect();
    assert_eq!(levels, ["drifting"], "{report:?}");
    change_model(&daemon, &["rollback", "m"]);
    change_model(&daemon, &["remove", "m", "2"]);
    assert_eq!(count_series_of_second_version(&daemon), 0);
}
