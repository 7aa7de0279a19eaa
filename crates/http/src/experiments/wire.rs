//! The wire types of `/admin/experiments`.

use predictd_experiments::experiment::{self, AnonymousAssignment, ExperimentError, PowerTarget};
use predictd_experiments::rollout::{self, Guardrails, StrategyStep};
use predictd_registry::is_valid_name;
use predictd_stats::comparison_plan::{DEFAULT_ALPHA, DEFAULT_POWER};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::RequestBody;
use crate::error::ApiError;
use crate::json;
use crate::registry::wire::{NAME_RULE, check_reason};
use crate::settings::RequestLimits;

/// Longest salt, in bytes.
const MAX_SALT_BYTES: usize = 256;
/// The control's accuracy as guessed, and the least difference worth finding, if nobody says.
const DEFAULT_POWER_TARGET: (f64, f64) = (0.9, 0.03);
/// What nobody says of a step: how long it takes, in seconds, and how many requests.
const DEFAULT_STEP: (u64, u64) = (3_600, 1_000);
/// Percentages that add up to 100.
const PERCENT_SUM_RANGE: std::ops::RangeInclusive<f64> = 99.999..=100.001;

/// What is compared, and how.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExperimentDesignBody {
    /// The model that callers ask for; the default model if none is named.
    #[serde(default)]
    pub on: Option<String>,
    /// 2 to 16 arms, in the order in which users are spread over them.
    pub arms: Vec<ArmBody>,
    /// Name of the arm that the others are compared with, and that answers where they cannot; the first if none is named.
    #[serde(default)]
    pub control: Option<String>,
    /// Tells experiments apart in where users go; the experiment's name if it is not said.
    #[serde(default)]
    pub salt: Option<String>,
    /// Where requests go that name no user: to an arm at `random` (as it is if nobody says), or to the `control`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub anonymous: Option<AnonymousAssignment>,
    /// What is to be found.
    #[serde(default)]
    pub aim: Option<PowerTargetBody>,
    /// Steps in which the version that is not the control gets its share.
    #[serde(default)]
    pub rollout: Option<RolloutBody>,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A version that answers a part of the users, or sees a part of the texts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmBody {
    /// Its name.
    pub name: String,
    /// The model; the one that callers ask for if none is named.
    #[serde(default)]
    pub model: Option<String>,
    /// The version; if none is named, the one that is active when the experiment starts.
    #[serde(default)]
    pub version: Option<String>,
    /// Its part of the users. All but shadows' add up to 1, or to 100 %. In a rollout the steps say it. A shadow's is its part of the texts: up to 1, or a percentage above.
    #[serde(default)]
    pub weight: Option<f64>,
    /// It only sees this part of the texts; nobody gets its answers.
    #[serde(default)]
    pub shadow: bool,
}

/// What is to be found. It is fixed once the experiment has begun.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerTargetBody {
    /// The control's accuracy, as guessed; 0.9 if nobody says. It decides only how long it takes.
    #[serde(default)]
    pub accuracy: Option<f64>,
    /// The least difference worth finding; 0.03, which is 3 points, if nobody says.
    #[serde(default)]
    pub least: Option<f64>,
    /// Chance of a false alarm, however often one looks; 0.05 if nobody says.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Chance that the least difference is found; 0.9 if nobody says.
    #[serde(default)]
    pub power: Option<f64>,
}

/// How a version comes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutBody {
    /// Ever larger parts of the users; after the last the version becomes the active one.
    pub steps: Vec<RolloutStepBody>,
    /// What must not happen; if it does, the experiment ends, and everybody gets the active version, which the control was.
    #[serde(default)]
    pub guards: Option<GuardrailsBody>,
}

/// A part of the users, for a while.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutStepBody {
    /// Of the users: up to 1; percentages if any step has more.
    pub weight: f64,
    /// How long at least, in seconds; an hour if nobody says.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Requests that the version must have had in it; 1,000 if nobody says.
    #[serde(default)]
    pub requests: Option<u64>,
}

