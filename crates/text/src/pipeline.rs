//! One model's way from text to answer, without the graph in the middle.
//!
//! - `batches`: the runs that texts need
//! - `encoded_input`: a text ready for its graph, and a batch of them
//! - `probe_texts`: texts to measure and to check a model with
//! - `head_selection`: what is done with a model's scores
//! - `token_range`: token ids that the graph has no row for

mod batches;
mod encoded_input;
mod head_selection;
mod probe_texts;
mod token_range;

use super::activation::{Activation, AppliedActivation};
use super::entities::{ScoredToken, extract_entities, merge_windows};
use super::golden::GoldenSet;
use super::heads::{Head, HeadOutcome, HeadOutput, OutputError, score_tokens, weighted_mean};
use super::input::Input;
use super::manifest::{Manifest, ManifestError, ProblemType, check_labels};
use super::policy::{CharacterSet, TextPolicy};
use super::signature::{FixedAxes, GraphInput, Signature};
use super::tensors::PaddingSide;
use super::tokenizer::{TokenizeError, TokenizedText, Tokenizer};
use crate::text_policies::TextPolicies;
pub use encoded_input::{Batch, EncodedContent, EncodedInput, TokenSpans};
use token_range::TokenRange;

/// Tokenizer, head and labels of one model.
pub struct Pipeline {
    policy: TextPolicy,
    /// None where the graph takes the text itself.
    tokenizer: Option<Tokenizer>,
    head: Head,
    labels: Vec<String>,
    golden: Option<GoldenSet>,
    /// Lengths of runs are rounded up to multiples of this.
    pad_multiple: usize,
    fixed_axes: FixedAxes,
    /// Ids that the graph can look up, where the tokenizer knows others.
    token_range: Option<TokenRange>,
    pairs_enabled: bool,
    output_name: String,
    applied_activation: Option<AppliedActivation>,
    /// What an operator should know about the files: one sentence each.
    pub warnings: Vec<String>,
}

impl Pipeline {
    /// Puts the parts of a model together and checks that they fit each other.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file that is missing or does not fit.
    pub fn from_manifest(
        manifest: &mut Manifest,
        signature: &Signature,
        defaults: TextPolicies,
    ) -> Result<Self, ManifestError> {
        if let Some(length) = signature.fixed_axes.length {
            let limit = manifest.options.max_tokens.get_or_insert(length);
            *limit = (*limit).min(length);
        }
        let mut tokenizer = load_tokenizer(manifest, signature, defaults)?;
        let labels = match manifest.labels.clone().or_else(|| signature.labels.clone()) {
            None if has_labels_in_answer(manifest, signature) => Some(manifest.default_labels(signature.width)?),
            named => named,
        };
        if let Some(labels) = &labels {
            check_labels(labels)?;
        }
        let head = head_selection::select_head(manifest, signature, labels.as_deref())?;
        let labels = match labels {
            _ if head.is_numeric() => Vec::new(),
            Some(labels) => labels,
            None => manifest.default_labels(signature.width)?,
        };
        let policy = TextPolicy {
            markup: manifest.options.markup.unwrap_or(defaults.markup),
            allowed_characters: manifest.options.allowed_characters.as_deref().map(CharacterSet::parse),
        };
        let mut token_range = None;
        let mut warnings = Vec::new();
        if let Some(tokenizer) = &mut tokenizer {
            warnings.append(&mut tokenizer.warnings);
            token_range = TokenRange::new(tokenizer, signature.embedding_rows)?;
            if signature.has_attention_mask() && token_range.is_some_and(|range| tokenizer.padding.id >= range.rows) {
                // Any id does in a place that is masked.
                tokenizer.padding.id = 0;
            }
        }
        warnings.extend(token_range.map(TokenRange::warning).into_iter().chain(manifest.config.warning()));
        let expected = head.width(labels.len());
        let found = signature.width;
        if expected != found {
            let count = labels.len();
            let output = &signature.output_name;
            let each = if signature.per_token { "token" } else { "text" };
            let reason = format!(
                "{count} labels need {expected} scores per {each}, but the graph gives {found} (output {output:?}): name {found} labels in id2label of config.json or in labels.json, or another output with output = \"NAME\" in model.toml"
            );
            return Err(ManifestError::new("labels", reason));
        }
        Ok(Self {
            policy,
            tokenizer,
            head,
            labels,
            golden: manifest.golden.take(),
            pad_multiple: 1,
            fixed_axes: signature.fixed_axes,
            token_range,
            pairs_enabled: true,
            output_name: signature.output_name.clone(),
            applied_activation: signature.applied_activation,
            warnings,
        })
    }

