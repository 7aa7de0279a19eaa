//! Start to ready, memory, and what the server costs while nobody asks.
//!
//! `cargo bench --bench serving -- footprint`

use std::time::Duration;

use crate::process::{Client, Process, golden_texts};

const STARTS: usize = 5;
const IDLE: Duration = Duration::from_secs(20);
const REQUESTS: usize = 2_000;

/// Measures and prints.
pub(crate) fn run() {
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| Process::start(&[]).start_to_ready).collect();
    starts.sort();
    println!("start to ready, both models: median {:?} of {starts:?}", starts[STARTS / 2]);

    let server = Process::start(&[]);
    println!("resident memory when ready: {:.0} MiB", server.resident_mib());
    let before = server.cpu();
    std::thread::sleep(IDLE);
    let idle = server.cpu().saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
    println!("idle: {:.2} % of one core over {IDLE:?} (resolution {:.2} %)", 100.0 * idle, 1.0 / IDLE.as_secs_f64());

    let mut client = Client::connect(&server.address);
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let texts = golden_texts(model);
        for i in 0..REQUESTS {
            let body = serde_json::json!({ "text": texts[i % texts.len()].0, "model": model }).to_string();
            assert_eq!(client.request("POST", "/predict", &body).0, 200);
        }
    }
    println!("resident memory after {} single requests: {:.0} MiB", 2 * REQUESTS, server.resident_mib());
}
