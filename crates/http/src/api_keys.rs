//! API keys: a file that holds their hashes, and the commands that write it.
//!
//! A key is 256 random bits, so one SHA-256 is all its hash needs. The file is TOML, may be
//! shared by replicas, and is replaced by rename, never changed in place:
//!
//! ```toml
//! [[key]]
//! name = "website"
//! hash = "sha256:…"
//! scopes = ["predict", "feedback"]
//! rate = 50
//! created = "2026-11-23T05:40:00Z"
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use predictd_platform::atomic_file::{self, directory_of};
use predictd_platform::clock;
use predictd_registry::store::is_sha256;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Every key begins with it, so that scanners for leaked secrets can find them.
pub const KEY_PREFIX: &str = "pd_";
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most keys in a file: each request is compared with all of them.
const MAX_KEYS: usize = 1_000;
/// Longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 64;
/// How the hash of a key begins in the file.
const HASH_PREFIX: &str = "sha256:";

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Predictions, and what models there are.
    Predict,
    /// Ground truth for earlier predictions.
    Feedback,
    /// The admin listener.
    Admin,
    /// Metrics.
    Metrics,
}

impl Scope {
    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Feedback => "feedback",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// One key, without the key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Its name.
    pub name: String,
    hash: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// Texts a second, if it has a rate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// When it was made, for people.
    pub created: String,
}

/// The keys of a file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// In the order they were made.
    #[serde(default, rename = "key")]
    pub keys: Vec<ApiKey>,
}

fn hash_key(key: &str) -> String {
    format!("{HASH_PREFIX}{}", hex::encode(Sha256::digest(key.as_bytes())))
}

/// True for 1 to 64 letters, digits, '.', '_' and '-'.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

impl KeyFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
            // The parser's message could repeat part of a line; its first words are its own.
            format!("line {line} is not as `predictd keys` writes it")
        })?;
        file.check()?;
        Ok(file)
    }

    /// Says what is wrong with the keys, without what stands there.
    fn check(&self) -> Result<(), String> {
        if self.keys.len() > MAX_KEYS {
            return Err(format!("there are {} keys, where at most {MAX_KEYS} are possible", self.keys.len()));
        }
        let mut names = BTreeSet::new();
        let mut hashes = BTreeSet::new();
        for (number, key) in (1..).zip(&self.keys) {
            let problem = if !is_plain_name(&key.name) {
                format!("the name must be 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-'")
            } else if !key.hash.strip_prefix(HASH_PREFIX).is_some_and(is_sha256) {
                format!("the hash must be {HASH_PREFIX} and 64 lower-case hexadecimal digits")
            } else if key.scopes.is_empty() {
                "there are no scopes".to_owned()
            } else if !names.insert(&key.name) || !hashes.insert(&key.hash) {
                "its name or hash stands there twice".to_owned()
            } else {
                continue;
            };
            return Err(format!("key {number}: {problem}"));
        }
        Ok(())
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
        }
        Self::parse(&text).map(Some)
    }

    /// Finds the key that a client presents.
    ///
    /// The time depends neither on the position of the key nor on its similarity to another one.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<&ApiKey> {
        let presented = hash_key(presented);
        // Compares every key: the time of a shorter search would reveal the position of the key.
        self.keys.iter().fold(None, |matching, key| {
            if bool::from(key.hash.as_bytes().ct_eq(presented.as_bytes())) { Some(key) } else { matching }
        })
    }

    /// Makes a key and returns it for its user. Only its hash is stored.
    ///
    /// # Errors
    /// A sentence: the name is no name or taken, there are no scopes or too many keys.
    pub fn add(&mut self, name: &str, scopes: BTreeSet<Scope>, rate: Option<NonZeroU32>) -> Result<String, String> {
        if self.keys.iter().any(|key| key.name == name) {
            return Err(format!("there is a key named {name} already: revoke it first, or take another name"));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random numbers: {error}"))?;
        let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let created = humantime::format_rfc3339_seconds(clock::now()).to_string();
        self.keys.push(ApiKey { name: name.to_owned(), hash: hash_key(&key), scopes, rate, created });
        // What is written must be readable.
        self.check().map_err(|error| error.rsplit_once(": ").map_or(error.clone(), |e| e.1.to_owned()))?;
        Ok(key)
    }

    /// Takes a key out. False: there was none of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != name);
        self.keys.len() < before
    }
}

/// Changes the file at `path`, which need not exist, atomically for its readers.
///
/// # Errors
/// A sentence; the file is as it was then.
pub fn update_key_file<T>(path: &Path, change: impl FnOnce(&mut KeyFile) -> Result<T, String>) -> Result<T, String> {
    let directory = DirBuilder::new().recursive(true).mode(0o700).create(directory_of(path));
    directory.map_err(|error| format!("its directory: {error}"))?;
    // A link stays one: what it points to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // Two commands at a time take turns; the file itself cannot be locked, it is replaced.
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(path.with_added_extension("lock"));
    let _locked = lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|error| format!("its lock: {error}"))?;
    let mut file = KeyFile::read(path)?.unwrap_or_default();
    let outcome = change(&mut file)?;
    let written = atomic_file::replace(path, 0o600, |new| {
        copy_owner(new, path)?;
        new.write_all(toml::to_string(&file).map_err(io::Error::other)?.as_bytes())
    });
    written.map_err(|error| format!("it cannot be written: {error}"))?;
    Ok(outcome)
}

