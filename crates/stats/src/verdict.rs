//! What the numbers mean, in words.

use std::fmt;

use super::comparison_plan::ComparisonPlan;
use super::difference::{ComparisonOutcome, compare_accuracies};
use super::feedback_counts::{FeedbackCounts, MIN_ANSWERS_PER_ARM};
use super::interval::ConfidenceInterval;
use super::number_format::{fmt_effect, fmt_p_value, fmt_percent, fmt_points, fmt_rounded_up, fmt_thousands};

/// An arm and the feedback that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmAccuracy {
    /// What it is called.
    pub name: String,
    /// How often it was right.
    pub counts: FeedbackCounts,
}

/// What can be said of one arm against the control. [`fmt::Display`] gives one or two sentences.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Users are not spread as the weights say: nothing else counts.
    Mismatch {
        /// The chance of such a spread where nothing is broken.
        p: f64,
    },
    /// An arm has less than the minimum.
    InsufficientFeedback {
        /// Answers with feedback of the arm that has fewer.
        answers: u64,
    },
    /// The arm is better than the control.
    Better(SignificantDifference),
    /// The arm is worse than the control.
    Worse(SignificantDifference),
    /// Whatever the difference is, it is less than the least worth finding.
    Equivalent {
        /// What holds the difference, a difference of fractions.
        interval: ConfidenceInterval,
        /// The least difference worth finding, a fraction.
        min_effect: f64,
    },
    /// One cannot tell, and more feedback would help.
    NeedsMoreFeedback {
        /// What holds the difference, a difference of fractions.
        interval: ConfidenceInterval,
        /// The least difference worth finding, a fraction.
        min_effect: f64,
        /// Answers with feedback of both arms together that the plan still lacks.
        remaining_answers: u64,
    },
    /// One cannot tell, though there is as much feedback as planned.
    Inconclusive {
        /// What holds the difference, a difference of fractions.
        interval: ConfidenceInterval,
        /// The least difference worth finding, a fraction.
        min_effect: f64,
        /// The chance with which the plan finds it.
        power: f64,
    },
}

/// Two arms that differ.
#[derive(Debug, Clone, PartialEq)]
pub struct SignificantDifference {
    /// The arm.
    pub arm: ArmAccuracy,
    /// The control.
    pub control: ArmAccuracy,
    /// What holds the difference (arm - control), a difference of fractions.
    pub interval: ConfidenceInterval,
}

/// What can be said of all arms. [`fmt::Display`] gives one or two sentences.
#[derive(Debug, Clone, PartialEq)]
pub enum OverallVerdict {
    /// There is one arm but the control, and this is said of it.
    SingleArm(Verdict),
    /// Users are not spread as the weights say.
    Mismatch {
        /// The chance of such a spread where nothing is broken.
        p: f64,
    },
    /// Some arms are better than the control.
    Best {
        /// Of those, the one that was right most often.
        best: ArmAccuracy,
        /// How many are better.
        better_count: usize,
        /// The control's name.
        control: String,
    },
    /// All are worse than the control.
    KeepControl {
        /// The control's name.
        control: String,
    },
    /// None is better than the control as far as one can tell.
    NoneBetter {
        /// The control's name.
        control: String,
    },
}

/// What can be said of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentVerdict {
    /// Of every arm but the control, in the order given.
    pub arm_verdicts: Vec<Verdict>,
    /// Of all of them.
    pub overall: OverallVerdict,
}

