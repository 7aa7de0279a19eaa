//! The wire types of `/admin/experiments`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Limits;
use crate::experiments::experiment::{self, Aim, Anonymous, ExperimentError};
use crate::experiments::rollout::{self, Guards, Step};
use crate::experiments::statistics::plan::{ALPHA, POWER};
use crate::http::body::RequestBody;
use crate::http::error::ApiError;
use crate::http::json;
use crate::http::registry::wire::{NAMES, check_reason, time};
use crate::registry::is_name;

/// Longest salt, in bytes.
const MAX_SALT: usize = 256;
/// The control's accuracy as guessed, and the least difference worth finding, if nobody says.
const USUAL: (f64, f64) = (0.9, 0.03);
/// What nobody says of a step: how long it takes, in seconds, and how many requests.
const USUAL_STEP: (u64, u64) = (3_600, 1_000);
/// Percentages that add up to 100.
const HUNDRED: std::ops::RangeInclusive<f64> = 99.999..=100.001;

/// What is compared, and how.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Design {
    /// The model that callers ask for; the default model if none is named.
    #[serde(default)]
    pub on: Option<String>,
    /// 2 to 16 arms, in the order in which users are spread over them.
    pub arms: Vec<Arm>,
    /// Name of the arm that the others are compared with, and that answers where they cannot; the first if none is named.
    #[serde(default)]
    pub control: Option<String>,
    /// Tells experiments apart in where users go; the experiment's name if it is not said.
    #[serde(default)]
    pub salt: Option<String>,
    /// Where requests go that name no user: to an arm at `random` (as it is if nobody says), or to the `control`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub anonymous: Option<Anonymous>,
    /// What is to be found.
    #[serde(default)]
    pub aim: Option<WantedAim>,
    /// Steps in which the version that is not the control gets its share.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A version that answers a part of the users, or sees a part of the texts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The model; the one that callers ask for if none is named.
    #[serde(default)]
    pub model: Option<String>,
    /// The version; if none is named, the one that is active when the experiment starts.
    #[serde(default)]
    pub version: Option<String>,
    /// Its part of the users. All but shadows' add up to 1, or to 100 %. In a rollout the steps say it.
    #[serde(default)]
    pub weight: Option<f64>,
    /// It only sees this part of the texts; nobody gets its answers.
    #[serde(default)]
    pub shadow: bool,
}

/// What is to be found. It is fixed once the experiment has begun.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedAim {
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
pub struct Rollout {
    /// Ever larger parts of the users; after the last the version becomes the active one.
    pub steps: Vec<RolloutStep>,
    /// What must not happen; if it does, everybody gets the control again.
    #[serde(default)]
    pub guards: Option<RolloutGuards>,
}

/// A part of the users, for a while.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutStep {
    /// Of the users: up to 1, or percentages.
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
pub struct RolloutGuards {
    /// Failed requests, as a part of all, beyond the control's; 0.01 if nobody says.
    #[serde(default = "usual_errors")]
    pub errors: Option<f64>,
    /// The time that 99 of 100 requests stay within, as a multiple of the control's; 2 if nobody says.
    #[serde(default = "usual_p99")]
    pub p99: Option<f64>,
    /// Accuracy below the control's that is sure by feedback; 0 if nobody says.
    #[serde(default = "usual_accuracy")]
    pub accuracy: Option<f64>,
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn usual_errors() -> Option<f64> {
    Some(0.01)
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn usual_p99() -> Option<f64> {
    Some(2.0)
}

#[expect(clippy::unnecessary_wraps, reason = "the form that serde wants")]
fn usual_accuracy() -> Option<f64> {
    Some(0.0)
}

/// Why something is done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An arm, and why.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OfArm {
    /// Its name.
    pub arm: String,
    /// For the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// All experiments.
#[derive(Debug, Serialize, ToSchema)]
pub struct Experiments {
    /// True while the database does not answer: this is what was known last.
    pub stale: bool,
    /// By name.
    pub experiments: Vec<Shown>,
}

/// An experiment after a change.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    /// False if it was so already.
    pub changed: bool,
    /// The experiment; none once it is forgotten.
    pub experiment: Option<Shown>,
}

/// An experiment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Changes of it so far: its `ETag`.
    pub revision: i64,
    /// `draft`, `running`, `paused` or `ended`.
    pub state: &'static str,
    /// What it compares, and how.
    #[serde(flatten)]
    pub design: Design,
    /// Times with the same weights, the present one last.
    pub phases: Vec<Phase>,
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
pub struct Phase {
    /// Its number, from 1.
    pub phase: usize,
    /// When it began (RFC 3339).
    pub began: String,
    /// The weights, by arm.
    pub weights: BTreeMap<String, f64>,
}

impl Design {
    /// What it means, as it is recorded.
    ///
    /// # Errors
    /// [`ExperimentError`] if it makes no sense.
    pub fn design(self, name: &str, default_model: &str) -> Result<experiment::Design, ExperimentError> {
        let on = self.on.unwrap_or_else(|| default_model.to_owned());
        let sum: f64 = self.arms.iter().filter(|arm| !arm.shadow).filter_map(|arm| arm.weight).sum();
        let unit = if HUNDRED.contains(&sum) { 100.0 } else { 1.0 };
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
                Some(weight) => weight / unit,
                None if arm.shadow => 1.0,
                None => return Err(wrong("an arm has a weight")),
            };
            let model = arm.model.unwrap_or_else(|| on.clone());
            arms.push(experiment::Arm { name: arm.name, model, version: arm.version, weight, shadow: arm.shadow });
        }
        let aim = self.aim.unwrap_or_default();
        let design = experiment::Design {
            on,
            arms,
            control,
            salt: self.salt.unwrap_or_else(|| name.to_owned()),
            anonymous: self.anonymous.unwrap_or_default(),
            aim: Aim {
                accuracy: aim.accuracy.unwrap_or(USUAL.0),
                least: aim.least.unwrap_or(USUAL.1),
                alpha: aim.alpha.unwrap_or(ALPHA),
                power: aim.power.unwrap_or(POWER),
            },
            rollout: self.rollout.map(Rollout::rollout),
        };
        design.check()?;
        Ok(design)
    }
}

