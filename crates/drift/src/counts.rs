//! What a window or a reference holds: counts that take the same memory for ten texts and ten million.

use serde::{Deserialize, Serialize};

/// Bins of confidence, each a twentieth wide.
pub const CONFIDENCE_BINS: usize = 20;

/// Fewest tokens of a text in each bin of lengths: two bins each time the length doubles.
///
/// The last one begins where most encoders cut texts off.
pub const LENGTH_EDGES: [usize; LENGTH_BINS] = [0, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512];

/// Bins of lengths.
pub const LENGTH_BINS: usize = 16;

/// Most labels that are counted, as many as a model may have.
pub const MAX_LABELS: usize = 100_000;

/// Texts by label, confidence and length; and their tokens, where it is known which of them the tokenizer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributionCounts {
    pub(crate) texts: u64,
    /// One for each label of the model, and one for texts with none of them.
    pub(crate) labels: Box<[u64]>,
    pub(crate) confidence: [u64; CONFIDENCE_BINS],
    pub(crate) lengths: [u64; LENGTH_BINS],
    pub(crate) tokens: Option<TokenSums>,
}

impl DistributionCounts {
    /// Of no texts, for a model with so many labels (at most [`MAX_LABELS`]; the others count as none of them). Without
    /// `unknown`, tokens that the tokenizer does not know are not counted: the model has no tokenizer.
    #[must_use]
    pub fn new(labels: usize, unknown: bool) -> Self {
        Self {
            texts: 0,
            labels: vec![0; labels.min(MAX_LABELS) + 1].into_boxed_slice(),
            confidence: [0; CONFIDENCE_BINS],
            lengths: [0; LENGTH_BINS],
            tokens: unknown.then(TokenSums::default),
        }
    }

    /// Counts a text: its label by index, if it has one; the confidence, 0 to 1; its tokens, and how many of them the
    /// tokenizer does not know.
    ///
    /// A confidence that is no number counts as 0: such an answer is not reliable. A model that has none may always
    /// give that, and never drifts in it.
    pub fn record(&mut self, label: Option<usize>, confidence: f32, tokens: usize, unknown: usize) {
        self.texts = self.texts.saturating_add(1);
        if let Some((other, known)) = self.labels.split_last_mut() {
            increment(label.and_then(|label| known.get_mut(label)).unwrap_or(other));
        }
        self.confidence.get_mut(confidence_bin(confidence)).into_iter().for_each(increment);
        self.lengths.get_mut(length_bin(tokens)).into_iter().for_each(increment);
        if let Some(sums) = &mut self.tokens {
            sums.add(tokens, unknown);
        }
    }

    /// Forgets all texts and keeps the memory.
    pub fn clear(&mut self) {
        self.texts = 0;
        self.labels.fill(0);
        self.confidence.fill(0);
        self.lengths.fill(0);
        self.tokens = self.tokens.map(|_| TokenSums::default());
    }

    /// Texts counted.
    #[must_use]
    pub fn texts(&self) -> u64 {
        self.texts
    }
}

fn increment(count: &mut u64) {
    *count = count.saturating_add(1);
}

/// The bin of a confidence. Thousandths of a bin are forgiven: 0.95 as an `f32` is a little less.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and makes NaN 0")]
fn confidence_bin(confidence: f32) -> usize {
    ((confidence * 20.0 + 1e-3) as usize).min(CONFIDENCE_BINS - 1)
}

fn length_bin(tokens: usize) -> usize {
    LENGTH_EDGES.partition_point(|&least| least <= tokens).saturating_sub(1)
}

/// Tokens and unknown ones, with the sums of their products: unknown tokens come many at a time, and these say how
/// much less a token therefore tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSums {
    /// Tokens of all texts.
    pub tokens: u64,
    /// Those of them that the tokenizer does not know.
    pub unknown: u64,
    /// Sum over texts of tokens times tokens.
    pub tokens_squared: u64,
    /// Sum over texts of tokens times unknown tokens.
    pub tokens_by_unknown: u64,
    /// Sum over texts of unknown tokens times unknown tokens.
    pub unknown_squared: u64,
}

