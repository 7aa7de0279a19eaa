//! `config.json` and `tokenizer_config.json`, as `AutoConfig` and `AutoTokenizer` of `transformers` read them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ManifestError;
use super::python_json;
use crate::tensors::PaddingSide;

/// The file that [`ModelConfig`] is read from.
pub(super) const CONFIG_FILE: &str = "config.json";
/// The file that [`TokenizerConfig`] is read from.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// What `predictd` reads from Hugging Face's `config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct ModelConfig {
    pub(super) id2label: Option<Value>,
    pub(super) num_labels: Option<Value>,
    /// Any value is accepted, as `AutoConfig` does; the pipeline of `transformers` passes over what it does not know.
    problem_type: Option<Value>,
    /// What is below one means none.
    max_position_embeddings: Option<i64>,
    /// What GPT-2 and its kind call `max_position_embeddings`.
    n_positions: Option<i64>,
    /// Architecture, such as `bert`.
    pub model_type: Option<String>,
    /// What is below zero means none.
    pad_token_id: Option<i64>,
    /// The class of the tokenizer, where `tokenizer_config.json` does not say.
    pub tokenizer_class: Option<String>,
    #[serde(default)]
    architectures: Value,
}

/// Hugging Face's names for what a classifier's scores mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// Exactly one label.
    SingleLabelClassification,
    /// Any number of labels.
    MultiLabelClassification,
    /// A number.
    Regression,
}

impl ModelConfig {
    /// What the scores mean, where `problem_type` says so.
    #[must_use]
    pub fn problem_type(&self) -> Option<ProblemType> {
        ProblemType::deserialize(self.problem_type.as_ref()?).ok()
    }

    /// The classes of `transformers` that the model was saved from, such as `BertForTokenClassification`.
    pub(super) fn architectures(&self) -> impl Iterator<Item = &str> {
        self.architectures.as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// The first of the classes of `transformers` that the model was saved from.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        self.architectures().next()
    }

    /// A sentence about a `problem_type` that means nothing.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let unknown = self.problem_type.as_ref().filter(|_| self.problem_type().is_none())?;
        Some(format!(
            "config.json: problem_type is {}, which is none of single_label_classification, multi_label_classification \
             and regression: it is passed over",
            truncate_value(&unknown.to_string())
        ))
    }

    /// The id of the padding token, if the model has one.
    #[must_use]
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_token_id?.try_into().ok()
    }

    /// Positions that a text can use: some families keep the first `pad_token_id + 1` rows back.
    #[must_use]
    pub fn usable_positions(&self) -> Option<usize> {
        const OFFSET_FAMILIES: [&str; 15] = [
            "roberta",
            "xlm-roberta",
            "xlm-roberta-xl",
            "camembert",
            "longformer",
            "roberta-prelayernorm",
            "data2vec-text",
            "xmod",
            "mpnet",
            "ibert",
            "luke",
            "esm",
            "layoutlmv3",
            "markuplm",
            "lilt",
        ];
        let counts = [self.max_position_embeddings, self.n_positions].into_iter().flatten();
        let rows = counts.filter_map(|count| usize::try_from(count).ok()).find(|&count| count > 0)?;
        let offset = match self.model_type.as_deref() {
            Some(family) if OFFSET_FAMILIES.contains(&family) => self.pad_token_id.unwrap_or(1).saturating_add(1),
            _ => 0,
        };
        Some(rows.saturating_sub(offset.try_into().unwrap_or_default()))
    }
}

/// A value of a file, short enough for a message.
pub(super) fn truncate_value(value: &str) -> String {
    const MAX_BYTES: usize = 64;
    let end = value.floor_char_boundary(MAX_BYTES);
    if end == value.len() { value.to_owned() } else { format!("{}…", &value[..end]) }
}

/// What `predictd` reads from `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct TokenizerConfig {
    pub(super) model_max_length: Option<f64>,
    pub(super) max_len: Option<f64>,
    /// Where padding goes; where this does not say, `tokenizer.json` may.
    pub padding_side: Option<PaddingSide>,
    /// Which end is cut off; the same.
    pub truncation_side: Option<PaddingSide>,
    /// All that the file says; none without the file.
    #[serde(skip)]
    pub settings: Option<Map<String, Value>>,
    /// `special_tokens_map.json`, which older files have.
    #[serde(skip)]
    pub special_tokens_map: Option<Map<String, Value>>,
    /// `added_tokens.json`, which older files have.
    #[serde(skip)]
    pub added_tokens: Option<Map<String, Value>>,
}

impl TokenizerConfig {
    /// Reads the keys that mean the same for every class of tokenizers.
    pub(super) fn from_settings(settings: Option<Map<String, Value>>) -> Result<Self, ManifestError> {
        let value = Value::Object(settings.clone().unwrap_or_default());
        Ok(Self { settings, ..python_json::from_value(TOKENIZER_CONFIG_FILE, value)? })
    }

    /// Longest input in tokens; Hugging Face writes 1e30 for "no limit".
    #[must_use]
    pub fn max_length(&self) -> Option<f64> {
        self.model_max_length.or(self.max_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ModelConfig {
        python_json::parse(CONFIG_FILE, json.as_bytes()).unwrap()
    }

    fn family_config(family: &str, pad: &str) -> ModelConfig {
        config(&format!(r#"{{"max_position_embeddings":514,"pad_token_id":{pad},"model_type":"{family}"}}"#))
    }

    #[test]
    fn config_roberta_positions_exclude_padding_rows() {
        assert_eq!(family_config("roberta", "1").usable_positions(), Some(512));
        assert_eq!(family_config("bert", "1").usable_positions(), Some(514));
        assert_eq!(family_config("roberta", "-1").usable_positions(), Some(514));
    }

    #[test]
    fn config_odd_values_read_as_autoconfig() {
        let odd = config(r#"{"pad_token_id":-1,"max_position_embeddings":-1,"problem_type":"","n_positions":null}"#);
        assert_eq!((odd.pad_id(), odd.usable_positions(), odd.problem_type()), (None, None, None));
        assert!(odd.warning().unwrap().starts_with("config.json: problem_type is \"\", which is none of"));
        let gpt = config(r#"{"n_positions":64,"pad_token_id":99999999999,"architectures":"GPT2Model"}"#);
        assert_eq!((gpt.pad_id(), gpt.usable_positions(), gpt.architecture()), (None, Some(64), None));
        let plain = config(r#"{"problem_type":"regression","architectures":["X",1]}"#);
        assert_eq!((plain.problem_type(), plain.warning()), (Some(ProblemType::Regression), None));
    }

    fn parse_error(json: &str) -> String {
        python_json::parse::<ModelConfig>(CONFIG_FILE, json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn config_wrong_type_names_key() {
        assert_eq!(
            parse_error(r#"{"pad_token_id":[0]}"#),
            r#"config.json: "pad_token_id": invalid type: sequence, expected i64"#
        );
        assert_eq!(
            parse_error(r#"{"max_position_embeddings":"512"}"#),
            r#"config.json: "max_position_embeddings": invalid type: string "512", expected i64"#
        );
    }
}
