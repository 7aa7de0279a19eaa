//! Experiments as they are shown.

use predictd_api::experiments::{
    AnonymousRoute, ArmBody, ExperimentDesignBody, ExperimentView, GuardrailsBody, PhaseView, PowerTargetBody,
    RolloutBody, RolloutStepBody,
};
use predictd_experiments::experiment::{self, AnonymousAssignment, PowerTarget};
use predictd_experiments::rollout::{Guardrails, StrategyStep};

use crate::registry::wire::format_millis;

/// An experiment as it is recorded.
pub(super) fn experiment_view(name: &str, found: &experiment::Experiment) -> ExperimentView {
    let design = &found.design;
    let arm = |arm: &experiment::ExperimentArm| ArmBody {
        name: arm.name.clone(),
        model: Some(arm.model.clone()),
        version: arm.version.clone(),
        weight: Some(arm.weight),
        shadow: arm.shadow,
    };
    let PowerTarget { expected_accuracy: accuracy, min_effect: least, alpha, power } = design.aim;
    let aim = PowerTargetBody { accuracy: Some(accuracy), least: Some(least), alpha: Some(alpha), power: Some(power) };
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
    let anonymous = match design.anonymous {
        AnonymousAssignment::Random => AnonymousRoute::Random,
        AnonymousAssignment::Control => AnonymousRoute::Control,
    };
    ExperimentView {
        name: name.to_owned(),
        revision: found.revision,
        state: found.state.name().to_owned(),
        design: ExperimentDesignBody {
            on: Some(design.model.clone()),
            arms: design.arms.iter().map(arm).collect(),
            control: Some(design.control.clone()),
            salt: Some(design.salt.clone()),
            anonymous: Some(anonymous),
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