    /// Labels in score order; none for regression.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What is done with the scores.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What a text may hold.
    #[must_use]
    pub fn policy(&self) -> &TextPolicy {
        &self.policy
    }

    /// Examples that the model must reproduce.
    #[must_use]
    pub fn golden(&self) -> Option<&GoldenSet> {
        self.golden.as_ref()
    }

    /// The activation that the graph applies itself.
    #[must_use]
    pub fn graph_activation(&self) -> Option<Activation> {
        self.applied_activation.map(|applied| applied.activation)
    }

    /// The same, and what of it the scores are.
    #[must_use]
    pub fn applied_activation(&self) -> Option<AppliedActivation> {
        self.applied_activation
    }

    /// Name of the output that holds the scores.
    #[must_use]
    pub fn output_name(&self) -> &str {
        &self.output_name
    }

    /// The tokenizer, if the graph does not take the text itself.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// True if two texts can be asked about.
    #[must_use]
    pub fn has_pair_support(&self) -> bool {
        self.pairs_enabled
            && !matches!(self.head, Head::Entities(..))
            && self.tokenizer().is_some_and(Tokenizer::has_pair_support)
    }

    /// Runs the windows of a text one by one: rows of a batch change each other's scores.
    pub fn disable_row_batching(&mut self) {
        self.fixed_axes.single_row = true;
    }

    /// Takes no more pairs: the graph fails on them.
    pub fn disable_pairs(&mut self) {
        self.pairs_enabled = false;
    }

    /// Sets the activation that the graph applies, if any, as its values show, and the activation that is left for the server.
    pub fn set_graph_activation(&mut self, applied: Option<AppliedActivation>, remaining: Activation) {
        self.applied_activation = applied;
        self.head.set_activation(remaining);
    }

    /// Scores for each text, or for each token where tokens are labelled; 1 at least.
    #[must_use]
    pub fn score_width(&self) -> usize {
        self.head.width(self.labels.len()).max(1)
    }

    /// The largest id of the tokenizer, if it is not known which ids the graph can look up.
    #[must_use]
    pub fn largest_unchecked_id(&self) -> Option<u32> {
        self.tokenizer.as_ref().filter(|_| self.token_range.is_none()).map(Tokenizer::largest_id)
    }

    /// Says that the graph looks up the ids below `rows` only.
    ///
    /// # Errors
    /// [`ManifestError`] if a special token is not one of them.
    pub fn limit_token_ids(&mut self, rows: usize) -> Result<(), ManifestError> {
        if let Some(tokenizer) = &self.tokenizer {
            self.token_range = TokenRange::new(tokenizer, Some(rows))?;
            self.warnings.extend(self.token_range.map(TokenRange::warning));
        }
        Ok(())
    }

    /// A row of one token of its own.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer cannot put special tokens around it.
    pub fn encode_token_id(&self, id: u32) -> Result<EncodedInput, TokenizeError> {
        match &self.tokenizer {
            Some(tokenizer) => Ok(EncodedInput::from_row(tokenizer.row_from_ids(vec![id])?)),
            None => self.probe_text(1, 0),
        }
    }

    /// Prepares one text, or two for a model that takes pairs.
    ///
    /// # Errors
    /// [`TokenizeError`] if the text is too long for a model that refuses that, or if the tokenizer fails.
    pub fn encode(&self, input: impl Into<Input>) -> Result<EncodedInput, TokenizeError> {
        let Input { text, second } = input.into();
        let Some(tokenizer) = &self.tokenizer else {
            let words = text.split_whitespace().count();
            return Ok(EncodedInput::new(EncodedContent::Text(text), words));
        };
        let mut tokens = match &second {
            None => tokenizer.encode(&text)?,
            Some(second) => tokenizer.encode_pair(&text, second)?,
        };
        if let Some(range) = &self.token_range {
            range.replace_out_of_range(&mut tokens)?;
        }
        let TokenizedText { rows, token_count, unknown_count, is_truncated, spans, overlap } = tokens;
        let spans = (!spans.is_empty()).then(|| Box::new(TokenSpans { text, rows: spans, overlap }));
        Ok(EncodedInput { content: EncodedContent::Rows(rows), token_count, unknown_count, is_truncated, spans })
    }

