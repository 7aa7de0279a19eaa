//! What an operator can do to an experiment.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::experiment::{
    Experiment, ExperimentArm, ExperimentDesign, ExperimentError, NAME_RESERVATION_DAYS,
};
use predictd_platform::clock::now_millis;
use tokio::sync::Mutex;

use super::change_context::ChangeContext;
use super::commit::{self, Change, ExperimentOutcome};
use super::error::RegistryError;
use super::reconciler::Reconciler;
use super::registry_context::RegistryContext;
use super::version_lease::VersionLease;
use crate::database::ChangeError;
use crate::database::experiments::{ExperimentWriteAction, RegistryView};
use crate::record::RecordError;
use crate::snapshot::Snapshot;
use crate::version_name::VersionName;

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

    /// Makes an experiment, or changes its design.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn define(
        &self,
        name: &str,
        design: ExperimentDesign,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        let apply = |stored: Option<Experiment>, view: &RegistryView<'_>| {
            check_references(&design, view)?;
            match stored {
                None => Ok(ExperimentWriteAction::Replace(Box::new(Experiment::new(design, now_millis())))),
                Some(mut experiment) => {
                    if !experiment.update_design(design, now_millis())? {
                        return Ok(ExperimentWriteAction::Unchanged);
                    }
                    Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
                }
            }
        };
        let change = Change { target: name, action: "design", version: None, order };
        commit::change_experiment(&self.context, change, apply).await
    }

    /// Starts an experiment, or goes on with it, once its versions are loaded.
    ///
    /// # Errors
    /// [`RegistryError`]; it does not run then.
    pub async fn start(&self, name: &str, order: &ChangeContext) -> Result<ExperimentOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        // Another replica may have made it a moment ago.
        self.context.refresh().await?;
        let experiment = self.recorded(name)?;
        let _leases = self.load_arms(&experiment).await?;
        let change = Change { target: name, action: "start", version: None, order };
        commit::change_experiment(&self.context, change, |stored, view| apply_start(name, stored, view)).await
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
            if !record.versions.contains_key(&VersionName::new(version)) {
                return Err(RecordError::UnknownVersion(version.to_owned()).into());
            }
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
    pub async fn pause(&self, name: &str, order: &ChangeContext) -> Result<ExperimentOutcome, RegistryError> {
        self.update(name, "pause", order, Experiment::pause).await
    }

    /// Ends an experiment: all requests get the active version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn end(
        &self,
        name: &str,
        outcome: Option<String>,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        self.update(name, "end", order, |experiment| experiment.end(now_millis(), outcome)).await
    }

    /// Makes the version of an arm the active one of its model, and ends the experiment: both or neither.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn promote(
        &self,
        name: &str,
        arm: &str,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let _lock = self.lock.lock().await;
        self.promote_locked(name, arm, None, order).await
    }

    /// Promotes the arm of a finished rollout, if `replaced` is the active version. Does nothing while a version is loaded: the
    /// caller has other experiments to look at.
    pub(super) async fn try_promote(
        &self,
        name: &str,
        arm: &str,
        replaced: Option<&str>,
        order: &ChangeContext,
    ) -> Result<(), RegistryError> {
        let Some(_lock) = self.lock.try_lock().ok().filter(|_| !self.reconciler.is_loading()) else { return Ok(()) };
        tracing::info!(experiment = name, arm, "rollout finished; activating its version");
        self.promote_locked(name, arm, replaced, order).await?;
        Ok(())
    }

    async fn promote_locked(
        &self,
        name: &str,
        arm: &str,
        replaced: Option<&str>,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let experiment = self.recorded(name)?;
        let version = promotable_version(&experiment, arm).map_err(ChangeError::from)?;
        let model = &experiment.design.model;
        let _lease = VersionLease::new(&self.context, model, &version);
        self.reconciler.ensure_loaded(model, &self.context.model_record_or_default(model), &version).await?;
        let apply = |stored: Option<Experiment>, view: &RegistryView<'_>| {
            let mut experiment = stored.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            let active = view.records.get(&experiment.design.model).and_then(|record| record.active.as_deref());
            if replaced.is_some() && replaced != active {
                let reason = "another version was made the active one meanwhile".to_owned();
                return Err(ExperimentError::Conflict(reason));
            }
            let version = promotable_version(&experiment, arm)?;
            experiment.end(now_millis(), Some(format!("{arm} became the active version")))?;
            Ok(ExperimentWriteAction::Promote(Box::new(experiment), version))
        };
        let change = Change { target: name, action: "promote", version: Some(&version), order };
        commit::change_experiment(&self.context, change, apply).await
    }

    /// Deletes an experiment that has not begun, or has ended longer ago than receipts are valid.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete(&self, name: &str, order: &ChangeContext) -> Result<ExperimentOutcome, RegistryError> {
        let apply = |stored: Option<Experiment>, _: &RegistryView<'_>| {
            let experiment = stored.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            let kept = NAME_RESERVATION_DAYS * 24 * 3_600 * 1_000;
            let over = experiment.ended.is_some_and(|ended| now_millis().saturating_sub(ended) > kept);
            if experiment.phases.is_empty() || over {
                return Ok(ExperimentWriteAction::Delete);
            }
            let reason = format!(
                "its name is kept until {NAME_RESERVATION_DAYS} days after its end: answers of its arms are still told of"
            );
            Err(ExperimentError::Conflict(reason))
        };
        let change = Change { target: name, action: "forget", version: None, order };
        commit::change_experiment(&self.context, change, apply).await
    }

    /// Changes an experiment by `alter`, which says whether anything changes.
    pub(super) async fn update(
        &self,
        name: &str,
        action: &str,
        order: &ChangeContext,
        alter: impl FnOnce(&mut Experiment) -> Result<bool, ExperimentError>,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let apply = |stored: Option<Experiment>, _: &RegistryView<'_>| {
            let mut experiment = stored.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            if !alter(&mut experiment)? {
                return Ok(ExperimentWriteAction::Unchanged);
            }
            Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
        };
        commit::change_experiment(&self.context, Change { target: name, action, version: None, order }, apply).await
    }

    fn recorded(&self, name: &str) -> Result<Experiment, ChangeError> {
        let state = self.context.state.lock();
        state.experiments.get(name).cloned().ok_or_else(|| ExperimentError::NotFound(name.to_owned()).into())
    }
}

