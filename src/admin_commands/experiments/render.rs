//! Answers about experiments for people.

use std::fmt::Display;

use predictd_api::experiment_results::{ArmFeedbackView, ArmResultView, ExperimentResultsView, ShadowResultView};
use predictd_api::experiments::{
    AnonymousRoute, ArmBody, ExperimentChangeResponse, ExperimentListView, ExperimentView, PowerTargetBody,
};
use predictd_api::models::AuditEntryView;

use crate::admin_commands::render::{STALE_NOTE, or_dash, push_line, unchanged_note};

pub(super) fn push_list(out: &mut String, list: ExperimentListView) {
    push_list_row(out, [&"NAME", &"STATE", &"ON", &"CONTROL", &"ARMS"]);
    for ExperimentView { name, state, design, .. } in list.experiments {
        push_list_row(out, [&name, &state, &or_dash(design.on), &or_dash(design.control), &fmt_arms(design.arms)]);
    }
    if list.stale {
        push_line(out, STALE_NOTE);
    }
}

/// The head of the list, or an experiment in it.
fn push_list_row(out: &mut String, [name, state, on, control, arms]: [&dyn Display; 5]) {
    push_line(out, format_args!("{name:24} {state:8} {on:20} {control:12} {arms}"));
}

pub(super) fn push_history(out: &mut String, entries: Vec<AuditEntryView>) {
    for AuditEntryView { at, who, action, reason, .. } in entries {
        push_line(out, format_args!("{at} {action:10} {who:24} {}", or_dash(reason)));
    }
}

pub(super) fn push_change(out: &mut String, change: ExperimentChangeResponse) {
    let Some(ExperimentView { name, state, design, .. }) = change.experiment else {
        return push_line(out, "the experiment is forgotten");
    };
    let note = unchanged_note(change.changed);
    push_line(out, format_args!("{name}: {state}, {}{note}", fmt_arms(design.arms)));
}

pub(super) fn push_experiment(out: &mut String, found: ExperimentView) {
    let design = found.design;
    let anonymous = design.anonymous.map(|route| match route {
        AnonymousRoute::Random => "random".to_owned(),
        AnonymousRoute::Control => "control".to_owned(),
    });
    for (part, value) in [
        ("name", Some(found.name)),
        ("state", Some(found.state)),
        ("on", design.on),
        ("control", design.control),
        ("salt", design.salt),
        ("anonymous", anonymous),
        ("created", Some(found.created)),
        ("started", found.started),
        ("ended", found.ended),
        ("outcome", found.outcome),
    ] {
        if let Some(value) = value {
            push_line(out, format_args!("{part:12} {value}"));
        }
    }
    let PowerTargetBody { accuracy, least, alpha, power } = design.aim.unwrap_or_default();
    push_line(
        out,
        format_args!(
            "aim          a difference of {} from an accuracy of about {}; alpha {}, power {}",
            fmt_number(least),
            fmt_number(accuracy),
            fmt_number(alpha),
            fmt_number(power),
        ),
    );
    for ArmBody { name, model, version, weight, shadow } in design.arms {
        let kind = if shadow { "shadow" } else { "arm" };
        push_line(out, format_args!("{kind:12} {name}: {}, {}", fmt_version(model, version), fmt_percent(weight)));
    }
    let steps = design.rollout.map(|rollout| rollout.steps).unwrap_or_default();
    for (number, step) in (1..).zip(steps) {
        let here = if found.step == Some(number) { "   <- now" } else { "" };
        let weight = fmt_percent(Some(step.weight));
        let seconds = or_dash(step.seconds);
        let requests = or_dash(step.requests);
        push_line(out, format_args!("step {number:<7} {weight}, {seconds} s and {requests} requests at least{here}"));
    }
    for phase in found.phases {
        let weights = phase.weights.into_iter().map(|(arm, weight)| format!("{arm} {}", fmt_percent(Some(weight))));
        let weights: Vec<String> = weights.collect();
        push_line(out, format_args!("phase {:<6} {} {}", phase.phase, phase.began, weights.join(", ")));
    }
}

pub(super) fn push_results(out: &mut String, found: ExperimentResultsView) {
    let ExperimentResultsView { experiment, state, phase, began, verdict, users, arms, shadows, .. } = found;
    push_line(out, verdict);
    let users = if users > 0.0 {
        format!("about {users} users")
    } else {
        "no users named: whether they are spread as the weights say could not be checked".to_owned()
    };
    push_line(out, format_args!("{experiment}: {state}, phase {phase} since {}, {users}", or_dash(began)));
    push_line(out, "");
    push_arms(out, &arms);
    push_comparisons(out, arms);
    push_shadows(out, shadows);
}

