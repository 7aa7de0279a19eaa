//! What it costs to be watched: metrics, log lines and spans by request, and scrapes.
//!
//! `cargo bench --bench serving -- watching`
//!
//! Answers come from the cache, so that little else is measured. Metrics cannot be switched off: what a request does with
//! them is repeated without a request around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use predictd::metrics::version_metrics::VersionMetrics;
use predictd::metrics::{Metrics, RequestOutcome};

use crate::latencies::Latencies;
use crate::process::{KeepAliveClient, ServerProcess};

const ROUNDS: usize = 11;
const ROUND_TIME: Duration = Duration::from_secs(1);
const CLIENT_COUNT: usize = 8;
const METRIC_REPEATS: u32 = 200_000;
const SCRAPE_COUNT: usize = 200;
/// No line for a request; one that says where the server listens.
const NO_REQUEST_LOG_FILTER: &str = "off,predictd=info,predictd::http=off";
const MODEL: &str = "banking77-minilm";

/// Measures and prints.
pub(crate) fn run() {
    measure_metrics();
    measure_requests();
    measure_scrapes();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the metrics of a request cost, by themselves.
fn measure_metrics() {
    let metrics = Metrics::new().unwrap();
    let model = metrics.model(MODEL, "1");
    for (kind, request) in [("run", record_run_request as fn(&_, &_)), ("cached", record_cached_request)] {
        let [one, two] = [1, 2].map(|threads| {
            median((0..ROUNDS).map(|_| micros_per_request(threads, || request(&metrics, &model))).collect())
        });
        println!(
            "metrics of a request whose text was {kind}: {one:.2} \u{b5}s; on two threads at a time {two:.2} \u{b5}s"
        );
    }
}

fn micros_per_request(threads: usize, request: impl Fn() + Sync) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..METRIC_REPEATS).for_each(|_| request()));
        }
    });
    start.elapsed().as_secs_f64() * 1e6 / f64::from(METRIC_REPEATS)
}

/// The events of a request whose answer was there.
fn record_cached_request(metrics: &Metrics, model: &VersionMetrics) {
    metrics.http.record_start("/predict");
    metrics.record_cache_lookups(1, 0, 0);
    model.record_prediction(12);
    model.record_label(3, "card_arrival");
    model.record_confidence(0.97);
    metrics.http.record_end("/predict", RequestOutcome::Success);
    metrics.http.record_response("/predict", "POST", "200", 0.001);
    metrics.http.record_overhead("/predict", 0.0001);
}

/// The events of one that had a run of its own.
fn record_run_request(metrics: &Metrics, model: &VersionMetrics) {
    record_cached_request(metrics, model);
    let time = Duration::from_micros(900);
    model.record_wait(time, time);
    model.record_busy_time(time);
    model.record_cost_error(time, time);
    model.record_batch(1, 12, 0, time);
}

/// What log lines and spans cost, in turns.
fn measure_requests() {
    let collector = start_collector();
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("log").to_str().unwrap().to_owned();
    let kinds: [(&str, Vec<&str>); 4] = [
        ("no log", vec!["--log", NO_REQUEST_LOG_FILTER]),
        ("log", vec!["--log", "info"]),
        ("log, also to a file", vec!["--log", "info", "--log-file", &file]),
        ("no log, spans", vec!["--log", NO_REQUEST_LOG_FILTER, "--otlp-endpoint", &collector]),
    ];
    let servers: Vec<ServerProcess> = kinds
        .iter()
        .map(|(_, options)| ServerProcess::start(&[&["--cache-bytes", "67108864"], options.as_slice()].concat()))
        .collect();
    let mut costs = vec![Vec::new(); kinds.len()];
    for round in 0..ROUNDS {
        for turn in 0..kinds.len() {
            // Nobody is always first.
            let kind = (round + turn) % kinds.len();
            costs[kind].push(cpu_micros_per_request(&servers[kind]));
        }
    }
    println!(
        "processor time of a request with a cached answer, {CLIENT_COUNT} clients, {ROUNDS} rounds of {ROUND_TIME:?} in turns:"
    );
    for (kind, (name, _)) in kinds.iter().enumerate() {
        let more = median(costs[kind].iter().zip(&costs[0]).map(|(with, without)| with - without).collect());
        println!("  {name}: {:.1} \u{b5}s ({more:+.1})", median(costs[kind].clone()));
    }
}

/// Microseconds by request.
fn cpu_micros_per_request(server: &ServerProcess) -> f64 {
    let requests = AtomicUsize::new(0);
    let before = server.cpu_time();
    let end = Instant::now() + ROUND_TIME;
    std::thread::scope(|scope| {
        for _ in 0..CLIENT_COUNT {
            scope.spawn(|| {
                let mut client = KeepAliveClient::connect(&server.address);
                while Instant::now() < end {
                    send_text(&mut client, "Where is my new card?");
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    // Lines and spans that wait are part of it; spans go off every two seconds.
    std::thread::sleep(Duration::from_millis(2_200));
    server.cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / requests.into_inner() as f64
}

fn send_text(client: &mut KeepAliveClient, text: &str) {
    let (status, answer) =
        client.request("POST", "/predict", &serde_json::json!({ "text": text, "model": MODEL }).to_string());
    assert_eq!(status, 200, "{answer}");
}

/// A collector that takes all.
fn start_collector() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let take = move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).unwrap();
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
                line.clear();
            }
        }
    };
    std::thread::Builder::new().name("collector".to_owned()).spawn(take).unwrap();
    format!("http://{address}")
}

/// How long scrapes take while all workers have more than enough to do, and what they cost.
fn measure_scrapes() {
    let server = ServerProcess::start(&[]);
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let mut scrape = KeepAliveClient::connect(&server.admin);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 * CLIENT_COUNT {
            scope.spawn(|| {
                let mut client = KeepAliveClient::connect(&server.address);
                while !stop.load(Ordering::Relaxed) {
                    send_text(&mut client, &format!("Where is my card {}?", next.fetch_add(1, Ordering::Relaxed)));
                }
            });
        }
        for _ in 0..SCRAPE_COUNT {
            std::thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            assert_eq!(scrape.request("GET", "/metrics", "").0, 200);
            times.push(start.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let times: Latencies = times.into_iter().collect();
    let [half, most, longest] = [50, 99, 100].map(|percent| times.percentile(percent).as_secs_f64() * 1e3);
    println!("{SCRAPE_COUNT} scrapes at full load: p50 {half:.1} ms, p99 {most:.1} ms, longest {longest:.1} ms");
    let before = server.cpu_time();
    let bytes = (0..SCRAPE_COUNT).map(|_| scrape.request("GET", "/metrics", "").1.len()).max().unwrap();
    let each = server.cpu_time().saturating_sub(before).as_secs_f64() / SCRAPE_COUNT as f64;
    println!(
        "a scrape costs {:.2} ms of processor time: {:.3} % of a core at 1 Hz; {bytes} bytes",
        each * 1e3,
        each * 100.0
    );
}
