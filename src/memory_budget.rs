//! The most memory that the server may need: every part has a bound, and this adds them up.

use std::fmt;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_http::body_limits::{DEFAULT_BODY_MEMORY_BYTES, FREE_BODY_BYTES};
use predictd_http::settings::RequestLimits;
use predictd_platform::memory::{self, cgroup};
use predictd_text::text_policies::OverflowPolicy;
use predictd_text::tokenizer::Tokenizer;

use crate::config::ServerSettings;

/// An open connection whose request waits: the state of its tasks and buffers, as measured.
const CONNECTION_BYTES: u64 = 27 << 10;
/// A text in work, but for its tokens and scores.
const ITEM_BYTES: u64 = 1 << 10;
/// A token: its id and its segment.
const TOKEN_BYTES: u64 = 8;
/// A score of a text in work: in the output of its run, and in its decision with the probability.
const SCORE_BYTES: u64 = 16;
/// What else there is: rate limits, logs, metrics, the admin listener.
const OTHER_BYTES: u64 = 16 << 20;
/// What a server may need besides its workers, with the usual limits and small models.
const NON_WORKER_BYTES: u64 = 448 << 20;
/// What a worker may need: its session, and its longest run.
const WORKER_BYTES: u64 = 64 << 20;
/// Default size of the result cache, and of the memory for large responses, in bytes.
const DEFAULT_BUFFER_BYTES: usize = 64 << 20;
/// Where little memory is allowed: this part of it for each of the two.
const BUFFER_MEMORY_DIVISOR: u64 = 64;
/// The part of the memory limit that large bodies may take.
const BODY_MEMORY_DIVISOR: u64 = 16;
/// Spans that wait for a collector.
const SPAN_QUEUE_BYTES: u64 = 40 << 20;

/// Logs the most memory that a server with these models may need.
///
/// # Errors
/// One sentence, if that is more than it is allowed.
pub fn check_budget<'a>(
    settings: &ServerSettings,
    models: impl IntoIterator<Item = &'a LoadedVersion>,
) -> Result<(), String> {
    let Some(MemoryBudget { estimate, limit }) = compute_budget(settings, models) else {
        tracing::warn!("memory use unknown; memory limit not checked");
        return Ok(());
    };
    let max_mib = to_mib(estimate.total());
    tracing::info!(max_mib, limit_mib = limit.map(to_mib), "maximum memory use estimated: {estimate}");
    let Some(limit) = limit.filter(|&limit| estimate.total() > limit) else { return Ok(()) };
    Err(format!(
        "the server may need {max_mib} MiB of memory, and {} MiB are allowed: {estimate}. Lower what these options \
         allow, or give it more; --memory-limit 0 starts it all the same",
        to_mib(limit)
    ))
}

fn to_mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The most memory that a server may need, and what it is allowed.
#[derive(Debug, Clone, Copy)]
pub struct MemoryBudget {
    /// The most.
    pub estimate: MemoryEstimate,
    /// Bytes that it is allowed, if there is a limit.
    pub limit: Option<u64>,
}

/// The most memory that a server with these models, and what this process has besides, may need; nothing where the
/// system does not tell what it has.
pub fn compute_budget<'a>(
    settings: &ServerSettings,
    models: impl IntoIterator<Item = &'a LoadedVersion>,
) -> Option<MemoryBudget> {
    let resident = memory::resident_bytes()?;
    let mut loaded = ModelMemory { resident, ..ModelMemory::default() };
    for model in models {
        let pipeline = model.pipeline();
        let run = model.run_memory_bytes.unwrap_or_default();
        if model.placement.is_gpu() {
            // Measured with a run on each GPU, and there is one at a time, whatever the workers of the cores are.
            loaded.gpu_run_bytes = loaded.gpu_run_bytes.max(run);
        } else {
            loaded.run_bytes = loaded.run_bytes.max(run);
        }
        loaded.max_tokens = loaded.max_tokens.max(pipeline.tokenizer().map_or(0, Tokenizer::max_tokens));
        loaded.max_labels = loaded.max_labels.max(pipeline.labels().len());
    }
    Some(MemoryBudget { estimate: MemoryEstimate::new(settings, loaded), limit: memory_limit(settings) })
}

/// With as many workers as the memory has room for, unless the number was chosen: a process with many cores and little
/// memory would not start otherwise.
#[must_use]
pub fn fit_workers(settings: ServerSettings) -> ServerSettings {
    let Some(limit) = memory_limit(&settings).filter(|_| !settings.is_workers_explicit) else { return settings };
    let fitting = usize::try_from(limit.saturating_sub(NON_WORKER_BYTES) / WORKER_BYTES).unwrap_or(usize::MAX).max(1);
    if fitting >= settings.workers {
        return settings;
    }
    tracing::warn!(
        workers = fitting,
        cores = settings.workers,
        limit_mib = limit >> 20,
        "not enough memory for one worker per core; fewer workers started"
    );
    ServerSettings { workers: fitting, ..settings }
}

