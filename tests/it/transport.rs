//! What comes over a connection: slow, large, ambiguous, senseless, or not at all.
//!
//! Clients here write their bytes themselves. A time limit that a test is about is short and all
//! others are an hour, and metrics tell which limit ended a connection: no test measures time.

mod body_memory;
mod chunked_bodies;
mod client_disconnects;
mod connection_timeouts;
mod fd_limit;
mod head_limits;
mod http_methods;
mod idle_connections;
mod listeners;
mod malformed_heads;
mod non_http_traffic;
mod refused_bodies;
mod request_smuggling;
mod response_memory;
mod slow_bodies;
mod slow_heads;
mod slow_readers;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use predictd::api::problem::Problem;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::answers::{kind, label};
use crate::support::test_server::{QUESTION, TestServer, cheap_models};
use crate::support::waiting::wait_until;

/// Clients at a time, where many come.
const CROWD_SIZE: usize = 300;
/// Time limits of a connection.
const TIMEOUT_OPTIONS: [&str; 5] =
    ["--header-timeout", "--body-idle-timeout", "--body-timeout", "--write-timeout", "--keep-alive"];

/// These limits, an hour for the others, and more options.
fn timeout_options<'a>(limits: &[(&'a str, &'a str)], more: &[&'a str]) -> Vec<&'a str> {
    let limit = |name: &str| limits.iter().find(|(limited, _)| *limited == name).map_or("1h", |(_, time)| *time);
    // A connection that says nothing is one without a head.
    let first_byte = ["--first-byte-timeout", limit("--header-timeout")];
    TIMEOUT_OPTIONS.iter().flat_map(|name| [*name, limit(name)]).chain(first_byte).chain(more.iter().copied()).collect()
}

/// A server without a connection.
async fn start_server(limits: &[(&str, &str)], more: &[&str]) -> TestServer {
    let mut server = TestServer::start(cheap_models().path(), &timeout_options(limits, more)).await;
    close_own_connections(&mut server).await;
    server
}

/// Ends the connections of the server's own client, and those to come after their answer.
async fn close_own_connections(server: &mut TestServer) {
    server.client = crate::support::test_server::client().pool_max_idle_per_host(0).build().unwrap();
    wait_until("the client has left", || open_connections(server) == 0).await;
}

/// Metrics by the value of their only label, or of this one.
fn counts_by_label(server: &TestServer, metric: &str, label: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let text = String::from_utf8(server.app.telemetry.metrics.render(&[]).unwrap()).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix(metric)) {
        let Some((labels, count)) =
            line.rsplit_once(' ').filter(|(labels, _)| ["", "{"].contains(&&labels[..labels.len().min(1)]))
        else {
            continue;
        };
        let (_, value) = labels.split_once(&format!("{label}=\"")).unwrap_or_default();
        let value = value.split('"').next().unwrap_or_default();
        *counts.entry(value.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    counts
}

/// Connections that are open.
fn open_connections(server: &TestServer) -> u64 {
    counts_by_label(server, "predictd_http_connections", "")[""]
}

/// Requests that reached the routes, by status.
fn responses_by_status(server: &TestServer) -> BTreeMap<String, u64> {
    counts_by_label(server, "predictd_http_requests_total", "status")
}

/// Connections that were cut off, by what was waited for.
fn cut_offs_by_phase(server: &TestServer) -> BTreeMap<String, u64> {
    counts_by_label(server, "predictd_http_connections_aborted_total", "waiting_for")
}

/// Asserts that connections were cut off for these reasons, so many each, and for no others.
#[track_caller]
fn assert_cut_off(server: &TestServer, expected: &[(&str, usize)]) {
    assert_cut_off_since(&BTreeMap::new(), server, expected);
}

/// The same where the server's own client may have rested too long while the server started.
#[track_caller]
fn assert_cut_off_since(before: &BTreeMap<String, u64>, server: &TestServer, expected: &[(&str, usize)]) {
    let mut found = cut_offs_by_phase(server);
    for (why, count) in &mut found {
        *count -= before.get(why).copied().unwrap_or_default();
    }
    found.retain(|_, count| *count > 0);
    let expected = expected.iter().map(|(why, count)| ((*why).to_owned(), *count as u64)).collect();
    assert_eq!(found, expected);
}

/// Waits until nothing is left of any client but these.
async fn wait_for_open_connections(server: &TestServer, connections: u64) {
    wait_until("the connections are closed", || open_connections(server) == connections).await;
    assert_eq!(server.app.inference.engine.free_permits(), server.app.limits.requests.max_inflight_items);
    assert_eq!(counts_by_label(server, "predictd_http_requests_in_flight", "")[""], 0);
}

/// A request with this body as JSON, on a connection that stays.
fn post_request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let kind = "Host: x\r\nContent-Type: application/json";
    format!("POST {path} HTTP/1.1\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request that is answered with 200.
fn question_request() -> String {
    post_request("/predict", &json!({ "text": QUESTION }))
}

/// The head of a request with JSON, without the line that ends it.
const POST_PREDICT_HEAD: &str = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
/// A request without a body that is answered with 200.
const LIVEZ_REQUEST: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// One answer.
#[derive(Debug)]
struct WireResponse {
    status: u16,
    head: String,
    body: String,
}

impl WireResponse {
    /// The first answer of these bytes and its length, if it is complete.
    fn parse_first(bytes: &[u8]) -> Option<(Self, usize)> {
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&bytes[..head]).unwrap().to_owned();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head: text, body: String::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            let (body, length) = crate::support::raw_client::dechunked(&bytes[head..])?;
            answer.body = String::from_utf8(body).unwrap();
            return Some((answer, head + length));
        }
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let body = bytes.get(head..head + length)?;
        std::str::from_utf8(body).unwrap().clone_into(&mut answer.body);
        Some((answer, head + length))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    #[track_caller]
    fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The kind of a problem, if this is one.
    fn problem_kind(&self) -> String {
        if self.header("content-type") != Some("application/problem+json") {
            return String::new();
        }
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status, "{self:?}");
        assert_eq!(problem.instance.as_deref(), self.header("x-request-id"), "{self:?}");
        kind(&problem).to_owned()
    }

    /// True if it says that nothing follows on its connection.
    fn closes_connection(&self) -> bool {
        match self.header("connection") {
            None => self.head.starts_with("HTTP/1.0 "),
            Some(connection) => connection == "close",
        }
    }
}

