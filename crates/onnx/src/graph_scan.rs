//! Reads what matters of an ONNX file without trusting it.
//!
//! ONNX files are protobuf messages (field numbers: `onnx.proto`, ONNX 1.x). The scan visits every tensor of every
//! graph, because a tensor may name a file to read: only initializers of the main graph may. Each inner graph (a branch
//! of `If`, a body of `Loop` or `GraphScan`) is a scope of its own: its constants never mix with those of the main graph.
//! Depth and sizes are bounded; tensor data is not copied.

use std::collections::BTreeSet;

use super::division_check::ConstantScope;
use super::external_data::{ExternalData, ExternalTensor, reject_external, reject_external_sparse};
use super::graph::{Attribute, MainGraph, Node, TensorData};
use super::protobuf::{FieldValue, MessageFields};
use super::scan_error::{MAX_DEPTH, MAX_NODES, ScanError};

/// What a graph file holds, as far as loading it needs.
#[derive(Debug, Default)]
pub(super) struct GraphScan<'a> {
    /// Nodes and constants of the main graph.
    pub(super) main_graph: MainGraph<'a>,
    /// Names of the constants of all inner graphs.
    pub(super) inner_constants: BTreeSet<&'a str>,
    /// Files that initializers of the main graph lie in.
    pub(super) external_tensors: Vec<ExternalTensor>,
    /// Operators used anywhere.
    pub(super) operators: BTreeSet<&'a str>,
    /// `TensorProto.DataType` numbers of all initializers.
    pub(super) element_types: BTreeSet<u64>,
}

/// Walks a serialised `ModelProto`.
///
/// # Errors
/// [`ScanError`] if the file is malformed, uses external data beyond plain initializers, or divides integers by -1.
pub(super) fn scan_graph(bytes: &[u8]) -> Result<GraphScan<'_>, ScanError> {
    let mut scan = GraphScan::default();
    let mut graphs = 0;
    for field in MessageFields(bytes) {
        match field? {
            (7, FieldValue::Bytes(graph)) => {
                graphs += 1;
                scan.visit_graph(graph, 0, None)?;
            }
            (25, FieldValue::Bytes(function)) => scan.visit_function(function)?,
            // Training information: serving never needs it.
            (20, FieldValue::Bytes(_)) => return Err(ScanError::ExternalData),
            _ => {}
        }
    }
    if graphs != 1 {
        return Err(ScanError::NoGraph);
    }
    scan.main_graph.build_index();
    Ok(scan)
}

