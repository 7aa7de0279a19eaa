//! Reads scores, and the graph's own choice, from the outputs of a run.

use half::f16;
use ndarray::Array2;
use ort::session::SessionOutputs;
use ort::value::{DynMapValueType, DynTensorValueType, DynValue, TensorElementType};

use super::messages::failed;
use super::output_schema::{ChoiceOutput, Output};
use crate::engine::session::RunError;

/// What to read from the outputs of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Rows of the batch.
    pub(super) rows: usize,
    /// Scores due per row: for an error.
    pub(super) width: usize,
    /// True if there are scores for each token, which stand in one row for each text.
    pub(super) per_token: bool,
}

impl Output {
    /// The scores: one row for each text.
    pub(super) fn read(&self, outputs: &SessionOutputs<'_>, expected: Expected) -> Result<Array2<f32>, RunError> {
        match self {
            Self::Tensor(name) => rows_of(value(outputs, name)?, expected),
            Self::Maps(name, named) => maps(value(outputs, name)?, *named).map_err(failed),
            Self::Columns(names) => {
                let columns: Result<Vec<_>, _> = names.iter().map(|name| column(value(outputs, name)?)).collect();
                side_by_side(&columns?, expected)
            }
            Self::Sequence(name) => {
                let tensors = value(outputs, name)?.try_extract_sequence::<DynTensorValueType>().map_err(failed)?;
                let columns: Result<Vec<_>, _> = tensors.iter().map(|tensor| second_of_two(tensor, expected)).collect();
                side_by_side(&columns?, expected)
            }
        }
    }
}

fn value<'v>(outputs: &'v SessionOutputs<'_>, name: &str) -> Result<&'v DynValue, RunError> {
    outputs.get(name).ok_or_else(|| RunError::Failed(format!("the run gave no output {name}")))
}

fn wrong_shape(expected: Expected, found: Vec<i64>) -> RunError {
    RunError::Shape { rows: expected.rows, width: expected.width, found }
}

fn rows_of(value: &DynValue, expected: Expected) -> Result<Array2<f32>, RunError> {
    let (shape, data) = values(value).map_err(failed)?;
    let (rows, width) = match shape[..] {
        [rows] => (rows, 1),
        [rows, tokens, width] if expected.per_token => (rows, tokens.saturating_mul(width)),
        [rows, width] | [rows, 1, width] => (rows, width),
        _ => return Err(wrong_shape(expected, shape)),
    };
    let dims = (usize::try_from(rows), usize::try_from(width));
    match dims {
        (Ok(rows), Ok(width)) => Array2::from_shape_vec((rows, width), data).map_err(|_| wrong_shape(expected, shape)),
        _ => Err(wrong_shape(expected, shape)),
    }
}

/// A tensor of one number for each text.
fn column(value: &DynValue) -> Result<Vec<f32>, RunError> {
    values(value).map(|(_, data)| data).map_err(failed)
}

/// The second of two numbers for each text: how probable a label is that is there or not.
fn second_of_two(tensor: &ort::value::Value<DynTensorValueType>, expected: Expected) -> Result<Vec<f32>, RunError> {
    let (shape, data) = tensor.try_extract_tensor::<f32>().map_err(failed)?;
    match shape[..] {
        [_, 2] => Ok(data.as_chunks::<2>().0.iter().map(|&[_, yes]| yes).collect()),
        _ => Err(wrong_shape(expected, shape.to_vec())),
    }
}

fn side_by_side(columns: &[Vec<f32>], expected: Expected) -> Result<Array2<f32>, RunError> {
    let rows = columns.first().map_or(0, Vec::len);
    if columns.iter().any(|column| column.len() != rows) {
        return Err(wrong_shape(
            expected,
            columns.iter().map(|column| i64::try_from(column.len()).unwrap_or(-1)).collect(),
        ));
    }
    let by_column = Array2::from_shape_vec((columns.len(), rows), columns.concat());
    by_column.map(|array| array.t().to_owned()).map_err(|_| wrong_shape(expected, Vec::new()))
}

/// A tensor of scores: its shape, and its numbers as float32.
fn values(value: &DynValue) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    if value.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (shape, data) = value.try_extract_tensor::<f16>()?;
        return Ok((shape.to_vec(), data.iter().map(|&score| score.to_f32()).collect()));
    }
    let (shape, data) = value.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), data.to_vec()))
}

/// ZipMap's maps to rows: the runtime keeps a map's keys sorted, and so are scikit-learn's classes.
fn maps(value: &DynValue, named: bool) -> ort::Result<Array2<f32>> {
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
            return Ok(numbers.iter().map(|number| self.column_of(*number)).collect());
        }
        let (_, names) = value.try_extract_strings()?;
        Ok(names.iter().map(|name| self.names.iter().position(|n| n == name)).collect())
    }

    fn column_of(&self, number: i64) -> Option<usize> {
        match self.numbers.as_slice() {
            [] => usize::try_from(number).ok(),
            numbers => numbers.iter().position(|n| *n == number),
        }
    }
}

/// The classes that an output lists: names, or numbers.
pub(super) fn listed_classes(value: &DynValue) -> ort::Result<(Vec<String>, Vec<i64>)> {
    match value.try_extract_tensor::<i64>() {
        Ok((_, numbers)) => Ok((Vec::new(), numbers.to_vec())),
        Err(_) => value.try_extract_strings().map(|(_, names)| (names, Vec::new())),
    }
}
