//! The options of `predictd watch` as they are typed.

#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::error::ErrorKind;
use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::config::parsers::path_parser;

/// Most URLs that one process watches.
pub const MAX_URLS: usize = 1_000;

/// `predictd watch`.
#[derive(Debug, clap::Args)]
pub struct WatchCommand {
    /// Servers to watch. Without a path, /health is asked.
    #[arg(value_name = "URL", required = true, num_args = 1..=MAX_URLS, value_parser = UrlParser)]
    pub urls: Vec<Url>,

    /// Time between two checks of a server.
    #[arg(long, env = "PREDICTD_WATCH_INTERVAL", default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub interval: Duration,

    /// Time for the whole answer.
    #[arg(long, env = "PREDICTD_WATCH_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub timeout: Duration,

    /// Failed checks in a row that make a server unhealthy.
    #[arg(long, env = "PREDICTD_WATCH_UNHEALTHY_AFTER", default_value = "3", value_name = "N")]
    pub unhealthy_after: NonZeroU32,

    /// Good checks in a row that make it healthy again.
    #[arg(long, env = "PREDICTD_WATCH_HEALTHY_AFTER", default_value = "2", value_name = "N")]
    pub healthy_after: NonZeroU32,

    /// Check every server once, deliver alerts, and end: with 0 if all checks were good, else with 1. Without --state a
    /// single failed check makes a server unhealthy.
    #[arg(
        long,
        env = "PREDICTD_WATCH_ONCE",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        value_name = "BOOL"
    )]
    pub once: bool,

    /// File that remembers which server was healthy, and which alerts are to be delivered [default: none].
    #[arg(long, env = "PREDICTD_WATCH_STATE", value_name = "FILE", value_parser = path_parser())]
    pub state: Option<PathBuf>,

    /// Address of the watcher's own metrics [default: none].
    #[arg(long, env = "PREDICTD_WATCH_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<std::net::SocketAddr>,

    /// Servers whose /admin/drift is looked at as well, with commas between, such as http://127.0.0.1:8001: of a model whose
    /// texts drift, or whose accuracy drops, alerts are told too [default: none].
    #[arg(long, env = "PREDICTD_WATCH_DRIFT", value_name = "URLS", value_delimiter = ',', value_parser = UrlParser)]
    pub drift: Vec<Url>,

    /// A key of the scope metrics for --drift, if those servers want one. Better in the variable: others can read a command
    /// line [default: none].
    #[arg(long, env = "PREDICTD_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Where alerts go.
    #[command(flatten)]
    pub alerts: AlertArgs,
}

/// Where alerts go. All of them are in the log besides.
#[derive(Debug, clap::Args)]
pub struct AlertArgs {
    /// Send alerts as JSON with POST [default: none].
    #[arg(long, env = "PREDICTD_WATCH_WEBHOOK", hide_env_values = true, value_name = "URL", value_parser = UrlParser)]
    pub webhook: Option<Url>,

    /// Send alerts to an incoming webhook of Slack [default: none].
    #[arg(long, env = "PREDICTD_WATCH_SLACK", hide_env_values = true, value_name = "URL", value_parser = UrlParser)]
    pub slack: Option<Url>,

    /// Send alerts to PagerDuty (Events API v2), with this routing key [default: none].
    #[arg(long, env = "PREDICTD_WATCH_PAGERDUTY", hide_env_values = true, value_name = "KEY")]
    pub pagerduty: Option<String>,

    /// Where PagerDuty takes events.
    #[arg(long, env = "PREDICTD_WATCH_PAGERDUTY_URL", default_value = "https://events.pagerduty.com/v2/enqueue", value_name = "URL", value_parser = UrlParser)]
    pub pagerduty_url: Url,

    /// Send alerts to an Alertmanager, such as http://alertmanager:9093 [default: none].
    #[arg(long, env = "PREDICTD_WATCH_ALERTMANAGER", hide_env_values = true, value_name = "URL", value_parser = UrlParser)]
    pub alertmanager: Option<Url>,

    /// Mail server, such as smtps://user:password@mail.example.com, or smtp://localhost:25 [default: none].
    #[arg(long, env = "PREDICTD_WATCH_SMTP", hide_env_values = true, value_name = "URL", requires_all = ["email_from", "email_to"])]
    pub smtp: Option<String>,

    /// Sender of mails [default: none].
    #[arg(long, env = "PREDICTD_WATCH_EMAIL_FROM", value_name = "ADDRESS", requires = "smtp")]
    pub email_from: Option<String>,

    /// Receivers of mails, with commas between [default: none].
    #[arg(long, env = "PREDICTD_WATCH_EMAIL_TO", value_name = "ADDRESSES", value_delimiter = ',', requires = "smtp")]
    pub email_to: Vec<String>,

    /// Program that gets each alert as JSON on standard input; it is run without a shell. One that fails within 20 seconds is
    /// run again; one that goes on for longer counts as told and is left running, four of them at most [default: none].
    #[arg(long, env = "PREDICTD_WATCH_COMMAND", value_name = "PROGRAM", value_parser = path_parser())]
    pub command: Option<PathBuf>,

    /// How long the delivery of an alert is tried again.
    #[arg(long, env = "PREDICTD_WATCH_RETRY_FOR", default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub retry_for: Duration,
}

/// Parses a URL, which may hold a secret: what is wrong with one is said without it.
#[derive(Debug, Clone)]
struct UrlParser;

impl TypedValueParser for UrlParser {
    type Value = Url;

    fn parse_ref(&self, _: &clap::Command, argument: Option<&clap::Arg>, typed: &OsStr) -> Result<Url, clap::Error> {
        let url = typed.to_str().and_then(|typed| Url::parse(typed).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        url.ok_or_else(|| {
            let option = argument.map(ToString::to_string).unwrap_or_default();
            let message = format!("{option}: this is no URL that begins with http:// or https://\n");
            clap::Error::raw(ErrorKind::ValueValidation, message)
        })
    }
}

/// A URL as the log and alerts have it: without what may be a secret.
#[must_use]
pub fn redact_url(url: &Url) -> String {
    let mut shown = url.clone();
    // They fail for URLs without a host only.
    shown.set_username("").ok();
    shown.set_password(None).ok();
    shown.set_query(None);
    shown.set_fragment(None);
    if shown == *url {
        return shown.into();
    }
    // The shown part still identifies the URL.
    let digest = hex::encode(Sha256::digest(url.as_str()));
    format!("{shown}#{}", digest.get(..8).unwrap_or_default())
}
