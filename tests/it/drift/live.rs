//! What a server says of live texts: in `/admin/drift`, in its metrics, in its log.

use serde_json::{Value, json};

use super::{CALM, Place, ask, levels, standing};
use crate::daemon::{Daemon, ends, predictd, serving};
use crate::operator::done;
use crate::raw::{Wire, get, metric, until};

const WINDOW: &[&str] = &["--drift-window", "200"];

fn drifting(daemon: &Daemon, signal: &str) -> u64 {
    metric(daemon.admin, &format!("predictd_drifting{{model=\"m\",signal=\"{signal}\",version=\"1\"}}"))
}

fn windows(daemon: &Daemon) -> u64 {
    metric(daemon.admin, "predictd_drift_windows_total{model=\"m\",version=\"1\"}")
}

#[test]
fn drift_is_told_after_one_window_and_over_after_two() {
    let place = Place::with_profile();
    let mut daemon = place.start(WINDOW);
    let start = standing(&daemon);
    assert_eq!((&start["model"], &start["version"], &start["state"]), (&json!("m"), &json!("1"), &json!("ready")));
    let drift = &start["drift"];
    assert_eq!((&drift["profile"]["texts"], &drift["profile"]["accuracy"]), (&json!(400), &json!(0.75)));
    assert_eq!(
        (&drift["window_texts"], &drift["needed"], &drift["longest_seconds"]),
        (&json!(200), &json!(100), &json!(3_600.0))
    );
    assert_eq!(drift["signals"][0]["window"], Value::Null);
    ask(&daemon, &CALM, 200);
    assert_eq!(levels(&daemon), ["quiet"; 4]);
    assert_eq!((drifting(&daemon, "labels"), windows(&daemon)), (0, 1));
    // All of one label, and not the other.
    ask(&daemon, &["60", "70"], 199);
    assert_eq!(standing(&daemon)["drift"]["open_texts"], 199);
    ask(&daemon, &["60"], 1);
    let told = daemon.logged("live texts drift from the profile");
    assert_eq!((&told["signal"], &told["window"], &told["texts"]), (&json!("labels"), &json!(2), &json!(200)));
    assert_eq!((levels(&daemon)[0].as_str(), drifting(&daemon, "labels"), windows(&daemon)), ("drifting", 1, 2));
    let stands = standing(&daemon);
    let signal = &stands["drift"]["signals"][0];
    assert!(signal["value"].as_f64() > signal["threshold"].as_f64() && signal["js"].as_f64() > Some(0.1), "{signal}");
    assert!(humantime::parse_rfc3339(signal["since"].as_str().unwrap()).is_ok(), "{signal}");
    let text = Wire::to(daemon.admin).ask(get("/metrics")).body;
    for name in ["predictd_drift_distance", "predictd_drift_threshold"] {
        assert!(text.contains(&format!("\n{name}{{model=\"m\",signal=\"labels\",version=\"1\"}} ")), "{name}");
    }
    ask(&daemon, &CALM, 200);
    assert_eq!(drifting(&daemon, "labels"), 1);
    ask(&daemon, &CALM, 200);
    assert_eq!(drifting(&daemon, "labels"), 0);
    daemon.logged("live texts are like the profile again");
    let closed = standing(&daemon)["drift"]["windows"].as_array().unwrap().clone();
    let told: Vec<_> = closed
        .iter()
        .map(|window| (window["number"].as_u64().unwrap(), window["signals"][0]["level"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(1, "quiet"), (2, "drifting"), (3, "drifting"), (4, "quiet")]);
    // As many of them as are asked for.
    let asked = |windows: &str| Wire::to(daemon.admin).ask(get(&format!("/admin/drift?windows={windows}")));
    let numbers = |windows| {
        let closed = asked(windows).json()["versions"][0]["drift"]["windows"].as_array().unwrap().clone();
        closed.iter().map(|window| window["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((numbers("0"), numbers("1"), numbers("24").len()), (vec![], vec![4], 4));
    for wrong in ["25", "-1", "x", "1&texts=1"] {
        let answer = asked(wrong);
        assert!(answer.status == 422 && answer.body.contains("`windows`, 0 to 24"), "{answer:?}");
    }
}

#[test]
fn a_server_that_stops_says_so_and_not_that_nothing_is_there() {
    let place = Place::with_profile();
    let mut daemon = place.start(&["--drain-delay", "2s"]);
    assert_eq!(standing(&daemon)["state"], "ready");
    daemon.signal("TERM");
    until("it stops", || Wire::to(daemon.admin).ask(get("/readyz")).status == 503);
    let answer = Wire::to(daemon.admin).ask(get("/admin/drift"));
    assert_eq!((answer.status, &answer.json()["title"]), (503, &json!("The server is shutting down")));
    daemon.child.wait().unwrap();
}

#[test]
fn unknown_tokens_and_answers_of_the_cache_count() {
    let place = Place::with_profile();
    let daemon = place.start(&["--drift-window", "200", "--cache-bytes", "1048576"]);
    // Each text is run once, and the others come from the cache.
    for _ in 0..2 {
        ask(&daemon, &CALM, 50);
    }
    ask(&daemon, &["60 zwei", "10 20 drei"], 2);
    ask(&daemon, &["60 zwei", "10 20 drei"], 98);
    assert!(metric(daemon.admin, "predictd_cache_lookups_total{result=\"hit\"}") > 100);
    assert_eq!(levels(&daemon)[3], "drifting");
    assert_eq!(windows(&daemon), 1);
}

#[test]
fn a_window_closes_in_time_without_another_text() {
    let place = Place::with_profile();
    let daemon = place.start(&["--drift-window", "1000", "--drift-longest", "1500ms"]);
    ask(&daemon, &["60"], 150);
    assert_eq!(windows(&daemon), 0);
    until("the window was closed", || windows(&daemon) == 1);
    assert_eq!(
        (levels(&daemon)[0].as_str(), &standing(&daemon)["drift"]["windows"][0]["texts"]),
        ("drifting", &json!(150))
    );
    ask(&daemon, &["60"], 99);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(windows(&daemon), 1, "too few to be judged");
}

#[test]
fn a_profile_that_is_not_one_of_its_model_keeps_it_from_serving() {
    let place = Place::with_profile();
    let path = place.version().join("profile.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let changed = |change: fn(&mut Value)| {
        let mut profile: Value = serde_json::from_str(&good).unwrap();
        change(&mut profile);
        profile.to_string()
    };
    for (content, reason) in [
        ("{".to_owned(), "profile.json: EOF"),
        (String::new(), "profile.json: it is empty"),
        (
            changed(|p| p["labels"][0]["label"] = json!("c")),
            "profile.json: labels: \\\"a\\\", which the model has, is missing",
        ),
        (changed(|p| p["texts"] = json!(401)), "profile.json: labels and other: the counts add up to 400"),
        (changed(|p| p["version"] = json!(2)), "profile.json: version: 2, where 1 is understood"),
        (changed(|p| p["colour"] = json!("red")), "profile.json: unknown field `colour`"),
        (format!("{good}{}", " ".repeat(17 << 20)), "profile.json: it is larger than the limit"),
    ] {
        std::fs::write(&path, content).unwrap();
        let output = predictd(&["check", place.version().to_str().unwrap(), "--json"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(reason), "{reason}: {said}");
    }
    let mut daemon = Daemon::launch(&mut serving(place.models.path(), place.data.path(), &[]));
    assert!(daemon.logged("the model could not be loaded")["error"].as_str().unwrap().starts_with("profile.json: "));
    assert_eq!(standing(&daemon)["state"], "failed");
    // One of a model whose tokenizer tells what it does not know does not fit another.
    std::fs::write(&path, &good).unwrap();
    let digest = format!("[sha256]\n\"profile.json\" = \"{}\"", "0".repeat(64));
    std::fs::write(place.version().join("model.toml"), digest).unwrap();
    let (code, said) = ends(&mut predictd(&["check", place.version().to_str().unwrap()]));
    assert!(code == 1 && said.contains("profile.json: its SHA-256 is not the one in model.toml"), "{said}");
}

#[test]
fn a_window_has_limits_and_one_that_is_too_small_is_warned_of() {
    let place = Place::with_profile();
    for (options, word) in [
        (["--drift-window", "99"], "--drift-window 99 is not between 100 and 1000000"),
        (["--drift-window", "1000001"], "--drift-window"),
        (["--drift-longest", "8d"], "--drift-longest"),
    ] {
        let (code, said) = ends(&mut serving(place.models.path(), place.data.path(), &options));
        assert!(code == 64 && said.contains(word), "{options:?}: {code} {said}");
    }
    // Unknown tokens come many at a time: chance moves their share far.
    let path = place.version().join("profile.json");
    let mut profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sums = json!({ "tokens": 4_000, "unknown": 1_000, "tokens_squared": 40_000, "tokens_by_unknown": 10_000, "unknown_squared": 8_500 });
    profile["unknown"] = sums;
    std::fs::write(&path, profile.to_string()).unwrap();
    let mut daemon = place.start(&["--drift-window", "100", "--drift-longest", "0s"]);
    assert_eq!(standing(&daemon)["drift"]["longest_seconds"], Value::Null);
    let log = daemon.log();
    assert!(log.contains("is too small for some signal of the profile"), "{log}");
    daemon.signal("TERM");
    daemon.child.wait().unwrap();
}

#[test]
fn each_version_has_its_own_and_a_version_that_is_gone_leaves_no_series() {
    let place = Place::new();
    let others = tempfile::tempdir().unwrap();
    let daemon = place.start(WINDOW);
    assert_eq!(standing(&daemon).get("drift"), None, "the operator's own has no profile");
    let other = others.path().join("2");
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(place.version()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    place.profile(&other);
    done(&daemon, &["register", "m", "2", other.to_str().unwrap()]);
    done(&daemon, &["activate", "m", "2"]);
    ask(&daemon, &["60"], 200);
    let series = || {
        let text = Wire::to(daemon.admin).ask(get("/metrics")).body;
        let of_version = |line: &&str| line.starts_with("predictd_drift") && line.contains("version=\"2\"");
        text.lines().filter(of_version).count()
    };
    // Three of each of four signals, and the windows.
    assert_eq!(series(), 13);
    let report = Wire::to(daemon.admin).ask(get("/admin/drift")).json();
    let levels: Vec<&str> = report["versions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v["drift"]["signals"][0]["level"].as_str())
        .collect();
    assert_eq!(levels, ["drifting"], "{report}");
    done(&daemon, &["rollback", "m"]);
    done(&daemon, &["remove", "m", "2"]);
    assert_eq!(series(), 0);
}