impl Rollout {
    fn rollout(self) -> rollout::Rollout {
        let unit = if self.steps.iter().any(|step| step.weight > 1.0) { 100.0 } else { 1.0 };
        let step = |step: &RolloutStep| Step {
            share: step.weight / unit,
            seconds: step.seconds.unwrap_or(USUAL_STEP.0),
            requests: step.requests.unwrap_or(USUAL_STEP.1),
        };
        let usual = RolloutGuards { errors: usual_errors(), p99: usual_p99(), accuracy: usual_accuracy() };
        let RolloutGuards { errors, p99, accuracy } = self.guards.unwrap_or(usual);
        rollout::Rollout { steps: self.steps.iter().map(step).collect(), guards: Guards { errors, p99, accuracy } }
    }
}

impl Shown {
    /// An experiment as it is recorded.
    #[must_use]
    pub fn of(name: &str, found: &experiment::Experiment) -> Self {
        let design = &found.design;
        let arm = |arm: &experiment::Arm| Arm {
            name: arm.name.clone(),
            model: Some(arm.model.clone()),
            version: arm.version.clone(),
            weight: Some(arm.weight),
            shadow: arm.shadow,
        };
        let Aim { accuracy, least, alpha, power } = design.aim;
        let aim = WantedAim { accuracy: Some(accuracy), least: Some(least), alpha: Some(alpha), power: Some(power) };
        let rollout = design.rollout.as_ref().map(|rollout| {
            let step = |step: &Step| RolloutStep {
                weight: step.share,
                seconds: Some(step.seconds),
                requests: Some(step.requests),
            };
            let Guards { errors, p99, accuracy } = rollout.guards;
            let guards = Some(RolloutGuards { errors, p99, accuracy });
            Rollout { steps: rollout.steps.iter().map(step).collect(), guards }
        });
        let phase = |(phase, found): (usize, &experiment::Phase)| Phase {
            phase,
            began: time(found.began),
            weights: design.arms.iter().map(|arm| arm.name.clone()).zip(found.weights.iter().copied()).collect(),
        };
        Self {
            name: name.to_owned(),
            revision: found.revision,
            state: found.state.name(),
            design: Design {
                on: Some(design.on.clone()),
                arms: design.arms.iter().map(arm).collect(),
                control: Some(design.control.clone()),
                salt: Some(design.salt.clone()),
                anonymous: Some(design.anonymous),
                aim: Some(aim),
                rollout,
                reason: None,
            },
            phases: (1..).zip(&found.phases).map(phase).collect(),
            step: found.step_now().map(|(step, _)| step + 1),
            created: time(found.created),
            started: found.started.map(time),
            ended: found.ended.map(time),
            outcome: found.outcome.clone(),
        }
    }
}

/// Why a design is refused.
pub(super) fn refused(error: ExperimentError) -> ApiError {
    match error {
        ExperimentError::Invalid(pointer, reason) => ApiError::at(pointer, reason),
        error => ApiError::at("", error.to_string()),
    }
}

fn check_name(pointer: &str, name: &str) -> Result<(), ApiError> {
    if is_name(name) { Ok(()) } else { Err(ApiError::at(pointer, NAMES)) }
}

impl RequestBody for Design {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &Limits) -> Result<(), ApiError> {
        self.on.iter().try_for_each(|on| check_name("/on", on))?;
        if self.arms.len() > experiment::MAX_ARMS {
            return Err(ApiError::at("/arms", format!("an experiment has at most {} arms", experiment::MAX_ARMS)));
        }
        for (place, arm) in self.arms.iter().enumerate() {
            check_name(&format!("/arms/{place}/name"), &arm.name)?;
            arm.model.iter().try_for_each(|model| check_name(&format!("/arms/{place}/model"), model))?;
            arm.version.iter().try_for_each(|version| check_name(&format!("/arms/{place}/version"), version))?;
        }
        if self.salt.as_ref().is_some_and(|salt| salt.len() > MAX_SALT || salt.contains('\0')) {
            return Err(ApiError::at("/salt", format!("a salt has at most {MAX_SALT} bytes, and no NUL")));
        }
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for Reason {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        // Whoever is in a hurry need not say anything.
        if bytes.is_empty() { Ok(Self { reason: None }) } else { json::from_json(bytes) }
    }

    fn check(&self, _: &Limits) -> Result<(), ApiError> {
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for OfArm {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &Limits) -> Result<(), ApiError> {
        check_name("/arm", &self.arm)?;
        check_reason(self.reason.as_ref())
    }
}
