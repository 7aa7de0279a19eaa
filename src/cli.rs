//! The command line.

use std::collections::BTreeSet;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use predictd_http::api_keys::{self, KeyFile, Scope};
use predictd_registry::backup;
use predictd_registry::data_directory::DATABASE_FILE_NAME;

use crate::admin_commands::args::ModelsCommand;
use crate::admin_commands::experiments::ExperimentsCommand;
use crate::admin_commands::feedback::FeedbackCommand;
use crate::bench::args::BenchCommand;
use crate::check::args::CheckCommand;
use crate::config::ServeArgs;
use crate::drift_profile::args::ProfileCommand;
use crate::health_command::HealthCommand;
use crate::terminal;
use crate::watch::args::WatchCommand;

/// Serves ONNX text models over HTTP.
#[derive(Debug, Parser)]
#[command(name = "predictd", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Options of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the models and answer requests.
    Serve(Box<ServeArgs>),
    /// Find sessions, threads and caps for a model on this machine, and measure the server against the engine alone.
    Bench(Box<BenchCommand>),
    /// Verify a model directory as a load does, and say what it costs, whether answers depend on neighbours, and how they differ.
    ///
    /// Exit codes: 0 if all is well, 1 if the model fails anything, 64 for an option or a file that cannot be used.
    Check(Box<CheckCommand>),
    /// Answer texts that a model was not trained on, and write down how they and its answers are spread: its profile, which
    /// a server compares live texts with.
    Profile(Box<ProfileCommand>),
    /// Check servers at an interval, and tell when one becomes unhealthy or healthy again.
    Watch(Box<WatchCommand>),
    /// Ask the server on this machine whether it is ready: exit code 0 or 1, for a container's health check.
    Health(HealthCommand),
    /// Register, activate, roll back, measure and remove model versions of a running server.
    Models(Box<ModelsCommand>),
    /// Write the true labels that were told of earlier answers, as a table or as lines of JSON.
    Feedback(FeedbackCommand),
    /// Compare versions on live traffic, or roll one out, on a running server.
    Experiments(Box<ExperimentsCommand>),
    /// Copy the registry's SQLite file while the server runs, or put a copy in its place.
    Database(DatabaseCommand),
    /// Make, list and revoke API keys. A running server takes changes within a second.
    Keys(KeysCommand),
}

impl Cli {
    /// What to do.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// `predictd database`.
#[derive(Debug, clap::Args)]
pub struct DatabaseCommand {
    #[command(subcommand)]
    action: DatabaseAction,

    /// Directory for what the server keeps.
    #[arg(long, env = "PREDICTD_DATA_DIR", default_value = "data", value_name = "DIR", global = true)]
    data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum DatabaseAction {
    /// Copy it as it is at this moment. The files of versions are in the directory store beside it: copy them afterwards.
    Backup {
        /// Where to; must not exist.
        file: PathBuf,
    },
    /// Put a copy in its place. The server must not run; what was there is kept beside it, as predictd.db.replaced-TIME.
    Restore {
        /// The copy.
        file: PathBuf,
    },
}

impl DatabaseCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let answer = match self.action {
            DatabaseAction::Backup { file } => {
                runtime.block_on(backup::create_backup(&self.data_dir, &file))?;
                vec![format!("{} is a copy of {}", file.display(), self.data_dir.join(DATABASE_FILE_NAME).display())]
            }
            DatabaseAction::Restore { file } => {
                let missing = runtime.block_on(backup::restore_backup(&file, &self.data_dir))?;
                let missing = missing.iter().map(|version| format!("the files of {version} are not in the store"));
                let done =
                    format!("{} is what {} was", self.data_dir.join(DATABASE_FILE_NAME).display(), file.display());
                std::iter::once(done).chain(missing).collect()
            }
        };
        print_lines(&answer)
    }
}

/// `predictd keys`.
#[derive(Debug, clap::Args)]
pub struct KeysCommand {
    #[command(subcommand)]
    action: KeysAction,

    /// File of the keys [default: keys.toml in the data directory].
    #[arg(long, env = "PREDICTD_KEYS", value_name = "FILE", global = true)]
    keys: Option<PathBuf>,

    /// Directory for what the server keeps.
    #[arg(long, env = "PREDICTD_DATA_DIR", default_value = "data", value_name = "DIR", global = true)]
    data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum KeysAction {
    /// Make a key and print it, once: only its hash is kept.
    New {
        /// What people call it.
        #[arg(long)]
        name: String,
        /// What it is good for, with commas between.
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// Texts a second, such as 50/s [default: the server's --rate-limit].
        #[arg(long, value_name = "N/s", value_parser = parse_rate)]
        rate: Option<NonZeroU32>,
    },
    /// List the keys by name, with scopes and rates.
    List,
    /// Make a key worthless.
    Revoke {
        /// Its name.
        name: String,
    },
}

fn parse_rate(typed: &str) -> Result<NonZeroU32, String> {
    let number = typed.strip_suffix("/s").unwrap_or(typed);
    number.parse().map_err(|_| "a rate is a whole number of texts a second from 1 on, such as 50/s".to_owned())
}

/// Writes lines to standard output.
fn print_lines(lines: &[String]) -> Result<(), String> {
    let mut text = String::new();
    for line in lines {
        terminal::write_line(&mut text, format_args!("{line}")).map_err(|error| error.to_string())?;
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

impl KeysCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(self) -> Result<(), String> {
        let path = match self.keys {
            Some(path) if !path.as_os_str().is_empty() => path,
            _ => self.data_dir.join("keys.toml"),
        };
        let named = |error: String| format!("{}: {error}", path.display());
        let answer = match self.action {
            KeysAction::New { name, scopes, rate } => {
                let scopes: BTreeSet<Scope> = scopes.into_iter().collect();
                let key = api_keys::update_key_file(&path, |file| file.add(&name, scopes, rate)).map_err(named)?;
                vec![key]
            }
            KeysAction::List => {
                let file = KeyFile::read(&path).map_err(named)?.unwrap_or_default();
                let line = |key: &api_keys::ApiKey| {
                    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
                    let rate = key.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s"));
                    format!("{:24} {:32} {rate:10} {}", key.name, scopes.join(","), key.created)
                };
                let head = format!("{:24} {:32} {:10} {}", "NAME", "SCOPES", "RATE", "CREATED");
                std::iter::once(head).chain(file.keys.iter().map(line)).collect()
            }
            KeysAction::Revoke { name } => api_keys::update_key_file(&path, |file| {
                if file.remove(&name) {
                    Ok(vec![format!("{name} is revoked")])
                } else {
                    Err(format!("there is no key named {name}"))
                }
            })
            .map_err(named)?,
        };
        print_lines(&answer)
    }
}