/// A connection whose every byte the test chooses.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn connect(server: &TestServer) -> Self {
        Self::connect_to(server.address).await
    }

    async fn connect_to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    /// A client that has got an answer and keeps its connection.
    async fn connect_and_request(server: &TestServer) -> Self {
        let mut neighbour = Self::connect(server).await;
        neighbour.request_ok().await;
        neighbour
    }

    /// A client that has no room for what it does not read.
    async fn connect_with_small_buffer(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Self { stream: socket.connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        or_timeout(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next answer.
    async fn read_response(&mut self) -> WireResponse {
        loop {
            if let Some((answer, length)) = WireResponse::parse_first(&self.received) {
                self.received.drain(..length);
                return answer;
            }
            let read = or_timeout(self.stream.read_buf(&mut self.received)).await.unwrap();
            assert!(read > 0, "the connection ended: {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    /// Sends a request and reads its answer.
    async fn request(&mut self, request: impl AsRef<[u8]>) -> WireResponse {
        self.send(request).await;
        self.read_response().await
    }

    /// Sends a question; its answer must be the right one.
    async fn request_ok(&mut self) {
        let answer = self.request(question_request()).await;
        assert_eq!((answer.status, label(&answer.json())), (200, "card_arrival"), "{answer:?}");
    }

    /// Reads to the end, which must be an orderly one, and nothing but whole answers before it.
    async fn read_responses(mut self) -> Vec<WireResponse> {
        or_timeout(self.stream.read_to_end(&mut self.received)).await.unwrap();
        let mut answers = Vec::new();
        while let Some((answer, length)) = WireResponse::parse_first(&self.received) {
            self.received.drain(..length);
            answers.push(answer);
        }
        assert!(self.received.is_empty(), "{:?} after {answers:?}", String::from_utf8_lossy(&self.received));
        answers
    }

    /// Waits for the end, orderly or not; what came before it.
    async fn read_to_end(mut self) -> Vec<u8> {
        while or_timeout(self.stream.read_buf(&mut self.received)).await.is_ok_and(|read| read > 0) {}
        self.received
    }
}

/// Waits for what must happen, however long a busy machine takes over it.
async fn or_timeout<T>(waits: impl Future<Output = T>) -> T {
    let Ok(happened) = tokio::time::timeout(Duration::from_secs(20), waits).await else {
        panic!("not within 20 seconds");
    };
    happened
}

/// Many clients at a time, each of which does this with its connection and its number.
async fn run_clients<T, F>(address: SocketAddr, size: usize, client: impl Fn(usize, Connection) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for number in 0..size {
        clients.spawn(client(number, Connection::connect_to(address).await));
    }
    clients.join_all().await
}

/// Stands inside messages. It must never run as a request.
const SMUGGLED_REQUEST: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
/// Stands behind messages.
const NEXT_REQUEST: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
enum ExpectedOutcome {
    /// It reaches a route and is answered so, and then the request behind it is answered.
    Answered(u16),
    /// It reaches a route and is answered so, and the connection ends.
    AnsweredThenClosed(u16),
    /// It reaches no route: hyper answers so, without a body, and the connection ends.
    Refused(u16),
}

/// Asserts what becomes of a message, in one piece and in many.
async fn assert_outcome(server: &TestServer, fate: ExpectedOutcome, message: &[u8]) {
    let shown = String::from_utf8_lossy(message);
    let whole = [message, NEXT_REQUEST.as_bytes()].concat();
    for piece in [whole.len(), 5] {
        let before = counts_by_label(server, "predictd_http_requests_total", "route");
        let mut connection = Connection::connect(server).await;
        connection.stream.set_nodelay(true).unwrap();
        for bytes in whole.chunks(piece) {
            // The connection may end before everything is sent.
            if connection.stream.write_all(bytes).await.is_err() {
                break;
            }
        }
        let mut received = connection.read_to_end().await;
        let mut answers = Vec::new();
        while let Some((answer, length)) = WireResponse::parse_first(&received) {
            received.drain(..length);
            answers.push(answer);
        }
        assert!(received.is_empty(), "{shown:.200}: {received:?}");
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let (expected, reached) = match fate {
            ExpectedOutcome::Answered(status) => (vec![status, 200], 2),
            ExpectedOutcome::AnsweredThenClosed(status) => (vec![status], 1),
            ExpectedOutcome::Refused(status) => (vec![status], 0),
        };
        assert_eq!(statuses, expected, "{shown:.200}");
        assert!(answers.last().is_none_or(WireResponse::closes_connection), "{shown:.200}: {answers:?}");
        if let ExpectedOutcome::Refused(_) = fate {
            assert_eq!(answers[0].body, "", "{shown:.200}");
        }
        let after = counts_by_label(server, "predictd_http_requests_total", "route");
        assert_eq!(after.values().sum::<u64>() - before.values().sum::<u64>(), reached, "{shown:.200}");
        assert_eq!(after["/health"], before["/health"], "{shown:.200}");
    }
}
