//! Answers about experiments for people.

use serde_json::Value;

use crate::admin::field;
use crate::terminal;

/// An answer in lines.
pub(super) fn shown(answer: &Value) -> String {
    let mut out = String::new();
    if let Some(experiments) = field(answer, "experiments").as_array() {
        row(&mut out, &["NAME", "STATE", "ON", "CONTROL", "ARMS"].map(str::to_owned), &LIST);
        for found in experiments {
            let [name, state, on, control] = ["name", "state", "on", "control"].map(|part| text(field(found, part)));
            row(&mut out, &[name, state, on, control, arms(found)], &LIST);
        }
        if *field(answer, "stale") == true {
            line(&mut out, "the database does not answer: this is what was known last");
        }
    } else if answer.get("verdict").is_some() {
        results(&mut out, answer);
    } else if let Some(events) = answer.as_array() {
        for event in events {
            let [at, who, action, reason] = ["at", "who", "action", "reason"].map(|part| text(field(event, part)));
            line(&mut out, &format!("{at} {action:10} {who:24} {reason}"));
        }
    } else if answer.get("changed").is_some() {
        match field(answer, "experiment") {
            Value::Null => line(&mut out, "the experiment is forgotten"),
            found => {
                let as_it_was = if *field(answer, "changed") == true { "" } else { "; nothing was changed" };
                let [name, state] = ["name", "state"].map(|part| text(field(found, part)));
                line(&mut out, &format!("{name}: {state}, {}{as_it_was}", arms(found)));
            }
        }
    } else {
        one(&mut out, answer);
    }
    out
}

/// Widths of the columns of the list.
const LIST: [usize; 5] = [24, 8, 20, 12, 0];
/// Of arms in results.
const ARMS: [usize; 11] = [14, 22, 7, 7, 9, 7, 8, 8, 9, 24, 10];
/// Of shadows in results.
const SHADOWS: [usize; 9] = [14, 22, 7, 9, 9, 8, 7, 8, 8];

fn one(out: &mut String, found: &Value) {
    for part in ["name", "state", "on", "control", "salt", "anonymous", "created", "started", "ended", "outcome"] {
        if !field(found, part).is_null() {
            line(out, &format!("{part:12} {}", text(field(found, part))));
        }
    }
    let aim = field(found, "aim");
    let [accuracy, least, alpha, power] = ["accuracy", "least", "alpha", "power"].map(|part| number(field(aim, part)));
    line(
        out,
        &format!(
            "{:12} a difference of {least} from an accuracy of about {accuracy}; alpha {alpha}, power {power}",
            "aim"
        ),
    );
    for arm in field(found, "arms").as_array().into_iter().flatten() {
        let kind = if *field(arm, "shadow") == true { "shadow" } else { "arm" };
        let [name, model, version] = ["name", "model", "version"].map(|part| text(field(arm, part)));
        line(out, &format!("{kind:12} {name}: {model}/{version}, {}", percent(field(arm, "weight"))));
    }
    for (place, step) in (1..).zip(field(field(found, "rollout"), "steps").as_array().into_iter().flatten()) {
        let here = if field(found, "step").as_u64() == Some(place) { "   <- now" } else { "" };
        let [seconds, requests] = ["seconds", "requests"].map(|part| number(field(step, part)));
        line(
            out,
            &format!(
                "step {place:<7} {}, {seconds} s and {requests} requests at least{here}",
                percent(field(step, "weight"))
            ),
        );
    }
    for phase in field(found, "phases").as_array().into_iter().flatten() {
        let weights = field(phase, "weights").as_object().into_iter().flatten();
        let weights: Vec<String> = weights.map(|(arm, weight)| format!("{arm} {}", percent(weight))).collect();
        line(
            out,
            &format!(
                "phase {:<6} {} {}",
                number(field(phase, "phase")),
                text(field(phase, "began")),
                weights.join(", ")
            ),
        );
    }
}

