//! Integer divisions that end the process.
//!
//! A processor traps on the smallest integer divided by -1, and ONNX Runtime (1.32) does not catch that in `Div`: one text
//! could end the server. A graph that divides integers by a constant with an element -1 is refused. Divisors that are
//! computed from the text are not seen here. The runtime itself catches a zero.

use std::collections::HashMap;

use super::graph::Constant;
use super::proto::NodeProto;
use super::scan_error::ScanError;

/// `TensorProto.DataType` of floats, and of the integers.
const FLOAT_TYPES: [i64; 2] = [1, 11];
const INTEGER_TYPES: [i64; 8] = [2, 3, 4, 5, 6, 7, 12, 13];
/// Most elements that are looked at: a divisor has few, a table of weights has many.
const MAX_ELEMENTS: usize = 4_096;

/// What is known of the constants of one graph and those around it.
#[derive(Debug)]
pub(super) struct ConstantScope<'o> {
    outer: Option<&'o ConstantScope<'o>>,
    elements: HashMap<String, ElementFacts>,
}

/// Elements of a constant that matter.
#[derive(Debug, Clone, Copy, Default)]
struct ElementFacts {
    /// They are floats: a cast makes integers of them.
    is_float: bool,
    /// One of them is -1 as an integer.
    has_minus_one: bool,
    /// One of them is 1 as an integer: its negative is -1.
    has_one: bool,
}

impl ElementFacts {
    fn from_integers(integers: &[i64]) -> Self {
        Self { is_float: false, has_minus_one: integers.contains(&-1), has_one: integers.contains(&1) }
    }

    /// A cast to integers cuts the fraction off.
    fn from_floats(floats: &[f64]) -> Self {
        Self {
            is_float: true,
            has_minus_one: floats.iter().any(|&value| value > -2.0 && value <= -1.0),
            has_one: floats.iter().any(|value| (1.0..2.0).contains(value)),
        }
    }

    fn from_constant(constant: &Constant) -> Self {
        let sizes = constant.tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0));
        if sizes.fold(1, usize::saturating_mul) > MAX_ELEMENTS {
            return Self::default();
        }
        let integers = constant.integers().map(|integers| Self::from_integers(&integers));
        integers.or_else(|| Some(Self::from_floats(&constant.floats()?))).unwrap_or_default()
    }

    /// Those of a `Constant` node, whatever attribute holds them, or of what a `ConstantOfShape` node fills a tensor with.
    fn from_constant_node(node: &NodeProto) -> Self {
        if let Some(tensor) = node.value() {
            return Self::from_constant(&tensor);
        }
        let mut found = Self::default();
        for attribute in node.attributes().filter_map(Result::ok) {
            match attribute.name.as_str() {
                "value_int" | "value_ints" => {
                    let integers: Vec<i64> = attribute.ints.into_iter().chain(attribute.i).collect();
                    found = Self::from_integers(&integers);
                }
                "value_float" | "value_floats" => {
                    let floats: Vec<f64> = attribute.floats.into_iter().chain(attribute.f).map(f64::from).collect();
                    found = Self::from_floats(&floats);
                }
                _ => {}
            }
        }
        found
    }

    fn merge(self, other: Self) -> Self {
        Self {
            is_float: self.is_float || other.is_float,
            has_minus_one: self.has_minus_one || other.has_minus_one,
            has_one: self.has_one || other.has_one,
        }
    }
}

impl<'o> ConstantScope<'o> {
    /// Those of a graph within another one, or of a main graph.
    pub(super) fn with_outer(outer: Option<&'o ConstantScope<'o>>) -> Self {
        Self { outer, elements: HashMap::new() }
    }

    /// Adds a constant. Of one whose elements lie in another file nothing is known: it may hold -1.
    pub(super) fn add_constant(&mut self, constant: &Constant, is_external: bool) {
        let is_integer = INTEGER_TYPES.contains(&i64::from(constant.tensor.data_type));
        let elements = if is_external && is_integer {
            ElementFacts { is_float: false, has_minus_one: true, has_one: true }
        } else {
            ElementFacts::from_constant(constant)
        };
        self.record(&constant.tensor.name, elements);
    }

    /// Within another graph a harmless value hides one of its name outside.
    fn record(&mut self, name: &str, elements: ElementFacts) {
        if self.outer.is_some() || elements.has_minus_one || elements.has_one {
            self.elements.insert(name.to_owned(), elements);
        }
    }

    /// Looks at a node whose inputs were seen before.
    ///
    /// # Errors
    /// [`ScanError::MinusOneDivisor`] if it divides integers by a constant with an element -1.
    pub(super) fn check_node(&mut self, node: &NodeProto) -> Result<(), ScanError> {
        let divisor = self.input(node, 1);
        if node.op_type == "Div" && divisor.has_minus_one && !divisor.is_float {
            return Err(ScanError::MinusOneDivisor);
        }
        if let Some(output) = node.output.first() {
            self.record(output, self.propagate(node));
        }
        Ok(())
    }

    /// What a node makes of constants; nothing of values that are computed from the text.
    fn propagate(&self, node: &NodeProto) -> ElementFacts {
        let first = self.input(node, 0);
        match node.op_type.as_str() {
            "Constant" | "ConstantOfShape" => ElementFacts::from_constant_node(node),
            "Neg" => ElementFacts { has_minus_one: first.has_one, has_one: first.has_minus_one, ..first },
            "Concat" => {
                let all = node.input.iter().filter_map(|name| self.lookup(name));
                all.fold(ElementFacts::default(), ElementFacts::merge)
            }
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand" | "Flatten" | "Transpose" | "Slice"
            | "Gather" | "Tile" | "Split" => first,
            "Cast" => match node.integer_attribute("to") {
                Some(to) if INTEGER_TYPES.contains(&to) => ElementFacts { is_float: false, ..first },
                Some(to) if FLOAT_TYPES.contains(&to) => ElementFacts { is_float: true, ..first },
                _ => ElementFacts::default(),
            },
            _ => ElementFacts::default(),
        }
    }

    /// What is known of an input of a node.
    fn input(&self, node: &NodeProto, index: usize) -> ElementFacts {
        node.input.get(index).and_then(|name| self.lookup(name)).unwrap_or_default()
    }

    fn lookup(&self, name: &str) -> Option<ElementFacts> {
        self.elements.get(name).copied().or_else(|| self.outer?.lookup(name))
    }
}
