//! Answers that were given before, so that the same text need not be run again.
//!
//! A key is a keyed hash of the text as the client sent it and of the model as it was loaded: a
//! model's policy, tokenizer and graph never change while it is loaded, so a text that has an
//! answer here would get the same one again, and a text that the policy refuses never has one.
//! What a request wants to see of an answer (`top_k`, raw scores) is chosen from it later and is
//! no part of the key. Texts themselves are not kept. The key of the hash is new in each process:
//! no client can make two texts that share an answer.

mod entry_weight;
mod key;
mod single_flight;

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use predictd_text::input::{Input, SecondText};
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::error::ItemError;
use super::item_output::{ItemOutput, ItemResult};
use entry_weight::EntryWeighter;
pub use key::CacheKey;
pub use single_flight::{FlightFollower, FlightOutcome};
use single_flight::{FlightHandle, FlightTable};

/// Parts of the cache that lock one by one. An answer larger than its part is not kept.
const SHARD_COUNT: usize = 16;
/// What an answer is guessed to weigh. Only the memory for keys of answers that were displaced depends on it.
const TYPICAL_ENTRY_BYTES: usize = 512;

/// What is to be done for a text.
pub enum CacheClaim {
    /// Nothing: it has an answer.
    Hit(Arc<ItemOutput>),
    /// Wait: it is being run for another request.
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

    /// The key of a text for a model, as it was loaded with the number `load_id`.
    #[must_use]
    pub fn key(&self, load_id: u64, input: &Input) -> CacheKey {
        let mut hasher = self.hasher;
        hasher.write(&load_id.to_le_bytes());
        hasher.write(input.text.as_bytes());
        if let Some(SecondText { text, truncate_only_first }) = &input.second {
            // A text has no such byte: two texts are never taken for one.
            hasher.write(&[0xff, u8::from(*truncate_only_first)]);
            hasher.write(text.as_bytes());
        }
        CacheKey(hasher.finish128().as_u128())
    }

    /// The answer to a text, or which request runs it: another one, if its time ends no later than `deadline`.
    ///
    /// The queue serves the nearest deadline first, so a request that joins waits no longer than by itself.
    #[must_use]
    pub fn claim(self: &Arc<Self>, key: CacheKey, deadline: Instant) -> CacheClaim {
        if let Some(answer) = self.entries.get(&key) {
            return CacheClaim::Hit(answer);
        }
        let mut flights = self.in_flight.lock();
        if let Some(follower) = flights.join(key, deadline) {
            return CacheClaim::Follow(follower);
        }
        // Its run may have ended meanwhile: answers are put in before a flight ends.
        if let Some(answer) = self.entries.get(&key) {
            return CacheClaim::Hit(answer);
        }
        let flight = Some(flights.start(key, deadline));
        CacheClaim::Compute(FlightLeader { cache: Arc::clone(self), key, flight })
    }

    /// To keep the answer of a run that no other request may wait for.
    #[must_use]
    pub fn solo_leader(self: &Arc<Self>, key: CacheKey) -> FlightLeader {
        FlightLeader { cache: Arc::clone(self), key, flight: None }
    }

    /// Bytes and answers.
    #[must_use]
    pub fn size(&self) -> (u64, usize) {
        (self.entries.weight(), self.entries.len())
    }
}

/// The right to run a text and to send its answer. It travels with the text to the worker.
///
/// So an answer is sent as soon as it is there, not when the rest of its batch is, and also if its own client left
/// during the run. If a leader is dropped before that, one of its followers becomes the next leader.
pub struct FlightLeader {
    cache: Arc<Cache>,
    key: CacheKey,
    flight: Option<FlightHandle>,
}

impl FlightLeader {
    /// Keeps the answer, and sends it to the followers.
    pub fn complete(mut self, answer: &ItemResult) {
        let outcome = match answer {
            Ok(answer) => {
                let answer = Arc::new(answer.clone());
                // First: a request that finds no flight any more must find the answer.
                self.cache.entries.insert(self.key, Arc::clone(&answer));
                FlightOutcome::Computed(answer)
            }
            // The followers may have more time.
            Err(ItemError::DeadlineExceeded) => FlightOutcome::Abandoned,
            Err(_) => FlightOutcome::Failed,
        };
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: FlightOutcome) {
        if let Some(flight) = self.flight.take() {
            self.cache.in_flight.lock().remove(self.key, &flight);
            flight.outcome_sender.send_replace(Some(outcome));
        }
    }
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        self.finish(FlightOutcome::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::entry_weight::MAX_SLOT_BYTES;
    use super::*;
    use crate::timings::Timings;
    use predictd_text::heads::{HeadOutcome, HeadOutput};

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
        // What `MAX_SLOT_BYTES` says of the table, with the keys that were displaced.
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
        let table = cache.entries.memory_used().total();
        let entries = cache.size().1;
        assert!(table <= MAX_SLOT_BYTES * entries, "{table} bytes for {entries} answers");
    }

    #[test]
    fn cache_oversized_entry_not_stored() {
        let cache = Cache::new(1 << 20).unwrap().unwrap();
        cache.entries.insert(CacheKey(1), item_output(1 << 20));
        assert_eq!(cache.size(), (0, 0));
    }
}
