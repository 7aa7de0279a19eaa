//! The most memory that the response to a prediction request can need, before it is known, in any dialect.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_inference::entity_memory::{max_entities, max_entity_bytes};
use predictd_text::heads::Head;

use super::buffer_sizes::{MAX_BUFFER_BYTES, PART_BYTES};

/// An answer in memory, but for its scores and entities: numbers, places in lists, an error in its place.
const ANSWER_BYTES: usize = 512;
/// A score of an answer in memory: the model's own, and its probability.
const SCORE_BYTES: usize = 8;
/// The place of a chosen label in the list of a multi-label answer in memory.
const CHOSEN_LABEL_BYTES: usize = size_of::<usize>();
/// Bytes of a response that the transport holds while it writes: its own buffer, and the part that comes on top.
const TRANSPORT_BYTES: usize = MAX_BUFFER_BYTES + PART_BYTES;

/// The most JSON of one answer in a dialect, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ItemJsonSize {
    /// Of an answer or an error without entities.
    pub fixed_bytes: usize,
    /// More for each entity, without its text.
    pub bytes_per_entity: usize,
    /// More for each byte of the text.
    pub bytes_per_text_byte: usize,
}

/// The most that a response can need, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseSize {
    /// Memory, from the first answer to the last byte written.
    pub memory_bytes: usize,
    /// The part of `memory_bytes` that is needed even if no entity is found.
    pub memory_bytes_without_entities: usize,
    /// JSON.
    pub json_bytes: usize,
}

impl ResponseSize {
    /// The most for texts of these lengths in bytes, whichever of the models answers. Nothing if there is no model.
    ///
    /// `items_per_text`: how often the model runs for a text, once per candidate label. `json_size`: the most JSON of an
    /// answer of a model.
    pub fn max_for_models<'a>(
        models: impl Iterator<Item = &'a Arc<LoadedVersion>>,
        texts: &(impl Iterator<Item = usize> + Clone),
        items_per_text: usize,
        json_size: impl Fn(&LoadedVersion) -> ItemJsonSize,
    ) -> Self {
        let sizes = models.map(|model| Self::max_for_model(model, texts.clone(), items_per_text, json_size(model)));
        sizes.fold(Self::default(), |a, b| Self {
            memory_bytes: a.memory_bytes.max(b.memory_bytes),
            memory_bytes_without_entities: a.memory_bytes_without_entities.max(b.memory_bytes_without_entities),
            json_bytes: a.json_bytes.max(b.json_bytes),
        })
    }

    fn max_for_model(
        model: &LoadedVersion,
        texts: impl Iterator<Item = usize>,
        items_per_text: usize,
        json_size: ItemJsonSize,
    ) -> Self {
        let pipeline = model.pipeline();
        let label_count = pipeline.labels().len();
        let is_multi_label = matches!(pipeline.head(), Head::MultiLabel { .. });
        let chosen_bytes = if is_multi_label { CHOSEN_LABEL_BYTES * label_count } else { 0 };
        let answer_bytes = items_per_text * (ANSWER_BYTES + SCORE_BYTES * label_count.max(2) + chosen_bytes);
        let mut answers = 0;
        let mut entities = 0;
        let mut json = 0;
        let mut largest_item = json_size.fixed_bytes;
        for bytes in texts {
            let item = json_size.fixed_bytes
                + max_entities(model, bytes) * json_size.bytes_per_entity
                + bytes * json_size.bytes_per_text_byte;
            answers += answer_bytes;
            entities += max_entity_bytes(model, bytes);
            json += item;
            largest_item = largest_item.max(item);
        }
        // Two of the largest items: one as it is made, one as JSON.
        let without_entities = answers + json.min(TRANSPORT_BYTES + PART_BYTES) + 2 * largest_item;
        Self {
            memory_bytes: without_entities + entities,
            memory_bytes_without_entities: without_entities,
            json_bytes: json,
        }
    }
}
