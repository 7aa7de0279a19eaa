//! Finds models in a directory: `<name>/<version>/` with a graph in it.

use std::path::Path;

use super::is_name;
use crate::engine::loading::ModelSource;

/// A directory with one of these is meant as a model; others may be tools.
const OF_A_MODEL: [&str; 4] = ["model.onnx", "config.json", "tokenizer.json", "model.toml"];
/// Most model versions in one directory.
const MAX_VERSIONS: usize = 1_024;

/// The model versions in `directory`, by name.
///
/// A version directory without a graph is listed too, so that its load can say what is missing.
/// Files, hidden directories and directories without subdirectories are passed over.
///
/// # Errors
/// If a directory cannot be read, or holds more versions than a server can serve.
pub fn find(directory: &Path) -> Result<Vec<ModelSource>, String> {
    let mut sources = Vec::new();
    for (name, path) in subdirectories(directory)? {
        let versions = subdirectories(&path)?;
        // Tools and scripts may lie beside the models.
        let is_model = versions
            .iter()
            .any(|(_, version)| version.join("model.onnx").exists() || version.join("onnx/model.onnx").exists());
        let looks_like_one = !versions.is_empty()
            && versions.iter().all(|(version, _)| version.starts_with(|c: char| c.is_ascii_digit()));
        if !is_model && !looks_like_one {
            tracing::debug!(directory = name, "no model: it holds no VERSION/model.onnx");
            let is_empty = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
            if is_empty || OF_A_MODEL.iter().any(|file| path.join(file).exists()) {
                tracing::warn!(directory = name, "the directory is passed over: a model is NAME/VERSION/model.onnx");
            }
            continue;
        }
        for (version, directory) in versions {
            if is_name(&name) && is_name(&version) {
                sources.push(ModelSource { name: name.clone(), version, directory });
            } else {
                tracing::warn!(
                    model = name,
                    version,
                    "the directory is passed over: names are lower-case letters, digits, '.', '_' and '-'"
                );
            }
        }
    }
    if sources.len() > MAX_VERSIONS {
        return Err(format!("it holds {} model versions, where {MAX_VERSIONS} are possible", sources.len()));
    }
    Ok(sources)
}

/// Names and paths of the directories in a directory, hidden ones left out, sorted.
fn subdirectories(directory: &Path) -> Result<Vec<(String, std::path::PathBuf)>, String> {
    let error = |e: std::io::Error| format!("{}: {e}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn finds_models_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["good/1", "good/2", "empty/1", "Bad Name/1", "tools/lib", ".git/1", "onnx/3/onnx"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        for file in ["good/1/model.onnx", "onnx/3/onnx/model.onnx", "Bad Name/1/model.onnx", "train.py"] {
            fs::write(directory.path().join(file), "x").unwrap();
        }
        let found: Vec<String> =
            find(directory.path()).unwrap().iter().map(|s| format!("{}/{}", s.name, s.version)).collect();
        assert_eq!(found, ["empty/1", "good/1", "good/2", "onnx/3"]);
    }
}
