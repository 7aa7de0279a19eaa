//! The file `profile.json` of a model directory, and everything that can be wrong with it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::counts::{CONFIDENCE_BINS, DistributionCounts, LENGTH_BINS, MAX_LABELS, TokenSums};
use super::reference::Reference;

/// The form of the file that this program reads and writes. It includes where bins begin.
pub const FORMAT_VERSION: u32 = 1;

/// Fewest texts of a profile: with fewer, chance hides a drift from every window.
pub const MIN_PROFILE_TEXTS: u64 = 200;

/// Most texts of a profile.
pub const MAX_PROFILE_TEXTS: u64 = 1_000_000_000_000;

/// Most bytes of a label, a name or a date in a profile.
pub const MAX_NAME_BYTES: usize = 4_096;

/// Most bytes of a file that is worth reading.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// How the texts that a model is good for are spread. Counts of texts, not shares: how certain they are is in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`FORMAT_VERSION`].
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

/// Why a profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// It has another form.
    UnsupportedVersion(u32),
    /// It has too few texts to compare anything with, or too many to be true.
    TextCount(u64),
    /// A name is too long; the field.
    NameTooLong(&'static str),
    /// It has no labels, or more than a model can have.
    LabelTotal(usize),
    /// Two counts are of the same label.
    DuplicateLabel(String),
    /// A list of bins has the wrong length.
    BinCount {
        /// The field.
        field: &'static str,
        /// Bins that it has.
        actual: usize,
        /// Bins that it should have.
        expected: usize,
    },
    /// The counts of a field do not add up to the texts.
    SumMismatch {
        /// The field.
        field: &'static str,
        /// What they add up to.
        sum: u64,
        /// The texts.
        texts: u64,
    },
    /// The sums of tokens cannot be those of any texts; what is wrong.
    InvalidTokenSums(&'static str),
    /// More answers are right than there are, or more are known than there are texts.
    InvalidAccuracy(ProfileAccuracy),
    /// The model has a label that the profile lacks.
    MissingLabel(String),
    /// The profile has a label that the model lacks.
    UnknownLabel(String),
}

impl std::error::Error for ProfileError {}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedVersion(found) => write!(f, "version: {found}, where {FORMAT_VERSION} is understood"),
            Self::TextCount(found) => {
                write!(f, "texts: {found}, where {MIN_PROFILE_TEXTS} to {MAX_PROFILE_TEXTS} are possible")
            }
            Self::NameTooLong(field) => write!(f, "{field}: longer than {MAX_NAME_BYTES} bytes"),
            Self::LabelTotal(found) => write!(f, "labels: {found}, where 1 to {MAX_LABELS} are possible"),
            Self::DuplicateLabel(label) => write!(f, "labels: {label:?} is there twice"),
            Self::BinCount { field, actual: found, expected: wanted } => {
                write!(f, "{field}: {found} counts, where there are {wanted} bins")
            }
            Self::SumMismatch { field, sum, texts } => {
                write!(f, "{field}: the counts add up to {sum}, and texts is {texts}")
            }
            Self::InvalidTokenSums(what) => write!(f, "unknown: {what}"),
            Self::InvalidAccuracy(ProfileAccuracy { texts, correct }) => {
                write!(f, "accuracy: {correct} right of {texts}, which is more than there are")
            }
            Self::MissingLabel(label) => write!(f, "labels: {label:?}, which the model has, is missing"),
            Self::UnknownLabel(label) => write!(f, "labels: {label:?} is no label of the model"),
        }
    }
}

