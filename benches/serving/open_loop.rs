//! The load generator: requests at a constant rate, whether the server keeps up or not.
//!
//! `cargo bench --bench serving -- open_loop [RATE] [SECONDS] [MODEL] [http://HOST:PORT]`
//!
//! Request `i` is meant to leave at `start + i / rate`. Its latency is the time from then to the last
//! byte of its answer, so a server that stalls is charged for every request that it made wait.

mod connections;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, channel};

use crate::latencies::Latencies;
use crate::process::{ServerProcess, cpu_time_of, golden_texts};

/// Answers that are still out this long after the last request are given up.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(30);

/// A request, ready to be written, and what a 200 to it must contain.
pub(crate) struct PreparedRequest {
    bytes: Vec<u8>,
    expected: Vec<u8>,
}

impl PreparedRequest {
    pub(crate) fn post(path: &str, headers: &str, body: &str, right: &str) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { bytes: request.into_bytes(), expected: right.as_bytes().to_vec() }
    }

    /// One `/predict` for each golden text of a model. Without a time the server's default holds.
    pub(crate) fn for_golden_texts(model: &str, timeout: Option<Duration>) -> Vec<Self> {
        let header = timeout.map(|time| format!("x-request-timeout-ms: {}\r\n", time.as_millis())).unwrap_or_default();
        let ask = |(text, label): &(String, String)| {
            let body = serde_json::json!({ "text": text, "model": model }).to_string();
            Self::post("/predict", &header, &body, &format!("\"prediction\":\"{label}\""))
        };
        golden_texts(model).iter().map(ask).collect()
    }
}

/// What to send.
#[derive(Clone)]
pub(crate) struct LoadSpec {
    pub(crate) address: String,
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// Sent in turn.
    pub(crate) requests: Arc<[PreparedRequest]>,
    /// Connections are opened as they are needed, up to this many; then requests wait for one.
    pub(crate) max_connections: usize,
    /// A request that has waited this long for a connection is not sent any more.
    pub(crate) connection_timeout: Duration,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimedResponse {
    /// When its request was meant to leave, from the start.
    pub(crate) intended: Duration,
    /// How much later it was written: it waited for a connection, or for the generator's turn.
    pub(crate) delay: Duration,
    pub(crate) status: u16,
    /// From the intended time to the last byte of the answer.
    pub(crate) latency: Duration,
}

/// What came of a load.
#[derive(Default)]
pub(crate) struct LoadOutcome {
    pub(crate) intended: usize,
    pub(crate) answers: Vec<TimedResponse>,
    /// Answers of 200 with the wrong content, the first of them in words.
    pub(crate) wrong: usize,
    pub(crate) first_wrong: Option<String>,
    /// Requests whose connection failed, or that were not answered at all.
    pub(crate) failed: usize,
    pub(crate) first_failure: Option<String>,
    /// Requests that found no connection in time.
    pub(crate) never_sent: usize,
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// Processor time of the generator.
    pub(crate) cpu_time: Duration,
}

impl LoadOutcome {
    fn record_failure(&mut self, requests: usize, why: &str) {
        self.failed += requests;
        self.first_failure.get_or_insert_with(|| format!("failed: {why}"));
    }

    fn record_wrong(&mut self, body: &[u8], right: &[u8]) {
        self.wrong += 1;
        let body = String::from_utf8_lossy(body);
        let right = String::from_utf8_lossy(right);
        self.first_wrong.get_or_insert_with(|| format!("wrong: {body} instead of {right}"));
    }

    pub(crate) fn latencies(&self, status: u16) -> Latencies {
        self.answers.iter().filter(|answer| answer.status == status).map(|answer| answer.latency).collect()
    }

    pub(crate) fn per_second(&self, count: usize) -> f64 {
        count as f64 / self.duration.as_secs_f64()
    }

    /// Prints everything as a table.
    pub(crate) fn print(&self, name: &str) {
        let delays: Latencies = self.answers.iter().map(|answer| answer.delay).collect();
        println!(
            "{name}: {} requests meant, {:.0}/s; {} answered, {} failed, {} never sent, {} wrong",
            self.intended,
            self.per_second(self.intended),
            self.answers.len(),
            self.failed,
            self.never_sent,
            self.wrong
        );
        let statuses: BTreeSet<u16> = self.answers.iter().map(|answer| answer.status).collect();
        for status in statuses {
            let latencies = self.latencies(status);
            println!("  {status}: {} ({:.0}/s)  {latencies}", latencies.count(), self.per_second(latencies.count()));
        }
        println!(
            "  generator: {} connections, {:.2} cores, requests written after p99 {:.2} ms, max {:.2} ms",
            self.connections,
            self.cpu_time.as_secs_f64() / self.duration.as_secs_f64(),
            1e3 * delays.percentile(99).as_secs_f64(),
            1e3 * delays.max().as_secs_f64()
        );
        for difference in self.first_wrong.iter().chain(&self.first_failure) {
            println!("  {difference}");
        }
    }
}

/// The `ask`th request is due.
#[derive(Debug, Clone, Copy)]
struct DueRequest {
    request_index: usize,
    intended: Instant,
}

/// Announces each request when it is due. A thread of its own: the runtime's timer ticks in whole milliseconds.
fn announce_due(load: &LoadSpec, start: Instant, due: &Sender<DueRequest>) -> Duration {
    for i in 0_usize.. {
        let after = Duration::from_secs_f64(i as f64 / load.rate);
        if after >= load.duration {
            break;
        }
        let intended = start + after;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        due.blocking_send(DueRequest { request_index: i % load.requests.len(), intended }).unwrap();
    }
    cpu_time_of("thread-self")
}

/// Sends the load and waits for its answers.
pub(crate) fn send_load(load: &LoadSpec) -> LoadOutcome {
    let (sender, mut receiver) = channel(1 << 16);
    let start = Instant::now();
    let cpu = cpu_time_of("thread-self");
    let mut outcome = std::thread::scope(|scope| {
        let announcer = scope.spawn(move || announce_due(load, start, &sender));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let mut outcome = local.block_on(&runtime, connections::run_load(load.clone(), start, &mut receiver));
        outcome.cpu_time = announcer.join().unwrap();
        outcome
    });
    outcome.cpu_time += cpu_time_of("thread-self").saturating_sub(cpu);
    outcome.duration = load.duration;
    outcome
}

/// Starts a server, unless there is one, and prints what a load on it gives.
pub(crate) fn run(arguments: &[String]) {
    let mut arguments = arguments.iter().map(String::as_str);
    let rate = arguments.next().unwrap_or("100").parse().unwrap();
    let duration = Duration::from_secs_f64(arguments.next().unwrap_or("10").parse().unwrap());
    let model = arguments.next().unwrap_or("banking77-minilm");
    let mut server = None;
    let address = match arguments.next().unwrap_or_default() {
        "" => server.insert(ServerProcess::start(&[])).address.clone(),
        url => url.trim_start_matches("http://").trim_end_matches('/').to_owned(),
    };
    let outcome = send_load(&LoadSpec {
        address,
        rate,
        duration,
        requests: PreparedRequest::for_golden_texts(model, None).into(),
        max_connections: 512,
        connection_timeout: Duration::from_secs(10),
    });
    outcome.print(model);
    if let Some(server) = &server {
        println!(
            "  server: {:.1} s of processor time, {:.0} MiB resident",
            server.cpu_time().as_secs_f64(),
            server.resident_mib()
        );
    }
    assert!(outcome.wrong == 0, "see above");
}