/// Bytes that the server is allowed, if there is a limit.
fn memory_limit(settings: &ServerSettings) -> Option<u64> {
    settings.memory_limit.or_else(cgroup::memory_limit).filter(|&limit| limit > 0)
}

/// Bytes of answers that are kept: what was chosen, or as much as does no harm in what the server is allowed.
#[must_use]
pub fn cache_bytes(settings: &ServerSettings) -> usize {
    settings.cache_bytes.unwrap_or_else(|| capped_share(settings, BUFFER_MEMORY_DIVISOR, DEFAULT_BUFFER_BYTES))
}

/// Bytes for large responses until they are written: what was chosen, or as much as does no harm in what the server is
/// allowed.
#[must_use]
pub fn response_memory(settings: &ServerSettings) -> usize {
    settings.response_memory.unwrap_or_else(|| capped_share(settings, BUFFER_MEMORY_DIVISOR, DEFAULT_BUFFER_BYTES))
}

/// Bytes for large bodies: as much as does no harm in what the server is allowed, and room for eight of the largest.
#[must_use]
pub fn body_memory(settings: &ServerSettings) -> usize {
    capped_share(settings, BODY_MEMORY_DIVISOR, DEFAULT_BODY_MEMORY_BYTES).max(8 * settings.limits.max_body_bytes)
}

/// `usual`, or the part of what the server is allowed if that is less.
fn capped_share(settings: &ServerSettings, part: u64, usual: usize) -> usize {
    let share = memory_limit(settings).and_then(|limit| usize::try_from(limit / part).ok());
    share.map_or(usual, |share| share.min(usual))
}

/// What the models that are loaded were found to need.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelMemory {
    /// The process, now.
    pub resident: u64,
    /// The longest run of any model on the cores.
    pub run_bytes: u64,
    /// The longest runs of any model on its GPUs, as far as they need memory of the machine.
    pub gpu_run_bytes: u64,
    /// Tokens of the longest text that a model takes whole.
    pub max_tokens: usize,
    /// Scores of a text.
    pub max_labels: usize,
}

/// The parts of the ceiling, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryEstimate {
    /// Models, sessions, the program.
    pub resident: u64,
    /// As many of the longest runs as there may be at a time.
    pub runs: u64,
    /// Bodies, and the texts that were read from them.
    pub bodies: u64,
    /// Texts in work: tokens and scores.
    pub items: u64,
    /// Open connections.
    pub connections: u64,
    /// Answers that are kept.
    pub cache: u64,
    /// Large responses until they are written.
    pub responses: u64,
    /// Everything else.
    pub other: u64,
}

impl MemoryEstimate {
    /// The ceiling of a server with these settings and models.
    #[must_use]
    pub fn new(settings: &ServerSettings, loaded: ModelMemory) -> Self {
        let RequestLimits { max_text_chars, max_inflight_items, max_connections, .. } = settings.limits;
        let small = max_connections as u64 * FREE_BODY_BYTES as u64;
        // Twice: the body as it came, and the texts in it. A small response takes the place of the body.
        let bodies = 2 * (body_memory(settings) as u64 + small);
        // In windows, a text can be all the tokens that its characters can make.
        let windows = settings.text_defaults.on_overflow == OverflowPolicy::Window;
        let tokens = if windows { loaded.max_tokens.max(max_text_chars) } else { loaded.max_tokens } as u64;
        let items = max_inflight_items as u64;
        let bytes_without_tokens = items * (ITEM_BYTES + SCORE_BYTES * loaded.max_labels as u64);
        Self {
            resident: loaded.resident,
            // One more than workers: the express worker.
            runs: (settings.workers as u64 + 1) * loaded.run_bytes + loaded.gpu_run_bytes,
            bodies,
            // A token is a byte of some body at least.
            items: bytes_without_tokens + (items * TOKEN_BYTES * tokens).min(TOKEN_BYTES * bodies / 2),
            connections: max_connections as u64 * CONNECTION_BYTES,
            cache: cache_bytes(settings) as u64,
            responses: response_memory(settings) as u64,
            other: OTHER_BYTES + settings.traces.as_ref().map_or(0, |_| SPAN_QUEUE_BYTES),
        }
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.resident
            + self.runs
            + self.bodies
            + self.items
            + self.connections
            + self.cache
            + self.responses
            + self.other
    }
}

