//! Commits changes: to the database, to the state, and to what is published.

use predictd_experiments::experiment::{Experiment, ExperimentError, check_conflicts};

use super::change_context::ChangeContext;
use super::error::RegistryError;
use super::registry_context::RegistryContext;
use crate::database::experiments::{ExperimentWriteAction, RegistryView};
use crate::database::{AuditDetails, ChangeOutcome, ChangeRequest};
use crate::record::{ModelRecord, RecordError};

/// The outcome of a change of an experiment; no experiment if it was deleted.
pub(super) type ExperimentOutcome = ChangeOutcome<Option<Experiment>>;

/// A change of a model or an experiment.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    /// The model or the experiment.
    pub(super) target: &'a str,
    /// What the history calls the change.
    pub(super) action: &'a str,
    pub(super) version: Option<&'a str>,
    pub(super) order: &'a ChangeContext,
}

impl<'a> Change<'a> {
    fn to_request(self, experiment: Option<&'a str>) -> ChangeRequest<'a> {
        let order = self.order;
        ChangeRequest {
            target: self.target,
            expected_revision: order.expected_revision,
            idempotency_key: order.idempotency_key.as_ref().map(|(key, request)| (key.as_str(), request.as_str())),
            protects_experiments: true,
            audit: AuditDetails {
                actor: &order.actor,
                action: self.action,
                version: self.version,
                experiment,
                reason: order.reason.as_deref(),
            },
        }
    }
}

/// Commits a change of a model.
pub(super) async fn change_model(
    context: &RegistryContext,
    change: Change<'_>,
    apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
) -> Result<ChangeOutcome, RegistryError> {
    let Change { target: name, action, version, order } = change;
    let answer = |record: &ModelRecord| {
        // Three plain values can always be written.
        serde_json::to_string(&(record.revision, &record.active, record.previous_versions.last())).unwrap_or_default()
    };
    let outcome = context.database.change_model(change.to_request(None), apply, answer).await?;
    if let ChangeOutcome::Changed(record) = &outcome {
        context.metrics.record_registry_change(name, action);
        tracing::info!(model = name, action, version, by = order.actor, "registry changed");
        for version in context.state.lock().update_model(name, record) {
            context.metrics.remove_version(name, version.as_str());
        }
        publish_change(context).await;
    }
    Ok(outcome)
}

/// Commits a change of an experiment.
pub(super) async fn change_experiment(
    context: &RegistryContext,
    change: Change<'_>,
    apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
) -> Result<ExperimentOutcome, RegistryError> {
    let Change { target: name, action, order, .. } = change;
    let mut is_promotion = false;
    let checked = |stored: Option<Experiment>, view: &RegistryView<'_>| {
        let action = apply(stored, view)?;
        is_promotion = matches!(action, ExperimentWriteAction::Promote(..));
        if let ExperimentWriteAction::Replace(experiment) = &action {
            check_conflicts(name, experiment, view.experiments)?;
        }
        Ok(action)
    };
    let outcome = context.database.change_experiment(change.to_request(Some(name)), checked).await?;
    if let ChangeOutcome::Changed(after) = &outcome {
        tracing::info!(experiment = name, action, by = order.actor, "experiment changed");
        if is_promotion {
            // The model has changed as well: both become visible at once.
            context.refresh().await?;
        }
        let model = context.state.lock().update_experiment(name, after.as_ref());
        context.metrics.record_registry_change(&model, &format!("experiment-{action}"));
        publish_change(context).await;
    }
    Ok(outcome)
}

async fn publish_change(context: &RegistryContext) {
    context.state.write_file().await;
    context.publish();
}
