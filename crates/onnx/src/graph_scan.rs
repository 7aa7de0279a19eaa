//! Reads what matters of an ONNX file without trusting it.
//!
//! The scan visits every tensor of every graph, because a tensor may name a file to read: only initializers of the main
//! graph may. Each inner graph (a branch of `If`, a body of `Loop` or `Scan`) is a scope of its own: its constants never mix
//! with those of the main graph. Depth and sizes are bounded; raw tensor data is not copied.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::division_check::ConstantScope;
use super::external_data::ExternalTensor;
use super::graph::{Constant, MainGraph};
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use super::scan_error::{MAX_DEPTH, MAX_NODES, ScanError};

/// What a graph file holds, as far as loading it needs.
#[derive(Debug, Default)]
pub(super) struct GraphScan {
    /// Nodes and constants of the main graph.
    pub(super) main_graph: MainGraph,
    /// Names of the constants of all inner graphs.
    pub(super) inner_constants: BTreeSet<String>,
    /// Files that initializers of the main graph lie in.
    pub(super) external_tensors: Vec<ExternalTensor>,
    /// Operators used anywhere.
    pub(super) operators: BTreeSet<String>,
    /// `TensorProto.DataType` numbers of all initializers.
    pub(super) element_types: BTreeSet<i32>,
}

/// Walks a serialised `ModelProto`.
///
/// # Errors
/// [`ScanError`] if the file is malformed, uses external data beyond plain initializers, or divides integers by -1.
pub(super) fn scan_graph(bytes: Bytes) -> Result<GraphScan, ScanError> {
    let model = ModelProto::decode(bytes)?;
    // Serving never needs training information.
    if !model.training_info.is_empty() {
        return Err(ScanError::ExternalData);
    }
    let mut scan = GraphScan::default();
    scan.visit_graph(model.graph.ok_or(ScanError::NoGraph)?, 0, None)?;
    for function in model.functions {
        scan.visit_function(function)?;
    }
    scan.main_graph.build_index();
    Ok(scan)
}

