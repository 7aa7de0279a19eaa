//! Finds models in a directory: `<name>/<version>/` with a graph in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::database::{Change, ChangeError, Database, Event, Records, now};
use super::is_name;
use super::record::{ModelRecord, Origin, Refusal, VersionRecord};
use crate::engine::loading::ModelSource;

/// A directory with one of these is meant as a model; others may be tools.
const OF_A_MODEL: [&str; 4] = ["model.onnx", "config.json", "tokenizer.json", "model.toml"];
/// Most model versions in one directory.
const MAX_VERSIONS: usize = 1_024;
/// Most entries that one warning names.
const MAX_NAMED: usize = 20;

/// The model versions in `directory`, by name.
///
/// A version directory without a graph is listed too if its name begins with a digit, or it has another file of a model:
/// it may be half copied, its load says what is missing, and it is tried again. All other entries are passed over with
/// one line of the log: files, hidden ones, those that may not be read, directories without versions; and directories beside the
/// versions of a model.
///
/// # Errors
/// If the directory cannot be read, or holds more versions than a server can serve.
pub fn find(directory: &Path) -> Result<Vec<ModelSource>, String> {
    let mut sources = Vec::new();
    let Entries { directories, others: mut passed_over } = entries(directory)?;
    for (name, path) in directories {
        let versions = match entries(&path) {
            Ok(found) => found.directories,
            Err(error) => {
                tracing::warn!(error, "an entry of the models directory is passed over: it cannot be read");
                passed_over.push(name);
                continue;
            }
        };
        // Tools and scripts may lie beside the models.
        let is_model = versions.iter().any(|(_, version)| has_graph(version));
        let looks_like_one = !versions.is_empty()
            && versions.iter().all(|(version, _)| version.starts_with(|c: char| c.is_ascii_digit()));
        if !is_model && !looks_like_one {
            tracing::debug!(directory = name, "no model: it holds no VERSION/model.onnx");
            if path.join("model.onnx").exists() {
                tracing::warn!(
                    directory = name,
                    "the directory is passed over: it holds a model itself, not its versions: put all of its files into \
                     {name}/1"
                );
            } else if OF_A_MODEL.iter().any(|file| path.join(file).exists()) {
                tracing::warn!(directory = name, "the directory is passed over: a model is NAME/VERSION/model.onnx");
            } else {
                passed_over.push(name);
            }
            continue;
        }
        sources.extend(versions_of(&name, versions));
    }
    if !passed_over.is_empty() {
        passed_over.sort();
        let entries = named(passed_over.iter().map(String::as_str));
        // Scripts and the like may lie there for good: nothing to do for an operator.
        tracing::info!(entries, "entries of the models directory are passed over: a model is NAME/VERSION/model.onnx");
    }
    if sources.len() > MAX_VERSIONS {
        return Err(format!("it holds {} model versions, where {MAX_VERSIONS} are possible", sources.len()));
    }
    Ok(sources)
}

/// The versions among the directories of a model.
fn versions_of(name: &str, directories: Vec<(String, PathBuf)>) -> Vec<ModelSource> {
    let (versions, others): (Vec<_>, Vec<_>) =
        directories.into_iter().partition(|(version, directory)| is_version(version, directory));
    if !others.is_empty() {
        let entries = named(others.iter().map(|(other, _)| other.as_str()));
        tracing::warn!(
            model = name,
            entries,
            "directories beside the versions are passed over: a version holds model.onnx or onnx/model.onnx"
        );
    }
    let mut sources = Vec::new();
    for (version, directory) in versions {
        if is_name(name) && is_name(&version) {
            sources.push(ModelSource { name: name.to_owned(), version, directory, registered: BTreeMap::new() });
        } else {
            tracing::warn!(
                model = name,
                version,
                "the directory is passed over: names are lower-case letters, digits, '.', '_' and '-'"
            );
        }
    }
    sources
}

