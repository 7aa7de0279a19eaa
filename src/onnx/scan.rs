//! Reads what matters of an ONNX file without trusting it.
//!
//! ONNX files are protobuf messages (field numbers: `onnx.proto`, ONNX 1.x). The scan visits every tensor of every
//! graph, because a tensor may name a file to read: only initializers of the main graph may. Each inner graph (a branch
//! of `If`, a body of `Loop` or `Scan`) is a scope of its own: its constants never mix with those of the main graph.
//! Depth and sizes are bounded; tensor data is not copied.

use std::collections::BTreeSet;

use super::constants::Constants;
use super::external::{ExternalData, ExternalTensor, refuse_external, refuse_external_sparse};
use super::graph::{Attribute, MainGraph, Node, TensorData};
use super::wire::{Fields, Value};

/// Deepest nesting of graphs, functions and attributes.
const MAX_DEPTH: usize = 64;
/// Most nodes of the main graph: the largest language models have some ten thousand.
const MAX_NODES: usize = 1_000_000;

/// What a graph file holds, as far as loading it needs.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    /// Nodes and constants of the main graph.
    pub(super) main: MainGraph<'a>,
    /// Names of the constants of all inner graphs.
    pub(super) inner_constants: BTreeSet<&'a str>,
    /// Files that initializers of the main graph lie in.
    pub(super) external: Vec<ExternalTensor>,
    /// Operators used anywhere.
    pub(super) operators: BTreeSet<&'a str>,
    /// `TensorProto.DataType` numbers of all initializers.
    pub(super) element_types: BTreeSet<u64>,
}

/// Why a file is not an acceptable ONNX graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanError {
    /// Cut off or not protobuf.
    #[error("it is damaged or not an ONNX file")]
    Malformed,
    /// Nested too deeply.
    #[error("its graphs are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More nodes than any model needs.
    #[error("it has more than {MAX_NODES} nodes")]
    TooManyNodes,
    /// Protobuf, but no graph in it.
    #[error("it holds no graph")]
    NoGraph,
    /// External data where it is not allowed, or described twice.
    #[error("it keeps the data of a tensor in another file in a way that is not accepted: only plain initializers may")]
    ExternalData,
    /// A division of integers that can end the process.
    #[error("a node Div divides integers by a constant -1, which ends the process for the smallest integer: use Neg")]
    Divisor,
}

/// Walks a serialised `ModelProto`.
///
/// # Errors
/// [`ScanError`] if the file is malformed, uses external data beyond plain initializers, or divides integers by -1.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan<'_>, ScanError> {
    let mut scan = Scan::default();
    let mut graphs = 0;
    for field in Fields(bytes) {
        match field? {
            (7, Value::Bytes(graph)) => {
                graphs += 1;
                scan.graph(graph, 0, None)?;
            }
            (25, Value::Bytes(function)) => scan.function(function)?,
            // Training information: serving never needs it.
            (20, Value::Bytes(_)) => return Err(ScanError::ExternalData),
            _ => {}
        }
    }
    if graphs != 1 {
        return Err(ScanError::NoGraph);
    }
    scan.main.index();
    Ok(scan)
}

