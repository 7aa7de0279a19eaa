//! What a graph's inputs take.

use std::collections::BTreeMap;

use ort::value::{Outlet, TensorElementType, ValueType};
use predictd_text::signature::{FixedAxes, GraphInput, IntegerWidth, TokenInput, TokenRole};

/// The inputs of a graph.
pub(super) struct InputSchema {
    pub(super) input: GraphInput,
    pub(super) fixed_axes: FixedAxes,
}

impl InputSchema {
    /// What the inputs mean: by their names, unless `roles` (from `model.toml`) says otherwise.
    ///
    /// # Errors
    /// One sentence that names the input.
    pub(super) fn new(inputs: &[Outlet], roles: &BTreeMap<String, TokenRole>) -> Result<Self, String> {
        let names: Vec<&str> = inputs.iter().map(Outlet::name).collect();
        if let Some(unknown) = roles.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(format!("model.toml: inputs names {unknown:?}, but the graph's inputs are {names:?}"));
        }
        if let [only] = inputs
            && let ValueType::Tensor { ty: TensorElementType::String, shape, .. } = only.dtype()
        {
            return Self::from_text_input(only.name(), shape);
        }
        if inputs.len() > 1 && inputs.iter().any(|input| input.dtype().tensor_type() == Some(TensorElementType::String))
        {
            return Err(format!(
                "its inputs {names:?} are the columns of a table, and a request has one text: train the pipeline on one column of text"
            ));
        }
        let mut fixed = FixedAxes::default();
        let mut tokens = Vec::with_capacity(inputs.len());
        for input in inputs {
            let name = input.name();
            let role = roles.get(name).copied().or_else(|| TokenRole::from_name(name)).ok_or_else(|| {
                format!(
                    "it asks for an input {name:?} that a text cannot give; if it takes token ids or the like, say so in model.toml: [inputs] {name:?} = \"input_ids\""
                )
            })?;
            let (width, shape) = integer_input(input)?;
            add_fixed_axes(&mut fixed, name, shape)?;
            tokens.push(TokenInput { name: name.to_owned(), role, width });
        }
        if tokens.iter().any(|input| input.role == TokenRole::InputIds) {
            Ok(Self { input: GraphInput::Tokens(tokens), fixed_axes: fixed })
        } else {
            Err("it has neither a string input nor one that takes token ids: name it in model.toml, as [inputs] NAME = \"input_ids\"".to_owned())
        }
    }

    fn from_text_input(name: &str, shape: &[i64]) -> Result<Self, String> {
        let one_row = match shape {
            [-1] | [-1, -1 | 1] => false,
            [1] | [1, -1 | 1] => true,
            [rows] | [rows, 1] => return Err(fixed_rows_error(name, *rows)),
            _ => return Err(format!("its string input {name} has shape {shape:?}, where [n] or [n, 1] is needed")),
        };
        let input = GraphInput::Texts { name: name.to_owned(), rank: shape.len() };
        Ok(Self { input, fixed_axes: FixedAxes { single_row: one_row, length: None } })
    }
}

fn integer_input(input: &Outlet) -> Result<(IntegerWidth, &[i64]), String> {
    let name = input.name();
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        return Err(format!("its input {name} is not a tensor"));
    };
    let width = match ty {
        TensorElementType::Int64 => IntegerWidth::Bits64,
        TensorElementType::Int32 => IntegerWidth::Bits32,
        other => return Err(format!("its input {name} holds {other}, where integers are needed")),
    };
    Ok((width, &shape[..]))
}

/// Adds the axes of one input.
fn add_fixed_axes(fixed: &mut FixedAxes, name: &str, shape: &[i64]) -> Result<(), String> {
    let &[rows, length] = shape else {
        return Err(format!("its input {name} has shape {shape:?}, where [n, length] is needed"));
    };
    match rows {
        -1 => {}
        1 => fixed.single_row = true,
        rows => return Err(fixed_rows_error(name, rows)),
    }
    if let Ok(length) = usize::try_from(length)
        && let Some(other) = fixed.length.replace(length).filter(|&other| other != length)
    {
        return Err(format!(
            "its input {name} has {length} tokens, and another input has {other}: export it with one sequence axis"
        ));
    }
    Ok(())
}

fn fixed_rows_error(input: &str, rows: i64) -> String {
    format!("its input {input} takes exactly {rows} rows: export it with a dynamic batch axis, or one of size 1")
}
