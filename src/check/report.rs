//! What `predictd check` prints.

use std::fmt::{self, Display, Formatter};

use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};
use serde::{Deserialize, Serialize};

use super::accuracy::AccuracyReport;
use super::answers::{EvalSummary, ModelAnswer, UnansweredText};
use super::batch_invariance::InvarianceReport;
use super::loaded_model::MemoryUse;
use super::model_info::{ModelInfo, ProfileInfo, TokenLimits};
use super::version_comparison::VersionComparison;
use crate::bench::report::CostCoefficients;
use crate::terminal::{escape, write_line};

/// Most labels in the text report; the JSON report has all.
const MAX_SHOWN_LABELS: usize = 5;
/// Most texts of a kind in the text report; the JSON report has more.
const MAX_SHOWN_TEXTS: usize = 10;

/// All of it, as `--json` has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// The directory, as it was typed.
    pub directory: String,
    /// True if nothing failed.
    pub ok: bool,
    /// Why the model may not serve: one sentence each.
    pub failures: Vec<String>,
    /// What keeps no model from serving, but what its author wants to know: one sentence each.
    pub warnings: Vec<String>,
    /// What was found of a model that loads; its fields are left out where none does.
    #[serde(flatten)]
    pub results: Option<CheckResults>,
}

/// What was found of a model that loads.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckResults {
    /// What it is.
    pub model: ModelInfo,
    /// What its runs cost here.
    pub cost: CostCoefficients,
    /// The memory that it takes.
    pub memory: MemoryUse,
    /// The texts that it was asked.
    pub texts: EvalSummary,
    /// Whether its answers depend on the texts that share a run.
    pub invariance: InvarianceReport,
    /// How its answers compare with those that `--against` expects.
    pub against: Option<AccuracyReport>,
    /// How the version of `--compare` answers.
    pub compare: Option<VersionComparison>,
}

impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { directory, ok, failures, warnings, results: found } = self;
        match found {
            // Its lines are escaped one by one.
            Some(found) => write!(f, "{}: {found}", escape(directory))?,
            None => write_line(f, format_args!("{directory}"))?,
        }
        for warning in warnings {
            write_line(f, format_args!("warning: {warning}"))?;
        }
        for failure in failures {
            write_line(f, format_args!("failed: {failure}"))?;
        }
        writeln!(f, "{}", if *ok { "ok" } else { "not ok" })
    }
}

impl Display for CheckResults {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { model, cost, memory, texts, invariance, against, compare } = self;
        writeln!(f, "{model}")?;
        write_line(f, format_args!("cost        {cost}"))?;
        write_line(f, format_args!("memory      {memory}"))?;
        write_line(f, format_args!("texts       {texts}"))?;
        write_line(f, format_args!("batches     {invariance}"))?;
        let unit = texts.unit;
        for change in invariance.first_changed.iter().take(MAX_SHOWN_TEXTS) {
            let number = change.number;
            write_line(f, format_args!("  {unit} {number}: {} alone, {} among others", change.alone, change.together))?;
        }
        if let Some(against) = against {
            write_line(f, format_args!("against     {against}"))?;
            for difference in against.first_differences.iter().take(MAX_SHOWN_TEXTS) {
                // A wrong score is in the reason.
                let score = match &difference.given {
                    Some(ModelAnswer { labels, score: Some(score) }) if *labels != difference.expected => {
                        format!(" ({score:.4})")
                    }
                    _ => String::new(),
                };
                write_line(f, format_args!("  {unit} {}: {}{score}", difference.number, difference.reason))?;
            }
        }
        if let Some(compare) = compare {
            write_line(f, format_args!("compared    {compare}"))?;
            for flip in compare.first_flips.iter().take(MAX_SHOWN_TEXTS) {
                let [here, there] = [&flip.this, &flip.other]
                    .map(|answer| answer.as_ref().map_or_else(|| "no answer".to_owned(), ModelAnswer::to_string));
                write_line(f, format_args!("  {unit} {}: {here} here, {there} there", flip.number))?;
            }
        }
        Ok(())
    }
}

