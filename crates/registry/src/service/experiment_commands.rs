//! What an operator can do to an experiment, and which of them run here.

use std::collections::BTreeMap;
use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::counters::ActivePhase;
use predictd_experiments::experiment::{
    Experiment, ExperimentArm, ExperimentDesign, ExperimentError, ExperimentMap, ExperimentState,
    NAME_RESERVATION_DAYS, check_conflicts,
};
use predictd_platform::clock::now_millis;

use super::change_context::ChangeContext;
use super::counter_flush::CounterFlush;
use super::error::RegistryError;
use super::publish_scope::PublishScope;
use super::registry_service::RegistryService;
use super::version_lease::VersionLease;
use crate::database::experiments::{ExperimentWriteAction, RegistryView};
use crate::database::{AuditDetails, ChangeError, ChangeOutcome, ChangeRequest};
use crate::record::RecordError;
use crate::snapshot::Snapshot;
use crate::version_name::VersionName;
use crate::version_state::VersionState;

/// What became of an experiment; none once it is forgotten.
pub(super) type ExperimentOutcome = ChangeOutcome<Option<Experiment>>;

impl RegistryService {
    /// The experiments as they were recorded when it was looked last.
    #[must_use]
    pub fn experiments(&self) -> ExperimentMap {
        self.state.lock().experiments.clone()
    }

