//! The names of labels, by the ways in which `AutoConfig` comes to them.

use serde_json::Value;

use super::error::ManifestError;
use super::hf_config::{CONFIG_FILE, ModelConfig, truncate_value};
use super::limits::MAX_LABELS;

/// The file of an operator's own labels.
pub(super) const LABELS_FILE: &str = "labels.json";
/// Longest label, in bytes: labels are repeated in every answer, metric and receipt.
const MAX_LABEL_BYTES: usize = 256;

impl ModelConfig {
    /// The labels that `config.json` names: `id2label`, in the order of its numbers.
    ///
    /// As `AutoConfig` has it, `num_labels` wins where `id2label` has another count: then labels have no names.
    ///
    /// # Errors
    /// [`ManifestError`] naming the key and the value that is no label.
    pub(super) fn labels(&self) -> Result<Option<Vec<String>>, ManifestError> {
        let map = match &self.id2label {
            None => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(other) => {
                let kind = json_type(other);
                return Err(config_error(format!(
                    "id2label is {kind}, where an object from numbers to labels is expected"
                )));
            }
        };
        // Of two keys of one number, Python keeps the last in the file; here they are refused, as their order is lost.
        let mut labels = vec![None; map.len()];
        for (key, label) in map {
            let id = parse_python_int(key)
                .ok_or_else(|| config_error(format!("id2label has the key {key:?}, where a number is expected")))?;
            let slot = usize::try_from(id).ok().and_then(|id| labels.get_mut(id)).ok_or_else(|| {
                config_error(format!("id2label has the key {key:?}, where 0 to {} are expected", map.len() - 1))
            })?;
            if slot.replace(python_text(CONFIG_FILE, &format!("id2label[{key:?}]"), label)?).is_some() {
                return Err(config_error(format!("id2label has the number {id} twice, as {key:?} too")));
            }
        }
        // As many different numbers below their count as there are keys leave no gap.
        let labels: Vec<String> = labels.into_iter().flatten().collect();
        match self.num_labels()? {
            Some(count) if count != labels.len() => Ok(Some(numbered_labels(count))),
            _ => Ok(Some(labels)),
        }
    }

    /// The labels that `AutoConfig` gives a model whose `config.json` names none: `LABEL_0`, `LABEL_1` and so on.
    ///
    /// # Errors
    /// [`ManifestError`] if `num_labels` is no count.
    pub(super) fn default_labels(&self) -> Result<Vec<String>, ManifestError> {
        let of_family = if self.model_type.as_deref() == Some("bart") { 3 } else { 2 };
        Ok(numbered_labels(self.num_labels()?.unwrap_or(of_family)))
    }

    fn num_labels(&self) -> Result<Option<usize>, ManifestError> {
        let Some(value) = &self.num_labels else { return Ok(None) };
        let count = match value {
            Value::Bool(one) => Some(usize::from(*one)),
            value => value.as_u64().and_then(|count| count.try_into().ok()),
        };
        count.filter(|&count| count <= MAX_LABELS).map(Some).ok_or_else(|| {
            let value = truncate_value(&value.to_string());
            config_error(format!("num_labels is {value}, where a number from 1 to {MAX_LABELS} is expected"))
        })
    }

    /// True if it is the configuration of a model without a head: its outputs are embeddings.
    pub(super) fn is_headless(&self) -> bool {
        self.architecture().is_some() && self.architectures().all(|name| name.ends_with("Model"))
    }
}

fn config_error(reason: String) -> ManifestError {
    ManifestError::new(CONFIG_FILE, reason)
}

fn numbered_labels(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("LABEL_{number}")).collect()
}

/// The labels of `labels.json`.
///
/// # Errors
/// [`ManifestError`] naming the place and the value that is no label.
pub(super) fn parse_labels(labels: &[Value]) -> Result<Vec<String>, ManifestError> {
    let labels = labels.iter().enumerate();
    labels.map(|(index, label)| python_text(LABELS_FILE, &format!("label {index}"), label)).collect()
}

/// A label as Python writes it as text.
fn python_text(file: &str, key: &str, label: &Value) -> Result<String, ManifestError> {
    match label {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(true) => Ok("True".to_owned()),
        Value::Bool(false) => Ok("False".to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        other => {
            let reason = format!("{key} is {}, where a text, a number or a boolean is expected", json_type(other));
            Err(ManifestError::new(file, reason))
        }
    }
}

/// What a value of JSON is, for a message.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null (or not a finite number)",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A whole number as Python's `int` reads it: spaces around it, a sign, and single underscores between digits.
fn parse_python_int(text: &str) -> Option<i64> {
    let trimmed = text.trim();
    let mut parts = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed).split('_');
    let is_number = parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    trimmed.replace('_', "").parse().ok().filter(|_| is_number)
}