/// Compares every arm with the control, each by the plan of an experiment with that arm alone: alpha is divided here
/// by the number of arms (Bonferroni), so all verdicts together are wrong with a chance of alpha at most. The number of
/// arms must not change. `mismatch` is what [`mismatch`](super::sample_ratio::sample_ratio_mismatch) found.
#[must_use]
pub fn evaluate_arms(
    control: &ArmAccuracy,
    arms: &[(ArmAccuracy, ComparisonPlan)],
    mismatch: Option<f64>,
) -> ExperimentVerdict {
    if let Some(p) = mismatch {
        return ExperimentVerdict {
            arm_verdicts: vec![Verdict::Mismatch { p }; arms.len()],
            overall: OverallVerdict::Mismatch { p },
        };
    }
    let each: Vec<_> =
        arms.iter().map(|(arm, plan)| evaluate_arm(control, arm, &plan.with_bonferroni(arms.len()))).collect();
    let better: Vec<&ArmAccuracy> = each
        .iter()
        .filter_map(|verdict| if let Verdict::Better(compared) = verdict { Some(&compared.arm) } else { None })
        .collect();
    let accuracies = better.iter().map(|&arm| (arm, arm.counts.accuracy().unwrap_or(0.0)));
    let best = accuracies.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(arm, _)| arm);
    let control = control.name.clone();
    let overall = match (&each[..], best) {
        ([one], _) => OverallVerdict::SingleArm(one.clone()),
        (_, Some(best)) => OverallVerdict::Best { best: best.clone(), better_count: better.len(), control },
        ([_, ..], None) if each.iter().all(|verdict| matches!(verdict, Verdict::Worse(_))) => {
            OverallVerdict::KeepControl { control }
        }
        _ => OverallVerdict::NoneBetter { control },
    };
    ExperimentVerdict { arm_verdicts: each, overall }
}

fn evaluate_arm(control: &ArmAccuracy, arm: &ArmAccuracy, plan: &ComparisonPlan) -> Verdict {
    let Some(difference) = compare_accuracies(control.counts, arm.counts, plan) else {
        return Verdict::InsufficientFeedback { answers: control.counts.answers.min(arm.counts.answers) };
    };
    let interval = difference.interval;
    let min_effect = plan.min_effect();
    let significant = SignificantDifference { arm: arm.clone(), control: control.clone(), interval };
    match difference.outcome() {
        ComparisonOutcome::Better => Verdict::Better(significant),
        ComparisonOutcome::Worse => Verdict::Worse(significant),
        ComparisonOutcome::Inconclusive if interval.low > -min_effect && interval.high < min_effect => {
            Verdict::Equivalent { interval, min_effect }
        }
        ComparisonOutcome::Inconclusive => {
            let needed = plan.remaining_sample_sizes(control.counts, arm.counts);
            match needed.control.saturating_add(needed.treatment) {
                0 => Verdict::Inconclusive { interval, min_effect, power: plan.power() },
                remaining_answers => Verdict::NeedsMoreFeedback { interval, min_effect, remaining_answers },
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { p } => fmt_mismatch(f, *p),
            Self::InsufficientFeedback { answers } => write!(
                f,
                "Too little feedback: {} of at least {} labelled answers for each arm.",
                fmt_thousands(*answers),
                fmt_thousands(MIN_ANSWERS_PER_ARM)
            ),
            Self::Better(compared) => compared.fmt_sentence(f, "better"),
            Self::Worse(compared) => compared.fmt_sentence(f, "worse"),
            Self::Equivalent { interval, min_effect: least } => {
                let between = fmt_interval(*interval);
                let worth = fmt_effect(*least);
                write!(f, "There is no difference worth finding: it is {between} points, less than {worth} either way.")
            }
            Self::NeedsMoreFeedback { interval, min_effect: least, remaining_answers: more } => write!(
                f,
                "There is no difference yet of which one can be sure: {} points. About {} more labelled answers are \
                 needed to find one of {}.",
                fmt_interval(*interval),
                fmt_rounded_up(*more),
                fmt_effect(*least)
            ),
            Self::Inconclusive { interval, min_effect: least, power } => write!(
                f,
                "There is no difference of which one can be sure: {} points. There is as much feedback as planned; a \
                 difference of {} would have been found by now with a chance of {:.0} %.",
                fmt_interval(*interval),
                fmt_effect(*least),
                power * 100.0
            ),
        }
    }
}

impl SignificantDifference {
    fn fmt_sentence(&self, f: &mut fmt::Formatter<'_>, better: &str) -> fmt::Result {
        let right = |arm: &ArmAccuracy| fmt_percent(arm.counts.accuracy().unwrap_or(0.0));
        write!(
            f,
            "{} is {better}: right in {} of {} answers against {} of {}; the difference is {} points however often \
             you look.",
            self.arm.name,
            right(&self.arm),
            fmt_thousands(self.arm.counts.answers),
            right(&self.control),
            fmt_thousands(self.control.counts.answers),
            fmt_interval(self.interval)
        )
    }
}

impl OverallVerdict {
    /// The sentence for several arms, of which these are better by what was decided, whatever the numbers are now.
    #[must_use]
    pub fn summary_sentence(&self, better: &[&str], all_worse: bool) -> String {
        let control = match self {
            Self::Best { control, .. } | Self::KeepControl { control } | Self::NoneBetter { control } => {
                control.clone()
            }
            Self::SingleArm(_) | Self::Mismatch { .. } => return self.to_string(),
        };
        match better {
            [] if all_worse => Self::KeepControl { control }.to_string(),
            [] => Self::NoneBetter { control }.to_string(),
            [only] => format!("{only} is better than {control}; no other arm is, as far as one can tell."),
            // What is said of the best of them holds only while they are all seen to be better.
            several => match self {
                Self::Best { better_count: better, .. } if *better == several.len() => self.to_string(),
                _ => format!(
                    "{} are better than {control}. Which of them is best was not tested.",
                    several.join(" and ")
                ),
            },
        }
    }
}

impl fmt::Display for OverallVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SingleArm(verdict) => verdict.fmt(f),
            Self::Mismatch { p } => fmt_mismatch(f, *p),
            Self::Best { best, better_count: 1, control } => {
                write!(f, "{} is better than {control}; no other arm is, as far as one can tell.", best.name)
            }
            Self::Best { best, better_count: better, control } => write!(
                f,
                "{better} arms are better than {control}; of these, {} was right most often ({}). Whether it is better \
                 than the others was not tested.",
                best.name,
                fmt_percent(best.counts.accuracy().unwrap_or(0.0))
            ),
            Self::KeepControl { control } => write!(f, "{control} is better than every other arm."),
            Self::NoneBetter { control } => write!(f, "No arm is better than {control} as far as one can tell."),
        }
    }
}

