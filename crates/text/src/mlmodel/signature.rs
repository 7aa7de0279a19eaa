//! The inputs and outputs of a model, as its MLmodel file declares them.

use std::collections::BTreeSet;

use serde_json::Value;

/// A column or a tensor of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureField {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `string`, or the type of a tensor's elements, such as `int64`.
    pub element: String,
    /// The sizes of a tensor, -1 where any is possible; none for a column.
    pub dims: Option<Vec<i64>>,
    /// False where it may be left out.
    pub required: bool,
}

/// The inputs and outputs of a model, as its MLmodel file declares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MlflowSignature {
    /// What goes in; none if that is not said.
    pub inputs: Option<Vec<SignatureField>>,
    /// What comes out; none if that is not said.
    pub outputs: Option<Vec<SignatureField>>,
}

/// One side of a signature: JSON within the YAML.
pub(super) fn parse_fields(json: &str) -> Result<Vec<SignatureField>, String> {
    let all: Vec<Value> = serde_json::from_str(json).map_err(|_| "no list".to_owned())?;
    all.iter()
        .map(|port| parse_field(port).ok_or_else(|| format!("this is no column and no tensor: {}", excerpt(port))))
        .collect()
}

fn parse_field(port: &Value) -> Option<SignatureField> {
    let name = port["name"].as_str().map(str::to_owned);
    let required = port["required"].as_bool().unwrap_or(true);
    let kind = port["type"].as_str()?;
    if kind != "tensor" {
        return Some(SignatureField { name, element: kind.to_owned(), dims: None, required });
    }
    let spec = &port["tensor-spec"];
    let dims = spec["shape"].as_array()?.iter().map(Value::as_i64).collect::<Option<_>>()?;
    Some(SignatureField { name, element: spec["dtype"].as_str()?.to_owned(), dims: Some(dims), required })
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// An input or an output that a graph has: its name, the type of its elements, and its sizes where they are fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements, as ONNX names it.
    pub element: &'a str,
    /// A size, or none where any is possible.
    pub dims: Vec<Option<i64>>,
}

impl MlflowSignature {
    /// Compares what was logged with what the graph takes and gives. A text is what goes in, in whatever form: columns of
    /// strings are texts, tensors are those of the graph.
    ///
    /// # Errors
    /// One sentence that names what differs.
    pub fn check(&self, inputs: &[GraphTensor<'_>], outputs: &[GraphTensor<'_>]) -> Result<(), String> {
        if let Some(logged) = &self.inputs {
            let columns = logged.iter().filter(|port| port.dims.is_none()).count();
            if columns == 0 {
                check_tensors("input", logged, inputs, true)?;
            } else if columns != logged.len() || logged.iter().any(|port| port.element != "string") {
                return Err(
                    "the signature's inputs are neither texts (columns of the type string) nor the graph's tensors"
                        .to_owned(),
                );
            } else if logged.iter().filter(|port| port.required).count() > 2 {
                return Err(format!("the signature has {columns} texts, where a model takes one or two"));
            }
        }
        // Columns describe the output of a wrapper, not the scores.
        match &self.outputs {
            Some(logged) if logged.iter().all(|port| port.dims.is_some()) => {
                check_tensors("output", logged, outputs, false)
            }
            _ => Ok(()),
        }
    }
}

fn check_tensors(side: &str, logged: &[SignatureField], found: &[GraphTensor<'_>], all: bool) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for port in logged {
        let same = match &port.name {
            Some(name) => found.iter().find(|found| found.name == name),
            // A single tensor needs no name.
            None => found.first().filter(|_| logged.len() == 1),
        };
        let name = port.name.as_deref().unwrap_or("without a name");
        let Some(same) = same else {
            return Err(format!("the signature has an {side} {name:?}, which the graph has not"));
        };
        seen.insert(same.name);
        if !is_same_element_type(&port.element, same.element) {
            return Err(format!(
                "the signature's {side} {name:?} is of {}, the graph's of {}",
                port.element, same.element
            ));
        }
        let dims = port.dims.as_deref().unwrap_or_default();
        let fits = dims.len() == same.dims.len()
            && dims.iter().zip(&same.dims).all(|(logged, has)| *logged < 0 || has.is_none_or(|has| has == *logged));
        if !fits {
            let has: Vec<i64> = same.dims.iter().map(|dim| dim.unwrap_or(-1)).collect();
            return Err(format!("the signature's {side} {name:?} has the shape {dims:?}, the graph's {has:?}"));
        }
    }
    match found.iter().find(|found| all && !seen.contains(found.name)) {
        Some(missing) => Err(format!("the graph has an {side} {:?}, which the signature has not", missing.name)),
        None => Ok(()),
    }
}

