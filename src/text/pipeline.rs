//! One model's way from text to answer, without the graph in the middle.

use super::golden::Golden;
use super::heads::{Decision, Head, OutputError, weighted_mean};
use super::manifest::{Manifest, ManifestError, ProblemType, Task, Thresholds, check_labels};
use super::policy::{CharacterSet, TextPolicy};
use super::signature::{GraphInput, ScoreKind, Signature};
use super::tensors::{Shape, TokenBatch, TokenRow, pack};
use super::tokenizer::{TokenizeError, Tokenizer};
use crate::config::{OnOverflow, TextDefaults};

/// Most padded tokens in one run of a windowed text: attention memory grows with the square
/// of the length, and a text of a hundred windows must not take it all at once.
const MAX_RUN_TOKENS: usize = 2_048;

/// Tokenizer, head and labels of one model.
#[derive(Debug)]
pub struct Pipeline {
    policy: TextPolicy,
    encoder: Encoder,
    head: Head,
    labels: Vec<String>,
    golden: Option<Golden>,
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
    /// True if part of the text was cut off.
    pub truncated: bool,
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
            GraphInput::Tokens(_) => Encoder::Tokens(Box::new(Tokenizer::load(
                manifest,
                manifest.options.on_overflow.unwrap_or(defaults.on_overflow),
            )?)),
        };
        let problem = match manifest.options.task {
            Some(Task::Classification) => Some(ProblemType::SingleLabelClassification),
            Some(Task::MultiLabel) => Some(ProblemType::MultiLabelClassification),
            Some(Task::Regression) => Some(ProblemType::Regression),
            None => manifest.config.problem_type,
        };
        let labels = manifest.labels.take().or_else(|| signature.labels.clone());
        if let Some(labels) = &labels {
            check_labels(labels)?;
        }
        let head = head(problem, signature, labels.as_deref(), manifest.options.thresholds.as_ref())?;
        let labels = match (labels, &head) {
            (_, Head::Regression) => Vec::new(),
            (Some(labels), _) => labels,
            (None, _) => {
                return Err(ManifestError::new(
                    "labels.json",
                    "no labels: there is no id2label in config.json, no labels.json, and the graph names no classes",
                ));
            }
        };
        let policy = TextPolicy {
            markup: manifest.options.markup.unwrap_or(defaults.markup),
            allowed: manifest.options.allowed_characters.as_deref().map(CharacterSet::parse),
        };
        let pipeline = Self { policy, encoder, head, labels, golden: manifest.golden.take() };
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

    /// Prepares one text.
    ///
    /// # Errors
    /// [`TokenizeError`] if the text is too long for a model that refuses that, or if the tokenizer fails.
    pub fn encode(&self, text: String) -> Result<Encoded, TokenizeError> {
        match &self.encoder {
            Encoder::Tokens(tokenizer) => {
                let tokens = tokenizer.encode(&text)?;
                Ok(Encoded { content: Content::Rows(tokens.rows), tokens: tokens.count, truncated: tokens.truncated })
            }
            Encoder::Texts => {
                let words = text.split_whitespace().count();
                Ok(Encoded { content: Content::Text(text), tokens: words, truncated: false })
            }
        }
    }

    /// A short text of exactly `length` tokens, to measure runs with. Graphs that take the text itself get the same for
    /// any length.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails on a short text.
    pub fn sample(&self, length: usize) -> Result<Encoded, TokenizeError> {
        let mut encoded = self.encode("one short text".to_owned())?;
        if let Content::Rows(rows) = &mut encoded.content {
            rows.truncate(1);
            for row in rows {
                row.ids = row.ids.iter().copied().cycle().take(length).collect();
                row.type_ids = row.type_ids.iter().copied().cycle().take(length).collect();
            }
            encoded.tokens = length;
        }
        Ok(encoded)
    }

    /// One run for texts of one row each, padded to the longest.
    #[must_use]
    pub fn batch<'a>(&self, texts: impl IntoIterator<Item = &'a Encoded>) -> Batch {
        let (mut rows, mut strings) = (Vec::new(), Vec::new());
        for encoded in texts {
            match &encoded.content {
                Content::Rows(windows) => rows.extend(windows),
                Content::Text(text) => strings.push(text.clone()),
            }
        }
        match &self.encoder {
            Encoder::Tokens(tokenizer) => Batch::Tokens(pack(&rows, tokenizer.padding())),
            Encoder::Texts => Batch::Texts(strings),
        }
    }

    /// The shapes of the runs that one text needs.
    pub fn shapes<'a>(&self, encoded: &'a Encoded) -> impl Iterator<Item = Shape> + 'a {
        let rows: &[TokenRow] = match &encoded.content {
            Content::Rows(rows) => rows,
            Content::Text(_) => &[],
        };
        let text = matches!(encoded.content, Content::Text(_)).then_some(Shape { rows: 1, length: 1 });
        let length = longest(rows);
        let chunks = rows.chunks(rows_per_run(length));
        text.into_iter().chain(chunks.map(move |chunk| Shape { rows: chunk.len(), length }))
    }

    /// The largest run of one text of `length` tokens: several windows of it, for a model that reads long texts so.
    #[must_use]
    pub fn largest_run(&self, length: usize) -> Shape {
        let windows = self.tokenizer().is_some_and(|tokenizer| tokenizer.on_overflow() == OnOverflow::Window);
        Shape { rows: if windows { rows_per_run(length) } else { 1 }, length }
    }

    /// The runs that one text needs: one, unless it has more windows than a run may hold.
    pub fn runs<'a>(&'a self, encoded: &'a Encoded) -> impl Iterator<Item = Batch> + 'a {
        let (rows, text): (&[TokenRow], _) = match &encoded.content {
            Content::Rows(rows) => (rows, None),
            Content::Text(text) => (&[], Some(Batch::Texts(vec![text.clone()]))),
        };
        let padding = self.tokenizer().map(Tokenizer::padding).unwrap_or_default();
        let chunks = rows.chunks(rows_per_run(longest(rows)));
        text.into_iter().chain(chunks.map(move |chunk| Batch::Tokens(pack(&chunk.iter().collect::<Vec<_>>(), padding))))
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
        let weights = match &encoded.content {
            Content::Rows(rows) => rows.iter().map(|row| row.ids.len()).collect(),
            Content::Text(_) => vec![1],
        };
        let windows: Vec<(Vec<f32>, usize)> = rows.into_iter().zip(weights).collect();
        self.head.decide(weighted_mean(&windows), chosen, self.labels.len())
    }
}