fn fmt_interval(ConfidenceInterval { low, high }: ConfidenceInterval) -> String {
    format!("between {} and {}", fmt_points(low), fmt_points(high))
}

fn fmt_mismatch(f: &mut fmt::Formatter<'_>, p: f64) -> fmt::Result {
    write!(f, "Do not trust this comparison: users are not spread as the weights say ({}).", fmt_p_value(p))
}

#[cfg(test)]
mod tests {
    use super::super::comparison_plan::{DEFAULT_ALPHA, DEFAULT_POWER};
    use super::*;

    fn arm_accuracy(name: &str, correct: u64, answers: u64) -> ArmAccuracy {
        ArmAccuracy { name: name.into(), counts: FeedbackCounts { correct, answers } }
    }

    fn evaluate_all(control: &ArmAccuracy, arms: &[ArmAccuracy]) -> ExperimentVerdict {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], DEFAULT_ALPHA, DEFAULT_POWER).unwrap();
        evaluate_arms(control, &arms.iter().map(|arm| (arm.clone(), plan)).collect::<Vec<_>>(), None)
    }

    #[test]
    fn verdict_each_variant_has_its_sentence() {
        let control = arm_accuracy("bert-1", 1_368, 1_538);
        for (control, treatment, said) in [
            (
                &control,
                arm_accuracy("bert-2", 1_434, 1_540),
                "bert-2 is better: right in 93.1 % of 1,540 answers against 88.9 % of 1,538; the \
                difference is between 1.0 and 7.4 points however often you look.",
            ),
            (
                &control,
                arm_accuracy("bert-2", 1_291, 1_540),
                "bert-2 is worse: right in 83.8 % of 1,540 answers against 88.9 % of 1,538; the \
                difference is between -9.1 and -1.2 points however often you look.",
            ),
            (
                &control,
                arm_accuracy("bert-2", 1_380, 1_540),
                "There is no difference yet of which one can be sure: between -2.9 and 4.2 points. \
                About 5,000 more labelled answers are needed to find one of 3 points.",
            ),
            (
                &control,
                arm_accuracy("bert-2", 37, 40),
                "Too little feedback: 40 of at least 100 labelled answers for each arm.",
            ),
            (
                &arm_accuracy("bert-1", 9_000, 10_000),
                arm_accuracy("bert-2", 9_010, 10_000),
                "There is no difference worth finding: it is between -1.2 and 1.4 points, \
                less than 3 points either way.",
            ),
            (
                &arm_accuracy("bert-1", 4_500, 5_000),
                arm_accuracy("bert-2", 4_565, 5_000),
                "There is no difference of which one can be sure: between -0.5 and 3.1 points. \
                There is as much feedback as planned; a difference of 3 points would \
                have been found by now with a chance of 90 %.",
            ),
        ] {
            let judgement = evaluate_all(control, &[treatment]);
            assert_eq!(judgement.arm_verdicts[0].to_string(), said);
            assert_eq!(judgement.overall.to_string(), said);
        }
    }

    #[test]
    fn verdict_with_mismatch_overrides_all() {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], DEFAULT_ALPHA, DEFAULT_POWER).unwrap();
        let judgement =
            evaluate_arms(&arm_accuracy("a", 900, 1_000), &[(arm_accuracy("b", 999, 1_000), plan)], Some(0.000_02));
        let said = "Do not trust this comparison: users are not spread as the weights say (p = 0.00002).";
        assert_eq!(judgement.arm_verdicts[0].to_string(), said);
        assert_eq!(judgement.overall.to_string(), said);
    }

    #[test]
    fn verdict_several_arms_names_best() {
        let (good, better, bad) =
            (arm_accuracy("good", 950, 1_000), arm_accuracy("better", 970, 1_000), arm_accuracy("bad", 700, 1_000));
        let (control, alike) = (arm_accuracy("old", 880, 1_000), arm_accuracy("alike", 885, 1_000));
        for (arms, said) in [
            (
                vec![&good, &better, &bad],
                "2 arms are better than old; of these, better was right most often (97.0 %). \
                Whether it is better than the others was not tested.",
            ),
            (vec![&alike, &better, &bad], "better is better than old; no other arm is, as far as one can tell."),
            (vec![&bad, &bad], "old is better than every other arm."),
            (vec![&bad, &alike], "No arm is better than old as far as one can tell."),
            (vec![], "No arm is better than old as far as one can tell."),
        ] {
            let arms: Vec<ArmAccuracy> = arms.into_iter().cloned().collect();
            let judgement = evaluate_all(&control, &arms);
            assert_eq!(judgement.overall.to_string(), said);
            assert_eq!(judgement.arm_verdicts.len(), arms.len());
        }
    }

    #[test]
    fn verdict_several_arms_need_stronger_evidence() {
        // Between the boundaries of one comparison and of ten.
        let (control, treatment) = (arm_accuracy("old", 880, 1_000), arm_accuracy("new", 928, 1_000));
        let alone = evaluate_all(&control, std::slice::from_ref(&treatment));
        let among = evaluate_all(&control, &vec![treatment; 10]);
        assert!(matches!(alone.arm_verdicts[0], Verdict::Better(_)), "{:?}", alone.arm_verdicts);
        assert!(
            among.arm_verdicts.iter().all(|verdict| matches!(verdict, Verdict::NeedsMoreFeedback { .. })),
            "{:?}",
            among.arm_verdicts
        );
    }
}
