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
use crate::open_loop::{Ask, Load, Outcome, send};
use crate::process::Process;
use crate::stuck::{Ending, Stuck, StuckClient};

const KINDS: [Stuck; 3] = [Stuck::Silent, Stuck::HalfHead, Stuck::DribbledBody];
const CLIENTS: usize = 1_000;
const BASELINE: Duration = Duration::from_secs(20);
/// Good requests per second. Few enough that the two models do not wait for each other.
const MODELS: [(&str, f64); 2] = [("banking77-tfidf", 100.0), ("banking77-minilm", 20.0)];

/// Good requests to both models.
fn good_requests(address: &str, duration: Duration) -> Vec<Outcome> {
    let load = |(model, rate): (&str, f64)| Load {
        address: address.to_owned(),
        rate,
        duration,
        asks: Ask::golden(model, None).into(),
        max_connections: 64,
        patience: Duration::from_secs(10),
    };
    let loads = MODELS.map(load);
    std::thread::scope(|scope| {
        let running: Vec<_> = loads.iter().map(|load| scope.spawn(move || send(load))).collect();
        running.into_iter().map(|outcome| outcome.join().unwrap()).collect()
    })
}

/// Counts of all stuck clients.
#[derive(Default)]
struct Counts {
    connected: AtomicUsize,
    refused: AtomicUsize,
}

/// One stuck client that comes back whenever it is sent away; reports its first ending.
async fn stay(kind: Stuck, address: Arc<str>, counts: Arc<Counts>, first: Sender<(Stuck, Ending)>) {
    let mut first = Some(first);
    loop {
        let Ok(client) = StuckClient::connect(kind, &address).await else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        counts.connected.fetch_add(1, Ordering::Relaxed);
        let ending = client.until_closed().await;
        if let Some(first) = first.take() {
            first.send((kind, ending)).await.ok();
        }
    }
}

fn print_endings(endings: &BTreeMap<Stuck, Vec<Ending>>, watched: Duration) {
    for (i, kind) in KINDS.into_iter().enumerate() {
        let clients = (0..CLIENTS).filter(|client| client % KINDS.len() == i).count();
        let closed = endings.get(&kind).map_or(&[][..], Vec::as_slice);
        let times: Latencies = closed.iter().map(|ending| ending.after).collect();
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        for ending in closed {
            *answers.entry(ending.answer.as_deref().unwrap_or("none")).or_default() += 1;
        }
        let seconds = |time: Duration| time.as_secs_f64();
        let when = if closed.is_empty() {
            String::new()
        } else {
            let (min, median, max) = (times.min(), times.percentile(50), times.max());
            format!(" after {:.1} / {:.1} / {:.1} s (min, median, max)", seconds(min), seconds(median), seconds(max))
        };
        println!(
            "{kind:?}: {} of {clients} closed{when}, answers {answers:?}; not closed within {:.0} s: {}",
            closed.len(),
            seconds(watched),
            clients - closed.len()
        );
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) {
    let duration = Duration::from_secs(arguments.first().map_or(40, |seconds| seconds.parse().unwrap()));
    let server = Process::start(&["--max-connections", "2048"]);
    // The first requests open connections and fill caches.
    good_requests(&server.address, Duration::from_secs(2));
    let quiet = good_requests(&server.address, BASELINE);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let counts = Arc::new(Counts::default());
    let (sender, mut first) = channel(CLIENTS);
    let start = Instant::now();
    for client in 0..CLIENTS {
        let address: Arc<str> = server.address.as_str().into();
        runtime.spawn(stay(KINDS[client % KINDS.len()], address, Arc::clone(&counts), sender.clone()));
    }
    while counts.connected.load(Ordering::Relaxed) < CLIENTS && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let present = counts.connected.load(Ordering::Relaxed);
    println!("{present} of {CLIENTS} stuck clients connected in {:.2} s", start.elapsed().as_secs_f64());
    let beside = good_requests(&server.address, duration);
    let watched = start.elapsed();
    runtime.shutdown_background();

    let mut endings: BTreeMap<Stuck, Vec<Ending>> = BTreeMap::new();
    while let Ok((kind, ending)) = first.try_recv() {
        endings.entry(kind).or_default().push(ending);
    }
    for (((model, _), quiet), beside) in MODELS.iter().zip(&quiet).zip(&beside) {
        quiet.print(&format!("{model}, alone"));
        beside.print(&format!("{model}, beside {CLIENTS} stuck clients"));
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
