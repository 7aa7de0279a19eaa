//! Options that commands about a model share: `check`, `profile` and `bench`.

use std::fmt::Display;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use predictd_onnx::runtime_settings::Device;
use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};
use serde::Serialize;

use super::device::parse_device;
use super::parsers::path_parser;
use super::serve_args::ServeArgs;
use crate::error::ServerError;
use crate::terminal::{print, print_json};

/// How the command answers.
#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// Answer with JSON.
    #[arg(
        long,
        env = "PREDICTD_JSON",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        value_name = "BOOL"
    )]
    pub json: bool,
}

impl OutputArgs {
    /// Prints a report on standard output.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if standard output is closed.
    pub fn print(&self, report: &(impl Serialize + Display)) -> Result<(), ServerError> {
        if self.json { print_json(report) } else { print(&report.to_string()) }
    }
}

/// Where the model runs.
#[derive(Debug, clap::Args)]
pub struct RuntimeArgs {
    /// Where the model runs: auto, cpu, cuda, or cuda:N [default: that of serve].
    #[arg(long, env = "PREDICTD_DEVICE", value_parser = parse_device, value_name = "WHERE")]
    pub device: Option<Device>,

    /// The library.
    #[command(flatten)]
    pub library: LibraryArgs,
}

/// The library.
#[derive(Debug, clap::Args)]
pub struct LibraryArgs {
    /// ONNX Runtime library, or the directory it lies in [default: searched for].
    #[arg(long, env = "PREDICTD_ONNXRUNTIME", value_name = "PATH", value_parser = path_parser())]
    pub onnxruntime: Option<PathBuf>,
}

/// What is done with texts.
#[derive(Debug, clap::Args)]
pub struct TextArgs {
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

impl RuntimeArgs {
    /// Sets what was typed.
    pub fn apply(&self, serve: &mut ServeArgs) {
        if let Some(device) = &self.device {
            serve.device.device.clone_from(device);
        }
        serve.onnxruntime.clone_from(&self.library.onnxruntime);
    }
}

impl TextArgs {
    /// Sets what was typed.
    pub fn apply(&self, serve: &mut ServeArgs) {
        serve.on_overflow = self.on_overflow.unwrap_or(serve.on_overflow);
        serve.markup = self.markup.unwrap_or(serve.markup);
        serve.max_text_chars = self.max_text_chars.unwrap_or(serve.max_text_chars);
    }
}
