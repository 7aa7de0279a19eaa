//! A fair sample of the users that an experiment has seen, in constant memory, from several replicas at once.
//!
//! A bottom-k sketch: of all users, those with the smallest hashes are kept, each with its arm, so every user counts
//! once and has the same chance to be kept. E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", PODC
//! 2007; K. Beyer et al., "On synopses for distinct-value estimation under multiset operations", SIGMOD 2007.
//!
//! The hash must be independent of the one that gives users their arms: otherwise the smallest hashes share an arm.
//!
//! # What a test of the counts is worth
//!
//! Until the sample is full it holds every user, counts only grow, and [`sample_ratio_p_value`](super::sample_ratio::sample_ratio_p_value) is exact
//! however often one looks. A full sample is at every look a random sample of so many users, and one look is a valid
//! test of it; but users are replaced by others, so looking at it for as long as it takes is not one test. Its test
//! statistic forgets 63 % whenever the number of users grows by 2.7 times, and each such growth adds a false alarm
//! with a chance of about 0.0005 at a threshold of 0.001: over a growth from 4,096 to 4 million users, 0.4 %.

use std::collections::BTreeMap;

/// Users kept, unless one says otherwise: about 60 kB. A split of 54/46 instead of 50/50 is found in eight of ten full
/// samples; 52/48 needs four times as many users to be found as surely.
pub const DEFAULT_SAMPLE_CAPACITY: usize = 4_096;

/// Bytes of a user: hash (8, big-endian) and arm (1).
const ENTRY_BYTES: usize = 9;
/// In place of the arm of a user that was in several.
const SEVERAL_ARMS: u8 = u8::MAX;

/// The users with the smallest hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSample {
    arms: BTreeMap<u64, u8>,
    capacity: usize,
    /// A hash above this one cannot be kept.
    max_hash: u64,
}

impl Default for UserSample {
    fn default() -> Self {
        Self::new(DEFAULT_SAMPLE_CAPACITY)
    }
}

