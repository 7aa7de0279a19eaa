//! What a model is asked: one text, or two that belong together.

/// One text, or two that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The text, or the first of two: a premise, a question.
    pub text: String,
    /// The second of two.
    pub second: Option<SecondText>,
}

/// The second of two texts: a hypothesis, a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondText {
    /// The text.
    pub text: String,
    /// True if only the first text may be cut off when both are too long for the model.
    pub truncate_only_first: bool,
}

impl Input {
    /// A text, or a pair of which both texts may be cut off.
    #[must_use]
    pub fn new(text: String, second: Option<String>) -> Self {
        Self { text, second: second.map(|text| SecondText { text, truncate_only_first: false }) }
    }

    /// Bytes of all its text.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.text.len() + self.second.as_ref().map_or(0, |pair| pair.text.len())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self { text, second: None }
    }
}
