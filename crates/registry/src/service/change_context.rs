//! The actor of a change, and its preconditions.

use crate::database::{AuditDetails, ChangeRequest};

/// The actor of a change, its reason and its preconditions.
#[derive(Debug, Clone, Default)]
pub struct ChangeContext {
    /// The actor.
    pub actor: String,
    /// The actor's reason.
    pub reason: Option<String>,
    /// The revision of the model that the actor saw.
    pub expected_revision: Option<i64>,
    /// The Idempotency-Key, and the fingerprint of its request.
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
