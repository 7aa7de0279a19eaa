//! A process that is stopped for a while: by an operator, a debugger, a frozen container.

use std::time::Duration;

use super::Scene;
use crate::support::answers::label;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::test_server::{CHEAP_MODEL, question_body};
use crate::support::waiting::block_until;

/// A question whose asker waits so many milliseconds.
fn question_with_timeout(milliseconds: u32) -> String {
    let time = format!("X-Request-Timeout-Ms: {milliseconds}\r\n");
    request("POST", "/predict", &time, &question_body())
}

/// True once no thread of a process runs any more: a signal to stop takes its time on a busy machine.
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

#[test]
fn suspended_process_drops_expired_requests() {
    let place = Scene::new();
    let mut daemon = place.start(&[]);
    let run = || {
        let labels = format!("model=\"{CHEAP_MODEL}\",version=\"1\"");
        metric(daemon.admin, &format!("predictd_predictions_total{{{labels}}}"))
    };
    let short = question_with_timeout(300);
    let (half, other_half) = short.split_at(short.len() - 5);
    // Connections in every state: used before, with half a request, silent, and new ones later.
    let mut clients: Vec<RawClient> = (0..30).map(|_| RawClient::connect(daemon.address)).collect();
    for client in &mut clients[..10] {
        assert_eq!(client.request(question_with_timeout(60_000)).status, 200);
    }
    for client in &mut clients[10..20] {
        client.send(half);
    }
    assert_eq!(run(), 10);
    daemon.signal("STOP");
    block_until("all threads stand still", || is_stopped(daemon.child.id()));
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(if (10..20).contains(&number) { other_half } else { &short });
    }
    for _ in 0..10 {
        let mut client = RawClient::connect(daemon.address);
        client.send(&short);
        clients.push(client);
    }
    let mut patient = RawClient::connect(daemon.address);
    patient.send(question_with_timeout(60_000));
    std::thread::sleep(Duration::from_millis(1_500));
    daemon.signal("CONT");
    for client in &mut clients {
        let answer = client.read_response();
        assert_eq!((answer.status, answer.problem_kind().as_str()), (504, "deadline-exceeded"));
    }
    assert_eq!(label(&patient.read_response().json()), "card_arrival");
    assert_eq!(run(), 11, "only the patient client's text was run");
    // As ever: on the same connections and on new ones.
    clients.push(RawClient::connect(daemon.address));
    for client in &mut clients {
        assert_eq!(client.request(question_with_timeout(60_000)).status, 200);
    }
    daemon.wait_for_log("process stalled");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}
