//! Answers about experiments for people.

use predictd_api::experiment_results::{ArmFeedbackView, ArmResultView, ExperimentResultsView, ShadowResultView};
use predictd_api::experiments::{
    AnonymousRoute, ArmBody, ExperimentChangeResponse, ExperimentListView, ExperimentView, RolloutBody,
};
use predictd_api::models::AuditEntryView;

use crate::admin_commands::render::{STALE_NOTE, or_dash, push_line, unchanged_note};

/// Widths of the columns of the list.
const LIST_COLUMN_WIDTHS: [usize; 5] = [24, 8, 20, 12, 0];
/// Of arms in results.
const ARM_COLUMN_WIDTHS: [usize; 11] = [14, 22, 7, 7, 9, 7, 8, 8, 9, 24, 10];
/// Of shadows in results.
const SHADOW_COLUMN_WIDTHS: [usize; 9] = [14, 22, 7, 9, 9, 8, 7, 8, 8];

pub(super) fn push_list(out: &mut String, list: &ExperimentListView) {
    push_row(out, &["NAME", "STATE", "ON", "CONTROL", "ARMS"].map(str::to_owned), &LIST_COLUMN_WIDTHS);
    for ExperimentView { name, state, design, .. } in &list.experiments {
        let on = or_dash(design.on.as_deref());
        let control = or_dash(design.control.as_deref());
        let columns = [name, state, on, control, &fmt_arms(&design.arms)].map(str::to_owned);
        push_row(out, &columns, &LIST_COLUMN_WIDTHS);
    }
    if list.stale {
        push_line(out, format_args!("{STALE_NOTE}"));
    }
}

pub(super) fn push_history(out: &mut String, entries: &[AuditEntryView]) {
    for AuditEntryView { at, who, action, reason, .. } in entries {
        push_line(out, format_args!("{at} {action:10} {who:24} {}", or_dash(reason.as_deref())));
    }
}

pub(super) fn push_change(out: &mut String, change: &ExperimentChangeResponse) {
    let Some(ExperimentView { name, state, design, .. }) = &change.experiment else {
        return push_line(out, format_args!("the experiment is forgotten"));
    };
    let note = unchanged_note(change.changed);
    push_line(out, format_args!("{name}: {state}, {}{note}", fmt_arms(&design.arms)));
}

pub(super) fn push_experiment(out: &mut String, found: &ExperimentView) {
    let design = &found.design;
    let anonymous = design.anonymous.map(|route| match route {
        AnonymousRoute::Random => "random",
        AnonymousRoute::Control => "control",
    });
    for (part, value) in [
        ("name", Some(&*found.name)),
        ("state", Some(&*found.state)),
        ("on", design.on.as_deref()),
        ("control", design.control.as_deref()),
        ("salt", design.salt.as_deref()),
        ("anonymous", anonymous),
        ("created", Some(&*found.created)),
        ("started", found.started.as_deref()),
        ("ended", found.ended.as_deref()),
        ("outcome", found.outcome.as_deref()),
    ] {
        if let Some(value) = value {
            push_line(out, format_args!("{part:12} {value}"));
        }
    }
    let aim = design.aim.as_ref();
    push_line(
        out,
        format_args!(
            "{:12} a difference of {} from an accuracy of about {}; alpha {}, power {}",
            "aim",
            fmt_number(aim.and_then(|aim| aim.least)),
            fmt_number(aim.and_then(|aim| aim.accuracy)),
            fmt_number(aim.and_then(|aim| aim.alpha)),
            fmt_number(aim.and_then(|aim| aim.power)),
        ),
    );
    for ArmBody { name, model, version, weight, shadow } in &design.arms {
        let kind = if *shadow { "shadow" } else { "arm" };
        let version = fmt_version(model.as_deref(), version.as_deref());
        push_line(out, format_args!("{kind:12} {name}: {version}, {}", fmt_percent(*weight)));
    }
    design.rollout.iter().for_each(|rollout| push_steps(out, rollout, found.step));
    for phase in &found.phases {
        let weights = phase.weights.iter().map(|(arm, weight)| format!("{arm} {}", fmt_percent(Some(*weight))));
        let weights: Vec<String> = weights.collect();
        push_line(out, format_args!("phase {:<6} {} {}", phase.phase, phase.began, weights.join(", ")));
    }
}

/// The steps of a rollout, with a mark at the present one, which counts from 1.
fn push_steps(out: &mut String, rollout: &RolloutBody, present: Option<usize>) {
    for (number, step) in (1..).zip(&rollout.steps) {
        let here = if present == Some(number) { "   <- now" } else { "" };
        let weight = fmt_percent(Some(step.weight));
        let seconds = fmt_count(step.seconds);
        let requests = fmt_count(step.requests);
        push_line(out, format_args!("step {number:<7} {weight}, {seconds} s and {requests} requests at least{here}"));
    }
}

