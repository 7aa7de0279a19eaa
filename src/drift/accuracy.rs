//! Whether a model is less often right than it was when it was tried.

use super::real;
use crate::experiments::statistics::interval::{Z95, wilson};

/// Answers with a known true label that are looked at, the last ones.
pub const MOST_ANSWERS: u32 = 1_000;

/// Fewest of them with which anything is said.
pub const LEAST_ANSWERS: u64 = 100;

/// How far below the expected accuracy the recent one may be when a drop counts as over.
pub const CLEAR: f64 = 0.01;

/// True if the accuracy is lower than expected, and not by chance: `dropped` is what was said before.
///
/// It has dropped when the upper end of Wilson's 95 % interval is below what is expected. The drop is over once the
/// accuracy itself is back, but for [`CLEAR`]: the interval's end goes up and down with every answer.
#[must_use]
pub fn has_dropped(dropped: bool, expected: f64, correct: u64, answers: u64) -> bool {
    if answers < LEAST_ANSWERS {
        return false;
    }
    if dropped {
        real(correct) / real(answers) < expected - CLEAR
    } else {
        wilson(correct, answers, Z95).high < expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_must_be_more_than_chance_and_ends_when_the_accuracy_is_back() {
        // 0.90 is expected; of 1,000 answers 880 right are 0.8984 at most, of 200 answers 176 are 0.918.
        assert!(has_dropped(false, 0.9, 880, 1_000) && !has_dropped(false, 0.9, 176, 200));
        assert!(!has_dropped(false, 0.9, 0, 99) && has_dropped(false, 0.9, 0, 100));
        assert!(!has_dropped(true, 0.9, 0, 99), "nothing is known of so few");
        assert!(has_dropped(true, 0.9, 889, 1_000) && !has_dropped(true, 0.9, 890, 1_000));
        assert!(!has_dropped(false, 0.0, 0, 1_000) && !has_dropped(false, 1.0, 1_000, 1_000));
    }

    #[test]
    fn nothing_drops_by_chance_and_a_real_drop_is_seen() {
        let mut random = crate::drift::sampling::Random(9);
        let mut alarms = |percent: u64| {
            let sample = |random: &mut crate::drift::sampling::Random| {
                (0..1_000).filter(|_| random.below(100) < percent).count() as u64
            };
            (0..200).filter(|_| has_dropped(false, 0.9, sample(&mut random), 1_000)).count()
        };
        let (by_chance, real_drop) = (alarms(90), alarms(85));
        assert!(by_chance <= 12 && real_drop >= 195, "{by_chance} {real_drop}");
    }
}
