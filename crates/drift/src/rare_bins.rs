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

use predictd_stats::to_f64;

use super::counts::sum_counts;

/// Texts expected in a bin that stands alone.
const MIN_EXPECTED_TEXTS: f64 = 5.0;

/// How bins are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinScale {
    /// Neighbours are alike, as with lengths: only those next to each other.
    Ordinal,
    /// Bins stand in any order, as labels do: a rare one with the next rare one, however far.
    Nominal,
}

/// Which bins are compared as one.
pub(crate) struct BinGroups {
    /// The group of each bin.
    group_of_bin: Vec<usize>,
    /// How many groups there are.
    pub(crate) group_count: usize,
}

impl BinGroups {
    /// The groups for a window of `window` texts.
    pub(crate) fn new(reference: &[u64], kind: BinScale, window: u64) -> Self {
        let texts = sum_counts(reference);
        // A small reference is no more certain than a small window.
        let scale = if texts == 0 { 0.0 } else { to_f64(texts.min(window)) / to_f64(texts) };
        let mut groups = Self { group_of_bin: Vec::with_capacity(reference.len()), group_count: 0 };
        // The group of rare bins that is being filled, and what is expected in it so far.
        let mut filling: Option<(usize, f64)> = None;
        for &count in reference {
            let expected = to_f64(count) * scale;
            let alone = expected >= MIN_EXPECTED_TEXTS;
            if alone && kind == BinScale::Ordinal {
                filling = None;
            }
            let (group, so_far) = filling.filter(|_| !alone).unwrap_or((groups.group_count, 0.0));
            groups.group_count = groups.group_count.max(group + 1);
            groups.group_of_bin.push(group);
            if !alone {
                let sum = so_far + expected;
                filling = (sum < MIN_EXPECTED_TEXTS).then_some((group, sum));
            }
        }
        groups
    }

    /// Counts by group of counts by bin.
    pub(crate) fn merge_counts(&self, counts: &[u64]) -> Vec<u64> {
        let mut sums = vec![0_u64; self.group_count];
        for (&group, &count) in self.group_of_bin.iter().zip(counts) {
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

    fn group_sizes(reference: &[u64], kind: BinScale, window: u64) -> Vec<u64> {
        BinGroups::new(reference, kind, window).merge_counts(reference)
    }

    #[test]
    fn ordinal_bins_rare_neighbours_merged() {
        let reference = [0, 0, 3, 1, 40, 2, 2, 2, 48, 0];
        // As many texts in the window as in the reference: five of them are enough.
        assert_eq!(group_sizes(&reference, BinScale::Ordinal, 98), [4, 40, 6, 48, 0]);
        assert_eq!(BinGroups::new(&reference, BinScale::Ordinal, 98).group_of_bin, [0, 0, 0, 0, 1, 2, 2, 2, 3, 4]);
        // Half as many: ten must be there. A larger window than the reference changes nothing.
        assert_eq!(BinGroups::new(&[6, 6, 50, 6, 32], BinScale::Ordinal, 50).group_of_bin, [0, 0, 1, 2, 3]);
        assert_eq!(group_sizes(&reference, BinScale::Ordinal, 1_000_000), [4, 40, 6, 48, 0]);
    }

    #[test]
    fn nominal_bins_rare_labels_merged() {
        let reference = [2, 60, 4, 0, 30, 1, 3, 0];
        assert_eq!(BinGroups::new(&reference, BinScale::Nominal, 100).group_of_bin, [0, 1, 0, 2, 3, 2, 2, 2]);
        // Where all are rare, there are still as many groups as the window has fives.
        assert_eq!(group_sizes(&[10; 100], BinScale::Nominal, 200).len(), 34);
    }

    #[test]
    fn empty_reference_bins_not_merged_with_frequent() {
        assert_eq!(BinGroups::new(&[1_000, 0], BinScale::Nominal, 100).merge_counts(&[70, 30]), [70, 30]);
        assert_eq!(BinGroups::new(&[0, 500, 500, 0], BinScale::Ordinal, 100).merge_counts(&[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(BinGroups::new(&[0, 0], BinScale::Nominal, 100).group_count, 1);
        assert_eq!(BinGroups::new(&[], BinScale::Ordinal, 100).group_count, 0);
    }
}
