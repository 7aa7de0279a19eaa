//! Probes that go on while something else happens, each on a new connection.

use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::answer;
use crate::latencies::Latencies;

pub(crate) const PATHS: [&str; 3] = ["/health", "/livez", "/readyz"];
const INTERVAL: Duration = Duration::from_millis(100);
/// A probe that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(5);

/// What the probes of one path got.
pub(crate) struct Probed {
    pub(crate) latencies: Latencies,
    pub(crate) statuses: BTreeMap<u16, usize>,
    pub(crate) failed: usize,
}

/// Asks `path` ten times a second until `stop`. Latency counts from the time the probe was meant to begin.
pub(crate) fn probe(address: &str, path: &str, stop: &AtomicBool) -> Probed {
    let (mut latencies, mut statuses, mut failed) = (Vec::new(), BTreeMap::new(), 0);
    let mut intended = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match ask(address, path) {
            Ok(Some(status)) => *statuses.entry(status).or_default() += 1,
            Ok(None) | Err(_) => failed += 1,
        }
        latencies.push(intended.elapsed());
        intended += INTERVAL;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
    }
    Probed { latencies: latencies.into_iter().collect(), statuses, failed }
}

fn ask(address: &str, path: &str) -> Result<Option<u16>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes())?;
    Ok(answer::read(&mut stream, &mut Vec::new())?.map(|answer| answer.status))
}
