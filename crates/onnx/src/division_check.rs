//! Integer divisions that end the process.
//!
//! A processor traps on the smallest integer divided by -1, and ONNX Runtime (1.32) does not catch that in `Div`: one text
//! could end the server. A graph that divides integers by a constant with an element -1 is refused. Divisors that are
//! computed from the text are not seen here. The runtime itself catches a zero.

use std::collections::HashMap;

use super::graph::{Node, TensorData};
use super::scan_error::ScanError;

/// `TensorProto.DataType` of floats, and of the integers.
const FLOAT_TYPES: [i64; 2] = [1, 11];
const INTEGER_TYPES: [i64; 8] = [2, 3, 4, 5, 6, 7, 12, 13];
/// Most elements that are looked at: a divisor has few, a table of weights has many.
const MAX_ELEMENTS: usize = 4_096;

/// What is known of the constants of one graph and those around it.
#[derive(Debug)]
pub(super) struct ConstantScope<'o, 'a> {
    outer: Option<&'o ConstantScope<'o, 'a>>,
    elements: HashMap<&'a str, ElementFacts>,
}

/// Elements of a constant that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ElementFacts {
    /// They are floats: a cast makes integers of them.
    is_float: bool,
    /// One of them is -1 as an integer.
    has_minus_one: bool,
    /// One of them is 1 as an integer: its negative is -1.
    has_one: bool,
}

impl ElementFacts {
    fn is_relevant(self) -> bool {
        self.has_minus_one || self.has_one
    }

    fn from_integers(integers: &[i64]) -> Self {
        Self { is_float: false, has_minus_one: integers.contains(&-1), has_one: integers.contains(&1) }
    }

    /// A cast to integers cuts the fraction off.
    fn from_floats(floats: impl Iterator<Item = f64> + Clone) -> Self {
        let minus_one = floats.clone().any(|value| value > -2.0 && value <= -1.0);
        Self {
            is_float: true,
            has_minus_one: minus_one,
            has_one: floats.into_iter().any(|value| (1.0..2.0).contains(&value)),
        }
    }

    fn from_tensor(tensor: &TensorData<'_>) -> Self {
        let elements =
            tensor.dims.iter().fold(1_usize, |all, &dim| all.saturating_mul(usize::try_from(dim).unwrap_or(0)));
        if elements > MAX_ELEMENTS {
            return Self::default();
        }
        if let Some(integers) = tensor.integers() {
            return Self::from_integers(&integers);
        }
        tensor.floats().map(|floats| Self::from_floats(floats.into_iter())).unwrap_or_default()
    }

    /// Those of a `Constant` node, whatever attribute holds them.
    fn from_constant_node(node: &Node<'_>) -> Self {
        if let Some(tensor) = node.constant() {
            return Self::from_tensor(&tensor);
        }
        let mut found = Self::default();
        for attribute in node.attributes().filter_map(Result::ok) {
            let integers: Vec<i64> = attribute.integers.iter().copied().chain(attribute.integer).collect();
            match attribute.name {
                "value_int" | "value_ints" => found = Self::from_integers(&integers),
                "value_float" | "value_floats" => {
                    found = Self::from_floats(attribute.floats.iter().map(|&value| f64::from(value)));
                }
                _ => {}
            }
        }
        found
    }

    /// What a `ConstantOfShape` node fills a tensor with.
    fn from_fill_node(node: &Node<'_>) -> Self {
        let value = node.attribute("value");
        let tensor = value.as_ref().and_then(|value| TensorData::parse(value.tensors.first()?).ok());
        tensor.as_ref().map(Self::from_tensor).unwrap_or_default()
    }

    fn merge(self, other: Self) -> Self {
        Self {
            is_float: self.is_float || other.is_float,
            has_minus_one: self.has_minus_one || other.has_minus_one,
            has_one: self.has_one || other.has_one,
        }
    }
}

impl<'o, 'a> ConstantScope<'o, 'a> {
    /// Those of a graph within another one, or of a main graph.
    pub(super) fn with_outer(outer: Option<&'o ConstantScope<'o, 'a>>) -> Self {
        Self { outer, elements: HashMap::new() }
    }

    /// Adds a constant. Of one whose elements lie in another file nothing is known: it may hold -1.
    pub(super) fn add_constant(&mut self, name: &'a str, tensor: &TensorData<'a>, is_external: bool) {
        let is_integer = i64::try_from(tensor.data_type).is_ok_and(|kind| INTEGER_TYPES.contains(&kind));
        let elements = if is_external && is_integer {
            ElementFacts { is_float: false, has_minus_one: true, has_one: true }
        } else {
            ElementFacts::from_tensor(tensor)
        };
        self.record(name, elements);
    }

    /// Within another graph a harmless value hides one of its name outside.
    fn record(&mut self, name: &'a str, elements: ElementFacts) {
        if self.outer.is_some() || elements.is_relevant() {
            self.elements.insert(name, elements);
        }
    }

    /// Looks at a node whose inputs were seen before.
    ///
    /// # Errors
    /// [`ScanError::MinusOneDivisor`] if it divides integers by a constant with an element -1.
    pub(super) fn check_node(&mut self, node: &Node<'a>) -> Result<(), ScanError> {
        let divisor = node.inputs.get(1).and_then(|name| self.lookup(name)).unwrap_or_default();
        if node.op == "Div" && divisor.has_minus_one && !divisor.is_float {
            return Err(ScanError::MinusOneDivisor);
        }
        let Some(&output) = node.outputs.first() else { return Ok(()) };
        let elements = self.propagate(node);
        self.record(output, elements);
        Ok(())
    }

    /// What a node makes of constants; nothing of values that are computed from the text.
    fn propagate(&self, node: &Node<'a>) -> ElementFacts {
        let first = node.inputs.first().and_then(|name| self.lookup(name)).unwrap_or_default();
        match node.op {
            "Constant" => ElementFacts::from_constant_node(node),
            "ConstantOfShape" => ElementFacts::from_fill_node(node),
            "Neg" => ElementFacts { has_minus_one: first.has_one, has_one: first.has_minus_one, ..first },
            "Concat" => {
                let all = node.inputs.iter().filter_map(|name| self.lookup(name));
                all.fold(ElementFacts::default(), ElementFacts::merge)
            }
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand" | "Flatten" | "Transpose" | "Slice"
            | "Gather" | "Tile" | "Split" => first,
            "Cast" => match node.attribute("to").and_then(|to| to.integer) {
                Some(to) if INTEGER_TYPES.contains(&to) => ElementFacts { is_float: false, ..first },
                Some(to) if FLOAT_TYPES.contains(&to) => ElementFacts { is_float: true, ..first },
                _ => ElementFacts::default(),
            },
            _ => ElementFacts::default(),
        }
    }

    fn lookup(&self, name: &str) -> Option<ElementFacts> {
        match self.elements.get(name) {
            Some(elements) => Some(*elements),
            None => self.outer?.lookup(name),
        }
    }
}
