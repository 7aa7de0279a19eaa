//! Which files of a model that MLflow keeps make a version here, and where they lie in it. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use predictd_text::mlmodel::OnnxFlavor;

/// What is said of the model itself: read before anything else.
pub const MLMODEL_FILE_NAME: &str = "MLmodel";
/// Where files that travel with a model lie.
const EXTRA_FILES_PREFIX: &str = "extra_files/";
/// The graph, as a version has it.
const GRAPH_FILE_NAME: &str = "model.onnx";
/// What MLflow writes for programs of Python.
const UNUSED_FILE_NAMES: [&str; 6] = [
    "conda.yaml",
    "python_env.yaml",
    "requirements.txt",
    "registered_model_meta",
    "serving_input_example.json",
    "python_model.pkl",
];

/// A file that was listed: its path in the model's directory, and its length where that is known.
#[derive(Debug, Clone)]
pub struct RemoteFile {
    /// Such as `extra_files/tokenizer.json`.
    pub path: String,
    /// In bytes.
    pub bytes: Option<u64>,
}

/// Where each file goes that is needed: paths in the version, and what is there.
///
/// The graph becomes `model.onnx`; what lies beside it keeps its name, as the graph's weights may be in it; files that
/// travel with the model lie where an exported model has them. The rest is left where it is.
///
/// # Errors
/// One sentence, if the graph is not there or two files have one place.
pub fn version_files(onnx: &OnnxFlavor, listed: &[RemoteFile]) -> Result<BTreeMap<String, RemoteFile>, String> {
    let beside = onnx.data.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut placed: BTreeMap<String, RemoteFile> = BTreeMap::new();
    for file in listed {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let to = if file.path == onnx.data {
            GRAPH_FILE_NAME
        } else if let Some(extra) = file.path.strip_prefix(EXTRA_FILES_PREFIX) {
            extra
        } else if directory == beside && !UNUSED_FILE_NAMES.contains(&name) && !is_pickle(name) {
            name
        } else if file.path == MLMODEL_FILE_NAME {
            MLMODEL_FILE_NAME
        } else {
            continue;
        };
        if let Some(other) = placed.insert(to.to_owned(), file.clone()) {
            return Err(format!("{:?} and {:?} would both be {to:?}", other.path, file.path));
        }
    }
    if listed.iter().all(|file| file.path != onnx.data) {
        return Err(format!("the graph {:?}, which MLmodel names, is not there", onnx.data));
    }
    Ok(placed)
}

/// It is never read, but it has no business here.
fn is_pickle(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|end| ["pkl", "pickle", "skops"].iter().any(|pickle| end.eq_ignore_ascii_case(pickle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_paths(data: &str, paths: &[&str]) -> Result<Vec<(String, String)>, String> {
        let onnx = OnnxFlavor { data: data.to_owned() };
        let listed: Vec<RemoteFile> =
            paths.iter().map(|path| RemoteFile { path: (*path).to_owned(), bytes: None }).collect();
        Ok(version_files(&onnx, &listed)?.into_iter().map(|(to, from)| (to, from.path)).collect())
    }

    #[test]
    fn version_files_hold_graph_and_its_data() {
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let all = [
            "MLmodel",
            "conda.yaml",
            "requirements.txt",
            "model.onnx",
            "weights.bin",
            "input_example.json",
            "code/x.py",
            "extra_files/tokenizer.json",
            "extra_files/a/b.json",
        ];
        let expected = pairs(&[
            ("MLmodel", "MLmodel"),
            ("a/b.json", "extra_files/a/b.json"),
            ("input_example.json", "input_example.json"),
            ("model.onnx", "model.onnx"),
            ("tokenizer.json", "extra_files/tokenizer.json"),
            ("weights.bin", "weights.bin"),
        ]);
        assert_eq!(version_paths("model.onnx", &all).unwrap(), expected);
        let expected = pairs(&[("MLmodel", "MLmodel"), ("model.onnx", "data/net.onnx"), ("w", "data/w")]);
        assert_eq!(version_paths("data/net.onnx", &["MLmodel", "data/net.onnx", "data/w", "x.txt"]).unwrap(), expected);
    }

    #[test]
    fn version_files_missing_or_ambiguous_is_refused() {
        assert!(version_paths("model.onnx", &["MLmodel"]).unwrap_err().contains("is not there"));
        assert!(version_paths("net.onnx", &["net.onnx", "model.onnx"]).unwrap_err().contains("would both be"));
        assert!(
            version_paths("model.onnx", &["model.onnx", "extra_files/model.onnx"])
                .unwrap_err()
                .contains("would both be")
        );
    }
}
