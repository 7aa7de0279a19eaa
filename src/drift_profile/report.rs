//! What `predictd profile` prints.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use predictd_drift::counts::{CONFIDENCE_BINS, LENGTH_EDGES};
use predictd_drift::profile::{LabelCount, ProfileAccuracy};
use predictd_drift::window::DEFAULT_WINDOW_TEXTS;
use predictd_drift::{DriftSignal, Profile, Reference};
use predictd_stats::to_f64;
use serde::{Deserialize, Serialize};

use crate::terminal::write_line;

/// Labels that are listed.
const MAX_LISTED_LABELS: usize = 5;
/// Texts from which on a profile sees what it should.
const RECOMMENDED_TEXTS: u64 = 1_000;
/// Share of right answers from which on the texts are likely to be those that the model was trained on.
const SUSPECT_ACCURACY: f64 = 0.99;

/// Texts that were left out.
#[derive(Debug, Clone, Default)]
pub struct SkippedTexts {
    /// Rows that have no text.
    pub without_text: usize,
    /// How many a server refuses.
    pub refused: usize,
    /// The first of them, and why.
    pub first_refusal: Option<String>,
}

impl SkippedTexts {
    pub(super) fn record_refusal(&mut self, why: &str) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(|| why.to_owned());
    }

    /// The first refusal, to be put after a sentence; empty if there is none.
    pub(super) fn first_refusal_clause(&self) -> String {
        self.first_refusal.as_ref().map(|first| format!("; {first}")).unwrap_or_default()
    }
}

/// What is in a profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProfileReport {
    /// The file.
    pub profile: String,
    /// Texts in it.
    pub texts: u64,
    /// Texts that a server refuses, which are not in it.
    pub refused: usize,
    /// Rows of the file that have no text.
    pub without_text: usize,
    /// Labels of the model, and those of them that were answered.
    pub labels: [usize; 2],
    /// The most frequent ones.
    pub most_frequent: Vec<LabelCount>,
    /// Half of the answers are surer than this, and nine of ten, to a twentieth.
    pub confidence: [f64; 2],
    /// Half of the texts have at least so many tokens, and one of ten, as far as bins tell.
    pub lengths: [usize; 2],
    /// Share of the tokens that the tokenizer does not know; none for a model without one.
    pub unknown: Option<f64>,
    /// Texts that a window needs, by signal.
    pub needed: Vec<WindowRequirement>,
    /// How often the answers were right, if the file has labels.
    pub accuracy: Option<ProfileAccuracy>,
    /// What may be wrong with it.
    pub warnings: Vec<String>,
}

/// Texts that a window needs to be judged by a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRequirement {
    /// The signal.
    pub signal: String,
    /// How many; none if no window is judged by it.
    pub texts: Option<u64>,
}

impl ProfileReport {
    pub(super) fn new(profile: &Profile, reference: &Reference, path: &Path, skipped: &SkippedTexts) -> Self {
        let mut most_frequent: Vec<LabelCount> = profile.labels.iter().filter(|one| one.texts > 0).cloned().collect();
        most_frequent.sort_by(|a, b| b.texts.cmp(&a.texts).then_with(|| a.label.cmp(&b.label)));
        let labels = [profile.labels.len(), most_frequent.len()];
        most_frequent.truncate(MAX_LISTED_LABELS);
        let confidence = [5, 9].map(|tenths| top_bin(&profile.confidence, tenths) as u64);
        let needed = DriftSignal::ALL
            .map(|signal| WindowRequirement {
                signal: signal.name().to_owned(),
                texts: reference.min_window_texts(signal),
            })
            .to_vec();
        Self {
            profile: path.display().to_string(),
            texts: profile.texts,
            refused: skipped.refused,
            without_text: skipped.without_text,
            labels,
            most_frequent,
            confidence: confidence.map(|bin| to_f64(bin) / to_f64(CONFIDENCE_BINS as u64)),
            lengths: [5, 1]
                .map(|tenths| LENGTH_EDGES.get(top_bin(&profile.lengths, tenths)).copied().unwrap_or_default()),
            unknown: profile
                .unknown
                .filter(|sums| sums.tokens > 0)
                .map(|sums| to_f64(sums.unknown) / to_f64(sums.tokens)),
            warnings: collect_warnings(profile, &needed, skipped),
            needed,
            accuracy: profile.accuracy,
        }
    }
}