fn longest(rows: &[TokenRow]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(1).max(1)
}

/// Windows of a text that are run at a time.
fn rows_per_run(longest: usize) -> usize {
    (MAX_RUN_TOKENS / longest).max(1)
}

/// The head that fits the task, the labels and the graph's scores.
fn head(
    problem: Option<ProblemType>,
    signature: &Signature,
    labels: Option<&[String]>,
    thresholds: Option<&Thresholds>,
) -> Result<Head, ManifestError> {
    let count = labels.map_or(0, <[String]>::len);
    match (problem, signature.scores) {
        (Some(ProblemType::MultiLabelClassification), _) => {
            let thresholds = expand_thresholds(thresholds, labels.unwrap_or_default())?;
            Ok(Head::MultiLabel { thresholds, scores: signature.scores })
        }
        (Some(ProblemType::Regression), _) => Ok(Head::Regression),
        (_, ScoreKind::Probabilities) if signature.many_labels => Err(ManifestError::new(
            "model.toml",
            "the graph names any number of classes per text: say task = \"multi_label\"",
        )),
        (_, ScoreKind::Probabilities) => Ok(Head::Probabilities),
        (_, ScoreKind::Logits) if signature.width == 1 && count == 2 => Ok(Head::Binary),
        // Hugging Face takes one label without a problem type for regression.
        (None, ScoreKind::Logits) if signature.width == 1 && count <= 1 => Ok(Head::Regression),
        (_, ScoreKind::Logits) => Ok(Head::SingleLabel),
    }
}

fn expand_thresholds(thresholds: Option<&Thresholds>, labels: &[String]) -> Result<Vec<f32>, ManifestError> {
    const DEFAULT: f32 = 0.5;
    let error = |reason: String| ManifestError::new("model.toml", reason);
    let expanded: Vec<f32> = match thresholds {
        None => vec![DEFAULT; labels.len()],
        Some(Thresholds::All(threshold)) => vec![*threshold; labels.len()],
        Some(Thresholds::Each(each)) => {
            if let Some(unknown) = each.keys().find(|name| !labels.contains(name)) {
                return Err(error(format!("thresholds names {unknown:?}, which is not a label")));
            }
            labels.iter().map(|label| each.get(label).copied().unwrap_or(DEFAULT)).collect()
        }
    };
    if expanded.iter().all(|threshold| (0.0..=1.0).contains(threshold)) {
        Ok(expanded)
    } else {
        Err(error("thresholds must lie between 0 and 1".to_owned()))
    }
}
