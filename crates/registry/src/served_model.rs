//! A model as it is served, and which of its versions answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;

use super::version_name::VersionName;
use super::version_state::VersionState;

/// A model as it is served: the versions that are loaded, or shall be.
#[derive(Debug, Clone, Default)]
pub struct ServedModel {
    /// By name.
    pub versions: BTreeMap<VersionName, VersionState>,
    /// The one that an operator made active, or that was found to be good.
    pub active: Option<VersionName>,
    /// The one that was active before.
    pub previous: Option<VersionName>,
    /// While none was made active, the highest that works answers: so it is with an operator's directories.
    pub auto_select: bool,
}

impl ServedModel {
    /// The version that answers requests that name none: the one that was made active; if it could not be loaded, the one
    /// that was active before.
    ///
    /// While none was made active, the highest of an operator's directories that is not broken. While it is loaded no lower
    /// one steps in, so that a start does not answer with an old version first.
    #[must_use]
    pub fn active(&self) -> Option<(&VersionName, &VersionState)> {
        let [active, previous] = [&self.active, &self.previous]
            .map(|version| version.as_ref().and_then(|version| self.versions.get_key_value(version)));
        let works = |found: &(&VersionName, &VersionState)| !matches!(found.1, VersionState::Failed(_));
        if let Some(active) = active {
            return Some(active).filter(works).or_else(|| previous.filter(works)).or(Some(active));
        }
        self.versions.iter().rev().find(works).or_else(|| self.versions.last_key_value()).filter(|_| self.auto_select)
    }

    /// The model of a version that answers.
    #[must_use]
    pub fn ready_model(&self, version: &str) -> Option<&Arc<LoadedVersion>> {
        self.versions.get(&VersionName::new(version))?.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version_state::LoadFailure;

    fn served_model(states: &[(&str, bool)], active: Option<&str>, before: Option<&str>) -> ServedModel {
        let state =
            |loading: bool| if loading { VersionState::Loading } else { VersionState::Failed(LoadFailure::default()) };
        let versions = states.iter().map(|(version, loading)| (VersionName::new(version), state(*loading))).collect();
        ServedModel {
            versions,
            active: active.map(VersionName::new),
            previous: before.map(VersionName::new),
            auto_select: true,
        }
    }

    #[test]
    fn active_version_failed_previous_serves() {
        let answers = |served: &ServedModel| served.active().unwrap().0.as_str().to_owned();
        assert_eq!(answers(&served_model(&[("1", true), ("2", true), ("10", false)], None, None)), "2");
        assert_eq!(answers(&served_model(&[("1", false)], None, None)), "1");
        // What was made active answers, whatever else is there.
        assert_eq!(answers(&served_model(&[("1", true), ("2", true)], Some("1"), Some("2"))), "1");
        assert_eq!(answers(&served_model(&[("1", false), ("2", true), ("3", true)], Some("1"), Some("2"))), "2");
        // None that was registered answers before it is made active.
        assert!(ServedModel { auto_select: false, ..served_model(&[("1", true)], None, None) }.active().is_none());
        // None steps in that was never active.
        assert_eq!(answers(&served_model(&[("1", false), ("3", true)], Some("1"), None)), "1");
    }
}
