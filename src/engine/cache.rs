//! Answers that were given before, so that the same text need not be run again.
//!
//! A key is a keyed hash of the text as the client sent it and of the model as it was loaded: a
//! model's policy, tokenizer and graph never change while it is loaded, so a text that has an
//! answer here would get the same one again, and a text that the policy refuses never has one.
//! What a request wants to see of an answer (`top_k`, raw scores) is chosen from it later and is
//! no part of the key. Texts themselves are not kept. The key of the hash is new in each process:
//! nobody can make two texts that share an answer.

mod single_flight;

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::ItemOutput;
use super::loaded_version::LoadedVersion;
use crate::text::entities::Entity;
use crate::text::heads::HeadOutcome;
use crate::text::input::{Input, SecondText};
use single_flight::FlightTable;
pub use single_flight::{FlightFollower, FlightLeader, FlightOutcome};

/// Parts of the cache that lock one by one. An answer larger than its part is not kept.
const SHARD_COUNT: usize = 16;
/// What an answer is guessed to weigh. Only the memory for keys of answers that were displaced depends on it.
const TYPICAL_ENTRY_BYTES: usize = 512;
/// What the table around an answer costs at most: its places double when there are too few.
const MAX_SLOT_BYTES: usize = 160;
/// The two counters of an `Arc`.
const ARC_COUNTER_BYTES: usize = 16;

/// Names an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(u128);

/// What is to be done for a text that has no answer yet.
#[derive(Debug)]
pub enum CacheClaim {
    /// Nothing: it has one meanwhile.
    Hit(Arc<ItemOutput>),
    /// Wait: it is being run for somebody else.
    Follow(FlightFollower),
    /// Run it; others may wait for it.
    Compute(FlightLeader),
}

/// Answers by key, bounded in bytes, and the texts that are being run.
pub struct Cache {
    entries: quick_cache::sync::Cache<CacheKey, Arc<ItemOutput>, EntryWeighter>,
    in_flight: Mutex<FlightTable>,
    hasher: SipHasher24,
}

