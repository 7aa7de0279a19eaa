//! The options of `predictd check` as they are typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use predictd_onnx::runtime_settings::Device;
use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};

use crate::ServerError;
use crate::config::device::parse_device;
use crate::config::parsers::path_parser;
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

    /// Where the model runs: auto, cpu, cuda, or cuda:N [default: that of serve].
    #[arg(long, env = "PREDICTD_DEVICE", value_parser = parse_device, value_name = "WHERE")]
    pub device: Option<Device>,

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

/// Container files set variables to nothing to mean "not set".
fn non_empty(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}

impl CheckCommand {
    /// The file of texts with answers, if any.
    #[must_use]
    pub fn against_path(&self) -> Option<&Path> {
        non_empty(self.against.as_ref())
    }

    /// The directory of the other version, if any.
    #[must_use]
    pub fn compare_path(&self) -> Option<&Path> {
        non_empty(self.compare.as_ref())
    }

    /// The file of texts, if any.
    #[must_use]
    pub fn texts_path(&self) -> Option<&Path> {
        non_empty(self.texts.as_ref())
    }

    /// What a server of this model would run with: what `serve` would run with here, but for what has nothing to do
    /// with a model.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] with what is wrong.
    pub fn settings(&self) -> Result<ServerSettings, ServerError> {
        self.check_conflicts().map_err(|sentence| ServerError::Configuration(sentence.to_owned()))?;
        let directories = std::iter::once(("", self.directory.as_path()));
        for (option, path) in directories.chain(self.compare_path().map(|path| ("--compare ", path))) {
            if !path.is_dir() {
                let sentence = format!("{option}{}: there is no such directory", path.display());
                return Err(ServerError::Configuration(sentence));
            }
        }
        let mut args = ServeArgs::from_environment().map_err(ServerError::Configuration)?;
        args.models.clone_from(&self.directory);
        args.default_model = None;
        args.onnxruntime.clone_from(&self.onnxruntime);
        args.device.device = self.device.clone().unwrap_or(args.device.device);
        (args.tls_cert, args.tls_key, args.keys) = (None, None, None);
        args.drain_delay = Duration::ZERO;
        args.on_overflow = self.on_overflow.unwrap_or(args.on_overflow);
        args.markup = self.markup.unwrap_or(args.markup);
        args.max_text_chars = self.max_text_chars.unwrap_or(args.max_text_chars);
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
