//! How long a connection may stay, whatever happened on it before.

use std::time::Duration;

use predictd::api::predictions::BatchAnswer;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::POST_PREDICT_HEAD;
use crate::support::test_server::{QUESTION, TestServer, cheap_models, question_body};

const LIVEZ_REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// Reads one answer with a Content-Length.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the connection ended: {text}");
    }
}

/// What still comes until the connection ends.
async fn read_to_close(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    // A connection that is cut off may be reset.
    stream.read_to_end(&mut read).await.ok();
    String::from_utf8_lossy(&read).into_owned()
}

async fn cut_off_count(server: &TestServer, waiting_for: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let name = format!("predictd_http_connections_aborted_total{{waiting_for=\"{waiting_for}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn keep_alive_after_slow_request_still_times_out() {
    let models = cheap_models();
    // The timer of the head has long rung when the connection comes to rest.
    let options = ["--first-byte-timeout", "100ms", "--header-timeout", "100ms", "--keep-alive", "300ms"];
    let server = TestServer::start(models.path(), &options).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let body = question_body();
    slow.write_all(format!("{POST_PREDICT_HEAD}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    sleep(Duration::from_millis(400)).await;
    slow.write_all(body.as_bytes()).await.unwrap();
    assert!(read_response(&mut slow).await.contains("card_arrival"));
    assert_eq!(read_to_close(slow).await, "");
    assert!(cut_off_count(&server, "keep_alive").await >= 1);
}

#[tokio::test]
async fn header_timeout_starts_with_first_byte() {
    let models = cheap_models();
    let options = ["--first-byte-timeout", "400ms", "--header-timeout", "30s", "--keep-alive", "400ms"];
    let server = TestServer::start(models.path(), &options).await;
    let mut late = TcpStream::connect(server.address).await.unwrap();
    let (first, second) = LIVEZ_REQUEST.split_at(20);
    for _ in 0..2 {
        sleep(Duration::from_millis(200)).await;
        late.write_all(first).await.unwrap();
        sleep(Duration::from_millis(400)).await;
        late.write_all(second).await.unwrap();
        assert!(read_response(&mut late).await.starts_with("http/1.1 200 "));
    }
    // It rests until its time is over, and no longer.
    assert_eq!(read_to_close(late).await, "");
    assert!(cut_off_count(&server, "keep_alive").await >= 1 && cut_off_count(&server, "head").await == 0);
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_close(silent).await, "");
    assert_eq!(cut_off_count(&server, "head").await, 1);
}

#[tokio::test]
async fn max_connections_idle_connection_is_evicted() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &["--max-connections", "4"]).await;
    let mut resting = Vec::new();
    // The harness's own client has one.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(LIVEZ_REQUEST).await.unwrap();
        assert!(read_response(&mut stream).await.starts_with("http/1.1 200 "));
        resting.push(stream);
    }
    let mut other = TcpStream::connect(server.address).await.unwrap();
    other.write_all(LIVEZ_REQUEST).await.unwrap();
    assert!(read_response(&mut other).await.starts_with("http/1.1 200 "));
    // And so does one that never said anything.
    let _silent: Vec<_> = [(); 3].iter().map(|()| std::net::TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn shutdown_response_being_read_is_completed() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &["--keep-alive", "200ms"]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut reader = socket.connect(server.address).await.unwrap();
    let body = json!({ "texts": vec![QUESTION; 1_024], "return_probabilities": true }).to_string();
    let head = POST_PREDICT_HEAD.replace("/predict", "/batch_predict");
    reader.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut first = [0; 1_000];
    reader.read_exact(&mut first).await.unwrap();
    // All answers are computed. More than the system's buffers hold waits here, and the client does not read.
    sleep(Duration::from_millis(500)).await;
    let stopped = tokio::spawn(server.stop());
    sleep(Duration::from_millis(500)).await;
    let text = String::from_utf8_lossy(&first).into_owned() + &read_to_close(reader).await;
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let came = body.len();
    let (body, length) =
        crate::support::raw_client::dechunked(body.as_bytes()).unwrap_or_else(|| panic!("{came} bytes came"));
    assert!(body.len() > 1_000_000 && length == came, "{} of {came} bytes", body.len());
    let answer: BatchAnswer = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer.results.len(), 1_024);
    stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn refused_request_states_connection_close() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &[]).await;
    let refused = POST_PREDICT_HEAD.replace("application/json", "text/plain");
    // The whole body is there: the next request can follow.
    let mut small = TcpStream::connect(server.address).await.unwrap();
    small.write_all(format!("{refused}Content-Length: 4\r\n\r\nbody").as_bytes()).await.unwrap();
    let said = read_response(&mut small).await;
    assert!(said.starts_with("http/1.1 415 ") && !said.contains("connection: close"), "{said}");
    small.write_all(LIVEZ_REQUEST).await.unwrap();
    assert!(read_response(&mut small).await.starts_with("http/1.1 200 "));
    // It is not: what follows would be taken for the rest of it.
    for body in ["Content-Length: 9\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"] {
        let mut open = TcpStream::connect(server.address).await.unwrap();
        open.write_all(format!("{refused}{body}").as_bytes()).await.unwrap();
        let said = read_response(&mut open).await;
        assert!(said.starts_with("http/1.1 415 ") && said.contains("connection: close"), "{said}");
        open.write_all(LIVEZ_REQUEST).await.ok();
        assert_eq!(read_to_close(open).await, "");
    }
}
