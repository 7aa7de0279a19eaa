//! Whether a version answers, and why not.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;

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
    /// One sentence, if a server must not start because the model does not run on the device that it must run on.
    pub device_refusal: Option<String>,
}

impl VersionState {
    /// The model of a version that answers.
    #[must_use]
    pub fn ready(&self) -> Option<&Arc<LoadedVersion>> {
        if let Self::Ready(model) = self { Some(model) } else { None }
    }

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
