//! What an operator can do to an experiment, and which of them run here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::serving::Needed;
use super::{Counting, KeepError, Keeper, Order};
use crate::experiments::experiment::{
    Arm, Design, Experiment, ExperimentError, Experiments, NAME_KEPT_DAYS, State, fits,
};
use crate::experiments::tally::Running;
use crate::registry::database::experiments::{Becomes, World};
use crate::registry::database::{Change, ChangeError, Event, Outcome, now};
use crate::registry::record::Refusal;
use crate::registry::version::Version;
use crate::registry::{Snapshot, State as VersionState};

/// Which experiments come into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish<'a> {
    /// Changes of those that run here already, and their ends.
    Known,
    /// Also this one, whose versions are loaded.
    Also(&'a str),
    /// Also those whose versions were all tried to load.
    Tried,
    /// All.
    All,
}

/// What became of an experiment; none once it is forgotten.
pub(super) type ExperimentOutcome = Outcome<Option<Experiment>>;

impl Keeper {
    /// The experiments as they were recorded when it was looked last.
    #[must_use]
    pub fn experiments(&self) -> Experiments {
        self.known.lock().experiments.clone()
    }

    /// Makes an experiment, or changes one.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn design(&self, name: &str, design: Design, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        let _alone = self.changing.lock().await;
        let apply = |found: Option<Experiment>, world: &World<'_>| {
            exist(&design, world)?;
            match found {
                None => Ok(Becomes::This(Box::new(Experiment::new(design, now())))),
                Some(mut experiment) => {
                    if !experiment.redesign(design, now())? {
                        return Ok(Becomes::AsItWas);
                    }
                    Ok(Becomes::This(Box::new(experiment)))
                }
            }
        };
        self.change_experiment(name, ("design", None), order, apply).await
    }

    /// Starts an experiment, or goes on with it, once its versions are loaded.
    ///
    /// # Errors
    /// [`KeepError`]; it does not run then.
    pub async fn start(&self, name: &str, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        let _alone = self.changing.lock().await;
        // Another replica may have made it a moment ago.
        self.read().await?;
        let experiment = self.experiments().remove(name).ok_or_else(|| unknown(name))?;
        let mut needed = Vec::new();
        let started = match self.load_arms(&experiment, &mut needed).await {
            Ok(()) => {
                self.change_experiment(name, ("start", None), order, |found, world| started(name, found, world)).await
            }
            Err(error) => Err(error),
        };
        drop(needed);
        for arm in &experiment.design.arms {
            // What was loaded for it may not be needed.
            self.settle(&arm.model);
        }
        started
    }

    /// Loads the versions of all arms; `needed` holds them.
    async fn load_arms<'a>(&'a self, experiment: &Experiment, needed: &mut Vec<Needed<'a>>) -> Result<(), KeepError> {
        for arm in &experiment.design.arms {
            let record = self.record(&arm.model);
            let Some(version) = arm.version.as_deref().or(record.active.as_deref()) else {
                return Err(KeepError::Unfit(format!("arm {}: model {} has no active version", arm.name, arm.model)));
            };
            if !record.versions.contains_key(&Version::new(version)) {
                return Err(Refusal::UnknownVersion(version.to_owned()).into());
            }
            needed.push(Needed::of(self, &arm.model, version));
            self.prepare(&arm.model, &record, version).await?;
        }
        self.compare_tasks(experiment)
    }

    /// Pauses an experiment: everybody gets the active version.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn pause(&self, name: &str, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        self.alter_experiment(name, "pause", order, Experiment::pause).await
    }

    /// Ends an experiment: everybody gets the active version.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn end(
        &self,
        name: &str,
        outcome: Option<String>,
        order: &Order,
    ) -> Result<ExperimentOutcome, KeepError> {
        self.alter_experiment(name, "end", order, |experiment| experiment.end(now(), outcome)).await
    }

    /// Makes the version of an arm the active one of the model that callers ask for, and ends the experiment: both or
    /// neither.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn promote(&self, name: &str, arm: &str, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        let _alone = self.changing.lock().await;
        self.make_active(name, arm, None, order).await
    }

    /// The same for whoever holds the right to change something; where `instead_of` is said, only if that is active.
    pub(super) async fn make_active(
        &self,
        name: &str,
        arm: &str,
        instead_of: Option<&str>,
        order: &Order,
    ) -> Result<ExperimentOutcome, KeepError> {
        let experiment = self.experiments().remove(name).ok_or_else(|| unknown(name))?;
        let version = promoted(&experiment, arm).map_err(ChangeError::from)?;
        let on = experiment.design.on.clone();
        let needed = Needed::of(self, &on, &version);
        self.prepare(&on, &self.record(&on), &version).await?;
        let outcome = format!("{arm} became the active version");
        let changed = self.change_experiment(name, ("promote", Some(&version)), order, |found, world| {
            let mut experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
            let active = world.records.get(&experiment.design.on).and_then(|record| record.active.as_deref());
            if instead_of.is_some() && instead_of != active {
                let reason = "another version was made the active one meanwhile".to_owned();
                return Err(ExperimentError::Refused(reason));
            }
            let version = promoted(&experiment, arm)?;
            experiment.end(now(), Some(outcome))?;
            Ok(Becomes::Promoted(Box::new(experiment), version))
        });
        let changed = changed.await;
        if matches!(changed, Ok(Outcome::Changed(_))) {
            // What is active now is known once it is read.
            self.read().await?;
        }
        drop(needed);
        self.settle(&on);
        changed
    }

    /// Forgets an experiment that has not begun, or has ended so long ago that nobody can tell anything of it any more.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn forget_experiment(&self, name: &str, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        let forget = |found: Option<Experiment>, _: &World<'_>| {
            let experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
            let kept = NAME_KEPT_DAYS * 24 * 3_600 * 1_000;
            let over = experiment.ended.is_some_and(|ended| now().saturating_sub(ended) > kept);
            if experiment.phases.is_empty() || over {
                return Ok(Becomes::Forgotten);
            }
            let reason = format!(
                "its name is kept until {NAME_KEPT_DAYS} days after its end: answers of its arms are still told of"
            );
            Err(ExperimentError::Refused(reason))
        };
        self.change_experiment(name, ("forget", None), order, forget).await
    }

    pub(super) async fn alter_experiment(
        &self,
        name: &str,
        action: &str,
        order: &Order,
        alter: impl FnOnce(&mut Experiment) -> Result<bool, ExperimentError>,
    ) -> Result<ExperimentOutcome, KeepError> {
        let apply = |found: Option<Experiment>, _: &World<'_>| {
            let mut experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
            if !alter(&mut experiment)? {
                return Ok(Becomes::AsItWas);
            }
            Ok(Becomes::This(Box::new(experiment)))
        };
        self.change_experiment(name, (action, None), order, apply).await
    }

    pub(super) async fn change_experiment(
        &self,
        name: &str,
        (action, version): (&str, Option<&str>),
        order: &Order,
        apply: impl FnOnce(Option<Experiment>, &World<'_>) -> Result<Becomes, ExperimentError>,
    ) -> Result<ExperimentOutcome, KeepError> {
        let reason = order.reason.as_deref();
        let event = Event { who: &order.who, action, version, experiment: Some(name), reason };
        let key = order.key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = Change { model: name, revision: order.revision, key, keeps_used: true, event };
        let checked = |found: Option<Experiment>, world: &World<'_>| {
            let becomes = apply(found, world)?;
            if let Becomes::This(experiment) = &becomes {
                fits(name, experiment, world.experiments)?;
            }
            Ok(becomes)
        };
        let outcome = self.place.database.experiment(change, checked).await?;
        if let Outcome::Changed(after) = &outcome {
            tracing::info!(experiment = name, action, by = order.who, "an experiment was changed");
            let on = {
                let mut known = self.known.lock();
                let before = known.experiments.get(name).map(|before| before.design.on.clone());
                match after {
                    Some(after) if !known.experiments.get(name).is_some_and(|known| known.is_later_than(after)) => {
                        known.experiments.insert(name.to_owned(), after.clone());
                    }
                    Some(_) => {}
                    None => _ = known.experiments.remove(name),
                }
                after.as_ref().map(|after| after.design.on.clone()).or(before).unwrap_or_default()
            };
            self.place.host.metrics.changed(&on, &format!("experiment-{action}"));
            self.write_down().await;
            self.publish(Publish::Also(name));
            for arm in after.iter().flat_map(|after| &after.design.arms) {
                self.settle(&arm.model);
            }
        }
        Ok(outcome)
    }

    /// Puts the experiments that run into force.
    pub(super) fn publish(&self, which: Publish<'_>) {
        // Nobody publishes what was true before.
        let known = self.known.lock();
        let before = self.place.registry.snapshot();
        let mut experiments = BTreeMap::new();
        let running = known.experiments.iter().filter(|(_, experiment)| experiment.state == State::Running);
        for (name, experiment) in running {
            let on = &experiment.design.on;
            let here = before.experiments.get(on).filter(|running| running.name == *name);
            let running = match here {
                Some(running) if running.phase == experiment.phase() => Arc::clone(running),
                None if !may_begin(which, name, experiment, &before) => continue,
                _ => self.begin_counting(name, experiment),
            };
            experiments.insert(on.clone(), running);
        }
        if !same(&before.experiments, &experiments) {
            self.place.registry.experiment(experiments);
        }
    }

    /// A phase that begins here, or goes on after a pause.
    fn begin_counting(&self, name: &str, experiment: &Experiment) -> Arc<Running> {
        let mut counting = self.counting.lock();
        let known =
            counting.iter().find(|known| known.running.name == name && known.running.phase == experiment.phase());
        if let Some(known) = known {
            return Arc::clone(&known.running);
        }
        let running = Arc::new(Running::new(name, experiment));
        counting.push(Counting::new(Arc::clone(&running)));
        running
    }

    /// Refuses arms whose answers cannot stand for each other.
    fn compare_tasks(&self, experiment: &Experiment) -> Result<(), KeepError> {
        let snapshot = self.place.registry.snapshot();
        let task = |arm: &Arm| {
            let model = snapshot
                .resolve(Some(&arm.model), arm.version.as_deref())
                .map_err(|error| KeepError::Unfit(format!("arm {}: {error}", arm.name)))?;
            Ok::<_, KeepError>(model.pipeline().head().task())
        };
        let Some((_, control)) = experiment.design.control_arm() else { return Ok(()) };
        let wanted = task(control)?;
        for arm in &experiment.design.arms {
            let found = task(arm)?;
            if found != wanted {
                let reason = format!(
                    "arm {} answers as {found}, the control as {wanted}: one cannot stand for the other",
                    arm.name
                );
                return Err(KeepError::Unfit(reason));
            }
        }
        Ok(())
    }
}

