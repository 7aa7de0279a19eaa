//! Commits changes: to the database, to the state, and to what is published.

use predictd_experiments::experiment::{Experiment, ExperimentError, check_conflicts};

use super::error::RegistryError;
use super::registry_context::RegistryContext;
use crate::database::experiments::{ExperimentWriteAction, RegistryView};
use crate::database::{AuditDetails, ChangeOutcome, ChangeRequest};
use crate::record::{ModelRecord, RecordError};

/// The outcome of a change of an experiment; no experiment if it was deleted.
pub(super) type ExperimentOutcome = ChangeOutcome<Option<Experiment>>;

impl RegistryContext {
    /// Commits a change of a model.
    pub(super) async fn change_model(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, RegistryError> {
        let ChangeRequest { target: name, audit: AuditDetails { actor, action, version, .. }, .. } = change;
        let outcome = self
            .database
            .change_model(change, apply, |record| {
                // Three plain values can always be written.
                serde_json::to_string(&(record.revision, &record.active, record.previous_versions.last()))
                    .unwrap_or_default()
            })
            .await?;
        if let ChangeOutcome::Changed(record) = &outcome {
            self.metrics.record_registry_change(name, action);
            tracing::info!(model = name, action, version, actor, "registry changed");
            for version in self.state.lock().update_model(name, record) {
                self.metrics.remove_version(name, version.as_str());
            }
            self.publish_change().await;
        }
        Ok(outcome)
    }

    /// Commits a change of an experiment.
    pub(super) async fn change_experiment(
        &self,
        mut change: ChangeRequest<'_>,
        apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let ChangeRequest { target: name, audit: AuditDetails { actor, action, .. }, .. } = change;
        change.audit.experiment = Some(name);
        let mut is_promotion = false;
        let outcome = self
            .database
            .change_experiment(change, |stored, view| {
                let action = apply(stored, view)?;
                is_promotion = matches!(action, ExperimentWriteAction::Promote(..));
                if let ExperimentWriteAction::Replace(experiment) = &action {
                    check_conflicts(name, experiment, view.experiments)?;
                }
                Ok(action)
            })
            .await?;
        if let ChangeOutcome::Changed(after) = &outcome {
            tracing::info!(experiment = name, action, actor, "experiment changed");
            if is_promotion {
                // The model has changed as well: both become visible at once.
                self.refresh().await?;
            }
            let model = self.state.lock().update_experiment(name, after.as_ref());
            self.metrics.record_registry_change(&model, &format!("experiment-{action}"));
            self.publish_change().await;
        }
        Ok(outcome)
    }

    async fn publish_change(&self) {
        self.state.write_file().await;
        self.publish();
    }
}
