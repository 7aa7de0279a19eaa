//! Finds models in a directory: `<name>/<version>/` with a graph in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::database::{Change, ChangeError, Database, Event, Records, now};
use super::is_name;
use super::record::{ModelRecord, Origin, Refusal, VersionRecord};
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
            if path.join("model.onnx").exists() {
                tracing::warn!(
                    directory = name,
                    "the directory is passed over: it holds a model itself, not its versions: put all of its files into \
                     {name}/1"
                );
            } else if is_empty || OF_A_MODEL.iter().any(|file| path.join(file).exists()) {
                tracing::warn!(directory = name, "the directory is passed over: a model is NAME/VERSION/model.onnx");
            }
            continue;
        }
        for (version, directory) in versions {
            if is_name(&name) && is_name(&version) {
                sources.push(ModelSource { name: name.clone(), version, directory, registered: BTreeMap::new() });
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

/// What becomes of versions whose directories are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// They are forgotten: the directory is this process's own.
    Forgotten,
    /// They stay: another replica may have them, or the directory is not there yet.
    Stays,
}

/// Records the models that were found in the operator's directory.
///
/// # Errors
/// If the database does not answer, or a model has too many versions.
pub async fn record(database: &Database, sources: &[ModelSource], gone: Gone) -> Result<Records, ChangeError> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        found.entry(&source.name).or_default().push(&source.version);
    }
    let records = database.read().await?.records;
    let recorded = records.keys().map(String::as_str).filter(|_| gone == Gone::Forgotten);
    let names: BTreeSet<&str> = found.keys().copied().chain(recorded).collect();
    for name in names {
        let there = found.get(name).map(Vec::as_slice).unwrap_or_default();
        let event = Event { who: "start", action: "find", version: None, experiment: None, reason: None };
        // What is gone is gone, whoever needs it.
        let change = Change { model: name, revision: None, key: None, keeps_used: false, event };
        database.change(change, |record| line_up(record, there, gone), |_| String::new()).await?;
    }
    Ok(database.read().await?.records)
}

/// Makes a record have these versions of the operator's directory.
fn line_up(record: &mut ModelRecord, there: &[&str], gone: Gone) -> Result<bool, Refusal> {
    let is_gone = |version: &str, record: &VersionRecord| {
        gone == Gone::Forgotten && record.origin == Origin::Directory && !there.contains(&version)
    };
    let gone = record.versions.iter().filter(|(version, record)| is_gone(version.as_str(), record));
    let gone: Vec<String> = gone.map(|(version, _)| version.as_str().to_owned()).collect();
    let mut changed = !gone.is_empty();
    for version in gone {
        if record.active.as_ref() == Some(&version) {
            tracing::warn!(version, "the directory of an active version is gone: what was active before it answers");
        }
        record.lose(&version);
    }
    for version in there {
        let found = VersionRecord {
            origin: Origin::Directory,
            files: Vec::new(),
            metadata: BTreeMap::new(),
            metrics: BTreeMap::new(),
            pinned: true,
            registered_at: now(),
        };
        match record.register(version, found) {
            Ok(new) => changed |= new,
            // The one that was registered goes first.
            Err(Refusal::Taken(version)) => {
                tracing::warn!(version, "a directory is passed over: a version of its name was registered");
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(changed)
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
