//! Answers about experiments for people.

use serde_json::Value;

use crate::admin_commands::field;
use crate::terminal;

/// An answer in lines.
pub(super) fn render_response(answer: &Value) -> String {
    let mut out = String::new();
    if let Some(experiments) = field(answer, "experiments").as_array() {
        push_row(&mut out, &["NAME", "STATE", "ON", "CONTROL", "ARMS"].map(str::to_owned), &LIST_COLUMN_WIDTHS);
        for found in experiments {
            let [name, state, on, control] =
                ["name", "state", "on", "control"].map(|part| fmt_value(field(found, part)));
            push_row(&mut out, &[name, state, on, control, fmt_arms(found)], &LIST_COLUMN_WIDTHS);
        }
        if *field(answer, "stale") == true {
            push_line(&mut out, "the database does not answer: this is what was known last");
        }
    } else if answer.get("verdict").is_some() {
        push_results(&mut out, answer);
    } else if let Some(events) = answer.as_array() {
        for event in events {
            let [at, who, action, reason] = ["at", "who", "action", "reason"].map(|part| fmt_value(field(event, part)));
            push_line(&mut out, &format!("{at} {action:10} {who:24} {reason}"));
        }
    } else if answer.get("changed").is_some() {
        match field(answer, "experiment") {
            Value::Null => push_line(&mut out, "the experiment is forgotten"),
            found => {
                let as_it_was = if *field(answer, "changed") == true { "" } else { "; nothing was changed" };
                let [name, state] = ["name", "state"].map(|part| fmt_value(field(found, part)));
                push_line(&mut out, &format!("{name}: {state}, {}{as_it_was}", fmt_arms(found)));
            }
        }
    } else {
        push_experiment(&mut out, answer);
    }
    out
}

/// Widths of the columns of the list.
const LIST_COLUMN_WIDTHS: [usize; 5] = [24, 8, 20, 12, 0];
/// Of arms in results.
const ARM_COLUMN_WIDTHS: [usize; 11] = [14, 22, 7, 7, 9, 7, 8, 8, 9, 24, 10];
/// Of shadows in results.
const SHADOW_COLUMN_WIDTHS: [usize; 9] = [14, 22, 7, 9, 9, 8, 7, 8, 8];

fn push_experiment(out: &mut String, found: &Value) {
    for part in ["name", "state", "on", "control", "salt", "anonymous", "created", "started", "ended", "outcome"] {
        if !field(found, part).is_null() {
            push_line(out, &format!("{part:12} {}", fmt_value(field(found, part))));
        }
    }
    let aim = field(found, "aim");
    let [accuracy, least, alpha, power] =
        ["accuracy", "least", "alpha", "power"].map(|part| fmt_number(field(aim, part)));
    push_line(
        out,
        &format!(
            "{:12} a difference of {least} from an accuracy of about {accuracy}; alpha {alpha}, power {power}",
            "aim"
        ),
    );
    for arm in field(found, "arms").as_array().into_iter().flatten() {
        let kind = if *field(arm, "shadow") == true { "shadow" } else { "arm" };
        let [name, model, version] = ["name", "model", "version"].map(|part| fmt_value(field(arm, part)));
        push_line(out, &format!("{kind:12} {name}: {model}/{version}, {}", fmt_percent(field(arm, "weight"))));
    }
    for (number, step) in (1..).zip(field(field(found, "rollout"), "steps").as_array().into_iter().flatten()) {
        let here = if field(found, "step").as_u64() == Some(number) { "   <- now" } else { "" };
        let [seconds, requests] = ["seconds", "requests"].map(|part| fmt_number(field(step, part)));
        push_line(
            out,
            &format!(
                "step {number:<7} {}, {seconds} s and {requests} requests at least{here}",
                fmt_percent(field(step, "weight"))
            ),
        );
    }
    for phase in field(found, "phases").as_array().into_iter().flatten() {
        let weights = field(phase, "weights").as_object().into_iter().flatten();
        let weights: Vec<String> = weights.map(|(arm, weight)| format!("{arm} {}", fmt_percent(weight))).collect();
        push_line(
            out,
            &format!(
                "phase {:<6} {} {}",
                fmt_number(field(phase, "phase")),
                fmt_value(field(phase, "began")),
                weights.join(", ")
            ),
        );
    }
}

fn push_results(out: &mut String, found: &Value) {
    push_line(out, &fmt_value(field(found, "verdict")));
    let [experiment, state] = ["experiment", "state"].map(|part| fmt_value(field(found, part)));
    let phase = format!("phase {} since {}", fmt_number(field(found, "phase")), fmt_value(field(found, "began")));
    let users = match field(found, "users").as_f64() {
        Some(users) if users > 0.0 => format!("about {users} users"),
        _ => "no users named: whether they are spread as the weights say could not be checked".to_owned(),
    };
    push_line(out, &format!("{experiment}: {state}, {phase}, {users}"));
    push_line(out, "");
    let arms = field(found, "arms").as_array().map(Vec::as_slice).unwrap_or_default();
    push_arms(out, arms);
    push_comparisons(out, arms);
    let shadows = field(found, "shadows").as_array().map(Vec::as_slice).unwrap_or_default();
    push_shadows(out, shadows);
}

