//! One model's way from text to answer, without the graph in the middle.
//!
//! - `runs`: the runs that texts need
//! - `task`: what is done with a model's scores

mod runs;
mod task;

use super::entities::{Labelled, Place, entities, joined};
use super::golden::Golden;
use super::heads::{Decision, Head, Outcome, OutputError, labelled, weighted_mean};
use super::input::Input;
use super::manifest::{Manifest, ManifestError, ProblemType, Task, check_labels};
use super::policy::{CharacterSet, TextPolicy};
use super::signature::{GraphInput, ScoreKind, Signature};
use super::tensors::{PaddingSide, Shape, TokenBatch, TokenRow};
use super::tokenizer::{TokenizeError, Tokenizer};
use crate::config::TextDefaults;

/// Tokenizer, head and labels of one model.
#[derive(Debug)]
pub struct Pipeline {
    policy: TextPolicy,
    encoder: Encoder,
    head: Head,
    labels: Vec<String>,
    golden: Option<Golden>,
    /// Lengths of runs are rounded up to multiples of this.
    pad_to: usize,
    /// What an operator should know about the files.
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Encoder {
    /// The graph takes tokens.
    Tokens(Box<Tokenizer>),
    /// The graph takes the text itself.
    Texts,
}

/// A text ready for its graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What the graph sees.
    pub content: Content,
    /// Tokens the model sees; words where the graph takes the text itself.
    pub tokens: usize,
    /// Those of them that the tokenizer does not know.
    pub unknown: usize,
    /// True if part of the text was cut off.
    pub truncated: bool,
    /// Where its tokens stand, for a model that labels tokens.
    pub places: Option<Box<Places>>,
}

/// A text and where its tokens stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    text: String,
    /// One list per row; none for special tokens.
    rows: Vec<Vec<Option<Place>>>,
    /// Tokens at the end of a row that the next one begins with.
    overlap: usize,
}

impl Encoded {
    /// Length of its only row, 1 where the graph takes the text itself; nothing for a text of several windows.
    #[must_use]
    pub fn row_length(&self) -> Option<usize> {
        match &self.content {
            Content::Rows(rows) => match rows.as_slice() {
                [row] => Some(row.ids.len()),
                _ => None,
            },
            Content::Text(_) => Some(1),
        }
    }
}

/// What the graph sees of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One row per window.
    Rows(Vec<TokenRow>),
    /// The text itself.
    Text(String),
}

/// What one run of a graph takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// A transformer's tensors.
    Tokens(TokenBatch),
    /// A string tensor, one element per text.
    Texts(Vec<String>),
}

impl Batch {
    /// Its shape, padding included.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self {
            Self::Tokens(batch) => Shape { rows: batch.rows, length: batch.length },
            Self::Texts(texts) => Shape { rows: texts.len(), length: 1 },
        }
    }

    /// Tokens of its texts, without padding; texts, where the graph takes the text itself.
    #[must_use]
    pub fn tokens(&self) -> usize {
        match self {
            Self::Tokens(batch) => batch.attention_mask.iter().filter(|&&real| real == 1).count(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Rows of scores that the graph must give for this batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Tokens(batch) => batch.rows,
            Self::Texts(texts) => texts.len(),
        }
    }
}

