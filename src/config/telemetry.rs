//! Options of the log and of traces.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::parsers::{parse_server_url, path_parser};

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, and where.
#[derive(Debug, Clone, ClapArgs)]
pub struct LogSettings {
    /// What to log: error, warn, info, debug, trace, or a filter such as predictd=debug.
    #[arg(long = "log", env = "PREDICTD_LOG", default_value = "info", value_name = "FILTER")]
    pub filter: String,

    /// File that log lines go to as well, as JSON [default: none].
    #[arg(long, env = "PREDICTD_LOG_FILE", value_name = "FILE", value_parser = path_parser())]
    pub log_file: Option<PathBuf>,

    /// Bytes after which the log file is rotated.
    #[arg(long, env = "PREDICTD_LOG_FILE_MAX_BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1 << 16..), value_name = "N")]
    pub log_file_max_bytes: u64,

    /// Older log files that are kept.
    #[arg(long, env = "PREDICTD_LOG_MAX_FILES", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    pub log_max_files: u16,

    /// Time between two summaries in the log; 0s: none by time.
    #[arg(long, env = "PREDICTD_SUMMARY_INTERVAL", default_value = "1m", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub summary_interval: Duration,

    /// Predictions after which there is a summary in the log; 0: none by number.
    #[arg(long, env = "PREDICTD_SUMMARY_PREDICTIONS", default_value_t = 0, value_name = "N")]
    pub summary_predictions: u64,

    /// How log lines look on standard error.
    #[arg(long, env = "PREDICTD_LOG_FORMAT", default_value = "auto", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Options of traces.
#[derive(Debug, ClapArgs)]
pub struct TraceArgs {
    /// Collector that gets spans of requests (OTLP over HTTP), such as `http://localhost:4318` [default: none].
    #[arg(
        long,
        env = "PREDICTD_OTLP_ENDPOINT",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: String,

    /// Share of requests that have spans, of those whose caller did not decide it by a traceparent header.
    #[arg(long, env = "PREDICTD_OTLP_SAMPLE_RATIO", default_value = "1", value_parser = parse_share, value_name = "0..1")]
    pub otlp_sample_ratio: f64,
}

fn parse_share(typed: &str) -> Result<f64, String> {
    typed.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "this is no number from 0 to 1".into())
}

/// Where spans of requests go, and of which.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// A collector's OTLP/HTTP address; `/v1/traces` follows.
    pub endpoint: String,
    /// Share of requests that have spans, of those whose caller did not decide it.
    pub sampling_share: f64,
}

impl TraceSettings {
    /// Nothing, if no address is given.
    ///
    /// # Errors
    /// What is wrong with the address, a sentence with the option's name.
    pub fn from_args(args: &TraceArgs) -> Result<Option<Self>, String> {
        if args.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        // Errors of a delivery, which are logged, name the URL.
        let url = parse_server_url(
            "--otlp-endpoint",
            &args.otlp_endpoint,
            "http://localhost:4318",
            "OTEL_EXPORTER_OTLP_HEADERS",
        )?;
        Ok(Some(Self { endpoint: url.into(), sampling_share: args.otlp_sample_ratio }))
    }
}
