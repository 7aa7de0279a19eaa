//! The wire types of `/admin/experiments`.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// All experiments.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExperimentListView {
    /// True while the database does not answer: this is what was known last.
    pub stale: bool,
    /// By name.
    pub experiments: Vec<ExperimentView>,
}

/// An experiment after a change.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExperimentChangeResponse {
    /// False if it was so already.
    pub changed: bool,
    /// The experiment; none once it is forgotten.
    pub experiment: Option<ExperimentView>,
}

/// An experiment.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExperimentView {
    /// Its name.
    pub name: String,
    /// Changes of it so far: its `ETag`.
    pub revision: i64,
    /// `draft`, `running`, `paused` or `ended`.
    pub state: String,
    /// What it compares, and how.
    #[serde(flatten, deserialize_with = "deserialize_answered_design")]
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
#[derive(Debug, Serialize, Deserialize)]
pub struct PhaseView {
    /// Its number, from 1.
    pub phase: usize,
    /// When it began (RFC 3339).
    pub began: String,
    /// The weights, by arm.
    pub weights: BTreeMap<String, f64>,
}

/// What is compared, and how.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentDesignBody {
    /// The model that callers ask for; the default model if none is named.
    pub on: Option<String>,
    /// 2 to 16 arms, in the order in which users are spread over them.
    pub arms: Vec<ArmBody>,
    /// Name of the arm that the others are compared with, and that answers where they cannot; the first if none is named.
    pub control: Option<String>,
    /// Tells experiments apart in where users go; the experiment's name if it is not said.
    pub salt: Option<String>,
    /// Where requests go that name no user: to an arm at `random` (the default), or to the `control`.
    pub anonymous: Option<AnonymousRoute>,
    /// What is to be found.
    pub aim: Option<PowerTargetBody>,
    /// Steps in which the version that is not the control gets its share.
    pub rollout: Option<RolloutBody>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// Where requests go that name no user.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousRoute {
    /// To an arm at random.
    Random,
    /// To the control.
    Control,
}

/// A version that answers a part of the users, or sees a part of the texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmBody {
    /// Its name.
    pub name: String,
    /// The model; the one that callers ask for if none is named.
    pub model: Option<String>,
    /// The version; if none is named, the one that is active when the experiment starts.
    pub version: Option<String>,
    /// Its part of the users. All but shadows' add up to 1, or to 100 %. In a rollout the steps say it. A shadow's is its part of the texts: up to 1, or a percentage above.
    pub weight: Option<f64>,
    /// It only sees this part of the texts; no client gets its answers.
    #[serde(default)]
    pub shadow: bool,
}

/// What is to be found. It is fixed once the experiment has begun.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerTargetBody {
    /// The control's accuracy, as guessed; default 0.9. It decides only how long it takes.
    pub accuracy: Option<f64>,
    /// The least difference worth finding; 0.03, which is 3 points, by default.
    pub least: Option<f64>,
    /// Chance of a false alarm, however often one looks; default 0.05.
    pub alpha: Option<f64>,
    /// Chance that the least difference is found; default 0.9.
    pub power: Option<f64>,
}

/// How a version comes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutBody {
    /// Ever larger parts of the users; after the last the version becomes the active one.
    pub steps: Vec<RolloutStepBody>,
    /// Guardrails. If one trips, the experiment ends, and all users get the active version, which is the control.
    pub guards: Option<GuardrailsBody>,
}

/// A part of the users, for a while.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStepBody {
    /// Of the users: up to 1; percentages if any step has more.
    pub weight: f64,
    /// How long at least, in seconds; default an hour.
    pub seconds: Option<u64>,
    /// Requests that the version must have had in it; default 1,000.
    pub requests: Option<u64>,
}

/// What must not happen. A guard that is null does not stand.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardrailsBody {
    /// Failed requests, as a part of all, beyond the control's; default 0.01.
    pub errors: Option<f64>,
    /// The time that 99 of 100 requests stay within, as a multiple of the control's; default 2.
    pub p99: Option<f64>,
    /// Accuracy below the control's that is sure by feedback; default 0.
    pub accuracy: Option<f64>,
}

impl Default for GuardrailsBody {
    fn default() -> Self {
        Self { errors: Some(0.01), p99: Some(2.0), accuracy: Some(0.0) }
    }
}

/// An arm, and why.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// Its name.
    pub arm: String,
    /// For the history.
    pub reason: Option<String>,
}

/// The design in an answer. It is the body of a request too, which refuses unknown fields; a newer server may send some.
fn deserialize_answered_design<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExperimentDesignBody, D::Error> {
    let rollout = RolloutBody { steps: vec![RolloutStepBody::default()], guards: Some(GuardrailsBody::default()) };
    let known = ExperimentDesignBody {
        arms: vec![ArmBody::default()],
        aim: Some(PowerTargetBody::default()),
        rollout: Some(rollout),
        ..ExperimentDesignBody::default()
    };
    let mut design = Value::deserialize(deserializer)?;
    retain_known_fields(&mut design, &json!(known));
    serde_json::from_value(design).map_err(D::Error::custom)
}

/// Removes the fields that `known` does not have, at every depth. An item of a list is compared with the first of `known`.
fn retain_known_fields(value: &mut Value, known: &Value) {
    match (value, known) {
        (Value::Object(fields), Value::Object(known)) => {
            fields.retain(|name, _| known.contains_key(name));
            for (name, field) in fields {
                if let Some(known) = known.get(name) {
                    retain_known_fields(field, known);
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (item, known) in items.iter_mut().zip(known.iter().cycle()) {
                retain_known_fields(item, known);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_newer_server_is_read_and_request_is_refused() {
        let design = json!({
            "arms": [{ "name": "old", "new": 1 }, { "name": "new", "weight": 0.5, "new": 1 }],
            "aim": { "least": 0.1, "new": 1 },
            "rollout": { "steps": [{ "weight": 0.5, "new": 1 }], "guards": { "p99": null, "new": 1 } },
        });
        assert!(serde_json::from_value::<ExperimentDesignBody>(design.clone()).is_err());
        let mut answer = json!({ "name": "x", "revision": 1, "state": "draft", "phases": [], "created": "", "new": 1 });
        for (name, field) in design.as_object().unwrap() {
            answer[name] = field.clone();
        }
        let view: ExperimentView = serde_json::from_value(answer).unwrap();
        assert_eq!(view.design.arms[1].weight, Some(0.5));
        let rollout = view.design.rollout.unwrap();
        let guards = rollout.guards.unwrap();
        assert_eq!((rollout.steps[0].weight, guards.p99, guards.errors), (0.5, None, Some(0.01)));
    }
}
