//! An example of what a model takes.

use serde_json::Value;

use crate::tensors::TokenRow;

/// What an example of an input holds.
#[derive(Debug, Clone, PartialEq)]
pub enum MlflowExample {
    /// Texts.
    Texts(Vec<String>),
    /// Tokens of texts, without their padding.
    TokenRows(Vec<TokenRow>),
}

impl MlflowExample {
    /// Reads an example as MLflow writes one: a list, an object of tensors or columns, or a table (`columns` and `data`).
    ///
    /// # Errors
    /// One sentence, if no texts and no tokens are found in it.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let none = || "it holds neither texts nor input_ids".to_owned();
        let inner = ["inputs", "instances", "dataframe_split", "dataframe_records"]
            .iter()
            .find_map(|name| value.get(name))
            .unwrap_or(value);
        if inner.get("input_ids").is_some() {
            return token_rows(inner).map(Self::TokenRows).ok_or_else(none);
        }
        let mut texts = Vec::new();
        let data = inner.get("data").unwrap_or(inner);
        collect_texts(data, &mut texts).ok_or_else(none)?;
        if texts.is_empty() { Err(none()) } else { Ok(Self::Texts(texts)) }
    }
}

/// The rows of `input_ids`, where `attention_mask` is not 0, with their `token_type_ids`.
fn token_rows(tensors: &Value) -> Option<Vec<TokenRow>> {
    let ids = parse_token_matrix(tensors.get("input_ids")?)?;
    let others = [("attention_mask", 1), ("token_type_ids", 0)].map(|(name, default)| match tensors.get(name) {
        None => Some(ids.iter().map(|row| vec![default; row.len()]).collect()),
        Some(rows) => parse_token_matrix(rows),
    });
    let [Some(mask), Some(types)] = others else { return None };
    if [&mask, &types].iter().any(|other| !ids.iter().map(Vec::len).eq(other.iter().map(Vec::len))) {
        return None;
    }
    let rows = ids.iter().zip(&types).zip(&mask).map(|((ids, types), mask)| {
        let tokens = ids.iter().zip(types).zip(mask);
        let (ids, type_ids) = tokens.filter(|(_, mask)| **mask != 0).map(|(token, _)| token).unzip();
        Some(TokenRow { ids, type_ids }).filter(|row| !row.ids.is_empty())
    });
    rows.collect()
}

fn parse_token_matrix(value: &Value) -> Option<Vec<Vec<u32>>> {
    let number = |number: &Value| u32::try_from(number.as_u64()?).ok();
    let row = |row: &Value| row.as_array()?.iter().map(number).collect::<Option<Vec<u32>>>();
    let rows = value.as_array()?;
    // One text needs no list of lists.
    match rows.first()? {
        Value::Array(_) => rows.iter().map(row).collect(),
        _ => Some(vec![row(value)?]),
    }
}

/// Every text of a value that holds nothing else.
fn collect_texts(value: &Value, texts: &mut Vec<String>) -> Option<()> {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().try_for_each(|value| collect_texts(value, texts))?,
        Value::Object(fields) => fields.values().try_for_each(|value| collect_texts(value, texts))?,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token_row(ids: &[u32], types: &[u32]) -> TokenRow {
        TokenRow { ids: ids.to_vec(), type_ids: types.to_vec() }
    }

    #[test]
    fn mlflow_example_all_forms_are_parsed() {
        let texts = Ok(MlflowExample::Texts(vec!["a".to_owned(), "b".to_owned()]));
        for value in [
            json!(["a", "b"]),
            json!([["a"], ["b"]]),
            json!({ "inputs": ["a", "b"] }),
            json!({ "instances": ["a", "b"] }),
            json!({ "columns": ["text"], "data": [["a"], ["b"]] }),
            json!({ "inputs": { "text": ["a", "b"] } }),
            json!({ "dataframe_split": { "columns": ["text"], "data": [["a"], ["b"]] } }),
            json!([{ "text": "a" }, { "text": "b" }]),
        ] {
            assert_eq!(MlflowExample::parse(&value), texts, "{value}");
        }
        let rows = Ok(MlflowExample::TokenRows(vec![token_row(&[101, 7], &[0, 0]), token_row(&[101], &[0])]));
        let padded = json!({ "input_ids": [[101, 7], [101, 0]], "attention_mask": [[1, 1], [1, 0]] });
        assert_eq!(MlflowExample::parse(&padded), rows);
        assert_eq!(MlflowExample::parse(&json!({ "inputs": padded })), rows);
        let one = json!({ "input_ids": [101, 7], "token_type_ids": [0, 1] });
        assert_eq!(MlflowExample::parse(&one), Ok(MlflowExample::TokenRows(vec![token_row(&[101, 7], &[0, 1])])));
        for value in [
            json!({}),
            json!([]),
            json!(7),
            json!({ "age": 7 }),
            json!({ "input_ids": [[-1]] }),
            json!({ "input_ids": "x" }),
            json!({ "input_ids": [[1]], "attention_mask": [[0]] }),
            json!({ "input_ids": [[1]], "attention_mask": [[1, 1]] }),
        ] {
            assert!(MlflowExample::parse(&value).is_err(), "{value}");
        }
    }
}
