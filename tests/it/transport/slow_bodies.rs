//! Bodies that do not come, or not to their end: each has its answer, and its connection ends.

use std::time::Duration;

use predictd::api::problem::Problem;
use tokio::io::AsyncWriteExt;

use super::{
    CROWD_SIZE, Connection, POST_PREDICT_HEAD, WireResponse, assert_cut_off, run_clients, start_server,
    wait_for_open_connections,
};

fn assert_too_slow(answers: &[WireResponse], detail: &str) {
    let [answer] = answers else { panic!("{answers:?}") };
    assert_eq!(
        (answer.status, answer.problem_kind().as_str(), answer.closes_connection()),
        (408, "body-timeout", true),
        "{answer:?}"
    );
    assert_eq!(answer.json::<Problem>().detail, detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_body_stalled_is_408() {
    let server = start_server(&[("--body-idle-timeout", "500ms")], &[]).await;
    let mut neighbour = Connection::connect_and_request(&server).await;
    let clients = run_clients(server.address, CROWD_SIZE, |number, mut connection| async move {
        let stalled = [
            "Content-Length: 100\r\n\r\n",
            "Content-Length: 100\r\n\r\n{\"text\":",
            "Transfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n64",
            "Transfer-Encoding: chunked\r\n\r\n64\r\n{\"text\":",
            "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"text\":",
            "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"text\":\r\n0\r\n",
            "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
        ];
        connection.send(format!("{POST_PREDICT_HEAD}{}", stalled[number % stalled.len()])).await;
        connection
    })
    .await;
    neighbour.request_ok().await;
    for client in clients {
        let mut answers = client.read_responses().await;
        if answers[0].status == 100 {
            answers.remove(0);
        }
        assert_too_slow(&answers, "Nothing of the body came for 500ms.");
    }
    wait_for_open_connections(&server, 1).await;
    assert_cut_off(&server, &[("body", CROWD_SIZE)]);
    neighbour.request_ok().await;
}

/// Every byte comes long before the limit of pauses, the whole body does not come in time.
#[tokio::test(flavor = "multi_thread")]
async fn slow_body_dribbled_is_408() {
    let server = start_server(&[("--body-idle-timeout", "1m"), ("--body-timeout", "800ms")], &[]).await;
    let mut neighbour = Connection::connect_and_request(&server).await;
    let clients = run_clients(server.address, CROWD_SIZE, |number, mut connection| async move {
        let (head, bit) = [("Content-Length: 1000000", "a"), ("Transfer-Encoding: chunked", "1\r\na\r\n")][number % 2];
        connection.send(format!("{POST_PREDICT_HEAD}{head}\r\n\r\n")).await;
        let mut buffer = [0; 4_096];
        loop {
            let read = tokio::time::timeout(Duration::from_millis(70), connection.stream.readable()).await;
            if read.is_ok() {
                match connection.stream.try_read(&mut buffer) {
                    Ok(0) | Err(_) => {}
                    Ok(read) => connection.received.extend_from_slice(&buffer[..read]),
                }
                if let Some((answer, _)) = WireResponse::parse_first(&connection.received) {
                    return answer;
                }
            }
            connection.stream.write_all(bit.as_bytes()).await.unwrap();
        }
    })
    .await;
    neighbour.request_ok().await;
    for answer in clients {
        assert_too_slow(&[answer], "The whole body did not come within 800ms.");
    }
    wait_for_open_connections(&server, 1).await;
    assert_cut_off(&server, &[("body", CROWD_SIZE)]);
    neighbour.request_ok().await;
}
