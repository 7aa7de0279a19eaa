//! How much feedback a comparison takes. Fixed before the first feedback comes.

use statrs::distribution::{ContinuousCDF, Normal};

use super::feedback_counts::{FeedbackCounts, MIN_ANSWERS_PER_ARM, answer_variances, larger_variances, to_f64};

/// Chance of a false alarm over the whole experiment, however often someone looks.
pub const DEFAULT_ALPHA: f64 = 0.05;
/// Chance that a difference as large as planned for is found within the planned feedback.
pub const DEFAULT_POWER: f64 = 0.9;

/// What a comparison is to find.
///
/// It must be fixed before the first feedback and not be changed by what the feedback says: the shape of the
/// confidence sequence (`mixture`) follows from it, and the sequence is valid only for a shape that does not
/// depend on the data. It follows from the least difference, `alpha` and `power` alone: a wrong guess of the accuracy
/// or other weights change how long it takes, never the validity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ComparisonPlan {
    baseline_accuracy: f64,
    /// The least difference worth finding, a fraction.
    pub(super) min_effect: f64,
    weights: [f64; 2],
    /// Chance of a false alarm of this comparison.
    pub(super) alpha: f64,
    /// Chance that the least difference is found within the planned feedback.
    pub(super) power: f64,
}

/// Answers with feedback, of each arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SampleSizes {
    /// Of the control.
    pub control: u64,
    /// Of the treatment.
    pub treatment: u64,
}

impl ComparisonPlan {
    /// A plan: the control's accuracy as guessed (0 to 1), the least difference worth finding (a fraction: 0.03 for
    /// three points; 0.0001 to 0.5), the weights of control and treatment (only their ratio counts), `alpha` (0 to
    /// 0.5) and `power` (0.5 to 0.9999). Nothing if one of them is out of range.
    #[must_use]
    pub fn new(base: f64, least: f64, weights: [f64; 2], alpha: f64, power: f64) -> Option<Self> {
        let sensible = (0.0..=1.0).contains(&base)
            && (0.0001..=0.5).contains(&least)
            && weights.iter().all(|weight| weight.is_finite() && *weight > 0.0)
            && (1e-6..=0.5).contains(&alpha)
            && (0.5..=0.9999).contains(&power);
        let [control, treatment] = weights;
        let weights = [control / (control + treatment), treatment / (control + treatment)];
        sensible.then_some(Self { baseline_accuracy: base, min_effect: least, weights, alpha, power })
    }

    /// The plan of one of so many comparisons that share `alpha` (Bonferroni).
    #[must_use]
    pub fn with_bonferroni(self, comparisons: usize) -> Self {
        Self { alpha: self.alpha / to_f64(comparisons.max(1) as u64), ..self }
    }

    /// `r` of [`compare`](super::difference::compare_accuracies), an information (1 / variance of the difference): such that the
    /// interval is about as narrow as it can be once the planned information is there.
    ///
    /// It is the planned information / (-2 ln α + ln(1 - 2 ln α)): Waudby-Smith et al. 2024 on the choice of ρ, where
    /// ρ² is 1/r.
    pub(super) fn mixture(&self) -> f64 {
        self.planned_information() / self.mixture_divisor()
    }

    /// Feedback still to come until what was planned: by the accuracies seen so far if both arms have the minimum,
    /// by those planned otherwise. Nothing once the planned certainty is reached.
    #[must_use]
    pub fn remaining_sample_sizes(&self, control: FeedbackCounts, treatment: FeedbackCounts) -> SampleSizes {
        let seen = control.answers.min(treatment.answers) >= MIN_ANSWERS_PER_ARM;
        let sizes = [control, treatment].map(|arm| to_f64(arm.answers));
        let [of_control, of_treatment] = self.weights;
        let variances = if seen {
            answer_variances([control, treatment].map(FeedbackCounts::smoothed_accuracy), sizes)
        } else {
            self.expected_variances()
        };
        let more = additional_answers(variances, sizes, self.weights, 1.0 / self.planned_information());
        SampleSizes {
            control: ceil_to_u64(more * of_control).max(MIN_ANSWERS_PER_ARM.saturating_sub(control.answers)),
            treatment: ceil_to_u64(more * of_treatment).max(MIN_ANSWERS_PER_ARM.saturating_sub(treatment.answers)),
        }
    }

    /// The information at whose end the least difference is found with the planned power, by that look alone.
    fn planned_information(&self) -> f64 {
        // At information I = k·r the boundary, in standard errors, depends on k and alpha only.
        let k = self.mixture_divisor();
        let boundary = ((1.0 + 1.0 / k) * ((k + 1.0).ln() - 2.0 * self.alpha.ln())).sqrt();
        ((boundary + normal_upper_quantile(1.0 - self.power)) / self.min_effect).powi(2)
    }

    fn mixture_divisor(&self) -> f64 {
        let log = -2.0 * self.alpha.ln();
        log + (1.0 + log).ln()
    }

    /// Variances of one answer in each arm, as guessed: with the treatment better or worse, whichever needs more.
    fn expected_variances(&self) -> [f64; 2] {
        let [worse, better] = [self.baseline_accuracy - self.min_effect, self.baseline_accuracy + self.min_effect]
            .map(|other| answer_variances([self.baseline_accuracy, other.clamp(0.0, 1.0)], self.weights));
        larger_variances(worse, better, self.weights)
    }
}

