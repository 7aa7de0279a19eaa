//! What the numbers mean, in words.

use std::fmt;

use super::difference::{Counts, Decision, MINIMUM, compare};
use super::figures::{about, chance, percent, points, thousands, worth};
use super::interval::Interval;
use super::plan::Plan;

/// An arm and the feedback that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// What it is called.
    pub name: String,
    /// How often it was right.
    pub counts: Counts,
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
    TooLittle {
        /// Answers with feedback of the arm that has fewer.
        answers: u64,
    },
    /// The arm is better than the control.
    Better(Compared),
    /// The arm is worse than the control.
    Worse(Compared),
    /// Whatever the difference is, it is less than the least worth finding.
    Alike {
        /// What holds the difference, a difference of fractions.
        interval: Interval,
        /// The least difference worth finding, a fraction.
        least: f64,
    },
    /// One cannot tell, and more feedback would help.
    NotYet {
        /// What holds the difference, a difference of fractions.
        interval: Interval,
        /// The least difference worth finding, a fraction.
        least: f64,
        /// Answers with feedback of both arms together that the plan still lacks.
        more: u64,
    },
    /// One cannot tell, though there is as much feedback as planned.
    Undecided {
        /// What holds the difference, a difference of fractions.
        interval: Interval,
        /// The least difference worth finding, a fraction.
        least: f64,
        /// The chance with which the plan finds it.
        power: f64,
    },
}

/// Two arms that differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The arm.
    pub arm: Arm,
    /// The control.
    pub control: Arm,
    /// What holds the difference (arm - control), a difference of fractions.
    pub interval: Interval,
}

/// What can be said of all arms. [`fmt::Display`] gives one or two sentences.
#[derive(Debug, Clone, PartialEq)]
pub enum Overall {
    /// There is one arm but the control, and this is said of it.
    One(Verdict),
    /// Users are not spread as the weights say.
    Mismatch {
        /// The chance of such a spread where nothing is broken.
        p: f64,
    },
    /// Some arms are better than the control.
    Best {
        /// Of those, the one that was right most often.
        best: Arm,
        /// How many are better.
        better: usize,
        /// The control's name.
        control: String,
    },
    /// All are worse than the control.
    Keep {
        /// The control's name.
        control: String,
    },
    /// None is better than the control as far as one can tell.
    Open {
        /// The control's name.
        control: String,
    },
}

/// What can be said of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Of every arm but the control, in the order given.
    pub each: Vec<Verdict>,
    /// Of all of them.
    pub overall: Overall,
}

/// Compares every arm with the control, each by the plan of an experiment with that arm alone: alpha is divided here
/// by the number of arms (Bonferroni), so all verdicts together are wrong with a chance of alpha at most. The number of
/// arms must not change. `mismatch` is what [`mismatch`](super::ratio::mismatch) found.
#[must_use]
pub fn judge(control: &Arm, arms: &[(Arm, Plan)], mismatch: Option<f64>) -> Judgement {
    if let Some(p) = mismatch {
        return Judgement { each: vec![Verdict::Mismatch { p }; arms.len()], overall: Overall::Mismatch { p } };
    }
    let each: Vec<_> = arms.iter().map(|(arm, plan)| against(control, arm, &plan.among(arms.len()))).collect();
    let name = || control.name.clone();
    let better: Vec<&Arm> = each
        .iter()
        .filter_map(|verdict| if let Verdict::Better(compared) = verdict { Some(&compared.arm) } else { None })
        .collect();
    let accuracy = |arm: &Arm| arm.counts.accuracy().unwrap_or(0.0);
    let best = better.iter().copied().max_by(|a, b| accuracy(a).total_cmp(&accuracy(b)));
    let overall = match (&each[..], best) {
        ([one], _) => Overall::One(one.clone()),
        (_, Some(best)) => Overall::Best { best: best.clone(), better: better.len(), control: name() },
        ([_, ..], None) if each.iter().all(|verdict| matches!(verdict, Verdict::Worse(_))) => {
            Overall::Keep { control: name() }
        }
        _ => Overall::Open { control: name() },
    };
    Judgement { each, overall }
}

