//! What ran where, read from the runtime's own record of a run. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Operators that do the work of a model: with them elsewhere, a GPU is of no use.
const MATRIX_PRODUCT_OPERATORS: [&str; 22] = [
    "Attention",
    "Conv",
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "Einsum",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "GRU",
    "Gemm",
    "GroupQueryAttention",
    "LSTM",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "PackedAttention",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
];
/// Of ten matrix products, so many must run where the model is said to run.
const MIN_PRODUCTS_OF_TEN: usize = 9;

/// The nodes of one run, by the provider that ran them.
#[derive(Debug, Default)]
pub(super) struct ProviderCoverage {
    /// All nodes.
    pub(super) nodes: BTreeMap<String, usize>,
    /// Matrix products among them.
    pub(super) matrix_products: BTreeMap<String, usize>,
}

/// One entry of the record, of which there are other kinds.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TraceEvent {
    cat: String,
    name: String,
    args: TraceEventArgs,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TraceEventArgs {
    op_name: String,
    provider: String,
}

impl ProviderCoverage {
    /// Reads the record of one run.
    ///
    /// # Errors
    /// One sentence, if it is no such record, or no node is in it.
    pub(super) fn parse(record: &[u8]) -> Result<Self, String> {
        let events: Vec<TraceEvent> = serde_json::from_slice(record)
            .map_err(|error| format!("the runtime's record of a run cannot be read: {error}"))?;
        let mut ran = Self::default();
        // A node has other entries too, for what goes on around it.
        for TraceEvent { args, .. } in events.iter().filter(|e| e.cat == "Node" && e.name.ends_with("_kernel_time")) {
            *ran.nodes.entry(args.provider.clone()).or_default() += 1;
            if MATRIX_PRODUCT_OPERATORS.contains(&args.op_name.as_str()) {
                *ran.matrix_products.entry(args.provider.clone()).or_default() += 1;
            }
        }
        if ran.nodes.is_empty() { Err("the runtime's record of a run names no node".to_owned()) } else { Ok(ran) }
    }

    /// Why the model cannot be said to run on `provider`, if so.
    ///
    /// Nodes that compute shapes belong on the cores. So matrix products count; of a graph without them, half the nodes.
    pub(super) fn coverage_error(&self, provider: &str) -> Option<String> {
        let (elsewhere, all) = count_elsewhere(&self.matrix_products, provider);
        if all > 0 {
            let enough = (all - elsewhere) * 10 >= all * MIN_PRODUCTS_OF_TEN;
            return (!enough).then(|| format!("{elsewhere} of its {all} matrix products ran on the cores"));
        }
        let (other_nodes, all_nodes) = count_elsewhere(&self.nodes, provider);
        (other_nodes * 2 > all_nodes).then(|| format!("{other_nodes} of its {all_nodes} nodes ran on the cores"))
    }
}

/// How many nodes other providers ran, and how many there are.
fn count_elsewhere(nodes: &BTreeMap<String, usize>, provider: &str) -> (usize, usize) {
    let all: usize = nodes.values().sum();
    (all - nodes.get(provider).copied().unwrap_or_default(), all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GPU: &str = "CUDAExecutionProvider";
    const CPU: &str = "CPUExecutionProvider";

    fn parse_nodes(nodes: &[(&str, &str, usize)]) -> Result<ProviderCoverage, String> {
        let mut events = vec![
            json!({ "cat": "Session", "pid": 1, "tid": 1, "dur": 3, "ts": 5, "ph": "X", "name": "model_run", "args": {} }),
            json!({ "cat": "Node", "name": "n_fence_before", "args": { "op_name": "MatMul" } }),
        ];
        for &(operator, provider, count) in nodes {
            let args = json!({ "op_name": operator, "provider": provider, "node_index": "7", "thread_scheduling_stats": {},
                               "input_type_shape": [{ "float": [1, 2] }], "output_size": "8" });
            let event = json!({ "cat": "Node", "dur": 2, "ts": 9, "ph": "X", "name": "n_kernel_time", "args": args });
            events.extend(std::iter::repeat_n(event, count));
        }
        ProviderCoverage::parse(json!(events).to_string().as_bytes())
    }

    fn gpu_coverage_error(nodes: &[(&str, &str, usize)]) -> Option<String> {
        parse_nodes(nodes).unwrap().coverage_error(GPU)
    }

    #[test]
    fn coverage_counts_nodes_by_provider() {
        let ran = parse_nodes(&[("MatMul", GPU, 3), ("Gather", GPU, 2), ("Shape", CPU, 4)]).unwrap();
        assert_eq!(ran.nodes, [(GPU.to_owned(), 5), (CPU.to_owned(), 4)].into());
        assert_eq!(ran.matrix_products, [(GPU.to_owned(), 3)].into());
    }

    #[test]
    fn coverage_matrix_products_decide() {
        assert_eq!(gpu_coverage_error(&[("MatMul", GPU, 36), ("Attention", GPU, 6), ("Shape", CPU, 200)]), None);
        assert_eq!(gpu_coverage_error(&[("MatMul", GPU, 9), ("QAttention", CPU, 1)]), None);
        let error = gpu_coverage_error(&[("Add", GPU, 99), ("MatMul", GPU, 8), ("QAttention", CPU, 1)]);
        assert_eq!(error.as_deref(), Some("1 of its 9 matrix products ran on the cores"));
        let error = gpu_coverage_error(&[("Add", GPU, 99), ("MatMul", CPU, 3)]);
        assert_eq!(error.as_deref(), Some("3 of its 3 matrix products ran on the cores"));
    }

    #[test]
    fn coverage_without_products_majority_decides() {
        assert_eq!(gpu_coverage_error(&[("Add", GPU, 2), ("Shape", CPU, 2)]), None);
        let error = gpu_coverage_error(&[("Add", GPU, 1), ("Shape", CPU, 2)]);
        assert_eq!(error.as_deref(), Some("2 of its 3 nodes ran on the cores"));
    }

    #[test]
    fn coverage_invalid_trace_is_rejected() {
        assert!(parse_nodes(&[]).unwrap_err().contains("no node"));
        assert!(ProviderCoverage::parse(b"[{").unwrap_err().contains("cannot be read"));
    }
}
