//! Who asks for a change, and on what grounds.

use crate::database::{AuditDetails, ChangeRequest};

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

impl ChangeContext {
    /// A change of `target`, a model or an experiment, that the history calls `action`.
    pub(super) fn request<'a>(
        &'a self,
        target: &'a str,
        action: &'a str,
        version: Option<&'a str>,
    ) -> ChangeRequest<'a> {
        ChangeRequest {
            target,
            expected_revision: self.expected_revision,
            idempotency_key: self.idempotency_key.as_ref().map(|(key, request)| (key.as_str(), request.as_str())),
            protects_experiments: true,
            audit: AuditDetails {
                actor: &self.actor,
                action,
                version,
                experiment: None,
                reason: self.reason.as_deref(),
            },
        }
    }
}