impl GraphScan {
    fn visit_graph(
        &mut self,
        graph: GraphProto,
        depth: usize,
        outer: Option<&ConstantScope<'_>>,
    ) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        graph.sparse_initializer.iter().try_for_each(SparseTensorProto::reject_external)?;
        let mut constants = ConstantScope::with_outer(outer);
        // A node may stand before the constants that it reads.
        for initializer in graph.initializer {
            self.visit_initializer(initializer, depth == 0, &mut constants)?;
        }
        self.visit_nodes(graph.node, depth, &mut constants)
    }

    fn visit_nodes(
        &mut self,
        nodes: Vec<Bytes>,
        depth: usize,
        constants: &mut ConstantScope<'_>,
    ) -> Result<(), ScanError> {
        if depth == 0 && nodes.len() > MAX_NODES {
            return Err(ScanError::TooManyNodes);
        }
        for bytes in nodes {
            let node = NodeProto::decode(bytes)?;
            self.operators.insert(node.op_type.clone());
            constants.check_node(&node)?;
            for attribute in node.attributes() {
                self.visit_attribute(attribute?, depth, constants)?;
            }
            if depth == 0 {
                self.main_graph.nodes.push(node);
            }
        }
        Ok(())
    }

    fn visit_function(&mut self, function: FunctionProto) -> Result<(), ScanError> {
        let mut constants = ConstantScope::with_outer(None);
        for attribute in function.attribute_proto {
            self.visit_attribute(AttributeProto::decode(attribute)?, 1, &constants)?;
        }
        self.visit_nodes(function.node, 1, &mut constants)
    }

    fn visit_attribute(
        &mut self,
        attribute: AttributeProto,
        depth: usize,
        constants: &ConstantScope<'_>,
    ) -> Result<(), ScanError> {
        for part in attribute.t {
            TensorProto::decode(part)?.reject_external()?;
        }
        attribute.tensors.iter().try_for_each(TensorProto::reject_external)?;
        let mut sparse_tensors = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        sparse_tensors.try_for_each(SparseTensorProto::reject_external)?;
        for graph in attribute.g.into_iter().chain(attribute.graphs) {
            self.visit_graph(graph, depth + 1, Some(constants))?;
        }
        Ok(())
    }

    fn visit_initializer(
        &mut self,
        bytes: Bytes,
        in_main_graph: bool,
        constants: &mut ConstantScope<'_>,
    ) -> Result<(), ScanError> {
        let constant = Constant::decode(bytes)?;
        let tensor = &constant.tensor;
        let external = tensor.external_tensor()?;
        self.element_types.insert(tensor.data_type);
        constants.add_constant(&constant, external.is_some());
        match external {
            Some(_) if !in_main_graph || !tensor.raw_data.is_empty() => return Err(ScanError::ExternalData),
            Some(data) => self.external_tensors.push(data),
            None => {}
        }
        let name = tensor.name.clone();
        if in_main_graph {
            self.main_graph.initializers.insert(name, constant);
        } else {
            self.inner_constants.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{StringStringEntryProto, TensorElements};
    use super::*;
    use proptest::prelude::*;

    fn encode(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    fn model_of(graph: GraphProto) -> Bytes {
        encode(&ModelProto { graph: Some(graph), ..ModelProto::default() })
    }

    fn graph_with(initializers: &[TensorProto]) -> GraphProto {
        GraphProto { initializer: initializers.iter().map(encode).collect(), ..GraphProto::default() }
    }

    fn graph_with_node(op_type: &str, inputs: &[&str], attribute: &AttributeProto) -> GraphProto {
        let node = NodeProto {
            op_type: op_type.to_owned(),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec!["y".to_owned()],
            attribute: vec![encode(attribute)],
        };
        GraphProto { node: vec![encode(&node)], ..GraphProto::default() }
    }

    fn graph_within(inner: GraphProto) -> GraphProto {
        graph_with_node("If", &[], &AttributeProto { g: Some(inner), ..AttributeProto::default() })
    }

    fn raw_integer(elements: &[i64]) -> Bytes {
        let raw_data = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        encode(&TensorProto { dims: vec![1], data_type: 7, raw_data, ..TensorProto::default() })
    }

    fn nested_graph(depth: usize) -> GraphProto {
        (0..depth).fold(GraphProto::default(), |inner, _| graph_within(inner))
    }

    fn named_tensor(name: &str) -> TensorProto {
        TensorProto { name: name.to_owned(), ..TensorProto::default() }
    }

    fn external_tensor(locations: &[&str]) -> TensorProto {
        let entries = locations
            .iter()
            .map(|&value| StringStringEntryProto { key: "location".to_owned(), value: value.to_owned() });
        TensorProto { external_data: entries.collect(), data_location: 1, ..named_tensor("w") }
    }

    #[test]
    fn scan_external_initializer_is_listed() {
        let scan = scan_graph(model_of(graph_with(&[external_tensor(&["weights.bin"])]))).unwrap();
        assert_eq!(
            scan.external_tensors,
            [ExternalTensor { location: "weights.bin".to_owned(), offset: 0, length: None }]
        );
    }

    #[test]
    fn scan_external_data_elsewhere_is_rejected() {
        let constant = AttributeProto { t: vec![encode(&external_tensor(&["x"]))], ..AttributeProto::default() };
        let sparse = SparseTensorProto { values: Some(external_tensor(&["x"])), indices: None };
        for graph in [
            graph_with_node("Constant", &[], &constant),
            graph_within(graph_with(&[external_tensor(&["x"])])),
            GraphProto { sparse_initializer: vec![sparse], ..GraphProto::default() },
            graph_with(&[external_tensor(&["x", "/etc/passwd"])]),
        ] {
            assert_eq!(scan_graph(model_of(graph)).unwrap_err(), ScanError::ExternalData);
        }
    }

    #[test]
    fn scan_inner_constants_stay_out_of_main_graph() {
        let mut graph = graph_within(graph_with(&[named_tensor("w")]));
        graph.initializer.push(encode(&named_tensor("v")));
        let scan = scan_graph(model_of(graph)).unwrap();
        assert_eq!(scan.main_graph.initializers.keys().collect::<Vec<_>>(), ["v"]);
        assert!(scan.inner_constants.contains("w"));
    }

    #[test]
    fn scan_graphs_nested_too_deeply_are_rejected() {
        assert!(scan_graph(model_of(nested_graph(MAX_DEPTH))).is_ok());
        assert_eq!(scan_graph(model_of(nested_graph(MAX_DEPTH + 1))).unwrap_err(), ScanError::TooDeep);
    }

    #[test]
    fn scan_parts_of_one_field_are_merged() {
        let parts = [graph_with(&[named_tensor("v")]), graph_with(&[named_tensor("w")])];
        let scan = scan_graph(parts.map(model_of).concat().into()).unwrap();
        assert_eq!(scan.main_graph.initializers.keys().collect::<Vec<_>>(), ["v", "w"]);
    }

    #[test]
    fn scan_divisor_in_parts_or_by_type_is_found() {
        let typed = TensorElements { int64_data: vec![-1], ..TensorElements::default() };
        for parts in [[raw_integer(&[2]), raw_integer(&[-1])], [raw_integer(&[]), encode(&typed)]] {
            for t in [parts.to_vec(), vec![parts.concat().into()]] {
                let value = AttributeProto { name: "value".to_owned(), t, ..AttributeProto::default() };
                let mut graph = graph_with_node("Constant", &[], &value);
                graph.node.extend(graph_with_node("Div", &["x", "y"], &AttributeProto::default()).node);
                assert_eq!(scan_graph(model_of(graph)).unwrap_err(), ScanError::MinusOneDivisor);
            }
        }
    }

    #[test]
    fn scan_raw_data_is_not_copied() {
        let raw_data = Bytes::from(vec![7; 4_096]);
        let bytes = model_of(graph_with(&[TensorProto { raw_data, ..named_tensor("w") }]));
        let scan = scan_graph(bytes.clone()).unwrap();
        let raw = scan.main_graph.constant("w").unwrap().tensor.raw_data;
        assert!(bytes.as_ptr_range().contains(&raw.as_ptr()) && raw.len() == 4_096);
    }

    #[test]
    fn scan_non_onnx_files_are_rejected() {
        assert_eq!(scan_graph(Bytes::new()).unwrap_err(), ScanError::NoGraph);
        assert_eq!(scan_graph(Bytes::from_static(b"<html>")).unwrap_err(), ScanError::Malformed);
    }

    proptest! {
        #[test]
        fn scan_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            _ = scan_graph(bytes.into());
        }
    }
}
