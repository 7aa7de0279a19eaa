//! How people write which model of an MLflow server they mean.

use std::fmt::{self, Display};
use std::str::FromStr;

/// Longest name of anything on an MLflow server, in bytes: its own limit for registered models is 256 characters.
const MAX_NAME_BYTES: usize = 1_024;

/// A model on an MLflow server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelUri {
    /// `models:/NAME/3`.
    Version(String, String),
    /// `models:/NAME@ALIAS`.
    Alias(String, String),
    /// `models:/NAME/STAGE`, or `latest`: the highest version there is.
    Stage(String, String),
    /// `models:/m-…`, a logged model of MLflow 3.
    LoggedModel(String),
    /// `runs:/RUN/PATH`.
    Run(String, String),
}

/// Why something names no model: what could have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model is models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/m-ID or runs:/RUN/PATH")]
pub struct ModelUriError;

impl FromStr for ModelUri {
    type Err = ModelUriError;

    fn from_str(written: &str) -> Result<Self, ModelUriError> {
        if let Some(rest) = written.strip_prefix("runs:/") {
            let (run, path) = rest.split_once('/').ok_or(ModelUriError)?;
            let is_run = run.bytes().all(|c| c.is_ascii_alphanumeric());
            let is_path = path.len() <= MAX_NAME_BYTES
                && path.split('/').all(|part| is_valid_name(part) && !matches!(part, "." | ".."));
            if !is_run || !is_path {
                return Err(ModelUriError);
            }
            return Ok(Self::Run(parse_name(run)?, path.to_owned()));
        }
        let rest = written.strip_prefix("models:/").ok_or(ModelUriError)?;
        match rest.split('/').collect::<Vec<_>>().as_slice() {
            [one] => match one.rsplit_once('@') {
                Some((name, alias)) => Ok(Self::Alias(parse_name(name)?, parse_name(alias)?)),
                None => Ok(Self::LoggedModel(parse_name(one)?)),
            },
            [name, last] => {
                let kind = if last.bytes().all(|c| c.is_ascii_digit()) { Self::Version } else { Self::Stage };
                Ok(kind(parse_name(name)?, parse_name(last)?))
            }
            _ => Err(ModelUriError),
        }
    }
}

fn parse_name(name: &str) -> Result<String, ModelUriError> {
    if is_valid_name(name) { Ok(name.to_owned()) } else { Err(ModelUriError) }
}

impl Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(name, last) | Self::Stage(name, last) => write!(f, "models:/{name}/{last}"),
            Self::Alias(name, alias) => write!(f, "models:/{name}@{alias}"),
            Self::LoggedModel(id) => write!(f, "models:/{id}"),
            Self::Run(run, path) => write!(f, "runs:/{run}/{path}"),
        }
    }
}

/// Names of MLflow may hold nearly everything; what is sent as part of a path is escaped.
fn is_valid_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && !text.contains(['/', '\\', ':', '#', '?'])
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_uri_valid_round_trips() {
        let name = "My model".to_owned();
        let of = |text: &str| text.to_owned();
        for (written, expected) in [
            ("models:/My model/3", ModelUri::Version(name.clone(), of("3"))),
            ("models:/My model@champion", ModelUri::Alias(name.clone(), of("champion"))),
            ("models:/a@b@champion", ModelUri::Alias(of("a@b"), of("champion"))),
            ("models:/My model/latest", ModelUri::Stage(name.clone(), of("latest"))),
            ("models:/My model/Production", ModelUri::Stage(name, of("Production"))),
            ("models:/m-1f3a", ModelUri::LoggedModel(of("m-1f3a"))),
            ("runs:/1f3a/model", ModelUri::Run(of("1f3a"), of("model"))),
            ("runs:/1f3a/a/model", ModelUri::Run(of("1f3a"), of("a/model"))),
        ] {
            let read = written.parse::<ModelUri>().unwrap();
            assert_eq!(read, expected);
            assert_eq!(read.to_string(), written);
        }
    }

    #[test]
    fn model_uri_malformed_is_refused() {
        for written in [
            "",
            "models:/",
            "models:",
            "model:/a/1",
            "models:/a/1/2",
            "models:/a/",
            "models://a/1",
            "models:/@x",
            "models:/a@",
            "runs:/",
            "runs:/a",
            "runs:/a/",
            "runs:/a/..",
            "runs:/a/../b",
            "runs:/a/./b",
            "runs:/a//b",
            "runs:/../x",
            "runs:/a/b#c",
            "runs:/a/b?c",
            "file:///etc/passwd",
            "/etc/passwd",
            "http://127.0.0.1/x",
            "s3://bucket/x",
            "models:/a\\b/1",
            "models:/a\n/1",
            "models:/a/1#x",
            "models:/a:b/1",
        ] {
            assert_eq!(written.parse::<ModelUri>(), Err(ModelUriError), "{written:?}");
        }
        assert!(format!("models:/{}/1", "a".repeat(MAX_NAME_BYTES + 1)).parse::<ModelUri>().is_err());
    }
}
