//! What an operator can do to an experiment.

use std::sync::Arc;

use predictd_experiments::experiment::{
    Experiment, ExperimentArm, ExperimentDesign, ExperimentError, NAME_RESERVATION_DAYS, conflict, invalid,
};
use predictd_platform::clock::now_millis;
use tokio::sync::Mutex;

use super::change_context::ChangeContext;
use super::commit;
use super::reconciler::Reconciler;
use super::registry_context::RegistryContext;
use super::version_lease::VersionLease;
use crate::database::ChangeRequest;
use crate::database::experiments::{ExperimentChangeOutcome, ExperimentWriteAction, RegistryView};
use crate::error::RegistryError;
use crate::snapshot::Snapshot;

/// Changes experiments.
pub struct ExperimentService {
    context: Arc<RegistryContext>,
    reconciler: Arc<Reconciler>,
    /// One change that needs versions at a time. Others wait for no load.
    lock: Mutex<()>,
}

impl ExperimentService {
    pub(super) fn new(context: Arc<RegistryContext>, reconciler: Arc<Reconciler>) -> Self {
        Self { context, reconciler, lock: Mutex::default() }
    }

    /// Makes an experiment, or changes its design. A change that names no revision makes a new one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn define(
        &self,
        name: &str,
        design: ExperimentDesign,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        // What is new was never seen.
        let expected_revision = change_context.expected_revision.or(Some(0));
        let change = ChangeRequest { expected_revision, ..change_context.request(name, "design", None) };
        commit::change_experiment(&self.context, change, |stored, view| {
            check_references(&design, view)?;
            let Some(mut experiment) = stored else {
                return Ok(write_action(true, Experiment::new(design, now_millis())));
            };
            Ok(write_action(experiment.update_design(design, now_millis())?, experiment))
        })
        .await
    }

    /// Starts an experiment, or goes on with it, once its versions are loaded.
    ///
    /// # Errors
    /// [`RegistryError`]; it does not run then.
    pub async fn start(
        &self,
        name: &str,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        // Another replica may have made it a moment ago.
        self.context.refresh().await?;
        let experiment = self.context.experiment(name)?;
        let _leases = self.load_arms(&experiment).await?;
        self.update(change_context.request(name, "start", None), apply_start).await
    }

    /// Loads the versions of all arms, which must answer in the same form.
    async fn load_arms(&self, experiment: &Experiment) -> Result<Vec<VersionLease<'_>>, RegistryError> {
        let mut leases = Vec::new();
        for arm in &experiment.design.arms {
            let record = self.context.model_record_or_default(&arm.model);
            let Some(version) = arm.version.as_deref().or(record.active.as_deref()) else {
                return Err(RegistryError::IncompatibleArms(format!(
                    "arm {}: model {} has no active version",
                    arm.name, arm.model
                )));
            };
            record.version(version)?;
            leases.push(VersionLease::new(&self.context, &arm.model, version));
            self.reconciler.ensure_loaded(&arm.model, &record, version).await?;
        }
        check_arm_tasks(experiment, &self.context.registry().snapshot())?;
        Ok(leases)
    }

    /// Pauses an experiment: all requests get the active version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn pause(
        &self,
        name: &str,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        self.update(change_context.request(name, "pause", None), |experiment, _| experiment.pause()).await
    }

    /// Ends an experiment: all requests get the active version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn end(
        &self,
        name: &str,
        outcome: Option<String>,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        self.update(change_context.request(name, "end", None), |experiment, _| experiment.end(now_millis(), outcome))
            .await
    }

    /// Makes the version of an arm the active one of its model, and ends the experiment: both or neither.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn promote(
        &self,
        name: &str,
        arm: &str,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        self.promote_locked(name, arm, None, change_context).await
    }

    /// Promotes the arm of a finished rollout, if `replaced` is the active version. Does nothing while a version is loaded: the
    /// caller has other experiments to look at.
    pub(super) async fn try_promote(
        &self,
        name: &str,
        arm: &str,
        replaced: Option<&str>,
        change_context: &ChangeContext,
    ) -> Result<(), RegistryError> {
        let Some(_lock) = self.lock.try_lock().ok().filter(|_| !self.reconciler.is_loading()) else { return Ok(()) };
        tracing::info!(experiment = name, arm, "rollout finished; activating its version");
        self.promote_locked(name, arm, replaced, change_context).await?;
        Ok(())
    }

    async fn promote_locked(
        &self,
        name: &str,
        arm: &str,
        replaced: Option<&str>,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        let experiment = self.context.experiment(name)?;
        let version = promotable_version(&experiment, arm)?;
        let model = &experiment.design.model;
        let _lease = VersionLease::new(&self.context, model, &version);
        self.reconciler.ensure_loaded(model, &self.context.model_record_or_default(model), &version).await?;
        commit::change_experiment(
            &self.context,
            change_context.request(name, "promote", Some(&version)),
            |stored, view| {
                let mut experiment = existing(name, stored)?;
                if replaced.is_some() && replaced != active_version(view, &experiment.design.model) {
                    return conflict("another version was made the active one meanwhile");
                }
                let version = promotable_version(&experiment, arm)?;
                experiment.end(now_millis(), Some(format!("{arm} became the active version")))?;
                Ok(ExperimentWriteAction::Promote(Box::new(experiment), version))
            },
        )
        .await
    }

    /// Deletes an experiment that has not begun, or has ended longer ago than receipts are valid.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete(
        &self,
        name: &str,
        change_context: &ChangeContext,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        commit::change_experiment(&self.context, change_context.request(name, "forget", None), |stored, _| {
                let experiment = existing(name, stored)?;
                let kept = NAME_RESERVATION_DAYS * 24 * 3_600 * 1_000;
                let over = experiment.ended.is_some_and(|ended| now_millis().saturating_sub(ended) > kept);
                if experiment.phases.is_empty() || over {
                    return Ok(ExperimentWriteAction::Delete);
                }
                conflict(format!(
                    "its name is reserved until {NAME_RESERVATION_DAYS} days after its end: feedback on its arms may still come"
                ))
            })
            .await
    }

    /// Changes an experiment by `alter`, which says whether anything changes.
    pub(super) async fn update(
        &self,
        change: ChangeRequest<'_>,
        alter: impl FnOnce(&mut Experiment, &RegistryView<'_>) -> Result<bool, ExperimentError>,
    ) -> Result<ExperimentChangeOutcome, RegistryError> {
        commit::change_experiment(&self.context, change, |stored, view| {
            let mut experiment = existing(change.target, stored)?;
            Ok(write_action(alter(&mut experiment, view)?, experiment))
        })
        .await
    }
}

