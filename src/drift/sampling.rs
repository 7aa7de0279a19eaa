//! The same texts in every run of the tests.

/// `SplitMix64` (Steele, Lea and Flood, 2014): a few lines, and good enough to draw samples.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A bin, each as often as its weight.
    pub(crate) fn bin(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        weights.iter().position(|&weight| left.checked_sub(weight).map(|less| left = less).is_none()).unwrap_or(0)
    }

    /// So many texts in bins.
    pub(crate) fn sample(&mut self, weights: &[u64], texts: u64) -> Vec<u64> {
        let mut counts = vec![0; weights.len()];
        (0..texts).for_each(|_| counts[self.bin(weights)] += 1);
        counts
    }
}
