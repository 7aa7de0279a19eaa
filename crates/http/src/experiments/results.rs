//! What an experiment shows, on the wire.

use std::time::Duration;

use predictd_api::experiment_results::{
    ArmFeedbackView, ArmResultView, CalibrationBinView, ClassView, ConfusionCellView, ControlComparisonView,
    ExperimentResultsView, FirstDecisionView, LatencyQuantiles, ShadowResultView,
};
use predictd_experiments::experiment::Experiment;
use predictd_experiments::results::{self, ArmResult, ShadowResult};
use predictd_stats::verdict::Verdict;
use predictd_stats::{AccuracyDifference, ComparisonOutcome, ConfidenceInterval};

use crate::registry::wire::format_millis;

/// Most mistakes of an arm that are shown.
const MAX_MISTAKES: usize = 20;

/// What a phase has shown.
pub(super) fn results_view(
    name: &str,
    experiment: &Experiment,
    phase: u32,
    found: &results::PhaseResults,
    details: bool,
) -> ExperimentResultsView {
    let place = usize::try_from(phase).unwrap_or_default().saturating_sub(1);
    ExperimentResultsView {
        experiment: name.to_owned(),
        state: experiment.state.name().to_owned(),
        phase,
        began: experiment.phases.get(place).map(|phase| format_millis(phase.began)),
        verdict: found.verdict.clone(),
        users: found.estimated_users.round(),
        users_in_several_arms: found.multi_arm_users,
        mismatch: found.mismatch,
        arms: found.arms.iter().map(|arm| arm_result(arm, details)).collect(),
        shadows: found.shadows.iter().map(shadow_result).collect(),
    }
}

fn arm_result(found: &ArmResult, details: bool) -> ArmResultView {
    ArmResultView {
        name: found.arm.name.clone(),
        control: found.is_control,
        model: found.arm.model.clone(),
        version: found.arm.version.clone(),
        weight: found.arm.weight,
        share: found.share,
        requests: found.counts.requests,
        texts: found.counts.texts,
        anonymous: found.counts.anonymous,
        failed: found.counts.failed.clone(),
        left: found.counts.cancelled,
        milliseconds: latency_quantiles(found.quantiles),
        feedback: arm_feedback(found, details),
        against_control: (!found.is_control).then(|| control_comparison(found)),
    }
}

fn shadow_result(found: &ShadowResult) -> ShadowResultView {
    ShadowResultView {
        name: found.arm.name.clone(),
        model: found.arm.model.clone(),
        version: found.arm.version.clone(),
        weight: found.arm.weight,
        compared: found.counts.compared,
        agreement: found.agreement(),
        distance: found.mean_confidence_difference(),
        skipped: found.counts.skipped,
        failed: found.counts.failed,
        milliseconds: latency_quantiles(found.quantiles),
    }
}

fn latency_quantiles(times: [Option<Duration>; 3]) -> LatencyQuantiles {
    let [p50, p90, p99] = times.map(|time| time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3));
    LatencyQuantiles { p50, p90, p99 }
}

fn arm_feedback(found: &ArmResult, details: bool) -> ArmFeedbackView {
    let labelled = &found.feedback;
    let confusion = &labelled.confusion;
    let cell = |(predicted, actual, count): (&str, &str, u64)| ConfusionCellView {
        actual: actual.to_owned(),
        predicted: predicted.to_owned(),
        count,
    };
    let ConfidenceInterval { low, high } = found.interval;
    let mut feedback = ArmFeedbackView {
        labelled: labelled.counts.answers,
        correct: labelled.counts.correct,
        failed: labelled.failed,
        accuracy: labelled.counts.accuracy(),
        interval: [low, high],
        calibration_error: labelled.bins.expected_calibration_error(),
        macro_f1: None,
        classes: Vec::new(),
        mistakes: Vec::new(),
        confusion: Vec::new(),
        calibration: Vec::new(),
        incomplete: labelled.is_confusion_truncated,
    };
    if details {
        feedback.macro_f1 = confusion.macro_f1();
        let classes = confusion.classes().into_iter();
        feedback.classes = classes
            .map(|class| ClassView {
                label: class.label,
                precision: class.precision,
                recall: class.recall,
                f1: class.f1,
                support: class.support,
            })
            .collect();
        feedback.mistakes = confusion.top_misclassifications(MAX_MISTAKES).into_iter().map(cell).collect();
        feedback.confusion = confusion.cells().map(cell).collect();
        feedback.calibration = labelled.bins.iter().filter(|(_, bin)| bin.count > 0).map(calibration_bin).collect();
    }
    feedback
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn calibration_bin(
    (ends, bin): (ConfidenceInterval, predictd_stats::reliability::ReliabilityBin),
) -> CalibrationBinView {
    let count = bin.count as f64;
    CalibrationBinView {
        confidence: [ends.low, ends.high],
        count: bin.count,
        accuracy: bin.correct as f64 / count,
        mean_confidence: bin.confidence / count,
    }
}

fn control_comparison(found: &ArmResult) -> ControlComparisonView {
    let difference = found.difference.as_ref();
    // Users that are not spread as they should be spoil the figures, however clear these are.
    let is_spoilt = matches!(found.verdict, Some(Verdict::Mismatch { .. }));
    let decision =
        difference.filter(|_| !is_spoilt).map_or(ComparisonOutcome::Inconclusive, AccuracyDifference::outcome);
    ControlComparisonView {
        verdict: found.verdict.as_ref().map(ToString::to_string).unwrap_or_default(),
        decision: match decision {
            ComparisonOutcome::Better => "better",
            ComparisonOutcome::Worse => "worse",
            ComparisonOutcome::Inconclusive => "not-yet",
        }
        .to_owned(),
        difference: difference.map(|difference| difference.estimate),
        interval: difference.map(|difference| [difference.interval.low, difference.interval.high]),
        p: difference.map(|difference| difference.p_value),
        needed: found.remaining_feedback.map(|needed| [needed.control, needed.treatment]),
        decided: found.first_decision.as_ref().map(|decided| FirstDecisionView {
            better: decided.is_better,
            at: format_millis(decided.decided_at),
            verdict: decided.sentence.clone(),
        }),
    }
}
