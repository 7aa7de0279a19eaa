//! Whether a model is less often right than it was when it was tried.

use super::real;

/// Answers with a known true label that are looked at, the last ones.
pub const MOST_ANSWERS: u32 = 1_000;

/// Fewest of them with which anything is said.
pub const LEAST_ANSWERS: u64 = 100;

/// Standard errors by which the accuracy must be lower for a drop. It is looked again and again, with each new answer: what
/// chance does once in many looks must be beyond it.
const DROP: f64 = 4.0;

/// Standard errors within which a drop counts as over. Fewer than for a drop, so that the same answers never say both.
const CLEAR: f64 = 2.0;

/// A smaller drop is none, however certain it is.
const LEAST_DROP: f64 = 0.01;

/// How right a model was when it was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The share of right answers.
    pub share: f64,
    /// Texts that it is the share of; none if that is not known: it counts as exact.
    pub texts: Option<u64>,
}

/// True if the accuracy has dropped below the expected one, false if it has not; `before` is what was said last, and what is
/// said between the two. None as long as too few answers are known, or as nothing was said before.
///
/// Both are shares of samples: a drop is a difference of more than four standard errors and of a point, and is over at two of
/// them.
#[must_use]
pub fn has_dropped(before: Option<bool>, expected: Expected, correct: u64, answers: u64) -> Option<bool> {
    if answers < LEAST_ANSWERS {
        return None;
    }
    let below = expected.share - real(correct) / real(answers);
    let error = standard_error(expected, real(correct), real(answers));
    if below > DROP * error && below >= LEAST_DROP {
        Some(true)
    } else if below <= CLEAR * error {
        Some(false)
    } else {
        before
    }
}

/// Of the difference of the two shares, if they are the same in truth: by their common share. One right and one wrong answer
/// more keep it from 0 and 1, where the error would be none.
fn standard_error(expected: Expected, correct: f64, answers: f64) -> f64 {
    let (share, samples) = match expected.texts {
        Some(texts) => {
            let texts = real(texts.max(1));
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
    use crate::drift::sampling::Random;

    fn exact(share: f64) -> Expected {
        Expected { share, texts: None }
    }

    /// What is said at each new answer, of so many that are right so often: `looks` after each.
    fn stream(
        random: &mut Random,
        expected: Expected,
        per_mille: u64,
        answers: u64,
        mut look: impl FnMut(Option<bool>),
    ) {
        let (mut last, mut correct, mut said) = (VecDeque::new(), 0, None);
        for _ in 0..answers {
            let right = random.below(1_000) < per_mille;
            last.push_back(right);
            correct += u64::from(right);
            if last.len() > MOST_ANSWERS as usize {
                correct -= u64::from(last.pop_front().unwrap());
            }
            said = has_dropped(said, expected, correct, last.len() as u64);
            look(said);
        }
    }

    /// Of so many runs, those with a drop.
    fn alarms(expected: impl Fn(&mut Random) -> Expected, per_mille: u64, answers: u64, runs: usize) -> usize {
        let mut random = Random(9);
        let mut run = || {
            let (expected, mut dropped) = (expected(&mut random), false);
            stream(&mut random, expected, per_mille, answers, |said| dropped |= said == Some(true));
            dropped
        };
        (0..runs).filter(|_| run()).count()
    }

    /// As a profile of so many texts has it.
    fn profiled(random: &mut Random, per_mille: u64, texts: u64) -> Expected {
        let correct = (0..texts).filter(|_| random.below(1_000) < per_mille).count() as u64;
        Expected { share: real(correct) / real(texts), texts: Some(texts) }
    }

    #[test]
    fn a_drop_ends_when_the_accuracy_is_back_and_nothing_is_said_of_few() {
        // A standard error is 0.0095 of 1,000 answers where 0.90 is expected.
        let now = |before, correct| has_dropped(before, exact(0.9), correct, 1_000);
        assert_eq!([861, 862, 880, 881].map(|correct| now(None, correct)), [Some(true), None, None, Some(false)]);
        assert_eq!([862, 880].map(|correct| now(Some(true), correct)), [Some(true); 2]);
        assert_eq!([862, 880].map(|correct| now(Some(false), correct)), [Some(false); 2]);
        assert_eq!(has_dropped(Some(true), exact(0.9), 0, 99), None);
        assert_eq!(has_dropped(None, exact(0.9), 0, 100), Some(true));
        // A profile of as many texts may be as far off as they are.
        let profile = Expected { share: 0.9, texts: Some(1_000) };
        assert_eq!(has_dropped(None, profile, 861, 1_000), None);
        assert_eq!(has_dropped(None, exact(0.0), 0, 1_000), Some(false));
        assert_eq!(has_dropped(None, exact(1.0), 989, 1_000), Some(true));
        assert_eq!(has_dropped(None, exact(1.0), 1_000, 1_000), Some(false));
    }

    #[test]
    fn the_same_answers_never_say_now_this_and_now_that() {
        for share in [0.0, 0.3, 0.75, 0.9, 0.94, 0.975, 0.98, 0.99, 0.995, 1.0] {
            for texts in [None, Some(1), Some(200), Some(1_000_000)] {
                let expected = Expected { share, texts };
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
    fn a_model_that_is_as_right_as_it_was_alarms_in_hardly_any_of_10_000_looks() {
        for per_mille in [750, 940, 985] {
            let share = real(per_mille) / 1_000.0;
            let found = alarms(|_| exact(share), per_mille, 10_000, 500);
            assert!(found <= 10, "{per_mille}: {found}");
        }
        let found = alarms(|random| profiled(random, 940, 1_000), 940, 10_000, 500);
        assert!(found <= 10, "by a profile: {found}");
    }

    #[test]
    fn a_drop_of_seven_points_is_found_within_1_000_answers() {
        assert_eq!(alarms(|_| exact(0.94), 870, 1_000, 500), 500);
        // A small profile is not certain itself.
        let found = alarms(|random| profiled(random, 940, 1_000), 870, 1_000, 500);
        assert!(found >= 400, "{found}");
    }
}