impl Pipeline {
    /// Puts the parts of a model together and checks that they fit each other.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file that is missing or does not fit.
    pub fn assemble(
        manifest: &mut Manifest,
        signature: &Signature,
        defaults: TextDefaults,
    ) -> Result<Self, ManifestError> {
        let encoder = match &signature.input {
            GraphInput::Texts { .. } => Encoder::Texts,
            GraphInput::Tokens(_) => {
                let on_overflow = manifest.options.on_overflow.unwrap_or(defaults.on_overflow);
                let mut tokenizer = Tokenizer::load(manifest, on_overflow)?;
                if signature.scores == ScoreKind::TokenLogits {
                    tokenizer = tokenizer.with_places();
                }
                Encoder::Tokens(Box::new(tokenizer))
            }
        };
        let labels = match manifest.labels.clone().or_else(|| signature.labels.clone()) {
            None if needs_labels(manifest, signature) => Some(manifest.default_labels(signature.width)?),
            named => named,
        };
        if let Some(labels) = &labels {
            check_labels(labels)?;
        }
        let head = task::head(manifest, signature, labels.as_deref())?;
        let labels = match (labels, &head) {
            (_, Head::Regression | Head::Sigmoid) => Vec::new(),
            (Some(labels), _) => labels,
            (None, _) => manifest.default_labels(signature.width)?,
        };
        let policy = TextPolicy {
            markup: manifest.options.markup.unwrap_or(defaults.markup),
            allowed: manifest.options.allowed_characters.as_deref().map(CharacterSet::parse),
        };
        let of_tokenizer = match &encoder {
            Encoder::Tokens(tokenizer) => tokenizer.warnings(),
            Encoder::Texts => &[],
        };
        let warnings = of_tokenizer.iter().cloned().chain(manifest.config.warning()).collect();
        let pipeline = Self { policy, encoder, head, labels, golden: manifest.golden.take(), pad_to: 1, warnings };
        let (expected, found) = (pipeline.head.width(pipeline.labels.len()), signature.width);
        if expected == found {
            return Ok(pipeline);
        }
        let reason =
            format!("{} labels need {expected} scores per text, but the graph gives {found}", pipeline.labels.len());
        Err(ManifestError::new("labels", reason))
    }

    /// Labels in score order; none for regression.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What an operator should know about the files: one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What a text may hold.
    #[must_use]
    pub fn policy(&self) -> &TextPolicy {
        &self.policy
    }

    /// What is done with the scores.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Examples that the model must reproduce.
    #[must_use]
    pub fn golden(&self) -> Option<&Golden> {
        self.golden.as_ref()
    }

