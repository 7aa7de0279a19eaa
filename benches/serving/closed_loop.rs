//! So many clients, each of whom sends its next request when it has its answer: for finding how much a server can do.
//!
//! `cargo bench --bench serving -- closed_loop ADDRESS REQUESTS CLIENTS SECONDS [LEAVE]` prints one line of JSON.
//! `REQUESTS` is a file of JSON lines with `path`, `body` and `texts`, the number of texts in the body; it is read again
//! from its beginning as often as needed. Of a hundred requests `LEAVE` are not waited for: their connection is closed.
//! What is sent and how it is answered does not depend on the server: it can be anybody's.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::latencies::Latencies;
use crate::process::{KeepAliveClient, cpu_time_of};

struct LoadRequest {
    path: String,
    body: String,
    texts: usize,
}

#[derive(Default)]
struct LoadResult {
    latencies: Vec<Duration>,
    texts: usize,
    failures: Vec<u16>,
    abandoned: usize,
}

fn read_requests(file: &str) -> Vec<LoadRequest> {
    std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            LoadRequest {
                path: line["path"].as_str().unwrap().to_owned(),
                body: line["body"].as_str().unwrap().to_owned(),
                texts: usize::try_from(line["texts"].as_u64().unwrap()).unwrap(),
            }
        })
        .collect()
}

/// Runs the load and prints what came of it.
pub(crate) fn run(arguments: &[String]) {
    let [address, file, clients, seconds, leave @ ..] = arguments else {
        println!("closed_loop ADDRESS REQUESTS CLIENTS SECONDS [LEAVE]");
        std::process::exit(2);
    };
    let clients: usize = clients.parse().unwrap();
    let seconds: f64 = seconds.parse().unwrap();
    let leave: usize = leave.first().map_or(0, |percent| percent.parse().unwrap());
    let requests = read_requests(file);
    let next = AtomicUsize::new(0);
    let all = Mutex::new(LoadResult::default());
    let start = Instant::now();
    let cpu = cpu_time_of("self");
    let end = start + Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let seen = run_client(address, &requests, &next, leave, end);
                let mut all = all.lock().unwrap();
                all.latencies.extend(seen.latencies);
                all.failures.extend(seen.failures);
                all.texts += seen.texts;
                all.abandoned += seen.abandoned;
            });
        }
    });
    let took = start.elapsed().as_secs_f64();
    let cpu = cpu_time_of("self").saturating_sub(cpu);
    let LoadResult { latencies, texts, failures, abandoned: left } = all.into_inner().unwrap();
    let latencies: Latencies = latencies.into_iter().collect();
    let [p50_ms, p90_ms, p99_ms, max_ms] =
        [50, 90, 99, 100].map(|percent| latencies.percentile(percent).as_secs_f64() * 1e3);
    let statuses: BTreeSet<u16> = failures.iter().copied().collect();
    println!(
        "{}",
        serde_json::json!({
            "seconds": took,
            "requests": latencies.count(),
            "texts": texts,
            "requests_per_s": latencies.count() as f64 / took,
            "texts_per_s": texts as f64 / took,
            "p50_ms": p50_ms,
            "p90_ms": p90_ms,
            "p99_ms": p99_ms,
            "max_ms": max_ms,
            "failures": failures.len(),
            "failure_statuses": statuses,
            "left": left,
            "generator_cpu_s": cpu.as_secs_f64(),
        })
    );
}

fn run_client(address: &str, requests: &[LoadRequest], next: &AtomicUsize, leave: usize, end: Instant) -> LoadResult {
    let mut seen = LoadResult::default();
    let mut client = KeepAliveClient::connect(address);
    while Instant::now() < end {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let request = &requests[number % requests.len()];
        if number % 100 < leave {
            // The request is sent whole; its answer is for nobody.
            client.send("POST", &request.path, &request.body);
            seen.abandoned += 1;
            client = KeepAliveClient::connect(address);
            continue;
        }
        let sent = Instant::now();
        let (status, _) = client.request("POST", &request.path, &request.body);
        if status == 200 {
            seen.latencies.push(sent.elapsed());
            seen.texts += request.texts;
        } else {
            seen.failures.push(status);
        }
    }
    seen
}