impl Profile {
    /// The profile of counted texts; `labels` are the model's, in its order.
    ///
    /// # Errors
    /// [`ProfileError`] if there are too few texts, or if labels or counts do not fit together.
    pub fn new(
        made: ProfileOrigin,
        counts: &DistributionCounts,
        labels: &[String],
        accuracy: Option<ProfileAccuracy>,
    ) -> Result<Self, ProfileError> {
        let (other, known) = counts.labels.split_last().ok_or(ProfileError::LabelTotal(0))?;
        if known.len() != labels.len() {
            return Err(ProfileError::BinCount { field: "labels", actual: known.len(), expected: labels.len() });
        }
        let count = |(label, &texts): (&String, &u64)| LabelCount { label: label.clone(), texts };
        let profile = Self {
            version: FORMAT_VERSION,
            model: made.model,
            model_version: made.version,
            made: made.made_at,
            graph: made.graph,
            texts: counts.texts,
            labels: labels.iter().zip(known).map(count).collect(),
            other: *other,
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
    /// [`ProfileError`] says what is wrong, and where.
    pub fn validate(&self) -> Result<(), ProfileError> {
        if self.version != FORMAT_VERSION {
            return Err(ProfileError::UnsupportedVersion(self.version));
        }
        if !(MIN_PROFILE_TEXTS..=MAX_PROFILE_TEXTS).contains(&self.texts) {
            return Err(ProfileError::TextCount(self.texts));
        }
        let names = [("model", &self.model), ("model_version", &self.model_version), ("made", &self.made)];
        let graph = self.graph.iter().map(|digest| ("graph", digest));
        let labels = self.labels.iter().map(|count| ("labels", &count.label));
        if let Some((field, _)) =
            names.into_iter().chain(graph).chain(labels).find(|(_, name)| name.len() > MAX_NAME_BYTES)
        {
            return Err(ProfileError::NameTooLong(field));
        }
        if self.labels.is_empty() || self.labels.len() > MAX_LABELS {
            return Err(ProfileError::LabelTotal(self.labels.len()));
        }
        let mut seen = HashSet::with_capacity(self.labels.len());
        if let Some(count) = self.labels.iter().find(|count| !seen.insert(count.label.as_str())) {
            return Err(ProfileError::DuplicateLabel(count.label.clone()));
        }
        self.check_sum("labels and other", self.labels.iter().map(|count| count.texts).chain([self.other]))?;
        bins_from_slice::<CONFIDENCE_BINS>("confidence", &self.confidence)?;
        self.check_sum("confidence", self.confidence.iter().copied())?;
        bins_from_slice::<LENGTH_BINS>("lengths", &self.lengths)?;
        self.check_sum("lengths", self.lengths.iter().copied())?;
        if let Some(sums) = &self.unknown {
            check_token_sums(sums, self.texts).map_err(ProfileError::InvalidTokenSums)?;
        }
        match self.accuracy {
            Some(accuracy) if accuracy.correct > accuracy.texts || accuracy.texts > self.texts => {
                Err(ProfileError::InvalidAccuracy(accuracy))
            }
            _ => Ok(()),
        }
    }

    /// What windows of a model with these labels are compared with, if the profile is of the same labels, in any order.
    ///
    /// # Errors
    /// [`ProfileError`] as from [`validate`](Self::validate), or if the labels are not the same.
    pub fn reference(&self, labels: &[String]) -> Result<Reference, ProfileError> {
        self.validate()?;
        let mut given: HashMap<&str, u64> =
            self.labels.iter().map(|count| (count.label.as_str(), count.texts)).collect();
        let mut counts = DistributionCounts::new(labels.len(), false);
        for (slot, label) in counts.labels.iter_mut().zip(labels) {
            *slot = given.remove(label.as_str()).ok_or_else(|| ProfileError::MissingLabel(label.clone()))?;
        }
        if let Some(count) = self.labels.iter().find(|count| given.contains_key(count.label.as_str())) {
            return Err(ProfileError::UnknownLabel(count.label.clone()));
        }
        if let Some(other) = counts.labels.last_mut() {
            *other = self.other;
        }
        counts.confidence = bins_from_slice("confidence", &self.confidence)?;
        counts.lengths = bins_from_slice("lengths", &self.lengths)?;
        (counts.texts, counts.tokens) = (self.texts, self.unknown);
        Ok(Reference::new(counts))
    }

    fn check_sum(&self, field: &'static str, counts: impl Iterator<Item = u64>) -> Result<(), ProfileError> {
        let sum = counts.fold(0, u64::saturating_add);
        if sum == self.texts { Ok(()) } else { Err(ProfileError::SumMismatch { field, sum, texts: self.texts }) }
    }
}

/// A list of counts, if there is one for each bin.
fn bins_from_slice<const BINS: usize>(field: &'static str, counts: &[u64]) -> Result<[u64; BINS], ProfileError> {
    counts.try_into().map_err(|_| ProfileError::BinCount { field, actual: counts.len(), expected: BINS })
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
