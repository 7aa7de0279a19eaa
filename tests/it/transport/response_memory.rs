//! Clients that do not read their responses: memory for them is bounded, comes back, and others are answered meanwhile.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use predictd::api::predictions::BatchAnswer;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::answers::label;
use crate::support::daemon::{Daemon, serve_command};
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::test_server::{QUESTION, TestServer, cheap_models};
use crate::support::waiting::block_until;

/// Clients that do not read.
const CLIENTS: usize = 200;
/// Memory for responses: some fifty of the largest.
const RESPONSE_MEMORY_BYTES: u64 = 64 << 20;
const RESERVED_METRIC: &str = "predictd_response_memory_bytes";

/// A request of a few kilobytes whose response has more than five megabytes.
fn large_response_body() -> String {
    let texts: Vec<String> = (0..1_024).map(|number| number.to_string()).collect();
    json!({ "texts": texts, "return_probabilities": true, "top_k": 1_000 }).to_string()
}

fn post(body: &str) -> String {
    request("POST", "/batch_predict", "X-Request-Timeout-Ms: 60000\r\n", body)
}

/// A client that has sent a request and does not read.
async fn send_without_reading(address: SocketAddr, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    stream
}

/// The most memory that a process has had, in MiB.
fn peak_resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_stay_within_response_memory() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let budget = RESPONSE_MEMORY_BYTES.to_string();
    let options = [
        &["--response-memory", &budget, "--cache-bytes", "16777216", "--max-connections", "256"][..],
        &["--max-inflight-items", "1024", "--workers", "2", "--max-timeout", "60s"],
    ];
    let mut daemon = Daemon::launch(&mut serve_command(models.path(), data.path(), &options.concat()));
    let stated = daemon.wait_for_log("maximum memory use estimated")["max_mib"].as_u64().unwrap();
    // From here on the texts are known: a request needs no permit and no run.
    let first = RawClient::connect(daemon.address).request(post(&large_response_body()));
    assert_eq!((first.status, first.body.len() > 5_000_000), (200, true), "{:.300}", first.body);
    let request = post(&large_response_body());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(send_without_reading(daemon.address, &request).await);
    }
    block_until("some wait for others", || metric(daemon.admin, RESERVED_METRIC) > RESPONSE_MEMORY_BYTES - (2 << 20));
    assert!(metric(daemon.admin, RESERVED_METRIC) <= RESPONSE_MEMORY_BYTES);
    // Small responses need none of that memory.
    for _ in 0..10 {
        assert_eq!(label(&daemon.predict(QUESTION)), "card_arrival");
    }
    // Who reads gets a large response, too: those who do not give way.
    let others = tokio::task::spawn_blocking({
        let address = daemon.address;
        let request = request.clone();
        move || RawClient::connect(address).request(request)
    });
    let other = others.await.unwrap();
    assert_eq!(other.status, 200, "{:.300}", other.body);
    assert_eq!(other.json::<BatchAnswer>().results.len(), 1_024);
    assert!(metric(daemon.admin, "predictd_http_connections_aborted_total{waiting_for=\"write\"}") > 0);
    let most = peak_resident_mib(daemon.child.id());
    assert!(most <= stated, "{most} MiB, where {stated} are stated");
    drop(clients);
    block_until("the memory is free again", || metric(daemon.admin, RESERVED_METRIC) == 0);
    assert_eq!(RawClient::connect(daemon.address).request(&request).status, 200);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn response_memory_wait_timeout_is_503() {
    let options = ["--response-memory", "1572864", "--cache-bytes", "16777216"];
    let server = TestServer::start(cheap_models().path(), &options).await;
    assert_eq!(server.post("/batch_predict", large_response_body()).await.status, 200);
    let stuck = send_without_reading(server.address, &post(&large_response_body())).await;
    let reserved = || server.app.telemetry.metrics.http.reserved_response_memory();
    block_until("the memory is taken", || reserved() > 1 << 20);
    let ask = || {
        let request = server.client.post(format!("{}/batch_predict", server.url)).body(large_response_body());
        request.header("content-type", "application/json").header("x-request-timeout-ms", "400")
    };
    let refused = crate::support::test_server::send_request(ask()).await;
    assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "overloaded"));
    assert!(refused.headers.contains_key("retry-after"));
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_requests_rejected_total{reason=\"response_memory\"} 1"), "{metrics}");
    drop(stuck);
    block_until("the memory is free", || reserved() == 0);
    assert_eq!(server.post("/batch_predict", large_response_body()).await.status, 200);
}

#[tokio::test]
async fn response_memory_too_large_response_is_422_with_limit() {
    let server = TestServer::start(cheap_models().path(), &["--response-memory", "1048576"]).await;
    let refused = server.post("/batch_predict", large_response_body()).await;
    assert_eq!((refused.status, refused.problem_kind().as_str()), (422, "invalid-request"));
    let detail = refused.problem().detail;
    assert!(detail.contains("--response-memory") && detail.contains("fewer texts"), "{detail}");
    let few: Vec<&str> = vec![QUESTION; 100];
    assert_eq!(server.post_json("/batch_predict", json!({ "texts": few, "top_k": 77 })).await.status, 200);
}

/// A client that sends requests without end and reads nothing: the server must not read on, and not collect responses.
#[tokio::test(flavor = "multi_thread")]
async fn response_memory_pipelined_requests_wait_for_reader() {
    let server = TestServer::start(cheap_models().path(), &["--write-timeout", "1h"]).await;
    let address = server.address;
    let client = move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let request = b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
        // Far more than all buffers hold.
        let sent = (0..1_000).take_while(|_| stream.write_all(&request).is_ok()).count();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        (sent, String::from_utf8_lossy(&answer).into_owned())
    };
    let (sent, answer) = tokio::task::spawn_blocking(client).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK");
    assert!(sent < 1_000, "all of {sent} thousand requests were read although no response was");
}

#[tokio::test]
async fn response_streamed_equals_buffered() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let whole = server.post_json("/batch_predict", json!([QUESTION, ""])).await;
    assert!(whole.headers.contains_key("content-length") && !whole.headers.contains_key("transfer-encoding"));
    let parts = server.post_json("/batch_predict", json!([[QUESTION, ""]; 200].concat())).await;
    assert!(parts.headers.contains_key("transfer-encoding") && parts.headers["content-type"] == "application/json");
    let steady = |reply: &crate::support::test_server::Response| -> Vec<Value> {
        let results = reply.json::<Value>()["results"].as_array().unwrap().clone();
        let keys = |item: &Value| item.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        results.iter().map(|item| json!([keys(item), item["prediction"], item["error"]["status"]])).collect()
    };
    assert_eq!(steady(&parts), vec![steady(&whole); 200].concat());
    let places = parts.json::<BatchAnswer>().results.iter().map(|item| item.text_index).collect::<Vec<_>>();
    assert_eq!(places, (0..400).collect::<Vec<_>>());
}
