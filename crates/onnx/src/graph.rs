//! The main graph of an ONNX file: nodes, constants, and which node computes a value.

use std::collections::HashMap;

use super::protobuf::{FieldValue, MessageFields, parse_utf8, read_packed};
use super::scan_error::ScanError;

/// `TensorProto.DataType` of integers that the analyses read.
pub(super) const INT32: u64 = 6;
pub(super) const INT64: u64 = 7;
const FLOAT: u64 = 1;
const DOUBLE: u64 = 11;

/// Most nodes that a value is followed back through.
const MAX_TRACE_STEPS: usize = 64;

/// Nodes and constants of the main graph.
#[derive(Debug, Default)]
pub(super) struct MainGraph<'a> {
    /// In file order, which is an order of computation.
    pub(super) nodes: Vec<Node<'a>>,
    /// Constants, with their data where it stands in the graph file.
    pub(super) initializers: Vec<TensorData<'a>>,
    /// Names of the outputs, in the graph's order.
    pub(super) outputs: Vec<&'a str>,
    producers: HashMap<&'a str, usize>,
    constants: HashMap<&'a str, usize>,
}

/// A node, with its attributes unparsed.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    /// Operator.
    pub(super) op: &'a str,
    /// Names of the values that it reads; empty for an optional one that is left out.
    pub(super) inputs: Vec<&'a str>,
    /// Names of the values that it computes.
    pub(super) outputs: Vec<&'a str>,
    bytes: &'a [u8],
}

/// An attribute of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) integer: Option<i64>,
    pub(super) floats: Vec<f32>,
    pub(super) integers: Vec<i64>,
    pub(super) strings: Vec<&'a [u8]>,
    pub(super) tensors: Vec<&'a [u8]>,
    pub(super) sparse_tensors: Vec<&'a [u8]>,
    pub(super) graphs: Vec<&'a [u8]>,
}

/// A constant tensor.
#[derive(Debug, Clone, Default)]
pub(super) struct TensorData<'a> {
    /// Name within its graph.
    pub(super) name: &'a str,
    /// Shape.
    pub(super) dims: Vec<i64>,
    /// `TensorProto.DataType` number.
    pub(super) data_type: u64,
    /// Little-endian elements; empty where they stand in fields of their own type, or in another file.
    pub(super) raw: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> MainGraph<'a> {
    /// Adds the name of a `ValueInfoProto` to the outputs.
    pub(super) fn add_output(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        for field in MessageFields(bytes) {
            if let (1, FieldValue::Bytes(name)) = field? {
                self.outputs.push(parse_utf8(name)?);
            }
        }
        Ok(())
    }

    /// Makes nodes and constants findable by name.
    pub(super) fn build_index(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            self.producers.extend(node.outputs.iter().filter(|name| !name.is_empty()).map(|name| (*name, index)));
        }
        self.constants = self.initializers.iter().enumerate().map(|(index, tensor)| (tensor.name, index)).collect();
    }

    /// The node that computes a value; none for inputs and constants.
    pub(super) fn producer(&self, value: &str) -> Option<&Node<'a>> {
        self.nodes.get(*self.producers.get(value)?)
    }

    /// A constant: an initializer, or what a `Constant` node holds.
    pub(super) fn constant(&self, value: &str) -> Option<TensorData<'a>> {
        if let Some(&index) = self.constants.get(value) {
            return self.initializers.get(index).cloned();
        }
        self.producer(value).and_then(Node::constant)
    }

    /// Follows a value back through nodes that pass its elements on unchanged.
    pub(super) fn trace_back<'v>(&'v self, value: &'v str) -> &'v str {
        self.trace_back_while(value, Node::is_passthrough)
    }

    /// Follows a value back through the first inputs of nodes of some kinds.
    pub(super) fn trace_back_while<'v>(&'v self, value: &'v str, passes: fn(&Node<'a>) -> bool) -> &'v str {
        let mut value = value;
        // A graph that is no graph may go round in circles.
        for _ in 0..MAX_TRACE_STEPS {
            match self.producer(value) {
                Some(node) if passes(node) => match node.inputs.first() {
                    Some(input) => value = input,
                    None => return value,
                },
                _ => return value,
            }
        }
        value
    }
}

