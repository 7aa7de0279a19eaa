//! Who asks for a change, and on what grounds.

/// Who changes something, why, and on what grounds.
#[derive(Debug, Clone, Default)]
pub struct ChangeContext {
    /// Who.
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// The revision of the model that they saw.
    pub expected_revision: Option<i64>,
    /// Their Idempotency-Key, and what tells the request from others.
    pub idempotency_key: Option<(String, String)>,
}