    /// Makes an experiment, or changes one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn define_experiment(
        &self,
        name: &str,
        design: ExperimentDesign,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        let apply = |found: Option<Experiment>, world: &RegistryView<'_>| {
            check_references(&design, world)?;
            match found {
                None => Ok(ExperimentWriteAction::Replace(Box::new(Experiment::new(design, now_millis())))),
                Some(mut experiment) => {
                    if !experiment.update_design(design, now_millis())? {
                        return Ok(ExperimentWriteAction::Unchanged);
                    }
                    Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
                }
            }
        };
        self.commit_experiment_change(name, ("design", None), order, apply).await
    }

    /// Starts an experiment, or goes on with it, once its versions are loaded.
    ///
    /// # Errors
    /// [`RegistryError`]; it does not run then.
    pub async fn start_experiment(
        &self,
        name: &str,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        // Another replica may have made it a moment ago.
        self.refresh_state().await?;
        let experiment = self.experiments().remove(name).ok_or_else(|| unknown_experiment(name))?;
        let mut needed = Vec::new();
        let started = match self.load_arms(&experiment, &mut needed).await {
            Ok(()) => {
                self.commit_experiment_change(name, ("start", None), order, |found, world| {
                    apply_start(name, found, world)
                })
                .await
            }
            Err(error) => Err(error),
        };
        drop(needed);
        for arm in &experiment.design.arms {
            // What was loaded for it may not be needed.
            self.publish_model(&arm.model);
        }
        started
    }

    /// Loads the versions of all arms; `needed` holds them.
    async fn load_arms<'a>(
        &'a self,
        experiment: &Experiment,
        needed: &mut Vec<VersionLease<'a>>,
    ) -> Result<(), RegistryError> {
        for arm in &experiment.design.arms {
            let record = self.model_record_or_default(&arm.model);
            let Some(version) = arm.version.as_deref().or(record.active.as_deref()) else {
                return Err(RegistryError::IncompatibleArms(format!(
                    "arm {}: model {} has no active version",
                    arm.name, arm.model
                )));
            };
            if !record.versions.contains_key(&VersionName::new(version)) {
                return Err(RecordError::UnknownVersion(version.to_owned()).into());
            }
            needed.push(VersionLease::new(&self.leased_versions, &arm.model, version));
            self.ensure_loaded(&arm.model, &record, version).await?;
        }
        self.check_arm_tasks(experiment)
    }

    /// Pauses an experiment: everybody gets the active version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn pause_experiment(
        &self,
        name: &str,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        self.update_experiment(name, "pause", order, Experiment::pause).await
    }

    /// Ends an experiment: everybody gets the active version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn end_experiment(
        &self,
        name: &str,
        outcome: Option<String>,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        self.update_experiment(name, "end", order, |experiment| experiment.end(now_millis(), outcome)).await
    }

    /// Makes the version of an arm the active one of the model that callers ask for, and ends the experiment: both or
    /// neither.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn promote_arm(
        &self,
        name: &str,
        arm: &str,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        self.promote_arm_locked(name, arm, None, order).await
    }

    /// The same for a caller that holds the lock; where `instead_of` is said, only if that is active.
    pub(super) async fn promote_arm_locked(
        &self,
        name: &str,
        arm: &str,
        instead_of: Option<&str>,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let experiment = self.experiments().remove(name).ok_or_else(|| unknown_experiment(name))?;
        let version = promotable_version(&experiment, arm).map_err(ChangeError::from)?;
        let on = experiment.design.model.clone();
        let needed = VersionLease::new(&self.leased_versions, &on, &version);
        self.ensure_loaded(&on, &self.model_record_or_default(&on), &version).await?;
        let outcome = format!("{arm} became the active version");
        let changed = self.commit_experiment_change(name, ("promote", Some(&version)), order, |found, world| {
            let mut experiment = found.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            let active = world.records.get(&experiment.design.model).and_then(|record| record.active.as_deref());
            if instead_of.is_some() && instead_of != active {
                let reason = "another version was made the active one meanwhile".to_owned();
                return Err(ExperimentError::Conflict(reason));
            }
            let version = promotable_version(&experiment, arm)?;
            experiment.end(now_millis(), Some(outcome))?;
            Ok(ExperimentWriteAction::Promote(Box::new(experiment), version))
        });
        let changed = changed.await;
        if matches!(changed, Ok(ChangeOutcome::Changed(_))) {
            // What is active now is known once it is read.
            self.refresh_state().await?;
        }
        drop(needed);
        self.publish_model(&on);
        changed
    }

    /// Forgets an experiment that has not begun, or has ended longer ago than receipts are valid.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_experiment(
        &self,
        name: &str,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let forget = |found: Option<Experiment>, _: &RegistryView<'_>| {
            let experiment = found.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
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
        self.commit_experiment_change(name, ("forget", None), order, forget).await
    }

    pub(super) async fn update_experiment(
        &self,
        name: &str,
        action: &str,
        order: &ChangeContext,
        alter: impl FnOnce(&mut Experiment) -> Result<bool, ExperimentError>,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let apply = |found: Option<Experiment>, _: &RegistryView<'_>| {
            let mut experiment = found.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            if !alter(&mut experiment)? {
                return Ok(ExperimentWriteAction::Unchanged);
            }
            Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
        };
        self.commit_experiment_change(name, (action, None), order, apply).await
    }

    pub(super) async fn commit_experiment_change(
        &self,
        name: &str,
        (action, version): (&str, Option<&str>),
        order: &ChangeContext,
        apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let reason = order.reason.as_deref();
        let event = AuditDetails { actor: &order.actor, action, version, experiment: Some(name), reason };
        let key = order.idempotency_key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = ChangeRequest {
            target: name,
            expected_revision: order.expected_revision,
            idempotency_key: key,
            protects_experiments: true,
            audit: event,
        };
        let checked = |found: Option<Experiment>, world: &RegistryView<'_>| {
            let becomes = apply(found, world)?;
            if let ExperimentWriteAction::Replace(experiment) = &becomes {
                check_conflicts(name, experiment, world.experiments)?;
            }
            Ok(becomes)
        };
        let outcome = self.deps.database.change_experiment(change, checked).await?;
        if let ChangeOutcome::Changed(after) = &outcome {
            tracing::info!(experiment = name, action, by = order.actor, "experiment changed");
            let on = {
                let mut known = self.state.lock();
                let before = known.experiments.get(name).map(|before| before.design.model.clone());
                match after {
                    Some(after)
                        if !known.experiments.get(name).is_some_and(|known| known.is_newer_revision_of(after)) =>
                    {
                        known.experiments.insert(name.to_owned(), after.clone());
                    }
                    Some(_) => {}
                    None => _ = known.experiments.remove(name),
                }
                after.as_ref().map(|after| after.design.model.clone()).or(before).unwrap_or_default()
            };
            self.deps.load_context.metrics.record_registry_change(&on, &format!("experiment-{action}"));
            self.write_state_file().await;
            self.publish_experiments(PublishScope::RunningAnd(name));
            for arm in after.iter().flat_map(|after| &after.design.arms) {
                self.publish_model(&arm.model);
            }
        }
        Ok(outcome)
    }

    /// Puts the experiments that run into force.
    pub(super) fn publish_experiments(&self, which: PublishScope<'_>) {
        // No outdated state is published.
        let known = self.state.lock();
        let before = self.deps.registry.snapshot();
        let mut experiments = BTreeMap::new();
        let running = known.experiments.iter().filter(|(_, experiment)| experiment.state == ExperimentState::Running);
        for (name, experiment) in running {
            let on = &experiment.design.model;
            let here = before.experiments.get(on).filter(|running| running.experiment_name == *name);
            let running = match here {
                Some(running) if running.phase == experiment.phase_number() => Arc::clone(running),
                None if !can_activate(which, name, experiment, &before) => continue,
                _ => self.activate_phase(name, experiment),
            };
            experiments.insert(on.clone(), running);
        }
        if !has_same_phases(&before.experiments, &experiments) {
            self.deps.registry.publish_experiments(experiments);
        }
    }

    /// A phase that begins here, or goes on after a pause.
    fn activate_phase(&self, name: &str, experiment: &Experiment) -> Arc<ActivePhase> {
        let mut counting = self.counter_flushes.lock();
        let known = counting.iter().find(|known| {
            known.active_phase.experiment_name == name && known.active_phase.phase == experiment.phase_number()
        });
        if let Some(known) = known {
            return Arc::clone(&known.active_phase);
        }
        let running = Arc::new(ActivePhase::new(name, experiment));
        counting.push(CounterFlush::new(Arc::clone(&running)));
        running
    }

    /// Refuses arms whose answers cannot stand for each other.
    fn check_arm_tasks(&self, experiment: &Experiment) -> Result<(), RegistryError> {
        let snapshot = self.deps.registry.snapshot();
        let Some((_, control)) = experiment.design.control_arm() else { return Ok(()) };
        let wanted = resolve_arm(&snapshot, control)?.pipeline().head().task();
        for arm in &experiment.design.arms {
            let found = resolve_arm(&snapshot, arm)?.pipeline().head().task();
            if found != wanted {
                let reason = format!(
                    "arm {} answers as {found}, the control as {wanted}: one cannot stand for the other",
                    arm.name
                );
                return Err(RegistryError::IncompatibleArms(reason));
            }
        }
        Ok(())
    }
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
    found: Option<Experiment>,
    world: &RegistryView<'_>,
) -> Result<ExperimentWriteAction, ExperimentError> {
    let mut experiment = found.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
    check_references(&experiment.design, world)?;
    let active = |model: &str| world.records.get(model).and_then(|record| record.active.clone());
    if !experiment.start(now_millis(), active)? {
        return Ok(ExperimentWriteAction::Unchanged);
    }
    let design = &experiment.design;
    let controls_with_active =
        design.control_arm().is_some_and(|(_, arm)| arm.model == design.model && arm.version == active(&design.model));
    if design.rollout.is_some() && !controls_with_active {
        // Everybody gets the active version where a rollout is taken back.
        let reason = format!("the control of a rollout must be the active version of {}", design.model);
        return Err(ExperimentError::Conflict(reason));
    }
    Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
}

