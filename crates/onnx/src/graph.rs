//! The main graph of an ONNX file: nodes, constants, and which node computes a value.

use std::collections::{BTreeMap, HashMap};
use std::iter;

use bytes::Bytes;
use prost::Message;

use super::proto::{AttributeProto, NodeProto, TensorElements, TensorProto};
use super::scan_error::ScanError;

/// `TensorProto.DataType` of the elements that the analyses read.
const INT32: i32 = 6;
const INT64: i32 = 7;
const FLOAT: i32 = 1;
const DOUBLE: i32 = 11;

/// Most nodes that a value is followed back through.
const MAX_TRACE_STEPS: usize = 64;

/// Nodes and constants of the main graph.
#[derive(Debug, Default)]
pub(super) struct MainGraph {
    /// In file order, which is an order of computation.
    pub(super) nodes: Vec<NodeProto>,
    /// Constants by name.
    pub(super) initializers: BTreeMap<String, Constant>,
    producers: HashMap<String, usize>,
}

/// A constant tensor. Its elements are decoded when they are asked for.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    pub(super) tensor: TensorProto,
    encoded: Bytes,
}

impl MainGraph {
    /// Makes nodes findable by the values that they compute.
    pub(super) fn build_index(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            self.producers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.clone(), index)));
        }
    }

    /// The node that computes a value; none for inputs and constants.
    pub(super) fn producer(&self, value: &str) -> Option<&NodeProto> {
        self.nodes.get(*self.producers.get(value)?)
    }

    /// A constant: an initializer, or what a `Constant` node holds.
    pub(super) fn constant(&self, value: &str) -> Option<Constant> {
        match self.initializers.get(value) {
            Some(constant) => Some(constant.clone()),
            None => self.producer(value).filter(|node| node.op_type == "Constant")?.value(),
        }
    }

    /// Follows a value back through nodes that pass its elements on unchanged.
    pub(super) fn trace_back<'v>(&'v self, value: &'v str) -> &'v str {
        self.trace_back_while(value, NodeProto::is_passthrough)
    }

    /// Follows a value back through the first inputs of nodes of some kinds.
    pub(super) fn trace_back_while<'v>(&'v self, value: &'v str, passes: fn(&NodeProto) -> bool) -> &'v str {
        let values = iter::successors(Some(value), |value| {
            Some(self.producer(value).filter(|node| passes(node))?.input.first()?.as_str())
        });
        // A graph that is no graph may go round in circles.
        values.take(MAX_TRACE_STEPS + 1).last().unwrap_or(value)
    }
}

impl NodeProto {
    /// Its attributes, decoded one by one.
    pub(super) fn attributes(&self) -> impl Iterator<Item = Result<AttributeProto, ScanError>> + '_ {
        self.attribute.iter().map(|attribute| Ok(AttributeProto::decode(attribute.clone())?))
    }

    /// The attribute of this name.
    pub(super) fn find_attribute(&self, name: &str) -> Option<AttributeProto> {
        self.attributes().filter_map(Result::ok).find(|attribute| attribute.name == name)
    }

    /// The integer that the attribute of this name holds.
    pub(super) fn integer_attribute(&self, name: &str) -> Option<i64> {
        self.find_attribute(name)?.i
    }

    /// The tensor that its attribute `value` holds.
    pub(super) fn value(&self) -> Option<Constant> {
        self.find_attribute("value")?.constant()
    }

    /// True if its first output holds the elements of its first input, whatever their shape and type.
    pub(super) fn is_passthrough(&self) -> bool {
        matches!(
            self.op_type.as_str(),
            "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Dropout" | "DequantizeLinear"
        )
    }

    /// True if its first output holds some of the elements of its first input, rounded or cut off at a limit.
    pub(super) fn is_selection(&self) -> bool {
        matches!(
            self.op_type.as_str(),
            "Gather" | "Slice" | "Split" | "Clip" | "Transpose" | "Concat" | "QuantizeLinear"
        )
    }
}

impl AttributeProto {
    /// Its tensor.
    fn constant(&self) -> Option<Constant> {
        let encoded = match self.t.as_slice() {
            [] => return None,
            [whole] => whole.clone(),
            parts => parts.concat().into(),
        };
        Constant::decode(encoded).ok()
    }
}

impl Constant {
    /// Decodes all of a `TensorProto` but its elements.
    pub(super) fn decode(encoded: Bytes) -> Result<Self, ScanError> {
        Ok(Self { tensor: TensorProto::decode(encoded.clone())?, encoded })
    }

    fn typed_elements(&self) -> Option<TensorElements> {
        TensorElements::decode(self.encoded.clone()).ok()
    }

    /// Its elements, if they are 32 or 64 bit integers.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        match self.tensor.data_type {
            INT32 => self.elements(i32::from_le_bytes, |typed| typed.int32_data),
            INT64 => self.elements(i64::from_le_bytes, |typed| typed.int64_data),
            _ => None,
        }
    }

    /// Its elements, if they are strings in UTF-8.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        utf8_strings(&self.typed_elements()?.string_data).filter(|strings| !strings.is_empty())
    }

    /// Its elements, if they are floats of 32 or 64 bits.
    pub(super) fn floats(&self) -> Option<Vec<f64>> {
        match self.tensor.data_type {
            FLOAT => self.elements(f32::from_le_bytes, |typed| typed.float_data),
            DOUBLE => self.elements(f64::from_le_bytes, |typed| typed.double_data),
            _ => None,
        }
    }

    /// Its elements as the raw data holds them, or else the field of their type.
    fn elements<const N: usize, T, U: From<T>>(
        &self,
        from_raw: fn([u8; N]) -> T,
        from_typed: fn(TensorElements) -> Vec<T>,
    ) -> Option<Vec<U>> {
        let raw = &self.tensor.raw_data;
        let elements = if raw.is_empty() { from_typed(self.typed_elements()?) } else { decode_raw(raw, from_raw) };
        Some(elements.into_iter().map(U::from).collect())
    }
}

/// The strings, if all of them are UTF-8.
pub(super) fn utf8_strings(strings: &[Bytes]) -> Option<Vec<String>> {
    strings.iter().map(|string| String::from_utf8(string.to_vec()).ok()).collect()
}

/// The elements of raw tensor data, which is little-endian.
pub(super) fn decode_raw<const N: usize, T>(raw: &[u8], convert: fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
}
