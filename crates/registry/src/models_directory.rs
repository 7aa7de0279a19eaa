//! Finds models in a directory: `<name>/<version>/` with a graph in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use predictd_engine::model_source::ModelSource;
use predictd_platform::clock::now_millis;

use super::data_directory::path_error;
use super::database::{AuditDetails, ChangeError, ChangeRequest, Database, change_model};
use super::record::{ModelRecord, ModelRecords, Origin, RecordError, VersionRecord};
use super::valid_name::is_valid_name;

/// A directory with one of these is meant as a model; others may be tools.
const MODEL_FILE_NAMES: [&str; 4] = ["model.onnx", "config.json", "tokenizer.json", "model.toml"];
/// Most model versions in one directory.
const MAX_DIRECTORY_VERSIONS: usize = 1_024;
/// Most entries that one warning names.
const MAX_LOGGED_NAMES: usize = 20;

/// A directory, with its name.
type NamedPath = (String, PathBuf);

/// The model versions in `directory`, by name.
///
/// A version directory without a graph is listed too if its name begins with a digit, or it has another file of a model:
/// it may be half copied, its load says what is missing, and it is tried again. All other entries are passed over with
/// one line of the log: files, hidden ones, those that may not be read, directories without versions; and directories beside the
/// versions of a model.
///
/// # Errors
/// If the directory cannot be read, or holds more versions than a server can serve.
pub fn find_models(directory: &Path) -> Result<Vec<ModelSource>, String> {
    let mut sources = Vec::new();
    let (directories, mut passed_over) = read_entries(directory)?;
    for (name, path) in directories {
        match read_entries(&path) {
            Ok((versions, _)) if is_model(&versions) => sources.extend(find_versions(&name, versions)),
            Ok(_) if warn_of_misplaced_model(&name, &path) => {}
            Ok(_) => passed_over.push(name),
            Err(error) => {
                tracing::warn!(error, "models directory entry skipped; directory could not be read");
                passed_over.push(name);
            }
        }
    }
    if !passed_over.is_empty() {
        passed_over.sort();
        let entries = format_names(passed_over.iter().map(String::as_str));
        // Scripts and the like may lie there for good: nothing to do for an operator.
        tracing::info!(entries, "models directory entries skipped; expected NAME/VERSION/model.onnx");
    }
    if sources.len() > MAX_DIRECTORY_VERSIONS {
        return Err(format!("it holds {} model versions, where {MAX_DIRECTORY_VERSIONS} are possible", sources.len()));
    }
    Ok(sources)
}

/// Whether a directory with these directories is a model's. Tools and scripts may lie beside the models.
fn is_model(directories: &[NamedPath]) -> bool {
    directories.iter().any(|(_, directory)| has_graph(directory))
        || (!directories.is_empty() && directories.iter().all(|(name, _)| starts_with_digit(name)))
}

/// Logs why a directory with files of a model, but without versions, is skipped. False if it has no such files.
fn warn_of_misplaced_model(name: &str, directory: &Path) -> bool {
    tracing::debug!(directory = name, "directory ignored; no VERSION/model.onnx in it");
    if directory.join("model.onnx").exists() {
        tracing::warn!(
            directory = name,
            "directory skipped; model without a version directory: move all of its files to \
             {name}/1"
        );
    } else if has_model_file(directory) {
        tracing::warn!(directory = name, "directory skipped; expected NAME/VERSION/model.onnx");
    } else {
        return false;
    }
    true
}

/// The versions among the directories of a model.
fn find_versions(name: &str, directories: Vec<NamedPath>) -> Vec<ModelSource> {
    let (versions, other_directories): (Vec<_>, Vec<_>) =
        directories.into_iter().partition(|(version, directory)| is_version_directory(version, directory));
    if !other_directories.is_empty() {
        let entries = format_names(other_directories.iter().map(|(other, _)| other.as_str()));
        tracing::warn!(
            model = name,
            entries,
            "directories beside the versions skipped; a version contains model.onnx or onnx/model.onnx"
        );
    }
    let mut sources = Vec::new();
    for (version, directory) in versions {
        if is_valid_name(name) && is_valid_name(&version) {
            sources.push(ModelSource { name: name.to_owned(), version, directory, registered_hashes: BTreeMap::new() });
        } else {
            tracing::warn!(
                model = name,
                version,
                "directory skipped; allowed in names: lower-case letters, digits, '.', '_' and '-'"
            );
        }
    }
    sources
}

fn starts_with_digit(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
}

/// True for a directory with a graph where a version has one.
fn has_graph(directory: &Path) -> bool {
    directory.join("model.onnx").exists() || directory.join("onnx/model.onnx").exists()
}

/// True for a directory of a model that is one of its versions, or is to become one: not for one of pictures or notes.
fn is_version_directory(name: &str, directory: &Path) -> bool {
    starts_with_digit(name) || has_graph(directory) || has_model_file(directory)
}

