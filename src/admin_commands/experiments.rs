//! `predictd experiments`: what is compared on live traffic.
//!
//! - `args`: its options; `shown`: answers for people

mod args;
mod render;

use std::io::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::{field, json_line};
use crate::ServerError;
pub use args::ExperimentsCommand;
use args::{CreateArgs, ExperimentsAction, read_json_file};

const EXPERIMENTS_PATH: &str = "/admin/experiments";

impl ExperimentsCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer.
    pub fn run(&self) -> Result<(), ServerError> {
        let client = self.server.client()?;
        let answer = self.execute(&client).map_err(ServerError::Runtime)?;
        let text = if self.json { json_line(&answer) } else { render::render_response(&answer) };
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|error| ServerError::Runtime(format!("standard output: {error}")))
    }

    fn execute(&self, client: &Client) -> Result<Value, String> {
        match &self.action {
            ExperimentsAction::List => client.get(EXPERIMENTS_PATH),
            ExperimentsAction::Show { name } => client.get(&experiment_path(name)),
            ExperimentsAction::History { name } => client.get(&format!("{}/history", experiment_path(name))),
            ExperimentsAction::Results { name, phase, details } => {
                let phase = phase.map(|phase| format!("&phase={phase}")).unwrap_or_default();
                client.get(&format!("{}/results?details={details}{phase}", experiment_path(name)))
            }
            ExperimentsAction::Create(create) => {
                let created = client.put(&experiment_path(&create.name), &build_spec(create)?)?;
                if create.start {
                    post_action(client, &create.name, "start", &json!({ "reason": create.reason }))
                } else {
                    Ok(created)
                }
            }
            ExperimentsAction::Weights { name, weights, reason } => {
                let mut design = client.get(&experiment_path(name))?;
                apply_weights(&mut design, weights)?;
                if let Some(fields) = design.as_object_mut() {
                    fields.insert("reason".to_owned(), json!(reason));
                }
                client.put(&experiment_path(name), &design)
            }
            ExperimentsAction::Start { name, reason } => {
                post_action(client, name, "start", &json!({ "reason": reason }))
            }
            ExperimentsAction::Pause { name, reason } => {
                post_action(client, name, "pause", &json!({ "reason": reason }))
            }
            ExperimentsAction::End { name, reason } => post_action(client, name, "end", &json!({ "reason": reason })),
            ExperimentsAction::Promote { name, arm, reason } => {
                post_action(client, name, "promote", &json!({ "arm": arm, "reason": reason }))
            }
            ExperimentsAction::Forget { name } => {
                client.change(&experiment_path(name), "DELETE", &experiment_path(name), None)
            }
        }
    }
}

fn experiment_path(name: &str) -> String {
    format!("{EXPERIMENTS_PATH}/{name}")
}

fn post_action(client: &Client, name: &str, action: &str, body: &Value) -> Result<Value, String> {
    let path = experiment_path(name);
    client.change(&path, "POST", &format!("{path}/{action}"), Some(body))
}

/// What is to be compared, by options or a file.
fn build_spec(create: &CreateArgs) -> Result<Value, String> {
    if let Some(file) = &create.file {
        let mut design = read_json_file(file)?;
        if let (Some(fields), Some(reason)) = (design.as_object_mut(), &create.reason) {
            fields.insert("reason".to_owned(), json!(reason));
        }
        return Ok(design);
    }
    let arms = create.arms.iter().map(|arm| (arm, false));
    let arms: Vec<Value> = arms
        .chain(create.shadows.iter().map(|arm| (arm, true)))
        .map(|(arm, shadow)| json!({ "name": arm.name, "model": arm.model, "version": arm.version, "weight": arm.weight, "shadow": shadow }))
        .collect();
    let step = |weight: &f64| json!({ "weight": weight / 100.0, "seconds": create.step_seconds, "requests": create.step_requests });
    let steps: Vec<Value> = create.steps.iter().map(step).collect();
    Ok(json!({
        "on": create.on,
        "arms": arms,
        "control": create.control,
        "anonymous": create.anonymous.map(args::AnonymousAssignmentArg::name),
        "aim": { "accuracy": create.accuracy, "least": create.least },
        "rollout": if steps.is_empty() { Value::Null } else { json!({ "steps": steps }) },
        "reason": create.reason,
    }))
}

/// Gives arms of a design other weights, and leaves out what is not part of one.
fn apply_weights(design: &mut Value, weights: &[(String, f64)]) -> Result<(), String> {
    const SPEC_FIELDS: [&str; 7] = ["on", "arms", "control", "salt", "anonymous", "aim", "rollout"];
    let fields = design.as_object_mut().ok_or("the server's answer is no experiment")?;
    fields.retain(|name, _| SPEC_FIELDS.contains(&name.as_str()));
    let arms = fields.get_mut("arms").and_then(Value::as_array_mut).ok_or("the experiment has no arms")?;
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let unit = if sum > 1.5 { 100.0 } else { 1.0 };
    for (name, weight) in weights {
        let arm = arms.iter_mut().find(|arm| field(arm, "name").as_str() == Some(name));
        let arm = arm.and_then(Value::as_object_mut).ok_or_else(|| format!("the experiment has no arm {name}"))?;
        arm.insert("weight".to_owned(), json!(weight / unit));
    }
    Ok(())
}
