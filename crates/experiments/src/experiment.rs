//! What is recorded of an experiment, and how that may change. Pure: no clock, no database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::design::{AnonymousAssignment, ExperimentArm, ExperimentDesign, MAX_ARMS, PowerTarget};
pub use super::error::{ExperimentError, conflict, invalid};

/// Most phases of an experiment.
pub const MAX_PHASES: usize = 256;
/// Most experiments, those that have ended among them.
pub const MAX_EXPERIMENTS: usize = 1_000;
/// How long the name of an experiment that has ended is taken: no receipt of it can be handed back afterwards.
pub const NAME_RESERVATION_DAYS: i64 = 31;

/// Experiments by name.
pub type ExperimentMap = BTreeMap<String, Experiment>;

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Counts its changes.
    pub revision: i64,
    /// What it compares, and how.
    pub design: ExperimentDesign,
    /// Where it is in its life.
    pub state: ExperimentState,
    /// Times with the same weights, the present one last. None before the first start.
    pub phases: Vec<ExperimentPhase>,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// When it was started last.
    pub started: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<i64>,
    /// Why it ended, or what became of its rollout.
    pub outcome: Option<String>,
}

/// Where an experiment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExperimentState {
    /// Not started yet.
    Draft,
    /// Users are spread over its arms.
    Running,
    /// All users get the active version, and nothing is counted.
    Paused,
    /// Over.
    Ended,
}

/// A time with the same weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentPhase {
    /// When it began, in milliseconds since 1970.
    pub began: i64,
    /// The weights of the arms, in their order.
    pub weights: Vec<f64>,
}

impl ExperimentState {
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

impl Experiment {
    /// A new one.
    #[must_use]
    pub fn new(design: ExperimentDesign, now: i64) -> Self {
        Self {
            revision: 0,
            design,
            state: ExperimentState::Draft,
            phases: Vec::new(),
            created: now,
            started: None,
            ended: None,
            outcome: None,
        }
    }

    /// The number of the present phase, from 1; 0 before the first.
    #[must_use]
    pub fn phase_number(&self) -> u32 {
        u32::try_from(self.phases.len()).unwrap_or(u32::MAX)
    }

    /// The step of its rollout, from 0, and since when it goes on.
    #[must_use]
    pub fn current_step(&self) -> Option<(usize, i64)> {
        let rollout = self.design.rollout.as_ref()?;
        let share = self.design.candidate()?.weight;
        // Steps grow: no two have the same share.
        let step = rollout.steps.iter().position(|step| (step.share - share).abs() < 1e-9)?;
        Some((step, self.phases.last()?.began.max(self.started?)))
    }

    /// True for a later revision of the same experiment. A new experiment of the same name is another one.
    #[must_use]
    pub fn is_newer_revision_of(&self, other: &Self) -> bool {
        self.created == other.created && self.revision > other.revision
    }

    /// True while its versions are needed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != ExperimentState::Ended
    }

    /// True while its versions must be loaded.
    #[must_use]
    pub fn is_in_progress(&self) -> bool {
        matches!(self.state, ExperimentState::Running | ExperimentState::Paused)
    }

    /// True if an arm names this version.
    #[must_use]
    pub fn uses_version(&self, model: &str, version: &str) -> bool {
        self.design.arms.iter().any(|arm| arm.model == model && arm.version.as_deref() == Some(version))
    }

    /// Changes the design. While it runs only weights can change, which begins a phase. False if it is so already.
    ///
    /// # Errors
    /// If something else would change, or it has ended.
    pub fn update_design(&mut self, mut design: ExperimentDesign, now: i64) -> Result<bool, ExperimentError> {
        if self.is_in_progress() {
            // Which version is active was found out at the start.
            for arm in design.arms.iter_mut().filter(|arm| arm.version.is_none()) {
                let known = self.design.arms.iter().find(|known| known.name == arm.name && known.model == arm.model);
                arm.version = known.and_then(|known| known.version.clone());
            }
            if design.rollout.is_some() && design.equals_ignoring_weights(&self.design) {
                return Ok(false);
            }
        }
        if design == self.design {
            return Ok(false);
        }
        if !self.is_open() {
            return conflict("the experiment has ended: what it was stays as it is");
        }
        if self.is_in_progress() && !self.design.equals_ignoring_weights(&design) {
            return conflict("only weights can change once an experiment has begun: end it, and make another one");
        }
        self.design = design;
        if self.state == ExperimentState::Running {
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
            ExperimentState::Running => return Ok(false),
            ExperimentState::Ended => return conflict("the experiment has ended"),
            ExperimentState::Draft => {
                for arm in self.design.arms.iter_mut().filter(|arm| arm.version.is_none()) {
                    arm.version = active(&arm.model);
                    if arm.version.is_none() {
                        return conflict(format!("model {} has no active version", arm.model));
                    }
                }
                if let Some(share) = self.design.step_share(0) {
                    self.design.set_candidate_share(share);
                }
            }
            ExperimentState::Paused => {}
        }
        self.begin_phase(now)?;
        self.state = ExperimentState::Running;
        self.started = Some(now);
        Ok(true)
    }

    /// Gives all users the active version for a while. False if they have it already.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self) -> Result<bool, ExperimentError> {
        if !self.is_in_progress() {
            return conflict("the experiment does not run");
        }
        Ok(std::mem::replace(&mut self.state, ExperimentState::Paused) != ExperimentState::Paused)
    }

    /// Ends it for good. False if it has ended.
    ///
    /// # Errors
    /// None so far; the form is that of the other changes.
    pub fn end(&mut self, now: i64, outcome: Option<String>) -> Result<bool, ExperimentError> {
        if !self.is_open() {
            return Ok(false);
        }
        self.state = ExperimentState::Ended;
        self.ended = Some(now);
        self.outcome = outcome;
        Ok(true)
    }

    /// Goes on to a step of the rollout, from 0.
    ///
    /// # Errors
    /// If it does not run, or has no such step.
    pub fn advance_to_step(&mut self, step: usize, now: i64) -> Result<bool, ExperimentError> {
        let Some(share) = self.design.step_share(step).filter(|_| self.state == ExperimentState::Running) else {
            return conflict("the rollout does not run");
        };
        self.design.set_candidate_share(share);
        self.begin_phase(now)?;
        Ok(true)
    }

    fn begin_phase(&mut self, now: i64) -> Result<(), ExperimentError> {
        let weights: Vec<f64> = self.design.arms.iter().map(|arm| arm.weight).collect();
        if self.phases.last().is_some_and(|phase| phase.weights == weights) {
            // A pause changes nothing of what is compared.
            return Ok(());
        }
        if self.phases.len() >= MAX_PHASES {
            return conflict(format!("the weights were changed {MAX_PHASES} times: end it"));
        }
        self.phases.push(ExperimentPhase { began: now, weights });
        Ok(())
    }
}

/// Checks that an experiment does not collide with the others.
///
/// # Errors
/// If another one runs on the same model, or there are too many.
pub fn check_conflicts(name: &str, experiment: &Experiment, all: &ExperimentMap) -> Result<(), ExperimentError> {
    if !all.contains_key(name) && all.len() >= MAX_EXPERIMENTS {
        return conflict(format!("there are {MAX_EXPERIMENTS} experiments: forget one first"));
    }
    let model = &experiment.design.model;
    let mut running = all.iter().filter(|(_, other)| other.state == ExperimentState::Running);
    let other = running.find(|(other_name, other)| *other_name != name && other.design.model == *model);
    match other {
        Some((other, _)) if experiment.state == ExperimentState::Running => {
            conflict(format!("experiment {other} runs on {model}: pause or end it first"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