/// Gives a new file the owner and mode of the one it replaces: the server that reads it may be another user.
fn copy_owner(new: &File, path: &Path) -> io::Result<()> {
    let own = new.metadata()?;
    if let Ok(old) = fs::metadata(path) {
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(new, Some(old.uid()), Some(old.gid()))?;
        }
        return new.set_permissions(old.permissions());
    }
    let folder = fs::metadata(directory_of(path))?;
    // Only root can change the owner of a file.
    if own.uid() == 0 && folder.uid() != 0 { fchown(new, Some(folder.uid()), Some(folder.gid())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn scopes(list: &[Scope]) -> BTreeSet<Scope> {
        list.iter().copied().collect()
    }

    #[test]
    fn key_file_added_key_found_until_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/keys.toml");
        assert_eq!(KeyFile::read(&path), Ok(None));
        let rate = NonZeroU32::new(50);
        let first = update_key_file(&path, |file| file.add("first", scopes(&[Scope::Predict]), rate)).unwrap();
        let second =
            update_key_file(&path, |file| file.add("second", scopes(&[Scope::Admin, Scope::Metrics]), None)).unwrap();
        assert!(first.len() == 46 && first.starts_with("pd_") && first != second);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&first[3..]) && text.contains("name = \"first\""), "{text}");
        let file = KeyFile::read(&path).unwrap().unwrap();
        let found = file.find(&first).unwrap();
        assert_eq!((found.name.as_str(), found.rate, found.scopes.len()), ("first", rate, 1));
        assert_eq!(file.find(&second).unwrap().scopes, scopes(&[Scope::Metrics, Scope::Admin]));
        for wrong in ["", "pd_", &first[..45], &format!("{first}x"), &first.to_uppercase(), &found.hash] {
            assert_eq!(file.find(wrong), None, "{wrong}");
        }
        assert!(update_key_file(&path, |file| Ok(file.remove("first"))).unwrap());
        let file = KeyFile::read(&path).unwrap().unwrap();
        assert!(file.find(&first).is_none() && file.find(&second).is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn key_file_refused_change_keeps_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        update_key_file(&path, |file| file.add("a", scopes(&[Scope::Predict]), None)).unwrap();
        let before = fs::read(&path).unwrap();
        for (name, list, word) in [
            ("a", &[Scope::Predict][..], "already"),
            ("b", &[], "no scopes"),
            ("", &[Scope::Predict], "name"),
            ("x/y", &[Scope::Predict], "name"),
            (&"n".repeat(65), &[Scope::Predict], "name"),
        ] {
            let refused = update_key_file(&path, |file| file.add(name, scopes(list), None)).unwrap_err();
            assert!(refused.contains(word), "{name}: {refused}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn key_file_concurrent_changes_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        std::thread::scope(|scope| {
            for i in 0..20 {
                let path = &path;
                scope.spawn(move || {
                    update_key_file(path, |file| file.add(&format!("k{i}"), scopes(&[Scope::Predict]), None)).unwrap();
                });
            }
        });
        assert_eq!(KeyFile::read(&path).unwrap().unwrap().keys.len(), 20);
    }

    fn entry(name: &str, hash: &str, scopes: &str) -> String {
        format!("[[key]]\nname = \"{name}\"\nhash = \"{hash}\"\nscopes = {scopes}\ncreated = \"\"\n")
    }

    #[test]
    fn key_file_damaged_error_hides_content() {
        let hash = "a".repeat(64);
        let good = entry("a", &format!("sha256:{hash}"), "[\"predict\"]");
        assert_eq!(KeyFile::parse(&good).unwrap().keys.len(), 1);
        assert_eq!(KeyFile::parse("").unwrap().keys.len(), 0);
        for (text, word) in [
            ("canary = 1".to_owned(), "line 1"),
            (good.replace("created", "canary"), "line"),
            (format!("{good}canary"), "line 6"),
            (good.replace("predict", "canary"), "line 4"),
            (format!("{good}rate = 0\n"), "line"),
            (format!("{good}rate = -1\n"), "line"),
            (entry("canary!", &format!("sha256:{hash}"), "[\"predict\"]"), "key 1: the name"),
            (entry("a", &hash, "[\"predict\"]"), "key 1: the hash"),
            (entry("a", &format!("sha256:{}", hash.to_uppercase()), "[\"predict\"]"), "key 1: the hash"),
            (entry("a", &format!("sha256:{hash}"), "[]"), "key 1: there are no scopes"),
            (format!("{good}{good}"), "key 2: its name or hash stands there twice"),
        ] {
            let refused = KeyFile::parse(&text).unwrap_err();
            assert!(refused.contains(word) && !refused.contains("canary") && !refused.contains("aaaa"), "{refused}");
        }
    }
}
