//! What an experiment compares, and how.

use std::collections::BTreeSet;

use predictd_stats::ComparisonPlan;
use serde::{Deserialize, Serialize};

use super::error::{ExperimentError, require};
use super::rollout::RolloutStrategy;

/// Most arms of an experiment, shadows among them.
pub const MAX_ARMS: usize = 16;

/// What an experiment compares, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentDesign {
    /// The model that callers ask for.
    #[serde(rename = "on")]
    pub model: String,
    /// The arms, in the order in which users are spread over them.
    pub arms: Vec<ExperimentArm>,
    /// The arm that the others are compared with, and that answers where they cannot.
    pub control: String,
    /// Tells experiments apart in where users go.
    pub salt: String,
    /// Where requests go that name no user.
    pub anonymous: AnonymousAssignment,
    /// What is to be found.
    pub aim: PowerTarget,
    /// The steps in which the arm that is not the control gets its share.
    pub rollout: Option<RolloutStrategy>,
}

/// A version that answers a part of the users, or that a part of the texts is shown to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentArm {
    /// Its name.
    pub name: String,
    /// The model.
    pub model: String,
    /// The version; if none is named, the one that is active when the experiment starts.
    pub version: Option<String>,
    /// Its part of the users: 0 to 1. Those of all arms but shadows add up to 1.
    pub weight: f64,
    /// Its answers are only compared; clients never get them.
    pub shadow: bool,
}

/// Where requests go that name no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousAssignment {
    /// To an arm at random, each for itself.
    #[default]
    Random,
    /// To the control.
    Control,
}

/// What is to be found. It never changes: the comparison is valid only for what was fixed before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PowerTarget {
    /// The control's accuracy, as guessed: 0 to 1.
    #[serde(rename = "accuracy")]
    pub expected_accuracy: f64,
    /// The least difference worth finding, a fraction.
    #[serde(rename = "least")]
    pub min_effect: f64,
    /// Chance of a false alarm.
    pub alpha: f64,
    /// Chance that the least difference is found.
    pub power: f64,
}

impl PowerTarget {
    /// What is to be found between the control and another arm of these weights. Nothing if a field is out of range.
    #[must_use]
    pub fn comparison_plan(&self, control: f64, arm: f64) -> Option<ComparisonPlan> {
        // An arm without users has no plan. Its weight says only how long it would take.
        let weights = if control > 0.0 && arm > 0.0 { [control, arm] } else { [1.0, 1.0] };
        ComparisonPlan::new(self.expected_accuracy, self.min_effect, weights, self.alpha, self.power)
    }
}

impl ExperimentDesign {
    /// Checks its fields, and those that must fit each other.
    ///
    /// # Errors
    /// [`ExperimentError::Invalid`] with the place in the JSON form.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        let count = self.arms.len();
        require((1..=MAX_ARMS).contains(&count), "/arms", format!("an experiment has 2 to {MAX_ARMS} arms"))?;
        let mut names = BTreeSet::new();
        for (index, arm) in self.arms.iter().enumerate() {
            require(names.insert(&arm.name), format!("/arms/{index}/name"), "two arms have this name")?;
            require(
                (0.0..=1.0).contains(&arm.weight),
                format!("/arms/{index}/weight"),
                "a weight is a number from 0 to 1, or a percentage",
            )?;
        }
        let serving = self.serving_arms().count();
        require(
            serving > 1 || serving < count,
            "/arms",
            "there is nothing to compare: an arm or a shadow besides the control",
        )?;
        let sum: f64 = self.serving_arms().map(|(_, arm)| arm.weight).sum();
        require((sum - 1.0).abs() <= 1e-6, "/arms", "the weights of the arms must add up to 1, or to 100 %")?;
        require(self.control_arm().is_some(), "/control", "the control must be one of the arms, and no shadow")?;
        require(
            self.aim.comparison_plan(1.0, 1.0).is_some(),
            "/aim",
            "possible are: accuracy 0 to 1, least 0.0001 to 0.5, alpha 0.000001 to 0.5, power 0.5 to 0.9999",
        )?;
        let Some(rollout) = &self.rollout else { return Ok(()) };
        require(serving == 2, "/rollout", "a rollout has two arms: the control and the version that comes")?;
        require(
            self.candidate().is_some_and(|arm| arm.version.is_some() && arm.model == self.model),
            "/rollout",
            "what is rolled out is a named version of the model that callers ask for",
        )?;
        rollout.validate()
    }

    /// The arms that answer, with their places among all.
    pub fn serving_arms(&self) -> impl Iterator<Item = (usize, &ExperimentArm)> {
        self.arms.iter().enumerate().filter(|(_, arm)| !arm.shadow)
    }

    /// The arms that only see texts, with their places among all.
    pub fn shadow_arms(&self) -> impl Iterator<Item = (usize, &ExperimentArm)> {
        self.arms.iter().enumerate().filter(|(_, arm)| arm.shadow)
    }

    /// The control, with its place among all arms.
    #[must_use]
    pub fn control_arm(&self) -> Option<(usize, &ExperimentArm)> {
        self.serving_arms().find(|(_, arm)| arm.name == self.control)
    }

    /// The first arm that answers and is not the control.
    #[must_use]
    pub fn candidate(&self) -> Option<&ExperimentArm> {
        self.serving_arms().map(|(_, arm)| arm).find(|arm| arm.name != self.control)
    }

    /// Where a position lies: the place of an arm that answers.
    #[must_use]
    pub fn arm_at(&self, position: f64) -> Option<usize> {
        super::bucketing::choose_arm(self.arms.iter().map(|arm| if arm.shadow { 0.0 } else { arm.weight }), position)
    }

    /// Compares everything but weights.
    pub(super) fn equals_ignoring_weights(&self, other: &Self) -> bool {
        let mut reweighted = self.clone();
        for (arm, other) in reweighted.arms.iter_mut().zip(&other.arms) {
            arm.weight = other.weight;
        }
        reweighted == *other
    }

    /// The share of the users at a step of the rollout, from 0.
    pub(super) fn step_share(&self, step: usize) -> Option<f64> {
        Some(self.rollout.as_ref()?.steps.get(step)?.share)
    }

    /// Gives the arm that is rolled out its share, and the control the rest.
    pub(super) fn set_candidate_share(&mut self, share: f64) {
        for arm in self.arms.iter_mut().filter(|arm| !arm.shadow) {
            arm.weight = if arm.name == self.control { 1.0 - share } else { share };
        }
    }
}
