//! Integer divisions that end the process.
//!
//! A processor traps on the smallest integer divided by -1, and ONNX Runtime (1.32) does not catch that in `Div`: one text
//! could end the server. A graph that divides integers by a constant with an element -1 is refused. Divisors that are
//! computed from the text are not seen here. The runtime itself catches a zero.

use std::collections::HashMap;

use super::graph::{Node, TensorData};
use super::scan::ScanError;

/// `TensorProto.DataType` of floats, and of the integers.
const FLOATS: [i64; 2] = [1, 11];
const INTEGERS: [i64; 8] = [2, 3, 4, 5, 6, 7, 12, 13];
/// Most elements that are looked at: a divisor has few, a table of weights has many.
const MAX_ELEMENTS: usize = 4_096;

/// What is known of the constants of one graph and those around it.
#[derive(Debug)]
pub(super) struct Constants<'o, 'a> {
    outer: Option<&'o Constants<'o, 'a>>,
    found: HashMap<&'a str, Elements>,
}

/// Elements of a constant that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Elements {
    /// They are floats: a cast makes integers of them.
    floats: bool,
    /// One of them is -1 as an integer.
    minus_one: bool,
    /// One of them is 1 as an integer: its negative is -1.
    one: bool,
}

impl Elements {
    fn matter(self) -> bool {
        self.minus_one || self.one
    }

    fn of_integers(integers: &[i64]) -> Self {
        Self { floats: false, minus_one: integers.contains(&-1), one: integers.contains(&1) }
    }

    /// A cast to integers cuts the fraction off.
    fn of_floats(floats: impl Iterator<Item = f64> + Clone) -> Self {
        let minus_one = floats.clone().any(|value| value > -2.0 && value <= -1.0);
        Self { floats: true, minus_one, one: floats.into_iter().any(|value| (1.0..2.0).contains(&value)) }
    }

    fn of_tensor(tensor: &TensorData<'_>) -> Self {
        let elements =
            tensor.dims.iter().fold(1_usize, |all, &dim| all.saturating_mul(usize::try_from(dim).unwrap_or(0)));
        if elements > MAX_ELEMENTS {
            return Self::default();
        }
        if let Some(integers) = tensor.integers() {
            return Self::of_integers(&integers);
        }
        tensor.floats().map(|floats| Self::of_floats(floats.into_iter())).unwrap_or_default()
    }

    /// Those of a `Constant` node, whatever attribute holds them.
    fn of_constant(node: &Node<'_>) -> Self {
        if let Some(tensor) = node.constant() {
            return Self::of_tensor(&tensor);
        }
        let mut found = Self::default();
        for attribute in node.attributes().filter_map(Result::ok) {
            let integers: Vec<i64> = attribute.integers.iter().copied().chain(attribute.integer).collect();
            match attribute.name {
                "value_int" | "value_ints" => found = Self::of_integers(&integers),
                "value_float" | "value_floats" => {
                    found = Self::of_floats(attribute.floats.iter().map(|&value| f64::from(value)));
                }
                _ => {}
            }
        }
        found
    }

    /// What a `ConstantOfShape` node fills a tensor with.
    fn of_fill(node: &Node<'_>) -> Self {
        let value = node.attribute("value");
        let tensor = value.as_ref().and_then(|value| TensorData::parse(value.tensors.first()?).ok());
        tensor.as_ref().map(Self::of_tensor).unwrap_or_default()
    }

    fn or(self, other: Self) -> Self {
        Self {
            floats: self.floats || other.floats,
            minus_one: self.minus_one || other.minus_one,
            one: self.one || other.one,
        }
    }
}

impl<'o, 'a> Constants<'o, 'a> {
    /// Those of a graph within another one, or of a main graph.
    pub(super) fn within(outer: Option<&'o Constants<'o, 'a>>) -> Self {
        Self { outer, found: HashMap::new() }
    }

    /// Adds a constant. Of one whose elements lie in another file nothing is known: it may hold -1.
    pub(super) fn add(&mut self, name: &'a str, tensor: &TensorData<'a>, is_external: bool) {
        let is_integer = i64::try_from(tensor.data_type).is_ok_and(|kind| INTEGERS.contains(&kind));
        let elements = if is_external && is_integer {
            Elements { floats: false, minus_one: true, one: true }
        } else {
            Elements::of_tensor(tensor)
        };
        self.remember(name, elements);
    }

    /// Within another graph a harmless value hides one of its name outside.
    fn remember(&mut self, name: &'a str, elements: Elements) {
        if self.outer.is_some() || elements.matter() {
            self.found.insert(name, elements);
        }
    }

    /// Looks at a node whose inputs were seen before.
    ///
    /// # Errors
    /// [`ScanError::Divisor`] if it divides integers by a constant with an element -1.
    pub(super) fn visit(&mut self, node: &Node<'a>) -> Result<(), ScanError> {
        let divisor = node.inputs.get(1).and_then(|name| self.elements_of(name)).unwrap_or_default();
        if node.op == "Div" && divisor.minus_one && !divisor.floats {
            return Err(ScanError::Divisor);
        }
        let Some(&output) = node.outputs.first() else { return Ok(()) };
        let elements = self.computed(node);
        self.remember(output, elements);
        Ok(())
    }

    /// What a node makes of constants; nothing of values that are computed from the text.
    fn computed(&self, node: &Node<'a>) -> Elements {
        let first = node.inputs.first().and_then(|name| self.elements_of(name)).unwrap_or_default();
        match node.op {
            "Constant" => Elements::of_constant(node),
            "ConstantOfShape" => Elements::of_fill(node),
            "Neg" => Elements { minus_one: first.one, one: first.minus_one, ..first },
            "Concat" => {
                let all = node.inputs.iter().filter_map(|name| self.elements_of(name));
                all.fold(Elements::default(), Elements::or)
            }
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand" | "Flatten" | "Transpose" | "Slice"
            | "Gather" | "Tile" | "Split" => first,
            "Cast" => match node.attribute("to").and_then(|to| to.integer) {
                Some(to) if INTEGERS.contains(&to) => Elements { floats: false, ..first },
                Some(to) if FLOATS.contains(&to) => Elements { floats: true, ..first },
                _ => Elements::default(),
            },
            _ => Elements::default(),
        }
    }

    fn elements_of(&self, name: &str) -> Option<Elements> {
        match self.found.get(name) {
            Some(elements) => Some(*elements),
            None => self.outer?.elements_of(name),
        }
    }
}