impl Cache {
    /// A cache of at most `bytes`; none for 0.
    ///
    /// # Errors
    /// If the operating system gives no random key.
    pub fn new(bytes: usize) -> Result<Option<Arc<Self>>, getrandom::Error> {
        if bytes == 0 {
            return Ok(None);
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        // A part's share is rounded up: what is given here divides without a rest.
        let bound = bytes / SHARD_COUNT * SHARD_COUNT;
        let options = OptionsBuilder::new()
            .shards(SHARD_COUNT)
            .estimated_items_capacity(bound / TYPICAL_ENTRY_BYTES)
            .weight_capacity(bound as u64)
            .build();
        // Fails only where one of these three is missing.
        let Ok(options) = options else { return Ok(None) };
        let lifecycle = DefaultLifecycle::default();
        Ok(Some(Arc::new(Self {
            entries: quick_cache::sync::Cache::with_options(
                options,
                EntryWeighter,
                DefaultHashBuilder::default(),
                lifecycle,
            ),
            in_flight: Mutex::default(),
            hasher: SipHasher24::new_with_key(&key),
        })))
    }

    /// The key of a text for a model.
    #[must_use]
    pub fn key(&self, model: &LoadedVersion, input: &Input) -> CacheKey {
        let mut hasher = self.hasher;
        hasher.write(&model.load_id().to_le_bytes());
        hasher.write(input.text.as_bytes());
        if let Some(SecondText { text, truncate_only_first: whole }) = &input.second {
            // A text has no such byte: two texts are never taken for one.
            hasher.write(&[0xff, u8::from(*whole)]);
            hasher.write(text.as_bytes());
        }
        CacheKey(hasher.finish128().as_u128())
    }

    /// The answer to a text, if there is one.
    #[must_use]
    pub fn get(&self, key: CacheKey) -> Option<Arc<ItemOutput>> {
        self.entries.get(&key)
    }

    /// Who runs a text that has no answer: somebody else, if that one's time ends no later than `deadline`.
    ///
    /// The queue serves the nearest deadline first, so whoever joins waits no longer than by itself.
    #[must_use]
    pub fn claim(self: &Arc<Self>, key: CacheKey, deadline: Instant) -> CacheClaim {
        let mut flights = self.in_flight.lock();
        if let Some(joined) = flights.join(key, deadline) {
            return CacheClaim::Follow(joined);
        }
        // Its run may have ended since the caller looked: answers are put in before a flight ends.
        if let Some(answer) = self.get(key) {
            return CacheClaim::Hit(answer);
        }
        let own = flights.start(key, deadline);
        CacheClaim::Compute(FlightLeader::new(Arc::clone(self), key, Some(own)))
    }

    /// To keep the answer of a run that nobody else may wait for.
    #[must_use]
    pub fn solo_leader(self: &Arc<Self>, key: CacheKey) -> FlightLeader {
        FlightLeader::new(Arc::clone(self), key, None)
    }

    /// Bytes and answers.
    #[must_use]
    pub fn size(&self) -> (u64, usize) {
        (self.entries.weight(), self.entries.len())
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key of the hash.
        f.debug_struct("Cache").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// Bytes that an answer takes.
#[derive(Debug, Clone)]
struct EntryWeighter;

impl Weighter<CacheKey, Arc<ItemOutput>> for EntryWeighter {
    fn weight(&self, _: &CacheKey, answer: &Arc<ItemOutput>) -> u64 {
        let decision = &answer.prediction;
        let labels = match &decision.outcome {
            HeadOutcome::Labels(labels) => allocated_bytes(size_of_val(labels.as_slice())),
            HeadOutcome::Label(_) | HeadOutcome::Score(_) => 0,
            HeadOutcome::Entities(found) => {
                let words = |entity: &Entity| {
                    allocated_bytes(entity.label.capacity()) + allocated_bytes(entity.text.capacity())
                };
                allocated_bytes(size_of_val(found.as_slice())) + found.iter().map(words).sum::<usize>()
            }
        };
        let scores = [&decision.probabilities, &decision.raw_scores]
            .map(|scores| allocated_bytes(size_of_val(scores.as_slice())));
        (MAX_SLOT_BYTES
            + allocated_bytes(ARC_COUNTER_BYTES + size_of::<ItemOutput>())
            + labels
            + scores.iter().sum::<usize>()) as u64
    }
}

/// What an allocator takes for so many bytes: it rounds up to one of eight sizes between two powers of two.
fn allocated_bytes(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + bytes / 8 + 8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timings::Timings;
    use crate::text::heads::HeadOutput;

    fn item_output(labels: usize) -> Arc<ItemOutput> {
        let scores = vec![0.5; labels];
        let decision = HeadOutput { outcome: HeadOutcome::Label(0), probabilities: scores.clone(), raw_scores: scores };
        Arc::new(ItemOutput {
            prediction: decision,
            tokens: 1,
            unknown_tokens: 0,
            truncated: false,
            timings: Timings::default(),
        })
    }

    #[test]
    fn cache_full_stays_within_byte_limit() {
        const BOUND: usize = 1 << 20;
        let cache = Cache::new(BOUND).unwrap().unwrap();
        for number in 0..20_000 {
            // Far apart, as hashes are.
            cache.entries.insert(CacheKey(number), item_output(2 + usize::try_from(number % 100).unwrap()));
            assert!(cache.size().0 <= BOUND as u64);
        }
        let (bytes, entries) = cache.size();
        assert!(bytes > BOUND as u64 * 9 / 10, "{bytes}");
        // What `PLACE` says of the table, with the keys that were displaced.
        let table = cache.entries.memory_used().total();
        assert!(table <= MAX_SLOT_BYTES * entries, "{table} bytes for {entries} answers");
    }

    #[test]
    fn cache_small_entries_weighed_with_slots() {
        const BOUND: usize = 1 << 20;
        let cache = Cache::new(BOUND).unwrap().unwrap();
        for number in 0..20_000 {
            cache.entries.insert(CacheKey(number), item_output(1));
        }
        let (table, entries) = (cache.entries.memory_used().total(), cache.size().1);
        assert!(table <= MAX_SLOT_BYTES * entries, "{table} bytes for {entries} answers");
    }

    #[test]
    fn cache_oversized_entry_not_stored() {
        let cache = Cache::new(1 << 20).unwrap().unwrap();
        cache.entries.insert(CacheKey(1), item_output(1 << 20));
        assert_eq!(cache.size(), (0, 0));
    }
}
