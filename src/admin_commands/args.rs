//! Options of `predictd models`.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use predictd_registry::is_valid_name;

use super::server_args::ServerArgs;

/// `predictd models`.
#[derive(Debug, Args)]
pub struct ModelsCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: ModelsAction,

    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,

    /// Print the server's answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// List the models, with the version that answers.
    List,
    /// List the versions of a model.
    Show {
        /// Its name.
        name: NameArg,
    },
    /// What was done to a model, the last first.
    History {
        /// Its name.
        name: NameArg,
    },
    /// Add a version: a model directory, which is uploaded, or a model that the server's MLflow server keeps. It is checked as a load checks it, and does not answer yet.
    Register {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
        /// The directory, or `models:/NAME/3`, `models:/NAME@ALIAS`, `models:/m-ID`, `runs:/RUN/PATH`.
        source: PathBuf,
        /// What there is to say of it, such as --metadata trained-on=2026-11.
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
        metadata: Vec<(String, String)>,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make a version the one that answers.
    Activate {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make the version the one that answers that did so before.
    Rollback {
        /// Name of the model.
        name: NameArg,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show the figures of a version, or add some.
    Metrics {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
        /// Figures to add, such as accuracy=0.94.
        #[arg(value_name = "KEY=VALUE", value_parser = parse_metric)]
        metrics: Vec<(String, f64)>,
    },
    /// Keep a version loaded although it is not active.
    Pin {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
    },
    /// Keep it loaded no longer.
    Unpin {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
    },
    /// Forget a version, which must not be active.
    Remove {
        /// Name of the model.
        name: NameArg,
        /// Name of the version.
        version: NameArg,
    },
}

/// A name as it is typed. It becomes part of a path.
#[derive(Debug, Clone)]
pub struct NameArg(pub String);

impl FromStr for NameArg {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        parse_name(typed).map(Self)
    }
}

impl Display for NameArg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn parse_name(typed: &str) -> Result<String, String> {
    if is_valid_name(typed) {
        return Ok(typed.to_owned());
    }
    Err("a name has 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or a digit"
        .to_owned())
}

fn parse_key_value(typed: &str) -> Result<(String, String), String> {
    let (key, value) = typed.split_once('=').ok_or("this is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_metric(typed: &str) -> Result<(String, f64), String> {
    let (key, value) = parse_key_value(typed)?;
    let value = value.parse().ok().filter(|value: &f64| value.is_finite());
    Ok((key, value.ok_or("the VALUE of KEY=VALUE is no number")?))
}