fn collect_warnings(profile: &Profile, needed: &[WindowRequirement], skipped: &SkippedTexts) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(ProfileAccuracy { texts, correct }) = profile.accuracy
        && to_f64(correct) >= SUSPECT_ACCURACY * to_f64(texts)
    {
        found.push(format!(
            "{correct} of {texts} answers are right, as with texts that the model was trained on: it is surer of those than of any others, and every live window would seem to drift"
        ));
    }
    if profile.texts < RECOMMENDED_TEXTS {
        found.push(format!(
            "{} texts are few: with 1,000, and 20 for each label, smaller drifts are seen",
            profile.texts
        ));
    }
    for WindowRequirement { signal, texts } in needed {
        if let Some(texts) = texts.filter(|&texts| texts > DEFAULT_WINDOW_TEXTS) {
            found.push(format!(
                "a window needs {texts} texts to be judged by {signal}: start the server with --drift-window {texts}, or make a larger profile"
            ));
        }
    }
    if skipped.refused > 0 {
        let first = skipped.first_refusal_clause();
        found.push(format!("{} texts are refused, and not in the profile{first}", skipped.refused));
    }
    found
}

/// The last bin that so many tenths of the texts are in or above.
fn top_bin(counts: &[u64], tenths: u64) -> usize {
    let all: u64 = counts.iter().sum();
    let mut above = 0;
    for (bin, count) in counts.iter().enumerate().rev() {
        above += count;
        if above.saturating_mul(10) >= all.saturating_mul(tenths) {
            return bin;
        }
    }
    0
}

impl Display for ProfileReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { profile, texts, refused, without_text: without, labels: [labels, answered], .. } = self;
        write_line(f, format_args!("{profile}"))?;
        let without = if *without > 0 { format!(", {without} rows without a text") } else { String::new() };
        write_line(f, format_args!("texts       {texts}; {refused} refused{without}"))?;
        let frequent = self.most_frequent.iter();
        let listed: Vec<String> = frequent
            .map(|label| format!("{} {:.1} %", label.label, 100.0 * to_f64(label.texts) / to_f64(*texts)))
            .collect();
        let more = if *answered > listed.len() { ", …" } else { "" };
        write_line(f, format_args!("labels      {answered} of {labels}: {}{more}", listed.join(", ")))?;
        let [half, most] = self.confidence;
        let [middle, long] = self.lengths;
        write_line(f, format_args!("confidence  half of the answers {half:.2} or surer, nine of ten {most:.2}"))?;
        write_line(f, format_args!("lengths     half of the texts {middle} tokens or longer, one of ten {long}"))?;
        if let Some(unknown) = self.unknown {
            write_line(f, format_args!("unknown     {:.2} % of the tokens", 100.0 * unknown))?;
        }
        if let Some(ProfileAccuracy { texts, correct }) = self.accuracy {
            write_line(
                f,
                format_args!("accuracy    {:.2} %, {correct} of {texts}", 100.0 * to_f64(correct) / to_f64(texts)),
            )?;
        }
        let needed = |needed: &WindowRequirement| needed.texts.map(|texts| format!("{texts} for {}", needed.signal));
        let needed: Vec<String> = self.needed.iter().filter_map(needed).collect();
        write_line(f, format_args!("windows     need texts: {}", needed.join(", ")))?;
        self.warnings.iter().try_for_each(|warning| write_line(f, format_args!("warning: {warning}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_bin_given_tenths_counts_from_above() {
        let counts = [1, 0, 4, 5];
        assert_eq!([1, 5, 6, 9, 10].map(|tenths| top_bin(&counts, tenths)), [3, 3, 2, 2, 0]);
        assert_eq!((top_bin(&[0, 0], 5), top_bin(&[], 5)), (1, 0));
    }
}
