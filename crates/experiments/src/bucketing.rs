//! Which arm a user is in. Pure: the same on every machine, in every process, at any time.
//!
//! # For analysts
//!
//! A user's position is a number from 0 up to 1: the first 8 bytes of SHA-256 of `SALT`, a zero byte and `USER` (both
//! UTF-8), as a big-endian number, shifted right by 11 bits, divided by 2^53. The arms lie behind each other in the
//! order of the experiment, each as long as its weight; the user is in the arm in which the position lies. In Python:
//!
//! ```text
//! digest = hashlib.sha256(f"{salt}\0{user}".encode()).digest()
//! position = (int.from_bytes(digest[:8]) >> 11) / 2**53
//! ```
//!
//! Experiments with different salts are independent. Of two arms, nobody leaves the one whose weight grows; of more, a
//! change of weights may move users from each to each.

use sha2::{Digest, Sha256};

/// Numbers that a user has in an experiment. They are independent of each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucketing {
    /// Decides on the arm: 0 up to 1.
    pub position: f64,
    /// Decides whether the user is in the sample of users.
    pub sample_hash: u64,
    /// Decides whether a shadow arm sees the user's texts: 0 up to 1.
    pub shadow_position: f64,
}

impl Bucketing {
    /// Those of a user.
    #[must_use]
    pub fn from_user(salt: &str, user: &str) -> Self {
        let digest = Sha256::new().chain_update(salt).chain_update([0]).chain_update(user).finalize();
        Self::from_bytes(&digest)
    }

    /// Those of an anonymous user, from random bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let words = bytes.as_chunks::<8>().0;
        let [position, sample_hash, shadow] =
            [0, 1, 2].map(|index| u64::from_be_bytes(words.get(index).copied().unwrap_or_default()));
        Self { position: unit_fraction(position), sample_hash, shadow_position: unit_fraction(shadow) }
    }

    /// Bytes that [`of_bytes`](Self::from_bytes) reads.
    pub const INPUT_BYTES: usize = 24;
}

/// 53 bits as a number from 0 up to 1: each of them is exact.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn unit_fraction(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// The arm in which a position lies; weights are parts of 1. Nothing if no arm has a weight.
#[must_use]
pub fn choose_arm(weights: impl IntoIterator<Item = f64>, position: f64) -> Option<usize> {
    let mut end = 0.0;
    let mut last = None;
    for (arm, weight) in weights.into_iter().enumerate().filter(|&(_, weight)| weight > 0.0) {
        end += weight;
        if position < end {
            return Some(arm);
        }
        // Sums of fractions may stay a little below 1.
        last = Some(arm);
    }
    last
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{ChiSquared, ContinuousCDF};

    use super::*;
    use predictd_stats::sample_ratio::sample_ratio_p_value;

    #[test]
    fn bucketing_known_users_match_documented_recipe() {
        // By the Python lines above.
        for (salt, user, position) in [
            ("checkout", "alice", 0.957_224_313_995_003_4),
            ("checkout", "", 0.146_536_457_461_696_97),
            ("", "Zoë ☃", 0.942_965_346_143_051_6),
        ] {
            let bucketing = Bucketing::from_user(salt, user);
            assert!((bucketing.position - position).abs() < 1e-15, "{salt} {user}: {:?}", bucketing.position);
        }
    }

    #[test]
    fn choose_arm_position_respects_weights() {
        let weights = [0.5, 0.0, 0.25, 0.25];
        for (position, arm) in [(0.0, 0), (0.499, 0), (0.5, 2), (0.749, 2), (0.75, 3), (0.999_999, 3)] {
            assert_eq!(choose_arm(weights, position), Some(arm), "{position}");
        }
        assert_eq!(choose_arm([0.1; 10], 1.0 - f64::EPSILON), Some(9), "ten times 0.1 is less than 1");
        assert_eq!(choose_arm([0.0, 1.0], 0.0), Some(1));
        assert_eq!((choose_arm([0.0, 0.0], 0.5), choose_arm([], 0.5)), (None, None));
    }

    /// The chance of a chi-square as large as this, with so many degrees of freedom.
    fn chi_square_p_value(chi_square: f64, freedom: f64) -> f64 {
        ChiSquared::new(freedom).unwrap().sf(chi_square)
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn bucketing_million_users_follows_weights_independently() {
        let first = [0.5, 0.3, 0.2];
        let second = [0.9, 0.1];
        let mut counts = [[0_u64; 2]; 3];
        for user in 0..1_000_000 {
            let user = format!("user-{user}");
            let [a, b] = [("prices", &first[..]), ("colours", &second[..])].map(|(salt, weights)| {
                choose_arm(weights.iter().copied(), Bucketing::from_user(salt, &user).position).unwrap()
            });
            counts[a][b] += 1;
        }
        let of_first = counts.map(|row| row.iter().sum::<u64>());
        let fit = |counts: &[u64], weights: &[f64]| -> f64 {
            counts.iter().zip(weights).map(|(&count, share)| (count as f64 - share * 1e6).powi(2) / (share * 1e6)).sum()
        };
        let p = chi_square_p_value(fit(&of_first, &first), 2.0);
        assert!(p > 0.001, "{of_first:?}: {p}");
        assert!(sample_ratio_p_value(&of_first, &first).unwrap() > 0.001);
        let both: Vec<f64> = first.iter().flat_map(|a| second.iter().map(move |b| a * b)).collect();
        let p = chi_square_p_value(fit(counts.as_flattened(), &both), 5.0);
        assert!(p > 0.001, "not independent: {counts:?}: {p}");
    }

    #[test]
    fn choose_arm_weight_grows_users_stay() {
        for user in 0..10_000 {
            let position = Bucketing::from_user("rollout", &user.to_string()).position;
            let [few, more] = [0.05, 0.25].map(|weight| choose_arm([1.0 - weight, weight], position).unwrap());
            assert!(few <= more);
        }
    }
}
