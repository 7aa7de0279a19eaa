//! Whether a model is less often right than it was when it was tried.

use predictd_stats::to_f64;

/// Answers with a known true label that are looked at, the last ones.
pub const ACCURACY_WINDOW_ANSWERS: u32 = 1_000;

/// Fewest of them with which anything is said.
const MIN_ANSWERS: u64 = 100;

/// Standard errors by which the accuracy must be lower for a drop. It is looked again and again, with each new answer: what
/// chance does once in many looks must be beyond it.
const DROP_STANDARD_ERRORS: f64 = 4.0;

/// Standard errors within which a drop counts as over. Fewer than for a drop, so that the same answers never say both.
const RECOVERY_STANDARD_ERRORS: f64 = 2.0;

/// A smaller drop is none, however certain it is.
const MIN_DROP_SHARE: f64 = 0.01;

/// How right a model was when it was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedAccuracy {
    /// The share of right answers.
    pub share: f64,
    /// Texts that it is the share of; none if that is not known: it counts as exact.
    pub sample_texts: Option<u64>,
}

/// True if the accuracy has dropped below the expected one, false if it has not; `before` is what was said last, and what is
/// said between the two. None as long as too few answers are known, or as nothing was said before.
///
/// Both are shares of samples: a drop is a difference of more than four standard errors and of a point, and is over at two of
/// them.
#[must_use]
pub fn has_dropped(before: Option<bool>, expected: ExpectedAccuracy, correct: u64, answers: u64) -> Option<bool> {
    if answers < MIN_ANSWERS {
        return None;
    }
    let below = expected.share - to_f64(correct) / to_f64(answers);
    let error = standard_error(expected, to_f64(correct), to_f64(answers));
    if below > DROP_STANDARD_ERRORS * error && below >= MIN_DROP_SHARE {
        Some(true)
    } else if below <= RECOVERY_STANDARD_ERRORS * error {
        Some(false)
    } else {
        before
    }
}

/// Of the difference of the two shares, if they are the same in truth: by their common share. One right and one wrong answer
/// more keep it from 0 and 1, where the error would be none.
fn standard_error(expected: ExpectedAccuracy, correct: f64, answers: f64) -> f64 {
    let (share, samples) = match expected.sample_texts {
        Some(texts) => {
            let texts = to_f64(texts.max(1));
            ((correct + expected.share * texts + 1.0) / (answers + texts + 2.0), 1.0 / answers + 1.0 / texts)
        }
        None => ((expected.share * answers + 1.0) / (answers + 2.0), 1.0 / answers),
    };
    (share * (1.0 - share) * samples).sqrt()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use predictd_stats::split_mix64::SplitMix64;

    fn exact_expectation(share: f64) -> ExpectedAccuracy {
        ExpectedAccuracy { share, sample_texts: None }
    }

    /// What is said at each new answer, of so many that are right so often: `looks` after each.
    fn simulate_stream(
        random: &mut SplitMix64,
        expected: ExpectedAccuracy,
        per_mille: u64,
        answers: u64,
        mut look: impl FnMut(Option<bool>),
    ) {
        let mut last = VecDeque::new();
        let mut correct = 0;
        let mut said = None;
        for _ in 0..answers {
            let right = random.next_below(1_000) < per_mille;
            last.push_back(right);
            correct += u64::from(right);
            if last.len() > ACCURACY_WINDOW_ANSWERS as usize {
                correct -= u64::from(last.pop_front().unwrap());
            }
            said = has_dropped(said, expected, correct, last.len() as u64);
            look(said);
        }
    }

    /// Of so many runs, those with a drop.
    fn count_alarms(
        expected: impl Fn(&mut SplitMix64) -> ExpectedAccuracy,
        per_mille: u64,
        answers: u64,
        runs: usize,
    ) -> usize {
        let mut random = SplitMix64(9);
        let has_alarm = |_: &usize| {
            let expected = expected(&mut random);
            let mut dropped = false;
            simulate_stream(&mut random, expected, per_mille, answers, |said| dropped |= said == Some(true));
            dropped
        };
        (0..runs).filter(has_alarm).count()
    }

    /// As a profile of so many texts has it.
    fn expectation_from_profile(random: &mut SplitMix64, per_mille: u64, texts: u64) -> ExpectedAccuracy {
        let correct = (0..texts).filter(|_| random.next_below(1_000) < per_mille).count() as u64;
        ExpectedAccuracy { share: to_f64(correct) / to_f64(texts), sample_texts: Some(texts) }
    }

    fn dropped_state(before: Option<bool>, correct: u64) -> Option<bool> {
        has_dropped(before, exact_expectation(0.9), correct, 1_000)
    }

    #[test]
    fn accuracy_recovered_clears_drop_and_few_unknown() {
        // A standard error is 0.0095 of 1,000 answers where 0.90 is expected.
        assert_eq!(
            [861, 862, 880, 881].map(|correct| dropped_state(None, correct)),
            [Some(true), None, None, Some(false)]
        );
        assert_eq!([862, 880].map(|correct| dropped_state(Some(true), correct)), [Some(true); 2]);
        assert_eq!([862, 880].map(|correct| dropped_state(Some(false), correct)), [Some(false); 2]);
        assert_eq!(has_dropped(Some(true), exact_expectation(0.9), 0, 99), None);
        assert_eq!(has_dropped(None, exact_expectation(0.9), 0, 100), Some(true));
        // A profile of as many texts may be as far off as they are.
        let profile = ExpectedAccuracy { share: 0.9, sample_texts: Some(1_000) };
        assert_eq!(has_dropped(None, profile, 861, 1_000), None);
        assert_eq!(has_dropped(None, exact_expectation(0.0), 0, 1_000), Some(false));
        assert_eq!(has_dropped(None, exact_expectation(1.0), 989, 1_000), Some(true));
        assert_eq!(has_dropped(None, exact_expectation(1.0), 1_000, 1_000), Some(false));
    }

    #[test]
    fn accuracy_same_answers_state_is_stable() {
        for share in [0.0, 0.3, 0.75, 0.9, 0.94, 0.975, 0.98, 0.99, 0.995, 1.0] {
            for texts in [None, Some(1), Some(200), Some(1_000_000)] {
                let expected = ExpectedAccuracy { share, sample_texts: texts };
                for (answers, correct) in [100, 317, 1_000].into_iter().flat_map(|n| (0..=n).map(move |k| (n, k))) {
                    for before in [None, Some(false), Some(true)] {
                        let said = has_dropped(before, expected, correct, answers);
                        assert_eq!(has_dropped(said, expected, correct, answers), said, "{expected:?} {correct}");
                    }
                }
            }
        }
    }

    #[test]
    fn accuracy_unchanged_rarely_alarms_in_10_000_answers() {
        for per_mille in [750, 940, 985] {
            let share = to_f64(per_mille) / 1_000.0;
            let found = count_alarms(|_| exact_expectation(share), per_mille, 10_000, 500);
            assert!(found <= 10, "{per_mille}: {found}");
        }
        let found = count_alarms(|random| expectation_from_profile(random, 940, 1_000), 940, 10_000, 500);
        assert!(found <= 10, "by a profile: {found}");
    }

    #[test]
    fn accuracy_drop_of_7_points_found_in_1_000_answers() {
        assert_eq!(count_alarms(|_| exact_expectation(0.94), 870, 1_000, 500), 500);
        // A small profile is not certain itself.
        let found = count_alarms(|random| expectation_from_profile(random, 940, 1_000), 870, 1_000, 500);
        assert!(found >= 400, "{found}");
    }
}
