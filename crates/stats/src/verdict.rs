//! What the numbers mean, in words.

use std::fmt;

use super::comparison_plan::ComparisonPlan;
use super::difference::{ComparisonOutcome, compare_accuracies};
use super::feedback_counts::{FeedbackCounts, MIN_ANSWERS_PER_ARM};
use super::interval::ConfidenceInterval;
use super::number_format::{fmt_effect, fmt_p_value, fmt_percent, fmt_points, fmt_rounded_up, fmt_thousands};

/// An arm and the feedback that it got.
#[derive(Debug, Clone)]
pub struct ArmAccuracy {
    /// What it is called.
    pub name: String,
    /// How often it was right.
    pub counts: FeedbackCounts,
}

impl ArmAccuracy {
    fn accuracy(&self) -> f64 {
        self.counts.accuracy().unwrap_or(0.0)
    }
}

/// What can be said of one arm against the control, in one or two sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Users are not spread as the weights say: nothing else counts.
    Mismatch(String),
    /// The arm is better than the control.
    Better(String),
    /// The arm is worse than the control.
    Worse(String),
    /// Neither: there is too little feedback, or no difference worth finding, or one cannot tell.
    Undecided(String),
}

impl Verdict {
    /// True if the arm is better than the control, false if it is worse.
    #[must_use]
    pub fn is_better(&self) -> Option<bool> {
        match self {
            Self::Better(_) => Some(true),
            Self::Worse(_) => Some(false),
            Self::Mismatch(_) | Self::Undecided(_) => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Mismatch(said) | Self::Better(said) | Self::Worse(said) | Self::Undecided(said)) = self;
        f.write_str(said)
    }
}

/// What can be said of an experiment.
#[derive(Debug)]
pub struct ExperimentVerdict {
    /// Of every arm but the control, in the order given.
    pub arm_verdicts: Vec<Verdict>,
    /// Those arms.
    arms: Vec<ArmAccuracy>,
    /// The control's name.
    control: String,
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
    let evaluate = |(arm, plan): &(ArmAccuracy, ComparisonPlan)| match mismatch {
        Some(p) => Verdict::Mismatch(format!(
            "Do not trust this comparison: users are not spread as the weights say ({}).",
            fmt_p_value(p)
        )),
        None => evaluate_arm(control, arm, &plan.with_bonferroni(arms.len())),
    };
    ExperimentVerdict {
        arm_verdicts: arms.iter().map(evaluate).collect(),
        arms: arms.iter().map(|(arm, _)| arm.clone()).collect(),
        control: control.name.clone(),
    }
}

fn evaluate_arm(control: &ArmAccuracy, arm: &ArmAccuracy, plan: &ComparisonPlan) -> Verdict {
    let Some(difference) = compare_accuracies(control.counts, arm.counts, plan) else {
        return Verdict::Undecided(format!(
            "Too little feedback: {} of at least {} labelled answers for each arm.",
            fmt_thousands(control.counts.answers.min(arm.counts.answers)),
            fmt_thousands(MIN_ANSWERS_PER_ARM)
        ));
    };
    let ConfidenceInterval { low, high } = difference.interval;
    let between = format!("between {} and {} points", fmt_points(low), fmt_points(high));
    let effect = fmt_effect(plan.min_effect);
    match difference.outcome() {
        ComparisonOutcome::Better => Verdict::Better(significant_sentence(control, arm, "better", &between)),
        ComparisonOutcome::Worse => Verdict::Worse(significant_sentence(control, arm, "worse", &between)),
        ComparisonOutcome::Inconclusive if low > -plan.min_effect && high < plan.min_effect => Verdict::Undecided(
            format!("There is no difference worth finding: it is {between}, less than {effect} either way."),
        ),
        ComparisonOutcome::Inconclusive => {
            let needed = plan.remaining_sample_sizes(control.counts, arm.counts);
            Verdict::Undecided(match needed.control.saturating_add(needed.treatment) {
                0 => format!(
                    "There is no difference of which one can be sure: {between}. There is as much feedback as \
                     planned; a difference of {effect} would have been found by now with a chance of {:.0} %.",
                    plan.power * 100.0
                ),
                more => format!(
                    "There is no difference yet of which one can be sure: {between}. About {} more labelled answers \
                     are needed to find one of {effect}.",
                    fmt_rounded_up(more)
                ),
            })
        }
    }
}

