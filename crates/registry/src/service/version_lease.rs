//! Keeps a version loaded that a change is about to need.

use super::registry_context::RegistryContext;

/// A version that is not unloaded until this is dropped.
pub(super) struct VersionLease<'a> {
    context: &'a RegistryContext,
    version: (String, String),
}

impl<'a> VersionLease<'a> {
    pub(super) fn new(context: &'a RegistryContext, model: &str, version: &str) -> Self {
        let version = (model.to_owned(), version.to_owned());
        context.publisher.leased_versions.lock().push(version.clone());
        Self { context, version }
    }
}

impl Drop for VersionLease<'_> {
    fn drop(&mut self) {
        let mut leased = self.context.publisher.leased_versions.lock();
        if let Some(index) = leased.iter().position(|version| *version == self.version) {
            leased.swap_remove(index);
        }
        drop(leased);
        // The change may not need the version after all.
        self.context.publish();
    }
}