impl Display for ModelInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digests = self.files.iter().filter(|file| file.digest).count();
        write_line(f, format_args!("{} on {}, head {}", self.task, self.device, self.head))?;
        if let Some(description) = &self.description {
            write_line(f, format_args!("about       {description}"))?;
        }
        let graph = format_bytes(self.graph_bytes);
        let files = self.files.len() + self.more_files;
        write_line(
            f,
            format_args!("files       {files}, {digests} with a SHA-256 that is theirs; the graph has {graph}"),
        )?;
        for input in &self.inputs {
            write_line(f, format_args!("input       {input}"))?;
        }
        for output in &self.outputs {
            write_line(f, format_args!("output      {output}"))?;
        }
        let applied =
            self.graph_activation.as_ref().map(|activation| format!("; the graph applies {activation} itself"));
        writeln!(f, "scores      output {:?}{}", self.output, applied.unwrap_or_default())?;
        if let Some(tokens) = &self.tokens {
            write_line(f, format_args!("tokens      {tokens}"))?;
        }
        let markup = match self.markup {
            MarkupPolicy::Allow => "taken as it is",
            MarkupPolicy::Strip => "removed",
            MarkupPolicy::Reject => "refused if it is active",
        };
        write_line(f, format_args!("markup      {markup}"))?;
        if !self.labels.is_empty() {
            let shown = format_labels(&self.labels);
            let more = if self.labels.len() > MAX_SHOWN_LABELS { ", …" } else { "" };
            write_line(f, format_args!("labels      {}: {shown}{more}", self.labels.len()))?;
        }
        match self.golden_examples {
            0 => write_line(f, format_args!("golden.json none"))?,
            examples => write_line(f, format_args!("golden.json {examples} examples, all reproduced"))?,
        }
        if let Some(ProfileInfo { texts, made, accuracy }) = &self.profile {
            let right =
                accuracy.map(|share| format!("; {:.2} % were answered right", 100.0 * share)).unwrap_or_default();
            write_line(f, format_args!("profile     {texts} texts, made {made}{right}"))?;
        }
        match &self.unbatchable_reason {
            Some(reason) => write!(f, "runs        one text each: {}", escape(reason)),
            None => write!(f, "runs        shared by texts"),
        }
    }
}

impl Display for TokenLimits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named = if self.max_tokens_named { "" } else { " (a default)" };
        let end = &self.truncation_side;
        let padding = &self.padding_side;
        write!(f, "at most {}{named}; longer texts are ", self.max_tokens)?;
        match self.on_overflow {
            OverflowPolicy::Error => write!(f, "refused")?,
            OverflowPolicy::Truncate => write!(f, "cut off on the {end}")?,
            OverflowPolicy::Window => write!(f, "read in windows")?,
        }
        write!(f, "; padding on the {padding}")
    }
}

impl Display for MemoryUse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [model, run, most] = [self.model_bytes, self.largest_run_bytes, self.server_most_bytes]
            .map(|bytes| bytes.map_or_else(|| "unknown".to_owned(), format_bytes));
        write!(f, "model {model}, largest run {run}; a server of it at most {most}")?;
        self.allowed_bytes.map_or(Ok(()), |bytes| write!(f, " of {} allowed", format_bytes(bytes)))
    }
}

impl Display for EvalSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { count, from, truncated, refused, failed, without_text: without, .. } = self;
        write!(f, "{count} from {from}: {truncated} cut off, {refused} refused, {failed} failed")?;
        if *without > 0 { write!(f, "; {without} rows without a text") } else { Ok(()) }
    }
}

impl Display for InvarianceReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.failed {
            return write!(f, "the graph cannot run several texts at once: {reason}");
        }
        let Self { texts, most_texts, changed, largest_score_difference, .. } = self;
        write!(f, "{texts} texts alone and in runs of up to {most_texts}: {changed} labels differ, ")?;
        write!(f, "scores by at most {}", format_difference((*largest_score_difference).into()))
    }
}

impl Display for AccuracyReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let (Some(right), Some(accuracy)) = (self.right, self.accuracy) {
            write!(f, "{right} of {} right: {:.2} %", self.texts, 100.0 * accuracy)?;
        }
        if let Some(reproduced) = self.reproduced {
            write!(f, "; {reproduced} reproduced, scores included")?;
        }
        if self.right.is_none() {
            write!(f, "{} of {} answered", self.texts - self.unanswered, self.texts)?;
        }
        if let (Some(mean), Some(largest)) = (self.mean_absolute_error, self.largest_error) {
            write!(f, "; numbers differ by {mean:.4} in the mean, by {largest:.4} at most")?;
        }
        Ok(())
    }
}

impl Display for VersionComparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { directory, flips, texts, .. } = self;
        write!(f, "with {directory}: {flips} of {texts} answers differ ({:.2} %), ", 100.0 * self.flip_share)?;
        let mean = format_difference(self.mean_score_difference);
        let most = format_difference(self.largest_score_difference);
        write!(f, "scores by {mean} in the mean, by {most} at most; ")?;
        write!(f, "{:.2} of its time, {:.2} of its size", self.time_ratio, self.size_ratio)?;
        if let Some(accuracy) = self.accuracy {
            write!(f, "; it has {:.2} % right", 100.0 * accuracy)?;
        }
        for (labels, place) in [(&self.labels_here_only, "here"), (&self.labels_there_only, "there")] {
            if !labels.is_empty() {
                write!(f, "; {} labels only {place}: {}", labels.len(), format_labels(labels))?;
            }
        }
        Ok(())
    }
}

impl Display for UnansweredText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number, self.reason)
    }
}

/// The first labels, for people.
fn format_labels(labels: &[String]) -> String {
    labels.get(..MAX_SHOWN_LABELS).unwrap_or(labels).join(", ")
}

/// A difference for people.
fn format_difference(difference: f64) -> String {
    if difference == 0.0 { "0".to_owned() } else { format!("{difference:.1e}") }
}

/// Bytes for people.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is printed")]
fn format_bytes(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 1e6 => format!("{:.1} kB", few / 1e3),
        bytes => format!("{:.1} MB", bytes / 1e6),
    }
}
