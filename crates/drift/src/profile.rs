//! The file `profile.json` of a model directory, and everything that can be wrong with it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::counts::{CONFIDENCE_BINS, DistributionCounts, LENGTH_BINS, MAX_LABELS, TokenSums};
use super::reference::Reference;

/// The form of the file that this program reads and writes. It includes where bins begin.
const FORMAT_VERSION: u32 = 1;

/// Fewest texts of a profile: with fewer, chance hides a drift from every window.
pub const MIN_PROFILE_TEXTS: u64 = 200;

/// Most texts of a profile.
const MAX_PROFILE_TEXTS: u64 = 1_000_000_000_000;

/// Most bytes of a label, a name or a date in a profile.
const MAX_NAME_BYTES: usize = 4_096;

/// Most bytes of a file that is worth reading.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// How the texts that a model is good for are spread. Counts of texts, not shares: how certain they are is in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `FORMAT_VERSION`.
    pub version: u32,
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// When, as the maker wrote it.
    pub made: String,
    /// SHA-256 of the file of its graph, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// Texts counted.
    pub texts: u64,
    /// Texts by label.
    pub labels: Vec<LabelCount>,
    /// Texts with none of the labels.
    pub other: u64,
    /// Texts by confidence, in bins of a twentieth.
    pub confidence: Vec<u64>,
    /// Texts by tokens, in the bins of [`LENGTH_EDGES`](super::counts::LENGTH_EDGES).
    pub lengths: Vec<u64>,
    /// Tokens that the tokenizer does not know; none for a model without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<TokenSums>,
    /// How often the answers were right, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<ProfileAccuracy>,
}

/// Texts with this label as the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelCount {
    /// The label's name.
    pub label: String,
    /// How many.
    pub texts: u64,
}

/// How often the answers were right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileAccuracy {
    /// Texts whose right answer was known.
    pub texts: u64,
    /// Those of them that were answered right.
    pub correct: u64,
}

/// Of which model a profile is, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileOrigin {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: String,
    /// When, in words that the reader of the file shall see.
    pub made_at: String,
    /// SHA-256 of the file of its graph, in hexadecimal.
    pub graph: Option<String>,
}

impl Profile {
    /// The profile of counted texts; `labels` are the model's, in its order.
    ///
    /// # Errors
    /// One sentence that names the field, if there are too few texts, or if labels or counts do not fit together.
    pub fn new(
        made: ProfileOrigin,
        counts: &DistributionCounts,
        labels: &[String],
        accuracy: Option<ProfileAccuracy>,
    ) -> Result<Self, String> {
        let label_count = counts.labels.len() - 1;
        if label_count != labels.len() {
            return Err(bin_count_error("labels", label_count, labels.len()));
        }
        let count = |(label, &texts): (&String, &u64)| LabelCount { label: label.clone(), texts };
        let profile = Self {
            version: FORMAT_VERSION,
            model: made.model,
            model_version: made.version,
            made: made.made_at,
            graph: made.graph,
            texts: counts.texts,
            labels: labels.iter().zip(&counts.labels).map(count).collect(),
            other: counts.labels.last().copied().unwrap_or_default(),
            confidence: counts.confidence.to_vec(),
            lengths: counts.lengths.to_vec(),
            unknown: counts.tokens,
            accuracy,
        };
        profile.validate()?;
        Ok(profile)
    }

