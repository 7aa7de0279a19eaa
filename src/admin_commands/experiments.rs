//! `predictd experiments`: what is compared on live traffic.
//!
//! - [`args`]: its options; `render`: answers for people

pub mod args;
mod render;

use predictd_api::experiments::{
    ArmBody, ExperimentDesignBody, ExperimentView, PowerTargetBody, PromoteRequest, RolloutBody, RolloutStepBody,
};
use predictd_api::reason::ReasonBody;
use serde_json::{Value, json};

use super::client::Client;
use super::render::{answer_text, parse, print};
use crate::ServerError;
use args::{
    AnonymousAssignmentArg, CreateArgs, ExperimentsAction, ExperimentsCommand, StateChangeArgs, read_json_file,
};
use render::{push_change, push_experiment, push_history, push_list, push_results};

impl ExperimentsCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer.
    pub fn run(self) -> Result<(), ServerError> {
        let client = Client::new(&self.server)?;
        print(self.execute(&client))
    }

    fn execute(self, client: &Client) -> Result<String, String> {
        let as_json = self.json;
        let changed = match self.action {
            ExperimentsAction::List => return answer_text(client.get("/admin/experiments")?, as_json, push_list),
            ExperimentsAction::Show { name } => {
                return answer_text(client.get(&format!("/admin/experiments/{name}"))?, as_json, push_experiment);
            }
            ExperimentsAction::History { name } => {
                let history = client.get(&format!("/admin/experiments/{name}/history"))?;
                return answer_text(history, as_json, push_history);
            }
            ExperimentsAction::Results { name, phase, details } => {
                let phase = phase.map(|phase| format!("&phase={phase}")).unwrap_or_default();
                let results = client.get(&format!("/admin/experiments/{name}/results?details={details}{phase}"))?;
                return answer_text(results, as_json, push_results);
            }
            ExperimentsAction::Create(create) => {
                let start =
                    create.start.then(|| StateChangeArgs { name: create.name.clone(), reason: create.reason.clone() });
                let created = client.put(&format!("/admin/experiments/{}", create.name), &build_spec(create)?)?;
                start.map_or(Ok(created), |start| change_state(client, start, "start"))
            }
            ExperimentsAction::Weights { name, weights, reason } => {
                let ExperimentView { mut design, .. } = parse(client.get(&format!("/admin/experiments/{name}"))?)?;
                apply_weights(&mut design.arms, &weights)?;
                client.put(&format!("/admin/experiments/{name}"), &ExperimentDesignBody { reason, ..design })
            }
            ExperimentsAction::Start(change) => change_state(client, change, "start"),
            ExperimentsAction::Pause(change) => change_state(client, change, "pause"),
            ExperimentsAction::End(change) => change_state(client, change, "end"),
            ExperimentsAction::Promote { name, arm, reason } => {
                client.act(&format!("/admin/experiments/{name}"), "promote", &PromoteRequest { arm: arm.0, reason })
            }
            ExperimentsAction::Forget { name } => {
                let experiment = format!("/admin/experiments/{name}");
                client.delete(&experiment, &experiment)
            }
        };
        answer_text(changed?, as_json, push_change)
    }
}

fn change_state(client: &Client, change: StateChangeArgs, action: &str) -> Result<Value, String> {
    client.act(&format!("/admin/experiments/{}", change.name), action, &ReasonBody { reason: change.reason })
}

/// What is to be compared, by options or a file. The server judges what is in the file.
fn build_spec(create: CreateArgs) -> Result<Value, String> {
    if let Some(file) = create.file {
        let mut design = read_json_file(&file)?;
        if let (Some(fields), Some(reason)) = (design.as_object_mut(), create.reason) {
            fields.insert("reason".to_owned(), json!(reason));
        }
        return Ok(design);
    }
    let shadows = create.shadows.into_iter().map(|arm| ArmBody { shadow: true, ..arm });
    let steps = create.steps.into_iter().map(|weight| RolloutStepBody {
        weight: weight / 100.0,
        seconds: create.step_seconds,
        requests: create.step_requests,
    });
    let steps: Vec<RolloutStepBody> = steps.collect();
    Ok(json!(ExperimentDesignBody {
        on: create.on,
        arms: create.arms.into_iter().chain(shadows).collect(),
        control: create.control,
        salt: None,
        anonymous: create.anonymous.map(AnonymousAssignmentArg::route),
        aim: Some(PowerTargetBody { accuracy: create.accuracy, least: create.least, ..PowerTargetBody::default() }),
        rollout: (!steps.is_empty()).then_some(RolloutBody { steps, guards: None }),
        reason: create.reason,
    }))
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