fn existing(name: &str, experiment: Option<Experiment>) -> Result<Experiment, ExperimentError> {
    experiment.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))
}

fn write_action(is_changed: bool, experiment: Experiment) -> ExperimentWriteAction {
    if is_changed { ExperimentWriteAction::Replace(Box::new(experiment)) } else { ExperimentWriteAction::Unchanged }
}

/// The active version of a model.
pub(super) fn active_version<'a>(view: &RegistryView<'a>, model: &str) -> Option<&'a str> {
    view.records.get(model)?.active.as_deref()
}

/// Refuses arms whose answers cannot stand for each other.
fn check_arm_tasks(experiment: &Experiment, snapshot: &Snapshot) -> Result<(), RegistryError> {
    let Some((_, control)) = experiment.design.control_arm() else { return Ok(()) };
    let control_task = resolve_arm_task(snapshot, control)?;
    for arm in &experiment.design.arms {
        let arm_task = resolve_arm_task(snapshot, arm)?;
        if arm_task != control_task {
            return Err(RegistryError::IncompatibleArms(format!(
                "arm {} answers as {arm_task}, the control as {control_task}: one cannot stand for the other",
                arm.name
            )));
        }
    }
    Ok(())
}

/// The task of an arm, whose version must be loaded.
fn resolve_arm_task(snapshot: &Snapshot, arm: &ExperimentArm) -> Result<&'static str, RegistryError> {
    match snapshot.resolve(Some(&arm.model), arm.version.as_deref()) {
        Ok(model) => Ok(model.pipeline().head().task()),
        Err(error) => Err(RegistryError::IncompatibleArms(format!("arm {}: {error}", arm.name))),
    }
}

/// What becomes of an experiment that is started.
fn apply_start(experiment: &mut Experiment, view: &RegistryView<'_>) -> Result<bool, ExperimentError> {
    check_references(&experiment.design, view)?;
    if !experiment.start(now_millis(), |model| active_version(view, model).map(str::to_owned))? {
        return Ok(false);
    }
    let design = &experiment.design;
    let controls_with_active = design.control_arm().is_some_and(|(_, arm)| {
        arm.model == design.model && arm.version.as_deref() == active_version(view, &design.model)
    });
    if design.rollout.is_some() && !controls_with_active {
        // All users get the active version after a rollback.
        return conflict(format!("the control of a rollout must be the active version of {}", design.model));
    }
    Ok(true)
}

/// The version of an arm that can become the active one.
fn promotable_version(experiment: &Experiment, arm: &str) -> Result<String, ExperimentError> {
    let Some(promoted) = experiment.design.arms.iter().find(|candidate| candidate.name == arm) else {
        return conflict(format!("the experiment has no arm {arm}"));
    };
    if promoted.model != experiment.design.model {
        return conflict(format!(
            "arm {arm} is another model than callers ask for: it cannot become its active version"
        ));
    }
    match &promoted.version {
        _ if !experiment.is_open() => conflict("the experiment has ended"),
        None => conflict(format!("arm {arm} names no version yet")),
        Some(version) => Ok(version.clone()),
    }
}

/// Refuses a design that names what there is not.
fn check_references(design: &ExperimentDesign, view: &RegistryView<'_>) -> Result<(), ExperimentError> {
    if !view.records.contains_key(&design.model) {
        return invalid("/on", format!("there is no model {}", design.model));
    }
    for (index, arm) in design.arms.iter().enumerate() {
        let Some(record) = view.records.get(&arm.model) else {
            return invalid(format!("/arms/{index}/model"), format!("there is no model {}", arm.model));
        };
        if let Some(version) = arm.version.as_ref().filter(|version| record.version(version).is_err()) {
            let reason = format!("model {} has no version {version}", arm.model);
            return invalid(format!("/arms/{index}/version"), reason);
        }
    }
    Ok(())
}
