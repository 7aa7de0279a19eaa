//! The same texts in every run of the tests.

/// `SplitMix64` (Steele, Lea and Flood, 2014): a few lines, and good enough to draw samples.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(crate) fn next_below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// So many texts in bins, drawn from an [`urn`].
    pub(crate) fn sample_bins(&mut self, urn: &[usize], bins: usize, texts: u64) -> Vec<u64> {
        let mut counts = vec![0; bins];
        let size = u64::try_from(urn.len()).unwrap();
        (0..texts).for_each(|_| counts[urn[usize::try_from(self.next_below(size)).unwrap()]] += 1);
        counts
    }
}

/// Each bin as often as its weight.
pub(crate) fn weighted_bins(weights: &[u64]) -> Vec<usize> {
    let times = |(bin, &weight)| std::iter::repeat_n(bin, usize::try_from(weight).unwrap());
    weights.iter().enumerate().flat_map(times).collect()
}
