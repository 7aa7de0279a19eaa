//! A process that is stopped for a while: by an operator, a debugger, a frozen container.

use serde_json::json;

use super::Scene;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::test_server::{CHEAP_MODEL, QUESTION};
use crate::support::waiting::block_until;

/// True once no thread of a process runs any more: a signal to stop takes its time on a busy machine.
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

#[test]
fn suspended_process_runs_nothing_for_clients_that_left() {
    let place = Scene::new();
    let daemon = place.start(&[]);
    let run = || {
        let labels = format!("model=\"{CHEAP_MODEL}\",version=\"1\"");
        metric(daemon.admin, &format!("predictd_predictions_total{{{labels}}}"))
    };
    let question = request("POST", "/predict", "", &json!({ "text": QUESTION }).to_string());
    let (half, other_half) = question.split_at(question.len() - 5);
    // Connections in every state: used before, with half a request, silent, and new ones later.
    let mut clients: Vec<RawClient> = (0..30).map(|_| RawClient::connect(daemon.address)).collect();
    for client in &mut clients[..10] {
        assert_eq!(client.request(&question).status, 200);
    }
    for client in &mut clients[10..20] {
        client.send(half);
    }
    assert_eq!(run(), 10);
    daemon.signal("STOP");
    block_until("all threads stand still", || is_stopped(daemon.child.id()));
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(if (10..20).contains(&number) { other_half } else { &question });
    }
    for _ in 0..10 {
        let mut client = RawClient::connect(daemon.address);
        client.send(&question);
        clients.push(client);
    }
    let mut patient = RawClient::connect(daemon.address);
    patient.send(&question);
    drop(clients);
    daemon.signal("CONT");
    assert_eq!(patient.read_response().json()["prediction"], "card_arrival");
    // hyper sees at once that a client has left, except where it was already reading a body.
    let runs = run();
    assert!(
        (11..=21).contains(&runs),
        "{runs}: only texts of the patient client and of requests that had begun are run"
    );
    for client in [&mut patient, &mut RawClient::connect(daemon.address)] {
        assert_eq!(client.request(&question).status, 200);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}