/// True if NumPy's name of a type and ONNX's mean the same.
fn is_same_element_type(numpy: &str, onnx: &str) -> bool {
    match onnx {
        "string" => matches!(numpy, "str" | "object" | "string"),
        onnx => numpy == onnx,
    }
}

#[cfg(test)]
mod tests {
    use super::super::MlModel;
    use super::*;
    use serde_json::json;

    fn quote_json(value: &Value) -> String {
        value.to_string().replace('\'', "''")
    }

    fn signature(inputs: &Value, outputs: &Value) -> Result<MlflowSignature, String> {
        let yaml = format!(
            "signature:\n  inputs: '{}'\n  outputs: '{}'\n  params: null\n",
            quote_json(inputs),
            quote_json(outputs)
        );
        MlModel::parse(yaml.as_bytes()).unwrap().signature()
    }

    fn tensor(name: &str, dtype: &str, shape: &[i64]) -> Value {
        json!({ "type": "tensor", "name": name, "tensor-spec": { "dtype": dtype, "shape": shape } })
    }

    fn graph_tensor(name: &'static str, element: &'static str, dims: &[Option<i64>]) -> GraphTensor<'static> {
        GraphTensor { name, element, dims: dims.to_vec() }
    }

    #[test]
    fn mlflow_signature_must_match_graph() {
        let inputs =
            [graph_tensor("input_ids", "int64", &[None, None]), graph_tensor("attention_mask", "int64", &[None, None])];
        let outputs = [graph_tensor("logits", "float32", &[None, Some(77)])];
        let ids = tensor("input_ids", "int64", &[-1, -1]);
        let mask = tensor("attention_mask", "int64", &[-1, -1]);
        let logits = tensor("logits", "float32", &[-1, 77]);
        let logged = signature(&json!([ids, mask]), &json!([logits])).unwrap();
        assert_eq!(logged.check(&inputs, &outputs), Ok(()));
        let text = json!({ "type": "string", "name": "text", "required": true });
        let logged = signature(&json!([text]), &json!([{ "type": "string", "name": "label" }])).unwrap();
        assert_eq!(logged.check(&inputs, &outputs), Ok(()));
        for (logged, out, reason) in [
            (vec![ids.clone()], vec![], "the graph has an input \"attention_mask\""),
            (
                vec![ids.clone(), mask.clone(), tensor("x", "int64", &[-1])],
                vec![],
                "an input \"x\", which the graph has not",
            ),
            (
                vec![tensor("input_ids", "float32", &[-1, -1]), mask.clone()],
                vec![],
                "is of float32, the graph's of int64",
            ),
            (
                vec![tensor("input_ids", "int64", &[-1]), mask.clone()],
                vec![],
                "has the shape [-1], the graph's [-1, -1]",
            ),
            (vec![ids.clone(), mask.clone()], vec![tensor("logits", "float32", &[-1, 3])], "has the shape [-1, 3]"),
            (vec![json!({ "type": "double", "name": "age" })], vec![], "neither texts"),
            (vec![text.clone(), ids.clone()], vec![], "neither texts"),
            (vec![text.clone(), text.clone(), text.clone()], vec![], "3 texts"),
            (vec![json!({ "no": "type" })], vec![], "no column and no tensor"),
        ] {
            let checked = signature(&json!(logged), &json!(out)).and_then(|logged| logged.check(&inputs, &outputs));
            let refused = checked.unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
        assert_eq!(MlflowSignature::default().check(&inputs, &outputs), Ok(()));
        let texts = [graph_tensor("text", "string", &[None, Some(1)])];
        let unnamed = json!([{ "type": "tensor", "tensor-spec": { "dtype": "str", "shape": [-1, 1] } }]);
        assert_eq!(signature(&unnamed, &json!([])).unwrap().check(&texts, &[]), Ok(()));
    }
}
