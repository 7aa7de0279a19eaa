//! The files of a model directory: read once, whole, and checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::content_sniffing::{detect_wrong_content, detect_wrong_encoding};
use super::error::{ManifestError, options_error};
use super::limits::{MAX_GRAPH_BYTES, MAX_JSON_BYTES};
use super::python_json;

/// The files of one directory with their expected digests.
pub(super) struct ModelFiles<'a> {
    pub(super) directory: &'a Path,
    /// In `model.toml`.
    pub(super) listed_digests: &'a BTreeMap<String, String>,
    pub(super) registered_digests: &'a BTreeMap<String, String>,
}

impl ModelFiles<'_> {
    /// Every digest must belong to a file of this directory.
    pub(super) fn check_listed_digests(&self) -> Result<(), ManifestError> {
        for name in self.listed_digests.keys() {
            let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || !self.directory.join(name).is_file() {
                return Err(options_error(format!("[sha256] names {name:?}, which is not a file of this directory")));
            }
        }
        // Weights beside the graph are read much later: their digests are checked here too.
        for name in self.listed_digests.keys().filter(|name| !KNOWN_FILES.contains(&name.as_str())) {
            self.read_required(name, MAX_GRAPH_BYTES)?;
        }
        Ok(())
    }

    pub(super) fn read_required(&self, name: &str, limit: u64) -> Result<Vec<u8>, ManifestError> {
        self.read_optional(name, limit)?.ok_or_else(|| ManifestError::new(name, "there is no such file"))
    }

    pub(super) fn read_optional(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ManifestError> {
        let Some(bytes) = read_regular_file(self.directory, name, limit)? else { return Ok(None) };
        check_content(self.registered_digests, name, &bytes)?;
        if self.listed_digests.get(name).is_some_and(|expected| !expected.eq_ignore_ascii_case(&sha256_hex(&bytes))) {
            return Err(ManifestError::new(
                name,
                "its SHA-256 is not the one in model.toml: the file was changed or damaged",
            ));
        }
        Ok(Some(bytes))
    }

    pub(super) fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ManifestError> {
        self.read_text(name, MAX_JSON_BYTES)?.map(|bytes| python_json::parse(name, &bytes)).transpose()
    }

    /// A JSON object with any keys.
    pub(super) fn read_object(&self, name: &str) -> Result<Option<Map<String, Value>>, ManifestError> {
        let Some(bytes) = self.read_text(name, MAX_JSON_BYTES)? else { return Ok(None) };
        match python_json::parse_value(name, &bytes)? {
            Value::Object(object) => Ok(Some(object)),
            _ => Err(ManifestError::new(name, "it is not a JSON object, which begins with { and ends with }")),
        }
    }

    /// A file that is text in UTF-8, without what no such file begins with.
    pub(super) fn read_text(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ManifestError> {
        let Some(bytes) = self.read_optional(name, limit)? else { return Ok(None) };
        match detect_wrong_encoding(&bytes) {
            Some(reason) => Err(ManifestError::new(name, reason)),
            None => Ok(Some(bytes)),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// True for the name of a file in the directory itself.
pub(super) fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// Files that [`super::Manifest::load`] reads, and so checks, in any case.
const KNOWN_FILES: [&str; 10] = [
    "model.onnx",
    "onnx/model.onnx",
    "config.json",
    "labels.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "golden.json",
    "profile.json",
];

/// Refuses what a download or a copy left in the place of a file; where versions are registered, every file that is read
/// must have been.
pub(super) fn check_content(
    registered: &BTreeMap<String, String>,
    path: &str,
    bytes: &[u8],
) -> Result<(), ManifestError> {
    let reason = match registered.get(path) {
        Some(expected) if sha256_hex(bytes) == *expected => detect_wrong_content(bytes),
        None if registered.is_empty() => detect_wrong_content(bytes),
        _ => Some("it is not the file that was registered: it was changed or damaged"),
    };
    reason.map_or(Ok(()), |reason| Err(ManifestError::new(path, reason)))
}

/// Reads a regular file of at most `limit` bytes, `None` if there is none.
fn read_regular_file(directory: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ManifestError> {
    let path = directory.join(name);
    let io_error = |error| ManifestError::from_io(name, &error);
    let metadata = match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(io_error)?,
    };
    // Opening a pipe would wait for a writer: the kind is checked before.
    if !metadata.is_file() {
        return Err(ManifestError::new(name, "it is not a regular file"));
    }
    let file = File::open(&path).map_err(io_error)?;
    let mut bytes = Vec::with_capacity(metadata.len().min(limit).try_into().unwrap_or_default());
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > limit {
        return Err(ManifestError::new(name, format!("it is larger than the limit of {limit} bytes")));
    }
    if bytes.is_empty() {
        return Err(ManifestError::new(name, "it is empty"));
    }
    Ok(Some(bytes))
}
