//! The most memory that the server may need: every part has a bound, and this adds them up.

use std::fmt;

use crate::config::{Limits, OnOverflow, Settings};
use crate::engine::model::Model;
use crate::http::body::{BodyMemory, FREE_BODY};
use crate::memory::{self, cgroup};
use crate::text::tokenizer::Tokenizer;

/// An open connection whose request waits: the state of its tasks and buffers, as measured.
const CONNECTION: u64 = 27 << 10;
/// A text in work, but for its tokens and scores.
const TEXT: u64 = 1 << 10;
/// A token: its id and its segment.
const TOKEN: u64 = 8;
/// A score of a text in work: in the output of its run, and in its decision with the probability.
const SCORE: u64 = 16;
/// What else there is: rate limits, logs, metrics, the admin listener.
const REST: u64 = 16 << 20;
/// What a server may need besides its workers, with the usual limits and small models.
const BESIDE_WORKERS: u64 = 448 << 20;
/// What a worker may need: its session, and its longest run.
const WORKER: u64 = 64 << 20;
/// Answers that are kept where nobody chose how many, in bytes.
const USUAL_CACHE: usize = 64 << 20;
/// Where little memory is allowed: this part of it.
const CACHE_SHARE: u64 = 32;
/// Default memory for large responses, in bytes.
const USUAL_RESPONSES: usize = 64 << 20;
/// Where little memory is allowed: this part of it, as for the cache.
const RESPONSE_SHARE: u64 = 32;
/// Spans that wait for a collector.
const SPANS: u64 = 40 << 20;

/// Logs the most memory that a server with these models may need.
///
/// # Errors
/// One sentence, if that is more than it is allowed.
pub fn check<'a>(settings: &Settings, models: impl IntoIterator<Item = &'a Model>) -> Result<(), String> {
    let Some(Bound { ceiling, limit }) = bound(settings, models) else {
        tracing::warn!("the system does not tell how much memory the server has: its limit is not checked");
        return Ok(());
    };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (most, allowed) = (mib(ceiling.total()), limit.map(mib));
    tracing::info!(most_mib = most, allowed_mib = allowed, "the server may need this much memory at most: {ceiling}");
    match limit {
        Some(limit) if ceiling.total() > limit => Err(format!(
            "the server may need {most} MiB of memory, and {} MiB are allowed: {ceiling}. Lower what these options \
             allow, or give it more; --memory-limit 0 starts it all the same",
            mib(limit)
        )),
        _ => Ok(()),
    }
}

/// The most memory that a server may need, and what it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The most.
    pub ceiling: Ceiling,
    /// Bytes that it is allowed, if there is a limit.
    pub limit: Option<u64>,
}

/// The most memory that a server with these models, and what this process has besides, may need; nothing where the
/// system does not tell what it has.
pub fn bound<'a>(settings: &Settings, models: impl IntoIterator<Item = &'a Model>) -> Option<Bound> {
    let resident = memory::resident()?;
    let mut loaded = Loaded { resident, ..Loaded::default() };
    for model in models {
        let pipeline = model.pipeline();
        let run = model.run_memory().unwrap_or_default();
        if model.placement().is_gpu() {
            // Measured with a run on each GPU, and there is one at a time, whatever the workers of the cores are.
            loaded.gpu_runs = loaded.gpu_runs.max(run);
        } else {
            loaded.run = loaded.run.max(run);
        }
        loaded.tokens = loaded.tokens.max(pipeline.tokenizer().map_or(0, Tokenizer::max_tokens));
        loaded.labels = loaded.labels.max(pipeline.labels().len());
    }
    Some(Bound { ceiling: Ceiling::of(settings, loaded), limit: limit(settings) })
}

/// With as many workers as the memory has room for, where nobody chose how many: a process with many cores and little
/// memory would not start otherwise.
#[must_use]
pub fn fitted(settings: Settings) -> Settings {
    let Some(limit) = limit(&settings).filter(|_| !settings.workers_chosen) else { return settings };
    let fitting = usize::try_from(limit.saturating_sub(BESIDE_WORKERS) / WORKER).unwrap_or(usize::MAX).max(1);
    if fitting >= settings.workers {
        return settings;
    }
    let (cores, limit_mib) = (settings.workers, limit >> 20);
    tracing::warn!(workers = fitting, cores, limit_mib, "there is not enough memory for a worker on each core");
    Settings { workers: fitting, ..settings }
}