fn results(out: &mut String, found: &Value) {
    line(out, &text(field(found, "verdict")));
    let [experiment, state] = ["experiment", "state"].map(|part| text(field(found, part)));
    let phase = format!("phase {} since {}", number(field(found, "phase")), text(field(found, "began")));
    let users = match field(found, "users").as_f64() {
        Some(users) if users > 0.0 => format!("about {users} users"),
        _ => "no users named: whether they are spread as the weights say could not be checked".to_owned(),
    };
    line(out, &format!("{experiment}: {state}, {phase}, {users}"));
    line(out, "");
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
    row(out, &head.map(str::to_owned), &ARMS);
    let arms = || field(found, "arms").as_array().into_iter().flatten();
    for arm in arms() {
        let feedback = field(arm, "feedback");
        let star = if *field(arm, "control") == true { "*" } else { "" };
        let failed = field(arm, "failed").as_object().into_iter().flat_map(|kinds| kinds.values());
        let failed: u64 = failed.chain([field(arm, "left")]).filter_map(Value::as_u64).sum();
        let times = field(arm, "milliseconds");
        let columns = [
            format!("{}{star}", text(field(arm, "name"))),
            format!("{}/{}", text(field(arm, "model")), text(field(arm, "version"))),
            percent(field(arm, "weight")),
            percent(field(arm, "share")),
            number(field(arm, "requests")),
            failed.to_string(),
            number(field(times, "p50")),
            number(field(times, "p99")),
            number(field(feedback, "labelled")),
            accuracy(feedback),
            percent(field(feedback, "calibration_error")),
        ];
        row(out, &columns, &ARMS);
    }
    line(out, "* the control; LOST: failed, or its client left before");
    for arm in arms().filter(|arm| *field(arm, "control") != true) {
        let against = field(arm, "against_control");
        let needed = field(against, "needed").as_array();
        let needed: u64 = needed.into_iter().flatten().filter_map(Value::as_u64).sum();
        let more = if needed > 0 { format!(" ({needed} more labelled answers by plan)") } else { String::new() };
        line(out, &format!("{}: {}{more}", text(field(arm, "name")), text(field(against, "verdict"))));
        if let Some(decided) = against.get("decided") {
            line(out, &format!("  decided {}: {}", text(field(decided, "at")), text(field(decided, "verdict"))));
        }
    }
    let shadows = field(found, "shadows").as_array().map(Vec::as_slice).unwrap_or_default();
    if !shadows.is_empty() {
        line(out, "");
        let head = ["SHADOW", "VERSION", "WEIGHT", "COMPARED", "SAME", "DISTANCE", "FAILED", "SKIPPED", "P99 ms"];
        row(out, &head.map(str::to_owned), &SHADOWS);
    }
    for shadow in shadows {
        let columns = [
            text(field(shadow, "name")),
            format!("{}/{}", text(field(shadow, "model")), text(field(shadow, "version"))),
            percent(field(shadow, "weight")),
            number(field(shadow, "compared")),
            percent(field(shadow, "agreement")),
            field(shadow, "distance").as_f64().map_or_else(|| "-".to_owned(), |distance| format!("{distance:.4}")),
            number(field(shadow, "failed")),
            number(field(shadow, "skipped")),
            number(field(field(shadow, "milliseconds"), "p99")),
        ];
        row(out, &columns, &SHADOWS);
    }
}

/// Arms with their weights.
fn arms(found: &Value) -> String {
    let arm = |arm: &Value| {
        let shadow = if *field(arm, "shadow") == true { " (shadow)" } else { "" };
        format!("{} {}{shadow}", text(field(arm, "name")), percent(field(arm, "weight")))
    };
    field(found, "arms").as_array().into_iter().flatten().map(arm).collect::<Vec<_>>().join(", ")
}

fn accuracy(feedback: &Value) -> String {
    let ends: Vec<String> = field(feedback, "interval").as_array().into_iter().flatten().map(percent).collect();
    match field(feedback, "accuracy") {
        Value::Null => "-".to_owned(),
        accuracy => format!("{} ({})", percent(accuracy), ends.join(" to ").replacen(" %", "", 1)),
    }
}

fn line(out: &mut String, line: &str) {
    // A String takes whatever is written to it.
    _ = terminal::line(out, format_args!("{line}"));
}

fn row<const N: usize>(out: &mut String, columns: &[String; N], widths: &[usize; N]) {
    let padded = columns.iter().zip(widths).map(|(column, &width)| format!("{column:width$}"));
    line(out, padded.collect::<Vec<_>>().join(" ").trim_end());
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number without zeros behind the point.
fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |number| ((number * 1e3).round() / 1e3).to_string())
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0))
}
