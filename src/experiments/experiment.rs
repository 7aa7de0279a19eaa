//! What is recorded of an experiment, and how that may change. Pure: no clock, no database.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rollout::Rollout;
use super::statistics::Plan;

/// Most arms of an experiment, shadows among them.
pub const MAX_ARMS: usize = 16;
/// Most phases of an experiment.
pub const MAX_PHASES: usize = 256;
/// Most experiments, those that have ended among them.
pub const MAX_EXPERIMENTS: usize = 1_000;
/// How long the name of an experiment that has ended is taken: no receipt of it can be handed back afterwards.
pub const NAME_KEPT_DAYS: i64 = 31;

/// Experiments by name.
pub type Experiments = BTreeMap<String, Experiment>;

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Counts its changes.
    pub revision: i64,
    /// What it compares, and how.
    pub design: Design,
    /// Where it is in its life.
    pub state: State,
    /// Times with the same weights, the present one last. None before the first start.
    pub phases: Vec<Phase>,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// When it was started last.
    pub started: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<i64>,
    /// Why it ended, or what became of its rollout.
    pub outcome: Option<String>,
}

/// What an experiment compares, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Design {
    /// The model that callers ask for.
    pub on: String,
    /// The arms, in the order in which users are spread over them.
    pub arms: Vec<Arm>,
    /// The arm that the others are compared with, and that answers where they cannot.
    pub control: String,
    /// Tells experiments apart in where users go.
    pub salt: String,
    /// Where requests go that name no user.
    pub anonymous: Anonymous,
    /// What is to be found.
    pub aim: Aim,
    /// The steps in which the arm that is not the control gets its share.
    pub rollout: Option<Rollout>,
}

/// A version that answers a part of the users, or that a part of the texts is shown to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The model.
    pub model: String,
    /// The version; if none is named, the one that is active when the experiment starts.
    pub version: Option<String>,
    /// Its part of the users: 0 to 1. Those of all arms but shadows add up to 1.
    pub weight: f64,
    /// Its answers are only compared; nobody gets them.
    pub shadow: bool,
}

/// Where requests go that name no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// To an arm at random, each for itself.
    #[default]
    Random,
    /// To the control.
    Control,
}

/// What is to be found. It never changes: the comparison is valid only for what was fixed before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Aim {
    /// The control's accuracy, as guessed: 0 to 1.
    pub accuracy: f64,
    /// The least difference worth finding, a fraction.
    pub least: f64,
    /// Chance of a false alarm.
    pub alpha: f64,
    /// Chance that the least difference is found.
    pub power: f64,
}

/// Where an experiment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not started yet.
    Draft,
    /// Users are spread over its arms.
    Running,
    /// Everybody gets the active version, and nothing is counted.
    Paused,
    /// Over.
    Ended,
}

/// A time with the same weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// When it began, in milliseconds since 1970.
    pub began: i64,
    /// The weights of the arms, in their order.
    pub weights: Vec<f64>,
}

/// Why an experiment cannot be as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExperimentError {
    /// There is none of this name.
    #[error("there is no experiment {0}")]
    Unknown(String),
    /// It does not allow it as it is now.
    #[error("{0}")]
    Refused(String),
    /// A field of its design is wrong: where, and why.
    #[error("{1}")]
    Invalid(String, String),
}

impl State {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

impl Design {
    /// Looks whether it makes sense in itself.
    ///
    /// # Errors
    /// [`ExperimentError::Invalid`] with the place in the JSON form.
    pub fn check(&self) -> Result<(), ExperimentError> {
        let wrong = |place: String, reason: &str| Err(ExperimentError::Invalid(place, reason.to_owned()));
        if !(1..=MAX_ARMS).contains(&self.arms.len()) {
            return wrong("/arms".to_owned(), &format!("an experiment has 2 to {MAX_ARMS} arms"));
        }
        let mut names = BTreeSet::new();
        for (place, arm) in self.arms.iter().enumerate() {
            if !names.insert(&arm.name) {
                return wrong(format!("/arms/{place}/name"), "two arms have this name");
            }
            if !(0.0..=1.0).contains(&arm.weight) {
                return wrong(format!("/arms/{place}/weight"), "a weight is a number from 0 to 1, or a percentage");
            }
        }
        if self.answering().count() < 2 && self.shadows().next().is_none() {
            return wrong("/arms".to_owned(), "there is nothing to compare: an arm or a shadow besides the control");
        }
        let sum: f64 = self.answering().map(|(_, arm)| arm.weight).sum();
        if (sum - 1.0).abs() > 1e-6 {
            return wrong("/arms".to_owned(), "the weights of the arms must add up to 1, or to 100 %");
        }
        if self.control_arm().is_none() {
            return wrong("/control".to_owned(), "the control must be one of the arms, and no shadow");
        }
        let Aim { accuracy, least, alpha, power } = self.aim;
        if Plan::new(accuracy, least, [1.0, 1.0], alpha, power).is_none() {
            let ranges =
                "possible are: accuracy 0 to 1, least 0.0001 to 0.5, alpha 0.000001 to 0.5, power 0.5 to 0.9999";
            return wrong("/aim".to_owned(), ranges);
        }
        if let Some(rollout) = &self.rollout {
            if self.answering().count() != 2 {
                return wrong("/rollout".to_owned(), "a rollout has two arms: the control and the version that comes");
            }
            if self.candidate().is_none_or(|arm| arm.version.is_none() || arm.model != self.on) {
                return wrong(
                    "/rollout".to_owned(),
                    "what is rolled out is a named version of the model that callers ask for",
                );
            }
            rollout.check()?;
        }
        Ok(())
    }

