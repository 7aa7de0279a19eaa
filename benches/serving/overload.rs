//! Ten times more than the server can do: what it still answers, how fast it refuses the rest,
//! whether its probes answer meanwhile, its memory, and how soon it is itself again.
//!
//! `cargo bench --bench serving -- overload [SECONDS] [TIMEOUT_MS] [CONNECTIONS]`
//!
//! `MiniLM`, single texts. A timeout of 0 sends no X-Request-Timeout-Ms. The connections are as many as clients
//! of ten times the capacity would open; with few of them the generator, not the server, would refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::latencies::Latencies;
use crate::open_loop::{LoadOutcome, LoadSpec, PreparedRequest, TimedResponse, send_load};
use crate::probes::{PROBE_PATHS, ProbeResult, run_probes};
use crate::process::{KeepAliveClient, ServerProcess, golden_texts};

const MODEL: &str = "banking77-minilm";
const CLIENT_COUNT: usize = 16;
const WARM_UP_TIME: Duration = Duration::from_secs(1);
const CAPACITY_TIME: Duration = Duration::from_secs(5);
const BASELINE_TIME: Duration = Duration::from_secs(15);
const OVERLOAD_FACTOR: f64 = 10.0;
const RECOVERY_TIME: Duration = Duration::from_secs(20);
/// One quick second may be luck.
const SETTLED_SECONDS: usize = 3;

/// Requests per second that a few clients get answered when each waits for its answer.
fn measure_capacity(address: &str) -> f64 {
    let texts = golden_texts(MODEL);
    let answered = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for first in 0..CLIENT_COUNT {
            let texts = &texts;
            let answered = &answered;
            scope.spawn(move || {
                let mut client = KeepAliveClient::connect(address);
                for (text, label) in texts.iter().cycle().skip(first) {
                    let body = serde_json::json!({ "text": text, "model": MODEL }).to_string();
                    let (status, answer) = client.request("POST", "/predict", &body);
                    assert!(status == 200 && answer.contains(label), "a wrong answer is no figure: {status} {answer}");
                    if start.elapsed() > WARM_UP_TIME + CAPACITY_TIME {
                        return;
                    }
                    answered.fetch_add(usize::from(start.elapsed() > WARM_UP_TIME), Ordering::Relaxed);
                }
            });
        }
    });
    answered.into_inner() as f64 / CAPACITY_TIME.as_secs_f64()
}

/// What was seen beside the load.
struct Observations {
    probes: Vec<(String, ProbeResult)>,
    /// Most resident memory, in MiB.
    max_resident_mib: f64,
}

/// Watches memory and probes on every listener until `stop`.
fn observe_server(server: &ServerProcess, stop: &AtomicBool) -> Observations {
    let listeners = [("data", &server.address), ("admin", &server.admin)];
    std::thread::scope(|scope| {
        let mut probes = Vec::new();
        for (listener, address) in listeners {
            for path in PROBE_PATHS {
                probes.push((format!("{listener} {path}"), scope.spawn(move || run_probes(address, path, stop))));
            }
        }
        let mut memory = 0_f64;
        while !stop.load(Ordering::Relaxed) {
            memory = memory.max(server.resident_mib());
            sleep(Duration::from_millis(100));
        }
        Observations {
            probes: probes.into_iter().map(|(name, probe)| (name, probe.join().unwrap())).collect(),
            max_resident_mib: memory,
        }
    })
}

/// Per second of intended time: the p99 of answers of 200, and whether every request got one.
fn p99_by_second(outcome: &LoadOutcome) -> Vec<(Duration, bool)> {
    let second = |second| {
        let answers: Vec<_> = outcome.answers.iter().filter(|answer| answer.intended.as_secs() == second).collect();
        let ok: Latencies = answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.latency).collect();
        (ok.percentile(99), ok.count() > 0 && ok.count() == answers.len())
    };
    (0..outcome.duration.as_secs()).map(second).collect()
}

