//! The log of a server: one line for each request, what is in it, where it goes, and how it is changed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, exchange, predictd, run_to_exit};
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::test_server::{CHEAP_MODEL, cheap_models, question_body};
use crate::support::waiting::block_until;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn start_daemon(options: &[&str]) -> (Daemon, [tempfile::TempDir; 2]) {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    (Daemon::start_with(models.path(), data.path(), options), [models, data])
}

/// A request with these headers; the status of its answer.
fn send(daemon: &Daemon, method: &str, path: &str, headers: &str, body: &str) -> u16 {
    RawClient::connect(daemon.address).request(request(method, path, headers, body)).status
}

fn object_keys(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

fn json_lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
fn access_log_one_line_per_request_without_text() {
    let (mut daemon, _directories) = start_daemon(&["--summary-interval", "0s"]);
    let traced = format!("X-Request-Id: mine\r\nTraceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01\r\n");
    assert_eq!(send(&daemon, "POST", "/predict", &traced, &question_body()), 200);
    let line = daemon.wait_for_log("request completed");
    let expected = [
        "timestamp",
        "level",
        "message",
        "target",
        "request_id",
        "trace_id",
        "method",
        "route",
        "status",
        "milliseconds",
        "model",
        "version",
        "texts",
        "cached",
        "tokens",
        "batch_size",
        "tokenize_ms",
        "queue_ms",
        "inference_ms",
    ];
    assert_eq!(object_keys(&line), expected.into(), "{line}");
    let fields = ["request_id", "trace_id", "method", "route"].map(|name| &line[name]);
    assert_eq!(fields, ["mine", TRACE_ID, "POST", "/predict"]);
    assert_eq!(["level", "model", "version"].map(|name| &line[name]), ["INFO", CHEAP_MODEL, "1"]);
    let counts = ["status", "texts", "cached", "tokens", "batch_size"].map(|name| line[name].as_u64().unwrap());
    assert_eq!(counts, [200, 1, 0, 10, 1]);
    let parts = ["tokenize_ms", "queue_ms", "inference_ms"].map(|name| line[name].as_f64().unwrap());
    assert!(line["milliseconds"].as_f64().unwrap() >= parts.iter().sum::<f64>(), "{line}");

    send(&daemon, "POST", "/batch_predict", "", &json!(["one", "two", "three"]).to_string());
    let line = daemon.wait_for_log("request completed");
    assert_eq!((&line["texts"], &line["route"], line.get("trace_id")), (&json!(3), &json!("/batch_predict"), None));
    for (method, path, body, kind) in [
        ("POST", "/predict", "{\"text\": \"CANARY\", \"model\": \"none\"}", "model-not-found"),
        ("GET", "/CANARY?text=CANARY", "", "not-found"),
        ("POST", "/predict", "{\"CANARY\": 1}", "invalid-request"),
    ] {
        send(&daemon, method, path, "", body);
        let line = daemon.wait_for_log("request refused");
        assert_eq!((&line["kind"], &line["level"]), (&json!(kind), &json!("INFO")), "{line}");
    }
    // Who watches the server is not news.
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        assert_eq!(send(&daemon, "GET", path, "", ""), 200);
    }
    // No trace of a caller whose header is none.
    for wrong in [
        "",
        "00-1-2-3",
        &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        &format!("ff-{TRACE_ID}-00f067aa0ba902b7-01"),
        &TRACE_ID.to_uppercase(),
    ] {
        send(&daemon, "POST", "/predict", &format!("Traceparent: {wrong}\r\n"), &question_body());
        assert_eq!(daemon.wait_for_log("request completed").get("trace_id"), None, "{wrong}");
    }
    daemon.signal("TERM");
    let (_, log) = daemon.wait();
    assert!(!log.contains("CANARY") && !log.contains("new card"), "{log}");
    let of_requests = json_lines(&log).iter().filter(|line| line.get("request_id").is_some()).count();
    assert_eq!(of_requests, 2 + 3 + 5, "{log}");
}

#[test]
fn access_log_cancelled_request_has_a_line() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    crate::support::model_builder::slow_models::never_answers_hello_queued().write(models.path(), "slow", "1");
    let mut daemon = Daemon::start_with(models.path(), data.path(), &[]);
    let mut wire = RawClient::connect(daemon.address);
    wire.send(request("POST", "/predict", "", &json!({ "text": "hello" }).to_string()));
    block_until("the request is there", || metric(daemon.admin, "predictd_http_requests_in_flight") == 2);
    drop(wire);
    let line = daemon.wait_for_log("client disconnected before the response");
    assert_eq!((&line["route"], &line["method"]), (&json!("/predict"), &json!("POST")));
}

