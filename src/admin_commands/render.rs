//! Answers of the admin listener: as JSON for programs, in lines for people.

use std::fmt::Display;
use std::io::Write as _;

use predictd_api::models::{AuditEntryView, ModelChangeView, RegisteredModel, RegisteredModelList, RegisteredVersion};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ServerError;
use crate::terminal;

/// Said below a list that may be out of date.
pub(super) const STALE_NOTE: &str = "the database does not answer: this is what was known last";

/// An answer as it was sent if `as_json`, else as `render` shows its type.
pub(super) fn answer_text<T: DeserializeOwned>(
    answer: Value,
    as_json: bool,
    render: impl FnOnce(&mut String, T),
) -> Result<String, String> {
    if as_json {
        return Ok(json_line(&answer));
    }
    let mut out = String::new();
    render(&mut out, parse(answer)?);
    Ok(out)
}

/// The type of an answer.
pub(super) fn parse<T: DeserializeOwned>(answer: Value) -> Result<T, String> {
    serde_json::from_value(answer).map_err(|error| format!("the server's answer cannot be read: {error}"))
}

/// An answer for programs.
pub(super) fn json_line(answer: &Value) -> String {
    format!("{}\n", terminal::escape_json(&answer.to_string()))
}

/// Writes the outcome of a command to standard output.
pub(super) fn print(outcome: Result<String, String>) -> Result<(), ServerError> {
    let text = outcome.map_err(ServerError::Runtime)?;
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| ServerError::Runtime(format!("standard output: {error}")))
}

pub(super) fn push_line(out: &mut String, line: impl Display) {
    // A String takes whatever is written to it.
    _ = terminal::write_line(out, format_args!("{line}"));
}

pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn push_models(out: &mut String, list: RegisteredModelList) {
    push_model_row(out, [&"NAME", &"ACTIVE", &"PREVIOUS", &"VERSIONS"]);
    for RegisteredModel { name, active, previous, versions, .. } in list.models {
        push_model_row(out, [&name, &or_dash(active), &or_dash(previous), &versions.len()]);
    }
    if list.stale {
        push_line(out, STALE_NOTE);
    }
}

/// The head of the list of models, or a model in it.
fn push_model_row(out: &mut String, [name, active, previous, versions]: [&dyn Display; 4]) {
    push_line(out, format_args!("{name:32} {active:16} {previous:16} {versions:>8}"));
}

pub(super) fn push_versions(out: &mut String, model: RegisteredModel) {
    push_version_row(out, [&"VERSION", &"", &"STATE", &"ORIGIN", &"BYTES", &"REGISTERED"]);
    for RegisteredVersion { version, state, origin, bytes, pinned, registered_at, .. } in model.versions {
        let name = Some(&version);
        let part = if model.active.as_ref() == name {
            "active"
        } else if model.previous.as_ref() == name {
            "previous"
        } else if pinned {
            "pinned"
        } else {
            ""
        };
        push_version_row(out, [&version, &part, &state, &origin, &bytes, &registered_at]);
    }
}

/// The head of the list of a model's versions, or a version in it.
fn push_version_row(out: &mut String, [version, part, state, origin, bytes, registered_at]: [&dyn Display; 6]) {
    push_line(out, format_args!("{version:16} {part:8} {state:8} {origin:10} {bytes:>12} {registered_at:24}"));
}

pub(super) fn push_history(out: &mut String, entries: Vec<AuditEntryView>) {
    for AuditEntryView { at, who, action, version, reason, .. } in entries {
        let version = or_dash(version);
        push_line(out, format_args!("{at} {action:10} {version:16} {who:24} {}", or_dash(reason)));
    }
}

pub(super) fn push_change(out: &mut String, change: ModelChangeView) {
    let ModelChangeView { name, active, previous, changed, experiment, .. } = change;
    let active = or_dash(active);
    let previous = or_dash(previous);
    push_line(out, format_args!("{name}: active {active}, previous {previous}{}", unchanged_note(changed)));
    if let Some(experiment) = experiment {
        push_line(
            out,
            format_args!("experiment {experiment} runs on it: callers who name no version get those of its arms"),
        );
    }
}

pub(super) fn push_metrics(out: &mut String, metrics: serde_json::Map<String, Value>) {
    metrics.into_iter().for_each(|(name, value)| push_line(out, format_args!("{name:32} {value}")));
}

pub(super) fn unchanged_note(changed: bool) -> &'static str {
    if changed { "" } else { "; nothing was changed" }
}
