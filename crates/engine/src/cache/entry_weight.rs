//! Bytes that an answer takes in the cache.

use std::sync::Arc;

use predictd_text::entities::Entity;
use predictd_text::heads::HeadOutcome;
use quick_cache::Weighter;

use super::key::CacheKey;
use crate::item_output::ItemOutput;

/// What the table around an answer costs at most: its places double when there are too few.
pub(super) const MAX_SLOT_BYTES: usize = 160;
/// The two counters of an `Arc`.
const ARC_COUNTER_BYTES: usize = 16;

/// Bytes that an answer takes.
#[derive(Clone)]
pub(super) struct EntryWeighter;

impl Weighter<CacheKey, Arc<ItemOutput>> for EntryWeighter {
    fn weight(&self, _: &CacheKey, answer: &Arc<ItemOutput>) -> u64 {
        let decision = &answer.prediction;
        let labels = match &decision.outcome {
            HeadOutcome::Labels(labels) => allocated_bytes(size_of_val(labels.as_slice())),
            HeadOutcome::Label(_) | HeadOutcome::Score(_) => 0,
            HeadOutcome::Entities(entities) => {
                allocated_bytes(size_of_val(entities.as_slice())) + entities.iter().map(string_bytes).sum::<usize>()
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

/// Bytes of the strings of an entity.
fn string_bytes(entity: &Entity) -> usize {
    allocated_bytes(entity.label.capacity()) + allocated_bytes(entity.text.capacity())
}

/// What an allocator takes for so many bytes: it rounds up to one of eight sizes between two powers of two.
fn allocated_bytes(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + bytes / 8 + 8 }
}
