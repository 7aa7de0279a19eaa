//! What was found, as people read it.

use std::fmt::{self, Display, Formatter};

use predictd_engine::cost_model::CostModel;
use predictd_engine::loaded_version::LoadedVersion;
use serde::{Deserialize, Serialize};

use super::machine::Cores;
use super::measurement::Measurement;
use super::setup_selection::{Setup, Trial};
use super::texts::BenchTextsSummary;
use crate::terminal::escape;

/// What other processes may take, in cores, before it is said that they disturb.
const BUSY_CORES: f64 = 0.1;

/// What is measured, and on what.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchSubject {
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: String,
    /// Where it runs.
    pub device: String,
    /// The cores there are.
    pub cores: Cores,
    /// What is asked.
    pub texts: BenchTextsSummary,
    /// What a run costs.
    pub cost: CostCoefficients,
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
#[derive(Debug, Serialize, Deserialize)]
pub struct CostCoefficients {
    /// Milliseconds of any run.
    pub run_ms: f64,
    /// Microseconds of a token, padding or not; of a text, where the graph takes the text itself.
    pub token_us: f64,
    /// Nanoseconds of a token and token of length.
    pub token_squared_ns: f64,
    /// Less padding than this is worth a run saved; none if there is no end to it.
    pub free_padding_tokens: Option<f64>,
    /// True if the graph takes tokens.
    pub of_tokens: bool,
}

impl CostCoefficients {
    /// What was measured when the model was loaded.
    #[must_use]
    pub fn from_model(model: &LoadedVersion) -> Self {
        let cost = model.runner.model_load.cost_model();
        let CostModel { overhead: run, per_token: token, per_token_squared: square } = cost;
        Self {
            run_ms: run * 1e3,
            token_us: token * 1e6,
            token_squared_ns: square * 1e9,
            free_padding_tokens: Some(cost.overhead_tokens()).filter(|tokens| tokens.is_finite()),
            of_tokens: model.pipeline().tokenizer().is_some(),
        }
    }
}

impl Display for CostCoefficients {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a run costs {:.3} ms", self.run_ms)?;
        if !self.of_tokens {
            return write!(f, " + {:.2} µs a text", self.token_us);
        }
        write!(f, " + {:.2} µs a token + {:.1} ns a token and token of length", self.token_us, self.token_squared_ns)?;
        if let Some(tokens) = self.free_padding_tokens {
            write!(f, "; padding of less than {tokens:.1} tokens is worth a run saved")?;
        }
        Ok(())
    }
}

/// What the engine alone can do.
#[derive(Debug, Serialize, Deserialize)]
pub struct EngineLimit {
    /// Sessions, of one thread each.
    pub sessions: usize,
    /// Most tokens of a run, the best of those that were tried; none where runs have no tokens, or one text each.
    pub max_batch_tokens: Option<usize>,
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
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchResults {
    /// Every set-up, as it did in comparison with the others.
    pub tried: Vec<Trial>,
    /// What the engine alone can do.
    pub limit: EngineLimit,
    /// The best set-up, measured again, each time between two measurements of the limit.
    pub best: Trial,
    /// Texts a second of the best over those of the limit just before and after it, the median.
    pub share: f64,
    /// Processor time of the limit over that of the best, for the same texts.
    pub cpu_share: f64,
    /// What other processes took meanwhile, in cores, if it is known.
    pub others_cores: Option<f64>,
    /// True if the best answers within the target.
    pub within_target: bool,
    /// Fewer clients that are answered within the target, if the others are not.
    pub fewer_clients: Option<ReducedLoad>,
    /// The best set-up as options of `predictd serve`.
    pub options: Vec<String>,
}

/// How fewer clients are served.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReducedLoad {
    /// Clients at a time.
    pub clients: usize,
    /// What was measured.
    #[serde(flatten)]
    pub measurement: Measurement,
}

/// All of it, as JSON has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchReport {
    /// What was measured.
    #[serde(flatten)]
    pub subject: BenchSubject,
    /// What was found.
    #[serde(flatten)]
    pub results: BenchResults,
}

impl Display for BenchSubject {
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
        let BenchTextsSummary { count, from, tokens_p50, tokens_p90, tokens_most } = texts;
        let from = escape(from);
        writeln!(
            f,
            "\n{count} texts from {from}: half of at most {tokens_p50} {unit}, nine of ten of at most {tokens_p90}, all of at most {tokens_most}"
        )?;
        write!(f, "{cost}")?;
        if !self.shares_runs {
            write!(f, "; texts do not share runs")?;
        }
        writeln!(f, "\n{clients} clients, 99 of 100 answers within {} ms\n", self.latency_target_ms)?;
        writeln!(f, "workers threads  tokens   texts/s   p50 ms   p99 ms   CPU-s/1,000  padding  texts/run")
    }
}

impl Display for Trial {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Setup { workers, intra_op_threads, max_batch_tokens } = self.setup;
        let figures = &self.measurement;
        let [p50, p99] = [figures.p50_ms, figures.p99_ms]
            .map(|time| time.map_or_else(|| "-".to_owned(), |milliseconds| format!("{milliseconds:.1}")));
        write!(
            f,
            "{workers:>7} {intra_op_threads:>7} {max_batch_tokens:>7} {:>9.1} {p50:>8} {p99:>8} {:>13.3} {:>6.1} % {:>10.1}",
            figures.texts_per_second,
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

impl Display for BenchResults {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { limit, best, .. } = self;
        let Measurement { texts_per_second, p50_ms, p99_ms, cpu_seconds_per_1000, padding, clients_cores, .. } =
            best.measurement;
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
        if let Some(tokens) = limit.max_batch_tokens {
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
            if others > BUSY_CORES {
                write!(f, ": texts/s and times are of a busy machine, and which is best may be chance")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        if !self.within_target {
            write!(f, "no set-up answers 99 of 100 texts of so many clients within the target")?;
            match &self.fewer_clients {
                Some(ReducedLoad { clients, measurement: figures }) => writeln!(
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
