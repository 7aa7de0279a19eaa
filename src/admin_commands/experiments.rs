//! `predictd experiments`: what is compared on live traffic.
//!
//! - `args`: its options; `render`: answers for people

mod args;
mod render;

use predictd_api::experiments::{
    ArmBody, ExperimentDesignBody, ExperimentView, PowerTargetBody, PromoteRequest, RolloutBody, RolloutStepBody,
};
use predictd_api::state_change::StateChangeRequest;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::Client;
use super::render::{answer_text, parse, print};
use crate::ServerError;
pub use args::ExperimentsCommand;
use args::{ArmArg, CreateArgs, ExperimentsAction, read_json_file};
use render::{push_change, push_experiment, push_history, push_list, push_results};

const EXPERIMENTS_PATH: &str = "/admin/experiments";

impl ExperimentsCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer.
    pub fn run(&self) -> Result<(), ServerError> {
        let client = self.server.client()?;
        print(self.execute(&client))
    }

    fn execute(&self, client: &Client) -> Result<String, String> {
        let as_json = self.json;
        let changed = match &self.action {
            ExperimentsAction::List => return answer_text(client.get(EXPERIMENTS_PATH)?, as_json, push_list),
            ExperimentsAction::Show { name } => {
                return answer_text(client.get(&experiment_path(name))?, as_json, push_experiment);
            }
            ExperimentsAction::History { name } => {
                let history = client.get(&format!("{}/history", experiment_path(name)))?;
                return answer_text(history, as_json, |out, entries: &Vec<_>| push_history(out, entries));
            }
            ExperimentsAction::Results { name, phase, details } => {
                let phase = phase.map(|phase| format!("&phase={phase}")).unwrap_or_default();
                let results = client.get(&format!("{}/results?details={details}{phase}", experiment_path(name)))?;
                return answer_text(results, as_json, push_results);
            }
            ExperimentsAction::Create(create) => {
                let created = client.put(&experiment_path(&create.name), &build_spec(create)?);
                if create.start {
                    created.and_then(|_| change_state(client, &create.name, "start", create.reason.as_ref()))
                } else {
                    created
                }
            }
            ExperimentsAction::Weights { name, weights, reason } => {
                let ExperimentView { mut design, .. } = parse(client.get(&experiment_path(name))?)?;
                apply_weights(&mut design.arms, weights)?;
                design.reason.clone_from(reason);
                client.put(&experiment_path(name), &design)
            }
            ExperimentsAction::Start { name, reason } => change_state(client, name, "start", reason.as_ref()),
            ExperimentsAction::Pause { name, reason } => change_state(client, name, "pause", reason.as_ref()),
            ExperimentsAction::End { name, reason } => change_state(client, name, "end", reason.as_ref()),
            ExperimentsAction::Promote { name, arm, reason } => {
                post_action(client, name, "promote", &PromoteRequest { arm: arm.clone(), reason: reason.clone() })
            }
            ExperimentsAction::Forget { name } => client.delete(&experiment_path(name), &experiment_path(name)),
        };
        answer_text(changed?, as_json, push_change)
    }
}

fn experiment_path(name: &str) -> String {
    format!("{EXPERIMENTS_PATH}/{name}")
}

fn change_state(client: &Client, name: &str, action: &str, reason: Option<&String>) -> Result<Value, String> {
    post_action(client, name, action, &StateChangeRequest { reason: reason.cloned() })
}

fn post_action(client: &Client, name: &str, action: &str, body: &impl Serialize) -> Result<Value, String> {
    let path = experiment_path(name);
    client.change(&path, &Method::POST, &format!("{path}/{action}"), Some(body))
}

/// What is to be compared, by options or a file. The server judges what is in the file.
fn build_spec(create: &CreateArgs) -> Result<Value, String> {
    if let Some(file) = &create.file {
        let mut design = read_json_file(file)?;
        if let (Some(fields), Some(reason)) = (design.as_object_mut(), &create.reason) {
            fields.insert("reason".to_owned(), json!(reason));
        }
        return Ok(design);
    }
    let arms = create.arms.iter().map(|arm| arm_body(arm, false));
    let step = |&weight: &f64| RolloutStepBody {
        weight: weight / 100.0,
        seconds: create.step_seconds,
        requests: create.step_requests,
    };
    let steps: Vec<RolloutStepBody> = create.steps.iter().map(step).collect();
    Ok(json!(ExperimentDesignBody {
        on: create.on.clone(),
        arms: arms.chain(create.shadows.iter().map(|arm| arm_body(arm, true))).collect(),
        control: create.control.clone(),
        salt: None,
        anonymous: create.anonymous.map(args::AnonymousAssignmentArg::route),
        aim: Some(PowerTargetBody { accuracy: create.accuracy, least: create.least, ..PowerTargetBody::default() }),
        rollout: (!steps.is_empty()).then_some(RolloutBody { steps, guards: None }),
        reason: create.reason.clone(),
    }))
}

fn arm_body(arm: &ArmArg, shadow: bool) -> ArmBody {
    let version = Some(arm.version.clone());
    ArmBody { name: arm.name.clone(), model: arm.model.clone(), version, weight: arm.weight, shadow }
}

/// Gives arms other weights: parts of 1, or percentages.
fn apply_weights(arms: &mut [ArmBody], weights: &[(String, f64)]) -> Result<(), String> {
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let unit = if sum > 1.5 { 100.0 } else { 1.0 };
    for (name, weight) in weights {
        let arm = arms.iter_mut().find(|arm| arm.name == *name);
        let arm = arm.ok_or_else(|| format!("the experiment has no arm {name}"))?;
        arm.weight = Some(weight / unit);
    }
    Ok(())
}
