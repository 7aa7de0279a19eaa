//! One model's way from text to answer, without the graph in the middle.
//!
//! - `runs`: the runs that texts need
//! - `encoded`: a text ready for its graph, and a batch of them
//! - `probe_texts`: texts to measure and to check a model with
//! - `task`: what is done with a model's scores
//! - `token_range`: token ids that the graph has no row for

mod encoded;
mod probe_texts;
mod runs;
mod task;
mod token_range;

use super::activation::{Activation, Applied};
use super::entities::{Labelled, entities, joined};
use super::golden::Golden;
use super::heads::{Decision, Head, Outcome, OutputError, labelled, weighted_mean};
use super::input::Input;
use super::manifest::{Manifest, ManifestError, ProblemType, Task, check_labels};
use super::policy::{CharacterSet, TextPolicy};
use super::signature::{FixedAxes, GraphInput, Signature};
use super::tensors::PaddingSide;
use super::tokenizer::{TokenizeError, Tokenizer};
use crate::config::TextDefaults;
pub use encoded::{Batch, Content, Encoded, Places};
use token_range::TokenRange;

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
    fixed: FixedAxes,
    /// Ids that the graph can look up, where the tokenizer knows others.
    token_range: Option<TokenRange>,
    pairs: bool,
    output: String,
    applied: Option<Applied>,
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

impl Encoder {
    fn new(manifest: &Manifest, signature: &Signature, defaults: TextDefaults) -> Result<Self, ManifestError> {
        if matches!(signature.input, GraphInput::Texts { .. }) {
            return Ok(Self::Texts);
        }
        let on_overflow = manifest.options.on_overflow.unwrap_or(defaults.on_overflow);
        let mut tokenizer = Tokenizer::load(manifest, on_overflow)?;
        if signature.per_token {
            tokenizer = tokenizer.with_places();
        }
        Ok(Self::Tokens(Box::new(tokenizer)))
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
        if let Some(length) = signature.fixed.length {
            let limit = manifest.options.max_tokens.get_or_insert(length);
            *limit = (*limit).min(length);
        }
        let mut encoder = Encoder::new(manifest, signature, defaults)?;
        let labels = match manifest.labels.clone().or_else(|| signature.labels.clone()) {
            None if needs_labels(manifest, signature) => Some(manifest.default_labels(signature.width)?),
            named => named,
        };
        if let Some(labels) = &labels {
            check_labels(labels)?;
        }
        let head = task::head(manifest, signature, labels.as_deref())?;
        let labels = match labels {
            _ if head.is_number() => Vec::new(),
            Some(labels) => labels,
            None => manifest.default_labels(signature.width)?,
        };
        let policy = TextPolicy {
            markup: manifest.options.markup.unwrap_or(defaults.markup),
            allowed: manifest.options.allowed_characters.as_deref().map(CharacterSet::parse),
        };
        let mut token_range = None;
        let mut warnings = Vec::new();
        if let Encoder::Tokens(tokenizer) = &mut encoder {
            warnings.extend(tokenizer.warnings().iter().cloned());
            token_range = TokenRange::new(tokenizer, signature.embedding_rows)?;
            if signature.is_masked() && token_range.is_some_and(|range| tokenizer.padding().id >= range.rows) {
                // Any id does in a place that is masked.
                tokenizer.pad_with(0);
            }
        }
        warnings.extend(token_range.map(TokenRange::warning).into_iter().chain(manifest.config.warning()));
        let pipeline = Self {
            policy,
            encoder,
            head,
            labels,
            golden: manifest.golden.take(),
            pad_to: 1,
            fixed: signature.fixed,
            token_range,
            pairs: true,
            output: signature.output.clone(),
            applied: signature.applied,
            warnings,
        };
        let (expected, found) = (pipeline.head.width(pipeline.labels.len()), signature.width);
        if expected == found {
            return Ok(pipeline);
        }
        let (count, output) = (pipeline.labels.len(), &signature.output);
        let each = if signature.per_token { "token" } else { "text" };
        let reason = format!(
            "{count} labels need {expected} scores per {each}, but the graph gives {found} (output {output:?}): name {found} labels in id2label of config.json or in labels.json, or another output with output = \"NAME\" in model.toml"
        );
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
        self.pairs && !matches!(self.head, Head::Entities(..)) && self.tokenizer().is_some_and(Tokenizer::takes_pairs)
    }

