//! Whether a version answers, and why not.

use std::sync::Arc;

use super::Snapshot;
use crate::engine::loaded_version::LoadedVersion;

/// State of one version.
#[derive(Debug, Clone)]
pub enum VersionState {
    /// Being loaded and checked.
    Loading,
    /// Answers.
    Ready(Arc<LoadedVersion>),
    /// Could not be loaded, and why.
    Failed(LoadFailure),
}

/// Why a version could not be loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadFailure {
    /// A file and a reason.
    pub reason: String,
    /// One sentence, if a server must not start without it.
    pub fatal_reason: Option<String>,
}

impl VersionState {
    /// The state's name in answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready(_) => "ready",
            Self::Failed(_) => "failed",
        }
    }
}

impl Snapshot {
    /// Why a server must not go on, if so: for a version that it could not load among those that it began with.
    #[must_use]
    pub fn fatal_load_failure(&self, begun_with: &Self) -> Option<&str> {
        let began = |name: &str, version| begun_with.models.get(name).is_some_and(|m| m.versions.contains_key(version));
        let mut versions = self.models.iter().flat_map(|(name, served)| served.versions.iter().map(move |v| (name, v)));
        versions.find_map(|(name, (version, state))| match state {
            VersionState::Failed(failure) if began(name, version) => failure.fatal_reason.as_deref(),
            VersionState::Failed(_) | VersionState::Loading | VersionState::Ready(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ServedModel, VersionStates};
    use super::*;
    use crate::registry::version_name::VersionName;

    fn snapshot(versions: &[(&str, VersionState)]) -> Snapshot {
        let versions: VersionStates = versions.iter().map(|(v, state)| (VersionName::new(v), state.clone())).collect();
        let models = [("m".to_owned(), ServedModel { versions, ..ServedModel::default() })].into();
        Snapshot { models, ..Snapshot::default() }
    }

    #[test]
    fn fatal_load_failure_only_for_startup_versions() {
        let failed = |refusal: Option<&str>| {
            VersionState::Failed(LoadFailure { reason: "x".to_owned(), fatal_reason: refusal.map(str::to_owned) })
        };
        let begun_with = snapshot(&[("1", VersionState::Loading), ("2", VersionState::Loading)]);
        let now = snapshot(&[("1", failed(None)), ("2", VersionState::Loading), ("3", failed(Some("later")))]);
        assert_eq!(now.fatal_load_failure(&begun_with), None);
        let now = snapshot(&[("1", failed(None)), ("2", failed(Some("no GPU"))), ("3", failed(Some("later")))]);
        assert_eq!(now.fatal_load_failure(&begun_with), Some("no GPU"));
        assert_eq!(now.fatal_load_failure(&Snapshot::default()), None);
    }
}