impl<'a> Scan<'a> {
    fn graph(&mut self, bytes: &'a [u8], depth: usize, outer: Option<&Constants<'_, 'a>>) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        let mut constants = Constants::within(outer);
        let mut nodes = Vec::new();
        // A node may stand before the constants that it reads.
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(node)) => nodes.push(node),
                (5, Value::Bytes(tensor)) => self.initializer(tensor, depth == 0, &mut constants)?,
                (12, Value::Bytes(output)) if depth == 0 => self.main.add_output(output)?,
                (15, Value::Bytes(sparse)) => refuse_external_sparse(sparse)?,
                _ => {}
            }
        }
        self.nodes(&nodes, depth, &mut constants)
    }

    fn nodes(&mut self, nodes: &[&'a [u8]], depth: usize, constants: &mut Constants<'_, 'a>) -> Result<(), ScanError> {
        if depth == 0 && nodes.len() > MAX_NODES {
            return Err(ScanError::TooManyNodes);
        }
        for bytes in nodes {
            let node = Node::parse(bytes)?;
            self.operators.insert(node.op);
            constants.visit(&node)?;
            for attribute in node.attributes() {
                self.attribute(&attribute?, depth, constants)?;
            }
            if depth == 0 {
                self.main.nodes.push(node);
            }
        }
        Ok(())
    }

    fn function(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        let mut constants = Constants::within(None);
        let mut nodes = Vec::new();
        for field in Fields(bytes) {
            match field? {
                (7, Value::Bytes(node)) => nodes.push(node),
                (11, Value::Bytes(attribute)) => self.attribute(&Attribute::parse(attribute)?, 1, &constants)?,
                _ => {}
            }
        }
        self.nodes(&nodes, 1, &mut constants)
    }

    fn attribute(
        &mut self,
        attribute: &Attribute<'a>,
        depth: usize,
        constants: &Constants<'_, 'a>,
    ) -> Result<(), ScanError> {
        for tensor in &attribute.tensors {
            refuse_external(tensor)?;
        }
        for sparse in &attribute.sparse_tensors {
            refuse_external_sparse(sparse)?;
        }
        for graph in &attribute.graphs {
            self.graph(graph, depth + 1, Some(constants))?;
        }
        Ok(())
    }

    fn initializer(
        &mut self,
        bytes: &'a [u8],
        in_main_graph: bool,
        constants: &mut Constants<'_, 'a>,
    ) -> Result<(), ScanError> {
        let tensor = TensorData::parse(bytes)?;
        let external = ExternalData::of_tensor(bytes)?;
        self.element_types.insert(tensor.data_type);
        constants.add(tensor.name, &tensor, external.is_some());
        match external {
            Some(_) if !in_main_graph || !tensor.raw.is_empty() => return Err(ScanError::ExternalData),
            Some(data) => self.external.push(data),
            None => {}
        }
        if in_main_graph {
            self.main.initializers.push(tensor);
        } else {
            self.inner_constants.insert(tensor.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes one length-delimited field.
    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        assert!(content.len() < 128);
        bytes.push(u8::try_from(content.len()).unwrap());
        bytes.extend_from_slice(content);
        bytes
    }

    fn tensor(location: &[&str]) -> Vec<u8> {
        let mut tensor = message(8, b"w");
        for location in location {
            tensor.extend(message(13, &[message(1, b"location"), message(2, location.as_bytes())].concat()));
        }
        tensor.extend([14 << 3, 1]);
        tensor
    }

    #[test]
    fn external_data_of_initializers_is_found() {
        let model = message(7, &message(5, &tensor(&["weights.bin"])));
        let scan = scan(&model).unwrap();
        assert_eq!(scan.external, [ExternalTensor { location: "weights.bin".to_owned(), offset: 0, length: None }]);
    }

    #[test]
    fn external_data_elsewhere_is_refused() {
        let constant = message(7, &message(1, &message(5, &message(5, &tensor(&["x"])))));
        let inner_graph = message(7, &message(1, &message(5, &message(6, &message(5, &tensor(&["x"]))))));
        let sparse = message(7, &message(15, &message(1, &tensor(&["x"]))));
        let twice = message(7, &message(5, &tensor(&["x", "/etc/passwd"])));
        for model in [constant, inner_graph, sparse, twice] {
            assert_eq!(scan(&model).unwrap_err(), ScanError::ExternalData);
        }
    }

    #[test]
    fn constants_of_inner_graphs_are_not_those_of_the_main_graph() {
        let branch = message(5, &message(6, &message(5, &message(8, b"w"))));
        let model = message(7, &[message(1, &branch), message(5, &message(8, b"v"))].concat());
        let scan = scan(&model).unwrap();
        let names: Vec<&str> = scan.main.initializers.iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["v"]);
        assert!(scan.inner_constants.contains("w"));
    }

    #[test]
    fn deep_nesting_and_other_files_are_refused() {
        assert_eq!(scan(b"").unwrap_err(), ScanError::NoGraph);
        assert_eq!(scan(b"<html>").unwrap_err(), ScanError::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            _ = scan(&bytes);
        }
    }
}
