//! Clients that neither send nor take what is due, while the server stops.

use std::time::Duration;

use serde_json::json;

use super::{Place, question};
use crate::daemon::Daemon;
use crate::fixture::endless;
use crate::raw::{Wire, get, metric, request, until};
use crate::server::CHEAP_MODEL;

/// Nothing would be cut off before the end of the grace.
const PATIENT: [&str; 12] = [
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
const PIPELINED: usize = 400;

fn halves(request: &str) -> (&str, &str) {
    request.split_at(request.find("\r\n\r\n").unwrap() + 10)
}

/// Waits until no client takes any more of the answers that were asked for.
fn until_held_up(daemon: &Daemon) {
    let route = "predictd_http_requests_total{method=\"GET\",route=\"/openapi.json\",status=\"200\"}";
    until("no further request is answered", || {
        let before = metric(daemon.admin, route);
        std::thread::sleep(Duration::from_millis(200));
        before > 0 && metric(daemon.admin, route) == before
    });
}

#[test]
fn silent_clients_and_half_heads_do_not_hold_the_end() {
    let place = Place::new();
    let mut daemon = place.start(&[&PATIENT[..], &["--grace", "24h"]].concat());
    let heads = ["", "P", "POST /predict", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-Half: "];
    let mut clients: Vec<Wire> = heads.iter().cycle().take(50).map(|head| sent(&daemon, head)).collect();
    // The same on connections that were used before.
    let used = heads.iter().cycle().take(50).map(|head| {
        let mut client = sent(&daemon, &get("/livez"));
        assert_eq!(client.answer().status, 200);
        client.send(head);
        client
    });
    clients.extend(used);
    until("all are connected", || metric(daemon.admin, "predictd_connections") == 101);
    daemon.signal("TERM");
    daemon.logged("no connections are accepted any more");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("are cut off"), "nobody was waited for: {log}");
    for client in clients {
        assert_eq!(client.closed(), b"");
    }
}

fn sent(daemon: &Daemon, bytes: &str) -> Wire {
    let mut client = Wire::to(daemon.address);
    client.send(bytes);
    client
}

/// 200 clients that are stuck in every way there is, and beside them some who do their part.
#[test]
fn whoever_does_his_part_is_answered_and_the_others_are_cut_off_at_the_end_of_the_grace() {
    let place = Place::new();
    endless::by_number().write(place.models(), "slow", "1");
    let options = ["--grace", "4s", "--default-model", CHEAP_MODEL, "--workers", "2"];
    let mut daemon = place.start(&[&PATIENT[..], &options].concat());
    until("both models are ready", || daemon.log().matches("the model is ready").count() == 2);
    let whole = question();
    let (half, other_half) = halves(&whole);

    let mut stuck = Vec::new();
    for _ in 0..60 {
        stuck.extend([sent(&daemon, ""), sent(&daemon, "POST /predict HTTP/1.1\r\nHost:"), sent(&daemon, half)]);
    }
    stuck.extend((0..20).map(|_| sent(&daemon, &get("/openapi.json").repeat(PIPELINED))));
    until_held_up(&daemon);
    let mut sending: Vec<Wire> = (0..20).map(|_| sent(&daemon, half)).collect();
    let all_labels = json!({ "texts": vec!["where is my card"; 1_000], "return_probabilities": true });
    let mut reading = sent(&daemon, &request("POST", "/batch_predict", "", &all_labels.to_string()));
    let slow = json!({ "text": "10", "model": "slow" }).to_string();
    let mut waiting: Vec<Wire> = (0..2).map(|_| sent(&daemon, &request("POST", "/predict", "", &slow))).collect();

    // Requests without a whole body are certain to be in work now; the others are, or are answered already.
    until("all are connected", || metric(daemon.admin, "predictd_connections") == 200 + 20 + 3 + 1);
    until("all heads are read", || metric(daemon.admin, "predictd_http_requests_in_flight") > 60 + 20);
    daemon.signal("TERM");
    daemon.logged("no connections are accepted any more");
    for client in &mut sending {
        client.send(other_half);
    }
    for answer in sending.iter_mut().map(Wire::answer) {
        assert_eq!((answer.status, &answer.json()["prediction"]), (200, &json!("card_arrival")));
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    }
    for answer in waiting.iter_mut().map(Wire::answer) {
        assert_eq!(answer.json()["model"]["name"], "slow");
    }
    let results = reading.answer().json()["results"].as_array().unwrap().clone();
    assert!(results.len() == 1_000 && results.iter().all(|one| one["probabilities"].as_array().unwrap().len() == 77));

    let cut_off = daemon.logged("are cut off");
    assert_eq!(cut_off["clients"], 80, "those who stopped within a body or do not read");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn an_answer_that_is_taken_late_comes_whole() {
    let place = Place::new();
    let mut daemon = place.start(&[&PATIENT[..], &["--grace", "24h"]].concat());
    let client = sent(&daemon, &get("/openapi.json").repeat(PIPELINED));
    until_held_up(&daemon);
    daemon.signal("TERM");
    daemon.logged("no connections are accepted any more");
    // Longer than the server waits for a client of whom it has nothing to wait for.
    std::thread::sleep(Duration::from_millis(500));
    let answers = client.answers();
    assert!(!answers.is_empty() && answers.iter().all(|answer| answer.json()["openapi"].is_string()));
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
