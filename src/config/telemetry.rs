//! Options of the log and of traces.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use reqwest::Url;

use super::parsers::path_parser;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options of the log.
#[derive(Debug, Clone, ClapArgs)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or a filter such as predictd=debug.
    #[arg(long, env = "PREDICTD_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

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
#[derive(Debug, Clone, ClapArgs)]
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

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or a filter such as `predictd=debug`.
    pub filter: String,
    /// How lines look on standard error.
    pub format: LogFormat,
    /// File that they go to as well.
    pub file_path: Option<PathBuf>,
    /// Bytes after which it is rotated.
    pub max_file_bytes: u64,
    /// Older ones that are kept.
    pub max_old_files: usize,
    /// When there is a summary.
    pub summary_schedule: SummarySchedule,
}

impl From<LogArgs> for LogSettings {
    fn from(args: LogArgs) -> Self {
        Self {
            filter: args.log,
            format: args.log_format,
            file_path: args.log_file.filter(|path| !path.as_os_str().is_empty()),
            max_file_bytes: args.log_file_max_bytes,
            max_old_files: args.log_max_files.into(),
            summary_schedule: SummarySchedule {
                interval: args.summary_interval,
                predictions: args.summary_predictions,
            },
        }
    }
}

/// When the log gets a summary: after so much time, or so many predictions; 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummarySchedule {
    /// The time.
    pub interval: Duration,
    /// The predictions.
    pub predictions: u64,
}

/// Where spans of requests go, and of which.
#[derive(Debug, Clone, PartialEq)]
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
    /// What is wrong with the address. It is not quoted: it may hold a secret.
    pub fn from_args(args: &TraceArgs) -> Result<Option<Self>, &'static str> {
        if args.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&args.otlp_endpoint).map_err(|_| "this is no URL such as http://localhost:4318")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the URL must begin with http:// or https://");
        }
        // Errors of a delivery, which are logged, name the URL.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(
                "the URL must have no user, no password and nothing after ? or #: put secrets into OTEL_EXPORTER_OTLP_HEADERS",
            );
        }
        Ok(Some(Self { endpoint: url.into(), sampling_share: args.otlp_sample_ratio }))
    }
}
