//! What a graph's inputs and outputs mean.

use half::f16;
use ndarray::Array2;
use ort::session::SessionOutputs;
use ort::value::{DynMapValueType, DynValue, Outlet, TensorElementType, ValueType};

use crate::text::signature::{GraphInput, IntegerWidth, ScoreKind, TokenInput, TokenRole};

/// Which output holds the scores.
#[derive(Debug, Clone)]
pub(super) enum Output {
    /// A float tensor `[n, width]`.
    Tensor(String),
    /// ZipMap: one map from class to probability per text. True if the classes are text.
    Maps(String, bool),
}

/// What the graph's inputs mean.
pub(super) fn graph_input(inputs: &[Outlet]) -> Result<GraphInput, String> {
    if let [only] = inputs
        && let ValueType::Tensor { ty: TensorElementType::String, shape, .. } = only.dtype()
    {
        return match shape[..] {
            [n] if n != -1 => Err(fixed(only.name())),
            [n, _] if n != -1 => Err(fixed(only.name())),
            [_] | [_, -1 | 1] => Ok(GraphInput::Texts { name: only.name().to_owned(), rank: shape.len() }),
            _ => Err(format!(
                "its string input {} has shape {:?}, where [n] or [n, 1] is needed",
                only.name(),
                &shape[..]
            )),
        };
    }
    let tokens = inputs.iter().map(|input| {
        let name = input.name();
        let role =
            TokenRole::of(name).ok_or_else(|| format!("it asks for an input {name:?} that a text cannot give"))?;
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(format!("its input {name} is not a tensor"));
        };
        let width = match ty {
            TensorElementType::Int64 => IntegerWidth::Bits64,
            TensorElementType::Int32 => IntegerWidth::Bits32,
            other => return Err(format!("its input {name} holds {other}, where integers are needed")),
        };
        match shape[..] {
            [-1, -1] => Ok(TokenInput { name: name.to_owned(), role, width }),
            [_, _] => Err(fixed(name)),
            _ => Err(format!("its input {name} has shape {:?}, where [n, length] is needed", &shape[..])),
        }
    });
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    if tokens.iter().any(|input| input.role == TokenRole::InputIds) {
        Ok(GraphInput::Tokens(tokens))
    } else {
        Err("it has neither a string input nor one named input_ids".to_owned())
    }
}

fn fixed(input: &str) -> String {
    format!("its input {input} has a fixed size: export it with dynamic batch and sequence axes")
}

/// Where the scores are and what they mean.
pub(super) struct ScoresOutput {
    /// Which output.
    pub(super) output: Output,
    /// Logits or probabilities.
    pub(super) kind: ScoreKind,
    /// Scores per text, where the graph fixes it.
    pub(super) width: Option<usize>,
}

/// The output in which a graph names the class it chose.
#[derive(Debug, Clone)]
pub(super) struct ChoiceOutput {
    /// Its name.
    pub(super) name: String,
    /// True if it holds any number of classes per text.
    pub(super) many: bool,
}

/// The `label` output of a scikit-learn graph: text or class numbers.
pub(super) fn choice_output(outputs: &[Outlet], input: &GraphInput) -> Option<ChoiceOutput> {
    let is_choice = |outlet: &&Outlet| {
        matches!(outlet.dtype().tensor_type(), Some(TensorElementType::String | TensorElementType::Int64))
    };
    match input {
        GraphInput::Tokens(_) => None,
        GraphInput::Texts { .. } => outputs.iter().find(is_choice).map(|outlet| ChoiceOutput {
            name: outlet.name().to_owned(),
            many: outlet.dtype().tensor_shape().is_some_and(|shape| matches!(shape[..], [_, classes] if classes != 1)),
        }),
    }
}