    /// Checks everything that does not need the model.
    ///
    /// # Errors
    /// One sentence: what is wrong, and in which field.
    pub fn validate(&self) -> Result<(), String> {
        let Self { version, texts, .. } = *self;
        if version != FORMAT_VERSION {
            return Err(format!("version: {version}, where {FORMAT_VERSION} is understood"));
        }
        if !(MIN_PROFILE_TEXTS..=MAX_PROFILE_TEXTS).contains(&texts) {
            return Err(format!("texts: {texts}, where {MIN_PROFILE_TEXTS} to {MAX_PROFILE_TEXTS} are possible"));
        }
        let names = [("model", &self.model), ("model_version", &self.model_version), ("made", &self.made)];
        let graph = self.graph.iter().map(|digest| ("graph", digest));
        let labels = self.labels.iter().map(|count| ("labels", &count.label));
        if let Some((field, _)) =
            names.into_iter().chain(graph).chain(labels).find(|(_, name)| name.len() > MAX_NAME_BYTES)
        {
            return Err(format!("{field}: longer than {MAX_NAME_BYTES} bytes"));
        }
        if !(1..=MAX_LABELS).contains(&self.labels.len()) {
            return Err(format!("labels: {}, where 1 to {MAX_LABELS} are possible", self.labels.len()));
        }
        let mut seen = HashSet::with_capacity(self.labels.len());
        if let Some(count) = self.labels.iter().find(|count| !seen.insert(&count.label)) {
            return Err(format!("labels: {:?} is there twice", count.label));
        }
        self.check_sum("labels and other", self.labels.iter().map(|count| count.texts).chain([self.other]))?;
        self.check_sum("confidence", bins_from_slice::<CONFIDENCE_BINS>("confidence", &self.confidence)?)?;
        self.check_sum("lengths", bins_from_slice::<LENGTH_BINS>("lengths", &self.lengths)?)?;
        if let Some(sums) = &self.unknown {
            check_token_sums(sums, texts).map_err(|wrong| format!("unknown: {wrong}"))?;
        }
        match self.accuracy {
            Some(ProfileAccuracy { texts: known, correct }) if correct > known || known > texts => {
                Err(format!("accuracy: {correct} right of {known}, which is more than there are"))
            }
            _ => Ok(()),
        }
    }

    /// What windows of a model with these labels are compared with, if the profile is of the same labels, in any order.
    ///
    /// # Errors
    /// As from [`validate`](Self::validate), or one sentence: which label is not the same.
    pub fn reference(&self, labels: &[String]) -> Result<Reference, String> {
        self.validate()?;
        let mut given: HashMap<&str, u64> =
            self.labels.iter().map(|count| (count.label.as_str(), count.texts)).collect();
        let counts = labels.iter().map(|label| {
            let count = given.remove(label.as_str());
            count.ok_or_else(|| format!("labels: {label:?}, which the model has, is missing"))
        });
        let counts = counts.chain([Ok(self.other)]).collect::<Result<_, _>>()?;
        if let Some(LabelCount { label, .. }) = self.labels.iter().find(|count| given.contains_key(&*count.label)) {
            return Err(format!("labels: {label:?} is no label of the model"));
        }
        Ok(Reference::new(DistributionCounts {
            texts: self.texts,
            labels: counts,
            confidence: bins_from_slice("confidence", &self.confidence)?,
            lengths: bins_from_slice("lengths", &self.lengths)?,
            tokens: self.unknown,
        }))
    }

    fn check_sum(&self, field: &str, counts: impl IntoIterator<Item = u64>) -> Result<(), String> {
        let sum = counts.into_iter().fold(0, u64::saturating_add);
        if sum == self.texts {
            return Ok(());
        }
        Err(format!("{field}: the counts add up to {sum}, and texts is {}", self.texts))
    }
}

fn bin_count_error(field: &str, found: usize, expected: usize) -> String {
    format!("{field}: {found} counts, where there are {expected} bins")
}

/// A list of counts, if there is one for each bin.
fn bins_from_slice<const BINS: usize>(field: &str, counts: &[u64]) -> Result<[u64; BINS], String> {
    counts.try_into().map_err(|_| bin_count_error(field, counts.len(), BINS))
}

/// What holds for the sums of any texts with no more unknown tokens than tokens each.
fn check_token_sums(sums: &TokenSums, texts: u64) -> Result<(), &'static str> {
    let wide = u128::from;
    if sums.unknown > sums.tokens {
        return Err("more tokens are unknown than there are");
    }
    if sums.unknown_squared > sums.tokens_by_unknown || sums.tokens_by_unknown > sums.tokens_squared {
        return Err("unknown_squared is at most tokens_by_unknown, and that at most tokens_squared");
    }
    // Whole numbers are no larger than their squares, and by Cauchy and Schwarz a sum's square is bounded as well.
    for (sum, squares) in [(sums.tokens, sums.tokens_squared), (sums.unknown, sums.unknown_squared)] {
        if sum > squares || wide(sum) * wide(sum) > wide(squares) * wide(texts) {
            return Err("the squares are too small for the sums");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