/// What becomes of an experiment that is started.
fn started(name: &str, found: Option<Experiment>, world: &World<'_>) -> Result<Becomes, ExperimentError> {
    let mut experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
    exist(&experiment.design, world)?;
    let active = |model: &str| world.records.get(model).and_then(|record| record.active.clone());
    if !experiment.start(now(), active)? {
        return Ok(Becomes::AsItWas);
    }
    let design = &experiment.design;
    let is_active = |arm: &Arm| arm.model == design.on && arm.version == active(&design.on);
    if design.rollout.is_some() && !design.control_arm().is_some_and(|(_, arm)| is_active(arm)) {
        // Everybody gets the active version where a rollout is taken back.
        let reason = format!("the control of a rollout must be the active version of {}", design.on);
        return Err(ExperimentError::Refused(reason));
    }
    Ok(Becomes::This(Box::new(experiment)))
}

/// The version of an arm that can become the active one.
fn promoted(experiment: &Experiment, arm: &str) -> Result<String, ExperimentError> {
    let refused = |reason: String| Err(ExperimentError::Refused(reason));
    let Some(found) = experiment.design.arms.iter().find(|found| found.name == arm) else {
        return refused(format!("the experiment has no arm {arm}"));
    };
    if found.model != experiment.design.on {
        return refused(format!(
            "arm {arm} is another model than callers ask for: it cannot become its active version"
        ));
    }
    match &found.version {
        _ if !experiment.is_open() => refused("the experiment has ended".to_owned()),
        None => refused(format!("arm {arm} names no version yet")),
        Some(version) => Ok(version.clone()),
    }
}

