//! The most memory that the response to a prediction request can need, before it is known.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_inference::entity_memory::{max_entities, max_entity_bytes};
use predictd_text::heads::Head;

use super::buffer_sizes::{MAX_BUFFER_BYTES, PART_BYTES};
use super::candidate_labels::MAX_LABELS;
use super::prediction::ResponseOptions;

/// An answer in memory, but for its scores and entities: numbers, places in lists, an error in its place.
const ANSWER_BYTES: usize = 512;
/// A score of an answer in memory: the model's own, and its probability.
const SCORE_BYTES: usize = 8;
/// The place of a chosen label in the list of a multi-label answer in memory.
const CHOSEN_LABEL_BYTES: usize = size_of::<usize>();
/// The JSON of an answer or an error, but for its lists: keys, names, the prediction id.
const ITEM_JSON_BYTES: usize = 1_536;
/// A number in JSON, with what stands around it.
const NUMBER_JSON_BYTES: usize = 18;
/// What stands around a label and its score in JSON.
const LABEL_SCORE_JSON_BYTES: usize = 40;
/// What stands around the label and the text of an entity in JSON.
const ENTITY_JSON_BYTES: usize = 90;
/// Bytes of JSON that a byte of a text or a label becomes at most: `\u0001`.
const MAX_ESCAPE_FACTOR: usize = 6;
/// Bytes of a response that the transport holds while it writes: its own buffer, and the part that comes on top.
const TRANSPORT_BYTES: usize = MAX_BUFFER_BYTES + PART_BYTES;
/// Most bytes of labels in a prediction id, in base64.
const MAX_RECEIPT_LABELS_BYTES: usize = 6 << 10;

/// What each answer of a response shows.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFields<'a> {
    /// The labels of the request, for an answer with candidate labels.
    pub candidate_labels: Option<&'a [String]>,
    /// What the request wants to see.
    pub options: ResponseOptions,
}

/// The most that a response can need, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseSize {
    /// Memory, from the first answer to the last byte written.
    pub memory_bytes: usize,
    /// The part of `memory` that is needed even if no entity is found.
    pub memory_bytes_without_entities: usize,
    /// JSON.
    pub json_bytes: usize,
}

impl ResponseSize {
    /// The most for texts of these lengths in bytes, whichever of the models answers. Nothing if there is no model.
    pub fn max_for_models<'a>(
        models: impl Iterator<Item = &'a Arc<LoadedVersion>>,
        texts: &(impl Iterator<Item = usize> + Clone),
        fields: ResponseFields<'_>,
    ) -> Self {
        let sizes = models.map(|model| Self::max_for_model(model, texts.clone(), fields));
        sizes.fold(Self::default(), |a, b| Self {
            memory_bytes: a.memory_bytes.max(b.memory_bytes),
            memory_bytes_without_entities: a.memory_bytes_without_entities.max(b.memory_bytes_without_entities),
            json_bytes: a.json_bytes.max(b.json_bytes),
        })
    }

    fn max_for_model(model: &LoadedVersion, texts: impl Iterator<Item = usize>, fields: ResponseFields<'_>) -> Self {
        let pipeline = model.pipeline();
        let own = pipeline.labels();
        let finds_entities = matches!(pipeline.head(), Head::Entities(..));
        let labels = LabelLengths::from_labels(
            fields.candidate_labels.unwrap_or(own),
            finds_entities || fields.options.top_k.is_some(),
        );
        let many = matches!(pipeline.head(), Head::MultiLabel { .. });
        // A request with labels asks the model once for each of them.
        let decisions = fields.candidate_labels.map_or(1, |labels| labels.len().min(MAX_LABELS));
        let chosen = if many { CHOSEN_LABEL_BYTES * own.len() } else { 0 };
        let answer = decisions * (ANSWER_BYTES + SCORE_BYTES * own.len().max(2) + chosen);
        let item_without_entities = ITEM_JSON_BYTES + labels.json_bytes(fields, many);
        let mut answers = 0;
        let mut entities = 0;
        let mut json = 0;
        let mut largest_item = item_without_entities;
        for bytes in texts {
            let entities_json = if finds_entities {
                max_entities(model, bytes) * (ENTITY_JSON_BYTES + labels.max_bytes) + MAX_ESCAPE_FACTOR * bytes
            } else {
                0
            };
            let item = item_without_entities + entities_json;
            answers += answer;
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

/// What is to be known of a model's labels.
struct LabelLengths {
    count: usize,
    /// The longest, in JSON.
    max_bytes: usize,
    /// All of them, in JSON.
    total_bytes: usize,
}

impl LabelLengths {
    /// `escaped`: their lengths as JSON, where the JSON's constants leave no room for escapes.
    fn from_labels(labels: &[String], escaped: bool) -> Self {
        let lengths = labels.iter().map(|label| if escaped { escaped_json_bytes(label) } else { label.len() });
        let (longest, all) = lengths.fold((0, 0), |(longest, all), length| (length.max(longest), all + length));
        Self { count: labels.len(), max_bytes: longest, total_bytes: all }
    }

    /// The lists of an answer in JSON.
    fn json_bytes(&self, fields: ResponseFields<'_>, many: bool) -> usize {
        let probabilities = if fields.options.probabilities { NUMBER_JSON_BYTES * self.count.max(2) } else { 0 };
        let top = fields
            .options
            .top_k
            .map_or(0, |k| (k as usize).min(self.count.max(2)) * (self.max_bytes + LABEL_SCORE_JSON_BYTES));
        let chosen = if many {
            MAX_ESCAPE_FACTOR * self.total_bytes
                + (NUMBER_JSON_BYTES + 3) * self.count
                + (2 * self.total_bytes).min(MAX_RECEIPT_LABELS_BYTES)
        } else {
            2 * MAX_ESCAPE_FACTOR * self.max_bytes
        };
        probabilities + top + chosen
    }
}

/// Bytes of a label in JSON.
fn escaped_json_bytes(label: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => MAX_ESCAPE_FACTOR,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    label.bytes().map(escaped).sum()
}
