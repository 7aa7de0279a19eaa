//! What is done with texts that do not fit a model, or that hold markup.

use serde::{Deserialize, Serialize};

/// What to do with a text of more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum OverflowPolicy {
    /// Refuse it.
    Error,
    /// Cut it off and say so in the answer.
    Truncate,
    /// Score overlapping windows of it and average them by token count.
    Window,
}

/// What to do with markup and control characters in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum MarkupPolicy {
    /// Take texts as they are.
    Allow,
    /// Remove tags, script and style with their content, and fold white space.
    Strip,
    /// Refuse scripts, `javascript:` URLs, event handlers and calls of eval in markup.
    Reject,
}

/// What is done with texts where a model does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPolicies {
    /// Texts of too many tokens.
    pub on_overflow: OverflowPolicy,
    /// Markup and control characters.
    pub markup: MarkupPolicy,
}
