//! Options: each is a flag, a `PREDICTD_*` variable, a default and a line of `--help`.
//!
//! [`Args`] is what was typed; [`Settings`] is what the server runs with. Everything that can
//! be wrong is found in between, all of it at once, before a socket is bound. This is the only
//! place that reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args as ClapArgs, ValueEnum};
use serde::{Deserialize, Serialize};

/// Exit code for a configuration that cannot work (`EX_USAGE` of sysexits).
pub const EXIT_CONFIGURATION: u8 = 64;

/// The variable that keeps ONNX Runtime's telemetry off, and its value.
pub const TELEMETRY_OFF: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// True if ONNX Runtime's telemetry is off before the library is loaded.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub fn runtime_telemetry_is_off() -> bool {
    let (name, value) = TELEMETRY_OFF;
    std::env::var_os(name).is_some_and(|set| set == value)
}

/// What to do with a text of more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOverflow {
    /// Refuse it.
    Error,
    /// Cut it off and say so in the answer.
    Truncate,
    /// Score overlapping windows of it and average them by token count.
    Window,
}

/// What to do with markup and control characters in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Markup {
    /// Take texts as they are.
    Allow,
    /// Remove tags, script and style with their content, and fold white space.
    Strip,
    /// Refuse scripts, `javascript:` URLs, event handlers and calls of eval in markup.
    Reject,
}

/// What is done with texts where a model does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextDefaults {
    /// Texts of too many tokens.
    pub on_overflow: OnOverflow,
    /// Markup and control characters.
    pub markup: Markup,
}

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

/// Options of `predictd serve`, as typed.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Address of the data listener.
    #[arg(long, env = "PREDICTD_LISTEN", default_value = "127.0.0.1:8000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Serve everybody who can reach a data listener that is not on loopback.
    #[arg(
        long,
        env = "PREDICTD_ALLOW_ANONYMOUS",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub allow_anonymous: bool,

    /// Directory of models: NAME/VERSION/model.onnx.
    #[arg(long, env = "PREDICTD_MODELS", default_value = "models", value_name = "DIR")]
    pub models: PathBuf,

    /// Directory for what the server keeps.
    #[arg(long, env = "PREDICTD_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Model that answers requests that name none [default: the first by name].
    #[arg(long, env = "PREDICTD_DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<String>,

    /// Worker threads per model, and runs at a time over all models [default: usable cores].
    #[arg(long, env = "PREDICTD_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// ONNX Runtime library, or the directory it lies in [default: searched for].
    #[arg(long, env = "PREDICTD_ONNXRUNTIME", value_name = "PATH", value_parser = path_or_empty())]
    pub onnxruntime: Option<PathBuf>,

    /// The name that other programs use for the same.
    #[arg(long, env = "ORT_DYLIB_PATH", hide = true, value_parser = path_or_empty())]
    pub ort_dylib_path: Option<PathBuf>,

    /// Largest request body, in bytes.
    #[arg(long, env = "PREDICTD_MAX_BODY", default_value_t = 2 << 20, value_name = "BYTES")]
    pub max_body: usize,

    /// Longest text, in characters.
    #[arg(long, env = "PREDICTD_MAX_TEXT_CHARS", default_value_t = 32_768, value_name = "N")]
    pub max_text_chars: usize,

    /// Most texts in one request.
    #[arg(long, env = "PREDICTD_MAX_BATCH_TEXTS", default_value_t = 1_024, value_name = "N")]
    pub max_batch_texts: usize,

    /// Most texts in work at a time; more are refused with 503.
    #[arg(long, env = "PREDICTD_MAX_INFLIGHT_TEXTS", default_value_t = 4_096, value_name = "N")]
    pub max_inflight_texts: usize,

    /// Most open client connections; more wait.
    #[arg(long, env = "PREDICTD_MAX_CONNECTIONS", default_value_t = 1_024, value_name = "N")]
    pub max_connections: usize,

    /// Time for one request, where the client names none.
    #[arg(long, env = "PREDICTD_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub timeout: Duration,

    /// Most time that a client can ask for by X-Request-Timeout-Ms.
    #[arg(long, env = "PREDICTD_MAX_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub max_timeout: Duration,

    /// Time between "not ready" and the end of accepting, when the server is told to stop.
    #[arg(long, env = "PREDICTD_DRAIN_DELAY", default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub drain_delay: Duration,

    /// Time for requests in work to finish, when the server is told to stop.
    #[arg(long, env = "PREDICTD_GRACE", default_value = "20s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub grace: Duration,

    /// What to do with a text of more tokens than the model takes; a model can say otherwise.
    #[arg(long, env = "PREDICTD_ON_OVERFLOW", default_value = "truncate", value_name = "WHAT")]
    pub on_overflow: OnOverflow,

    /// What to do with markup and control characters in a text; a model can say otherwise.
    #[arg(long, env = "PREDICTD_MARKUP", default_value = "reject", value_name = "WHAT")]
    pub markup: Markup,

    /// File of the keys that seal prediction ids [default: receipt.keys in the data directory].
    #[arg(long, env = "PREDICTD_RECEIPT_KEYS", value_name = "FILE", value_parser = path_or_empty())]
    pub receipt_keys: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as predictd=debug.
    #[arg(long, env = "PREDICTD_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "PREDICTD_LOG_FORMAT", default_value = "auto", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Container files set variables to nothing to mean "not set".
fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What a request may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub max_body: usize,
    /// Characters of a text.
    pub max_text_chars: usize,
    /// Texts of a request.
    pub max_batch_texts: usize,
    /// Texts in work over all requests.
    pub max_inflight_texts: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Time of a request that names none.
    pub timeout: Duration,
    /// Time that a request can name.
    pub max_timeout: Duration,
}

/// What the server runs with: checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the data listener.
    pub listen: SocketAddr,
    /// Directory of models.
    pub models: PathBuf,
    /// Model that answers requests that name none, if chosen.
    pub default_model: Option<String>,
    /// Worker threads per model and runs at a time over all models.
    pub workers: usize,
    /// Library, if named.
    pub onnxruntime: Option<PathBuf>,
    /// Limits of requests.
    pub limits: Limits,
    /// Time between "not ready" and the end of accepting.
    pub drain_delay: Duration,
    /// Time for requests in work to finish.
    pub grace: Duration,
    /// What is done with texts where a model does not say otherwise.
    pub texts: TextDefaults,
    /// File of the receipt keys.
    pub receipt_keys: PathBuf,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Settings {
    /// Checks every option and every pair of options that must fit each other.
    ///
    /// # Errors
    /// All that is wrong, a sentence each, with the option's name.
    pub fn resolve(args: Args) -> Result<Self, Vec<String>> {
        const MOST_THREADS: usize = 1_024;
        const LONGEST: Duration = Duration::from_hours(24);
        let mut wrong = Vec::new();
        let mut check = |holds: bool, sentence: String| {
            if !holds {
                wrong.push(sentence);
            }
        };
        let usable_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = args.workers.unwrap_or(usable_cores.min(MOST_THREADS));
        check(
            args.listen.ip().is_loopback() || args.allow_anonymous,
            format!(
                "--listen {} can be reached from other machines: add --allow-anonymous if everybody there may use it",
                args.listen
            ),
        );
        check(
            (1..=MOST_THREADS).contains(&workers),
            format!("--workers {workers} is not between 1 and {MOST_THREADS}"),
        );
        check(
            (1_024..=1 << 30).contains(&args.max_body),
            format!("--max-body {} is not between 1024 and {}", args.max_body, 1 << 30),
        );
        check(
            (1..=1 << 24).contains(&args.max_text_chars),
            format!("--max-text-chars {} is not between 1 and {}", args.max_text_chars, 1 << 24),
        );
        check(
            (1..=1 << 20).contains(&args.max_inflight_texts),
            format!("--max-inflight-texts {} is not between 1 and {}", args.max_inflight_texts, 1 << 20),
        );
        check(
            (1..=args.max_inflight_texts).contains(&args.max_batch_texts),
            format!(
                "--max-batch-texts {} is not between 1 and --max-inflight-texts {}",
                args.max_batch_texts, args.max_inflight_texts
            ),
        );
        check(
            (1..=1 << 20).contains(&args.max_connections),
            format!("--max-connections {} is not between 1 and {}", args.max_connections, 1 << 20),
        );
        check(
            !args.timeout.is_zero() && args.timeout <= args.max_timeout,
            format!("--timeout {:?} is not between 1 ms and --max-timeout {:?}", args.timeout, args.max_timeout),
        );
        for (name, time) in
            [("max-timeout", args.max_timeout), ("drain-delay", args.drain_delay), ("grace", args.grace)]
        {
            check(time <= LONGEST, format!("--{name} {time:?} is longer than a day"));
        }
        check(args.models.is_dir(), format!("--models {}: there is no such directory", args.models.display()));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let set = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            listen: args.listen,
            receipt_keys: args.receipt_keys.and_then(set).unwrap_or_else(|| args.data_dir.join("receipt.keys")),
            models: args.models,
            default_model: args.default_model.filter(|name| !name.is_empty()),
            workers,
            onnxruntime: args.onnxruntime.and_then(set).or_else(|| args.ort_dylib_path.and_then(set)),
            limits: Limits {
                max_body: args.max_body,
                max_text_chars: args.max_text_chars,
                max_batch_texts: args.max_batch_texts,
                max_inflight_texts: args.max_inflight_texts,
                max_connections: args.max_connections,
                timeout: args.timeout,
                max_timeout: args.max_timeout,
            },
            drain_delay: args.drain_delay,
            grace: args.grace,
            texts: TextDefaults { on_overflow: args.on_overflow, markup: args.markup },
            log: args.log,
            log_format: args.log_format,
        })
    }
}
