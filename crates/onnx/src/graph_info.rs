//! What a graph file says about itself, for the author of the model.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};
use predictd_engine::backend::{GraphInfo, TensorInfo};

use super::graph_scan::GraphScan;

/// Operators that measure a whole batch to scale it: a text's scores then depend on its neighbours.
const BATCH_DEPENDENT_OPERATORS: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"];

/// What the file says, and the runtime of its inputs and outputs.
pub(super) fn graph_info(scan: &GraphScan, session: &Session) -> GraphInfo {
    let found = BATCH_DEPENDENT_OPERATORS.iter().filter(|operator| scan.operators.contains(**operator));
    let mut external: Vec<String> = scan.external_tensors.iter().map(|tensor| tensor.location.clone()).collect();
    external.sort_unstable();
    external.dedup();
    GraphInfo {
        batch_dependent_operators: found.map(|&operator| operator.to_owned()).collect(),
        constant_types: scan.element_types.iter().map(|&number| file_element_name(number)).collect(),
        external_files: external,
        inputs: session.inputs().iter().map(tensor_info).collect(),
        outputs: session.outputs().iter().map(tensor_info).collect(),
    }
}

fn tensor_info(outlet: &Outlet) -> TensorInfo {
    let (element, dims) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let size = |(&size, symbol): (&i64, &String)| match (size, symbol.as_str()) {
                (-1, "") => "?".to_owned(),
                (-1, symbol) => symbol.to_owned(),
                (size, _) => size.to_string(),
            };
            (runtime_element_name(*ty), shape.iter().zip(dimension_symbols.iter()).map(size).collect())
        }
        other => (other.to_string(), Vec::new()),
    };
    TensorInfo { name: outlet.name().to_owned(), element, dims }
}

fn runtime_element_name(element: TensorElementType) -> String {
    match element {
        TensorElementType::Float16 => "float16",
        TensorElementType::Bfloat16 => "bfloat16",
        TensorElementType::Float32 => "float32",
        TensorElementType::Float64 => "float64",
        TensorElementType::Int32 => "int32",
        TensorElementType::Int64 => "int64",
        TensorElementType::String => "string",
        other => return other.to_string(),
    }
    .to_owned()
}

/// `TensorProto.DataType` by name.
fn file_element_name(number: i32) -> String {
    match number {
        1 => "float32",
        2 => "uint8",
        3 => "int8",
        4 => "uint16",
        5 => "int16",
        6 => "int32",
        7 => "int64",
        8 => "string",
        9 => "bool",
        10 => "float16",
        11 => "float64",
        12 => "uint32",
        13 => "uint64",
        16 => "bfloat16",
        21 => "uint4",
        22 => "int4",
        other => return format!("type {other}"),
    }
    .to_owned()
}