fn push_arms(out: &mut String, arms: &[Value]) {
    let head = [
        "ARM",
        "VERSION",
        "WEIGHT",
        "SHARE",
        "REQUESTS",
        "LOST",
        "P50 ms",
        "P99 ms",
        "LABELLED",
        "ACCURACY (95 %)",
        "CAL. ERROR",
    ];
    push_row(out, &head.map(str::to_owned), &ARM_COLUMN_WIDTHS);
    for arm in arms {
        let feedback = field(arm, "feedback");
        let star = if *field(arm, "control") == true { "*" } else { "" };
        let failed = field(arm, "failed").as_object().into_iter().flat_map(|kinds| kinds.values());
        let failed: u64 = failed.chain([field(arm, "left")]).filter_map(Value::as_u64).sum();
        let times = field(arm, "milliseconds");
        let columns = [
            format!("{}{star}", fmt_value(field(arm, "name"))),
            format!("{}/{}", fmt_value(field(arm, "model")), fmt_value(field(arm, "version"))),
            fmt_percent(field(arm, "weight")),
            fmt_percent(field(arm, "share")),
            fmt_number(field(arm, "requests")),
            failed.to_string(),
            fmt_number(field(times, "p50")),
            fmt_number(field(times, "p99")),
            fmt_number(field(feedback, "labelled")),
            fmt_accuracy(feedback),
            fmt_percent(field(feedback, "calibration_error")),
        ];
        push_row(out, &columns, &ARM_COLUMN_WIDTHS);
    }
    push_line(out, "* the control; LOST: failed, or its client left before");
}

/// What feedback says of each arm against the control.
fn push_comparisons(out: &mut String, arms: &[Value]) {
    for arm in arms.iter().filter(|arm| *field(arm, "control") != true) {
        let against = field(arm, "against_control");
        let needed = field(against, "needed").as_array();
        let needed: u64 = needed.into_iter().flatten().filter_map(Value::as_u64).sum();
        let more = if needed > 0 { format!(" ({needed} more labelled answers by plan)") } else { String::new() };
        push_line(out, &format!("{}: {}{more}", fmt_value(field(arm, "name")), fmt_value(field(against, "verdict"))));
        if let Some(decided) = against.get("decided") {
            push_line(
                out,
                &format!("  decided {}: {}", fmt_value(field(decided, "at")), fmt_value(field(decided, "verdict"))),
            );
        }
    }
}

fn push_shadows(out: &mut String, shadows: &[Value]) {
    if !shadows.is_empty() {
        push_line(out, "");
        let head = ["SHADOW", "VERSION", "WEIGHT", "COMPARED", "SAME", "DISTANCE", "FAILED", "SKIPPED", "P99 ms"];
        push_row(out, &head.map(str::to_owned), &SHADOW_COLUMN_WIDTHS);
    }
    for shadow in shadows {
        let columns = [
            fmt_value(field(shadow, "name")),
            format!("{}/{}", fmt_value(field(shadow, "model")), fmt_value(field(shadow, "version"))),
            fmt_percent(field(shadow, "weight")),
            fmt_number(field(shadow, "compared")),
            fmt_percent(field(shadow, "agreement")),
            field(shadow, "distance").as_f64().map_or_else(|| "-".to_owned(), |distance| format!("{distance:.4}")),
            fmt_number(field(shadow, "failed")),
            fmt_number(field(shadow, "skipped")),
            fmt_number(field(field(shadow, "milliseconds"), "p99")),
        ];
        push_row(out, &columns, &SHADOW_COLUMN_WIDTHS);
    }
}

/// Arms with their weights.
fn fmt_arms(experiment: &Value) -> String {
    let arm = |arm: &Value| {
        let shadow = if *field(arm, "shadow") == true { " (shadow)" } else { "" };
        format!("{} {}{shadow}", fmt_value(field(arm, "name")), fmt_percent(field(arm, "weight")))
    };
    field(experiment, "arms").as_array().into_iter().flatten().map(arm).collect::<Vec<_>>().join(", ")
}

fn fmt_accuracy(feedback: &Value) -> String {
    let ends: Vec<String> = field(feedback, "interval").as_array().into_iter().flatten().map(fmt_percent).collect();
    match field(feedback, "accuracy") {
        Value::Null => "-".to_owned(),
        accuracy => format!("{} ({})", fmt_percent(accuracy), ends.join(" to ").replacen(" %", "", 1)),
    }
}

fn push_line(out: &mut String, line: &str) {
    // A String takes whatever is written to it.
    _ = terminal::write_line(out, format_args!("{line}"));
}

fn push_row<const N: usize>(out: &mut String, columns: &[String; N], widths: &[usize; N]) {
    let padded = columns.iter().zip(widths).map(|(column, &width)| format!("{column:width$}"));
    push_line(out, padded.collect::<Vec<_>>().join(" ").trim_end());
}

fn fmt_value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number without zeros behind the point.
fn fmt_number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |number| ((number * 1e3).round() / 1e3).to_string())
}

fn fmt_percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0))
}