/// True for a directory with a graph where a version has one.
fn has_graph(directory: &Path) -> bool {
    directory.join("model.onnx").exists() || directory.join("onnx/model.onnx").exists()
}

/// True for a directory of a model that is one of its versions, or is to become one: not for one of pictures or notes.
fn is_version(name: &str, directory: &Path) -> bool {
    let has_file = || OF_A_MODEL.iter().any(|file| directory.join(file).exists());
    name.starts_with(|c: char| c.is_ascii_digit()) || has_graph(directory) || has_file()
}

/// Names for a log line: quoted, and not all where there are many.
fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let shown: Vec<String> = names.take(MAX_NAMED).map(|name| format!("{name:?}")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// What is in a directory.
#[derive(Debug, Default)]
struct Entries {
    /// Names and paths of directories, sorted.
    directories: Vec<(String, PathBuf)>,
    /// Names of files and of what is hidden.
    others: Vec<String>,
}

fn entries(directory: &Path) -> Result<Entries, String> {
    let error = |e: std::io::Error| format!("{}: {e}", directory.display());
    let mut found = Entries::default();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') {
            found.directories.push((name, path));
        } else {
            found.others.push(name);
        }
    }
    found.directories.sort();
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
    let records = database.read().await?.records;
    for (name, there) in to_line_up(&records, sources, gone) {
        let event = Event { who: "start", action: "find", version: None, experiment: None, reason: None };
        // What is gone is gone, whoever needs it.
        let change = Change { model: name, revision: None, key: None, keeps_used: false, event };
        database.change(change, |record| line_up(record, &there, gone), |_| String::new()).await?;
    }
    Ok(database.read().await?.records)
}

/// What would be recorded with the models of the operator's directory, where no database can record it.
#[must_use]
pub fn lined_up(known: &Records, sources: &[ModelSource], gone: Gone) -> Records {
    let mut records = known.clone();
    for (name, there) in to_line_up(known, sources, gone) {
        let record = records.entry(name.to_owned()).or_default();
        if let Err(refusal) = line_up(record, &there, gone) {
            tracing::warn!(model = name, %refusal, "versions of the models directory are passed over");
        }
    }
    records
}

/// The models whose records may have to be changed, each with its versions in the operator's directory.
fn to_line_up<'a>(known: &'a Records, sources: &'a [ModelSource], gone: Gone) -> BTreeMap<&'a str, Vec<&'a str>> {
    let recorded = known.keys().filter(|_| gone == Gone::Forgotten).map(|name| (name.as_str(), Vec::new()));
    let mut all: BTreeMap<&str, Vec<&str>> = recorded.collect();
    for source in sources {
        all.entry(&source.name).or_default().push(&source.version);
    }
    all
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
        for path in ["good/1", "good/2", "good/assets", "good/next", "empty/1", "lost+found"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        for path in ["Bad Name/1", "tools/lib", ".git/1", "onnx/3/onnx"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        for file in ["good/1/model.onnx", "good/next/config.json", "onnx/3/onnx/model.onnx", "Bad Name/1/model.onnx"] {
            fs::write(directory.path().join(file), "x").unwrap();
        }
        fs::write(directory.path().join("train.py"), "x").unwrap();
        let found: Vec<String> =
            find(directory.path()).unwrap().iter().map(|s| format!("{}/{}", s.name, s.version)).collect();
        assert_eq!(found, ["empty/1", "good/1", "good/2", "good/next", "onnx/3"]);
    }

    #[test]
    fn many_names_are_cut_short_and_quoted() {
        let names: Vec<String> = (0..25).map(|number| format!("n{number}\u{1b}")).collect();
        let shown = named(names.iter().map(String::as_str));
        assert!(shown.starts_with(r#""n0\u{1b}", "n1"#) && shown.ends_with(" and 5 more"), "{shown}");
        assert_eq!(named([].into_iter()), "");
    }
}