/// How many more answers, split by `weights`, bring the variance of the difference down to `target`.
///
/// The larger root of v₁/(n₁ + m w₁) + v₂/(n₂ + m w₂) = target in m.
fn additional_answers([v1, v2]: [f64; 2], [n1, n2]: [f64; 2], [w1, w2]: [f64; 2], target: f64) -> f64 {
    let square = target * w1 * w2;
    let linear = target * (n1 * w2 + n2 * w1) - v1 * w2 - v2 * w1;
    let constant = target * n1 * n2 - v1 * n2 - v2 * n1;
    // Arms far from their weights may have two roots below zero, or none: there is enough.
    let root = (linear * linear - 4.0 * square * constant).max(0.0).sqrt();
    ((root - linear) / (2.0 * square)).max(0.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and `as` saturates")]
fn ceil_to_u64(number: f64) -> u64 {
    number.ceil() as u64
}

/// The value that a standard normal variable exceeds with this chance.
fn normal_upper_quantile(chance: f64) -> f64 {
    -Normal::standard().inverse_cdf(chance)
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use super::*;

    impl ComparisonPlan {
        /// Feedback needed so that the sequence excludes 0 within it with the planned power, if the difference is the
        /// least worth finding, in whichever direction takes more.
        pub(crate) fn planned_sample_sizes(&self) -> SampleSizes {
            self.remaining_sample_sizes(FeedbackCounts::default(), FeedbackCounts::default())
        }
    }

    fn plan(base: f64, weights: [f64; 2]) -> ComparisonPlan {
        ComparisonPlan::new(base, 0.03, weights, DEFAULT_ALPHA, DEFAULT_POWER).unwrap()
    }

    #[test]
    fn normal_upper_quantile_table_values_match() {
        for (chance, quantile) in [(0.1, 1.281_552), (0.05, 1.644_854), (0.001, 3.090_232), (0.5, 0.0)] {
            assert!((normal_upper_quantile(chance) - quantile).abs() < 1e-6, "{chance}");
        }
    }

    #[test]
    fn sample_sizes_sequential_below_twice_fixed() {
        let needed = plan(0.9, [1.0, 1.0]).planned_sample_sizes();
        assert_eq!(needed.control, needed.treatment);
        // One look at a fixed sample, by the usual formula.
        let once = (1.96 + 1.2816_f64).powi(2) * (0.09 + 0.87 * 0.13) / 0.0009;
        assert!((1.6..1.9).contains(&(needed.control as f64 / once)), "{needed:?} against {once}");
    }

    #[test]
    fn sample_sizes_uneven_weights_need_more_in_total() {
        let even = plan(0.9, [1.0, 1.0]).planned_sample_sizes();
        let uneven = plan(0.9, [0.9, 0.1]).planned_sample_sizes();
        assert!(uneven.control + uneven.treatment > 2 * (even.control + even.treatment));
        assert!(uneven.treatment < even.treatment && uneven.control > 8 * uneven.treatment);
    }

    #[test]
    fn remaining_sizes_shrink_with_feedback() {
        let plan = plan(0.9, [1.0, 1.0]);
        let all = plan.planned_sample_sizes();
        let half = FeedbackCounts { correct: all.control * 9 / 20, answers: all.control / 2 };
        let left = plan.remaining_sample_sizes(half, half);
        // Both arms at 90 %: less variance than the plan's worse direction.
        assert!((0.36..0.42).contains(&(left.control as f64 / all.control as f64)), "{left:?} of {all:?}");
        let full = FeedbackCounts { correct: all.control * 9 / 10, answers: all.control };
        assert_eq!(plan.remaining_sample_sizes(full, full), SampleSizes::default());
        let little = FeedbackCounts { correct: 50, answers: 50 };
        assert!(plan.remaining_sample_sizes(little, little).control.abs_diff(all.control - 50) <= 1);
        // One arm has plenty, the other is short.
        let short = plan.remaining_sample_sizes(FeedbackCounts { correct: 90_000, answers: 100_000 }, half);
        assert!(short.treatment == 0 || short.treatment < left.treatment, "{short:?}");
    }

    #[test]
    fn plan_out_of_range_refused_and_minimum_kept() {
        let easy = ComparisonPlan::new(0.5, 0.4, [1.0, 1.0], DEFAULT_ALPHA, DEFAULT_POWER).unwrap();
        assert_eq!(
            easy.planned_sample_sizes(),
            SampleSizes { control: MIN_ANSWERS_PER_ARM, treatment: MIN_ANSWERS_PER_ARM }
        );
        assert_eq!(
            easy.remaining_sample_sizes(FeedbackCounts { correct: 1, answers: 60 }, FeedbackCounts::default()).control,
            MIN_ANSWERS_PER_ARM - 60
        );
        for (base, least, weight, alpha) in
            [(1.1, 0.03, 1.0, 0.05), (0.9, 0.0, 1.0, 0.05), (0.9, 0.03, 0.0, 0.05), (0.9, 0.03, 1.0, f64::NAN)]
        {
            assert_eq!(ComparisonPlan::new(base, least, [weight, 1.0], alpha, DEFAULT_POWER), None);
        }
    }

    #[test]
    fn bonferroni_several_arms_divides_alpha() {
        let one = plan(0.9, [1.0, 1.0]);
        let four = plan(0.9, [1.0, 1.0]).with_bonferroni(4);
        assert!((four.alpha - 0.0125).abs() < 1e-12);
        assert!(four.planned_sample_sizes().control > one.planned_sample_sizes().control);
        assert_eq!(one.with_bonferroni(0), one);
    }
}
