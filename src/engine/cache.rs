//! Answers that were given before, so that the same text need not be run again.
//!
//! A key is a keyed hash of the text as the client sent it and of the model as it was loaded: a
//! model's policy, tokenizer and graph never change while it is loaded, so a text that has an
//! answer here would get the same one again, and a text that the policy refuses never has one.
//! What a request wants to see of an answer (`top_k`, raw scores) is chosen from it later and is
//! no part of the key. Texts themselves are not kept. The key of the hash is new in each process:
//! nobody can make two texts that share an answer.

mod flight;

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::Answer;
use super::model::Model;
use crate::text::entities::Entity;
use crate::text::heads::Outcome;
use crate::text::input::{Input, Pair};
use flight::Flights;
pub use flight::{End, Joined, Lead};

/// Parts of the cache that lock one by one. An answer larger than its part is not kept.
const SHARDS: usize = 16;
/// What an answer is guessed to weigh. Only the memory for keys of answers that were displaced depends on it.
const USUAL_WEIGHT: usize = 512;
/// What the table around an answer costs at most: its places double when there are too few.
const PLACE: usize = 160;
/// The two counters of an `Arc`.
const COUNTERS: usize = 16;

/// Names an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

/// What is to be done for a text that has no answer yet.
#[derive(Debug)]
pub enum Claim {
    /// Nothing: it has one meanwhile.
    Known(Arc<Answer>),
    /// Wait: it is being run for somebody else.
    Join(Joined),
    /// Run it; others may wait for it.
    Lead(Lead),
}

/// Answers by key, bounded in bytes, and the texts that are being run.
pub struct Cache {
    answers: quick_cache::sync::Cache<Key, Arc<Answer>, Weight>,
    flights: Mutex<Flights>,
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
        let bound = bytes / SHARDS * SHARDS;
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(bound / USUAL_WEIGHT)
            .weight_capacity(bound as u64)
            .build();
        // Fails only where one of these three is missing.
        let Ok(options) = options else { return Ok(None) };
        let lifecycle = DefaultLifecycle::default();
        Ok(Some(Arc::new(Self {
            answers: quick_cache::sync::Cache::with_options(options, Weight, DefaultHashBuilder::default(), lifecycle),
            flights: Mutex::default(),
            hasher: SipHasher24::new_with_key(&key),
        })))
    }

    /// The key of a text for a model.
    #[must_use]
    pub fn key(&self, model: &Model, input: &Input) -> Key {
        let mut hasher = self.hasher;
        hasher.write(&model.load_number().to_le_bytes());
        hasher.write(input.text.as_bytes());
        if let Some(Pair { text, whole }) = &input.pair {
            // A text has no such byte: two texts are never taken for one.
            hasher.write(&[0xff, u8::from(*whole)]);
            hasher.write(text.as_bytes());
        }
        Key(hasher.finish128().as_u128())
    }

    /// The answer to a text, if there is one.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Arc<Answer>> {
        self.answers.get(&key)
    }

    /// Who runs a text that has no answer: somebody else, if that one's time ends no later than `deadline`.
    ///
    /// The queue serves the nearest deadline first, so whoever joins waits no longer than by itself.
    #[must_use]
    pub fn claim(self: &Arc<Self>, key: Key, deadline: Instant) -> Claim {
        let mut flights = self.flights.lock();
        if let Some(joined) = flights.join(key, deadline) {
            return Claim::Join(joined);
        }
        // Its run may have ended since the caller looked: answers are put in before a flight ends.
        if let Some(answer) = self.get(key) {
            return Claim::Known(answer);
        }
        let own = flights.begin(key, deadline);
        Claim::Lead(Lead::new(Arc::clone(self), key, Some(own)))
    }

    /// To keep the answer of a run that nobody else may wait for.
    #[must_use]
    pub fn keeper(self: &Arc<Self>, key: Key) -> Lead {
        Lead::new(Arc::clone(self), key, None)
    }

    /// Bytes and answers.
    #[must_use]
    pub fn size(&self) -> (u64, usize) {
        (self.answers.weight(), self.answers.len())
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
struct Weight;

impl Weighter<Key, Arc<Answer>> for Weight {
    fn weight(&self, _: &Key, answer: &Arc<Answer>) -> u64 {
        let decision = &answer.decision;
        let labels = match &decision.outcome {
            Outcome::Labels(labels) => allocated(size_of_val(labels.as_slice())),
            Outcome::Label(_) | Outcome::Score(_) => 0,
            Outcome::Entities(found) => {
                let words = |entity: &Entity| allocated(entity.label.capacity()) + allocated(entity.text.capacity());
                allocated(size_of_val(found.as_slice())) + found.iter().map(words).sum::<usize>()
            }
        };
        let scores = [&decision.probabilities, &decision.raw].map(|scores| allocated(size_of_val(scores.as_slice())));
        (PLACE + allocated(COUNTERS + size_of::<Answer>()) + labels + scores.iter().sum::<usize>()) as u64
    }
}

/// What an allocator takes for so many bytes: it rounds up to one of eight sizes between two powers of two.
fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + bytes / 8 + 8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spent::Spent;
    use crate::text::heads::Decision;

    fn answer(labels: usize) -> Arc<Answer> {
        let scores = vec![0.5; labels];
        let decision = Decision { outcome: Outcome::Label(0), probabilities: scores.clone(), raw: scores };
        Arc::new(Answer { decision, tokens: 1, unknown: 0, truncated: false, spent: Spent::default() })
    }

    #[test]
    fn a_full_cache_stays_within_its_bound() {
        const BOUND: usize = 1 << 20;
        let cache = Cache::new(BOUND).unwrap().unwrap();
        for number in 0..20_000 {
            // Far apart, as hashes are.
            cache.answers.insert(Key(number), answer(2 + usize::try_from(number % 100).unwrap()));
            assert!(cache.size().0 <= BOUND as u64);
        }
        let (bytes, entries) = cache.size();
        assert!(bytes > BOUND as u64 * 9 / 10, "{bytes}");
        // What `PLACE` says of the table, with the keys that were displaced.
        let table = cache.answers.memory_used().total();
        assert!(table <= PLACE * entries, "{table} bytes for {entries} answers");
    }

    #[test]
    fn small_answers_are_weighed_with_their_places() {
        const BOUND: usize = 1 << 20;
        let cache = Cache::new(BOUND).unwrap().unwrap();
        for number in 0..20_000 {
            cache.answers.insert(Key(number), answer(1));
        }
        let (table, entries) = (cache.answers.memory_used().total(), cache.size().1);
        assert!(table <= PLACE * entries, "{table} bytes for {entries} answers");
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_kept() {
        let cache = Cache::new(1 << 20).unwrap().unwrap();
        cache.answers.insert(Key(1), answer(1 << 20));
        assert_eq!(cache.size(), (0, 0));
    }
}
