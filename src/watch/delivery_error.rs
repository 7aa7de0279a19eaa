//! Why an alert was not delivered.

/// Why an alert was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// Another attempt may succeed.
    Transient(String),
    /// No other attempt will.
    Permanent(String),
}
