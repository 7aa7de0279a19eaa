//! What an experiment compares, and how.

use std::collections::BTreeSet;

use predictd_stats::ComparisonPlan;
use serde::{Deserialize, Serialize};

use super::error::ExperimentError;
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

impl ExperimentDesign {
    /// Checks its fields, and those that must fit each other.
    ///
    /// # Errors
    /// [`ExperimentError::Invalid`] with the place in the JSON form.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        if !(1..=MAX_ARMS).contains(&self.arms.len()) {
            return Err(ExperimentError::invalid("/arms", format!("an experiment has 2 to {MAX_ARMS} arms")));
        }
        let mut names = BTreeSet::new();
        for (index, arm) in self.arms.iter().enumerate() {
            if !names.insert(&arm.name) {
                return Err(ExperimentError::invalid(format!("/arms/{index}/name"), "two arms have this name"));
            }
            if !(0.0..=1.0).contains(&arm.weight) {
                return Err(ExperimentError::invalid(
                    format!("/arms/{index}/weight"),
                    "a weight is a number from 0 to 1, or a percentage",
                ));
            }
        }
        if self.serving_arms().count() < 2 && self.shadow_arms().next().is_none() {
            return Err(ExperimentError::invalid(
                "/arms",
                "there is nothing to compare: an arm or a shadow besides the control",
            ));
        }
        let sum: f64 = self.serving_arms().map(|(_, arm)| arm.weight).sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(ExperimentError::invalid("/arms", "the weights of the arms must add up to 1, or to 100 %"));
        }
        if self.control_arm().is_none() {
            return Err(ExperimentError::invalid("/control", "the control must be one of the arms, and no shadow"));
        }
        let PowerTarget { expected_accuracy: accuracy, min_effect: least, alpha, power } = self.aim;
        if ComparisonPlan::new(accuracy, least, [1.0, 1.0], alpha, power).is_none() {
            let ranges =
                "possible are: accuracy 0 to 1, least 0.0001 to 0.5, alpha 0.000001 to 0.5, power 0.5 to 0.9999";
            return Err(ExperimentError::invalid("/aim", ranges));
        }
        if let Some(rollout) = &self.rollout {
            if self.serving_arms().count() != 2 {
                return Err(ExperimentError::invalid(
                    "/rollout",
                    "a rollout has two arms: the control and the version that comes",
                ));
            }
            if self.candidate().is_none_or(|arm| arm.version.is_none() || arm.model != self.model) {
                return Err(ExperimentError::invalid(
                    "/rollout",
                    "what is rolled out is a named version of the model that callers ask for",
                ));
            }
            rollout.validate()?;
        }
        Ok(())
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
        let weights = self.arms.iter().map(|arm| if arm.shadow { 0.0 } else { arm.weight });
        super::bucketing::choose_arm(weights, position)
    }

    pub(super) fn weights(&self) -> Vec<f64> {
        self.arms.iter().map(|arm| arm.weight).collect()
    }

    /// Compares everything but weights.
    pub(super) fn equals_ignoring_weights(&self, other: &Self) -> bool {
        self.without_weights() == other.without_weights()
    }

    fn without_weights(&self) -> Self {
        let mut design = self.clone();
        design.arms.iter_mut().for_each(|arm| arm.weight = 0.0);
        design
    }

    /// Gives the arm that is rolled out its share, and the control the rest.
    pub(super) fn set_candidate_share(&mut self, share: f64) {
        let control = self.control.clone();
        for arm in self.arms.iter_mut().filter(|arm| !arm.shadow) {
            arm.weight = if arm.name == control { 1.0 - share } else { share };
        }
    }
}
