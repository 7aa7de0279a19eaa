//! Experiments as they are shown.

use std::collections::BTreeMap;

use predictd_experiments::experiment::{self, PowerTarget};
use predictd_experiments::rollout::{Guardrails, StrategyStep};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{ArmBody, ExperimentDesignBody, GuardrailsBody, PowerTargetBody, RolloutBody, RolloutStepBody};
use crate::registry::wire::format_millis;

/// All experiments.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExperimentListView {
    /// True while the database does not answer: this is what was known last.
    pub stale: bool,
    /// By name.
    pub experiments: Vec<ExperimentView>,
}

/// An experiment after a change.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExperimentChangeResponse {
    /// False if it was so already.
    pub changed: bool,
    /// The experiment; none once it is forgotten.
    pub experiment: Option<ExperimentView>,
}

/// An experiment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExperimentView {
    /// Its name.
    pub name: String,
    /// Changes of it so far: its `ETag`.
    pub revision: i64,
    /// `draft`, `running`, `paused` or `ended`.
    pub state: &'static str,
    /// What it compares, and how.
    #[serde(flatten)]
    pub design: ExperimentDesignBody,
    /// Times with the same weights, the present one last.
    pub phases: Vec<PhaseView>,
    /// The step of its rollout, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When it was started last.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Why it ended, or what became of its rollout.
    pub outcome: Option<String>,
}

/// A time with the same weights.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhaseView {
    /// Its number, from 1.
    pub phase: usize,
    /// When it began (RFC 3339).
    pub began: String,
    /// The weights, by arm.
    pub weights: BTreeMap<String, f64>,
}

impl ExperimentView {
    /// An experiment as it is recorded.
    #[must_use]
    pub fn from_experiment(name: &str, found: &experiment::Experiment) -> Self {
        let design = &found.design;
        let arm = |arm: &experiment::ExperimentArm| ArmBody {
            name: arm.name.clone(),
            model: Some(arm.model.clone()),
            version: arm.version.clone(),
            weight: Some(arm.weight),
            shadow: arm.shadow,
        };
        let PowerTarget { expected_accuracy: accuracy, min_effect: least, alpha, power } = design.aim;
        let aim =
            PowerTargetBody { accuracy: Some(accuracy), least: Some(least), alpha: Some(alpha), power: Some(power) };
        let rollout = design.rollout.as_ref().map(|rollout| {
            let step = |step: &StrategyStep| RolloutStepBody {
                weight: step.share,
                seconds: Some(step.seconds),
                requests: Some(step.requests),
            };
            let Guardrails { errors, p99, accuracy } = rollout.guards;
            let guards = Some(GuardrailsBody { errors, p99, accuracy });
            RolloutBody { steps: rollout.steps.iter().map(step).collect(), guards }
        });
        let phase = |(phase, found): (usize, &experiment::ExperimentPhase)| PhaseView {
            phase,
            began: format_millis(found.began),
            weights: design.arms.iter().map(|arm| arm.name.clone()).zip(found.weights.iter().copied()).collect(),
        };
        Self {
            name: name.to_owned(),
            revision: found.revision,
            state: found.state.name(),
            design: ExperimentDesignBody {
                on: Some(design.model.clone()),
                arms: design.arms.iter().map(arm).collect(),
                control: Some(design.control.clone()),
                salt: Some(design.salt.clone()),
                anonymous: Some(design.anonymous),
                aim: Some(aim),
                rollout,
                reason: None,
            },
            phases: (1..).zip(&found.phases).map(phase).collect(),
            step: found.current_step().map(|(step, _)| step + 1),
            created: format_millis(found.created),
            started: found.started.map(format_millis),
            ended: found.ended.map(format_millis),
            outcome: found.outcome.clone(),
        }
    }
}