impl UserSample {
    /// An empty sample of at most so many users.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { arms: BTreeMap::new(), capacity: capacity.max(1), max_hash: u64::MAX }
    }

    /// A user was answered by an arm (below 255). A comparison for all but the smallest hashes once the sample is full.
    ///
    /// A user whom several arms answered stays in the sample and counts for none of them.
    pub fn insert(&mut self, hash: u64, arm: u8) {
        if hash > self.max_hash {
            return;
        }
        let known = self.arms.entry(hash).or_insert(arm);
        if *known != arm {
            *known = SEVERAL_ARMS;
        }
        self.trim();
    }

    /// Adds what another replica saw: the sample is as if one had seen all, in whatever order replicas are added. Of
    /// two capacities the smaller one stays.
    pub fn merge(&mut self, other: &Self) {
        self.capacity = self.capacity.min(other.capacity);
        self.trim();
        other.arms.iter().for_each(|(&hash, &arm)| self.insert(hash, arm));
    }

    /// Users in each of so many arms, numbered from 0.
    #[must_use]
    pub fn counts(&self, arms: usize) -> Vec<u64> {
        let mut counts = vec![0; arms];
        for &arm in self.arms.values().filter(|&&arm| arm != SEVERAL_ARMS) {
            if let Some(count) = counts.get_mut(usize::from(arm)) {
                *count += 1;
            }
        }
        counts
    }

    /// Users in the sample whom several arms answered: many, if weights were changed or users are not recognised.
    #[must_use]
    pub fn multi_arm_users(&self) -> usize {
        self.arms.values().filter(|&&arm| arm == SEVERAL_ARMS).count()
    }

    /// Whether users may have been left out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.arms.len() >= self.capacity
    }

    /// How many users there were: exact until the sample is full, then wrong by about 1/sqrt(capacity) (Beyer et al.:
    /// (k - 1) / the largest kept hash as a fraction).
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn estimated_users(&self) -> f64 {
        let kept = self.arms.len() as f64;
        if self.is_full() { ((kept - 1.0) / (self.max_hash as f64 / u64::MAX as f64)).max(kept) } else { kept }
    }

    /// To be stored, in ascending order of the hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.arms.iter().flat_map(|(hash, &arm)| hash.to_be_bytes().into_iter().chain([arm])).collect()
    }

    /// A sample of this capacity as it was stored.
    ///
    /// # Errors
    ///
    /// One sentence, of what cannot have been stored by [`to_bytes`](Self::to_bytes) from such a sample.
    pub fn from_bytes(bytes: &[u8], capacity: usize) -> Result<Self, String> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(format!("a sample of users cannot have {} bytes", bytes.len()));
        }
        if entries.len() > capacity {
            return Err(format!("a sample with too many users: {}", entries.len()));
        }
        let mut sample = Self::new(capacity);
        for &[hash @ .., arm] in entries {
            let hash = u64::from_be_bytes(hash);
            if sample.arms.last_key_value().is_some_and(|(&last, _)| hash <= last) {
                return Err("a sample of users whose hashes do not ascend".to_owned());
            }
            sample.arms.insert(hash, arm);
        }
        sample.trim();
        Ok(sample)
    }

    fn trim(&mut self) {
        while self.arms.len() > self.capacity {
            self.arms.pop_last();
        }
        if self.is_full() {
            self.max_hash = self.arms.last_key_value().map_or(u64::MAX, |(&largest, _)| largest);
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::super::sample_ratio::sample_ratio_mismatch;
    use super::*;
    use crate::split_mix64::SplitMix64;

    /// Users of whom so many are in arm 1, each seen once.
    fn random_sample(users: u64, share: f64, capacity: usize, random: &mut SplitMix64) -> UserSample {
        let mut sample = UserSample::new(capacity);
        for _ in 0..users {
            let hash = random.next_u64();
            let arm = u8::from(random.next_f64() < share);
            sample.insert(hash, arm);
        }
        sample
    }

    #[test]
    fn user_sample_merged_replicas_equal_one() {
        let mut random = SplitMix64(5);
        let mut all = UserSample::new(64);
        let mut replicas = [const { None }; 3].map(|_: Option<()>| UserSample::new(64));
        let users: Vec<u64> = (0..400).map(|_| random.next_u64()).collect();
        for _ in 0..3_000 {
            let user = users[random.next_index(users.len())];
            // Every eighth user moves between arms.
            let arm = if user.is_multiple_of(8) { random.next_index(3) as u8 } else { (user % 3) as u8 };
            all.insert(user, arm);
            replicas[random.next_index(3)].insert(user, arm);
        }
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut merged = replicas[order[0]].clone();
            order[1..].iter().for_each(|&other| merged.merge(&replicas[other]));
            assert_eq!(merged, all);
            merged.merge(&all);
            assert_eq!(merged, all, "twice is once");
        }
        assert!(all.multi_arm_users() > 0);
        assert_eq!(all.counts(3).iter().sum::<u64>() as usize + all.multi_arm_users(), 64);
        assert!((all.estimated_users() / 400.0 - 1.0).abs() < 0.5, "{}", all.estimated_users());
    }

    #[test]
    fn user_sample_full_keeps_smallest_hashes() {
        let mut sample = UserSample::new(3);
        for (hash, arm) in [(50, 0), (40, 1), (50, 0), (30, 1), (60, 0), (20, 2), (50, 1)] {
            sample.insert(hash, arm);
        }
        assert_eq!(sample.arms, BTreeMap::from([(20, 2), (30, 1), (40, 1)]));
        assert_eq!((sample.counts(3), sample.counts(2)), (vec![0, 2, 1], vec![0, 2]));
        let mut smaller = UserSample::new(1);
        smaller.merge(&sample);
        sample.merge(&UserSample::new(1));
        assert_eq!((&smaller, sample.arms.len(), sample.max_hash), (&sample, 1, 20));
    }

    fn decode_error(bytes: &[u8], capacity: usize) -> String {
        UserSample::from_bytes(bytes, capacity).unwrap_err()
    }

    #[test]
    fn user_sample_bytes_round_trip_and_malformed_refused() {
        for users in [0, 10, 64, 500] {
            let known = random_sample(users, 0.5, 64, &mut SplitMix64(1));
            let bytes = known.to_bytes();
            assert_eq!(bytes.len(), 9 * users.min(64) as usize);
            assert_eq!(UserSample::from_bytes(&bytes, 64).unwrap(), known);
        }
        let bytes = random_sample(64, 0.5, 64, &mut SplitMix64(1)).to_bytes();
        assert_eq!(decode_error(&bytes[1..], 64), "a sample of users cannot have 575 bytes");
        assert_eq!(decode_error(&bytes, 63), "a sample with too many users: 64");
        let twice = [&bytes[..9], &bytes[..9]].concat();
        assert_eq!(decode_error(&twice, 64), "a sample of users whose hashes do not ascend");
    }

    /// In what part of the streams a mismatch with 50/50 is found, by looks whenever the users have grown by 5 %.
    fn mismatch_share(share: f64, capacity: usize, users: u64, streams: u64) -> f64 {
        let streams_found = (0..streams).filter(|&stream| {
            let mut random = SplitMix64(stream << 32);
            let mut sample = UserSample::new(capacity);
            let mut look = 20;
            (1..=users).any(|user| {
                let hash = random.next_u64();
                let arm = u8::from(random.next_f64() < share);
                sample.insert(hash, arm);
                let due = user == look;
                if due {
                    look += (look / 20).max(1);
                }
                due && sample_ratio_mismatch(&sample.counts(2), &[1.0, 1.0]).is_some()
            })
        });
        streams_found.count() as f64 / streams as f64
    }

    #[test]
    fn user_sample_skew_of_four_points_flagged() {
        assert!(mismatch_share(0.5, DEFAULT_SAMPLE_CAPACITY, 6_000, 10) <= 0.1);
        assert!(mismatch_share(0.54, DEFAULT_SAMPLE_CAPACITY, 20_000, 10) >= 0.7);
    }
}