    /// The arms that answer, with their places among all.
    pub fn answering(&self) -> impl Iterator<Item = (usize, &Arm)> {
        self.arms.iter().enumerate().filter(|(_, arm)| !arm.shadow)
    }

    /// The arms that only see texts, with their places among all.
    pub fn shadows(&self) -> impl Iterator<Item = (usize, &Arm)> {
        self.arms.iter().enumerate().filter(|(_, arm)| arm.shadow)
    }

    /// The control, with its place among all arms.
    #[must_use]
    pub fn control_arm(&self) -> Option<(usize, &Arm)> {
        self.answering().find(|(_, arm)| arm.name == self.control)
    }

    /// The first arm that answers and is not the control.
    #[must_use]
    pub fn candidate(&self) -> Option<&Arm> {
        self.answering().map(|(_, arm)| arm).find(|arm| arm.name != self.control)
    }

    /// Where a position lies: the place of an arm that answers.
    #[must_use]
    pub fn choose(&self, position: f64) -> Option<usize> {
        let weights = self.arms.iter().map(|arm| if arm.shadow { 0.0 } else { arm.weight });
        super::assignment::choose(weights, position)
    }

    fn weights(&self) -> Vec<f64> {
        self.arms.iter().map(|arm| arm.weight).collect()
    }

    /// The same but for weights.
    fn is_like(&self, other: &Self) -> bool {
        let without = |design: &Self| {
            let mut design = design.clone();
            design.arms.iter_mut().filter(|arm| !arm.shadow).for_each(|arm| arm.weight = 0.0);
            design
        };
        without(self) == without(other)
    }

    /// Gives the arm that is rolled out its share, and the control the rest.
    fn share(&mut self, share: f64) {
        let control = self.control.clone();
        for arm in self.arms.iter_mut().filter(|arm| !arm.shadow) {
            arm.weight = if arm.name == control { 1.0 - share } else { share };
        }
    }
}

impl Experiment {
    /// A new one.
    #[must_use]
    pub fn new(design: Design, now: i64) -> Self {
        let (phases, started, ended, outcome) = (Vec::new(), None, None, None);
        Self { revision: 0, design, state: State::Draft, phases, created: now, started, ended, outcome }
    }

    /// The number of the present phase, from 1; 0 before the first.
    #[must_use]
    pub fn phase(&self) -> u32 {
        u32::try_from(self.phases.len()).unwrap_or(u32::MAX)
    }

    /// The step of its rollout, from 0, and since when it goes on.
    #[must_use]
    pub fn step_now(&self) -> Option<(usize, i64)> {
        let (rollout, share) = (self.design.rollout.as_ref()?, self.design.candidate()?.weight);
        // Steps grow: no two have the same share.
        let step = rollout.steps.iter().position(|step| (step.share - share).abs() < 1e-9)?;
        Some((step, self.phases.last()?.began.max(self.started?)))
    }

    /// True while its versions are needed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Ended
    }

    /// True while its versions must be loaded.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// True if an arm names this version.
    #[must_use]
    pub fn uses(&self, model: &str, version: &str) -> bool {
        self.design.arms.iter().any(|arm| arm.model == model && arm.version.as_deref() == Some(version))
    }

