//! The options of `predictd profile` as they are typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use predictd_engine::drift_monitor::PROFILE_FILE;
use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};

use crate::ServerError;
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

    /// Answer with JSON.
    #[arg(
        long,
        env = "PREDICTD_JSON",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub json: bool,

    /// ONNX Runtime library, or the directory it lies in [default: searched for].
    #[arg(long, env = "PREDICTD_ONNXRUNTIME", value_name = "PATH", value_parser = path_parser())]
    pub onnxruntime: Option<PathBuf>,

    /// What to do with a text of more tokens than the model takes; a model can say otherwise [default: that of serve].
    #[arg(long, env = "PREDICTD_ON_OVERFLOW", value_name = "WHAT")]
    pub on_overflow: Option<OverflowPolicy>,

    /// What to do with markup and control characters in a text; a model can say otherwise [default: that of serve].
    #[arg(long, env = "PREDICTD_MARKUP", value_name = "WHAT")]
    pub markup: Option<MarkupPolicy>,

    /// Longest text, in characters [default: that of serve].
    #[arg(long, env = "PREDICTD_MAX_TEXT_CHARS", value_name = "N")]
    pub max_text_chars: Option<usize>,
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
        let mut args = ServeArgs::from_environment().map_err(ServerError::Configuration)?;
        args.models.clone_from(&self.directory);
        args.default_model = None;
        args.onnxruntime.clone_from(&self.onnxruntime);
        (args.tls_cert, args.tls_key, args.keys) = (None, None, None);
        args.drain_delay = Duration::ZERO;
        args.on_overflow = self.on_overflow.unwrap_or(args.on_overflow);
        args.markup = self.markup.unwrap_or(args.markup);
        args.max_text_chars = self.max_text_chars.unwrap_or(args.max_text_chars);
        args.workers = Some(1);
        ServerSettings::resolve(args).map_err(ServerError::ConfigurationList)
    }
}
