//! What was found, as people read it.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::figures::Figures;
use super::machine::Cores;
use super::setup::{Setup, Tried};
use super::texts::Summary;
use crate::engine::cost::Cost;
use crate::engine::model::Model;
use crate::terminal::escaped;

/// What other processes may take, in cores, before it is said that they disturb.
const BUSY: f64 = 0.1;

/// What is measured, and on what.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: String,
    /// Where it runs.
    pub device: String,
    /// The cores there are.
    pub cores: Cores,
    /// What is asked.
    pub texts: Summary,
    /// What a run costs.
    pub cost: CostModel,
    /// True if several texts may share a run.
    pub shares_runs: bool,
    /// Clients that ask at a time.
    pub clients: usize,
    /// Seconds of one measurement.
    pub seconds: f64,
    /// Time within which 99 of 100 answers shall come.
    pub latency_target_ms: f64,
}

/// A run of n rows of L tokens takes `run_ms` + `token_us`·nL + `token_squared_ns`·nL².
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CostModel {
    /// Milliseconds of any run.
    pub run_ms: f64,
    /// Microseconds of a token, padding or not; of a text, where the graph takes the text itself.
    pub token_us: f64,
    /// Nanoseconds of a token and token of length.
    pub token_squared_ns: f64,
    /// Less padding than this is worth a run saved; nothing if there is no end to it.
    pub free_padding_tokens: f64,
    /// True if the graph takes tokens.
    pub of_tokens: bool,
}

impl CostModel {
    /// What was measured when the model was loaded.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let cost = model.work().cost();
        let Cost { run, token, square } = cost;
        Self {
            run_ms: run * 1e3,
            token_us: token * 1e6,
            token_squared_ns: square * 1e9,
            free_padding_tokens: cost.tokens_per_run(),
            of_tokens: model.pipeline().tokenizer().is_some(),
        }
    }
}

impl Display for CostModel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a run costs {:.3} ms", self.run_ms)?;
        if !self.of_tokens {
            return write!(f, " + {:.2} µs a text", self.token_us);
        }
        write!(f, " + {:.2} µs a token + {:.1} ns a token and token of length", self.token_us, self.token_squared_ns)?;
        if self.free_padding_tokens.is_finite() {
            write!(f, "; padding of less than {:.1} tokens is worth a run saved", self.free_padding_tokens)?;
        }
        Ok(())
    }
}

/// What the engine alone can do.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limit {
    /// Sessions, of one thread each.
    pub sessions: usize,
    /// Most tokens of a run, the best of those that were tried; none where runs have no tokens, or one text each.
    pub max_run_tokens: Option<usize>,
    /// Texts a second, the median of several measurements.
    pub texts_per_second: f64,
    /// The lowest of them.
    pub lowest: f64,
    /// The highest of them.
    pub highest: f64,
    /// Processor seconds for 1,000 texts, the median.
    pub cpu_seconds_per_1000: f64,
    /// Share of the tokens that is padding.
    pub padding: f64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Every set-up, as it did in comparison with the others.
    pub tried: Vec<Tried>,
    /// What the engine alone can do.
    pub limit: Limit,
    /// The best set-up, measured again, each time between two measurements of the limit.
    pub best: Tried,
    /// Texts a second of the best over those of the limit just before and after it, the median.
    pub share: f64,
    /// Processor time of the limit over that of the best, for the same texts.
    pub cpu_share: f64,
    /// What other processes took meanwhile, in cores, if the machine tells.
    pub others_cores: Option<f64>,
    /// True if the best answers within the target.
    pub within_target: bool,
    /// Fewer clients that are answered within the target, if the others are not.
    pub fewer_clients: Option<Fewer>,
    /// The best set-up as options of `predictd serve`.
    pub options: Vec<String>,
}

/// How fewer clients are served.
#[derive(Debug, Clone, Serialize)]
pub struct Fewer {
    /// Clients at a time.
    pub clients: usize,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
}