/// The version of an arm that can become the active one.
fn promotable_version(experiment: &Experiment, arm: &str) -> Result<String, ExperimentError> {
    let Some(found) = experiment.design.arms.iter().find(|found| found.name == arm) else {
        return Err(ExperimentError::Conflict(format!("the experiment has no arm {arm}")));
    };
    if found.model != experiment.design.model {
        return Err(ExperimentError::Conflict(format!(
            "arm {arm} is another model than callers ask for: it cannot become its active version"
        )));
    }
    match &found.version {
        _ if !experiment.is_open() => Err(ExperimentError::Conflict("the experiment has ended".to_owned())),
        None => Err(ExperimentError::Conflict(format!("arm {arm} names no version yet"))),
        Some(version) => Ok(version.clone()),
    }
}

fn unknown_experiment(name: &str) -> RegistryError {
    ChangeError::from(ExperimentError::NotFound(name.to_owned())).into()
}

/// True if an experiment that does not run here yet comes into force.
fn can_activate(which: PublishScope<'_>, name: &str, experiment: &Experiment, snapshot: &Snapshot) -> bool {
    let tried = |arm: &ExperimentArm| {
        let state = snapshot.models.get(&arm.model).zip(arm.version.as_ref());
        let state = state.and_then(|(served, version)| served.versions.get(&VersionName::new(version)));
        matches!(state, Some(VersionState::Ready(_) | VersionState::Failed(_)))
    };
    match which {
        PublishScope::RunningOnly => false,
        PublishScope::RunningAnd(other) => other == name,
        PublishScope::LoadAttempted => experiment.design.arms.iter().all(tried),
        PublishScope::All => true,
    }
}

fn has_same_phases(before: &BTreeMap<String, Arc<ActivePhase>>, after: &BTreeMap<String, Arc<ActivePhase>>) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((on, a), (other, b))| on == other && Arc::ptr_eq(a, b))
}

/// Refuses a design that names what there is not.
fn check_references(design: &ExperimentDesign, world: &RegistryView<'_>) -> Result<(), ExperimentError> {
    if !world.records.contains_key(&design.model) {
        return Err(ExperimentError::Invalid("/on".to_owned(), format!("there is no model {}", design.model)));
    }
    for (index, arm) in design.arms.iter().enumerate() {
        let Some(record) = world.records.get(&arm.model) else {
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
