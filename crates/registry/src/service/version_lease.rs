//! Keeps a version loaded that a change is about to need.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// A version that must not be removed meanwhile.
pub(super) struct VersionLease<'a> {
    leased_versions: &'a Mutex<BTreeSet<(String, String)>>,
    version: (String, String),
}

impl<'a> VersionLease<'a> {
    pub(super) fn new(leased_versions: &'a Mutex<BTreeSet<(String, String)>>, name: &str, version: &str) -> Self {
        let version = (name.to_owned(), version.to_owned());
        leased_versions.lock().insert(version.clone());
        Self { leased_versions, version }
    }
}

impl Drop for VersionLease<'_> {
    fn drop(&mut self) {
        self.leased_versions.lock().remove(&self.version);
    }
}