/// What must not happen. A guard that is null does not stand.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardrailsBody {
    /// Failed requests, as a part of all, beyond the control's; 0.01 if nobody says.
    #[serde(default = "default_error_guard")]
    pub errors: Option<f64>,
    /// The time that 99 of 100 requests stay within, as a multiple of the control's; 2 if nobody says.
    #[serde(default = "default_p99_guard")]
    pub p99: Option<f64>,
    /// Accuracy below the control's that is sure by feedback; 0 if nobody says.
    #[serde(default = "default_accuracy_guard")]
    pub accuracy: Option<f64>,
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn default_error_guard() -> Option<f64> {
    Some(0.01)
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn default_p99_guard() -> Option<f64> {
    Some(2.0)
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn default_accuracy_guard() -> Option<f64> {
    Some(0.0)
}

/// Why something is done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateChangeRequest {
    /// For the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An arm, and why.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// Its name.
    pub arm: String,
    /// For the history.
    #[serde(default)]
    pub reason: Option<String>,
}

impl ExperimentDesignBody {
    /// What it means, as it is recorded.
    ///
    /// # Errors
    /// [`ExperimentError`] if it makes no sense.
    pub fn into_design(self, name: &str, default_model: &str) -> Result<experiment::ExperimentDesign, ExperimentError> {
        let on = self.on.unwrap_or_else(|| default_model.to_owned());
        let sum: f64 = self.arms.iter().filter(|arm| !arm.shadow).filter_map(|arm| arm.weight).sum();
        let unit = if PERCENT_SUM_RANGE.contains(&sum) { 100.0 } else { 1.0 };
        let rolled_out = self.rollout.is_some();
        if sum > 1.0 + 1e-6 && unit < 100.0 && !rolled_out {
            let reason = format!("the weights of the arms add up to {sum}: they must add up to 1, or to 100 %");
            return Err(ExperimentError::Invalid("/arms".to_owned(), reason));
        }
        let mut arms = Vec::with_capacity(self.arms.len());
        let first = self.arms.iter().find(|arm| !arm.shadow).map(|arm| arm.name.clone());
        let control = self.control.or(first).unwrap_or_default();
        for (place, arm) in self.arms.into_iter().enumerate() {
            let wrong = |reason: &str| ExperimentError::Invalid(format!("/arms/{place}/weight"), reason.to_owned());
            let weight = match arm.weight {
                // The steps say it; what an experiment shows of itself can be sent back.
                _ if rolled_out && !arm.shadow => f64::from(u8::from(arm.name == control)),
                // A share of the texts by itself.
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
        let aim = self.aim.unwrap_or_default();
        let design = experiment::ExperimentDesign {
            model: on,
            arms,
            control,
            salt: self.salt.unwrap_or_else(|| name.to_owned()),
            anonymous: self.anonymous.unwrap_or_default(),
            aim: PowerTarget {
                expected_accuracy: aim.accuracy.unwrap_or(DEFAULT_POWER_TARGET.0),
                min_effect: aim.least.unwrap_or(DEFAULT_POWER_TARGET.1),
                alpha: aim.alpha.unwrap_or(DEFAULT_ALPHA),
                power: aim.power.unwrap_or(DEFAULT_POWER),
            },
            rollout: self.rollout.map(RolloutBody::into_rollout),
        };
        design.validate()?;
        Ok(design)
    }
}

impl RolloutBody {
    fn into_rollout(self) -> rollout::RolloutStrategy {
        let unit = if self.steps.iter().any(|step| step.weight > 1.0) { 100.0 } else { 1.0 };
        let step = |step: &RolloutStepBody| StrategyStep {
            share: step.weight / unit,
            seconds: step.seconds.unwrap_or(DEFAULT_STEP.0),
            requests: step.requests.unwrap_or(DEFAULT_STEP.1),
        };
        let usual = GuardrailsBody {
            errors: default_error_guard(),
            p99: default_p99_guard(),
            accuracy: default_accuracy_guard(),
        };
        let GuardrailsBody { errors, p99, accuracy } = self.guards.unwrap_or(usual);
        rollout::RolloutStrategy {
            steps: self.steps.iter().map(step).collect(),
            guards: Guardrails { errors, p99, accuracy },
        }
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
        // Whoever is in a hurry need not say anything.
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