    /// The tokenizer, if the graph does not take the text itself.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match &self.encoder {
            Encoder::Tokens(tokenizer) => Some(tokenizer),
            Encoder::Texts => None,
        }
    }

    /// True if two texts can be asked about.
    #[must_use]
    pub fn takes_pairs(&self) -> bool {
        !matches!(self.head, Head::Entities(_)) && self.tokenizer().is_some_and(Tokenizer::takes_pairs)
    }

    /// Prepares one text, or two for a model that takes pairs.
    ///
    /// # Errors
    /// [`TokenizeError`] if the text is too long for a model that refuses that, or if the tokenizer fails.
    pub fn encode(&self, input: impl Into<Input>) -> Result<Encoded, TokenizeError> {
        let Input { text, pair } = input.into();
        match &self.encoder {
            Encoder::Tokens(tokenizer) => {
                let tokens = match &pair {
                    None => tokenizer.encode(&text)?,
                    Some(second) => tokenizer.encode_pair(&text, second)?,
                };
                let (rows, overlap) = (tokens.places, tokens.overlap);
                let places = (!rows.is_empty()).then(|| Box::new(Places { text, rows, overlap }));
                let content = Content::Rows(tokens.rows);
                let (unknown, truncated) = (tokens.unknown, tokens.truncated);
                Ok(Encoded { content, tokens: tokens.count, unknown, truncated, places })
            }
            Encoder::Texts => {
                let tokens = text.split_whitespace().count();
                Ok(Encoded { content: Content::Text(text), tokens, unknown: 0, truncated: false, places: None })
            }
        }
    }

    /// A short text to warm up with: of one token where the tokenizer knows nothing of it.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails on a short text.
    pub fn sample_text(&self) -> Result<Encoded, TokenizeError> {
        match self.encode("one short text".to_owned()) {
            Err(TokenizeError::NoTokens) => {
                let content = Content::Rows(vec![TokenRow { ids: vec![0], type_ids: vec![0] }]);
                Ok(Encoded { content, tokens: 1, unknown: 0, truncated: false, places: None })
            }
            encoded => encoded,
        }
    }

    /// A short text of exactly `length` tokens, to measure runs with. Graphs that take the text itself get the same for
    /// any length.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails on a short text.
    pub fn sample(&self, length: usize) -> Result<Encoded, TokenizeError> {
        let mut encoded = self.sample_text()?;
        if let Content::Rows(rows) = &mut encoded.content {
            rows.truncate(1);
            for row in rows {
                row.ids = repeated(&row.ids, length);
                row.type_ids = repeated(&row.type_ids, length);
            }
            encoded.tokens = length;
        }
        Ok(encoded)
    }

    /// Turns the scores of one text, one row per window, and the graph's own choice into its answer.
    ///
    /// # Errors
    /// [`OutputError`] if the scores cannot be an answer.
    pub fn decide(
        &self,
        encoded: &Encoded,
        rows: Vec<Vec<f32>>,
        chosen: Option<usize>,
    ) -> Result<Decision, OutputError> {
        if let Head::Entities(aggregation) = self.head {
            let found = self.tokens_of(encoded, &rows)?;
            let text = encoded.places.as_ref().map_or("", |places| &places.text);
            let outcome = Outcome::Entities(entities(text, &found, &self.labels, aggregation));
            return Ok(Decision { outcome, probabilities: Vec::new(), raw: Vec::new() });
        }
        let weights = match &encoded.content {
            Content::Rows(rows) => rows.iter().map(|row| row.ids.len()).collect(),
            Content::Text(_) => vec![1],
        };
        let windows: Vec<(Vec<f32>, usize)> = rows.into_iter().zip(weights).collect();
        self.head.decide(weighted_mean(&windows), chosen, self.labels.len())
    }

    /// The tokens of a text with their probabilities; `rows` has the logits of all tokens of a row of a run.
    fn tokens_of(&self, encoded: &Encoded, rows: &[Vec<f32>]) -> Result<Vec<Labelled>, OutputError> {
        let Some(places) = &encoded.places else { return Ok(Vec::new()) };
        let (labels, count) = (self.labels.len(), places.rows.len());
        if rows.len() != count {
            return Err(OutputError::Width { expected: count, found: rows.len() });
        }
        let windows = rows.iter().zip(&places.rows);
        let windows = windows.map(|(logits, places)| {
            labelled(logits, self.padding_before(logits.len() / labels, places.len()), places, labels)
        });
        Ok(joined(windows.collect::<Result<_, _>>()?, places.overlap))
    }

    /// Padding before a row's own tokens, where a run was so long.
    fn padding_before(&self, length: usize, own: usize) -> usize {
        match self.tokenizer().map(|tokenizer| tokenizer.padding().side) {
            Some(PaddingSide::Left) => length.saturating_sub(own),
            Some(PaddingSide::Right) | None => 0,
        }
    }

    /// The scores of a text's own tokens in its row of a run: all of them where scores are per text.
    #[must_use]
    pub fn own_scores<'a>(&self, row: &'a [f32], own: usize) -> &'a [f32] {
        let Head::Entities(_) = self.head else { return row };
        let labels = self.labels.len();
        let start = self.padding_before(row.len() / labels.max(1), own) * labels;
        row.get(start..start + own * labels).unwrap_or_default()
    }
}

/// True if an answer names labels, so that a model whose files name none has those that `AutoConfig` gives it.
fn needs_labels(manifest: &Manifest, signature: &Signature) -> bool {
    let several = match manifest.options.task {
        Some(task) => task == Task::MultiLabel,
        None => manifest.config.problem_type() == Some(ProblemType::MultiLabelClassification),
    };
    signature.width > 1 || several
}

/// What stands between the first and the last, again and again: a row has each special token where it belongs, as some
/// graphs look for the last one.
fn repeated<T: Copy>(values: &[T], length: usize) -> Vec<T> {
    match values {
        [first, inner @ .., last] if !inner.is_empty() && length > 1 => {
            let inner = inner.iter().cycle().take(length - 2);
            std::iter::once(first).chain(inner).chain(std::iter::once(last)).copied().collect()
        }
        _ => values.iter().copied().cycle().take(length).collect(),
    }
}
