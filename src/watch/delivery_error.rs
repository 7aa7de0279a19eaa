//! Why an alert was not delivered.

use std::fmt::Display;

/// Why an alert was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// Another attempt may succeed.
    Transient(String),
    /// No other attempt will.
    Permanent(String),
}

impl DeliveryError {
    pub(super) fn permanent(error: impl Display) -> Self {
        Self::Permanent(error.to_string())
    }
}