/// Refuses arms whose answers cannot stand for each other.
fn check_arm_tasks(experiment: &Experiment, snapshot: &Snapshot) -> Result<(), RegistryError> {
    let Some((_, control)) = experiment.design.control_arm() else { return Ok(()) };
    let control_task = resolve_arm(snapshot, control)?.pipeline().head().task();
    for arm in &experiment.design.arms {
        let arm_task = resolve_arm(snapshot, arm)?.pipeline().head().task();
        if arm_task != control_task {
            let reason = format!(
                "arm {} answers as {arm_task}, the control as {control_task}: one cannot stand for the other",
                arm.name
            );
            return Err(RegistryError::IncompatibleArms(reason));
        }
    }
    Ok(())
}

/// The loaded version of an arm.
fn resolve_arm<'a>(snapshot: &'a Snapshot, arm: &ExperimentArm) -> Result<&'a LoadedVersion, RegistryError> {
    snapshot
        .resolve(Some(&arm.model), arm.version.as_deref())
        .map(Arc::as_ref)
        .map_err(|error| RegistryError::IncompatibleArms(format!("arm {}: {error}", arm.name)))
}

/// What becomes of an experiment that is started.
fn apply_start(
    name: &str,
    stored: Option<Experiment>,
    view: &RegistryView<'_>,
) -> Result<ExperimentWriteAction, ExperimentError> {
    let mut experiment = stored.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
    check_references(&experiment.design, view)?;
    let active = |model: &str| view.records.get(model).and_then(|record| record.active.clone());
    if !experiment.start(now_millis(), active)? {
        return Ok(ExperimentWriteAction::Unchanged);
    }
    let design = &experiment.design;
    let controls_with_active =
        design.control_arm().is_some_and(|(_, arm)| arm.model == design.model && arm.version == active(&design.model));
    if design.rollout.is_some() && !controls_with_active {
        // All users get the active version after a rollback.
        let reason = format!("the control of a rollout must be the active version of {}", design.model);
        return Err(ExperimentError::Conflict(reason));
    }
    Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
}

/// The version of an arm that can become the active one.
fn promotable_version(experiment: &Experiment, arm: &str) -> Result<String, ExperimentError> {
    let Some(promoted) = experiment.design.arms.iter().find(|candidate| candidate.name == arm) else {
        return Err(ExperimentError::Conflict(format!("the experiment has no arm {arm}")));
    };
    if promoted.model != experiment.design.model {
        return Err(ExperimentError::Conflict(format!(
            "arm {arm} is another model than callers ask for: it cannot become its active version"
        )));
    }
    match &promoted.version {
        _ if !experiment.is_open() => Err(ExperimentError::Conflict("the experiment has ended".to_owned())),
        None => Err(ExperimentError::Conflict(format!("arm {arm} names no version yet"))),
        Some(version) => Ok(version.clone()),
    }
}

/// Refuses a design that names what there is not.
fn check_references(design: &ExperimentDesign, view: &RegistryView<'_>) -> Result<(), ExperimentError> {
    if !view.records.contains_key(&design.model) {
        return Err(ExperimentError::Invalid("/on".to_owned(), format!("there is no model {}", design.model)));
    }
    for (index, arm) in design.arms.iter().enumerate() {
        let Some(record) = view.records.get(&arm.model) else {
            return Err(ExperimentError::Invalid(
                format!("/arms/{index}/model"),
                format!("there is no model {}", arm.model),
            ));
        };
        if let Some(version) =
            arm.version.as_ref().filter(|version| !record.versions.contains_key(&VersionName::new(version)))
        {
            return Err(ExperimentError::Invalid(
                format!("/arms/{index}/version"),
                format!("model {} has no version {version}", arm.model),
            ));
        }
    }
    Ok(())
}
