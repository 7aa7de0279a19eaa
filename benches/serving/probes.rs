//! Probes that go on while something else happens, each on a new connection.

use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http_response;
use crate::latencies::Latencies;

pub(crate) const PROBE_PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// A probe that takes longer has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the probes of one path got.
pub(crate) struct ProbeResult {
    pub(crate) latencies: Latencies,
    pub(crate) statuses: BTreeMap<u16, usize>,
    pub(crate) failed: usize,
}

/// Asks `path` ten times a second until `stop`. Latency counts from the time the probe was meant to begin.
pub(crate) fn run_probes(address: &str, path: &str, stop: &AtomicBool) -> ProbeResult {
    let mut latencies = Vec::new();
    let mut statuses = BTreeMap::new();
    let mut failed = 0;
    let mut intended = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match send_probe(address, path) {
            Ok(Some(status)) => *statuses.entry(status).or_default() += 1,
            Ok(None) | Err(_) => failed += 1,
        }
        latencies.push(intended.elapsed());
        intended += PROBE_INTERVAL;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
    }
    ProbeResult { latencies: latencies.into_iter().collect(), statuses, failed }
}

fn send_probe(address: &str, path: &str) -> Result<Option<u16>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes())?;
    Ok(http_response::read_response(&mut stream, &mut Vec::new())?.map(|answer| answer.status))
}
