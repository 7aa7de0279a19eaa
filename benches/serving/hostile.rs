//! A million hostile requests: the process stays, nothing is answered with a 5xx, good requests in between are
//! answered as ever, and memory does not grow when the same is sent again and again.
//!
//! `cargo bench --bench serving -- hostile [REQUESTS] [REPEATS]`

mod attacks;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use predictd::stats::split_mix64::SplitMix64;

use crate::http_response;
use crate::process::{KeepAliveClient, ServerProcess, golden_texts};
use attacks::{ATTACK_KINDS, AfterSend, Attack};

const THREADS: usize = 8;
/// One good request of each thread after this many hostile ones.
const GOOD_REQUEST_INTERVAL: usize = 500;
/// The slowest answer that is not a server that hangs.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUESTS_PER_REPEAT: usize = 2_000;
const DEFAULT_REQUESTS: usize = 1_000_000;
const DEFAULT_REPEATS: usize = 100;

/// What the server did, by kind of request. Status 0: closed without an answer.
#[derive(Default)]
struct HostileResult {
    statuses: BTreeMap<&'static str, BTreeMap<u16, usize>>,
    wrong: Vec<String>,
    good_requests: usize,
}

impl HostileResult {
    fn record_status(&mut self, kind: &'static str, status: u16) {
        *self.statuses.entry(kind).or_default().entry(status).or_default() += 1;
    }

    fn record_wrong(&mut self, n: usize, what: &str) {
        let (kind, attack) = nth_attack(n);
        let end = &attack.bytes[attack.bytes.len().saturating_sub(200)..];
        let end = String::from_utf8_lossy(end);
        self.wrong.push(format!("request {n}, {kind}: {what}; the request ends in {end:?}"));
    }

    fn merge(&mut self, other: Self) {
        for (kind, statuses) in other.statuses {
            for (status, count) in statuses {
                *self.statuses.entry(kind).or_default().entry(status).or_default() += count;
            }
        }
        self.wrong.extend(other.wrong);
        self.good_requests += other.good_requests;
    }
}

/// The `n`th request and the name of its kind.
fn nth_attack(n: usize) -> (&'static str, Attack) {
    let mut random = SplitMix64(n as u64);
    let mut pick = random.next_index(ATTACK_KINDS.iter().map(|(_, weight, _)| weight).sum());
    let has_pick = |(_, weight, _): &&(_, usize, _)| {
        let found = pick < *weight;
        pick = pick.saturating_sub(*weight);
        found
    };
    let (name, _, make) = ATTACK_KINDS.iter().find(has_pick).unwrap();
    (name, make(&mut random))
}

/// Sends one request and notes what comes back.
fn send_attack(address: &str, kept: &mut Option<TcpStream>, n: usize, seen: &mut HostileResult) {
    let (kind, attack) = nth_attack(n);
    // Only a request that is complete may follow others on their connection.
    let mut stream = match kept.take() {
        Some(stream) if attack.after_send == AfterSend::ReadOneAnswer => stream,
        other => {
            *kept = other;
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).unwrap();
            stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).unwrap();
            stream
        }
    };
    // The server may refuse before it has read everything: what it said is read all the same.
    let written = stream.write_all(&attack.bytes);
    match attack.after_send {
        AfterSend::Disconnect => return seen.record_status(kind, 0),
        AfterSend::ShutDownWrite => _ = stream.shutdown(Shutdown::Write),
        AfterSend::ReadToEnd | AfterSend::ReadOneAnswer => {}
    }
    let mut left = Vec::new();
    let mut answers = 0;
    loop {
        match http_response::read_response(&mut stream, &mut left) {
            Ok(Some(answer)) => {
                answers += 1;
                seen.record_status(kind, answer.status);
                if answer.status >= 500 || (attack.must_fail && answer.status < 300) {
                    seen.record_wrong(n, &format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)));
                }
                if attack.after_send == AfterSend::ReadOneAnswer {
                    if !answer.close && written.is_ok() {
                        *kept = Some(stream);
                    }
                    return;
                }
                stream.shutdown(Shutdown::Write).ok();
            }
            Ok(None) => break,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => {
                seen.record_wrong(n, &error.to_string());
                break;
            }
        }
    }
    if answers == 0 {
        seen.record_status(kind, 0);
    }
}