fn significant_sentence(control: &ArmAccuracy, arm: &ArmAccuracy, better: &str, between: &str) -> String {
    format!(
        "{} is {better}: right in {} of {} answers against {} of {}; the difference is {between} however often you look.",
        arm.name,
        fmt_percent(arm.accuracy()),
        fmt_thousands(arm.counts.answers),
        fmt_percent(control.accuracy()),
        fmt_thousands(control.counts.answers),
    )
}

impl ExperimentVerdict {
    /// All of it in one or two sentences. `decided` is what was decided of each arm before, better or worse: it stands,
    /// whatever the numbers are now.
    #[must_use]
    pub fn summary_sentence(&self, decided: &[Option<bool>]) -> String {
        let Self { arm_verdicts: verdicts, arms, control } = self;
        if let [only] | [only @ Verdict::Mismatch(_), ..] = &verdicts[..] {
            return only.to_string();
        }
        let now = verdicts.iter().map(Verdict::is_better);
        let outcomes: Vec<Option<bool>> = decided.iter().zip(now.clone()).map(|(first, now)| first.or(now)).collect();
        let better: Vec<&str> =
            arms.iter().zip(&outcomes).filter(|(_, one)| **one == Some(true)).map(|(arm, _)| &*arm.name).collect();
        let better_now: Vec<&ArmAccuracy> =
            arms.iter().zip(now).filter(|(_, now)| *now == Some(true)).map(|(arm, _)| arm).collect();
        let best = better_now.iter().max_by(|a, b| a.accuracy().total_cmp(&b.accuracy()));
        match (&better[..], best) {
            ([], _) if !outcomes.is_empty() && outcomes.iter().all(|one| *one == Some(false)) => {
                format!("{control} is better than every other arm.")
            }
            ([], _) => format!("No arm is better than {control} as far as one can tell."),
            ([only], _) => format!("{only} is better than {control}; no other arm is, as far as one can tell."),
            // What is said of the best of them holds only while they are all seen to be better.
            (several, Some(best)) if several.len() == better_now.len() => format!(
                "{} arms are better than {control}; of these, {} was right most often ({}). Whether it is better than \
                 the others was not tested.",
                several.len(),
                best.name,
                fmt_percent(best.accuracy())
            ),
            (several, _) => {
                format!("{} are better than {control}. Which of them is best was not tested.", several.join(" and "))
            }
        }
    }
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
            assert_eq!(judgement.summary_sentence(&[None]), said);
        }
    }

    #[test]
    fn verdict_with_mismatch_overrides_all() {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], DEFAULT_ALPHA, DEFAULT_POWER).unwrap();
        let judgement =
            evaluate_arms(&arm_accuracy("a", 900, 1_000), &[(arm_accuracy("b", 999, 1_000), plan)], Some(0.000_02));
        let said = "Do not trust this comparison: users are not spread as the weights say (p = 0.00002).";
        assert_eq!(judgement.arm_verdicts[0].to_string(), said);
        assert_eq!(judgement.summary_sentence(&[Some(true)]), said);
    }

    #[test]
    fn verdict_several_arms_names_best() {
        let good = arm_accuracy("good", 950, 1_000);
        let better = arm_accuracy("better", 970, 1_000);
        let bad = arm_accuracy("bad", 700, 1_000);
        let control = arm_accuracy("old", 880, 1_000);
        let alike = arm_accuracy("alike", 885, 1_000);
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
            assert_eq!(judgement.summary_sentence(&vec![None; arms.len()]), said);
            assert_eq!(judgement.arm_verdicts.len(), arms.len());
        }
    }

    #[test]
    fn verdict_several_arms_need_stronger_evidence() {
        // Between the boundaries of one comparison and of ten.
        let control = arm_accuracy("old", 880, 1_000);
        let treatment = arm_accuracy("new", 928, 1_000);
        let alone = evaluate_all(&control, std::slice::from_ref(&treatment));
        let among = evaluate_all(&control, &vec![treatment; 10]);
        assert!(matches!(alone.arm_verdicts[0], Verdict::Better(_)), "{:?}", alone.arm_verdicts);
        assert!(
            among.arm_verdicts.iter().all(|verdict| verdict.to_string().contains("more labelled answers are needed")),
            "{:?}",
            among.arm_verdicts
        );
    }
}
