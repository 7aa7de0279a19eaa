//! Options of `predictd experiments`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use predictd_api::experiments::{AnonymousRoute, ArmBody};
use serde_json::Value;

use crate::admin_commands::args::{NameArg, parse_name};
use crate::admin_commands::server_args::ServerArgs;

/// Most bytes of a file that says what is compared.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// `predictd experiments`.
#[derive(Debug, Args)]
pub struct ExperimentsCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: ExperimentsAction,

    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,

    /// Print the server's answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum ExperimentsAction {
    /// List all experiments.
    List,
    /// Show what an experiment compares.
    Show {
        /// Its name.
        name: NameArg,
    },
    /// What an experiment shows so far, over all replicas.
    Results {
        /// Its name.
        name: NameArg,
        /// A former phase: a time with other weights, from 1.
        #[arg(long, value_name = "NUMBER")]
        phase: Option<u32>,
        /// Also every class, mistake and bin, with --json.
        #[arg(long)]
        details: bool,
    },
    /// What was done to an experiment, the last first.
    History {
        /// Its name.
        name: NameArg,
    },
    /// Make an experiment: two versions and their parts of the users, or a version that comes step by step.
    Create(CreateArgs),
    /// Change the weights: a new phase begins.
    Weights {
        /// Name of the experiment.
        name: NameArg,
        /// Parts of the users, such as old=90 new=10.
        #[arg(value_name = "ARM=WEIGHT", value_parser = parse_arm_weight, required = true)]
        weights: Vec<(String, f64)>,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Start an experiment, or go on with it.
    Start(StateChangeArgs),
    /// Pause an experiment: everybody gets the active version.
    Pause(StateChangeArgs),
    /// End an experiment for good: everybody gets the active version.
    End(StateChangeArgs),
    /// Make the version of an arm the active one, and end the experiment.
    Promote {
        /// Name of the experiment.
        name: NameArg,
        /// Name of the arm.
        arm: NameArg,
        /// Why, for the history.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Forget an experiment that has not begun, or ended more than 31 days ago.
    Forget {
        /// Its name.
        name: NameArg,
    },
}

/// An experiment whose state changes.
#[derive(Debug, Args)]
pub struct StateChangeArgs {
    /// Its name.
    pub name: NameArg,
    /// Why, for the history.
    #[arg(long)]
    pub reason: Option<String>,
}

/// A new experiment.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name.
    pub name: NameArg,
    /// The model that callers ask for; the default model if none is named.
    #[arg(long, value_name = "MODEL", value_parser = parse_name)]
    pub on: Option<String>,
    /// An arm, the control first: NAME=VERSION:WEIGHT, NAME=MODEL/VERSION:WEIGHT; in a rollout without WEIGHT.
    #[arg(long = "arm", value_name = "ARM", value_parser = parse_arm, required_unless_present = "file")]
    pub arms: Vec<ArmBody>,
    /// An arm that only sees texts, and its part of them.
    #[arg(long = "shadow", value_name = "ARM", value_parser = parse_arm)]
    pub shadows: Vec<ArmBody>,
    /// The arm that others are compared with; the first if none is named.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub control: Option<String>,
    /// Where requests go that name no user.
    #[arg(long, value_enum, value_name = "WHERE")]
    pub anonymous: Option<AnonymousAssignmentArg>,
    /// The control's accuracy, as guessed [default: 0.9].
    #[arg(long, value_name = "SHARE")]
    pub accuracy: Option<f64>,
    /// The least difference worth finding [default: 0.03].
    #[arg(long, value_name = "SHARE")]
    pub least: Option<f64>,
    /// Roll the other arm out in these steps, in per cent, such as 1,5,25,100.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    pub steps: Vec<f64>,
    /// How long each step takes at least, in seconds [default: 3600].
    #[arg(long, value_name = "SECONDS", requires = "steps")]
    pub step_seconds: Option<u64>,
    /// Requests that the version must have had in each step [default: 1000].
    #[arg(long, value_name = "NUMBER", requires = "steps")]
    pub step_requests: Option<u64>,
    /// All of it as JSON, as PUT /admin/experiments/NAME takes it; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["on", "arms", "shadows", "control", "anonymous", "accuracy", "least", "steps"])]
    pub file: Option<PathBuf>,
    /// Start it at once.
    #[arg(long)]
    pub start: bool,
    /// Why, for the history.
    #[arg(long)]
    pub reason: Option<String>,
}

/// Where requests go that name no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnonymousAssignmentArg {
    /// To an arm at random.
    Random,
    /// To the control.
    Control,
}

impl AnonymousAssignmentArg {
    pub(super) fn route(self) -> AnonymousRoute {
        match self {
            Self::Random => AnonymousRoute::Random,
            Self::Control => AnonymousRoute::Control,
        }
    }
}

fn parse_arm(typed: &str) -> Result<ArmBody, String> {
    let (arm, rest) = typed.split_once('=').ok_or("this is not NAME=VERSION:WEIGHT, such as new=2:50")?;
    let (rest, weight) = match rest.split_once(':') {
        Some((rest, weight)) => (rest, Some(parse_weight(weight)?)),
        None => (rest, None),
    };
    let (model, version) = match rest.split_once('/') {
        Some((model, version)) => (Some(parse_name(model)?), version),
        None => (None, rest),
    };
    let version = Some(parse_name(version)?);
    Ok(ArmBody { name: parse_name(arm)?, model, version, weight, shadow: false })
}

fn parse_arm_weight(typed: &str) -> Result<(String, f64), String> {
    let (arm, weight) = typed.split_once('=').ok_or("this is not ARM=WEIGHT, such as new=10")?;
    Ok((parse_name(arm)?, parse_weight(weight)?))
}

fn parse_weight(typed: &str) -> Result<f64, String> {
    let number = typed.trim_end_matches('%').trim().parse().ok().filter(|number: &f64| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "a weight is a number from 0 to 1, or a percentage".to_owned())
}

/// JSON in a file.
pub(super) fn read_json_file(path: &Path) -> Result<Value, String> {
    let text = if path == Path::new("-") {
        io::read_to_string(io::stdin().take(MAX_FILE_BYTES))
    } else {
        File::open(path).and_then(|file| io::read_to_string(file.take(MAX_FILE_BYTES)))
    };
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm_body(name: &str, model: Option<&str>, version: &str, weight: Option<f64>) -> ArmBody {
        ArmBody {
            name: name.to_owned(),
            model: model.map(str::to_owned),
            version: Some(version.to_owned()),
            weight,
            shadow: false,
        }
    }

    #[test]
    fn arm_argument_malformed_is_rejected() {
        assert_eq!(parse_arm("new=2:50"), Ok(arm_body("new", None, "2", Some(50.0))));
        assert_eq!(parse_arm("new=minilm/v1.2:12.5%"), Ok(arm_body("new", Some("minilm"), "v1.2", Some(12.5))));
        assert_eq!(parse_arm("new=2"), Ok(arm_body("new", None, "2", None)));
        for wrong in ["", "new", "=2:50", "new=:50", "new=2:", "new=2:-1", "new=2:101", "new=../2:1", "New=2:1"] {
            assert!(parse_arm(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_arm_weight("old=90"), Ok(("old".to_owned(), 90.0)));
        assert!(parse_arm_weight("old").is_err() && parse_arm_weight("old=x").is_err());
    }
}