    /// Changes the design. While it runs only weights can change, which begins a phase. False if it is so already.
    ///
    /// # Errors
    /// If something else would change, or it has ended.
    pub fn redesign(&mut self, mut design: Design, now: i64) -> Result<bool, ExperimentError> {
        if self.is_under_way() {
            // Which version is active was found out at the start.
            for arm in design.arms.iter_mut().filter(|arm| arm.version.is_none()) {
                let known = self.design.arms.iter().find(|known| known.name == arm.name && known.model == arm.model);
                arm.version = known.and_then(|known| known.version.clone());
            }
            if design.rollout.is_some() && design.is_like(&self.design) {
                design = self.design.clone();
            }
        }
        let refused = |reason: &str| Err(ExperimentError::Refused(reason.to_owned()));
        if design == self.design {
            return Ok(false);
        }
        match self.state {
            State::Ended => return refused("the experiment has ended: what it was stays as it is"),
            State::Running | State::Paused if !self.design.is_like(&design) => {
                return refused("only weights can change once an experiment has begun: end it, and make another one");
            }
            State::Draft | State::Running | State::Paused => {}
        }
        self.design = design;
        if self.state == State::Running {
            self.begin_phase(now)?;
        }
        Ok(true)
    }

    /// Starts it, or goes on after a pause. False if it runs. `active` says which version of a model is active.
    ///
    /// # Errors
    /// If it has ended, or a model has no active version.
    pub fn start(&mut self, now: i64, active: impl Fn(&str) -> Option<String>) -> Result<bool, ExperimentError> {
        match self.state {
            State::Running => return Ok(false),
            State::Ended => return Err(ExperimentError::Refused("the experiment has ended".to_owned())),
            State::Draft => {
                for arm in self.design.arms.iter_mut().filter(|arm| arm.version.is_none()) {
                    let none = || ExperimentError::Refused(format!("model {} has no active version", arm.model));
                    arm.version = Some(active(&arm.model).ok_or_else(none)?);
                }
                if let Some(first) = self.design.rollout.as_ref().and_then(|rollout| rollout.steps.first()) {
                    let share = first.share;
                    self.design.share(share);
                }
            }
            State::Paused => {}
        }
        self.begin_phase(now)?;
        (self.state, self.started) = (State::Running, Some(now));
        Ok(true)
    }

    /// Gives everybody the active version for a while. False if it is so.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self) -> Result<bool, ExperimentError> {
        match self.state {
            State::Paused => Ok(false),
            State::Running => {
                self.state = State::Paused;
                Ok(true)
            }
            State::Draft | State::Ended => Err(ExperimentError::Refused("the experiment does not run".to_owned())),
        }
    }

    /// Ends it for good. False if it has ended.
    ///
    /// # Errors
    /// None so far; the form is that of the other changes.
    pub fn end(&mut self, now: i64, outcome: Option<String>) -> Result<bool, ExperimentError> {
        if self.state == State::Ended {
            return Ok(false);
        }
        (self.state, self.ended, self.outcome) = (State::Ended, Some(now), outcome);
        Ok(true)
    }

    /// Goes on to a step of the rollout, from 0.
    ///
    /// # Errors
    /// If it does not run, or has no such step.
    pub fn step(&mut self, step: usize, now: i64) -> Result<bool, ExperimentError> {
        let found = self.design.rollout.as_ref().and_then(|rollout| rollout.steps.get(step));
        let Some(share) = found.map(|step| step.share).filter(|_| self.state == State::Running) else {
            return Err(ExperimentError::Refused("the rollout does not run".to_owned()));
        };
        self.design.share(share);
        self.begin_phase(now)?;
        Ok(true)
    }

    fn begin_phase(&mut self, now: i64) -> Result<(), ExperimentError> {
        let weights = self.design.weights();
        if self.phases.last().is_some_and(|phase| phase.weights == weights) {
            // A pause changes nothing of what is compared.
            return Ok(());
        }
        if self.phases.len() >= MAX_PHASES {
            return Err(ExperimentError::Refused(format!("the weights were changed {MAX_PHASES} times: end it")));
        }
        self.phases.push(Phase { began: now, weights });
        Ok(())
    }
}

/// What an experiment must not collide with.
///
/// # Errors
/// If another one runs on the same model, or there are too many.
pub fn fits(name: &str, experiment: &Experiment, all: &Experiments) -> Result<(), ExperimentError> {
    let others = || all.iter().filter(|(other, _)| *other != name);
    if !all.contains_key(name) && all.len() >= MAX_EXPERIMENTS {
        return Err(ExperimentError::Refused(format!("there are {MAX_EXPERIMENTS} experiments: forget one first")));
    }
    let on = &experiment.design.on;
    let same = |other: &Experiment| other.state == State::Running && other.design.on == *on;
    match others().find(|(_, other)| experiment.state == State::Running && same(other)) {
        Some((other, _)) => {
            Err(ExperimentError::Refused(format!("experiment {other} runs on {on}: pause or end it first")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
