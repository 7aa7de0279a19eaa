//! The command line.

use clap::{Parser, Subcommand};

use crate::config::Args;

/// Serves ONNX text models over HTTP.
#[derive(Debug, Parser)]
#[command(name = "predictd", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Options of `serve`.
    #[command(flatten)]
    pub serve: Args,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the models and answer requests.
    Serve(Box<Args>),
}

impl Cli {
    /// The options of `serve`, whichever way they were given.
    #[must_use]
    pub fn into_serve(self) -> Args {
        match self.command {
            Some(Command::Serve(args)) => *args,
            None => self.serve,
        }
    }
}