#[test]
fn log_filter_change_requires_admin_scope() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let key = |name: &str, scopes: &str| {
        let directory = data.path().to_str().unwrap();
        let made =
            predictd(&["keys", "new", "--name", name, "--scopes", scopes, "--data-dir", directory]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        format!("Authorization: Bearer {}\r\n", String::from_utf8(made.stdout).unwrap().trim())
    };
    let client = key("client", "predict,feedback,metrics");
    let operator = key("operator", "admin");
    let mut daemon = Daemon::start_with(models.path(), data.path(), &[]);
    for (headers, status) in [("", 401), (&*client, 403), (&*operator, 200)] {
        let change = request("PUT", "/admin/log", headers, "{\"filter\":\"debug\"}");
        assert_eq!(RawClient::connect(daemon.admin).request(change).status, status);
    }
    assert_eq!(daemon.wait_for_log("log filter changed")["actor"], "key operator");
}

#[test]
fn log_filter_changes_at_runtime() {
    let (mut daemon, _directories) = start_daemon(&[]);
    let admin = daemon.admin;
    let change = move |filter: &str| {
        let answer = exchange(admin, "PUT", "/admin/log", &json!({ "filter": filter }).to_string());
        (answer[9..12].parse::<u16>().unwrap(), answer)
    };
    let now = move || exchange(admin, "GET", "/admin/log", "").split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(now(), r#"{"filter":"info"}"#);
    assert_eq!(change("warn").0, 200);
    daemon.wait_for_log("log filter changed");
    send(&daemon, "POST", "/predict", "", &question_body());
    assert_eq!(change("info").0, 200);
    let line = daemon.wait_for_log("log filter changed");
    assert_eq!(
        (&line["previous_filter"], &line["filter"], &line["actor"]),
        (&json!("warn"), &json!("info"), &json!("127.0.0.1"))
    );
    assert!(!daemon.log().contains("\"/predict\""), "{}", daemon.log());
    send(&daemon, "POST", "/predict", "", &question_body());
    daemon.wait_for_log("request completed");
    for wrong in ["", "predictd=loud", &"x".repeat(600)] {
        let (status, answer) = change(wrong);
        assert!(status == 422 && answer.contains("/filter"), "{wrong}: {answer}");
    }
    assert_eq!(now(), r#"{"filter":"info"}"#);
    // Clients are not operators.
    assert_eq!(send(&daemon, "PUT", "/admin/log", "", "{\"filter\":\"trace\"}"), 404);
}

#[test]
fn log_file_has_same_lines_and_rotates() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("predictd.log");
    let file = path.to_str().unwrap();
    let (daemon, _directories) =
        start_daemon(&["--log-file", file, "--log-file-max-bytes", "65536", "--log-max-files", "2"]);
    let mut wire = RawClient::connect(daemon.address);
    for number in 0..1_500 {
        let headers = format!("X-Request-Id: {number}-{}\r\n", "x".repeat(50));
        assert_eq!(
            wire.request(request("POST", "/predict", &headers, &json!({ "text": "one" }).to_string())).status,
            200
        );
    }
    drop(wire);
    daemon.signal("TERM");
    let (status, _) = daemon.wait();
    assert!(status.success());
    let found = ["", ".1", ".2", ".3"].map(|end| std::fs::metadata(format!("{file}{end}")).map_or(0, |f| f.len()));
    assert!(found[..3].iter().all(|size| (1..80_000).contains(size)) && found[3] == 0, "{found:?}");
    let log = std::fs::read_to_string(&path).unwrap();
    let lines = json_lines(&log);
    assert_eq!(lines.last().unwrap()["message"], "server stopped");
    assert!(lines.iter().any(|line| line["request_id"].as_str().is_some_and(|id| id.starts_with("1499-"))), "{log}");
}

#[test]
fn log_file_unwritable_exits_64() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    for (options, word) in [
        (["--log-file", "/nonexistent/log"], "--log-file /nonexistent/log: "),
        (["--log-file-max-bytes", "10"], "--log-file-max-bytes"),
        (["--log-max-files", "0"], "--log-max-files"),
    ] {
        let mut command = crate::support::daemon::serve_command(models.path(), data.path(), &options);
        let (code, said) = run_to_exit(&mut command);
        assert!(code == 64 && said.contains(word), "{options:?}: {code} {said}");
    }
    // One that cannot be rotated would grow without an end.
    let log = data.path().join("log");
    std::fs::create_dir(data.path().join("log.2")).unwrap();
    let options = ["--log-file", log.to_str().unwrap()];
    let (code, said) = run_to_exit(&mut crate::support::daemon::serve_command(models.path(), data.path(), &options));
    assert!(code == 64 && said.contains("log.2 is a directory"), "{said}");
}

