//! `/admin/experiments`: requests to designs, and what is checked of them.

use predictd_api::experiments::{
    AnonymousRoute, ExperimentDesignBody, GuardrailsBody, PromoteRequest, RolloutBody, RolloutStepBody,
    StateChangeRequest,
};
use predictd_experiments::experiment::{self, AnonymousAssignment, ExperimentError, PowerTarget};
use predictd_experiments::rollout::{self, Guardrails, StrategyStep};
use predictd_registry::is_valid_name;
use predictd_stats::comparison_plan::{DEFAULT_ALPHA, DEFAULT_POWER};

use crate::body::RequestBody;
use crate::error::ApiError;
use crate::json;
use crate::registry::wire::{NAME_RULE, check_reason};
use crate::settings::RequestLimits;

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
/// [`ExperimentError`] if it makes no sense.
pub(super) fn into_design(
    body: ExperimentDesignBody,
    name: &str,
    default_model: &str,
) -> Result<experiment::ExperimentDesign, ExperimentError> {
    let on = body.on.unwrap_or_else(|| default_model.to_owned());
    let sum: f64 = body.arms.iter().filter(|arm| !arm.shadow).filter_map(|arm| arm.weight).sum();
    let unit = if PERCENT_SUM_RANGE.contains(&sum) { 100.0 } else { 1.0 };
    let rolled_out = body.rollout.is_some();
    if sum > 1.0 + 1e-6 && unit < 100.0 && !rolled_out {
        let reason = format!("the weights of the arms add up to {sum}: they must add up to 1, or to 100 %");
        return Err(ExperimentError::Invalid("/arms".to_owned(), reason));
    }
    let mut arms = Vec::with_capacity(body.arms.len());
    let first = body.arms.iter().find(|arm| !arm.shadow).map(|arm| arm.name.clone());
    let control = body.control.or(first).unwrap_or_default();
    for (place, arm) in body.arms.into_iter().enumerate() {
        let wrong = |reason: &str| ExperimentError::Invalid(format!("/arms/{place}/weight"), reason.to_owned());
        let weight = match arm.weight {
            // The steps say it; what an experiment shows of itself can be sent back.
            _ if rolled_out && !arm.shadow => f64::from(u8::from(arm.name == control)),
            // A share of the texts by itbody.
            Some(weight) if arm.shadow => {
                if weight > 1.0 {
                    weight / 100.0
                } else {
                    weight
                }
            }
            Some(weight) => weight / unit,
            None if arm.shadow => 1.0,
            None => return Err(wrong("an arm has a weight")),
        };
        let model = arm.model.unwrap_or_else(|| on.clone());
        arms.push(experiment::ExperimentArm {
            name: arm.name,
            model,
            version: arm.version,
            weight,
            shadow: arm.shadow,
        });
    }
    let aim = body.aim.unwrap_or_default();
    let design = experiment::ExperimentDesign {
        model: on,
        arms,
        control,
        salt: body.salt.unwrap_or_else(|| name.to_owned()),
        anonymous: body.anonymous.map(assignment).unwrap_or_default(),
        aim: PowerTarget {
            expected_accuracy: aim.accuracy.unwrap_or(DEFAULT_POWER_TARGET.0),
            min_effect: aim.least.unwrap_or(DEFAULT_POWER_TARGET.1),
            alpha: aim.alpha.unwrap_or(DEFAULT_ALPHA),
            power: aim.power.unwrap_or(DEFAULT_POWER),
        },
        rollout: body.rollout.map(into_rollout),
    };
    design.validate()?;
    Ok(design)
}

fn assignment(anonymous: AnonymousRoute) -> AnonymousAssignment {
    match anonymous {
        AnonymousRoute::Random => AnonymousAssignment::Random,
        AnonymousRoute::Control => AnonymousAssignment::Control,
    }
}

fn into_rollout(body: RolloutBody) -> rollout::RolloutStrategy {
    let unit = if body.steps.iter().any(|step| step.weight > 1.0) { 100.0 } else { 1.0 };
    let step = |step: &RolloutStepBody| StrategyStep {
        share: step.weight / unit,
        seconds: step.seconds.unwrap_or(DEFAULT_STEP.0),
        requests: step.requests.unwrap_or(DEFAULT_STEP.1),
    };
    let GuardrailsBody { errors, p99, accuracy } = body.guards.unwrap_or_default();
    rollout::RolloutStrategy {
        steps: body.steps.iter().map(step).collect(),
        guards: Guardrails { errors, p99, accuracy },
    }
}

/// Why a design is refused.
pub(super) fn design_error(error: ExperimentError) -> ApiError {
    match error {
        ExperimentError::Invalid(pointer, reason) => ApiError::at_pointer(pointer, reason),
        error => ApiError::at_pointer("", error.to_string()),
    }
}

fn check_name(pointer: &str, name: &str) -> Result<(), ApiError> {
    if is_valid_name(name) { Ok(()) } else { Err(ApiError::at_pointer(pointer, NAME_RULE)) }
}

impl RequestBody for ExperimentDesignBody {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        self.on.iter().try_for_each(|on| check_name("/on", on))?;
        if self.arms.len() > experiment::MAX_ARMS {
            return Err(ApiError::at_pointer(
                "/arms",
                format!("an experiment has at most {} arms", experiment::MAX_ARMS),
            ));
        }
        for (place, arm) in self.arms.iter().enumerate() {
            check_name(&format!("/arms/{place}/name"), &arm.name)?;
            arm.model.iter().try_for_each(|model| check_name(&format!("/arms/{place}/model"), model))?;
            arm.version.iter().try_for_each(|version| check_name(&format!("/arms/{place}/version"), version))?;
        }
        if self.salt.as_ref().is_some_and(|salt| salt.len() > MAX_SALT_BYTES || salt.contains('\0')) {
            return Err(ApiError::at_pointer(
                "/salt",
                format!("a salt has at most {MAX_SALT_BYTES} bytes, and no NUL"),
            ));
        }
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for StateChangeRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        // The body is optional.
        if bytes.is_empty() { Ok(Self { reason: None }) } else { json::from_json(bytes) }
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for PromoteRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        check_name("/arm", &self.arm)?;
        check_reason(self.reason.as_ref())
    }
}
