//! The first signal stops the server gently, the second one at once.

use std::time::Duration;

use serde_json::json;

use super::{Scene, question};
use crate::support::daemon::Daemon;
use crate::support::model_builder::slow_models;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

/// A request whose body stops after its first byte.
fn stalled_request() -> String {
    let whole = question();
    whole[..=whole.find('{').unwrap()].to_owned()
}

/// Sends the second signal and asserts that it ends the process by itself, with the code for that.
fn assert_exits_at_once(daemon: Daemon, second: &str) {
    daemon.signal(second);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("told to stop at once") && !log.contains("panic caught"), "{log}");
}

#[test]
fn stop_signal_idle_server_exits_0() {
    let place = Scene::new();
    for signal in ["TERM", "INT"] {
        // Longer than any test: an idle server waits for nothing.
        let daemon = place.start(&["--drain-timeout", "24h"]);
        // A connection that may be used again does not hold it either.
        let mut kept = RawClient::connect(daemon.address);
        assert_eq!(kept.request(question()).status, 200);
        daemon.signal(signal);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert_eq!(kept.read_to_close(), b"");
    }
}

#[test]
fn stop_second_signal_ends_drain_delay() {
    let place = Scene::new();
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let mut daemon = place.start(&["--drain-delay", "24h", "--drain-timeout", "24h"]);
        let mut stuck = RawClient::connect(daemon.address);
        stuck.send(stalled_request());
        daemon.signal(first);
        daemon.wait_for_log("shutdown requested");
        assert_exits_at_once(daemon, second);
    }
}

#[test]
fn stop_second_signal_ends_wait_for_stuck_client() {
    let place = Scene::new();
    for (first, second) in [("TERM", "INT"), ("INT", "INT")] {
        let mut daemon =
            place.start(&["--drain-timeout", "24h", "--body-idle-timeout", "24h", "--body-timeout", "24h"]);
        let mut stuck = RawClient::connect(daemon.address);
        stuck.send(stalled_request());
        block_until("the request is there", || metric(daemon.admin, "predictd_http_requests_in_flight") == 2);
        daemon.signal(first);
        daemon.wait_for_log("listener closed");
        assert_exits_at_once(daemon, second);
    }
}

#[test]
fn stop_second_signal_ends_hung_run() {
    for model in [slow_models::never_answers_hello(), slow_models::never_answers_hello_queued()] {
        let place = Scene::with_model(&model);
        let mut daemon = place.start(&["--drain-timeout", "24h", "--max-timeout", "24h", "--workers", "2"]);
        let mut waits = RawClient::connect(daemon.address);
        let body = json!({ "text": "hello ".repeat(400) }).to_string();
        waits.send(request("POST", "/predict", "X-Request-Timeout-Ms: 86400000\r\n", &body));
        block_until("the request is there", || metric(daemon.admin, "predictd_http_requests_in_flight") == 2);
        daemon.signal("TERM");
        daemon.wait_for_log("listener closed");
        assert_exits_at_once(daemon, "TERM");
    }
}

#[test]
fn stop_while_loading_ends_within_grace() {
    let place = Scene::new();
    slow_models::never_answers().write(place.models(), "never-ready", "1");
    let loading = |options: &[&str]| {
        // Models are loaded in the order of their names, and the server is not ready before all were tried.
        let mut daemon = place.launch(options);
        daemon.wait_for_log("model version loaded");
        std::thread::sleep(Duration::from_millis(200));
        daemon
    };
    let daemon = loading(&["--drain-timeout", "100ms"]);
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    // With more time, a second signal is what ends it.
    let mut daemon = loading(&["--drain-timeout", "24h"]);
    daemon.signal("TERM");
    daemon.wait_for_log("listener closed");
    assert_exits_at_once(daemon, "TERM");
}
