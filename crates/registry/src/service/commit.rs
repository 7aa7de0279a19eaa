//! Commits changes: to the database, to the state, and to what is published.

use predictd_experiments::experiment::{Experiment, ExperimentError, check_conflicts};

use super::registry_context::RegistryContext;
use crate::database::experiments::{ExperimentChangeOutcome, ExperimentTables, ExperimentWriteAction, RegistryView};
use crate::database::{self, AuditDetails, ChangeOutcome, ChangeRequest};
use crate::error::RegistryError;
use crate::record::{ModelRecord, RecordError};

/// Commits a change of a model.
pub(super) async fn change_model(
    context: &RegistryContext,
    change: ChangeRequest<'_>,
    apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
) -> Result<ChangeOutcome, RegistryError> {
    let ChangeRequest { target: name, audit: AuditDetails { actor, action, version, .. }, .. } = change;
    let outcome = database::change_model(&context.database, change, apply).await?;
    if let ChangeOutcome::Changed(record) = &outcome {
        context.metrics.record_registry_change(name, action);
        tracing::info!(model = name, action, version, actor, "registry changed");
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
    mut change: ChangeRequest<'_>,
    apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
) -> Result<ExperimentChangeOutcome, RegistryError> {
    let ChangeRequest { target: name, audit: AuditDetails { actor, action, .. }, .. } = change;
    change.audit.experiment = Some(name);
    let mut is_promotion = false;
    let outcome = ExperimentTables(&context.database)
        .change(change, |stored, view| {
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