/// Refuses labels that cannot be answered with. Two labels may have one name, as in `transformers`: scores stay in the
/// order of the graph, and what goes by the name means either.
///
/// # Errors
/// [`ManifestError`] if there are none or too many, or one of no or excessive length.
pub fn check_labels(labels: &[String]) -> Result<(), ManifestError> {
    if !(1..=MAX_LABELS).contains(&labels.len()) {
        let reason = format!("{} labels, where 1 to {MAX_LABELS} are possible", labels.len());
        return Err(ManifestError::new("labels", reason));
    }
    let mut lengths = labels.iter().map(String::len).enumerate();
    match lengths.find(|(_, bytes)| !(1..=MAX_LABEL_BYTES).contains(bytes)) {
        Some((number, bytes)) => {
            let reason = format!("label {number} has {bytes} bytes, where 1 to {MAX_LABEL_BYTES} are possible");
            Err(ManifestError::new("labels", reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::python_json;
    use super::*;

    fn config(json: &str) -> ModelConfig {
        python_json::parse(CONFIG_FILE, json.as_bytes()).unwrap()
    }

    fn labels(json: &str) -> Vec<String> {
        let config = config(json);
        config.labels().unwrap().unwrap_or_else(|| config.default_labels().unwrap())
    }

    /// Values of `AutoConfig` of transformers 5.24.
    #[test]
    fn labels_config_matches_autoconfig() {
        for (json, expected) in [
            (r#"{"id2label":{"0":"a","1":"b"}}"#, vec!["a", "b"]),
            (r#"{"id2label":{"1":"b","0":"a"}}"#, vec!["a", "b"]),
            (r#"{"id2label":{"0":0,"1":1}}"#, vec!["0", "1"]),
            (r#"{"id2label":{"0":false,"1":true}}"#, vec!["False", "True"]),
            (r#"{"id2label":{"0":1.5,"1":-2.0}}"#, vec!["1.5", "-2.0"]),
            (r#"{"id2label":{"0":"a","1":"a"}}"#, vec!["a", "a"]),
            (r#"{"id2label":{" 0":"a","+1":"b"}}"#, vec!["a", "b"]),
            (r#"{"id2label":{"0":"a","1":"b"},"num_labels":2}"#, vec!["a", "b"]),
            (r#"{"id2label":{"0":"a","1":"b","2":"c"},"num_labels":2}"#, vec!["LABEL_0", "LABEL_1"]),
            (r#"{"model_type":"bert"}"#, vec!["LABEL_0", "LABEL_1"]),
            (r#"{"id2label":null}"#, vec!["LABEL_0", "LABEL_1"]),
            (r#"{"num_labels":3}"#, vec!["LABEL_0", "LABEL_1", "LABEL_2"]),
            (r#"{"num_labels":true}"#, vec!["LABEL_0"]),
            (r#"{"_num_labels":3}"#, vec!["LABEL_0", "LABEL_1"]),
            (r#"{"label2id":{"a":0,"b":1,"c":2}}"#, vec!["LABEL_0", "LABEL_1"]),
            (r#"{"label2id":{"a":0,"b":1,"c":2},"num_labels":3}"#, vec!["LABEL_0", "LABEL_1", "LABEL_2"]),
            (r#"{"model_type":"bart"}"#, vec!["LABEL_0", "LABEL_1", "LABEL_2"]),
        ] {
            assert_eq!(labels(json), expected, "{json}");
        }
    }

    #[test]
    fn labels_id2label_ordered_by_id() {
        let map: serde_json::Map<String, Value> =
            (0..11).map(|i| (i.to_string(), Value::from(format!("l{i}")))).collect();
        let found = labels(&serde_json::json!({ "id2label": map }).to_string());
        assert_eq!((found[2].as_str(), found[10].as_str()), ("l2", "l10"));
    }

    #[test]
    fn labels_invalid_value_is_named() {
        for (json, expected) in [
            (r#"{"id2label":["a","b"]}"#, "id2label is a list, where an object from numbers to labels is expected"),
            (r#"{"id2label":{"x":"a"}}"#, "id2label has the key \"x\", where a number is expected"),
            (r#"{"id2label":{"0":"a","2":"b"}}"#, "id2label has the key \"2\", where 0 to 1 are expected"),
            (r#"{"id2label":{"-1":"a","0":"b"}}"#, "id2label has the key \"-1\", where 0 to 1 are expected"),
            (r#"{"id2label":{"0":"a","00":"b"}}"#, "id2label has the number 0 twice, as \"00\" too"),
            (
                r#"{"id2label":{"0":NaN}}"#,
                "id2label[\"0\"] is null (or not a finite number), where a text, a number or a boolean is expected",
            ),
            (
                r#"{"id2label":{"0":["a"]}}"#,
                "id2label[\"0\"] is a list, where a text, a number or a boolean is expected",
            ),
            (r#"{"num_labels":"3"}"#, "num_labels is \"3\", where a number from 1 to 100000 is expected"),
            (r#"{"num_labels":2.0}"#, "num_labels is 2.0, where a number from 1 to 100000 is expected"),
            (r#"{"num_labels":-1}"#, "num_labels is -1, where a number from 1 to 100000 is expected"),
        ] {
            let config = config(json);
            let refusal = config.labels().and_then(|_| config.default_labels()).unwrap_err();
            assert_eq!((refusal.file.as_str(), refusal.reason.as_str()), (CONFIG_FILE, expected), "{json}");
        }
    }

    fn check_names(labels: &[&str]) -> Result<(), ManifestError> {
        check_labels(&labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn labels_empty_rejected_duplicates_accepted() {
        check_names(&["a", "a"]).unwrap();
        assert_eq!(check_names(&["a", ""]).unwrap_err().reason, "label 1 has 0 bytes, where 1 to 256 are possible");
        assert_eq!(check_names(&[]).unwrap_err().reason, "0 labels, where 1 to 100000 are possible");
    }
}
