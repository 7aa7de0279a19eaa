//! Clients that ask for much and do not take it: a limit of their own ends them, and no other.

use predictd::api::predictions::BatchAnswer;
use serde_json::json;

use super::{
    Connection, LIVEZ_REQUEST, POST_PREDICT_HEAD, WireResponse, assert_cut_off, assert_cut_off_since,
    cut_offs_by_phase, post_request, question_request, responses_by_status, run_clients, start_server,
    wait_for_open_connections,
};
use crate::support::test_server::{QUESTION, TestServer};
use crate::support::waiting::wait_until;

/// Clients at a time. The system takes some megabytes for each before the server must wait.
const READERS: usize = 60;
/// A request that costs little and is answered with some ten kilobytes.
const OPENAPI_REQUEST: &str = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
/// Texts of one request, whose answer is more than the system takes.
const BATCH_TEXTS: usize = 1_024;

/// A request with a large answer.
fn large_response_request() -> String {
    let texts = vec![QUESTION; BATCH_TEXTS];
    post_request("/batch_predict", &json!({ "texts": texts, "return_probabilities": true, "top_k": 77 }))
}

fn assert_complete(answer: &WireResponse) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json::<BatchAnswer>().results.len();
    assert_eq!((results, answer.body.len() > 5_000_000), (BATCH_TEXTS, true));
}

/// A client that has asked for a large answer, which is there, and has not begun to read it.
async fn start_reader(server: &TestServer, next: &str) -> Connection {
    let before = responses_by_status(server)["200"];
    let mut reader = Connection::connect_with_small_buffer(server.address).await;
    reader.send(large_response_request() + next).await;
    wait_until("the request is answered", || responses_by_status(server)["200"] > before).await;
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_never_reading_is_cut_off() {
    let server = start_server(&[("--write-timeout", "500ms")], &[]).await;
    let mut neighbour = Connection::connect_and_request(&server).await;
    let before: u64 = responses_by_status(&server).values().sum();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut reader = Connection::connect_with_small_buffer(server.address).await;
        // More than is ever taken of them: the server must not read on while it cannot write.
        let requests =
            if number % 20 == 0 { large_response_request().repeat(2) } else { OPENAPI_REQUEST.repeat(1_000) };
        reader.send(requests).await;
        readers.push(reader);
        neighbour.request_ok().await;
    }
    wait_for_open_connections(&server, 1).await;
    assert_cut_off(&server, &[("write", READERS)]);
    neighbour.request_ok().await;
    let requests = responses_by_status(&server).values().sum::<u64>() - before - READERS as u64 - 1;
    assert!((READERS as u64..READERS as u64 * 500).contains(&requests), "{requests}");
    drop(readers);
}

/// A client that takes its time over an answer does not rest between two requests.
#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_next_timeouts_start_after_response() {
    let server = start_server(&[("--keep-alive", "500ms"), ("--header-timeout", "500ms")], &[]).await;
    let before = cut_offs_by_phase(&server);
    for next in ["", "GET /livez HTTP/1.1\r\n"] {
        let reader = start_reader(&server, next).await;
        // Both limits have passed for clients that came later.
        let mut idle = Connection::connect(&server).await;
        assert_eq!(idle.request(LIVEZ_REQUEST).await.status, 200);
        assert_eq!(idle.read_responses().await.len(), 0);
        assert_eq!(Connection::connect(&server).await.read_to_end().await, b"");
        let answers = reader.read_responses().await;
        assert_eq!(answers.len(), 1);
        assert_complete(&answers[0]);
    }
    wait_for_open_connections(&server, 0).await;
    assert_cut_off_since(&before, &server, &[("head", 3), ("keep_alive", 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_shutdown_waits_for_response() {
    let server = start_server(&[], &["--drain-timeout", "1h"]).await;
    let mut reader = start_reader(&server, "").await;
    let mut others = [Connection::connect(&server).await, Connection::connect(&server).await];
    others[0].send(POST_PREDICT_HEAD).await;
    server.shutdown.drain.cancel();
    for other in others {
        assert_eq!(other.read_to_end().await, b"");
    }
    wait_until("only the reader is left", || super::open_connections(&server) == 1).await;
    assert_complete(&reader.read_response().await);
    assert_eq!(reader.read_responses().await.len(), 0);
    server.stop().await.unwrap();
}

/// Slow, but within the limit: the answer comes in full, and the connection stays.
#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_large_response_is_complete() {
    let room = ["--max-inflight-items", "1000000"];
    let server = start_server(&[], &room).await;
    run_clients(server.address, 4, |_, mut connection| async move {
        connection.send(large_response_request()).await;
        let mut bit = [0; 16 << 10];
        while WireResponse::parse_first(&connection.received).is_none() {
            let read = tokio::io::AsyncReadExt::read(&mut connection.stream, &mut bit).await.unwrap();
            assert!(read > 0);
            connection.received.extend_from_slice(&bit[..read]);
            tokio::task::yield_now().await;
        }
        assert_complete(&connection.read_response().await);
        assert_eq!(connection.request(question_request()).await.status, 200);
    })
    .await;
    wait_for_open_connections(&server, 0).await;
    assert_cut_off(&server, &[]);
}