/// Prints the p99 of every second after the overload, and when it is as before.
fn print_recovery(baseline: &LoadOutcome, after: &LoadOutcome) {
    // The first second opens connections.
    let usual = p99_by_second(baseline).iter().skip(1).map(|(p99, _)| *p99).max().unwrap_or_default();
    let seconds = p99_by_second(after);
    let shown: Vec<String> = seconds
        .iter()
        .map(|(p99, all)| format!("{:.0}{}", 1e3 * p99.as_secs_f64(), if *all { "" } else { "!" }))
        .collect();
    println!("p99 of 200s by second afterwards, in ms (!: not all were 200): {}", shown.join(" "));
    let normal = seconds.windows(SETTLED_SECONDS).position(|some| some.iter().all(|(p99, all)| *all && *p99 <= usual));
    println!(
        "normal p99 again (at most {:.1} ms, the slowest second of the baseline, {SETTLED_SECONDS} seconds in a row): {}",
        1e3 * usual.as_secs_f64(),
        normal.map_or("never".to_owned(), |second| format!("after {second} s"))
    );
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) {
    let mut numbers = arguments.iter().map(|argument| argument.parse::<u64>().unwrap());
    let duration = Duration::from_secs(numbers.next().unwrap_or(60));
    let timeout = Duration::from_millis(numbers.next().unwrap_or(2_000));
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    let max_connections = usize::try_from(numbers.next().unwrap_or(4_096)).unwrap();
    let slots = (2 * max_connections).to_string();
    let server = ServerProcess::start(&["--max-connections", slots.as_str()]);
    let capacity = measure_capacity(&server.address);
    println!("capacity, {CLIENT_COUNT} clients in a closed loop: {capacity:.0}/s");

    let requests: Arc<[PreparedRequest]> = PreparedRequest::for_golden_texts(MODEL, timeout).into();
    let half_load = LoadSpec {
        address: server.address.clone(),
        rate: 0.5 * capacity,
        duration: BASELINE_TIME,
        requests,
        max_connections,
        connection_timeout: timeout.unwrap_or(Duration::from_secs(10)),
    };
    let overload = LoadSpec { rate: OVERLOAD_FACTOR * capacity, duration, ..half_load.clone() };
    let recovery = LoadSpec { duration: RECOVERY_TIME, ..half_load.clone() };
    let baseline = send_load(&half_load);
    baseline.print("before, half the capacity");
    let memory = server.resident_mib();
    let stop = AtomicBool::new(false);
    let (overload, beside, after) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| observe_server(&server, &stop));
        let overloaded = scope.spawn(|| send_load(&overload));
        sleep(duration);
        stop.store(true, Ordering::Relaxed);
        // The answers of the overload may still be coming.
        let after = send_load(&recovery);
        (overloaded.join().unwrap(), beside.join().unwrap(), after)
    });
    overload.print("overload");
    after.print("afterwards, half the capacity");

    // What still comes after the end was not done in this time.
    let in_time = |a: &&TimedResponse| a.status == 200 && a.intended + a.latency <= duration;
    let goodput = overload.per_second(overload.answers.iter().filter(in_time).count());
    println!(
        "offered {:.0}/s, goodput {goodput:.0}/s, {:.2} of capacity",
        OVERLOAD_FACTOR * capacity,
        goodput / capacity
    );
    print_refusals(&overload, duration, max_connections);
    for (name, ProbeResult { latencies, statuses, failed }) in &beside.probes {
        println!("probe {name}: {latencies} (goal p99 50), statuses {statuses:?}, failed {failed}");
    }
    println!(
        "resident memory {memory:.0} MiB before, at most {:.0} MiB during: {:.2} of before",
        beside.max_resident_mib,
        beside.max_resident_mib / memory
    );
    print_recovery(&baseline, &after);

    assert!([&baseline, &overload, &after].into_iter().map(count_unexpected).sum::<usize>() == 0, "see above");
}

fn count_unexpected(outcome: &LoadOutcome) -> usize {
    outcome.wrong + outcome.answers.iter().filter(|answer| ![200, 503, 504].contains(&answer.status)).count()
}

fn print_refusals(overload: &LoadOutcome, duration: Duration, max_connections: usize) {
    let [ok, refused] = [200, 503].map(|status| overload.latencies(status));
    println!(
        "p99 of {} 503s {:.1} ms (goal 20), p99 of 200s {:.0} ms",
        refused.count(),
        to_ms(refused.percentile(99)),
        to_ms(ok.percentile(99))
    );
    let refusals: Vec<&TimedResponse> = overload.answers.iter().filter(|answer| answer.status == 503).collect();
    let from_writing: Latencies =
        refusals.iter().map(|refusal| refusal.latency.saturating_sub(refusal.delay)).collect();
    let seconds = (0..duration.as_secs()).map(|second| {
        let of_second = refusals.iter().filter(|refusal| refusal.intended.as_secs() == second);
        let latencies: Latencies = of_second.map(|refusal| refusal.latency).collect();
        format!("{:.0}", to_ms(latencies.percentile(99)))
    });
    println!("p99 of 503s by second, in ms: {}", seconds.collect::<Vec<_>>().join(" "));
    println!("503s without the wait for one of {max_connections} connections: {from_writing}");
}

fn to_ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}
