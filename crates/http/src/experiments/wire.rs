//! `/admin/experiments`: requests to designs, and what is checked of them.

use predictd_api::experiments::{AnonymousRoute, ExperimentDesignBody, GuardrailsBody, PromoteRequest, RolloutBody};
use predictd_experiments::experiment::{AnonymousAssignment, ExperimentArm, ExperimentDesign, MAX_ARMS, PowerTarget};
use predictd_experiments::rollout::{Guardrails, RolloutStrategy, StrategyStep};
use predictd_registry::RegistryError;
use predictd_stats::comparison_plan::{DEFAULT_ALPHA, DEFAULT_POWER};

use crate::error::ApiError;
use crate::registry::wire::{ChangeBody, check_name};

/// Longest salt, in bytes.
const MAX_SALT_BYTES: usize = 256;
/// The control's accuracy as guessed, and the least difference worth finding, by default.
const DEFAULT_POWER_TARGET: (f64, f64) = (0.9, 0.03);
/// Defaults of a step: how long it takes, in seconds, and how many requests.
const DEFAULT_STEP: (u64, u64) = (3_600, 1_000);
/// Percentages that add up to 100.
const PERCENT_SUM_RANGE: std::ops::RangeInclusive<f64> = 99.999..=100.001;

/// What the design of a request means, as it is recorded.
///
/// # Errors
/// [`ApiError`] if it makes no sense.
pub(super) fn into_design(
    body: ExperimentDesignBody,
    name: &str,
    default_model: &str,
) -> Result<ExperimentDesign, ApiError> {
    let on = body.on.unwrap_or_else(|| default_model.to_owned());
    let sum: f64 = body.arms.iter().filter(|arm| !arm.shadow).filter_map(|arm| arm.weight).sum();
    let unit = if PERCENT_SUM_RANGE.contains(&sum) { 100.0 } else { 1.0 };
    let rolled_out = body.rollout.is_some();
    if sum > 1.0 + 1e-6 && unit < 100.0 && !rolled_out {
        let reason = format!("the weights of the arms add up to {sum}: they must add up to 1, or to 100 %");
        return Err(ApiError::at_pointer("/arms", reason));
    }
    let mut arms = Vec::with_capacity(body.arms.len());
    let first = body.arms.iter().find(|arm| !arm.shadow).map(|arm| arm.name.clone());
    let control = body.control.or(first).unwrap_or_default();
    for (index, arm) in body.arms.into_iter().enumerate() {
        let weight = match (arm.shadow, arm.weight) {
            // The steps say it; what an experiment shows of itself can be sent back.
            (false, _) if rolled_out => f64::from(u8::from(arm.name == control)),
            (false, Some(weight)) => weight / unit,
            (false, None) => return Err(ApiError::at_pointer(format!("/arms/{index}/weight"), "an arm has a weight")),
            // A share of the texts by itself.
            (true, Some(weight)) if weight > 1.0 => weight / 100.0,
            (true, weight) => weight.unwrap_or(1.0),
        };
        let model = arm.model.unwrap_or_else(|| on.clone());
        arms.push(ExperimentArm { name: arm.name, model, version: arm.version, weight, shadow: arm.shadow });
    }
    let aim = body.aim.unwrap_or_default();
    let design = ExperimentDesign {
        model: on,
        arms,
        control,
        salt: body.salt.unwrap_or_else(|| name.to_owned()),
        anonymous: match body.anonymous {
            Some(AnonymousRoute::Random) => AnonymousAssignment::Random,
            Some(AnonymousRoute::Control) => AnonymousAssignment::Control,
            None => AnonymousAssignment::default(),
        },
        aim: PowerTarget {
            expected_accuracy: aim.accuracy.unwrap_or(DEFAULT_POWER_TARGET.0),
            min_effect: aim.least.unwrap_or(DEFAULT_POWER_TARGET.1),
            alpha: aim.alpha.unwrap_or(DEFAULT_ALPHA),
            power: aim.power.unwrap_or(DEFAULT_POWER),
        },
        rollout: body.rollout.map(into_rollout),
    };
    design.validate().map_err(|error| RegistryError::Change(error.into()))?;
    Ok(design)
}

fn into_rollout(body: RolloutBody) -> RolloutStrategy {
    let unit = if body.steps.iter().any(|step| step.weight > 1.0) { 100.0 } else { 1.0 };
    let steps = body.steps.into_iter().map(|step| StrategyStep {
        share: step.weight / unit,
        seconds: step.seconds.unwrap_or(DEFAULT_STEP.0),
        requests: step.requests.unwrap_or(DEFAULT_STEP.1),
    });
    let GuardrailsBody { errors, p99, accuracy } = body.guards.unwrap_or_default();
    RolloutStrategy { steps: steps.collect(), guards: Guardrails { errors, p99, accuracy } }
}

impl ChangeBody for ExperimentDesignBody {
    // A new experiment has no revision yet.
    const NEEDS_REVISION: bool = false;

    fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }

    fn check_fields(&self) -> Result<(), ApiError> {
        check_name("/on", self.on.as_ref())?;
        if self.arms.len() > MAX_ARMS {
            return Err(ApiError::at_pointer("/arms", format!("an experiment has at most {MAX_ARMS} arms")));
        }
        for (index, arm) in self.arms.iter().enumerate() {
            check_name(&format!("/arms/{index}/name"), Some(&arm.name))?;
            check_name(&format!("/arms/{index}/model"), arm.model.as_ref())?;
            check_name(&format!("/arms/{index}/version"), arm.version.as_ref())?;
        }
        if self.salt.as_ref().is_some_and(|salt| salt.len() > MAX_SALT_BYTES || salt.contains('\0')) {
            return Err(ApiError::at_pointer(
                "/salt",
                format!("a salt has at most {MAX_SALT_BYTES} bytes, and no NUL"),
            ));
        }
        Ok(())
    }
}

impl ChangeBody for PromoteRequest {
    fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }

    fn check_fields(&self) -> Result<(), ApiError> {
        check_name("/arm", Some(&self.arm))
    }
}