impl<'a> GraphScan<'a> {
    fn visit_graph(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
        outer: Option<&ConstantScope<'_, 'a>>,
    ) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        let mut constants = ConstantScope::with_outer(outer);
        let mut nodes = Vec::new();
        // A node may stand before the constants that it reads.
        for field in MessageFields(bytes) {
            match field? {
                (1, FieldValue::Bytes(node)) => nodes.push(node),
                (5, FieldValue::Bytes(tensor)) => self.visit_initializer(tensor, depth == 0, &mut constants)?,
                (12, FieldValue::Bytes(output)) if depth == 0 => self.main_graph.add_output(output)?,
                (15, FieldValue::Bytes(sparse)) => reject_external_sparse(sparse)?,
                _ => {}
            }
        }
        self.visit_nodes(&nodes, depth, &mut constants)
    }

    fn visit_nodes(
        &mut self,
        nodes: &[&'a [u8]],
        depth: usize,
        constants: &mut ConstantScope<'_, 'a>,
    ) -> Result<(), ScanError> {
        if depth == 0 && nodes.len() > MAX_NODES {
            return Err(ScanError::TooManyNodes);
        }
        for bytes in nodes {
            let node = Node::parse(bytes)?;
            self.operators.insert(node.op);
            constants.check_node(&node)?;
            for attribute in node.attributes() {
                self.visit_attribute(&attribute?, depth, constants)?;
            }
            if depth == 0 {
                self.main_graph.nodes.push(node);
            }
        }
        Ok(())
    }

    fn visit_function(&mut self, bytes: &'a [u8]) -> Result<(), ScanError> {
        let mut constants = ConstantScope::with_outer(None);
        let mut nodes = Vec::new();
        for field in MessageFields(bytes) {
            match field? {
                (7, FieldValue::Bytes(node)) => nodes.push(node),
                (11, FieldValue::Bytes(attribute)) => {
                    self.visit_attribute(&Attribute::parse(attribute)?, 1, &constants)?;
                }
                _ => {}
            }
        }
        self.visit_nodes(&nodes, 1, &mut constants)
    }

    fn visit_attribute(
        &mut self,
        attribute: &Attribute<'a>,
        depth: usize,
        constants: &ConstantScope<'_, 'a>,
    ) -> Result<(), ScanError> {
        for tensor in &attribute.tensors {
            reject_external(tensor)?;
        }
        for sparse in &attribute.sparse_tensors {
            reject_external_sparse(sparse)?;
        }
        for graph in &attribute.graphs {
            self.visit_graph(graph, depth + 1, Some(constants))?;
        }
        Ok(())
    }

    fn visit_initializer(
        &mut self,
        bytes: &'a [u8],
        in_main_graph: bool,
        constants: &mut ConstantScope<'_, 'a>,
    ) -> Result<(), ScanError> {
        let tensor = TensorData::parse(bytes)?;
        let external = ExternalData::parse_tensor(bytes)?;
        self.element_types.insert(tensor.data_type);
        constants.add_constant(tensor.name, &tensor, external.is_some());
        match external {
            Some(_) if !in_main_graph || !tensor.raw.is_empty() => return Err(ScanError::ExternalData),
            Some(data) => self.external_tensors.push(data),
            None => {}
        }
        if in_main_graph {
            self.main_graph.initializers.push(tensor);
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
    fn encode_field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        assert!(content.len() < 128);
        bytes.push(u8::try_from(content.len()).unwrap());
        bytes.extend_from_slice(content);
        bytes
    }

    fn encode_tensor(location: &[&str]) -> Vec<u8> {
        let mut tensor = encode_field(8, b"w");
        for location in location {
            tensor.extend(encode_field(
                13,
                &[encode_field(1, b"location"), encode_field(2, location.as_bytes())].concat(),
            ));
        }
        tensor.extend([14 << 3, 1]);
        tensor
    }

    #[test]
    fn scan_external_initializer_is_listed() {
        let model = encode_field(7, &encode_field(5, &encode_tensor(&["weights.bin"])));
        let scan = scan_graph(&model).unwrap();
        assert_eq!(
            scan.external_tensors,
            [ExternalTensor { location: "weights.bin".to_owned(), offset: 0, length: None }]
        );
    }

    #[test]
    fn scan_external_data_elsewhere_is_rejected() {
        let constant = encode_field(7, &encode_field(1, &encode_field(5, &encode_field(5, &encode_tensor(&["x"])))));
        let inner_graph = encode_field(
            7,
            &encode_field(1, &encode_field(5, &encode_field(6, &encode_field(5, &encode_tensor(&["x"]))))),
        );
        let sparse = encode_field(7, &encode_field(15, &encode_field(1, &encode_tensor(&["x"]))));
        let twice = encode_field(7, &encode_field(5, &encode_tensor(&["x", "/etc/passwd"])));
        for model in [constant, inner_graph, sparse, twice] {
            assert_eq!(scan_graph(&model).unwrap_err(), ScanError::ExternalData);
        }
    }

    #[test]
    fn scan_inner_constants_stay_out_of_main_graph() {
        let branch = encode_field(5, &encode_field(6, &encode_field(5, &encode_field(8, b"w"))));
        let model = encode_field(7, &[encode_field(1, &branch), encode_field(5, &encode_field(8, b"v"))].concat());
        let scan = scan_graph(&model).unwrap();
        let names: Vec<&str> = scan.main_graph.initializers.iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["v"]);
        assert!(scan.inner_constants.contains("w"));
    }

    #[test]
    fn scan_non_onnx_files_are_rejected() {
        assert_eq!(scan_graph(b"").unwrap_err(), ScanError::NoGraph);
        assert_eq!(scan_graph(b"<html>").unwrap_err(), ScanError::Malformed);
    }

    proptest! {
        #[test]
        fn scan_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            _ = scan_graph(&bytes);
        }
    }
}
