//! Start to ready, memory, and what the server costs while nobody asks.
//!
//! `cargo bench --bench serving -- footprint`

use std::time::Duration;

use crate::process::{KeepAliveClient, ServerProcess, golden_texts};

const START_COUNT: usize = 5;
const IDLE_TIME: Duration = Duration::from_secs(20);
const REQUEST_COUNT: usize = 2_000;

/// Measures and prints.
pub(crate) fn run() {
    let mut starts: Vec<Duration> = (0..START_COUNT).map(|_| ServerProcess::start(&[]).start_to_ready).collect();
    starts.sort();
    println!("start to ready, both models: median {:?} of {starts:?}", starts[START_COUNT / 2]);

    let server = ServerProcess::start(&[]);
    println!("resident memory when ready: {:.0} MiB", server.resident_mib());
    let before = server.cpu_time();
    std::thread::sleep(IDLE_TIME);
    let idle = server.cpu_time().saturating_sub(before).as_secs_f64() / IDLE_TIME.as_secs_f64();
    println!(
        "idle: {:.2} % of one core over {IDLE_TIME:?} (resolution {:.2} %)",
        100.0 * idle,
        1.0 / IDLE_TIME.as_secs_f64()
    );

    let mut client = KeepAliveClient::connect(&server.address);
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let texts = golden_texts(model);
        for i in 0..REQUEST_COUNT {
            let body = serde_json::json!({ "text": texts[i % texts.len()].0, "model": model }).to_string();
            assert_eq!(client.request("POST", "/predict", &body).0, 200);
        }
    }
    println!("resident memory after {} single requests: {:.0} MiB", 2 * REQUEST_COUNT, server.resident_mib());
}
