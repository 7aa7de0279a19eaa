//! Whether a version answers, and why not.

use std::sync::Arc;

use super::Snapshot;
use crate::engine::model::Model;

/// State of one version.
#[derive(Debug, Clone)]
pub enum State {
    /// Being loaded and checked.
    Loading,
    /// Answers.
    Ready(Arc<Model>),
    /// Could not be loaded, and why.
    Failed(Failure),
}

/// Why a version could not be loaded.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    /// A file and a reason.
    pub reason: String,
    /// One sentence, if a server must not start without it.
    pub refusal: Option<String>,
}

impl State {
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
    pub fn refusal(&self, begun_with: &Self) -> Option<&str> {
        let began = |name: &str, version| begun_with.models.get(name).is_some_and(|m| m.versions.contains_key(version));
        let mut versions = self.models.iter().flat_map(|(name, served)| served.versions.iter().map(move |v| (name, v)));
        versions.find_map(|(name, (version, state))| match state {
            State::Failed(failure) if began(name, version) => failure.refusal.as_deref(),
            State::Failed(_) | State::Loading | State::Ready(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Served, Versions};
    use super::*;
    use crate::registry::version::Version;

    fn snapshot(versions: &[(&str, State)]) -> Snapshot {
        let versions: Versions = versions.iter().map(|(v, state)| (Version::new(v), state.clone())).collect();
        let models = [("m".to_owned(), Served { versions, ..Served::default() })].into();
        Snapshot { models, ..Snapshot::default() }
    }

    #[test]
    fn only_what_the_server_began_with_can_end_it() {
        let failed = |refusal: Option<&str>| {
            State::Failed(Failure { reason: "x".to_owned(), refusal: refusal.map(str::to_owned) })
        };
        let begun_with = snapshot(&[("1", State::Loading), ("2", State::Loading)]);
        let now = snapshot(&[("1", failed(None)), ("2", State::Loading), ("3", failed(Some("later")))]);
        assert_eq!(now.refusal(&begun_with), None);
        let now = snapshot(&[("1", failed(None)), ("2", failed(Some("no GPU"))), ("3", failed(Some("later")))]);
        assert_eq!(now.refusal(&begun_with), Some("no GPU"));
        assert_eq!(now.refusal(&Snapshot::default()), None);
    }
}
