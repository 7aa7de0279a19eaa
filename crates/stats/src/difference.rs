//! Whether one arm is more often right than another, valid however often someone looks.
//!
//! The interval is an asymptotic confidence sequence by a normal mixture: I. Waudby-Smith, D. Arbour, R. Sinha,
//! E. H. Kennedy, A. Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
//! Statistics 2024, theorem 2.2 with information and 1/r for t and ρ²; its boundary is that of the mixture
//! sequential probability ratio test in R. Johari, P. Koomen, L. Pekelis, D. Walsh, "Peeking at A/B tests", KDD 2017.
//! Over the whole life of an experiment it misses the true difference with a chance of about alpha at most.
//!
//! It supposes that each arm's accuracy stays what it is. Where weights change while texts get harder, the arms' sums
//! are not comparable: a change of weights is a new experiment.

use super::comparison_plan::ComparisonPlan;
use super::feedback_counts::{FeedbackCounts, MIN_ANSWERS_PER_ARM, answer_variances, to_f64};
use super::interval::ConfidenceInterval;

/// How much more often the treatment is right than the control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccuracyDifference {
    /// Accuracy of the treatment less that of the control, a fraction. After a decision it tends to be too large:
    /// one stops when it is.
    pub estimate: f64,
    /// What holds the true difference, at this look and at all others.
    pub interval: ConfidenceInterval,
    /// Always-valid p-value of no difference: below alpha exactly where the interval excludes 0. The least over all
    /// looks so far is valid too.
    pub p_value: f64,
}

/// What a difference says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOutcome {
    /// The treatment is more often right.
    Better,
    /// The treatment is less often right.
    Worse,
    /// One cannot tell yet.
    Inconclusive,
}

impl AccuracyDifference {
    /// What it says. A later look may say "not yet" again; the first decision stands all the same.
    #[must_use]
    pub fn outcome(&self) -> ComparisonOutcome {
        if self.interval.low > 0.0 {
            ComparisonOutcome::Better
        } else if self.interval.high < 0.0 {
            ComparisonOutcome::Worse
        } else {
            ComparisonOutcome::Inconclusive
        }
    }
}