/// Sends the requests of a range, with good ones in between.
fn send_attacks(server: &ServerProcess, range: Range<usize>) -> HostileResult {
    let next = AtomicUsize::new(range.start);
    let texts = ["banking77-tfidf", "banking77-minilm"].map(|model| (model, golden_texts(model)));
    let work = || {
        let mut kept = None;
        let mut seen = HostileResult::default();
        let mut good = KeepAliveClient::connect(&server.address);
        for sent in 1.. {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= range.end {
                return seen;
            }
            send_attack(&server.address, &mut kept, n, &mut seen);
            if sent % GOOD_REQUEST_INTERVAL == 0 {
                let (model, texts) = &texts[sent / GOOD_REQUEST_INTERVAL % texts.len()];
                let (text, label) = &texts[n % texts.len()];
                let body = serde_json::json!({ "text": text, "model": model }).to_string();
                let (status, answer) = good.request("POST", "/predict", &body);
                let right = status == 200 && answer.contains(&format!("\"prediction\":\"{label}\""));
                seen.good_requests += 1;
                if !right {
                    seen.wrong.push(format!("good request after {n}: {status} {answer}"));
                }
            }
        }
        seen
    };
    let mut all = HostileResult::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            all.merge(thread.join().unwrap());
        }
    });
    all
}

fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Resident memory while the same requests are sent again and again.
fn measure_growth(server: &ServerProcess, repeats: usize) -> HostileResult {
    let mut all = HostileResult::default();
    let readings: Vec<f64> = (0..repeats)
        .map(|_| {
            all.merge(send_attacks(server, 0..REQUESTS_PER_REPEAT));
            // The allocator gives memory back a little later.
            std::thread::sleep(Duration::from_millis(50));
            server.resident_mib()
        })
        .collect();
    // A single reading depends on which requests met which: runs of them tell a trend from that.
    let part = (repeats / 5).max(1);
    let first = &readings[..part];
    let last = &readings[repeats - part..];
    println!(
        "resident memory, {repeats} times the same {REQUESTS_PER_REPEAT} requests: median {:.1} MiB in the first {part}, {:.1} MiB in the last {part}, grown by {:.1} MiB (goal 1.0)",
        median(first),
        median(last),
        median(last) - median(first)
    );
    let course: Vec<String> = readings.iter().map(|reading| format!("{reading:.0}")).collect();
    println!("  {}", course.join(" "));
    all
}

/// Sends and prints.
pub(crate) fn run(arguments: &[String]) {
    let mut numbers = arguments.iter().map(|argument| argument.parse().unwrap());
    let requests = numbers.next().unwrap_or(DEFAULT_REQUESTS);
    let repeats = numbers.next().unwrap_or(DEFAULT_REPEATS).max(1);
    let mut server = ServerProcess::start(&[]);
    let start = Instant::now();
    let memory = server.resident_mib();
    let mut seen = send_attacks(&server, 0..requests);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{requests} hostile requests in {seconds:.0} s ({:.0}/s), {} good ones in between",
        requests as f64 / seconds,
        seen.good_requests
    );
    println!("resident memory {memory:.0} MiB before, {:.0} MiB after", server.resident_mib());
    println!("answers by kind and status (0: no answer)");
    for (kind, statuses) in &seen.statuses {
        println!("  {kind}: {statuses:?}");
    }
    seen.merge(measure_growth(&server, repeats));

    let errors: usize = seen.statuses.values().flat_map(|by| by.range(500..)).map(|(_, count)| count).sum();
    println!("the process that was started {}", if server.is_alive() { "still runs" } else { "has ended" });
    println!("answers of 5xx: {errors}, wrong: {}", seen.wrong.len());
    for what in seen.wrong.iter().take(10) {
        println!("wrong: {}", what.chars().take(600).collect::<String>());
    }
    assert!(server.is_alive() && errors == 0 && seen.wrong.is_empty(), "see above");
}