/// The output that holds the scores: `logits` if one is called so, else the first float output.
pub(super) fn scores_output(outputs: &[Outlet], input: &GraphInput) -> Result<ScoresOutput, String> {
    let of_texts = matches!(input, GraphInput::Texts { .. });
    let kind = if of_texts { ScoreKind::Probabilities } else { ScoreKind::Logits };
    let map = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Sequence(inner) => match **inner {
            ValueType::Map { key, value: TensorElementType::Float32 } => Some(key == TensorElementType::String),
            _ => None,
        },
        _ => None,
    };
    if let Some((outlet, named)) = outputs.iter().find_map(|outlet| Some((outlet, map(outlet)?))) {
        return Ok(ScoresOutput { output: Output::Maps(outlet.name().to_owned(), named), kind, width: None });
    }
    let is_float = |outlet: &&Outlet| {
        matches!(outlet.dtype().tensor_type(), Some(TensorElementType::Float32 | TensorElementType::Float16))
    };
    let outlet = outputs
        .iter()
        .filter(is_float)
        .find(|outlet| outlet.name() == "logits")
        .or_else(|| outputs.iter().find(is_float));
    let outlet = outlet.ok_or("it has no float32 or float16 output: scores are expected as such")?;
    let shape = outlet.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
    let scores = |kind, width: i64| ScoresOutput {
        output: Output::Tensor(outlet.name().to_owned()),
        kind,
        width: usize::try_from(width).ok().filter(|&n| n > 0),
    };
    match shape[..] {
        [_, width] => Ok(scores(kind, width)),
        [_, tokens, width] if !of_texts && tokens < 0 => Ok(scores(ScoreKind::TokenLogits, width)),
        _ => Err(format!(
            "its output {} has shape {shape:?}, where one row of scores per text or token is expected",
            outlet.name()
        )),
    }
}

/// A tensor of scores: its shape, and its numbers as float32.
pub(super) fn values(value: &DynValue) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    if value.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (shape, data) = value.try_extract_tensor::<f16>()?;
        return Ok((shape.to_vec(), data.iter().map(|&score| score.to_f32()).collect()));
    }
    let (shape, data) = value.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), data.to_vec()))
}

/// ZipMap's maps to rows: the runtime keeps a map's keys sorted, and so are scikit-learn's classes.
pub(super) fn maps(value: &DynValue, named: bool) -> ort::Result<Array2<f32>> {
    let maps = value.try_extract_sequence::<DynMapValueType>()?;
    let mut rows: Vec<Vec<f32>> = Vec::with_capacity(maps.len());
    for map in &maps {
        rows.push(if named {
            sorted(map.try_extract_key_values::<String, f32>()?)
        } else {
            sorted(map.try_extract_key_values::<i64, f32>()?)
        });
    }
    let width = rows.first().map_or(0, Vec::len);
    Array2::from_shape_vec((rows.len(), width), rows.concat()).map_err(|e| ort::Error::new(e.to_string()))
}

fn sorted<K: Ord>(mut pairs: Vec<(K, f32)>) -> Vec<f32> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.into_iter().map(|(_, score)| score).collect()
}

/// How a graph's own choice becomes a column of its scores.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) output: ChoiceOutput,
    /// Class names in column order.
    pub(super) names: Vec<String>,
    /// Class numbers in column order; none if they are the columns' own.
    pub(super) numbers: Vec<i64>,
}

impl Choice {
    pub(super) fn read(&self, outputs: &SessionOutputs<'_>) -> ort::Result<Vec<Option<usize>>> {
        let Some(value) = outputs.get(&self.output.name) else { return Ok(Vec::new()) };
        if let Ok((_, numbers)) = value.try_extract_tensor::<i64>() {
            let column = |number: &i64| match self.numbers.as_slice() {
                [] => usize::try_from(*number).ok(),
                numbers => numbers.iter().position(|n| n == number),
            };
            return Ok(numbers.iter().map(column).collect());
        }
        let (_, names) = value.try_extract_strings()?;
        Ok(names.iter().map(|name| self.names.iter().position(|n| n == name)).collect())
    }
}
