//! 100,000 requests of every kind, one client in ten of whom leaves early: nothing may be
//! lost, wrong, or answered with a 5xx.
//!
//! `cargo bench --bench serving -- mixed_load [REQUESTS]`. Closed loop: this is about correctness under
//! load, its rate is only said in passing.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::de::IgnoredAny;

use crate::predicted_labels::{has_label, has_labels};
use crate::process::{KeepAliveClient, ServerProcess, golden_texts};

const CLIENT_COUNT: usize = 32;
const DEFAULT_REQUESTS: usize = 100_000;
/// How often memory is read.
const MEMORY_READINGS: usize = 400;

/// What a request must get.
enum ExpectedAnswer {
    Label(String),
    Labels(Vec<String>),
    Status(u16),
}

fn post_request(path: &str, body: &serde_json::Value, expect: ExpectedAnswer) -> (String, String, ExpectedAnswer) {
    (path.to_owned(), body.to_string(), expect)
}

/// The `n`th request: which, and in what order, is the same in every run.
fn nth_request(n: usize, texts: &[(String, String)]) -> (String, String, ExpectedAnswer) {
    let (text, label) = &texts[n * 7 % texts.len()];
    match n % 20 {
        0..8 => post_request(
            "/predict",
            &serde_json::json!({ "text": text, "model": "banking77-tfidf" }),
            ExpectedAnswer::Label(label.clone()),
        ),
        8..14 => post_request(
            "/predict",
            &serde_json::json!({ "text": text, "top_k": 3 }),
            ExpectedAnswer::Label(label.clone()),
        ),
        14 | 15 => {
            let batch: Vec<_> = (0..8).map(|i| &texts[(n + i) % texts.len()]).collect();
            let labels = batch.iter().map(|(_, label)| label.clone()).collect();
            let texts: Vec<_> = batch.iter().map(|(text, _)| text).collect();
            post_request(
                "/batch_predict",
                &serde_json::json!({ "texts": texts, "model": "banking77-tfidf" }),
                ExpectedAnswer::Labels(labels),
            )
        }
        16 => {
            // Of every length up to more than the model reads.
            let long = format!("{text} ").repeat(1 + n / 20 % 60);
            post_request("/predict", &serde_json::json!({ "text": long }), ExpectedAnswer::Status(200))
        }
        17 => post_request("/predict", &serde_json::json!({ "text": " " }), ExpectedAnswer::Status(422)),
        18 => ("/predict".to_owned(), "{\"text\":".to_owned(), ExpectedAnswer::Status(400)),
        _ => {
            post_request("/predict", &serde_json::json!({ "text": text, "model": "none" }), ExpectedAnswer::Status(404))
        }
    }
}

fn check_answer(expect: &ExpectedAnswer, status: u16, body: &str) -> Result<(), String> {
    serde_json::from_str::<IgnoredAny>(body).map_err(|e| format!("{status}: {e}"))?;
    let right = match expect {
        ExpectedAnswer::Status(expected) => status == *expected,
        ExpectedAnswer::Label(label) => {
            status == 200 && serde_json::from_str(body).is_ok_and(|answer| has_label(&answer, label))
        }
        ExpectedAnswer::Labels(labels) => {
            status == 200 && serde_json::from_str(body).is_ok_and(|batch| has_labels(&batch, labels))
        }
    };
    if right { Ok(()) } else { Err(format!("{status} {}", &body[..body.len().min(300)])) }
}

/// Sends a request and leaves before the answer.
fn leave_early(address: &str, path: &str, body: &str, n: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let whole = head + body;
    // Some leave in the middle of the head or the body, most after it.
    let sent = if n.is_multiple_of(3) { whole.len() * (n % 97) / 97 } else { whole.len() };
    stream.write_all(&whole.as_bytes()[..sent]).ok();
}

/// Texts on which both models agree: an answer's label tells whether it is the right one.
fn find_agreed_texts(address: &str) -> Vec<(String, String)> {
    let other: BTreeMap<String, String> = golden_texts("banking77-tfidf").into_iter().collect();
    let mut client = KeepAliveClient::connect(address);
    golden_texts("banking77-minilm")
        .into_iter()
        .filter(|(text, label)| other.get(text).is_none_or(|other| other == label))
        .filter(|(text, label)| {
            let body = serde_json::json!({ "text": text, "model": "banking77-tfidf" }).to_string();
            check_answer(&ExpectedAnswer::Label(label.clone()), 200, &client.request("POST", "/predict", &body).1)
                .is_ok()
        })
        .collect()
}

/// Prints resident memory in MiB: before the load, in `readings` during it, and after it.
fn print_memory(before: f64, readings: &[f64], after: f64) {
    // The first tenth fills the runtime's buffers.
    let settled = &readings[readings.len() / 10..];
    let quarter = (settled.len() / 4).max(1);
    let first = median(&settled[..quarter]);
    let last = median(&settled[settled.len() - quarter..]);
    println!(
        "resident memory {before:.0} MiB before, {after:.0} MiB after; median of the first quarter {first:.1} MiB, of the \
         last {last:.1} MiB ({:+.1} %), most {:.1} MiB",
        (last / first - 1.0) * 100.0,
        readings.iter().copied().fold(0.0, f64::max)
    );
}

fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Runs the load.
pub(crate) fn run(arguments: &[String]) {
    let requests = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(DEFAULT_REQUESTS);
    let server = ServerProcess::start(&[]);
    let texts = find_agreed_texts(&server.address);
    let next = AtomicUsize::new(0);
    let left = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let statuses: Mutex<BTreeMap<u16, usize>> = Mutex::default();
    let before = server.resident_mib();
    let start = Instant::now();
    let memory: Mutex<Vec<f64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..CLIENT_COUNT {
            scope.spawn(|| {
                let mut client = KeepAliveClient::connect(&server.address);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return;
                    }
                    if n.is_multiple_of((requests / MEMORY_READINGS).max(1)) {
                        memory.lock().unwrap().push(server.resident_mib());
                    }
                    // One in ten, spread over all kinds.
                    let (path, body, expect) = nth_request(n / 10 * 9 + n % 10, &texts);
                    if n % 10 == 9 {
                        leave_early(&server.address, &path, &body, n);
                        left.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let (status, answer) = client.request("POST", &path, &body);
                    *statuses.lock().unwrap().entry(status).or_default() += 1;
                    if let Err(difference) = check_answer(&expect, status, &answer) {
                        wrong.lock().unwrap().push(difference);
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let statuses = statuses.into_inner().unwrap();
    let wrong = wrong.into_inner().unwrap();
    let answered: usize = statuses.values().sum();
    println!(
        "{requests} requests from {CLIENT_COUNT} clients in {seconds:.1} s ({:.0}/s), {} left early",
        requests as f64 / seconds,
        left.load(Ordering::Relaxed)
    );
    println!("answered {answered}, by status {statuses:?}, wrong {}", wrong.len());
    print_memory(before, &memory.into_inner().unwrap(), server.resident_mib());
    let health = KeepAliveClient::connect(&server.address).request("GET", "/health", "").0;
    println!("health afterwards: {health}");
    for difference in wrong.iter().take(5) {
        println!("wrong: {difference}");
    }
    assert!(wrong.is_empty() && answered + left.load(Ordering::Relaxed) == requests && health == 200, "see above");
    assert!(statuses.keys().all(|status| *status < 500), "a 5xx was answered");
}
