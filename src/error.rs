//! Why the program ends with an exit code other than 0.

use std::fmt::Display;

use crate::config::EXIT_CONFIGURATION;

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Something that the operator can change: exit code 64.
    #[error("{0}")]
    Configuration(String),
    /// The same of several options, a sentence each.
    #[error("{}", .0.join("; "))]
    ConfigurationList(Vec<String>),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Runtime(String),
}

impl ServerError {
    /// An error that the operator cannot change, for this reason.
    pub fn runtime(reason: impl Display) -> Self {
        Self::Runtime(reason.to_string())
    }

    /// What went wrong, one sentence for each thing.
    #[must_use]
    pub fn messages(&self) -> &[String] {
        match self {
            Self::Configuration(sentence) | Self::Runtime(sentence) => std::slice::from_ref(sentence),
            Self::ConfigurationList(sentences) => sentences,
        }
    }

    /// The exit code of a process that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::ConfigurationList(_) => EXIT_CONFIGURATION,
            Self::Runtime(_) => 1,
        }
    }
}
