//! Integer divisions that end the process.
//!
//! A processor traps on a division of integers by zero, and on the smallest integer divided by -1. ONNX Runtime does
//! not catch either, so one text could end the server. A graph that divides integers by such a constant is refused.
//! Divisors that are computed are not seen here.

use std::collections::HashMap;

use super::graph::{Node, TensorData};
use super::scan::ScanError;

/// `TensorProto.DataType` of float32, and of the integers.
const FLOAT: i64 = 1;
const INTEGERS: [i64; 8] = [2, 3, 4, 5, 6, 7, 12, 13];
/// Most elements that are looked at: a divisor has few, a table of weights has many.
const MAX_ELEMENTS: usize = 4_096;

/// What is known of constants with an element that is 0 or -1, in one graph and those around it.
#[derive(Debug)]
pub(super) struct Constants<'o, 'a> {
    outer: Option<&'o Constants<'o, 'a>>,
    found: HashMap<&'a str, Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Another value: it hides one of that name in an outer graph.
    Harmless,
    /// Floats with such an element.
    Float,
    /// Integers with such an element.
    Integer,
}

impl<'o, 'a> Constants<'o, 'a> {
    /// Those of a graph within another one, or of a main graph.
    pub(super) fn within(outer: Option<&'o Constants<'o, 'a>>) -> Self {
        Self { outer, found: HashMap::new() }
    }

    /// Adds a constant.
    pub(super) fn add(&mut self, name: &'a str, tensor: &TensorData<'a>) {
        self.remember(name, kind(tensor));
    }

    /// Within another graph a harmless value hides one of its name outside.
    fn remember(&mut self, name: &'a str, kind: Kind) {
        if self.outer.is_some() || kind != Kind::Harmless {
            self.found.insert(name, kind);
        }
    }

    /// Looks at a node whose inputs were seen before.
    ///
    /// # Errors
    /// [`ScanError::Divisor`] if it divides integers by a constant that is 0 or -1.
    pub(super) fn visit(&mut self, node: &Node<'a>) -> Result<(), ScanError> {
        let second = node.inputs.get(1).and_then(|name| self.kind_of(name));
        if matches!(node.op, "Div" | "Mod") && second == Some(Kind::Integer) {
            return Err(ScanError::Divisor(node.op.to_owned()));
        }
        let Some(&output) = node.outputs.first() else { return Ok(()) };
        if let Some(constant) = node.constant() {
            self.add(output, &constant);
            return Ok(());
        }
        let first = node.inputs.first().and_then(|name| self.kind_of(name));
        let kind = match (node.op, first) {
            ("Constant", _) => scalar(node),
            ("ConstantOfShape", _) => fill(node),
            ("Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand" | "Flatten" | "Transpose", Some(kind)) => kind,
            ("Cast", Some(Kind::Float | Kind::Integer)) => match node.attribute("to").and_then(|to| to.integer) {
                Some(to) if INTEGERS.contains(&to) => Kind::Integer,
                Some(FLOAT) => Kind::Float,
                _ => Kind::Harmless,
            },
            _ => Kind::Harmless,
        };
        self.remember(output, kind);
        Ok(())
    }

    fn kind_of(&self, name: &str) -> Option<Kind> {
        match self.found.get(name) {
            Some(kind) => Some(*kind),
            None => self.outer?.kind_of(name),
        }
    }
}

fn kind(tensor: &TensorData<'_>) -> Kind {
    let elements = tensor.dims.iter().fold(1_usize, |all, &dim| all.saturating_mul(usize::try_from(dim).unwrap_or(0)));
    if elements > MAX_ELEMENTS {
        return Kind::Harmless;
    }
    if tensor.integers().is_some_and(|integers| integers.iter().any(|&value| value == 0 || value == -1)) {
        return Kind::Integer;
    }
    // A cast to integers cuts the fraction off.
    if tensor.floats().is_some_and(|floats| floats.iter().any(|&value| value > -2.0 && value < 1.0)) {
        return Kind::Float;
    }
    Kind::Harmless
}

/// The kind of a `Constant` node that holds numbers instead of a tensor.
fn scalar(node: &Node<'_>) -> Kind {
    let integers = ["value_int", "value_ints"].into_iter().filter_map(|name| node.attribute(name));
    let harmful = integers
        .flat_map(|attribute| attribute.integers.into_iter().chain(attribute.integer))
        .any(|value| value == 0 || value == -1);
    if harmful { Kind::Integer } else { Kind::Harmless }
}

/// The kind of what a `ConstantOfShape` node fills a tensor with.
fn fill(node: &Node<'_>) -> Kind {
    let value = node.attribute("value");
    let tensor = value.as_ref().and_then(|value| TensorData::parse(value.tensors.first()?).ok());
    // Without a value it fills with the float 0.
    tensor.as_ref().map_or(Kind::Float, kind)
}
