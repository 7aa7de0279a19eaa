//! The most memory that the response to a prediction request can need, before it is known.

use super::arms::Route;
use super::response_stream::PART;
use super::zero_shot::MAX_LABELS;
use crate::config::OnOverflow;
use crate::engine::Answer;
use crate::engine::model::Model;
use crate::text::entities::Entity;
use crate::text::heads::{Head, Outcome};
use crate::text::tokenizer::Tokenizer;

/// An answer in memory, but for its scores and entities: numbers, places in lists, an error in its place.
const ANSWER: usize = 512;
/// A score of an answer in memory: the model's own, and its probability.
const SCORE: usize = 8;
/// The place of a chosen label in the list of a multi-label answer in memory.
const CHOSEN: usize = size_of::<usize>();
/// The JSON of an answer or an error, but for its lists: keys, names, the prediction id.
const ITEM: usize = 1_536;
/// A number in JSON, with what stands around it.
const NUMBER: usize = 18;
/// What stands around a label and its score in JSON.
const LABEL_SCORE: usize = 40;
/// What stands around the label and the text of an entity in JSON.
const ENTITY: usize = 90;
/// Bytes of JSON that a byte of a text or a label becomes at most: `\u0001`.
const ESCAPED: usize = 6;
/// Bytes of a response that the transport holds while it writes: its own buffer, and the part that comes on top.
const TRANSPORT: usize = super::connection::BUFFER + PART;
/// Most bytes of labels in a prediction id, in base64.
const LABELS_OF_ID: usize = 6 << 10;

/// What a request wants to see of each answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseFields<'a> {
    /// Labels of the request's own.
    pub labels: Option<&'a [String]>,
    /// One score per label.
    pub probabilities: bool,
    /// The best labels, this many.
    pub top_k: Option<usize>,
}

/// The most that a response can need, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseSize {
    /// Memory, from the first answer to the last byte written.
    pub memory: usize,
    /// The part of `memory` that is needed even if no entity is found.
    pub without_entities: usize,
    /// JSON.
    pub json: usize,
}

impl ResponseSize {
    /// The most for texts of these lengths in bytes, whichever version answers. Nothing if none is there that could.
    pub fn of(route: &Route, texts: &(impl Iterator<Item = usize> + Clone), shown: ResponseFields<'_>) -> Self {
        let sizes = route.models().map(|model| Self::of_model(model, texts.clone(), shown));
        let largest = sizes.reduce(|a, b| Self {
            memory: a.memory.max(b.memory),
            without_entities: a.without_entities.max(b.without_entities),
            json: a.json.max(b.json),
        });
        largest.unwrap_or(Self { memory: 0, without_entities: 0, json: 0 })
    }

    fn of_model(model: &Model, texts: impl Iterator<Item = usize>, shown: ResponseFields<'_>) -> Self {
        let pipeline = model.pipeline();
        let own = pipeline.labels();
        let finds_entities = matches!(pipeline.head(), Head::Entities(..));
        let labels = Labels::of(shown.labels.unwrap_or(own), finds_entities || shown.top_k.is_some());
        let many = matches!(pipeline.head(), Head::MultiLabel { .. });
        // A request with labels asks the model once for each of them.
        let decisions = shown.labels.map_or(1, |labels| labels.len().min(MAX_LABELS));
        let chosen = if many { CHOSEN * own.len() } else { 0 };
        let answer = decisions * (ANSWER + SCORE * own.len().max(2) + chosen);
        let item = ITEM + labels.json(shown, many);
        let mut answers = 0;
        let mut entities = 0;
        let mut json = 0;
        let mut largest = item;
        for bytes in texts {
            let found = most_entities(model, bytes);
            let written = if finds_entities { found * (ENTITY + labels.longest) + ESCAPED * bytes } else { 0 };
            answers += answer;
            entities += most_entity_bytes(model, bytes);
            json += item + written;
            largest = largest.max(item + written);
        }
        // Two of the largest items: one as it is made, one as JSON.
        let without_entities = answers + json.min(TRANSPORT + PART) + 2 * largest;
        Self { memory: without_entities + entities, without_entities, json }
    }
}

/// The most entities in a text of so many bytes: one for each token, of which windows let a text have many times more.
fn most_entities(model: &Model, bytes: usize) -> usize {
    let pipeline = model.pipeline();
    if !matches!(pipeline.head(), Head::Entities(..)) {
        return 0;
    }
    let tokens = |tokenizer: &Tokenizer| match tokenizer.on_overflow() {
        OnOverflow::Window => tokenizer.max_tokens().saturating_mul(Tokenizer::MAX_WINDOWS),
        OnOverflow::Error | OnOverflow::Truncate => tokenizer.max_tokens(),
    };
    bytes.min(pipeline.tokenizer().map_or(usize::MAX, tokens))
}

/// The most memory for the entities of a text of so many bytes, in bytes.
#[must_use]
pub fn most_entity_bytes(model: &Model, bytes: usize) -> usize {
    let found = most_entities(model, bytes);
    let longest = model.pipeline().labels().iter().map(String::len).max().unwrap_or_default();
    found * (size_of::<Entity>() + longest) + found.min(1) * bytes
}

/// Memory for the entities of an answer, in bytes.
#[must_use]
pub fn entity_bytes(answer: &Answer) -> usize {
    match &answer.decision.outcome {
        Outcome::Entities(found) => {
            found.iter().map(|entity| size_of::<Entity>() + entity.label.len() + entity.text.len()).sum()
        }
        Outcome::Label(_) | Outcome::Labels(_) | Outcome::Score(_) => 0,
    }
}

/// What is to be known of a model's labels.
struct Labels {
    count: usize,
    /// The longest, in JSON.
    longest: usize,
    /// All of them, in JSON.
    all: usize,
}

impl Labels {
    /// `escaped`: their lengths as JSON, where the JSON's constants leave no room for escapes.
    fn of(labels: &[String], escaped: bool) -> Self {
        let lengths = labels.iter().map(|label| if escaped { in_json(label) } else { label.len() });
        let (longest, all) = lengths.fold((0, 0), |(longest, all), length| (length.max(longest), all + length));
        Self { count: labels.len(), longest, all }
    }

    /// The lists of an answer in JSON.
    fn json(&self, shown: ResponseFields<'_>, many: bool) -> usize {
        let probabilities = if shown.probabilities { NUMBER * self.count.max(2) } else { 0 };
        let top = shown.top_k.map_or(0, |k| k.min(self.count.max(2)) * (self.longest + LABEL_SCORE));
        let chosen = if many {
            ESCAPED * self.all + (NUMBER + 3) * self.count + (2 * self.all).min(LABELS_OF_ID)
        } else {
            2 * ESCAPED * self.longest
        };
        probabilities + top + chosen
    }
}

/// Bytes of a label in JSON.
fn in_json(label: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => ESCAPED,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    label.bytes().map(escaped).sum()
}