    /// Turns the scores of one text, one row per window, and the graph's own choice into its answer.
    ///
    /// # Errors
    /// [`OutputError`] if the scores cannot be an answer.
    pub fn postprocess(
        &self,
        encoded: &EncodedInput,
        rows: Vec<Vec<f32>>,
        chosen: Option<usize>,
    ) -> Result<HeadOutput, OutputError> {
        if let Head::Entities(aggregation, activation) = self.head {
            let found = self.token_scores(encoded, &rows, activation)?;
            let text = encoded.spans.as_ref().map_or("", |spans| &spans.text);
            let outcome = HeadOutcome::Entities(extract_entities(text, &found, &self.labels, aggregation));
            return Ok(HeadOutput { outcome, probabilities: Vec::new(), raw_scores: Vec::new() });
        }
        let weights = match &encoded.content {
            EncodedContent::Rows(rows) => rows.iter().map(|row| row.ids.len()).collect(),
            EncodedContent::Text(_) => vec![1],
        };
        let windows: Vec<(Vec<f32>, usize)> = rows.into_iter().zip(weights).collect();
        self.head.postprocess(weighted_mean(&windows), chosen, self.labels.len())
    }

    /// The tokens of a text with their probabilities; `rows` has the scores of all tokens of a row of a run.
    fn token_scores(
        &self,
        encoded: &EncodedInput,
        rows: &[Vec<f32>],
        activation: Activation,
    ) -> Result<Vec<ScoredToken>, OutputError> {
        let Some(spans) = &encoded.spans else { return Ok(Vec::new()) };
        let labels = self.labels.len();
        let count = spans.rows.len();
        if rows.len() != count {
            return Err(OutputError::Width { expected: count, found: rows.len() });
        }
        let windows = rows.iter().zip(&spans.rows).map(|(logits, spans)| {
            let padding = self.left_padding(logits.len() / labels, spans.len());
            score_tokens(logits, padding, spans, (labels, activation))
        });
        Ok(merge_windows(windows.collect::<Result<_, _>>()?, spans.overlap))
    }

    /// Padding before a row's own tokens, in a batch of this length.
    fn left_padding(&self, length: usize, text_tokens: usize) -> usize {
        match self.tokenizer().map(|tokenizer| tokenizer.padding.side) {
            Some(PaddingSide::Left) => length.saturating_sub(text_tokens),
            Some(PaddingSide::Right) | None => 0,
        }
    }

    /// The scores of a text's own tokens in its row of a batch: all of them where scores are per text.
    #[must_use]
    pub fn unpadded_scores<'a>(&self, row: &'a [f32], text_tokens: usize) -> &'a [f32] {
        let Head::Entities(..) = self.head else { return row };
        let labels = self.labels.len();
        let start = self.left_padding(row.len() / labels.max(1), text_tokens) * labels;
        row.get(start..start + text_tokens * labels).unwrap_or_default()
    }
}

/// The tokenizer, unless the graph takes the text itself.
fn load_tokenizer(
    manifest: &Manifest,
    signature: &Signature,
    defaults: TextPolicies,
) -> Result<Option<Tokenizer>, ManifestError> {
    if matches!(signature.input, GraphInput::Texts { .. }) {
        return Ok(None);
    }
    let tokenizer = Tokenizer::load(manifest, manifest.options.on_overflow.unwrap_or(defaults.on_overflow))?;
    Ok(Some(if signature.per_token { tokenizer.with_spans() } else { tokenizer }))
}

/// True if an answer names labels, so that a model whose files name none has those that `AutoConfig` gives it.
fn has_labels_in_answer(manifest: &Manifest, signature: &Signature) -> bool {
    let problem = head_selection::problem_type(manifest);
    signature.width > 1 || problem == Some(ProblemType::MultiLabelClassification)
}
