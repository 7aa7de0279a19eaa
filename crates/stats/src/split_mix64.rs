//! Pseudorandom numbers that a seed repeats: for made-up texts and for tests, not for secrets.

/// `SplitMix64`: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", 2014.
///
/// The number in it is the seed.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn next_below(&mut self, end: u64) -> u64 {
        self.next_u64() % end.max(1)
    }

    /// An index into a list of this length; 0 if it is empty.
    pub fn next_index(&mut self, length: usize) -> usize {
        usize::try_from(self.next_below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// From 0 up to 1.
    #[cfg(test)]
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    pub(crate) fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normally distributed: the sum of twelve even numbers has a variance of one.
    #[expect(clippy::cast_precision_loss, reason = "a random number")]
    pub fn next_normal(&mut self) -> f64 {
        (0..12).map(|_| self.next_u64() as f64 / u64::MAX as f64).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_known_seed_gives_published_numbers() {
        // As Vigna's reference implementation gives them.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(
            [(); 3].map(|()| random.next_u64()),
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn split_mix_same_seed_repeats() {
        let mut random = SplitMix64(0);
        let mut same = random.clone();
        let drawn: Vec<usize> = (0..100).map(|_| random.next_index(10)).collect();
        assert!(drawn.iter().all(|&number| number == same.next_index(10)));
        assert!((0..10).all(|number| drawn.contains(&number)));
        assert_eq!((random.next_index(0), random.next_below(0)), (0, 0));
    }
}