#[test]
fn log_blocked_writer_drops_and_counts_lines() {
    use std::io::Read;
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let mut command = predictd(&[]);
    command.args(["serve", "--models", models.path().to_str().unwrap(), "--data-dir", data.path().to_str().unwrap()]);
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--log",
        "trace",
    ]);
    let mut child = command.spawn().unwrap();
    // Only the beginning is read: the pipe fills, and whoever writes to it waits for ever.
    let mut stderr = child.stderr.take().unwrap();
    let mut read = String::new();
    let mut buffer = [0_u8; 512];
    let address = loop {
        let count = stderr.read(&mut buffer).unwrap();
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let line = read.lines().find(|line| line.contains("\"message\":\"listening\"") && line.ends_with('}'));
        if let Some(line) = line {
            let line: Value = serde_json::from_str(line).unwrap();
            break line["address"].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap();
        }
    };
    assert!(exchange(address, "GET", "/metrics", "").contains("\npredictd_log_lines_dropped_total 0\n"));
    let mut wire = RawClient::connect(address);
    while metric(address, "predictd_log_lines_dropped_total") == 0 {
        for _ in 0..500 {
            // Requests are answered as ever.
            assert_eq!(wire.request(request("GET", "/livez", "", "")).status, 200);
        }
    }
    // The last lines find no reader either. A second signal still ends the server at once.
    for _ in 0..2 {
        crate::support::daemon::send_signal(child.id(), "TERM");
    }
    child.wait().unwrap();
}

#[test]
fn log_summary_after_prediction_count() {
    let (mut daemon, _directories) = start_daemon(&["--summary-interval", "0s", "--summary-predictions", "4"]);
    for text in ["a", "b", "c", "d"] {
        send(&daemon, "POST", "/predict", "", &json!({ "text": text }).to_string());
    }
    send(&daemon, "POST", "/predict", "", "{}");
    let line = daemon.wait_for_log("summary");
    let requests = line["requests"].as_u64().unwrap();
    // The look may come between two requests.
    assert!((4..=5).contains(&requests) && line["predictions"] == 4 && line["failed"] == 0, "{line}");
    for figure in ["error_rate", "mean_ms", "p95_ms", "cpu", "memory", "resident_mib"] {
        assert!(line[figure].as_f64().is_some_and(|figure| figure >= 0.0), "{figure}: {line}");
    }
    assert!(line["memory"].as_f64().unwrap() < 1.0 && line["resident_mib"].as_u64().unwrap() > 10, "{line}");
}

#[test]
fn log_summary_after_interval_with_requests() {
    let (mut daemon, _directories) = start_daemon(&["--summary-interval", "2s"]);
    send(&daemon, "POST", "/predict", "", &json!({ "text": "a" }).to_string());
    assert_eq!(daemon.wait_for_log("summary")["requests"], 1);
    send(&daemon, "POST", "/predict", "", &json!({ "text": "a" }).to_string());
    assert_eq!(daemon.wait_for_log("summary")["requests"], 1);
    assert_eq!(daemon.log().matches("\"summary\"").count(), 2);
}

#[test]
fn log_filter_change_is_audited_and_validated() {
    let (mut daemon, _directories) = start_daemon(&[]);
    let change = |daemon: &Daemon, filter: &str| {
        let body = json!({ "filter": filter }).to_string();
        RawClient::connect(daemon.admin).request(request("PUT", "/admin/log", "", &body)).status
    };
    for word in ["inof", "info,warnn", "warning"] {
        assert_eq!(change(&daemon, word), 422, "{word}");
    }
    assert_eq!(change(&daemon, "off"), 200);
    assert_eq!(daemon.wait_for_log("log filter change requested")["filter"], "off");
    for filter in ["info", "warn,predictd=debug", "predictd_http=trace", "info,predictd_http=debug"] {
        assert_eq!(change(&daemon, filter), 200, "{filter}");
    }
}

#[test]
fn log_failed_writes_are_counted() {
    let (daemon, _directories) = start_daemon(&["--log-file", "/dev/full"]);
    send(&daemon, "POST", "/predict", "", &question_body());
    block_until("the loss is seen", || metric(daemon.admin, "predictd_log_lines_dropped_total") > 0);
}
