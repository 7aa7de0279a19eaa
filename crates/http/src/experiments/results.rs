//! What an experiment shows, on the wire.

use predictd_api::experiment_results::{
    ArmFeedbackView, ArmResultView, CalibrationBinView, ClassView, ConfusionCellView, ControlComparisonView,
    ExperimentResultsView, FirstDecisionView, LatencyQuantiles, ShadowResultView,
};
use predictd_experiments::counters::SparseLatencyHistogram;
use predictd_experiments::experiment::Experiment;
use predictd_experiments::results::{ArmFeedback, ArmResult, PhaseResults, ShadowResult};
use predictd_stats::confusion::ClassMetrics;
use predictd_stats::reliability::ReliabilityBin;
use predictd_stats::verdict::Verdict;
use predictd_stats::{AccuracyDifference, ComparisonOutcome, ConfidenceInterval};

use crate::registry::wire::format_millis;

/// Most mistakes of an arm that are shown.
const MAX_MISTAKES: usize = 20;

/// The results of a phase of an experiment; with `details` also every class, mistake and bin.
pub(super) fn results_view(
    name: String,
    (experiment, phase, found): (Experiment, u32, PhaseResults),
    details: bool,
) -> ExperimentResultsView {
    let index = usize::try_from(phase).unwrap_or_default().saturating_sub(1);
    ExperimentResultsView {
        experiment: name,
        state: experiment.state.name().to_owned(),
        phase,
        began: experiment.phases.get(index).map(|phase| format_millis(phase.began)),
        verdict: found.verdict,
        users: found.estimated_users.round(),
        users_in_several_arms: found.multi_arm_users,
        mismatch: found.mismatch,
        arms: found.arms.into_iter().map(|arm| arm_result(arm, details)).collect(),
        shadows: found.shadows.into_iter().map(shadow_result).collect(),
    }
}

fn arm_result(found: ArmResult, details: bool) -> ArmResultView {
    ArmResultView {
        feedback: arm_feedback(&found.feedback, found.interval, details),
        against_control: (!found.is_control).then(|| control_comparison(&found)),
        name: found.arm.name,
        control: found.is_control,
        model: found.arm.model,
        version: found.arm.version,
        weight: found.arm.weight,
        share: found.share,
        requests: found.counts.requests,
        texts: found.counts.texts,
        anonymous: found.counts.anonymous,
        failed: found.counts.failed,
        left: found.counts.cancelled,
        milliseconds: latency_quantiles(&found.counts.latencies),
    }
}

fn shadow_result(found: ShadowResult) -> ShadowResultView {
    ShadowResultView {
        agreement: found.agreement(),
        distance: found.mean_confidence_difference(),
        name: found.arm.name,
        model: found.arm.model,
        version: found.arm.version,
        weight: found.arm.weight,
        compared: found.counts.compared,
        skipped: found.counts.skipped,
        failed: found.counts.failed,
        milliseconds: latency_quantiles(&found.counts.latencies),
    }
}

/// The times that 50, 90 and 99 of 100 answers stayed within.
fn latency_quantiles(times: &SparseLatencyHistogram) -> LatencyQuantiles {
    let [p50, p90, p99] =
        [0.5, 0.9, 0.99].map(|q| times.0.quantile(q).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3));
    LatencyQuantiles { p50, p90, p99 }
}

fn arm_feedback(labelled: &ArmFeedback, interval: ConfidenceInterval, details: bool) -> ArmFeedbackView {
    let mut feedback = ArmFeedbackView {
        labelled: labelled.counts.answers,
        correct: labelled.counts.correct,
        failed: labelled.failed,
        accuracy: labelled.counts.accuracy(),
        interval: [interval.low, interval.high],
        calibration_error: labelled.bins.expected_calibration_error(),
        incomplete: labelled.is_confusion_truncated,
        ..ArmFeedbackView::default()
    };
    if details {
        let confusion = &labelled.confusion;
        feedback.macro_f1 = confusion.macro_f1();
        feedback.classes = confusion.classes().into_iter().map(class_view).collect();
        feedback.mistakes = confusion.top_misclassifications(MAX_MISTAKES).into_iter().map(cell_view).collect();
        feedback.confusion = confusion.cells().map(cell_view).collect();
        feedback.calibration = labelled.bins.iter().filter(|(_, bin)| bin.count > 0).map(calibration_bin).collect();
    }
    feedback
}

fn class_view(ClassMetrics { label, precision, recall, f1, support }: ClassMetrics) -> ClassView {
    ClassView { label, precision, recall, f1, support }
}

fn cell_view((predicted, actual, count): (&str, &str, u64)) -> ConfusionCellView {
    ConfusionCellView { actual: actual.to_owned(), predicted: predicted.to_owned(), count }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn calibration_bin((ends, bin): (ConfidenceInterval, ReliabilityBin)) -> CalibrationBinView {
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
    let decision = match difference.map(AccuracyDifference::outcome) {
        Some(ComparisonOutcome::Better) if !is_spoilt => "better",
        Some(ComparisonOutcome::Worse) if !is_spoilt => "worse",
        _ => "not-yet",
    };
    ControlComparisonView {
        verdict: found.verdict.as_ref().map(ToString::to_string).unwrap_or_default(),
        decision: decision.to_owned(),
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
