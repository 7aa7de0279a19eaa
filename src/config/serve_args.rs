//! The options of `predictd serve` as they are typed: a flag, a `PREDICTD_*` variable, a default, a line of help each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args as ClapArgs, Parser, ValueEnum};
use humantime::parse_duration;
use ipnet::IpNet;
use predictd_http::listen_address::{ListenAddress, parse_admin_host};
use predictd_http::settings::{AcceptMode, ServerTimingMode};
use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};

use super::database::DatabaseArgs;
use super::device::DeviceArgs;
use super::drift::DriftArgs;
use super::mlflow::MlflowArgs;
use super::parsers::path_parser;
use super::telemetry::{LogSettings, TraceArgs};

/// How waiting texts are chosen to run together.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SchedulerStrategy {
    /// By what it costs: texts of similar length around the one that must run.
    Window,
    /// Each text by itself.
    Single,
}

/// Options of `predictd serve`, as typed.
#[derive(Debug, ClapArgs)]
pub struct ServeArgs {
    /// Address of the data listener: HOST:PORT, of a name the first IPv4 address (else the first), or unix:PATH.
    #[arg(long, env = "PREDICTD_LISTEN", default_value = "127.0.0.1:8000", value_name = "ADDRESS:PORT")]
    pub listen: ListenAddress,

    /// When the data listener takes connections.
    #[arg(long, env = "PREDICTD_ACCEPT", default_value = "start", value_name = "WHEN")]
    pub accept: AcceptMode,

    /// Address of the admin listener: probes and metrics that answer under any load.
    #[arg(long, env = "PREDICTD_ADMIN_LISTEN", default_value = "127.0.0.1:8001", value_name = "ADDRESS:PORT")]
    pub admin_listen: ListenAddress,

    /// Host names and addresses under which /admin answers besides localhost and its own address, with commas between [default: none].
    #[arg(long, env = "PREDICTD_ADMIN_HOSTS", value_name = "NAMES", value_delimiter = ',', value_parser = parse_admin_host)]
    pub admin_hosts: Vec<String>,

    /// Origins of web pages that may use the data listener (CORS), such as `https://app.example`, with commas between, or * [default: none].
    #[arg(long, env = "PREDICTD_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// Answer everybody without a key, but for metrics once there are keys; a data listener that is not on loopback needs this or keys.
    #[arg(
        long,
        env = "PREDICTD_ALLOW_ANONYMOUS",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
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

    /// Worker threads per model, and runs at a time over all models [default: usable cores, or fewer where memory is short].
    #[arg(long, env = "PREDICTD_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// How waiting texts are chosen to run together.
    #[arg(long, env = "PREDICTD_SCHEDULER", default_value = "window", value_name = "HOW")]
    pub scheduler: SchedulerStrategy,

    /// Most tokens of a run of several texts, padding included [default: 256; on a GPU what pays there, 16384 at most].
    #[arg(long, env = "PREDICTD_MAX_BATCH_TOKENS", value_name = "N")]
    pub max_batch_tokens: Option<usize>,

    /// Most texts of a run [default: 64; on a GPU 512].
    #[arg(long, env = "PREDICTD_MAX_BATCH_SIZE", value_name = "N")]
    pub max_batch_size: Option<usize>,

    /// Longest predicted time of a run of several texts [default: 200ms; on a GPU 50ms].
    #[arg(long, env = "PREDICTD_MAX_BATCH_TIME", value_parser = parse_duration, value_name = "TIME")]
    pub max_batch_time: Option<Duration>,

    /// Threads that share one run; more than 1 is for a single caller on an idle machine.
    #[arg(long, env = "PREDICTD_INTRA_OP_THREADS", default_value_t = 1, value_name = "N")]
    pub intra_op_threads: usize,

    /// Give a worker a new session after about this many runs, one worker at a time; 0: never.
    #[arg(long, env = "PREDICTD_MAX_SESSION_BATCHES", default_value_t = 0, value_name = "N")]
    pub max_session_batches: u64,

    /// Memory that the server may need at most, in bytes: it does not start where it may need more; 0: no limit [default: the limit of the control group].
    #[arg(long, env = "PREDICTD_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<u64>,