fn has_model_file(directory: &Path) -> bool {
    MODEL_FILE_NAMES.iter().any(|file| directory.join(file).exists())
}

/// Names for a log line: quoted, and not all where there are many.
fn format_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_LOGGED_NAMES);
    let quoted: Vec<String> = names.take(MAX_LOGGED_NAMES).map(|name| format!("{name:?}")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", quoted.join(", "))
}

/// What is in a directory: names and paths of directories, sorted; and names of files and of what is hidden.
fn read_entries(directory: &Path) -> Result<(Vec<NamedPath>, Vec<String>), String> {
    let mut directories = Vec::new();
    let mut other_names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| path_error(directory, error))? {
        let path = entry.map_err(|error| path_error(directory, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') {
            directories.push((name, path));
        } else {
            other_names.push(name);
        }
    }
    directories.sort();
    Ok((directories, other_names))
}

/// What becomes of versions whose directories are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingVersions {
    /// They are forgotten: the directory is this process's own.
    Remove,
    /// They stay: another replica may have them, or the directory is not there yet.
    Retain,
}

/// Records the models that were found in the operator's directory.
///
/// # Errors
/// If the database does not answer, or a model has too many versions.
pub async fn sync_to_database(
    database: &Database,
    sources: &[ModelSource],
    missing: MissingVersions,
) -> Result<ModelRecords, ChangeError> {
    let records = database.read_state().await?.records;
    for (name, there) in versions_by_model(&records, sources, missing) {
        let audit = AuditDetails { actor: "start", action: "find", ..AuditDetails::default() };
        // A removed directory is gone, even if an experiment needs it.
        let change = ChangeRequest { target: name, protects_experiments: false, audit, ..ChangeRequest::default() };
        change_model(database, change, |record| sync_record(record, &there, missing)).await?;
    }
    Ok(database.read_state().await?.records)
}

/// What would be recorded with the models of the operator's directory, where no database can record it.
#[must_use]
pub fn sync_in_memory(recorded: &ModelRecords, sources: &[ModelSource], missing: MissingVersions) -> ModelRecords {
    let mut records = recorded.clone();
    for (name, there) in versions_by_model(recorded, sources, missing) {
        let record = records.entry(name.to_owned()).or_default();
        if let Err(refusal) = sync_record(record, &there, missing) {
            tracing::warn!(model = name, %refusal, "versions in the models directory skipped");
        }
    }
    records
}

/// The models whose records may have to be changed, each with its versions in the operator's directory.
fn versions_by_model<'a>(
    records: &'a ModelRecords,
    sources: &'a [ModelSource],
    missing: MissingVersions,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut all = BTreeMap::<&str, Vec<&str>>::new();
    if missing == MissingVersions::Remove {
        all.extend(records.keys().map(|name| (name.as_str(), Vec::new())));
    }
    for source in sources {
        all.entry(&source.name).or_default().push(&source.version);
    }
    all
}

/// Makes a record have these versions of the operator's directory.
fn sync_record(record: &mut ModelRecord, there: &[&str], missing: MissingVersions) -> Result<bool, RecordError> {
    let removed: Vec<String> = record
        .versions
        .iter()
        .filter(|(version, record)| {
            missing == MissingVersions::Remove
                && record.origin == Origin::Directory
                && !there.contains(&version.as_str())
        })
        .map(|(version, _)| version.as_str().to_owned())
        .collect();
    let mut changed = !removed.is_empty();
    for version in removed {
        if record.active.as_ref() == Some(&version) {
            tracing::warn!(version, "directory of the active version removed; previous version becomes active");
        }
        record.remove_missing(&version);
    }
    for version in there {
        let found = VersionRecord {
            pinned: true,
            registered_at: now_millis(),
            ..VersionRecord::new(Origin::Directory, Vec::new(), BTreeMap::new())
        };
        match record.register(version, found) {
            Ok(new) => changed |= new,
            // The one that was registered goes first.
            Err(RecordError::VersionExists(version)) => {
                tracing::warn!(version, "version directory skipped; version name already registered");
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
    fn find_models_ignores_other_entries() {
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
            find_models(directory.path()).unwrap().iter().map(|s| format!("{}/{}", s.name, s.version)).collect();
        assert_eq!(found, ["empty/1", "good/1", "good/2", "good/next", "onnx/3"]);
    }

    #[test]
    fn format_names_many_truncated_and_quoted() {
        let names: Vec<String> = (0..25).map(|number| format!("n{number}\u{1b}")).collect();
        let shown = format_names(names.iter().map(String::as_str));
        assert!(shown.starts_with(r#""n0\u{1b}", "n1"#) && shown.ends_with(" and 5 more"), "{shown}");
        assert_eq!(format_names([].into_iter()), "");
    }
}
