//! Clients that neither send nor take what is due, while the server stops.

use std::time::Duration;

use predictd::api::predictions::{BatchAnswer, Prediction};
use serde_json::json;

use super::{Scene, question};
use crate::support::answers::{item_answer, label, probabilities};
use crate::support::daemon::Daemon;
use crate::support::model_builder::slow_models;
use crate::support::raw_client::{RawClient, get, metric, request};
use crate::support::test_server::CHEAP_MODEL;
use crate::support::waiting::block_until;

/// Nothing would be cut off before the end of the grace.
const LONG_TIMEOUT_OPTIONS: [&str; 12] = [
    "--first-byte-timeout",
    "24h",
    "--header-timeout",
    "24h",
    "--body-idle-timeout",
    "24h",
    "--body-timeout",
    "24h",
    "--write-timeout",
    "24h",
    "--keep-alive",
    "24h",
];

/// Answers that no socket buffer holds: a client that does not read them makes the server wait.
const PIPELINED_REQUESTS: usize = 400;

fn split_in_half(request: &str) -> (&str, &str) {
    request.split_at(request.find("\r\n\r\n").unwrap() + 10)
}

/// Waits until no client takes any more of the answers that were asked for.
fn wait_until_writes_block(daemon: &Daemon) {
    let route = "predictd_http_requests_total{method=\"GET\",route=\"/openapi.json\",status=\"200\"}";
    block_until("no further request is answered", || {
        let before = metric(daemon.admin, route);
        std::thread::sleep(Duration::from_millis(200));
        before > 0 && metric(daemon.admin, route) == before
    });
}

#[test]
fn shutdown_ignores_silent_clients_and_partial_heads() {
    let place = Scene::new();
    let mut daemon = place.start(&[&LONG_TIMEOUT_OPTIONS[..], &["--drain-timeout", "24h"]].concat());
    let heads = ["", "P", "POST /predict", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-Half: "];
    let mut clients: Vec<RawClient> =
        heads.iter().cycle().take(50).map(|head| connect_and_send(&daemon, head)).collect();
    // The same on connections that were used before.
    let used = heads.iter().cycle().take(50).map(|head| {
        let mut client = connect_and_send(&daemon, &get("/livez"));
        assert_eq!(client.read_response().status, 200);
        client.send(head);
        client
    });
    clients.extend(used);
    block_until("all are connected", || metric(daemon.admin, "predictd_http_connections") == 101);
    daemon.signal("TERM");
    daemon.wait_for_log("listener closed");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("closing unfinished connections"), "no client was waited for: {log}");
    for client in clients {
        assert_eq!(client.read_to_close(), b"");
    }
}

fn connect_and_send(daemon: &Daemon, bytes: &str) -> RawClient {
    let mut client = RawClient::connect(daemon.address);
    client.send(bytes);
    client
}

/// 200 clients that are stuck in every way there is, and beside them some who do their part.
#[test]
fn shutdown_active_clients_are_answered_stuck_are_cut_off() {
    let place = Scene::new();
    slow_models::slow_by_number().write(place.models(), "slow", "1");
    let options = ["--drain-timeout", "4s", "--default-model", CHEAP_MODEL, "--workers", "2"];
    let mut daemon = place.start(&[&LONG_TIMEOUT_OPTIONS[..], &options].concat());
    block_until("both models are ready", || daemon.log().matches("model version loaded").count() == 2);
    let whole = question();
    let (half, other_half) = split_in_half(&whole);

    let mut stuck = Vec::new();
    for _ in 0..60 {
        stuck.extend([
            connect_and_send(&daemon, ""),
            connect_and_send(&daemon, "POST /predict HTTP/1.1\r\nHost:"),
            connect_and_send(&daemon, half),
        ]);
    }
    stuck.extend((0..20).map(|_| connect_and_send(&daemon, &get("/openapi.json").repeat(PIPELINED_REQUESTS))));
    wait_until_writes_block(&daemon);
    let mut sending: Vec<RawClient> = (0..20).map(|_| connect_and_send(&daemon, half)).collect();
    let all_labels = json!({ "texts": vec!["where is my card"; 1_000], "return_probabilities": true });
    let mut reading = connect_and_send(&daemon, &request("POST", "/batch_predict", "", &all_labels.to_string()));
    let slow = json!({ "text": "10", "model": "slow" }).to_string();
    let mut waiting: Vec<RawClient> =
        (0..2).map(|_| connect_and_send(&daemon, &request("POST", "/predict", "", &slow))).collect();

    // Requests without a whole body are certain to be in work now; the others are, or are answered already.
    block_until("all are connected", || metric(daemon.admin, "predictd_http_connections") == 200 + 20 + 3 + 1);
    block_until("all heads are read", || metric(daemon.admin, "predictd_http_requests_in_flight") > 60 + 20);
    daemon.signal("TERM");
    daemon.wait_for_log("listener closed");
    for client in &mut sending {
        client.send(other_half);
    }
    for answer in sending.iter_mut().map(RawClient::read_response) {
        assert_eq!((answer.status, label(&answer.json())), (200, "card_arrival"));
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    }
    for answer in waiting.iter_mut().map(RawClient::read_response) {
        assert_eq!(answer.json::<Prediction>().model.name, "slow");
    }
    let results = reading.read_response().json::<BatchAnswer>().results;
    assert!(results.len() == 1_000 && results.iter().all(|item| probabilities(item_answer(item)).len() == 77));

    let cut_off = daemon.wait_for_log("closing unfinished connections");
    assert_eq!(cut_off["clients"], 80, "those who stopped within a body or do not read");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn shutdown_slow_reader_gets_whole_response() {
    let place = Scene::new();
    let mut daemon = place.start(&[&LONG_TIMEOUT_OPTIONS[..], &["--drain-timeout", "24h"]].concat());
    let client = connect_and_send(&daemon, &get("/openapi.json").repeat(PIPELINED_REQUESTS));
    wait_until_writes_block(&daemon);
    daemon.signal("TERM");
    daemon.wait_for_log("listener closed");
    // Longer than the server waits for a client of whom it has nothing to wait for.
    std::thread::sleep(Duration::from_millis(500));
    let answers = client.read_responses();
    assert!(
        !answers.is_empty() && answers.iter().all(|answer| answer.json::<serde_json::Value>()["openapi"].is_string())
    );
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
