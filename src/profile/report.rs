//! What `predictd profile` prints.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::Serialize;

use crate::drift::counts::{CONFIDENCE_BINS, LENGTH_EDGES};
use crate::drift::profile::{Accuracy, LabelCount};
use crate::drift::window::WINDOW_TEXTS;
use crate::drift::{Profile, Reference, Signal, real};
use crate::terminal::line;

/// Labels that are listed.
const LISTED: usize = 5;
/// Texts from which on a profile sees what it should.
const GOOD: u64 = 1_000;
/// Share of right answers from which on the texts are likely to be those that the model was trained on.
const TOO_GOOD: f64 = 0.99;

/// Texts that were left out.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Rows that have no text.
    pub without: usize,
    /// How many a server refuses.
    pub refused: usize,
    /// The first of them, and why.
    pub first: Option<String>,
}

impl Left {
    pub(super) fn refused(&mut self, why: &str) {
        self.refused += 1;
        self.first.get_or_insert_with(|| why.to_owned());
    }
}

/// What is in a profile.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file.
    pub profile: String,
    /// Texts in it.
    pub texts: u64,
    /// Texts that a server refuses, which are not in it.
    pub refused: usize,
    /// Rows of the file that have no text.
    pub without: usize,
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
    pub needed: Vec<Needed>,
    /// How often the answers were right, if the file has labels.
    pub accuracy: Option<Accuracy>,
    /// What may be wrong with it.
    pub warnings: Vec<String>,
}

/// Texts that a window needs to be judged by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// The signal.
    pub signal: &'static str,
    /// How many; none if no window is judged by it.
    pub texts: Option<u64>,
}

impl Report {
    pub(super) fn of(profile: &Profile, reference: &Reference, path: &Path, left: Left) -> Self {
        let mut most_frequent: Vec<LabelCount> = profile.labels.iter().filter(|one| one.texts > 0).cloned().collect();
        most_frequent.sort_by(|a, b| b.texts.cmp(&a.texts).then_with(|| a.label.cmp(&b.label)));
        let labels = [profile.labels.len(), most_frequent.len()];
        most_frequent.truncate(LISTED);
        let bin = |tenths: u64| real(bin_above(&profile.confidence, tenths) as u64) / real(CONFIDENCE_BINS as u64);
        let edge = |tenths: u64| LENGTH_EDGES.get(bin_above(&profile.lengths, tenths)).copied().unwrap_or_default();
        let needed =
            Signal::ALL.map(|signal| Needed { signal: signal.name(), texts: reference.needed(signal) }).to_vec();
        let unknown = profile.unknown.filter(|sums| sums.tokens > 0);
        Self {
            profile: path.display().to_string(),
            texts: profile.texts,
            refused: left.refused,
            without: left.without,
            labels,
            most_frequent,
            confidence: [bin(5), bin(9)],
            lengths: [edge(5), edge(1)],
            unknown: unknown.map(|sums| real(sums.unknown) / real(sums.tokens)),
            warnings: warnings(profile, &needed, left),
            needed,
            accuracy: profile.accuracy,
        }
    }
}

fn warnings(profile: &Profile, needed: &[Needed], left: Left) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(Accuracy { texts, correct }) = profile.accuracy
        && real(correct) >= TOO_GOOD * real(texts)
    {
        found.push(format!(
            "{correct} of {texts} answers are right, as with texts that the model was trained on: it is surer of those than of any others, and every live window would seem to drift"
        ));
    }
    if profile.texts < GOOD {
        found.push(format!(
            "{} texts are few: with 1,000, and 20 for each label, smaller drifts are seen",
            profile.texts
        ));
    }
    for Needed { signal, texts } in needed {
        match texts {
            Some(texts) if *texts > WINDOW_TEXTS => found.push(format!(
                "a window needs {texts} texts to be judged by {signal}: start the server with --drift-window {texts}, or make a larger profile"
            )),
            _ => {}
        }
    }
    if left.refused > 0 {
        let first = left.first.map(|first| format!("; {first}")).unwrap_or_default();
        found.push(format!("{} texts are refused, and not in the profile{first}", left.refused));
    }
    found
}

/// The last bin that so many tenths of the texts are in or above.
fn bin_above(counts: &[u64], tenths: u64) -> usize {
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

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { profile, texts, refused, without, labels: [labels, answered], .. } = self;
        line(f, format_args!("{profile}"))?;
        let without = if *without > 0 { format!(", {without} rows without a text") } else { String::new() };
        line(f, format_args!("texts       {texts}; {refused} refused{without}"))?;
        let share = |count: &u64| format!("{:.1} %", 100.0 * real(*count) / real(*texts));
        let listed: Vec<String> =
            self.most_frequent.iter().map(|one| format!("{} {}", one.label, share(&one.texts))).collect();
        let more = if *answered > listed.len() { ", …" } else { "" };
        line(f, format_args!("labels      {answered} of {labels}: {}{more}", listed.join(", ")))?;
        let ([half, most], [middle, long]) = (self.confidence, self.lengths);
        line(f, format_args!("confidence  half of the answers {half:.2} or surer, nine of ten {most:.2}"))?;
        line(f, format_args!("lengths     half of the texts {middle} tokens or longer, one of ten {long}"))?;
        if let Some(unknown) = self.unknown {
            line(f, format_args!("unknown     {:.2} % of the tokens", 100.0 * unknown))?;
        }
        if let Some(Accuracy { texts, correct }) = self.accuracy {
            line(f, format_args!("accuracy    {:.2} %, {correct} of {texts}", 100.0 * real(correct) / real(texts)))?;
        }
        let needed = |needed: &Needed| needed.texts.map(|texts| format!("{texts} for {}", needed.signal));
        let needed: Vec<String> = self.needed.iter().filter_map(needed).collect();
        line(f, format_args!("windows     need texts: {}", needed.join(", ")))?;
        self.warnings.iter().try_for_each(|warning| line(f, format_args!("warning: {warning}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_read_from_above() {
        let counts = [1, 0, 4, 5];
        assert_eq!([1, 5, 6, 9, 10].map(|tenths| bin_above(&counts, tenths)), [3, 3, 2, 2, 0]);
        assert_eq!((bin_above(&[0, 0], 5), bin_above(&[], 5)), (1, 0));
    }
}
