//! What the result cache costs and saves: the same texts without it, for the first time, and once they are known.
//!
//! `cargo bench --bench serving -- cache`

use std::time::{Duration, Instant};

use crate::latencies::Latencies;
use crate::process::{KeepAliveClient, ServerProcess, golden_texts};

const ROUNDS: usize = 20;
/// More rounds for the model whose texts cost less than a tick of the processor's clock.
const CHEAP_ROUNDS: usize = 100;
/// Requests whose answer is known for each whose is not.
const HITS_PER_MISS: usize = 5;
const CACHE_BYTES: usize = 64 << 20;
/// More than have room in that.
const FILL_TEXTS: usize = 100_000;

/// What many requests of one kind cost.
#[derive(Default)]
struct RequestCost {
    times: Vec<Duration>,
    cpu_time: Duration,
}

impl RequestCost {
    fn measure(&mut self, process: &ServerProcess, client: &mut KeepAliveClient, bodies: &[(String, String)]) {
        let before = process.cpu_time();
        for (body, label) in bodies {
            let start = Instant::now();
            let (status, answer) = client.request("POST", "/predict", body);
            self.times.push(start.elapsed());
            assert!(status == 200 && answer.contains(label), "a wrong answer is no figure: {status} {answer}");
        }
        self.cpu_time += process.cpu_time().saturating_sub(before);
    }

    /// Median time and processor time of a request, in microseconds.
    fn per_request_micros(&self) -> (f64, f64) {
        let median = self.times.iter().copied().collect::<Latencies>().percentile(50);
        (1e6 * median.as_secs_f64(), 1e6 * self.cpu_time.as_secs_f64() / self.times.len() as f64)
    }
}

/// The value of a metric without labels.
fn read_metric(client: &mut KeepAliveClient, name: &str) -> f64 {
    let (_, body) = client.request("GET", "/metrics", "");
    body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
}

fn request_body(model: &str, spaces: usize, (text, label): &(String, String)) -> (String, String) {
    let text = format!("{text}{}", " ".repeat(spaces));
    (serde_json::json!({ "text": text, "model": model }).to_string(), label.clone())
}

/// Measures and prints.
pub(crate) fn run() {
    let bare = ServerProcess::start(&[]);
    let cached = ServerProcess::start(&["--cache-bytes", &CACHE_BYTES.to_string()]);
    let mut bare_client = KeepAliveClient::connect(&bare.address);
    let mut client = KeepAliveClient::connect(&cached.address);
    for (model, rounds) in [("banking77-minilm", ROUNDS), ("banking77-tfidf", CHEAP_ROUNDS)] {
        let texts = golden_texts(model);
        let mut without = RequestCost::default();
        let mut first = RequestCost::default();
        let mut known = RequestCost::default();
        // White space makes another text, and the same tokens.
        let all: Vec<Vec<_>> =
            (1..=rounds).map(|round| texts.iter().map(|text| request_body(model, round, text)).collect()).collect();
        // Each of the two comes first half the times. A run right after many hits finds the processor's caches cold, which
        // is no cost of the miss.
        for (round, bodies) in all.iter().enumerate() {
            if round % 2 == 0 {
                without.measure(&bare, &mut bare_client, bodies);
            }
            first.measure(&cached, &mut client, bodies);
            if round % 2 == 1 {
                without.measure(&bare, &mut bare_client, bodies);
            }
        }
        // So cheap that the processor's clock, which ticks every 10 ms, needs more of them.
        for bodies in std::iter::repeat_n(&all, HITS_PER_MISS).flatten() {
            known.measure(&cached, &mut client, bodies);
        }
        let without = without.per_request_micros();
        let first = first.per_request_micros();
        let known = known.per_request_micros();
        println!(
            "{model}: {} texts, each without cache, once new and {HITS_PER_MISS} times known; one client",
            rounds * texts.len()
        );
        for (kind, (median, cpu)) in [("without cache", without), ("miss", first), ("hit", known)] {
            println!(
                "  {kind}: p50 {median:.0} \u{b5}s, processor time {cpu:.0} \u{b5}s ({:.2} and {:.2} times that without)",
                median / without.0,
                cpu / without.1
            );
        }
    }
    print_growth(
        &[(&bare, &mut bare_client), (&cached, &mut client)].map(|(process, client)| measure_growth(process, client)),
    );
}

/// Compares what a full cache says of itself with what its process has grown by, more than one without a cache.
fn print_growth(grown: &[(f64, f64, f64); 2]) {
    let [(bare, ..), (cached, mib, answers)] = grown;
    println!(
        "full: {answers:.0} answers, {mib:.1} MiB; the process grew by {cached:.0} MiB, one without a cache by {bare:.0} MiB"
    );
}

fn batch_body(first: usize) -> String {
    let texts: Vec<String> = (first..first + 1_000).map(|number| format!("my card {number}")).collect();
    serde_json::json!({ "texts": texts, "model": "banking77-tfidf" }).to_string()
}

/// Asks more texts than the cache holds. Growth of the process in MiB, size of the cache in MiB, and its answers.
fn measure_growth(process: &ServerProcess, client: &mut KeepAliveClient) -> (f64, f64, f64) {
    let before = process.resident_mib();
    for first in (0..FILL_TEXTS).step_by(1_000) {
        assert_eq!(client.request("POST", "/batch_predict", &batch_body(first)).0, 200);
    }
    let mib = read_metric(client, "predictd_cache_bytes") / f64::from(1 << 20);
    (process.resident_mib() - before, mib, read_metric(client, "predictd_cache_entries"))
}
