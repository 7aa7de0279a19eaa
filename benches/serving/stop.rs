//! SIGTERM with 200 stuck clients and good requests in flight: every good request is answered in full, and the
//! process ends within its grace.
//!
//! `cargo bench --bench serving -- stop [TRIALS]`

use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::http_response;
use crate::latencies::Latencies;
use crate::predicted_labels::has_labels;
use crate::process::{ServerProcess, golden_texts};
use crate::stuck_client::{StuckClient, StuckKind};

const MODEL: &str = "banking77-minilm";
const GRACE_PERIOD: Duration = Duration::from_secs(10);
/// For signals and scheduling, on top of the grace.
const GRACE_SLACK: Duration = Duration::from_millis(500);
const STUCK_CLIENTS: [(StuckKind, usize); 5] = [
    (StuckKind::Silent, 50),
    (StuckKind::HalfHead, 50),
    (StuckKind::StalledBody, 40),
    (StuckKind::DribbledBody, 40),
    (StuckKind::UnreadAnswers, 20),
];
const GOOD_REQUESTS: usize = 8;
const TEXTS_PER_REQUEST: usize = 32;

/// A request that the server has begun to read.
fn begin_request(address: &str, body: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(GRACE_PERIOD + 2 * GRACE_SLACK))?;
    let head =
        "POST /batch_predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes())?;
    // "100 Continue" says that a handler waits for the body: from here on the request is in flight.
    let answer = http_response::read_response(&mut stream, &mut Vec::new())?.map(|answer| answer.status);
    if answer != Some(100) {
        return Err(std::io::Error::other(format!("{answer:?} instead of 100")));
    }
    stream.write_all(body.as_bytes())?;
    Ok(stream)
}

/// Reads the answer to a good request: nothing, or what is wrong with it.
fn read_difference(stream: &mut TcpStream, labels: &[String]) -> Option<String> {
    let answer = match http_response::read_response(stream, &mut Vec::new()) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Some("closed without an answer".to_owned()),
        Err(error) => return Some(error.to_string()),
    };
    let right = serde_json::from_slice(&answer.body).is_ok_and(|batch| has_labels(&batch, labels));
    (answer.status != 200 || !right).then(|| format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

/// Waits until stuck clients have nothing more to be computed.
fn wait_until_idle(server: &ServerProcess) {
    let start = Instant::now();
    let mut before = server.cpu_time();
    while start.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(200));
        let now = server.cpu_time();
        if now.saturating_sub(before) <= Duration::from_millis(10) {
            return;
        }
        before = now;
    }
}

struct StopTrial {
    duration: Duration,
    /// Exit code, or what else became of the process.
    exit_status: String,
    lost_answers: Vec<String>,
}

fn run_trial(runtime: &tokio::runtime::Runtime) -> StopTrial {
    let mut server = ServerProcess::start(&["--drain-timeout", "10s", "--max-inflight-items", "65536"]);
    let address = server.address.clone();
    let stuck: Vec<_> = STUCK_CLIENTS.iter().flat_map(|(kind, clients)| std::iter::repeat_n(*kind, *clients)).collect();
    let stuck: Vec<_> = runtime.block_on(async {
        let connecting: Vec<_> = stuck
            .into_iter()
            .map(|kind| {
                let address = address.clone();
                tokio::spawn(async move { StuckClient::connect(kind, &address).await })
            })
            .collect();
        let mut held = Vec::new();
        for client in connecting {
            held.push(tokio::spawn(client.await.unwrap().unwrap().wait_until_closed()));
        }
        held
    });
    wait_until_idle(&server);

    let examples = golden_texts(MODEL);
    let (texts, labels): (Vec<_>, Vec<_>) = examples.into_iter().cycle().take(TEXTS_PER_REQUEST).unzip();
    let body = serde_json::json!({ "texts": texts, "model": MODEL }).to_string();
    let good: Vec<_> = (0..GOOD_REQUESTS).map(|_| begin_request(&address, &body).unwrap()).collect();
    let start = Instant::now();
    server.terminate();
    let trial = std::thread::scope(|scope| {
        let read = |mut stream| {
            let labels = &labels;
            scope.spawn(move || read_difference(&mut stream, labels))
        };
        let reading: Vec<_> = good.into_iter().map(read).collect();
        let ended = server.wait_for_exit(GRACE_PERIOD + GRACE_SLACK);
        let took = start.elapsed();
        let end = ended.map_or("still running".to_owned(), |status| status.to_string());
        let lost = reading.into_iter().filter_map(|difference| difference.join().unwrap()).collect();
        StopTrial { duration: took, exit_status: end, lost_answers: lost }
    });
    for client in stuck {
        client.abort();
    }
    trial
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) {
    let trials = arguments.first().map_or(50, |trials| trials.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let trials: Vec<StopTrial> = (0..trials).map(|_| run_trial(&runtime)).collect();
    let in_time = trials
        .iter()
        .filter(|trial| trial.duration <= GRACE_PERIOD + GRACE_SLACK && trial.exit_status == "exit status: 0")
        .count();
    let times: Latencies = trials.iter().map(|trial| trial.duration).collect();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for trial in &trials {
        *ends.entry(&trial.exit_status).or_default() += 1;
    }
    let lost: Vec<&String> = trials.iter().flat_map(|trial| &trial.lost_answers).collect();
    println!(
        "{in_time} of {} trials ended with 0 within their grace of {GRACE_PERIOD:?}; all of them: {ends:?}",
        trials.len()
    );
    println!(
        "SIGTERM to exit: min {:.2}, median {:.2}, max {:.2} s",
        times.min().as_secs_f64(),
        times.percentile(50).as_secs_f64(),
        times.max().as_secs_f64()
    );
    println!("answers lost: {} of {}", lost.len(), trials.len() * GOOD_REQUESTS);
    for difference in lost.iter().take(5) {
        println!("lost: {}", &difference[..difference.len().min(300)]);
    }
    assert!(lost.is_empty(), "see above");
}