    /// Where models run.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// ONNX Runtime library, or the directory it lies in [default: searched for].
    #[arg(long, env = "PREDICTD_ONNXRUNTIME", value_name = "PATH", value_parser = path_parser())]
    pub onnxruntime: Option<PathBuf>,

    /// The name that other programs use for the same.
    #[arg(long, env = "ORT_DYLIB_PATH", hide = true, value_parser = path_parser())]
    pub ort_dylib_path: Option<PathBuf>,

    /// Largest request body, in bytes.
    #[arg(long, env = "PREDICTD_MAX_BODY", default_value_t = 2 << 20, value_name = "BYTES")]
    pub max_body: usize,

    /// Most headers of a request.
    #[arg(long, env = "PREDICTD_MAX_HEADERS", default_value_t = 64, value_name = "N")]
    pub max_headers: usize,

    /// Largest headers of a request, in bytes.
    #[arg(long, env = "PREDICTD_MAX_HEADER_BYTES", default_value_t = 32 << 10, value_name = "BYTES")]
    pub max_header_bytes: usize,

    /// Longest URI, in bytes.
    #[arg(long, env = "PREDICTD_MAX_URI", default_value_t = 8 << 10, value_name = "BYTES")]
    pub max_uri: usize,

    /// Longest text, in characters.
    #[arg(long, env = "PREDICTD_MAX_TEXT_CHARS", default_value_t = 32_768, value_name = "N")]
    pub max_text_chars: usize,

    /// Most texts in one request.
    #[arg(long, env = "PREDICTD_MAX_CLIENT_BATCH_SIZE", default_value_t = 1_024, value_name = "N")]
    pub max_client_batch_size: usize,

    /// Most texts in work at a time; more are refused with 503.
    #[arg(long, env = "PREDICTD_MAX_INFLIGHT_ITEMS", default_value_t = 4_096, value_name = "N")]
    pub max_inflight_items: usize,

    /// Memory for answers, which the same text gets again without a run, in bytes; 0: none are kept [default: 67108864, or a 64th of --memory-limit if that is less].
    #[arg(long, env = "PREDICTD_CACHE_BYTES", value_name = "BYTES")]
    pub cache_bytes: Option<usize>,

    /// Memory for responses of more than 16 KiB until they are written, in bytes; requests wait for it, then get 503 [default: 67108864, or a 64th of --memory-limit if that is less].
    #[arg(long, env = "PREDICTD_RESPONSE_MEMORY", value_name = "BYTES")]
    pub response_memory: Option<usize>,

    /// Most open client connections; more wait.
    #[arg(long, env = "PREDICTD_MAX_CONNECTIONS", default_value_t = 1_024, value_name = "N")]
    pub max_connections: usize,

    /// Longest wait for the first byte on a new connection.
    #[arg(long, env = "PREDICTD_FIRST_BYTE_TIMEOUT", default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    pub first_byte_timeout: Duration,

    /// Longest wait for the whole head of a request, from its first byte; and for a TLS handshake.
    #[arg(long, env = "PREDICTD_HEADER_TIMEOUT", default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    pub header_timeout: Duration,

    /// Longest pause inside a body.
    #[arg(long, env = "PREDICTD_BODY_IDLE_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub body_idle_timeout: Duration,

    /// Longest time for a whole body.
    #[arg(long, env = "PREDICTD_BODY_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub body_timeout: Duration,

    /// Longest time for a client to take an answer, from its first pause.
    #[arg(long, env = "PREDICTD_WRITE_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub write_timeout: Duration,

    /// Longest time that a connection is kept between two requests.
    #[arg(long, env = "PREDICTD_KEEP_ALIVE", default_value = "75s", value_parser = parse_duration, value_name = "TIME")]
    pub keep_alive: Duration,

    /// Time for one request, where the client names none.
    #[arg(long, env = "PREDICTD_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,

    /// Most time that a client can ask for by X-Request-Timeout-Ms.
    #[arg(long, env = "PREDICTD_MAX_TIMEOUT", default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub max_timeout: Duration,

    /// Longest forecast wait for a worker; what would wait longer, or past its own time, is refused with 503.
    #[arg(long, env = "PREDICTD_MAX_QUEUE_WAIT", default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    pub max_queue_wait: Duration,

