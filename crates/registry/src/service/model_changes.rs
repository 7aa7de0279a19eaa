//! Writes changes of models down, and has them served.

use super::change_context::ChangeContext;
use super::error::RegistryError;
use super::registry_service::RegistryService;
use crate::database::{AuditDetails, ChangeOutcome, ChangeRequest};
use crate::record::{ModelRecord, RecordError};

impl RegistryService {
    /// Writes a change down, and serves accordingly.
    pub(super) async fn commit_change(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
        order: &ChangeContext,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, RegistryError> {
        let event =
            AuditDetails { actor: &order.actor, action, version, experiment: None, reason: order.reason.as_deref() };
        let key = order.idempotency_key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = ChangeRequest {
            target: name,
            expected_revision: order.expected_revision,
            idempotency_key: key,
            protects_experiments: true,
            audit: event,
        };
        let answer = |record: &ModelRecord| {
            // Three plain values can always be written.
            serde_json::to_string(&(record.revision, &record.active, record.previous_versions.last()))
                .unwrap_or_default()
        };
        let outcome = self.deps.database.change_model(change, apply, answer).await?;
        if let ChangeOutcome::Changed(record) = &outcome {
            self.deps.load_context.metrics.record_registry_change(name, action);
            tracing::info!(model = name, action, version, by = order.actor, "registry changed");
            {
                let mut known = self.state.lock();
                let newer = known.records.get(name).is_none_or(|known| known.revision < record.revision);
                if newer {
                    let before = known.records.insert(name.to_owned(), record.clone());
                    let gone = before.iter().flat_map(|before| before.versions.keys());
                    for version in gone.filter(|version| !record.versions.contains_key(version)) {
                        self.deps.load_context.metrics.remove_version(name, version.as_str());
                    }
                }
            }
            self.write_state_file().await;
            self.publish_model(name);
        }
        Ok(outcome)
    }
}
