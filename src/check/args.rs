//! The options of `predictd check` as they are typed.

use std::path::PathBuf;

use crate::ServerError;
use crate::config::model_command_args::{OutputArgs, RuntimeArgs, TextArgs};
use crate::config::parsers::{is_set, path_parser};
use crate::config::{ServeArgs, ServerSettings};

/// `predictd check`.
#[derive(Debug, clap::Args)]
pub struct CheckCommand {
    /// Directory of one model version, anywhere.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Texts with the answers they should get: a golden.json, or a CSV file with the columns text and label (or category), or lines of JSON (.jsonl) [default: none].
    #[arg(long, env = "PREDICTD_AGAINST", value_name = "FILE", value_parser = path_parser())]
    pub against: Option<PathBuf>,

    /// Directory of another version, to answer the same texts [default: none].
    #[arg(long, env = "PREDICTD_COMPARE", value_name = "OTHER_DIR", value_parser = path_parser())]
    pub compare: Option<PathBuf>,

    /// File of texts to ask: lines, a CSV file with a column text, or lines of JSON [default: the examples of golden.json, and texts of their words].
    #[arg(long, env = "PREDICTD_TEXTS", value_name = "FILE", value_parser = path_parser())]
    pub texts: Option<PathBuf>,

    /// Least accuracy on the texts of --against, from 0 to 1 [default: any].
    #[arg(long, env = "PREDICTD_MIN_ACCURACY", value_name = "SHARE", value_parser = parse_share)]
    pub min_accuracy: Option<f64>,

    /// Most texts to which the model of --compare may give another label [default: any number].
    #[arg(long, env = "PREDICTD_MAX_FLIPS", value_name = "N")]
    pub max_flips: Option<usize>,

    /// How it answers.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where the model runs.
    #[command(flatten)]
    pub runtime: RuntimeArgs,

    /// What is done with texts.
    #[command(flatten)]
    pub text_handling: TextArgs,

    /// Worker threads, a session each [default: usable cores].
    #[arg(long, env = "PREDICTD_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// Threads that share one run [default: that of serve].
    #[arg(long, env = "PREDICTD_INTRA_OP_THREADS", value_name = "N")]
    pub intra_op_threads: Option<usize>,

    /// Most tokens of a run of several texts, padding included [default: that of serve].
    #[arg(long, env = "PREDICTD_MAX_BATCH_TOKENS", value_name = "N")]
    pub max_batch_tokens: Option<usize>,

    /// Memory that a server may need at most, in bytes [default: the limit of the control group].
    #[arg(long, env = "PREDICTD_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<u64>,
}

fn parse_share(typed: &str) -> Result<f64, String> {
    let share = typed.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "this is no number between 0 and 1".to_owned())
}

impl CheckCommand {
    /// The file of texts with answers, if any.
    #[must_use]
    pub fn against_path(&self) -> Option<&PathBuf> {
        self.against.as_ref().filter(is_set)
    }

    /// The directory of the other version, if any.
    #[must_use]
    pub fn compare_path(&self) -> Option<&PathBuf> {
        self.compare.as_ref().filter(is_set)
    }

    /// The file of texts, if any.
    #[must_use]
    pub fn texts_path(&self) -> Option<&PathBuf> {
        self.texts.as_ref().filter(is_set)
    }

    /// What a server of this model would run with: what `serve` would run with here, but for what has nothing to do
    /// with a model.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] with what is wrong.
    pub fn settings(&self) -> Result<ServerSettings, ServerError> {
        self.check_conflicts().map_err(|sentence| ServerError::Configuration(sentence.to_owned()))?;
        for (option, path) in [("", Some(&self.directory)), ("--compare ", self.compare_path())] {
            if let Some(missing) = path.filter(|path| !path.is_dir()) {
                let sentence = format!("{option}{}: there is no such directory", missing.display());
                return Err(ServerError::Configuration(sentence));
            }
        }
        let mut args = ServeArgs::for_models(&self.directory).map_err(ServerError::Configuration)?;
        self.runtime.apply(&mut args);
        self.text_handling.apply(&mut args);
        args.workers = self.workers.or(args.workers);
        args.intra_op_threads = self.intra_op_threads.unwrap_or(args.intra_op_threads);
        args.max_batch_tokens = self.max_batch_tokens.or(args.max_batch_tokens);
        args.memory_limit = self.memory_limit.or(args.memory_limit);
        ServerSettings::resolve(args).map_err(ServerError::ConfigurationList)
    }

    /// Options that mean nothing without, or beside, another.
    fn check_conflicts(&self) -> Result<(), &'static str> {
        if self.against_path().is_some() && self.texts_path().is_some() {
            return Err("--against and --texts both name the texts to ask: give one of them");
        }
        if self.min_accuracy.is_some() && self.against_path().is_none() {
            return Err("--min-accuracy needs --against: the answers that texts should get");
        }
        if self.max_flips.is_some() && self.compare_path().is_none() {
            return Err("--max-flips needs --compare: the directory of another version");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_accuracy_outside_0_to_1_is_rejected() {
        assert_eq!((parse_share("0.93"), parse_share("1")), (Ok(0.93), Ok(1.0)));
        for wrong in ["", "93", "-0.1", "NaN", "inf", "93%"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }
}