    /// Runs the windows of a text one by one: rows of a batch change each other's scores.
    pub fn run_rows_alone(&mut self) {
        self.fixed.one_row = true;
    }

    /// Takes no more pairs: the graph fails on them.
    pub fn refuse_pairs(&mut self) {
        self.pairs = false;
    }

    /// The activation that the graph applies itself.
    #[must_use]
    pub fn graph_activation(&self) -> Option<Activation> {
        self.applied.map(|applied| applied.activation)
    }

    /// The same, and what of it the scores are.
    #[must_use]
    pub fn applied(&self) -> Option<Applied> {
        self.applied
    }

    /// Says that the graph applies an activation itself, or none, as its values show, and what is left for the server.
    pub fn set_graph_activation(&mut self, found: Option<Applied>, left: Activation) {
        self.applied = found;
        self.head = self.head.clone().with_activation(left);
    }

    /// Scores for each text, or for each token where tokens are labelled; 1 at least.
    #[must_use]
    pub fn score_width(&self) -> usize {
        self.head.width(self.labels.len()).max(1)
    }

    /// Name of the output that holds the scores.
    #[must_use]
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Axes of the inputs that the graph fixes.
    #[must_use]
    pub fn fixed(&self) -> FixedAxes {
        self.fixed
    }

    /// The largest id of the tokenizer, if it is not known which ids the graph can look up.
    #[must_use]
    pub fn largest_untried_id(&self) -> Option<u32> {
        match (&self.encoder, &self.token_range) {
            (Encoder::Tokens(tokenizer), None) => Some(tokenizer.largest_id()),
            _ => None,
        }
    }

    /// Says that the graph looks up the ids below `rows` only.
    ///
    /// # Errors
    /// [`ManifestError`] if a special token is not one of them.
    pub fn limit_ids(&mut self, rows: usize) -> Result<(), ManifestError> {
        if let Encoder::Tokens(tokenizer) = &self.encoder {
            self.token_range = TokenRange::new(tokenizer, Some(rows))?;
            self.warnings.extend(self.token_range.map(TokenRange::warning));
        }
        Ok(())
    }

    /// A row of one token of its own.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer cannot put special tokens around it.
    pub fn row_of_id(&self, id: u32) -> Result<Encoded, TokenizeError> {
        match &self.encoder {
            Encoder::Tokens(tokenizer) => Ok(probe_texts::one_row(tokenizer.row_of(vec![id])?)),
            Encoder::Texts => self.probe_text(1, 0),
        }
    }

    /// Prepares one text, or two for a model that takes pairs.
    ///
    /// # Errors
    /// [`TokenizeError`] if the text is too long for a model that refuses that, or if the tokenizer fails.
    pub fn encode(&self, input: impl Into<Input>) -> Result<Encoded, TokenizeError> {
        let Input { text, pair } = input.into();
        match &self.encoder {
            Encoder::Tokens(tokenizer) => {
                let mut tokens = match &pair {
                    None => tokenizer.encode(&text)?,
                    Some(second) => tokenizer.encode_pair(&text, second)?,
                };
                if let Some(range) = &self.token_range {
                    range.apply(&mut tokens)?;
                }
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
        if let Head::Entities(aggregation, activation) = self.head {
            let found = self.tokens_of(encoded, &rows, activation)?;
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

    /// The tokens of a text with their probabilities; `rows` has the scores of all tokens of a row of a run.
    fn tokens_of(
        &self,
        encoded: &Encoded,
        rows: &[Vec<f32>],
        activation: Activation,
    ) -> Result<Vec<Labelled>, OutputError> {
        let Some(places) = &encoded.places else { return Ok(Vec::new()) };
        let (labels, count) = (self.labels.len(), places.rows.len());
        if rows.len() != count {
            return Err(OutputError::Width { expected: count, found: rows.len() });
        }
        let windows = rows.iter().zip(&places.rows);
        let windows = windows.map(|(logits, places)| {
            let padding = self.padding_before(logits.len() / labels, places.len());
            labelled(logits, padding, places, (labels, activation))
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
        let Head::Entities(..) = self.head else { return row };
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
