//! A thousand clients that are stuck, and what they cost the others.
//!
//! `cargo bench --bench serving -- stuck_clients [SECONDS]`
//!
//! A third is silent, a third has sent half a head, a third sends its body at a byte per second. Good requests
//! run before and beside them. A stuck client whose connection is closed comes back at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Sender, channel};

use crate::latencies::Latencies;
use crate::open_loop::{LoadOutcome, LoadSpec, PreparedRequest, send_load};
use crate::process::ServerProcess;
use crate::stuck_client::{ConnectionEnd, StuckClient, StuckKind};

const STUCK_KINDS: [StuckKind; 3] = [StuckKind::Silent, StuckKind::HalfHead, StuckKind::DribbledBody];
const CLIENT_COUNT: usize = 1_000;
const BASELINE_TIME: Duration = Duration::from_secs(20);
/// Good requests per second. Few enough that the two models do not wait for each other.
const MODEL_RATES: [(&str, f64); 2] = [("banking77-tfidf", 100.0), ("banking77-minilm", 20.0)];

/// Good requests to both models.
fn send_good_requests(address: &str, duration: Duration) -> Vec<LoadOutcome> {
    let load = |(model, rate): (&str, f64)| LoadSpec {
        address: address.to_owned(),
        rate,
        duration,
        requests: PreparedRequest::for_golden_texts(model, None).into(),
        max_connections: 64,
        connection_timeout: Duration::from_secs(10),
    };
    let loads = MODEL_RATES.map(load);
    std::thread::scope(|scope| {
        let running: Vec<_> = loads.iter().map(|load| scope.spawn(move || send_load(load))).collect();
        running.into_iter().map(|outcome| outcome.join().unwrap()).collect()
    })
}

/// Counts of all stuck clients.
#[derive(Default)]
struct ConnectionCounts {
    connected: AtomicUsize,
    refused: AtomicUsize,
}

/// One stuck client that comes back whenever it is sent away; reports its first ending.
async fn run_stuck_client(
    kind: StuckKind,
    address: Arc<str>,
    counts: Arc<ConnectionCounts>,
    first: Sender<(StuckKind, ConnectionEnd)>,
) {
    let mut first = Some(first);
    loop {
        let Ok(client) = StuckClient::connect(kind, &address).await else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        counts.connected.fetch_add(1, Ordering::Relaxed);
        let ending = client.wait_until_closed().await;
        if let Some(first) = first.take() {
            first.send((kind, ending)).await.ok();
        }
    }
}

fn print_endings(endings: &BTreeMap<StuckKind, Vec<ConnectionEnd>>, watched: Duration) {
    for (i, kind) in STUCK_KINDS.into_iter().enumerate() {
        let clients = (0..CLIENT_COUNT).filter(|client| client % STUCK_KINDS.len() == i).count();
        let closed = endings.get(&kind).map_or(&[][..], Vec::as_slice);
        let times: Latencies = closed.iter().map(|ending| ending.elapsed).collect();
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        for ending in closed {
            *answers.entry(ending.answer.as_deref().unwrap_or("none")).or_default() += 1;
        }
        let when = if closed.is_empty() {
            String::new()
        } else {
            let [min, median, max] = [0, 50, 100].map(|percent| times.percentile(percent).as_secs_f64());
            format!(" after {min:.1} / {median:.1} / {max:.1} s (min, median, max)")
        };
        println!(
            "{kind:?}: {} of {clients} closed{when}, answers {answers:?}; not closed within {:.0} s: {}",
            closed.len(),
            watched.as_secs_f64(),
            clients - closed.len()
        );
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) {
    let duration = Duration::from_secs(arguments.first().map_or(40, |seconds| seconds.parse().unwrap()));
    let server = ServerProcess::start(&["--max-connections", "2048"]);
    // The first requests open connections and fill caches.
    send_good_requests(&server.address, Duration::from_secs(2));
    let quiet = send_good_requests(&server.address, BASELINE_TIME);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let counts = Arc::new(ConnectionCounts::default());
    let (sender, mut first) = channel(CLIENT_COUNT);
    let start = Instant::now();
    for client in 0..CLIENT_COUNT {
        let address: Arc<str> = server.address.as_str().into();
        runtime.spawn(run_stuck_client(
            STUCK_KINDS[client % STUCK_KINDS.len()],
            address,
            Arc::clone(&counts),
            sender.clone(),
        ));
    }
    while counts.connected.load(Ordering::Relaxed) < CLIENT_COUNT && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let present = counts.connected.load(Ordering::Relaxed);
    println!("{present} of {CLIENT_COUNT} stuck clients connected in {:.2} s", start.elapsed().as_secs_f64());
    let beside = send_good_requests(&server.address, duration);
    let watched = start.elapsed();
    runtime.shutdown_background();

    let mut endings: BTreeMap<StuckKind, Vec<ConnectionEnd>> = BTreeMap::new();
    while let Ok((kind, ending)) = first.try_recv() {
        endings.entry(kind).or_default().push(ending);
    }
    for (((model, _), quiet), beside) in MODEL_RATES.iter().zip(&quiet).zip(&beside) {
        quiet.print(&format!("{model}, alone"));
        beside.print(&format!("{model}, beside {CLIENT_COUNT} stuck clients"));
        let [before, now] = [quiet, beside].map(|outcome| outcome.latencies(200).percentile(99).as_secs_f64());
        println!(
            "{model}: p99 {:.2} ms alone, {:.2} ms beside: ratio {:.2} (goal 1.5)",
            1e3 * before,
            1e3 * now,
            now / before
        );
    }
    print_endings(&endings, watched);
    println!(
        "connections made by stuck clients: {}, refused: {}",
        counts.connected.load(Ordering::Relaxed),
        counts.refused.load(Ordering::Relaxed)
    );
    for outcome in quiet.iter().chain(&beside) {
        let all_right = outcome.latencies(200).count() == outcome.intended;
        assert!(all_right && outcome.wrong == 0, "a good request was not answered: see above");
    }
}
