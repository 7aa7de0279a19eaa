//! Experiments as they are shown.

use predictd_api::experiments::{
    AnonymousRoute, ArmBody, ExperimentDesignBody, ExperimentView, GuardrailsBody, PhaseView, PowerTargetBody,
    RolloutBody, RolloutStepBody,
};
use predictd_experiments::experiment::{AnonymousAssignment, Experiment, PowerTarget};
use predictd_experiments::rollout::{Guardrails, RolloutStrategy};

use crate::registry::wire::format_millis;

/// An experiment as it is recorded.
pub(super) fn experiment_view(name: String, found: Experiment) -> ExperimentView {
    let step = found.current_step().map(|(step, _)| step + 1);
    let design = found.design;
    let phases = (1..).zip(found.phases).map(|(phase, found)| PhaseView {
        phase,
        began: format_millis(found.began),
        weights: design.arms.iter().map(|arm| arm.name.clone()).zip(found.weights).collect(),
    });
    let phases = phases.collect();
    let arms = design.arms.into_iter().map(|arm| ArmBody {
        name: arm.name,
        model: Some(arm.model),
        version: arm.version,
        weight: Some(arm.weight),
        shadow: arm.shadow,
    });
    let PowerTarget { expected_accuracy: accuracy, min_effect: least, alpha, power } = design.aim;
    ExperimentView {
        name,
        revision: found.revision,
        state: found.state.name().to_owned(),
        design: ExperimentDesignBody {
            on: Some(design.model),
            arms: arms.collect(),
            control: Some(design.control),
            salt: Some(design.salt),
            anonymous: Some(match design.anonymous {
                AnonymousAssignment::Random => AnonymousRoute::Random,
                AnonymousAssignment::Control => AnonymousRoute::Control,
            }),
            aim: Some(PowerTargetBody {
                accuracy: Some(accuracy),
                least: Some(least),
                alpha: Some(alpha),
                power: Some(power),
            }),
            rollout: design.rollout.map(rollout_body),
            reason: None,
        },
        phases,
        step,
        created: format_millis(found.created),
        started: found.started.map(format_millis),
        ended: found.ended.map(format_millis),
        outcome: found.outcome,
    }
}

fn rollout_body(rollout: RolloutStrategy) -> RolloutBody {
    let steps = rollout.steps.into_iter().map(|step| RolloutStepBody {
        weight: step.share,
        seconds: Some(step.seconds),
        requests: Some(step.requests),
    });
    let Guardrails { errors, p99, accuracy } = rollout.guards;
    RolloutBody { steps: steps.collect(), guards: Some(GuardrailsBody { errors, p99, accuracy }) }
}
