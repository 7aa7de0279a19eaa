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

/// Which experiments come into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// Changes of those that run here already, and their ends.
    Known,
    /// Also those that are new: their versions were loaded, if they can be.
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
        self.change_experiment(name, "design", order, apply).await
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
        self.compare_tasks(&experiment)?;
        let changed = self.change_experiment(name, "start", order, |found, world| {
            let mut experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
            exist(&experiment.design, world)?;
            let active = |model: &str| world.records.get(model).and_then(|record| record.active.clone());
            if !experiment.start(now(), active)? {
                return Ok(Becomes::AsItWas);
            }
            Ok(Becomes::This(Box::new(experiment)))
        });
        let changed = changed.await;
        drop(needed);
        for arm in &experiment.design.arms {
            // What was loaded for it may not be needed.
            self.settle(&arm.model);
        }
        changed
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

    /// Makes the version of an arm the active one of the model that callers ask for, and ends the experiment.
    ///
    /// # Errors
    /// [`KeepError`]. If it was interrupted between the two, the experiment goes on, and it can be done again.
    pub async fn promote(&self, name: &str, arm: &str, order: &Order) -> Result<ExperimentOutcome, KeepError> {
        let experiment = self.experiments().remove(name).ok_or_else(|| unknown(name))?;
        let refused = |reason: String| ExperimentError::Refused(reason);
        let check = |experiment: &Experiment| -> Result<Arm, ExperimentError> {
            let found = experiment.design.arms.iter().find(|found| found.name == arm);
            let found = found.ok_or_else(|| refused(format!("the experiment has no arm {arm}")))?;
            if found.model != experiment.design.on {
                return Err(refused(format!(
                    "arm {arm} is another model than callers ask for: it cannot become its active version"
                )));
            }
            if !experiment.is_open() {
                return Err(refused("the experiment has ended".to_owned()));
            }
            Ok(found.clone())
        };
        let stale = order.revision.is_some_and(|seen| seen != experiment.revision);
        if stale {
            return Err(ChangeError::Stale(experiment.revision).into());
        }
        let found = check(&experiment).map_err(ChangeError::from)?;
        if let Some(version) = &found.version {
            let reason = format!(
                "experiment {name}, arm {arm}{}",
                order.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
            );
            let activate = Order { who: order.who.clone(), reason: Some(reason), ..Order::default() };
            self.activate(&found.model, version, &activate).await?;
        }
        let outcome = format!("{arm} became the active version");
        self.alter_experiment(name, "promote", order, |experiment| experiment.end(now(), Some(outcome))).await
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
        self.change_experiment(name, "forget", order, forget).await
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
        self.change_experiment(name, action, order, apply).await
    }

    async fn change_experiment(
        &self,
        name: &str,
        action: &str,
        order: &Order,
        apply: impl FnOnce(Option<Experiment>, &World<'_>) -> Result<Becomes, ExperimentError>,
    ) -> Result<ExperimentOutcome, KeepError> {
        let reason = order.reason.as_deref();
        let event = Event { who: &order.who, action, version: None, experiment: Some(name), reason };
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
                let before = known.experiments.get(name).map(|before| (before.revision, before.design.on.clone()));
                match after {
                    Some(after) if before.as_ref().is_none_or(|(revision, _)| *revision < after.revision) => {
                        known.experiments.insert(name.to_owned(), after.clone());
                    }
                    Some(_) => {}
                    None => _ = known.experiments.remove(name),
                }
                after.as_ref().map(|after| after.design.on.clone()).or(before.map(|(_, on)| on)).unwrap_or_default()
            };
            self.place.host.metrics.changed(&on, &format!("experiment-{action}"));
            self.write_down().await;
            self.publish(Publish::All);
            for arm in after.iter().flat_map(|after| &after.design.arms) {
                self.settle(&arm.model);
            }
        }
        Ok(outcome)
    }

    /// Puts the experiments that run into force.
    pub(super) fn publish(&self, which: Publish) {
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
                None if which == Publish::Known => continue,
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

fn unknown(name: &str) -> KeepError {
    ChangeError::from(ExperimentError::Unknown(name.to_owned())).into()
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
