//! Bins that are too rare to be compared alone, put together.
//!
//! A bin with few texts differs by chance more than the chi-square distribution says. The rule for it is as old as
//! the test: at least five expected in each (Cochran, "The χ² test of goodness of fit", 1952). What is expected comes from the
//! reference alone: groups chosen by what a window holds would fit the window.
//!
//! Rare bins are put together with rare ones only, never with one that can stand alone: texts where the reference has
//! none would hide in it. So a group may stay below five, and is then compared as it is: smoothed, it
//! differs by chance less than the distribution says, not more.

use super::real;

/// Texts expected in a bin that stands alone.
const LEAST_EXPECTED: f64 = 5.0;

/// Which bins are compared as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The group of each bin.
    group: Vec<usize>,
    groups: usize,
}

/// Bins from the most to the least frequent; equally frequent ones as they stand.
///
/// The order in which bins without an order of their own are put together: the rare with the rare.
#[must_use]
pub fn by_frequency(reference: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..reference.len()).collect();
    order.sort_by_key(|&bin| std::cmp::Reverse(reference.get(bin).copied().unwrap_or(0)));
    order
}

/// Bins as they stand: the order for lengths and confidence, where neighbours are alike.
#[must_use]
pub fn as_they_stand(reference: &[u64]) -> Vec<usize> {
    (0..reference.len()).collect()
}

impl Groups {
    /// The groups for a window of `window` texts. Bins that are put together follow each other in `order`, which names each
    /// bin once.
    #[must_use]
    pub fn new(reference: &[u64], order: &[usize], window: u64) -> Self {
        let texts: u64 = reference.iter().sum();
        // A small reference is no more certain than a small window.
        let scale = if texts == 0 { 0.0 } else { real(texts.min(window)) / real(texts) };
        let mut groups = Self { group: vec![0; reference.len()], groups: 0 };
        // Expected in the group of rare bins that is being filled.
        let mut filling: Option<f64> = None;
        for &bin in order {
            let expected = reference.get(bin).map_or(0.0, |&count| real(count) * scale);
            let alone = expected >= LEAST_EXPECTED;
            let so_far = if alone { None } else { filling };
            if so_far.is_none() {
                groups.groups += 1;
            }
            if let Some(group) = groups.group.get_mut(bin) {
                *group = groups.groups - 1;
            }
            let sum = so_far.unwrap_or(0.0) + expected;
            filling = (sum < LEAST_EXPECTED).then_some(sum);
        }
        groups
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Counts by group of counts by bin.
    #[must_use]
    pub fn sums(&self, counts: &[u64]) -> Vec<u64> {
        let mut sums = vec![0_u64; self.groups];
        for (&group, &count) in self.group.iter().zip(counts) {
            if let Some(sum) = sums.get_mut(group) {
                *sum = sum.saturating_add(count);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(reference: &[u64], order: &[usize], window: u64) -> Vec<u64> {
        Groups::new(reference, order, window).sums(reference)
    }

    #[test]
    fn rare_neighbours_stand_together_and_frequent_bins_alone() {
        let reference = [0, 0, 3, 1, 40, 2, 2, 2, 50, 0];
        let order = as_they_stand(&reference);
        // As many texts in the window as in the reference: five of them are enough.
        assert_eq!(sizes(&reference, &order, 100), [4, 40, 6, 50, 0]);
        let groups = Groups::new(&reference, &order, 100);
        assert_eq!(groups.group, [0, 0, 0, 0, 1, 2, 2, 2, 3, 4]);
        // A tenth: 50 must be there. A larger window than the reference changes nothing.
        assert_eq!(sizes(&reference, &order, 10), [46, 50, 4]);
        assert_eq!(sizes(&reference, &order, 1_000_000), [4, 40, 6, 50, 0]);
    }

    #[test]
    fn rare_labels_stand_with_rare_ones() {
        let reference = [2, 60, 4, 0, 30, 1, 3, 0];
        let order = by_frequency(&reference);
        assert_eq!(order, [1, 4, 2, 6, 0, 5, 3, 7]);
        assert_eq!(sizes(&reference, &order, 100), [60, 30, 7, 3]);
        // Where all are rare, there are still as many groups as the window has fives.
        let even = [10; 100];
        assert_eq!(sizes(&even, &by_frequency(&even), 200).len(), 34);
    }

    #[test]
    fn what_the_reference_never_saw_has_a_group_of_its_own() {
        let order = [0, 1];
        assert_eq!(Groups::new(&[1_000, 0], &order, 100).sums(&[70, 30]), [70, 30]);
        assert_eq!(Groups::new(&[0, 0], &order, 100).len(), 1);
        assert!(Groups::new(&[], &[], 100).is_empty());
    }
}
