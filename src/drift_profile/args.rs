//! The options of `predictd profile` as they are typed.

use std::path::PathBuf;

use predictd_engine::drift_monitor::PROFILE_FILE;

use crate::ServerError;
use crate::config::model_command_args::{LibraryArgs, OutputArgs, TextArgs};
use crate::config::parsers::path_parser;
use crate::config::{ServeArgs, ServerSettings};

/// `predictd profile`.
#[derive(Debug, clap::Args)]
pub struct ProfileCommand {
    /// Directory of one model version, anywhere.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Texts that the model was not trained on, 200 at least: a CSV file with a column text and perhaps label, lines of JSON (.jsonl) with the same, or plain lines.
    #[arg(long, env = "PREDICTD_TEXTS", value_name = "FILE")]
    pub texts: PathBuf,

    /// Where the profile goes [default: profile.json in the model's directory].
    #[arg(long, env = "PREDICTD_OUT", value_name = "FILE", value_parser = path_parser())]
    pub out: Option<PathBuf>,

    /// How it answers.
    #[command(flatten)]
    pub output: OutputArgs,

    /// The library.
    #[command(flatten)]
    pub library: LibraryArgs,

    /// What is done with texts.
    #[command(flatten)]
    pub text_handling: TextArgs,
}

impl ProfileCommand {
    /// The file to write.
    #[must_use]
    pub fn output_path(&self) -> PathBuf {
        let named = self.out.clone().filter(|path| !path.as_os_str().is_empty());
        named.unwrap_or_else(|| self.directory.join(PROFILE_FILE))
    }

    /// What a server of this model would run with, but for what has nothing to do with its answers.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] with what is wrong.
    pub fn settings(&self) -> Result<ServerSettings, ServerError> {
        if !self.directory.is_dir() {
            let sentence = format!("{}: there is no such directory", self.directory.display());
            return Err(ServerError::Configuration(sentence));
        }
        let mut args = ServeArgs::for_models(&self.directory).map_err(ServerError::Configuration)?;
        args.onnxruntime.clone_from(&self.library.onnxruntime);
        self.text_handling.apply(&mut args);
        args.workers = Some(1);
        ServerSettings::resolve(args).map_err(ServerError::ConfigurationList)
    }
}
