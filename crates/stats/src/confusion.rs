//! Where a model is wrong: its answers against the true labels, class by class.

use std::collections::BTreeMap;

use super::feedback_counts::ratio;

/// How often each label was answered where each was true, in the order of the labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfusionMatrix {
    /// By what was true and what was answered.
    cells: BTreeMap<(String, String), u64>,
}

/// How well a class is recognised. Parts are fractions; nothing where there is nothing to divide by.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// Its label.
    pub label: String,
    /// Of the answers with this label, the part that was right.
    pub precision: Option<f64>,
    /// Of the texts of this class, the part that was recognised.
    pub recall: Option<f64>,
    /// The harmonic mean of both; 0 if the class was there, or was answered, but never rightly.
    pub f1: Option<f64>,
    /// Texts of this class.
    pub support: u64,
}

impl FromIterator<(String, String, u64)> for ConfusionMatrix {
    /// From what was predicted, what was true, and how often. Entries of the same labels add up.
    fn from_iter<I: IntoIterator<Item = (String, String, u64)>>(entries: I) -> Self {
        let mut cells = BTreeMap::new();
        for (predicted, actual, count) in entries.into_iter().filter(|&(.., count)| count > 0) {
            let cell: &mut u64 = cells.entry((actual, predicted)).or_default();
            *cell = cell.saturating_add(count);
        }
        Self { cells }
    }
}

impl ConfusionMatrix {
    /// What was predicted, what was true, and how often, in the order of the true labels.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.cells.iter().map(|((actual, predicted), &count)| (predicted.as_str(), actual.as_str(), count))
    }

    /// Every label that was true or answered, in the order of the labels.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassMetrics> {
        #[derive(Default)]
        struct ClassSums {
            correct: u64,
            predicted: u64,
            support: u64,
        }
        let mut sums = BTreeMap::<&str, ClassSums>::new();
        for (predicted, actual, count) in self.cells() {
            sums.entry(predicted).or_default().predicted += count;
            let class = sums.entry(actual).or_default();
            class.support += count;
            if predicted == actual {
                class.correct += count;
            }
        }
        let class = |(label, ClassSums { correct, predicted, support }): (&str, ClassSums)| ClassMetrics {
            label: label.to_owned(),
            precision: ratio(correct, predicted),
            recall: ratio(correct, support),
            f1: ratio(2 * correct, predicted + support),
            support,
        };
        sums.into_iter().map(class).collect()
    }

    /// The mean F1 of the classes that were there.
    #[must_use]
    pub fn macro_f1(&self) -> Option<f64> {
        let mut sum = 0.0;
        let mut classes = 0.0;
        for f1 in self.classes().iter().filter(|class| class.support > 0).filter_map(|class| class.f1) {
            sum += f1;
            classes += 1.0;
        }
        (classes > 0.0).then(|| sum / classes)
    }

    /// The most frequent mistakes, at most so many, as [`cells`](Self::cells) gives them; equally frequent ones in the
    /// order of the labels.
    #[must_use]
    pub fn top_misclassifications(&self, most: usize) -> Vec<(&str, &str, u64)> {
        let mut wrong: Vec<_> = self.cells().filter(|(predicted, actual, _)| predicted != actual).collect();
        wrong.sort_by_key(|&(.., count)| std::cmp::Reverse(count));
        wrong.truncate(most);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(entries: &[(&str, &str, u64)]) -> ConfusionMatrix {
        entries.iter().map(|&(predicted, actual, count)| (predicted.into(), actual.into(), count)).collect()
    }

    fn is_close(found: Option<f64>, known: f64) -> bool {
        found.is_some_and(|found| (found - known).abs() < 1e-12)
    }

    #[test]
    fn class_metrics_hand_computed_match() {
        let confusion =
            confusion(&[("cat", "cat", 6), ("dog", "cat", 2), ("dog", "dog", 3), ("cat", "dog", 1), ("cat", "cat", 2)]);
        let [cat, dog] = &confusion.classes()[..] else { panic!("two classes") };
        assert_eq!((cat.label.as_str(), cat.support, dog.label.as_str(), dog.support), ("cat", 10, "dog", 4));
        assert!(
            is_close(cat.precision, 8.0 / 9.0) && is_close(cat.recall, 0.8) && is_close(cat.f1, 16.0 / 19.0),
            "{cat:?}"
        );
        assert!(is_close(dog.precision, 0.6) && is_close(dog.recall, 0.75) && is_close(dog.f1, 2.0 / 3.0), "{dog:?}");
        assert!(is_close(confusion.macro_f1(), f64::midpoint(16.0 / 19.0, 2.0 / 3.0)));
    }

    #[test]
    fn class_metrics_zero_denominator_is_none() {
        let confusion = confusion(&[("a", "b", 2), ("c", "c", 1), ("z", "z", 0)]);
        let [a, b, c] = &confusion.classes()[..] else { panic!("three classes") };
        assert_eq!((a.precision, a.recall, a.f1, a.support), (Some(0.0), None, Some(0.0), 0));
        assert_eq!((b.precision, b.recall, b.f1, b.support), (None, Some(0.0), Some(0.0), 2));
        assert_eq!((c.precision, c.recall, c.f1), (Some(1.0), Some(1.0), Some(1.0)));
        assert!(is_close(confusion.macro_f1(), 0.5), "a class that was never there does not count");
        let empty = ConfusionMatrix::default();
        assert_eq!((empty.macro_f1(), empty.classes(), empty.top_misclassifications(3)), (None, vec![], vec![]));
    }

    #[test]
    fn misclassifications_sorted_most_frequent_first() {
        let confusion = confusion(&[("a", "b", 2), ("a", "a", 9), ("c", "a", 5), ("b", "a", 2), ("c", "b", 1)]);
        assert_eq!(confusion.top_misclassifications(3), [("c", "a", 5), ("b", "a", 2), ("a", "b", 2)]);
    }
}
