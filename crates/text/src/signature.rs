//! What a graph wants and gives, as far as serving text is concerned.

use serde::Deserialize;

use super::activation::AppliedActivation;

/// The inputs a graph asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphInput {
    /// One string tensor: the graph holds its own tokenising, as skl2onnx exports it.
    Texts {
        /// Name of the input.
        name: String,
        /// Shape `[n]` or `[n, 1]`.
        rank: usize,
    },
    /// Integer tensors of shape `[n, length]`, in the order the graph lists them.
    Tokens(Vec<TokenInput>),
}

/// One integer input of a transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInput {
    /// The graph's own name for it.
    pub name: String,
    /// What has to be put there.
    pub role: TokenRole,
    /// Element type the graph declares.
    pub width: IntegerWidth,
}

/// What a transformer's integer input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// Vocabulary ids.
    InputIds,
    /// 1 for a real token, 0 for padding.
    AttentionMask,
    /// Segment of each token.
    TokenTypeIds,
    /// Position of each real token, counted from 0.
    PositionIds,
}

impl TokenRole {
    /// The role an input plays, by the names Hugging Face exports use.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Self::InputIds),
            "attention_mask" | "input_mask" => Some(Self::AttentionMask),
            "token_type_ids" | "segment_ids" | "input_type" => Some(Self::TokenTypeIds),
            "position_ids" => Some(Self::PositionIds),
            _ => None,
        }
    }
}

/// Element type of an integer input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerWidth {
    /// `int32`
    Bits32,
    /// `int64`
    Bits64,
}

/// What the scores are before a head looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// Unbounded scores: a softmax, a sigmoid or nothing follows.
    Logits,
    /// Probabilities: a scikit-learn classifier gives them, or the graph applies the activation itself.
    Probabilities,
}

/// Axes of the inputs that the graph fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedAxes {
    /// Every run takes exactly one row.
    pub single_row: bool,
    /// Every row has exactly this many tokens.
    pub length: Option<usize>,
}

impl Signature {
    /// True if an input of the graph says which positions hold padding.
    #[must_use]
    pub fn has_attention_mask(&self) -> bool {
        match &self.input {
            GraphInput::Texts { .. } => false,
            GraphInput::Tokens(inputs) => inputs.iter().any(|input| input.role == TokenRole::AttentionMask),
        }
    }
}

/// Everything the rest of the server needs to know about a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What goes in.
    pub input: GraphInput,
    /// Sizes of it that the graph fixes.
    pub fixed_axes: FixedAxes,
    /// Name of the output that holds the scores.
    pub output_name: String,
    /// What it holds.
    pub score_kind: ScoreKind,
    /// True if there are scores for each token of a text.
    pub per_token: bool,
    /// The softmax or sigmoid that the graph applies as its last step.
    pub applied_activation: Option<AppliedActivation>,
    /// Scores per text, or per token.
    pub width: usize,
    /// True if the graph quantises activations at run time: one scale for a whole
    /// batch, so a text's scores depend on the texts beside it.
    pub batch_dependent: bool,
    /// Class names that the graph holds, in score order.
    pub labels: Option<Vec<String>>,
    /// True if the graph names any number of classes per text, as a multi-label pipeline does.
    pub is_multi_label: bool,
    /// Rows of the table in which token ids are looked up: an id from there on fails its run.
    pub embedding_rows: Option<usize>,
}
