//! Clients that ask for much and do not take it: a limit of their own ends them, and no other.

use serde_json::json;

use super::{
    Answer, Connection, GET, POST, answered, assert_cut_off, assert_cut_off_since, crowd, cut_off, post, question,
    server, until_open,
};
use crate::scheduling::until;
use crate::server::{QUESTION, TestServer};

/// Clients at a time. The system takes some megabytes for each before the server must wait.
const READERS: usize = 60;
/// A request that costs little and is answered with some ten kilobytes.
const DESCRIPTION: &str = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
/// Texts of one request, whose answer is more than the system takes.
const TEXTS: usize = 1_024;

/// A request with a large answer.
fn large() -> String {
    let texts = vec![QUESTION; TEXTS];
    post("/batch_predict", &json!({ "texts": texts, "return_probabilities": true, "top_k": 77 }))
}

fn assert_complete(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().len();
    assert_eq!((results, answer.body.len() > 5_000_000), (TEXTS, true));
}

/// A client that has asked for a large answer, which is there, and has not begun to read it.
async fn reader(server: &TestServer, next: &str) -> Connection {
    let before = answered(server)["200"];
    let mut reader = Connection::without_room(server.address).await;
    reader.send(large() + next).await;
    until("the request is answered", || answered(server)["200"] > before).await;
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_cut_off() {
    let server = server(&[("--write-timeout", "500ms")], &[]).await;
    let mut neighbour = Connection::neighbour(&server).await;
    let before: u64 = answered(&server).values().sum();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut reader = Connection::without_room(server.address).await;
        // More than is ever taken of them: the server must not read on while it cannot write.
        let requests = if number % 20 == 0 { large().repeat(2) } else { DESCRIPTION.repeat(1_000) };
        reader.send(requests).await;
        readers.push(reader);
        neighbour.ask_well().await;
    }
    until_open(&server, 1).await;
    assert_cut_off(&server, &[("write", READERS)]);
    neighbour.ask_well().await;
    let requests = answered(&server).values().sum::<u64>() - before - READERS as u64 - 1;
    assert!((READERS as u64..READERS as u64 * 500).contains(&requests), "{requests}");
    drop(readers);
}

/// A client that takes its time over an answer does not rest between two requests.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_the_next_request_begin_when_the_answer_was_taken() {
    let server = server(&[("--keep-alive", "500ms"), ("--header-timeout", "500ms")], &[]).await;
    let before = cut_off(&server);
    for next in ["", "GET /livez HTTP/1.1\r\n"] {
        let reader = reader(&server, next).await;
        // Both limits have passed for clients that came later.
        let mut idle = Connection::to(&server).await;
        assert_eq!(idle.ask(GET).await.status, 200);
        assert_eq!(idle.answers().await.len(), 0);
        assert_eq!(Connection::to(&server).await.end().await, b"");
        let answers = reader.answers().await;
        assert_eq!(answers.len(), 1);
        assert_complete(&answers[0]);
    }
    until_open(&server, 0).await;
    assert_cut_off_since(&before, &server, &[("head", 3), ("keep_alive", 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_waits_for_who_is_taking_an_answer() {
    let server = server(&[], &["--grace", "1h"]).await;
    let mut reader = reader(&server, "").await;
    let mut others = [Connection::to(&server).await, Connection::to(&server).await];
    others[0].send(POST).await;
    server.shutdown.soft.cancel();
    for other in others {
        assert_eq!(other.end().await, b"");
    }
    until("only the reader is left", || super::open(&server) == 1).await;
    assert_complete(&reader.answer().await);
    assert_eq!(reader.answers().await.len(), 0);
    server.stop().await.unwrap();
}

/// Slow, but within the limit: the answer comes in full, and the connection stays.
#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_taken_bit_by_bit() {
    let room = ["--max-inflight-texts", "1000000"];
    let server = server(&[], &room).await;
    crowd(server.address, 4, |_, mut connection| async move {
        connection.send(large()).await;
        let mut bit = [0; 16 << 10];
        while Answer::first(&connection.received).is_none() {
            let read = tokio::io::AsyncReadExt::read(&mut connection.stream, &mut bit).await.unwrap();
            assert!(read > 0);
            connection.received.extend_from_slice(&bit[..read]);
            tokio::task::yield_now().await;
        }
        assert_complete(&connection.answer().await);
        assert_eq!(connection.ask(question()).await.status, 200);
    })
    .await;
    until_open(&server, 0).await;
    assert_cut_off(&server, &[]);
}