pub(super) fn push_results(out: &mut String, found: &ExperimentResultsView) {
    push_line(out, format_args!("{}", found.verdict));
    let users = if found.users > 0.0 {
        format!("about {} users", found.users)
    } else {
        "no users named: whether they are spread as the weights say could not be checked".to_owned()
    };
    let ExperimentResultsView { experiment, state, phase, .. } = found;
    let began = or_dash(found.began.as_deref());
    push_line(out, format_args!("{experiment}: {state}, phase {phase} since {began}, {users}"));
    push_line(out, format_args!(""));
    push_arms(out, &found.arms);
    push_comparisons(out, &found.arms);
    push_shadows(out, &found.shadows);
}

fn push_arms(out: &mut String, arms: &[ArmResultView]) {
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
        let star = if arm.control { "*" } else { "" };
        let columns = [
            format!("{}{star}", arm.name),
            fmt_version(Some(&arm.model), arm.version.as_deref()),
            fmt_percent(Some(arm.weight)),
            fmt_percent(arm.share),
            arm.requests.to_string(),
            (arm.failed.values().sum::<u64>() + arm.left).to_string(),
            fmt_number(arm.milliseconds.p50),
            fmt_number(arm.milliseconds.p99),
            arm.feedback.labelled.to_string(),
            fmt_accuracy(&arm.feedback),
            fmt_percent(arm.feedback.calibration_error),
        ];
        push_row(out, &columns, &ARM_COLUMN_WIDTHS);
    }
    push_line(out, format_args!("* the control; LOST: failed, or its client left before"));
}

/// What feedback says of each arm against the control.
fn push_comparisons(out: &mut String, arms: &[ArmResultView]) {
    for arm in arms {
        let Some(against) = &arm.against_control else { continue };
        let needed: u64 = against.needed.iter().flatten().sum();
        let more = if needed > 0 { format!(" ({needed} more labelled answers by plan)") } else { String::new() };
        push_line(out, format_args!("{}: {}{more}", arm.name, against.verdict));
        if let Some(decided) = &against.decided {
            push_line(out, format_args!("  decided {}: {}", decided.at, decided.verdict));
        }
    }
}

fn push_shadows(out: &mut String, shadows: &[ShadowResultView]) {
    if !shadows.is_empty() {
        push_line(out, format_args!(""));
        let head = ["SHADOW", "VERSION", "WEIGHT", "COMPARED", "SAME", "DISTANCE", "FAILED", "SKIPPED", "P99 ms"];
        push_row(out, &head.map(str::to_owned), &SHADOW_COLUMN_WIDTHS);
    }
    for shadow in shadows {
        let columns = [
            shadow.name.clone(),
            fmt_version(Some(&shadow.model), shadow.version.as_deref()),
            fmt_percent(Some(shadow.weight)),
            shadow.compared.to_string(),
            fmt_percent(shadow.agreement),
            shadow.distance.map_or_else(|| "-".to_owned(), |distance| format!("{distance:.4}")),
            shadow.failed.to_string(),
            shadow.skipped.to_string(),
            fmt_number(shadow.milliseconds.p99),
        ];
        push_row(out, &columns, &SHADOW_COLUMN_WIDTHS);
    }
}

/// Arms with their weights.
fn fmt_arms(arms: &[ArmBody]) -> String {
    let arm = |arm: &ArmBody| {
        let shadow = if arm.shadow { " (shadow)" } else { "" };
        format!("{} {}{shadow}", arm.name, fmt_percent(arm.weight))
    };
    arms.iter().map(arm).collect::<Vec<_>>().join(", ")
}

fn fmt_version(model: Option<&str>, version: Option<&str>) -> String {
    format!("{}/{}", or_dash(model), or_dash(version))
}

fn fmt_accuracy(feedback: &ArmFeedbackView) -> String {
    let ends = feedback.interval.map(|end| fmt_percent(Some(end))).join(" to ").replacen(" %", "", 1);
    feedback.accuracy.map_or_else(|| "-".to_owned(), |accuracy| format!("{} ({ends})", fmt_percent(Some(accuracy))))
}

fn push_row<const N: usize>(out: &mut String, columns: &[String; N], widths: &[usize; N]) {
    let padded = columns.iter().zip(widths).map(|(column, &width)| format!("{column:width$}"));
    push_line(out, format_args!("{}", padded.collect::<Vec<_>>().join(" ").trim_end()));
}

fn fmt_count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// A number without zeros behind the point.
fn fmt_number(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| ((number * 1e3).round() / 1e3).to_string())
}

fn fmt_percent(part: Option<f64>) -> String {
    part.map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0))
}
