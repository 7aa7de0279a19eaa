//! The four signals in which live texts are compared with a profile.

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftSignal {
    /// How often each label is the answer.
    Labels,
    /// How sure the model is of its answers.
    Confidence,
    /// How long texts are, in tokens.
    Lengths,
    /// How many of the tokens the tokenizer does not know.
    UnknownTokens,
}

impl DriftSignal {
    /// All of them. Arrays of one thing per signal have this order.
    pub const ALL: [Self; 4] = [Self::Labels, Self::Confidence, Self::Lengths, Self::UnknownTokens];

    /// Its own of one thing per signal.
    pub(crate) fn select<T>(self, [labels, confidence, lengths, unknown]: [T; 4]) -> T {
        match self {
            Self::Labels => labels,
            Self::Confidence => confidence,
            Self::Lengths => lengths,
            Self::UnknownTokens => unknown,
        }
    }

    /// Its name for metrics and answers: `labels`, `confidence`, `lengths` or `unknown`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Confidence => "confidence",
            Self::Lengths => "lengths",
            Self::UnknownTokens => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_has_order_of_all() {
        assert_eq!(DriftSignal::ALL.map(|signal| signal.select(DriftSignal::ALL)), DriftSignal::ALL);
    }
}