impl TokenSums {
    fn add(&mut self, tokens: usize, unknown: usize) {
        let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
        let unknown = u64::try_from(unknown).unwrap_or(u64::MAX).min(tokens);
        for (sum, value) in [
            (&mut self.tokens, tokens),
            (&mut self.unknown, unknown),
            (&mut self.tokens_squared, tokens.saturating_mul(tokens)),
            (&mut self.tokens_by_unknown, tokens.saturating_mul(unknown)),
            (&mut self.unknown_squared, unknown.saturating_mul(unknown)),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

/// Texts in all bins.
pub(crate) fn sum_counts(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes that counts take.
    pub(crate) fn memory_bytes(counts: &DistributionCounts) -> usize {
        size_of_val(counts) + size_of_val(&*counts.labels)
    }

    #[test]
    fn record_any_text_counts_once_per_distribution() {
        let mut counts = DistributionCounts::new(3, true);
        for (label, confidence, tokens, unknown) in [
            (Some(0), 0.0, 0, 0),
            (Some(2), 0.05, 3, 1),
            (Some(3), 1.0, 4, 9),
            (None, f32::NAN, usize::MAX, 0),
            (Some(usize::MAX), -1.0, 511, 0),
            (None, f32::INFINITY, 512, 2),
        ] {
            counts.record(label, confidence, tokens, unknown);
        }
        assert_eq!(counts.texts(), 6);
        assert_eq!(*counts.labels, [1, 0, 1, 4]);
        assert_eq!((counts.confidence[0], counts.confidence[1], counts.confidence[19]), (3, 1, 2));
        assert_eq!((counts.lengths[0], counts.lengths[1], counts.lengths[14], counts.lengths[15]), (2, 1, 1, 2));
        for bins in [&*counts.labels, &counts.confidence, &counts.lengths] {
            assert_eq!(bins.iter().sum::<u64>(), 6);
        }
        assert_eq!(counts.tokens.map(|sums| sums.tokens), Some(u64::MAX), "no overflow");
    }

    #[test]
    fn bin_edges_lower_bound_inclusive() {
        for twentieth in 0..20_u8 {
            assert_eq!(confidence_bin(f32::from(twentieth) / 20.0), usize::from(twentieth));
            assert_eq!(confidence_bin(f32::from(twentieth) / 20.0 + 0.04), usize::from(twentieth));
        }
        for (bin, least) in LENGTH_EDGES.into_iter().enumerate() {
            assert_eq!(length_bin(least), bin);
            assert_eq!(length_bin(least.saturating_sub(1)), bin.saturating_sub(1));
        }
    }

    #[test]
    fn token_sums_recorded_match_texts() {
        let mut counts = DistributionCounts::new(1, true);
        counts.record(None, 0.5, 3, 1);
        counts.record(None, 0.5, 5, 7);
        let wanted =
            TokenSums { tokens: 8, unknown: 6, tokens_squared: 34, tokens_by_unknown: 28, unknown_squared: 26 };
        assert_eq!(counts.tokens, Some(wanted), "no more tokens are unknown than there are");
        counts.clear();
        assert_eq!(counts, DistributionCounts::new(1, true));
    }

    #[test]
    fn distribution_counts_memory_constant() {
        let mut counts = DistributionCounts::new(77, false);
        let before = memory_bytes(&counts);
        let labels_pointer = counts.labels.as_ptr();
        (0..10_000).for_each(|i| counts.record(Some(i), 0.3, i, i));
        counts.clear();
        assert_eq!((memory_bytes(&counts), counts.labels.as_ptr()), (before, labels_pointer));
        assert!(before < 1_100, "{before}");
        assert_eq!(counts.tokens, None);
        assert!(memory_bytes(&DistributionCounts::new(usize::MAX, false)) < 1_000_000);
    }
}