/// Bytes that the server is allowed, if there is a limit.
fn limit(settings: &Settings) -> Option<u64> {
    settings.memory_limit.or_else(cgroup::limit).filter(|&limit| limit > 0)
}

/// Bytes of answers that are kept: what was chosen, or as much as does no harm in what the server is allowed.
#[must_use]
pub fn cache_bytes(settings: &Settings) -> usize {
    settings.cache_bytes.unwrap_or_else(|| share(settings, CACHE_SHARE, USUAL_CACHE))
}

/// Bytes for large responses until they are written: what was chosen, or as much as does no harm in what the server is
/// allowed.
#[must_use]
pub fn response_memory(settings: &Settings) -> usize {
    settings.response_memory.unwrap_or_else(|| share(settings, RESPONSE_SHARE, USUAL_RESPONSES))
}

/// `usual`, or the part of what the server is allowed if that is less.
fn share(settings: &Settings, part: u64, usual: usize) -> usize {
    let share = limit(settings).and_then(|limit| usize::try_from(limit / part).ok());
    share.map_or(usual, |share| share.min(usual))
}

/// What the models that are loaded were found to need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The process, now.
    pub resident: u64,
    /// The longest run of any model on the cores.
    pub run: u64,
    /// The longest runs of any model on its GPUs, as far as they need memory of the machine.
    pub gpu_runs: u64,
    /// Tokens of the longest text that a model takes whole.
    pub tokens: usize,
    /// Scores of a text.
    pub labels: usize,
}

/// The parts of the ceiling, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Models, sessions, the program.
    pub resident: u64,
    /// As many of the longest runs as there may be at a time.
    pub runs: u64,
    /// Bodies, and the texts that were read from them.
    pub bodies: u64,
    /// Texts in work: tokens and scores.
    pub texts: u64,
    /// Open connections.
    pub connections: u64,
    /// Answers that are kept.
    pub cache: u64,
    /// Large responses until they are written.
    pub responses: u64,
    /// Everything else.
    pub rest: u64,
}

impl Ceiling {
    /// The ceiling of a server with these settings and models.
    #[must_use]
    pub fn of(settings: &Settings, loaded: Loaded) -> Self {
        let Limits { max_text_chars, max_inflight_texts, max_connections, .. } = settings.limits;
        let small = max_connections as u64 * FREE_BODY as u64;
        // Twice: the body as it came, and the texts in it. A small response takes the place of the body.
        let bodies = 2 * (BodyMemory::bytes(&settings.limits) as u64 + small);
        // In windows, a text can be all the tokens that its characters can make.
        let windows = settings.texts.on_overflow == OnOverflow::Window;
        let tokens = if windows { loaded.tokens.max(max_text_chars) } else { loaded.tokens } as u64;
        let text = |tokens: u64| TEXT + TOKEN * tokens + SCORE * loaded.labels as u64;
        let texts = max_inflight_texts as u64;
        Self {
            resident: loaded.resident,
            // One more than workers: the express worker.
            runs: (settings.workers as u64 + 1) * loaded.run + loaded.gpu_runs,
            bodies,
            // A token is a byte of some body at least.
            texts: (texts * text(tokens)).min(texts * text(0) + TOKEN * bodies / 2),
            connections: max_connections as u64 * CONNECTION,
            cache: cache_bytes(settings) as u64,
            responses: response_memory(settings) as u64,
            rest: REST + settings.traces.as_ref().map_or(0, |_| SPANS),
        }
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.resident
            + self.runs
            + self.bodies
            + self.texts
            + self.connections
            + self.cache
            + self.responses
            + self.rest
    }
}