    /// Time between "not ready" and the end of accepting, when the server is told to stop.
    #[arg(long, env = "PREDICTD_DRAIN_DELAY", default_value = "0s", value_parser = parse_duration, value_name = "TIME")]
    pub drain_delay: Duration,

    /// Time for requests in work to finish, when the server is told to stop.
    #[arg(long, env = "PREDICTD_DRAIN_TIMEOUT", default_value = "20s", value_parser = parse_duration, value_name = "TIME")]
    pub drain_timeout: Duration,

    /// What to do with a text of more tokens than the model takes; a model can say otherwise.
    #[arg(long, env = "PREDICTD_ON_OVERFLOW", default_value = "truncate", value_name = "WHAT")]
    pub on_overflow: OverflowPolicy,

    /// What to do with markup and control characters in a text; a model can say otherwise.
    #[arg(long, env = "PREDICTD_MARKUP", default_value = "reject", value_name = "WHAT")]
    pub markup: MarkupPolicy,

    /// File of the API keys, read again when it changes [default: keys.toml in the data directory].
    #[arg(long, env = "PREDICTD_KEYS", value_name = "FILE", value_parser = path_parser())]
    pub keys: Option<PathBuf>,

    /// Texts a second for each key that has no rate of its own, and for each client address; 0: no limit.
    #[arg(long, env = "PREDICTD_RATE_LIMIT", default_value_t = 0, value_name = "N")]
    pub rate_limit: u32,

    /// Proxies whose X-Forwarded-For is believed: addresses or networks with commas between [default: none].
    #[arg(long, env = "PREDICTD_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',', value_parser = parse_network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Certificate chain (PEM) for TLS, read again when it changes [default: no TLS].
    #[arg(long, env = "PREDICTD_TLS_CERT", value_name = "FILE", value_parser = path_parser())]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert (PEM) [default: none].
    #[arg(long, env = "PREDICTD_TLS_KEY", value_name = "FILE", value_parser = path_parser())]
    pub tls_key: Option<PathBuf>,

    /// When live texts are compared with profiles.
    #[command(flatten)]
    pub drift: DriftArgs,

    /// Where the registry is recorded.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Models that an MLflow server keeps.
    #[command(flatten)]
    pub mlflow: MlflowArgs,

    /// Age from which feedback is deleted, text and labels, such as 90days; 0s: it is kept for ever. Results of experiments lose it too.
    #[arg(long, env = "PREDICTD_FEEDBACK_RETENTION", default_value = "0s", value_parser = parse_duration, value_name = "TIME")]
    pub feedback_retention: Duration,

    /// File of the keys that seal prediction ids [default: receipt.keys in the data directory].
    #[arg(long, env = "PREDICTD_RECEIPT_KEYS", value_name = "FILE", value_parser = path_parser())]
    pub receipt_keys: Option<PathBuf>,

    /// Who is told where the time of a request went, in a Server-Timing header: off, on-request (who sends a Server-Timing header), always.
    #[arg(long, env = "PREDICTD_SERVER_TIMING", default_value = "on-request", value_name = "WHO")]
    pub server_timing: ServerTimingMode,

    /// What is logged, and where.
    #[command(flatten)]
    pub log: LogSettings,

    /// Where spans of requests go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

impl ServeArgs {
    /// What the environment sets, and defaults: for commands that load models of this directory as `serve` does, but
    /// for what has nothing to do with models.
    ///
    /// # Errors
    /// What is wrong with a variable.
    pub fn for_models(directory: &Path) -> Result<Self, String> {
        #[derive(Parser)]
        struct EnvironmentCommand {
            #[command(flatten)]
            serve: ServeArgs,
        }
        // Its first line says what is wrong; the others are about help.
        let first_line = |error: clap::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
        let environment = EnvironmentCommand::try_parse_from(["predictd"]).map_err(first_line)?.serve;
        Ok(Self {
            models: directory.to_owned(),
            default_model: None,
            tls_cert: None,
            tls_key: None,
            keys: None,
            drain_delay: Duration::ZERO,
            ..environment
        })
    }
}

/// A network, or one address.
fn parse_network(typed: &str) -> Result<IpNet, String> {
    let typed = typed.trim();
    typed
        .parse()
        .or_else(|_| typed.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "this is no address and no network such as 10.0.0.0/8".to_owned())
}
