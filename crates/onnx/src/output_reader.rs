//! Reads scores, and the graph's own choice, from the outputs of a run.

use half::f16;
use ndarray::Array2;
use ort::session::SessionOutputs;
use ort::value::{DynMapValueType, DynTensorValueType, DynValue, TensorElementType};
use predictd_engine::backend::BackendError;

use super::graph_analysis::ClassList;
use super::ort_messages::to_run_error;
use super::output_schema::ScoreLayout;

/// What to read from the outputs of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedShape {
    /// Rows of the batch.
    pub(super) rows: usize,
    /// Scores due per row: for an error.
    pub(super) width: usize,
    /// True if there are scores for each token, which stand in one row for each text.
    pub(super) per_token: bool,
}

impl ScoreLayout {
    /// The scores: one row for each text.
    pub(super) fn read_scores(
        &self,
        outputs: &SessionOutputs<'_>,
        expected: ExpectedShape,
    ) -> Result<Array2<f32>, BackendError> {
        match self {
            Self::Tensor(name) => read_rows(output_value(outputs, name)?, expected),
            Self::Maps(name, named) => read_maps(output_value(outputs, name)?, *named).map_err(to_run_error),
            Self::Columns(names) => {
                join_columns(names.iter().map(|name| read_column(output_value(outputs, name)?)), expected)
            }
            Self::Sequence(name) => {
                let tensors =
                    output_value(outputs, name)?.try_extract_sequence::<DynTensorValueType>().map_err(to_run_error)?;
                join_columns(tensors.iter().map(|tensor| read_positive_column(tensor, expected)), expected)
            }
        }
    }
}

fn output_value<'v>(outputs: &'v SessionOutputs<'_>, name: &str) -> Result<&'v DynValue, BackendError> {
    outputs.get(name).ok_or_else(|| BackendError::Failed(format!("the run gave no output {name}")))
}

fn shape_error(expected: ExpectedShape, found: Vec<i64>) -> BackendError {
    BackendError::OutputShape { rows: expected.rows, width: expected.width, found }
}

fn read_rows(value: &DynValue, expected: ExpectedShape) -> Result<Array2<f32>, BackendError> {
    let (shape, data) = tensor_values(value).map_err(to_run_error)?;
    let (rows, width) = match shape[..] {
        [rows] => (rows, 1),
        [rows, tokens, width] if expected.per_token => (rows, tokens.saturating_mul(width)),
        [rows, width] | [rows, 1, width] => (rows, width),
        _ => return Err(shape_error(expected, shape)),
    };
    let dims = usize::try_from(rows).ok().zip(usize::try_from(width).ok());
    dims.and_then(|dims| Array2::from_shape_vec(dims, data).ok()).ok_or_else(|| shape_error(expected, shape))
}

/// A tensor of one number for each text.
fn read_column(value: &DynValue) -> Result<Vec<f32>, BackendError> {
    tensor_values(value).map(|(_, data)| data).map_err(to_run_error)
}

/// The second of two numbers for each text: how probable a label is that is there or not.
fn read_positive_column(
    tensor: &ort::value::Value<DynTensorValueType>,
    expected: ExpectedShape,
) -> Result<Vec<f32>, BackendError> {
    let (shape, data) = tensor.try_extract_tensor::<f32>().map_err(to_run_error)?;
    match shape[..] {
        [_, 2] => Ok(data.as_chunks::<2>().0.iter().map(|&[_, yes]| yes).collect()),
        _ => Err(shape_error(expected, shape.to_vec())),
    }
}

fn join_columns(
    columns: impl Iterator<Item = Result<Vec<f32>, BackendError>>,
    expected: ExpectedShape,
) -> Result<Array2<f32>, BackendError> {
    let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
    let rows = columns.first().map_or(0, Vec::len);
    if columns.iter().any(|column| column.len() != rows) {
        return Err(shape_error(
            expected,
            columns.iter().map(|column| i64::try_from(column.len()).unwrap_or(-1)).collect(),
        ));
    }
    let by_column = Array2::from_shape_vec((columns.len(), rows), columns.concat());
    by_column.map(|array| array.t().to_owned()).map_err(|_| shape_error(expected, Vec::new()))
}

/// A tensor of scores: its shape, and its numbers as float32.
fn tensor_values(value: &DynValue) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    if value.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (shape, data) = value.try_extract_tensor::<f16>()?;
        return Ok((shape.to_vec(), data.iter().map(|&score| score.to_f32()).collect()));
    }
    let (shape, data) = value.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), data.to_vec()))
}

/// ZipMap's maps to rows: the runtime keeps a map's keys sorted, and so are scikit-learn's classes.
fn read_maps(value: &DynValue, named: bool) -> ort::Result<Array2<f32>> {
    let maps = value.try_extract_sequence::<DynMapValueType>()?;
    let rows = maps.iter().map(|map| {
        if named {
            map.try_extract_key_values::<String, f32>().map(sorted_scores)
        } else {
            map.try_extract_key_values::<i64, f32>().map(sorted_scores)
        }
    });
    let rows: Vec<_> = rows.collect::<ort::Result<_>>()?;
    let width = rows.first().map_or(0, Vec::len);
    Array2::from_shape_vec((rows.len(), width), rows.concat()).map_err(|e| ort::Error::new(e.to_string()))
}

fn sorted_scores<K: Ord>(mut pairs: Vec<(K, f32)>) -> Vec<f32> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.into_iter().map(|(_, score)| score).collect()
}

/// How a graph's own choice becomes a column of its scores.
#[derive(Debug, Clone)]
pub(super) struct LabelDecoder {
    /// Name of the output that holds the choice.
    pub(super) output_name: String,
    /// The classes in column order.
    pub(super) classes: ClassList,
}

impl LabelDecoder {
    pub(super) fn decode(&self, outputs: &SessionOutputs<'_>) -> ort::Result<Vec<Option<usize>>> {
        let Some(value) = outputs.get(&self.output_name) else { return Ok(Vec::new()) };
        if let Ok((_, numbers)) = value.try_extract_tensor::<i64>() {
            return Ok(numbers.iter().map(|number| self.column_index(*number)).collect());
        }
        let (_, names) = value.try_extract_strings()?;
        Ok(names.iter().map(|name| self.classes.names.iter().position(|n| n == name)).collect())
    }

    fn column_index(&self, number: i64) -> Option<usize> {
        match self.classes.numbers.as_slice() {
            [] => usize::try_from(number).ok(),
            numbers => numbers.iter().position(|n| *n == number),
        }
    }
}

/// The classes that an output lists: names, or numbers.
pub(super) fn read_class_list(value: &DynValue) -> ort::Result<ClassList> {
    match value.try_extract_tensor::<i64>() {
        Ok((_, numbers)) => Ok(ClassList { numbers: numbers.to_vec(), ..ClassList::default() }),
        Err(_) => value.try_extract_strings().map(|(_, names)| ClassList { names, ..ClassList::default() }),
    }
}