/// The parts in MiB, with the options that set them.
impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB now, {} for runs (--workers), {} for bodies (--max-body), {} for texts in work \
             (--max-inflight-texts), {} for connections (--max-connections), {} for the cache (--cache-bytes), {} for responses \
             (--response-memory)",
            mib(self.resident),
            mib(self.runs),
            mib(self.bodies),
            mib(self.texts),
            mib(self.connections),
            mib(self.cache),
            mib(self.responses)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    const MIB: u64 = 1 << 20;

    fn ceiling(options: &[&str], loaded: Loaded) -> Ceiling {
        let all = ["predictd"].into_iter().chain(options.iter().copied());
        Ceiling::of(&Settings::resolve(Cli::parse_from(all).serve).unwrap(), loaded)
    }

    #[test]
    fn every_part_follows_its_option() {
        let loaded = Loaded { resident: 100 * MIB, run: 10 * MIB, gpu_runs: 3 * MIB, tokens: 512, labels: 77 };
        let usual = ceiling(&["--workers", "4", "--memory-limit", "0"], loaded);
        assert_eq!((usual.resident, usual.runs, usual.cache), (100 * MIB, 53 * MIB, 64 * MIB));
        // 64 MiB of large bodies and 16 KiB for each of 1,024 connections, as bytes and as texts.
        assert_eq!((usual.bodies, usual.connections), (160 * MIB, 27 * MIB));
        assert_eq!(usual.texts, 4_096 * (1_024 + 8 * 512 + 16 * 77));
        assert_eq!(usual.responses, 64 * MIB);
        assert_eq!(
            usual.total(),
            [100, 53, 64, 160, 27, 64, 16].map(|mib| mib * MIB).iter().sum::<u64>() + usual.texts
        );
        let small = ceiling(
            &["--max-connections", "64", "--max-inflight-texts", "1024", "--cache-bytes", "0", "--workers", "1"],
            loaded,
        );
        assert_eq!((small.runs, small.cache, small.connections * 16), (23 * MIB, 0, usual.connections));
        assert!(small.texts * 4 == usual.texts && small.bodies < usual.bodies);
    }

    #[test]
    fn workers_nobody_chose_are_no_more_than_fit() {
        let workers = |options: &[&str]| {
            let all = ["predictd"].into_iter().chain(options.iter().copied());
            let settings = Settings::resolve(Cli::parse_from(all).serve).unwrap();
            // As on a machine with many cores.
            let cores = if settings.workers_chosen { settings.workers } else { 64 };
            fitted(Settings { workers: cores, ..settings }).workers
        };
        assert_eq!(workers(&["--memory-limit", "0"]), 64);
        assert_eq!(workers(&["--memory-limit", "1073741824"]), 9);
        assert_eq!(workers(&["--memory-limit", "100000000"]), 1);
        assert_eq!(workers(&["--memory-limit", "1073741824", "--workers", "12"]), 12);
    }

    #[test]
    fn a_cache_nobody_chose_is_small_where_there_is_little_memory() {
        let cache = |options: &[&str]| ceiling(options, Loaded::default()).cache / MIB;
        assert_eq!(cache(&["--memory-limit", "0"]), 64);
        assert_eq!(cache(&["--memory-limit", "8589934592"]), 64);
        assert_eq!(cache(&["--memory-limit", "536870912"]), 16);
        assert_eq!(cache(&["--memory-limit", "536870912", "--cache-bytes", "67108864"]), 64);
        assert_eq!(cache(&["--memory-limit", "536870912", "--cache-bytes", "0"]), 0);
    }

    #[test]
    fn response_memory_is_small_where_there_is_little_memory() {
        let responses = |options: &[&str]| ceiling(options, Loaded::default()).responses / MIB;
        assert_eq!(responses(&["--memory-limit", "0"]), 64);
        assert_eq!(responses(&["--memory-limit", "536870912"]), 16);
        assert_eq!(responses(&["--memory-limit", "536870912", "--response-memory", "4194304"]), 4);
    }

    #[test]
    fn texts_in_windows_cannot_have_more_tokens_than_bodies_have_bytes() {
        let loaded = Loaded { tokens: 512, ..Loaded::default() };
        let windows = ceiling(&["--on-overflow", "window"], loaded);
        assert_eq!(windows.texts, 4_096 * 1_024 + 8 * windows.bodies / 2);
    }
}