fn against(control: &Arm, arm: &Arm, plan: &Plan) -> Verdict {
    let Some(found) = compare(control.counts, arm.counts, plan) else {
        return Verdict::TooLittle { answers: control.counts.answers.min(arm.counts.answers) };
    };
    let (interval, least) = (found.interval, plan.least());
    let compared = || Compared { arm: arm.clone(), control: control.clone(), interval };
    match found.decision() {
        Decision::Better => Verdict::Better(compared()),
        Decision::Worse => Verdict::Worse(compared()),
        Decision::NotYet if interval.low > -least && interval.high < least => Verdict::Alike { interval, least },
        Decision::NotYet => {
            let needed = plan.remaining(control.counts, arm.counts);
            match needed.control.saturating_add(needed.treatment) {
                0 => Verdict::Undecided { interval, least, power: plan.power() },
                more => Verdict::NotYet { interval, least, more },
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { p } => distrust(f, *p),
            Self::TooLittle { answers } => write!(
                f,
                "Too little feedback: {} of at least {} labelled answers for each arm.",
                thousands(*answers),
                thousands(MINIMUM)
            ),
            Self::Better(compared) => compared.say(f, "better"),
            Self::Worse(compared) => compared.say(f, "worse"),
            Self::Alike { interval, least } => {
                let (between, worth) = (between(*interval), worth(*least));
                write!(f, "There is no difference worth finding: it is {between} points, less than {worth} either way.")
            }
            Self::NotYet { interval, least, more } => write!(
                f,
                "There is no difference yet of which one can be sure: {} points. About {} more labelled answers are \
                 needed to find one of {}.",
                between(*interval),
                about(*more),
                worth(*least)
            ),
            Self::Undecided { interval, least, power } => write!(
                f,
                "There is no difference of which one can be sure: {} points. There is as much feedback as planned; a \
                 difference of {} would have been found by now with a chance of {:.0} %.",
                between(*interval),
                worth(*least),
                power * 100.0
            ),
        }
    }
}

impl Compared {
    fn say(&self, f: &mut fmt::Formatter<'_>, better: &str) -> fmt::Result {
        let right = |arm: &Arm| percent(arm.counts.accuracy().unwrap_or(0.0));
        write!(
            f,
            "{} is {better}: right in {} of {} answers against {} of {}; the difference is {} points however often \
             you look.",
            self.arm.name,
            right(&self.arm),
            thousands(self.arm.counts.answers),
            right(&self.control),
            thousands(self.control.counts.answers),
            between(self.interval)
        )
    }
}

impl Overall {
    /// The sentence for several arms, of which these are better by what was decided, whatever the numbers are now.
    #[must_use]
    pub fn standing(&self, better: &[&str], all_worse: bool) -> String {
        let control = match self {
            Self::Best { control, .. } | Self::Keep { control } | Self::Open { control } => control.clone(),
            Self::One(_) | Self::Mismatch { .. } => return self.to_string(),
        };
        match better {
            [] if all_worse => Self::Keep { control }.to_string(),
            [] => Self::Open { control }.to_string(),
            [only] => format!("{only} is better than {control}; no other arm is, as far as one can tell."),
            // What is said of the best of them holds only while they are all seen to be better.
            several => match self {
                Self::Best { better, .. } if *better == several.len() => self.to_string(),
                _ => format!(
                    "{} are better than {control}. Which of them is best was not tested.",
                    several.join(" and ")
                ),
            },
        }
    }
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(verdict) => verdict.fmt(f),
            Self::Mismatch { p } => distrust(f, *p),
            Self::Best { best, better: 1, control } => {
                write!(f, "{} is better than {control}; no other arm is, as far as one can tell.", best.name)
            }
            Self::Best { best, better, control } => write!(
                f,
                "{better} arms are better than {control}; of these, {} was right most often ({}). Whether it is better \
                 than the others was not tested.",
                best.name,
                percent(best.counts.accuracy().unwrap_or(0.0))
            ),
            Self::Keep { control } => write!(f, "{control} is better than every other arm."),
            Self::Open { control } => write!(f, "No arm is better than {control} as far as one can tell."),
        }
    }
}

