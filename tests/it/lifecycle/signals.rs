//! The first signal stops the server gently, the second one at once.

use std::time::Duration;

use serde_json::json;

use super::{Place, question};
use crate::daemon::Daemon;
use crate::fixture::endless;
use crate::raw::{Wire, metric, request, until};

/// A request whose body stops after its first byte.
fn stalled() -> String {
    let whole = question();
    whole[..=whole.find('{').unwrap()].to_owned()
}

/// Sends the second signal and asserts that it ends the process by itself, with the code for that.
fn ends_at_once(daemon: Daemon, second: &str) {
    daemon.signal(second);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("told to stop at once") && !log.contains("a panic was caught"), "{log}");
}

#[test]
fn one_signal_ends_an_idle_server_well() {
    let place = Place::new();
    for signal in ["TERM", "INT"] {
        // Longer than any test: an idle server waits for nothing.
        let daemon = place.start(&["--grace", "24h"]);
        // A connection that may be used again does not hold it either.
        let mut kept = Wire::to(daemon.address);
        assert_eq!(kept.ask(question()).status, 200);
        daemon.signal(signal);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert_eq!(kept.closed(), b"");
    }
}

#[test]
fn a_second_signal_ends_the_time_before_the_listener_is_closed() {
    let place = Place::new();
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let mut daemon = place.start(&["--drain-delay", "24h", "--grace", "24h"]);
        let mut stuck = Wire::to(daemon.address);
        stuck.send(stalled());
        daemon.signal(first);
        daemon.logged("told to stop");
        ends_at_once(daemon, second);
    }
}

#[test]
fn a_second_signal_ends_the_wait_for_a_stuck_client() {
    let place = Place::new();
    for (first, second) in [("TERM", "INT"), ("INT", "INT")] {
        let mut daemon = place.start(&["--grace", "24h", "--body-idle-timeout", "24h", "--body-timeout", "24h"]);
        let mut stuck = Wire::to(daemon.address);
        stuck.send(stalled());
        until("the request is there", || metric(daemon.admin, "predictd_http_requests_in_flight") == 2);
        daemon.signal(first);
        daemon.logged("no connections are accepted any more");
        ends_at_once(daemon, second);
    }
}

#[test]
fn a_second_signal_ends_a_run_that_never_ends() {
    for model in [endless::on_hello(), endless::on_hello_in_a_queue()] {
        let place = Place::of(&model);
        let mut daemon = place.start(&["--grace", "24h", "--max-timeout", "24h", "--workers", "2"]);
        let mut waits = Wire::to(daemon.address);
        let body = json!({ "text": "hello ".repeat(400) }).to_string();
        waits.send(request("POST", "/predict", "X-Request-Timeout-Ms: 86400000\r\n", &body));
        until("the request is there", || metric(daemon.admin, "predictd_http_requests_in_flight") == 2);
        daemon.signal("TERM");
        daemon.logged("no connections are accepted any more");
        ends_at_once(daemon, "TERM");
    }
}

#[test]
fn a_model_that_is_being_loaded_holds_the_end_no_longer_than_the_grace() {
    let place = Place::new();
    endless::on_every_text().write(place.models(), "never-ready", "1");
    let loading = |options: &[&str]| {
        // Models are loaded in the order of their names, and the server is not ready before all were tried.
        let mut daemon = place.launch(options);
        daemon.logged("the model is ready");
        std::thread::sleep(Duration::from_millis(200));
        daemon
    };
    let daemon = loading(&["--grace", "100ms"]);
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    // With more time, a second signal is what ends it.
    let mut daemon = loading(&["--grace", "24h"]);
    daemon.signal("TERM");
    daemon.logged("no connections are accepted any more");
    ends_at_once(daemon, "TERM");
}
