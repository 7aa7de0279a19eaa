//! The command line.

use std::iter::once;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use predictd_http::api_keys::{self, ApiKey, KeyFile, Scope};
use predictd_registry::backup;
use predictd_registry::data_directory::DATABASE_FILE_NAME;

use crate::admin_commands::args::ModelsCommand;
use crate::admin_commands::experiments::args::ExperimentsCommand;
use crate::admin_commands::feedback::FeedbackCommand;
use crate::bench::args::BenchCommand;
use crate::check::args::CheckCommand;
use crate::config::ServeArgs;
use crate::config::parsers::is_set;
use crate::drift_profile::args::ProfileCommand;
use crate::error::ServerError;
use crate::health_command::HealthCommand;
use crate::terminal::{escape, print};
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
    /// [`ServerError::Runtime`] in one sentence.
    pub fn run(self) -> Result<(), ServerError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::runtime)?;
        let answer = runtime.block_on(self.action.execute(&self.data_dir)).map_err(ServerError::Runtime)?;
        print_lines(&answer)
    }
}

impl DatabaseAction {
    /// Does it; what there is to say.
    async fn execute(self, data_dir: &Path) -> Result<Vec<String>, String> {
        let database = data_dir.join(DATABASE_FILE_NAME);
        let database = database.display();
        match self {
            Self::Backup { file } => {
                backup::create_backup(data_dir, &file).await?;
                Ok(vec![format!("{} is a copy of {database}", file.display())])
            }
            Self::Restore { file } => {
                let missing = backup::restore_backup(&file, data_dir).await?;
                let missing = missing.iter().map(|version| format!("the files of {version} are not in the store"));
                Ok(once(format!("{database} is what {} was", file.display())).chain(missing).collect())
            }
        }
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

impl KeysCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] in one sentence.
    pub fn run(self) -> Result<(), ServerError> {
        let path = self.keys.filter(is_set).unwrap_or_else(|| self.data_dir.join("keys.toml"));
        let answer = self.action.execute(&path);
        print_lines(&answer.map_err(|error| ServerError::Runtime(format!("{}: {error}", path.display())))?)
    }
}

impl KeysAction {
    /// Does it to the keys of a file; what there is to say.
    fn execute(self, path: &Path) -> Result<Vec<String>, String> {
        match self {
            Self::New { name, scopes, rate } => {
                let scopes = scopes.into_iter().collect();
                Ok(vec![api_keys::update_key_file(path, |file| file.add(&name, scopes, rate))?])
            }
            Self::List => {
                let line = |key: &ApiKey| {
                    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
                    let rate = key.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s"));
                    format!("{:24} {:32} {rate:10} {}", key.name, scopes.join(","), key.created)
                };
                let head = format!("{:24} {:32} {:10} {}", "NAME", "SCOPES", "RATE", "CREATED");
                let file = KeyFile::read(path)?.unwrap_or_default();
                Ok(once(head).chain(file.keys.iter().map(line)).collect())
            }
            Self::Revoke { name } => api_keys::update_key_file(path, |file| {
                let revoked = file.remove(&name).then(|| vec![format!("{name} is revoked")]);
                revoked.ok_or_else(|| format!("there is no key named {name}"))
            }),
        }
    }
}

/// Writes lines to standard output.
fn print_lines(lines: &[String]) -> Result<(), ServerError> {
    let ended: String = lines.iter().flat_map(|line| [escape(line), "\n".into()]).collect();
    print(&ended)
}