/// The parts in MiB, with the options that set them.
impl fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB now, {} for runs (--workers), {} for bodies (--max-body), {} for texts in work \
             (--max-inflight-items), {} for connections (--max-connections), {} for the cache (--cache-bytes), {} for responses \
             (--response-memory)",
            to_mib(self.resident),
            to_mib(self.runs),
            to_mib(self.bodies),
            to_mib(self.items),
            to_mib(self.connections),
            to_mib(self.cache),
            to_mib(self.responses)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    const MIB: u64 = 1 << 20;

    fn estimate(options: &[&str], loaded: ModelMemory) -> MemoryEstimate {
        let all = ["predictd"].into_iter().chain(options.iter().copied());
        MemoryEstimate::new(&ServerSettings::resolve(Cli::parse_from(all).serve).unwrap(), loaded)
    }

    #[test]
    fn memory_estimate_parts_follow_options() {
        let loaded = ModelMemory {
            resident: 100 * MIB,
            run_bytes: 10 * MIB,
            gpu_run_bytes: 3 * MIB,
            max_tokens: 512,
            max_labels: 77,
        };
        let usual = estimate(&["--workers", "4", "--memory-limit", "0"], loaded);
        assert_eq!((usual.resident, usual.runs, usual.cache), (100 * MIB, 53 * MIB, 64 * MIB));
        // 64 MiB of large bodies and 16 KiB for each of 1,024 connections, as bytes and as texts.
        assert_eq!((usual.bodies, usual.connections), (160 * MIB, 27 * MIB));
        assert_eq!(usual.items, 4_096 * (1_024 + 8 * 512 + 16 * 77));
        assert_eq!(usual.responses, 64 * MIB);
        assert_eq!(
            usual.total(),
            [100, 53, 64, 160, 27, 64, 16].map(|mib| mib * MIB).iter().sum::<u64>() + usual.items
        );
        let small = estimate(
            &["--max-connections", "64", "--max-inflight-items", "1024", "--cache-bytes", "0", "--workers", "1"],
            loaded,
        );
        assert_eq!((small.runs, small.cache, small.connections * 16), (23 * MIB, 0, usual.connections));
        assert!(small.items * 4 == usual.items && small.bodies < usual.bodies);
    }

    fn fitted_workers(options: &[&str]) -> usize {
        let all = ["predictd"].into_iter().chain(options.iter().copied());
        let settings = ServerSettings::resolve(Cli::parse_from(all).serve).unwrap();
        // As on a machine with many cores.
        let cores = if settings.is_workers_explicit { settings.workers } else { 64 };
        fit_workers(ServerSettings { workers: cores, ..settings }).workers
    }

    #[test]
    fn fit_workers_default_count_limited_by_memory() {
        assert_eq!(fitted_workers(&["--memory-limit", "0"]), 64);
        assert_eq!(fitted_workers(&["--memory-limit", "1073741824"]), 9);
        assert_eq!(fitted_workers(&["--memory-limit", "100000000"]), 1);
        assert_eq!(fitted_workers(&["--memory-limit", "1073741824", "--workers", "12"]), 12);
    }

    fn cache_mib(options: &[&str]) -> u64 {
        estimate(options, ModelMemory::default()).cache / MIB
    }

    #[test]
    fn cache_default_little_memory_is_small() {
        assert_eq!(cache_mib(&["--memory-limit", "0"]), 64);
        assert_eq!(cache_mib(&["--memory-limit", "8589934592"]), 64);
        assert_eq!(cache_mib(&["--memory-limit", "536870912"]), 8);
        assert_eq!(cache_mib(&["--memory-limit", "536870912", "--cache-bytes", "67108864"]), 64);
        assert_eq!(cache_mib(&["--memory-limit", "536870912", "--cache-bytes", "0"]), 0);
    }

    fn response_mib(options: &[&str]) -> u64 {
        estimate(options, ModelMemory::default()).responses / MIB
    }

    #[test]
    fn response_memory_default_little_memory_is_small() {
        assert_eq!(response_mib(&["--memory-limit", "0"]), 64);
        assert_eq!(response_mib(&["--memory-limit", "536870912"]), 8);
        assert_eq!(response_mib(&["--memory-limit", "536870912", "--response-memory", "4194304"]), 4);
    }

    #[test]
    fn item_memory_windows_limited_by_bodies() {
        let loaded = ModelMemory { max_tokens: 512, ..ModelMemory::default() };
        let windows = estimate(&["--on-overflow", "window"], loaded);
        assert_eq!(windows.items, 4_096 * 1_024 + 8 * windows.bodies / 2);
    }
}
