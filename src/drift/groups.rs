//! Bins that are too rare to be compared alone, put together.
//!
//! A bin with few texts differs by chance more than the chi-square distribution says. The usual rule is at least five
//! expected in each (Cochran, "The χ² test of goodness of fit", 1952). What is expected comes from the reference alone:
//! groups chosen by what a window holds would fit the window. For the same reason rare labels are put together as they
//! stand, not by frequency: what looks most frequent among the rare was partly luck, and every window would lack it
//! (500 uneven labels, 1,000 texts on each side: every window without drift was above the bound of chance).
//!
//! Rare bins are put together with rare ones only, never with one that can stand alone: texts where the reference has
//! none would hide in it. So a group may stay below five, and is then compared as it is: smoothed, it differs by
//! chance less than the distribution says, not more.

use super::{real, total};

/// Texts expected in a bin that stands alone.
const LEAST_EXPECTED: f64 = 5.0;

/// How bins are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neighbours are alike, as with lengths: only those next to each other.
    Ordered,
    /// Bins stand in any order, as labels do: a rare one with the next rare one, however far.
    Named,
}

/// Which bins are compared as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The group of each bin.
    group: Vec<usize>,
    groups: usize,
}

impl Groups {
    /// The groups for a window of `window` texts.
    #[must_use]
    pub fn new(reference: &[u64], kind: Kind, window: u64) -> Self {
        let texts = total(reference);
        // A small reference is no more certain than a small window.
        let scale = if texts == 0 { 0.0 } else { real(texts.min(window)) / real(texts) };
        let mut groups = Self { group: Vec::with_capacity(reference.len()), groups: 0 };
        // The group of rare bins that is being filled, and what is expected in it so far.
        let mut filling: Option<(usize, f64)> = None;
        for &count in reference {
            let expected = real(count) * scale;
            let alone = expected >= LEAST_EXPECTED;
            if alone && kind == Kind::Ordered {
                filling = None;
            }
            let (group, so_far) = filling.filter(|_| !alone).unwrap_or((groups.groups, 0.0));
            groups.groups = groups.groups.max(group + 1);
            groups.group.push(group);
            if !alone {
                let sum = so_far + expected;
                filling = (sum < LEAST_EXPECTED).then_some((group, sum));
            }
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

    fn sizes(reference: &[u64], kind: Kind, window: u64) -> Vec<u64> {
        Groups::new(reference, kind, window).sums(reference)
    }

    #[test]
    fn rare_neighbours_stand_together_and_frequent_bins_alone() {
        let reference = [0, 0, 3, 1, 40, 2, 2, 2, 48, 0];
        // As many texts in the window as in the reference: five of them are enough.
        assert_eq!(sizes(&reference, Kind::Ordered, 98), [4, 40, 6, 48, 0]);
        assert_eq!(Groups::new(&reference, Kind::Ordered, 98).group, [0, 0, 0, 0, 1, 2, 2, 2, 3, 4]);
        // Half as many: ten must be there. A larger window than the reference changes nothing.
        assert_eq!(Groups::new(&[6, 6, 50, 6, 32], Kind::Ordered, 50).group, [0, 0, 1, 2, 3]);
        assert_eq!(sizes(&reference, Kind::Ordered, 1_000_000), [4, 40, 6, 48, 0]);
    }

    #[test]
    fn rare_labels_stand_with_the_next_rare_ones() {
        let reference = [2, 60, 4, 0, 30, 1, 3, 0];
        assert_eq!(Groups::new(&reference, Kind::Named, 100).group, [0, 1, 0, 2, 3, 2, 2, 2]);
        // Where all are rare, there are still as many groups as the window has fives.
        assert_eq!(sizes(&[10; 100], Kind::Named, 200).len(), 34);
    }

    #[test]
    fn what_the_reference_never_saw_does_not_hide() {
        assert_eq!(Groups::new(&[1_000, 0], Kind::Named, 100).sums(&[70, 30]), [70, 30]);
        assert_eq!(Groups::new(&[0, 500, 500, 0], Kind::Ordered, 100).sums(&[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(Groups::new(&[0, 0], Kind::Named, 100).len(), 1);
        assert!(Groups::new(&[], Kind::Ordered, 100).is_empty());
    }
}