/// Treatment against control; nothing while an arm has less than [`MIN_ANSWERS_PER_ARM`].
///
/// With the variance V = p₁(1 - p₁)/n₁ + p₂(1 - p₂)/n₂ of the difference (accuracies smoothed by three right and three
/// wrong answers; both the joint accuracy where that makes V larger) and the information I = 1/V, the half width is
/// sqrt((I + r)/I² · ln((I + r)/(r α²))), and p = sqrt((I + r)/r) · exp(-I²d²/(2 (I + r))).
#[must_use]
pub fn compare_accuracies(
    control: FeedbackCounts,
    treatment: FeedbackCounts,
    plan: &ComparisonPlan,
) -> Option<AccuracyDifference> {
    if control.answers.min(treatment.answers) < MIN_ANSWERS_PER_ARM {
        return None;
    }
    let estimate = treatment.accuracy()? - control.accuracy()?;
    let sizes = [control, treatment].map(|arm| to_f64(arm.answers));
    let variances = answer_variances([control, treatment].map(FeedbackCounts::smoothed_accuracy), sizes);
    let variance: f64 = variances.iter().zip(sizes).map(|(variance, size)| variance / size).sum();
    let information = 1.0 / variance;
    let r = plan.mixture();
    let alpha = plan.alpha;
    let grown = (information + r) / r;
    let half = ((information + r) * (grown / (alpha * alpha)).ln()).sqrt() / information;
    let evidence = (information * estimate).powi(2) / (2.0 * (information + r)) - 0.5 * grown.ln();
    Some(AccuracyDifference {
        estimate,
        interval: ConfidenceInterval { low: (estimate - half).max(-1.0), high: (estimate + half).min(1.0) },
        p_value: (-evidence).exp().min(1.0),
    })
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use super::super::comparison_plan::{DEFAULT_ALPHA, DEFAULT_POWER};
    use super::*;
    use crate::tests::simulation::ArmSimulator;

    const ANSWERS_PER_LOOK: u64 = 100;

    fn plan(base: f64, least: f64, weights: [f64; 2]) -> ComparisonPlan {
        ComparisonPlan::new(base, least, weights, DEFAULT_ALPHA, DEFAULT_POWER).unwrap()
    }

    /// The part of so many experiments in which something was decided within `times` the planned feedback, when
    /// someone looks after every hundred.
    fn decided_share(plan: &ComparisonPlan, accuracies: [f64; 2], treatment: f64, times: u64, experiments: u64) -> f64 {
        let needed = plan.planned_sample_sizes();
        let mut arms = ArmSimulator::new(ANSWERS_PER_LOOK, treatment, accuracies);
        let decided = (0..experiments).filter(|_| {
            let [mut control, mut treatment] = [FeedbackCounts::default(); 2];
            loop {
                arms.add_batch(&mut control, &mut treatment);
                if compare_accuracies(control, treatment, plan)
                    .is_some_and(|found| found.outcome() != ComparisonOutcome::Inconclusive)
                {
                    return true;
                }
                if control.answers >= times * needed.control && treatment.answers >= times * needed.treatment {
                    return false;
                }
            }
        });
        decided.count() as f64 / experiments as f64
    }

    #[test]
    fn comparison_without_difference_false_alarms_below_alpha() {
        for (base, share) in [(0.5, 0.5), (0.9, 0.5), (0.97, 0.5), (0.97, 0.1), (0.99, 0.1)] {
            let found = decided_share(&plan(base, 0.03, [1.0 - share, share]), [base; 2], share, 2, 2_000);
            assert!(found <= 0.05, "{base} {share}: {found}");
        }
    }

    #[test]
    fn comparison_planned_difference_found_within_plan() {
        for (base, share) in [(0.5, 0.5), (0.9, 0.5), (0.9, 0.1)] {
            for other in [base - 0.03, base + 0.03] {
                let found = decided_share(&plan(base, 0.03, [1.0 - share, share]), [base, other], share, 1, 1_000);
                assert!(found >= 0.9, "{base} {other} {share}: {found}");
            }
        }
    }

    #[test]
    fn comparison_true_difference_covered_by_interval() {
        // The smaller arm is the worse one, and shows it late: the hardest case.
        for ([base, other], share) in [([0.99, 0.95], 0.1), ([0.95, 0.99], 0.9), ([0.9, 0.6], 0.5)] {
            let plan = plan(base, 0.03, [1.0 - share, share]);
            let truth = other - base;
            let mut arms = ArmSimulator::new(ANSWERS_PER_LOOK, share, [base, other]);
            let missed = (0..1_000).filter(|_| {
                let [mut control, mut treatment] = [FeedbackCounts::default(); 2];
                (0..50).any(|_| {
                    arms.add_batch(&mut control, &mut treatment);
                    let found = compare_accuracies(control, treatment, &plan).map(|found| found.interval);
                    found.is_some_and(|interval| truth < interval.low || interval.high < truth)
                })
            });
            let missed = missed.count() as f64 / 1_000.0;
            assert!(missed <= 0.05, "{base} {other} {share}: {missed}");
        }
    }

    #[test]
    fn p_value_below_alpha_iff_interval_excludes_zero() {
        let plan = plan(0.9, 0.03, [1.0, 1.0]);
        let mut both = [false; 2];
        for correct in 800..=1_000 {
            let found = compare_accuracies(
                FeedbackCounts { correct: 900, answers: 1_000 },
                FeedbackCounts { correct, answers: 1_000 },
                &plan,
            );
            let found = found.unwrap();
            assert_eq!(found.p_value < DEFAULT_ALPHA, found.outcome() != ComparisonOutcome::Inconclusive, "{found:?}");
            both[usize::from(found.p_value < DEFAULT_ALPHA)] = true;
            assert!(found.interval.low < found.estimate && found.estimate < found.interval.high);
        }
        assert_eq!(both, [true; 2]);
    }

    #[test]
    fn comparison_below_minimum_is_none_and_edges_bounded() {
        let plan = plan(0.9, 0.03, [1.0, 1.0]);
        let all = FeedbackCounts { correct: MIN_ANSWERS_PER_ARM, answers: MIN_ANSWERS_PER_ARM };
        assert_eq!(
            compare_accuracies(
                all,
                FeedbackCounts { correct: MIN_ANSWERS_PER_ARM - 1, answers: MIN_ANSWERS_PER_ARM - 1 },
                &plan
            ),
            None
        );
        let equal = compare_accuracies(all, all, &plan).unwrap();
        assert!(equal.estimate.abs() < 1e-12 && equal.p_value <= 1.0 && equal.interval.high > 0.02, "{equal:?}");
        let none = compare_accuracies(all, FeedbackCounts { correct: 0, answers: MIN_ANSWERS_PER_ARM }, &plan).unwrap();
        assert_eq!((none.outcome(), none.interval.low), (ComparisonOutcome::Worse, -1.0));
    }
}
