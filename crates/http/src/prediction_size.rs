//! The most JSON that a prediction can have, before it is known.

use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::heads::Head;

use super::prediction::ResponseOptions;
use super::response_size::ItemJsonSize;

/// The JSON of a prediction or an error, but for its lists: keys, names, the prediction id.
const ITEM_JSON_BYTES: usize = 1_536;
/// A number in JSON, with what stands around it.
const NUMBER_JSON_BYTES: usize = 18;
/// What stands around a label and its score in JSON.
const LABEL_SCORE_JSON_BYTES: usize = 40;
/// What stands around the label and the text of an entity in JSON.
const ENTITY_JSON_BYTES: usize = 90;
/// Bytes of JSON that a byte of a text or a label becomes at most: `\u0001`.
const MAX_ESCAPE_FACTOR: usize = 6;
/// Most bytes of labels in a prediction id, in base64.
const MAX_RECEIPT_LABELS_BYTES: usize = 6 << 10;

/// What each prediction of a response shows.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFields<'a> {
    /// The labels of the request, for an answer with candidate labels.
    pub candidate_labels: Option<&'a [String]>,
    /// What the request wants to see.
    pub options: ResponseOptions,
}

/// The most JSON of a prediction of this model.
#[must_use]
pub fn prediction_json_size(model: &LoadedVersion, fields: ResponseFields<'_>) -> ItemJsonSize {
    let pipeline = model.pipeline();
    let finds_entities = matches!(pipeline.head(), Head::Entities(..));
    let labels = LabelLengths::from_labels(
        fields.candidate_labels.unwrap_or_else(|| pipeline.labels()),
        finds_entities || fields.options.top_k.is_some(),
    );
    let is_multi_label = matches!(pipeline.head(), Head::MultiLabel { .. });
    ItemJsonSize {
        fixed_bytes: ITEM_JSON_BYTES + labels.json_bytes(fields.options, is_multi_label),
        bytes_per_entity: ENTITY_JSON_BYTES + labels.max_bytes,
        bytes_per_text_byte: if finds_entities { MAX_ESCAPE_FACTOR } else { 0 },
    }
}

/// Lengths of the labels of an answer, in bytes.
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
    fn json_bytes(&self, options: ResponseOptions, is_multi_label: bool) -> usize {
        let probabilities = if options.probabilities { NUMBER_JSON_BYTES * self.count.max(2) } else { 0 };
        let top = options
            .top_k
            .map_or(0, |k| (k as usize).min(self.count.max(2)) * (self.max_bytes + LABEL_SCORE_JSON_BYTES));
        let chosen = if is_multi_label {
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