/// All of it, as JSON has it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was measured.
    #[serde(flatten)]
    pub subject: Subject,
    /// What was found.
    #[serde(flatten)]
    pub found: Found,
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { model, version, device, cores, texts, cost, clients, .. } = self;
        write!(f, "{model}/{version} on {device}, {} usable cores", cores.usable)?;
        if let Some(machine) = cores.machine {
            write!(f, " of {machine}")?;
        }
        if let Some(quota) = cores.quota {
            write!(f, " (the control group allows {quota:.2})")?;
        }
        let unit = if cost.of_tokens { "tokens" } else { "words" };
        let Summary { count, from, tokens_p50, tokens_p90, tokens_most } = texts;
        let from = escaped(from);
        writeln!(
            f,
            "\n{count} texts from {from}: half of at most {tokens_p50} {unit}, nine of ten of at most {tokens_p90}, all of at most {tokens_most}"
        )?;
        write!(f, "{cost}")?;
        if !self.shares_runs {
            write!(f, "; texts do not share runs")?;
        }
        writeln!(f, "\n{clients} clients, 99 of 100 answers within {} ms\n", self.latency_target_ms)?;
        writeln!(
            f,
            "{:>7} {:>7} {:>7} {:>9} {:>8} {:>8} {:>13} {:>8} {:>10}",
            "workers", "threads", "tokens", "texts/s", "p50 ms", "p99 ms", "CPU-s/1,000", "padding", "texts/run"
        )
    }
}

impl Display for Tried {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Setup { workers, run_threads, max_run_tokens } = self.setup;
        let figures = &self.figures;
        let ms = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        write!(
            f,
            "{workers:>7} {run_threads:>7} {max_run_tokens:>7} {:>9.1} {:>8} {:>8} {:>13.3} {:>6.1} % {:>10.1}",
            figures.texts_per_second,
            ms(figures.p50_ms),
            ms(figures.p99_ms),
            figures.cpu_seconds_per_1000,
            1e2 * figures.padding,
            figures.texts_per_run
        )?;
        if figures.unanswered > 0 {
            write!(f, "   {} without an answer", figures.unanswered)?;
        }
        writeln!(f)
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { limit, best, .. } = self;
        let Figures { texts_per_second, p50_ms, p99_ms, cpu_seconds_per_1000, padding, clients_cores, .. } =
            best.figures;
        writeln!(
            f,
            "\nlimit L1: {:.1} texts/s ({:.1} to {:.1}), {:.3} CPU-s/1,000, padding {:.1} %",
            limit.texts_per_second,
            limit.lowest,
            limit.highest,
            limit.cpu_seconds_per_1000,
            1e2 * limit.padding
        )?;
        write!(f, "  the engine alone: {} sessions, texts tokenised and sorted", limit.sessions)?;
        if let Some(tokens) = limit.max_run_tokens {
            write!(f, ", runs of at most {tokens} tokens")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "server: {texts_per_second:.1} texts/s, {cpu_seconds_per_1000:.3} CPU-s/1,000, padding {:.1} %, p50 {:.1} ms, p99 {:.1} ms",
            1e2 * padding,
            p50_ms.unwrap_or(f64::NAN),
            p99_ms.unwrap_or(f64::NAN)
        )?;
        writeln!(
            f,
            "  {:.2} of L1's texts/s, {:.2} by CPU time; over HTTP, in turns with L1",
            self.share, self.cpu_share
        )?;
        writeln!(f, "  its clients are in the same process: their {clients_cores:.2} cores are not in its CPU time")?;
        if let Some(others) = self.others_cores {
            write!(f, "  other programs took {others:.2} cores meanwhile")?;
            if others > BUSY {
                write!(f, ": texts/s and times are of a busy machine, and which is best may be chance")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        if !self.within_target {
            write!(f, "no set-up answers 99 of 100 texts of so many clients within the target")?;
            match &self.fewer_clients {
                Some(Fewer { clients, figures }) => writeln!(
                    f,
                    "; for {clients} it is met: p99 {:.1} ms, {:.1} texts/s",
                    figures.p99_ms.unwrap_or(f64::NAN),
                    figures.texts_per_second
                )?,
                None => writeln!(f, ", and not of fewer either")?,
            }
            writeln!(f, "the one with the lowest p99:")?;
        }
        writeln!(f, "predictd serve {}", self.options.join(" "))
    }
}