fn unknown(name: &str) -> KeepError {
    ChangeError::from(ExperimentError::Unknown(name.to_owned())).into()
}

/// True if an experiment that does not run here yet comes into force.
fn may_begin(which: Publish<'_>, name: &str, experiment: &Experiment, snapshot: &Snapshot) -> bool {
    let tried = |arm: &Arm| {
        let state = snapshot.models.get(&arm.model).zip(arm.version.as_ref());
        let state = state.and_then(|(served, version)| served.versions.get(&Version::new(version)));
        matches!(state, Some(VersionState::Ready(_) | VersionState::Failed(_)))
    };
    match which {
        Publish::Known => false,
        Publish::Also(other) => other == name,
        Publish::Tried => experiment.design.arms.iter().all(tried),
        Publish::All => true,
    }
}

fn same(before: &BTreeMap<String, Arc<Running>>, after: &BTreeMap<String, Arc<Running>>) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((on, a), (other, b))| on == other && Arc::ptr_eq(a, b))
}

/// Refuses a design that names what there is not.
fn exist(design: &Design, world: &World<'_>) -> Result<(), ExperimentError> {
    let wrong = |place: String, reason: String| Err(ExperimentError::Invalid(place, reason));
    if !world.records.contains_key(&design.on) {
        return wrong("/on".to_owned(), format!("there is no model {}", design.on));
    }
    for (place, arm) in design.arms.iter().enumerate() {
        let Some(record) = world.records.get(&arm.model) else {
            return wrong(format!("/arms/{place}/model"), format!("there is no model {}", arm.model));
        };
        if let Some(version) =
            arm.version.as_ref().filter(|version| !record.versions.contains_key(&Version::new(version)))
        {
            return wrong(format!("/arms/{place}/version"), format!("model {} has no version {version}", arm.model));
        }
    }
    Ok(())
}
