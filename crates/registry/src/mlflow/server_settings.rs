//! Where an MLflow server is, and with which credentials it is asked.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An MLflow server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlflowServer {
    /// Its address; may have a path.
    pub url: Url,
    /// The credentials of requests to it, if it needs any.
    pub credentials: Option<MlflowCredentials>,
}

/// The credentials of requests to an MLflow server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MlflowCredentials {
    /// A user with a password.
    User(Secret, Secret),
    /// A token.
    Token(Secret),
}

impl MlflowCredentials {
    /// The value of an `Authorization` header.
    #[must_use]
    pub fn authorization_header(&self) -> String {
        match self {
            Self::User(Secret(name), Secret(password)) => {
                format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
            }
            Self::Token(Secret(token)) => format!("Bearer {token}"),
        }
    }
}
