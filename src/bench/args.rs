//! The options of `predictd bench` as they are typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::ServerError;
use crate::config::model_command_args::{OutputArgs, RuntimeArgs};
use crate::config::parsers::path_parser;
use crate::config::{ServeArgs, ServerSettings};

/// Most connections of a server by default.
const MAX_CLIENTS: i64 = 1_024;
/// Seconds of one measurement: less measures nothing, and more is a mistake.
const MEASUREMENT_SECONDS: std::ops::RangeInclusive<f64> = 0.05..=60.0;

/// `predictd bench`.
#[derive(Debug, clap::Args)]
pub struct BenchCommand {
    /// Model to measure, the version that would answer [default: the first by name].
    #[arg(env = "PREDICTD_DEFAULT_MODEL", value_name = "MODEL")]
    pub model: Option<String>,

    /// Directory of models: NAME/VERSION/model.onnx.
    #[arg(long, env = "PREDICTD_MODELS", default_value = "models", value_name = "DIR")]
    pub models: PathBuf,

    /// Where the model runs.
    #[command(flatten)]
    pub runtime: RuntimeArgs,

    /// Time within which 99 of 100 answers shall come, as clients see it.
    #[arg(long, env = "PREDICTD_LATENCY_TARGET", default_value = "250ms", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub latency_target: Duration,

    /// Clients that ask at a time, each with its next text as soon as it has its answer.
    #[arg(long, env = "PREDICTD_CLIENTS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=MAX_CLIENTS), value_name = "N")]
    pub clients: u16,

    /// File of texts to ask, one a line [default: texts of the words of the model's examples, most short and some long].
    #[arg(long, env = "PREDICTD_TEXTS", value_name = "FILE", value_parser = path_parser())]
    pub texts: Option<PathBuf>,

    /// Seconds of one measurement.
    #[arg(long, env = "PREDICTD_SECONDS", default_value_t = 3.0, value_parser = parse_seconds, value_name = "N")]
    pub seconds: f64,

    /// How it answers.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn parse_seconds(typed: &str) -> Result<f64, String> {
    let seconds = typed.parse().ok().filter(|seconds| MEASUREMENT_SECONDS.contains(seconds));
    seconds.ok_or_else(|| {
        format!(
            "this is no number of seconds between {} and {}",
            MEASUREMENT_SECONDS.start(),
            MEASUREMENT_SECONDS.end()
        )
    })
}

impl BenchCommand {
    /// What the servers that are measured run with: what `serve` would run with here, but that no key is needed, that
    /// every text is run, and that nothing is read or left outside the model's directory.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] with all that is wrong.
    pub fn settings(&self) -> Result<ServerSettings, ServerError> {
        let mut args = ServeArgs::for_models(&self.models).map_err(ServerError::Configuration)?;
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        args.listen = loopback.into();
        args.admin_listen = loopback.into();
        self.runtime.apply(&mut args);
        args.workers = None;
        args.cache_bytes = Some(0);
        args.rate_limit = 0;
        args.allow_anonymous = true;
        args.max_connections = args.max_connections.max(self.clients.into());
        let mut settings = ServerSettings::resolve(args).map_err(ServerError::ConfigurationList)?;
        // No file has this name: there are no keys.
        settings.access.key_file = PathBuf::new();
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_out_of_range_are_rejected() {
        assert_eq!(parse_seconds("0.25"), Ok(0.25));
        for wrong in ["", "x", "0", "-1", "NaN", "inf", "61"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