fn push_arms(out: &mut String, arms: &[ArmResultView]) {
    let head: [&dyn Display; 11] = [
        &"ARM",
        &"VERSION",
        &"WEIGHT",
        &"SHARE",
        &"REQUESTS",
        &"LOST",
        &"P50 ms",
        &"P99 ms",
        &"LABELLED",
        &"ACCURACY (95 %)",
        &"CAL. ERROR",
    ];
    push_arm_row(out, head);
    for arm in arms {
        let star = if arm.control { "*" } else { "" };
        let columns: [&dyn Display; 11] = [
            &format!("{}{star}", arm.name),
            &fmt_version(Some(&arm.model), arm.version.as_ref()),
            &fmt_percent(Some(arm.weight)),
            &fmt_percent(arm.share),
            &arm.requests,
            &(arm.failed.values().sum::<u64>() + arm.left),
            &fmt_number(arm.milliseconds.p50),
            &fmt_number(arm.milliseconds.p99),
            &arm.feedback.labelled,
            &fmt_accuracy(&arm.feedback),
            &fmt_percent(arm.feedback.calibration_error),
        ];
        push_arm_row(out, columns);
    }
    push_line(out, "* the control; LOST: failed, or its client left before");
}

/// The head of the results, or an arm in them.
fn push_arm_row(out: &mut String, columns: [&dyn Display; 11]) {
    let [name, version, weight, share, requests, lost, p50, p99, labelled, accuracy, calibration_error] = columns;
    push_line(
        out,
        format_args!(
            "{name:14} {version:22} {weight:7} {share:7} {requests:<9} {lost:<7} {p50:8} {p99:8} {labelled:<9} {accuracy:24} {calibration_error}"
        ),
    );
}

/// What feedback says of each arm against the control.
fn push_comparisons(out: &mut String, arms: Vec<ArmResultView>) {
    for arm in arms {
        let Some(against) = arm.against_control else { continue };
        let needed: u64 = against.needed.iter().flatten().sum();
        let more = if needed > 0 { format!(" ({needed} more labelled answers by plan)") } else { String::new() };
        push_line(out, format_args!("{}: {}{more}", arm.name, against.verdict));
        if let Some(decided) = against.decided {
            push_line(out, format_args!("  decided {}: {}", decided.at, decided.verdict));
        }
    }
}

fn push_shadows(out: &mut String, shadows: Vec<ShadowResultView>) {
    if !shadows.is_empty() {
        push_line(out, "");
        let head: [&dyn Display; 9] =
            [&"SHADOW", &"VERSION", &"WEIGHT", &"COMPARED", &"SAME", &"DISTANCE", &"FAILED", &"SKIPPED", &"P99 ms"];
        push_shadow_row(out, head);
    }
    for shadow in shadows {
        let columns: [&dyn Display; 9] = [
            &shadow.name,
            &fmt_version(Some(shadow.model), shadow.version),
            &fmt_percent(Some(shadow.weight)),
            &shadow.compared,
            &fmt_percent(shadow.agreement),
            &or_dash(shadow.distance.map(|distance| format!("{distance:.4}"))),
            &shadow.failed,
            &shadow.skipped,
            &fmt_number(shadow.milliseconds.p99),
        ];
        push_shadow_row(out, columns);
    }
}

/// The head of the shadows' results, or a shadow in them.
fn push_shadow_row(out: &mut String, columns: [&dyn Display; 9]) {
    let [name, version, weight, compared, same, distance, failed, skipped, p99] = columns;
    push_line(
        out,
        format_args!(
            "{name:14} {version:22} {weight:7} {compared:<9} {same:9} {distance:8} {failed:<7} {skipped:<8} {p99}"
        ),
    );
}

/// Arms with their weights.
fn fmt_arms(arms: Vec<ArmBody>) -> String {
    let arms = arms.into_iter().map(|ArmBody { name, weight, shadow, .. }| {
        let mark = if shadow { " (shadow)" } else { "" };
        format!("{name} {}{mark}", fmt_percent(weight))
    });
    arms.collect::<Vec<_>>().join(", ")
}

fn fmt_version<T: Display>(model: Option<T>, version: Option<T>) -> String {
    format!("{}/{}", or_dash(model), or_dash(version))
}

fn fmt_accuracy(feedback: &ArmFeedbackView) -> String {
    let ends = feedback.interval.map(|end| fmt_percent(Some(end))).join(" to ").replacen(" %", "", 1);
    or_dash(feedback.accuracy.map(|accuracy| format!("{} ({ends})", fmt_percent(Some(accuracy)))))
}

/// A number without zeros behind the point.
fn fmt_number(number: Option<f64>) -> String {
    or_dash(number.map(|number| (number * 1e3).round() / 1e3))
}

fn fmt_percent(part: Option<f64>) -> String {
    or_dash(part.map(|part| format!("{:.1} %", part * 100.0)))
}
