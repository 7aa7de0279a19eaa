//! What ran where, read from the runtime's own record of a run. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Operators that do the work of a model: with them elsewhere, a GPU is of no use.
const PRODUCTS: [&str; 22] = [
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
const LEAST_OF_TEN: usize = 9;

/// The nodes of one run, by the provider that ran them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ran {
    /// All nodes.
    pub(super) nodes: BTreeMap<String, usize>,
    /// Matrix products among them.
    pub(super) products: BTreeMap<String, usize>,
}

/// One entry of the record, of which there are other kinds.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Arguments,
}

#[derive(Deserialize, Default)]
struct Arguments {
    #[serde(default)]
    op_name: String,
    #[serde(default)]
    provider: String,
}

impl Ran {
    /// Reads the record of one run.
    ///
    /// # Errors
    /// One sentence, if it is no such record, or no node is in it.
    pub(super) fn read(record: &[u8]) -> Result<Self, String> {
        let unread = |error: serde_json::Error| format!("the runtime's record of a run cannot be read: {error}");
        let events: Vec<Event> = serde_json::from_slice(record).map_err(unread)?;
        let mut ran = Self::default();
        // A node has other entries too, for what goes on around it.
        for Event { args, .. } in events.iter().filter(|e| e.cat == "Node" && e.name.ends_with("_kernel_time")) {
            *ran.nodes.entry(args.provider.clone()).or_default() += 1;
            if PRODUCTS.contains(&args.op_name.as_str()) {
                *ran.products.entry(args.provider.clone()).or_default() += 1;
            }
        }
        if ran.nodes.is_empty() { Err("the runtime's record of a run names no node".to_owned()) } else { Ok(ran) }
    }

    /// Why the model cannot be said to run on `provider`, if so.
    ///
    /// Nodes that compute shapes belong on the cores. So matrix products count; of a graph without them, half the nodes.
    pub(super) fn refusal(&self, provider: &str) -> Option<String> {
        let count = |nodes: &BTreeMap<String, usize>| {
            let all: usize = nodes.values().sum();
            (all - nodes.get(provider).copied().unwrap_or_default(), all)
        };
        let ((elsewhere, all), (other_nodes, all_nodes)) = (count(&self.products), count(&self.nodes));
        if all > 0 {
            let enough = (all - elsewhere) * 10 >= all * LEAST_OF_TEN;
            return (!enough).then(|| format!("{elsewhere} of its {all} matrix products ran on the cores"));
        }
        (other_nodes * 2 > all_nodes).then(|| format!("{other_nodes} of its {all_nodes} nodes ran on the cores"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GPU: &str = "CUDAExecutionProvider";
    const CORES: &str = "CPUExecutionProvider";

    fn read(nodes: &[(&str, &str, usize)]) -> Result<Ran, String> {
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
        Ran::read(json!(events).to_string().as_bytes())
    }

    fn refusal(nodes: &[(&str, &str, usize)]) -> Option<String> {
        read(nodes).unwrap().refusal(GPU)
    }

    #[test]
    fn nodes_are_counted_by_provider() {
        let ran = read(&[("MatMul", GPU, 3), ("Gather", GPU, 2), ("Shape", CORES, 4)]).unwrap();
        assert_eq!(ran.nodes, [(GPU.to_owned(), 5), (CORES.to_owned(), 4)].into());
        assert_eq!(ran.products, [(GPU.to_owned(), 3)].into());
    }

    #[test]
    fn matrix_products_decide() {
        assert_eq!(refusal(&[("MatMul", GPU, 36), ("Attention", GPU, 6), ("Shape", CORES, 200)]), None);
        assert_eq!(refusal(&[("MatMul", GPU, 9), ("QAttention", CORES, 1)]), None);
        let told = refusal(&[("Add", GPU, 99), ("MatMul", GPU, 8), ("QAttention", CORES, 1)]);
        assert_eq!(told.as_deref(), Some("1 of its 9 matrix products ran on the cores"));
        let told = refusal(&[("Add", GPU, 99), ("MatMul", CORES, 3)]);
        assert_eq!(told.as_deref(), Some("3 of its 3 matrix products ran on the cores"));
    }

    #[test]
    fn without_products_the_most_nodes_decide() {
        assert_eq!(refusal(&[("Add", GPU, 2), ("Shape", CORES, 2)]), None);
        let told = refusal(&[("Add", GPU, 1), ("Shape", CORES, 2)]);
        assert_eq!(told.as_deref(), Some("2 of its 3 nodes ran on the cores"));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(read(&[]).unwrap_err().contains("no node"));
        assert!(Ran::read(b"[{").unwrap_err().contains("cannot be read"));
    }
}