fn between(Interval { low, high }: Interval) -> String {
    format!("between {} and {}", points(low), points(high))
}

fn distrust(f: &mut fmt::Formatter<'_>, p: f64) -> fmt::Result {
    write!(f, "Do not trust this comparison: users are not spread as the weights say ({}).", chance(p))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{ALPHA, POWER};
    use super::*;

    fn arm(name: &str, correct: u64, answers: u64) -> Arm {
        Arm { name: name.into(), counts: Counts { correct, answers } }
    }

    fn judged(control: &Arm, arms: &[Arm]) -> Judgement {
        let plan = Plan::new(0.9, 0.03, [1.0, 1.0], ALPHA, POWER).unwrap();
        judge(control, &arms.iter().map(|arm| (arm.clone(), plan)).collect::<Vec<_>>(), None)
    }

    #[test]
    fn every_situation_has_its_sentence() {
        let control = arm("bert-1", 1_368, 1_538);
        for (control, treatment, said) in [
            (
                &control,
                arm("bert-2", 1_434, 1_540),
                "bert-2 is better: right in 93.1 % of 1,540 answers against 88.9 % of 1,538; the \
                difference is between 1.0 and 7.4 points however often you look.",
            ),
            (
                &control,
                arm("bert-2", 1_291, 1_540),
                "bert-2 is worse: right in 83.8 % of 1,540 answers against 88.9 % of 1,538; the \
                difference is between -9.1 and -1.2 points however often you look.",
            ),
            (
                &control,
                arm("bert-2", 1_380, 1_540),
                "There is no difference yet of which one can be sure: between -2.9 and 4.2 points. \
                About 5,000 more labelled answers are needed to find one of 3 points.",
            ),
            (&control, arm("bert-2", 37, 40), "Too little feedback: 40 of at least 100 labelled answers for each arm."),
            (
                &arm("bert-1", 9_000, 10_000),
                arm("bert-2", 9_010, 10_000),
                "There is no difference worth finding: it is between -1.2 and 1.4 points, \
                less than 3 points either way.",
            ),
            (
                &arm("bert-1", 4_500, 5_000),
                arm("bert-2", 4_565, 5_000),
                "There is no difference of which one can be sure: between -0.5 and 3.1 points. \
                There is as much feedback as planned; a difference of 3 points would \
                have been found by now with a chance of 90 %.",
            ),
        ] {
            let judgement = judged(control, &[treatment]);
            assert_eq!(judgement.each[0].to_string(), said);
            assert_eq!(judgement.overall.to_string(), said);
        }
    }

    #[test]
    fn a_mismatch_outweighs_everything() {
        let plan = Plan::new(0.9, 0.03, [1.0, 1.0], ALPHA, POWER).unwrap();
        let judgement = judge(&arm("a", 900, 1_000), &[(arm("b", 999, 1_000), plan)], Some(0.000_02));
        let said = "Do not trust this comparison: users are not spread as the weights say (p = 0.00002).";
        assert_eq!(judgement.each[0].to_string(), said);
        assert_eq!(judgement.overall.to_string(), said);
    }

    #[test]
    fn of_several_arms_the_best_is_named() {
        let (good, better, bad) = (arm("good", 950, 1_000), arm("better", 970, 1_000), arm("bad", 700, 1_000));
        let (control, alike) = (arm("old", 880, 1_000), arm("alike", 885, 1_000));
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
            let arms: Vec<Arm> = arms.into_iter().cloned().collect();
            let judgement = judged(&control, &arms);
            assert_eq!(judgement.overall.to_string(), said);
            assert_eq!(judgement.each.len(), arms.len());
        }
    }

    #[test]
    fn several_arms_must_convince_more() {
        // Between the boundaries of one comparison and of ten.
        let (control, treatment) = (arm("old", 880, 1_000), arm("new", 928, 1_000));
        let alone = judged(&control, std::slice::from_ref(&treatment));
        let among = judged(&control, &vec![treatment; 10]);
        assert!(matches!(alone.each[0], Verdict::Better(_)), "{:?}", alone.each);
        assert!(among.each.iter().all(|verdict| matches!(verdict, Verdict::NotYet { .. })), "{:?}", among.each);
    }
}