impl<'a> Node<'a> {
    /// Reads a `NodeProto`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let mut node = Self { op: "", inputs: Vec::new(), outputs: Vec::new(), bytes };
        for field in MessageFields(bytes) {
            match field? {
                (1, FieldValue::Bytes(name)) => node.inputs.push(parse_utf8(name)?),
                (2, FieldValue::Bytes(name)) => node.outputs.push(parse_utf8(name)?),
                (4, FieldValue::Bytes(op)) => node.op = parse_utf8(op)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// Its attributes, parsed one by one.
    pub(super) fn attributes(&self) -> impl Iterator<Item = Result<Attribute<'a>, ScanError>> + use<'a> {
        MessageFields(self.bytes).filter_map(|field| match field {
            Ok((5, FieldValue::Bytes(attribute))) => Some(Attribute::parse(attribute)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// The attribute of this name.
    pub(super) fn attribute(&self, name: &str) -> Option<Attribute<'a>> {
        self.attributes().filter_map(Result::ok).find(|attribute| attribute.name == name)
    }

    /// The tensor of a `Constant` node.
    pub(super) fn constant(&self) -> Option<TensorData<'a>> {
        if self.op != "Constant" {
            return None;
        }
        let name = self.outputs.first().copied().unwrap_or_default();
        let tensor = *self.attribute("value")?.tensors.first()?;
        TensorData::parse(tensor).ok().map(|tensor| TensorData { name, ..tensor })
    }

    /// True if its first output holds the elements of its first input, whatever their shape and type.
    pub(super) fn is_passthrough(&self) -> bool {
        matches!(
            self.op,
            "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Dropout" | "DequantizeLinear"
        )
    }

    /// True if its first output holds some of the elements of its first input, rounded or cut off at a limit.
    pub(super) fn is_selection(&self) -> bool {
        matches!(self.op, "Gather" | "Slice" | "Split" | "Clip" | "Transpose" | "Concat" | "QuantizeLinear")
    }
}

impl<'a> Attribute<'a> {
    /// Reads an `AttributeProto`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let mut attribute = Self::default();
        for field in MessageFields(bytes) {
            match field? {
                (1, FieldValue::Bytes(name)) => attribute.name = parse_utf8(name)?,
                (2 | 7, FieldValue::Fixed32(float)) => attribute.floats.push(f32::from_le_bytes(float)),
                (7, FieldValue::Bytes(packed)) => {
                    attribute.floats.extend(packed.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)));
                }
                (3, FieldValue::Varint(number)) => attribute.integer = Some(number.cast_signed()),
                (5 | 10, FieldValue::Bytes(tensor)) => attribute.tensors.push(tensor),
                (6 | 11, FieldValue::Bytes(graph)) => attribute.graphs.push(graph),
                (8, FieldValue::Varint(number)) => attribute.integers.push(number.cast_signed()),
                (8, FieldValue::Bytes(packed)) => read_packed(packed, &mut attribute.integers)?,
                (9, FieldValue::Bytes(string)) => attribute.strings.push(string),
                (22 | 23, FieldValue::Bytes(sparse)) => attribute.sparse_tensors.push(sparse),
                _ => {}
            }
        }
        Ok(attribute)
    }

    /// Its strings, if all of them are UTF-8.
    pub(super) fn utf8_strings(&self) -> Option<Vec<String>> {
        self.strings.iter().map(|string| std::str::from_utf8(string).ok().map(str::to_owned)).collect()
    }
}

impl<'a> TensorData<'a> {
    /// Reads a `TensorProto`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let mut tensor = Self { bytes, ..Self::default() };
        for field in MessageFields(bytes) {
            match field? {
                (1, FieldValue::Varint(dim)) => tensor.dims.push(dim.cast_signed()),
                (1, FieldValue::Bytes(packed)) => read_packed(packed, &mut tensor.dims)?,
                (2, FieldValue::Varint(data_type)) => tensor.data_type = data_type,
                (8, FieldValue::Bytes(name)) => tensor.name = parse_utf8(name)?,
                (9, FieldValue::Bytes(raw)) => tensor.raw = raw,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// Its elements, if they are 32 or 64 bit integers.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        match self.data_type {
            INT32 if !self.raw.is_empty() => {
                Some(self.raw.as_chunks().0.iter().map(|chunk| i64::from(i32::from_le_bytes(*chunk))).collect())
            }
            INT64 if !self.raw.is_empty() => {
                Some(self.raw.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
            }
            INT32 => self.typed_integers(5),
            INT64 => self.typed_integers(7),
            _ => None,
        }
    }

    fn typed_integers(&self, number: u64) -> Option<Vec<i64>> {
        let mut integers = Vec::new();
        for field in MessageFields(self.bytes) {
            match field.ok()? {
                (found, FieldValue::Varint(value)) if found == number => integers.push(value.cast_signed()),
                (found, FieldValue::Bytes(packed)) if found == number => read_packed(packed, &mut integers).ok()?,
                _ => {}
            }
        }
        Some(integers)
    }

    /// Its elements, if they are strings in UTF-8.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        let mut strings = Vec::new();
        for field in MessageFields(self.bytes) {
            if let (6, FieldValue::Bytes(string)) = field.ok()? {
                strings.push(parse_utf8(string).ok()?.to_owned());
            }
        }
        Some(strings).filter(|strings| !strings.is_empty())
    }

    /// Its elements, if they are floats of 32 or 64 bits.
    pub(super) fn floats(&self) -> Option<Vec<f64>> {
        match self.data_type {
            FLOAT if !self.raw.is_empty() => Some(f32_values(self.raw)),
            DOUBLE if !self.raw.is_empty() => Some(f64_values(self.raw)),
            FLOAT | DOUBLE => self.typed_floats(),
            _ => None,
        }
    }

    fn typed_floats(&self) -> Option<Vec<f64>> {
        let mut floats = Vec::new();
        for field in MessageFields(self.bytes) {
            match field.ok()? {
                (4, FieldValue::Fixed32(float)) => floats.push(f64::from(f32::from_le_bytes(float))),
                (4, FieldValue::Bytes(packed)) => floats.extend(f32_values(packed)),
                (10, FieldValue::Fixed64(float)) => floats.push(f64::from_le_bytes(float)),
                (10, FieldValue::Bytes(packed)) => floats.extend(f64_values(packed)),
                _ => {}
            }
        }
        Some(floats)
    }
}

fn f32_values(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|chunk| f64::from(f32::from_le_bytes(*chunk))).collect()
}

fn f64_values(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect()
}
