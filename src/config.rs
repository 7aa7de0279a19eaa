//! Options, from what was typed to what the server runs with.
//!
//! [`ServeArgs`] is what was typed; [`ServerSettings`] is what the server runs with. Everything that can
//! be wrong is found in between, all of it at once, before a socket is bound. This is the only
//! place that reads the environment.

pub mod cors;
pub mod database;
pub mod device;
pub mod drift;
pub mod feedback;
pub mod listen;
pub mod mlflow;
mod network;
mod option_ranges;
pub(crate) mod parsers;
pub mod serve_args;
pub mod telemetry;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use cors::CorsOrigins;
pub use device::{Device, DeviceSettings};
pub use drift::DriftWindowSettings;
pub use listen::ListenAddress;
pub use mlflow::{FollowedAlias, MlflowServer, MlflowSettings};
use network::NetworkSettings;
use option_ranges::{MAX_THREADS, duration_options, size_ranges};
pub use serve_args::{
    AcceptMode, MarkupPolicy, OverflowPolicy, SchedulerStrategy, ServeArgs, ServerTimingMode, TextPolicies,
};
pub use telemetry::{LogFormat, LogSettings, SummarySchedule, TraceSettings};

/// Exit code for a configuration that cannot work (`EX_USAGE` of sysexits).
pub const EXIT_CONFIGURATION: u8 = 64;

/// Variables that libraries read when they are loaded, and what they have to be.
///
/// ONNX Runtime's telemetry is off. The C library gives blocks of this many bytes back to the system when ONNX Runtime
/// frees them: it would keep those of the long texts' runs, and more with each length (twice the memory after 60,000
/// mixed requests).
pub const LIBRARY_VARIABLES: [(&str, &str); 2] = [("ORT_DISABLE_TELEMETRY", "1"), ("MALLOC_MMAP_THRESHOLD_", "262144")];

/// Those that are not what they have to be.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub fn missing_library_variables() -> Vec<(&'static str, &'static str)> {
    let is = |(name, value): &(&str, &str)| std::env::var_os(name).is_some_and(|set| set == *value);
    LIBRARY_VARIABLES.into_iter().filter(|variable| !is(variable)).collect()
}

/// What a request may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Headers.
    pub max_headers: usize,
    /// Bytes of all headers, names and values and the four bytes between and after them.
    pub max_header_bytes: usize,
    /// Bytes of a URI.
    pub max_uri_bytes: usize,
    /// Bytes of a body.
    pub max_body_bytes: usize,
    /// Characters of a text.
    pub max_text_chars: usize,
    /// Texts of a request.
    pub max_client_batch_size: usize,
    /// Texts in work over all requests.
    pub max_inflight_items: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Time of a request that names none.
    pub timeout: Duration,
    /// Time that a request can name.
    pub max_timeout: Duration,
}

impl RequestLimits {
    fn from_args(args: &ServeArgs) -> Self {
        Self {
            max_headers: args.max_headers,
            max_header_bytes: args.max_header_bytes,
            max_uri_bytes: args.max_uri,
            max_body_bytes: args.max_body,
            max_text_chars: args.max_text_chars,
            max_client_batch_size: args.max_client_batch_size,
            max_inflight_items: args.max_inflight_items,
            max_connections: args.max_connections,
            timeout: args.timeout,
            max_timeout: args.max_timeout,
        }
    }
}

/// How long a client may keep the server waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For the first byte on a new connection.
    pub first_byte: Duration,
    /// For a whole head, from its first byte; and for a TLS handshake.
    pub header: Duration,
    /// For the next bytes of a body.
    pub body_idle: Duration,
    /// For a whole body.
    pub body: Duration,
    /// For an answer to be taken, from its first pause.
    pub write: Duration,
    /// For the next request on an open connection.
    pub keep_alive: Duration,
}

/// What a run of several texts on a GPU may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuBatchLimits {
    /// Most tokens, padding included.
    pub max_tokens: usize,
    /// That number was chosen: else it is lowered to what pays.
    pub is_max_tokens_explicit: bool,
    /// Most texts.
    pub max_texts: usize,
    /// Longest predicted time.
    pub max_time: Duration,
}

/// How texts share runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// How they are chosen.
    pub scheduler: SchedulerStrategy,
    /// Most tokens of a run of several texts, padding included.
    pub max_tokens: usize,
    /// Most texts of a run.
    pub max_texts: usize,
    /// Longest predicted time of a run of several texts.
    pub max_time: Duration,
    /// The three of them on a GPU.
    pub gpu_limits: GpuBatchLimits,
    /// Threads that share one run.
    pub threads_per_batch: usize,
    /// These threads wait busily for the next run.
    pub spin_wait: bool,
    /// A session is replaced after about this many runs; 0: never.
    pub recycle_after_batches: u64,
}

impl ClientTimeouts {
    fn from_args(args: &ServeArgs) -> Self {
        Self {
            first_byte: args.first_byte_timeout,
            header: args.header_timeout,
            body_idle: args.body_idle_timeout,
            body: args.body_timeout,
            write: args.write_timeout,
            keep_alive: args.keep_alive,
        }
    }
}

impl BatchSettings {
    fn from_args(args: &ServeArgs) -> Self {
        Self {
            scheduler: args.scheduler,
            max_tokens: args.max_batch_tokens.unwrap_or(256),
            max_texts: args.max_batch_size.unwrap_or(64),
            max_time: args.max_batch_time.unwrap_or(Duration::from_millis(200)),
            gpu_limits: GpuBatchLimits {
                max_tokens: args.max_batch_tokens.unwrap_or(16_384),
                is_max_tokens_explicit: args.max_batch_tokens.is_some(),
                max_texts: args.max_batch_size.unwrap_or(512),
                max_time: args.max_batch_time.unwrap_or(Duration::from_millis(50)),
            },
            threads_per_batch: args.intra_op_threads,
            spin_wait: args.spin,
            recycle_after_batches: args.max_session_batches,
        }
    }
}

/// A certificate chain and its key, as files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What the server runs with: checked.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address of the data listener.
    pub listen: ListenAddress,
    /// When the data listener takes connections.
    pub accept_mode: AcceptMode,
    /// Address of the admin listener.
    pub admin_listen: ListenAddress,
    /// Names and addresses that clients may use for the admin listener, besides those of loopback. Lower case, without a
    /// dot at the end.
    pub admin_hosts: Vec<String>,
    /// Origins of web pages that may use the data listener.
    pub cors_origins: CorsOrigins,
    /// Predictions and feedback need no key.
    pub allow_anonymous: bool,
    /// File of the API keys.
    pub key_file: PathBuf,
    /// That file was named: it must be there.
    pub is_key_file_explicit: bool,
    /// Texts a second for each key without a rate of its own and each client address.
    pub rate_limit: Option<NonZeroU32>,
    /// Proxies whose forwarded addresses are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate of the data listener, if it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// How long a client may keep the server waiting.
    pub client_timeouts: ClientTimeouts,
    /// Directory of models.
    pub models_dir: PathBuf,
    /// Model that answers requests that name none, if chosen.
    pub default_model: Option<String>,
    /// Worker threads per model and runs at a time over all models.
    pub workers: usize,
    /// That number was chosen.
    pub is_workers_explicit: bool,
    /// How texts share runs.
    pub batching: BatchSettings,
    /// Where models run.
    pub devices: DeviceSettings,
    /// Library, if named.
    pub onnxruntime_path: Option<PathBuf>,
    /// Limits of requests.
    pub limits: RequestLimits,
    /// Bytes of answers that are kept, if chosen; 0: none.
    pub cache_bytes: Option<usize>,
    /// Bytes for large responses until they are written, if chosen.
    pub response_memory: Option<usize>,
    /// Most memory that the server may need, if not what the control group allows; 0: no limit.
    pub memory_limit: Option<u64>,
    /// Longest forecast wait for a worker.
    pub max_queue_wait: Duration,
    /// Time between "not ready" and the end of accepting.
    pub drain_delay: Duration,
    /// Time for requests in work to finish.
    pub drain_timeout: Duration,
    /// What is done with texts where a model does not say otherwise.
    pub text_defaults: TextPolicies,
    /// When live texts are compared with profiles.
    pub drift_window: DriftWindowSettings,
    /// Directory of what the server writes.
    pub data_dir: PathBuf,
    /// URL of the registry's database; none: a SQLite file in the data directory.
    pub database_url: Option<String>,
    /// Models that an MLflow server keeps.
    pub mlflow: MlflowSettings,
    /// Age from which feedback is deleted, if it is.
    pub feedback_retention: Option<Duration>,
    /// File of the receipt keys.
    pub receipt_key_file: PathBuf,
    /// Who is told where the time of a request went.
    pub server_timing: ServerTimingMode,
    /// What is logged, and where.
    pub log: LogSettings,
    /// Where spans of requests go, if anywhere.
    pub traces: Option<TraceSettings>,
}

impl ServerSettings {
    /// Checks every option and every pair of options that must fit each other.
    ///
    /// # Errors
    /// All that is wrong, a sentence each, with the option's name.
    #[expect(clippy::too_many_lines, reason = "is split with its circle of imports")]
    pub fn resolve(args: ServeArgs) -> Result<Self, Vec<String>> {
        const MAX_TIMEOUT: Duration = Duration::from_hours(24);
        let set = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
        let keys = args.keys.clone().and_then(set);
        let (tls_cert, tls_key) = (args.tls_cert.clone().and_then(set), args.tls_key.clone().and_then(set));
        let mut wrong = Vec::new();
        let mut check = |holds: bool, sentence: String| {
            if !holds {
                wrong.push(sentence);
            }
        };
        let usable_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = args.workers.unwrap_or(usable_cores.min(MAX_THREADS));
        for (name, value, least, most) in size_ranges(&args, workers) {
            check((least..=most).contains(&value), format!("--{name} {value} is not between {least} and {most}"));
        }
        check(
            (1..=args.max_inflight_items).contains(&args.max_client_batch_size),
            format!(
                "--max-client-batch-size {} is not between 1 and --max-inflight-items {}",
                args.max_client_batch_size, args.max_inflight_items
            ),
        );
        let (least, most) = (1 << 20, 1 << 40);
        let cache_bytes = args.cache_bytes.unwrap_or_default();
        check(
            cache_bytes == 0 || (least..=most).contains(&cache_bytes),
            format!("--cache-bytes {cache_bytes} is neither 0 nor between {least} and {most}"),
        );
        check(
            !args.timeout.is_zero() && args.timeout <= args.max_timeout,
            format!("--timeout {:?} is not between 1 ms and --max-timeout {:?}", args.timeout, args.max_timeout),
        );
        for (name, time, may_be_zero) in duration_options(&args) {
            let least = if may_be_zero { Duration::ZERO } else { Duration::from_millis(1) };
            check(
                (least..=MAX_TIMEOUT).contains(&time),
                format!("--{name} {time:?} is not between {least:?} and a day"),
            );
        }
        check(
            tls_cert.is_some() == tls_key.is_some(),
            "--tls-cert and --tls-key belong together: one of them is missing".to_owned(),
        );
        let traces = TraceSettings::from_args(&args.traces);
        check(traces.is_ok(), format!("--otlp-endpoint: {}", traces.as_ref().err().copied().unwrap_or_default()));
        let database = database::resolve_url(&args.database);
        check(database.is_ok(), database.as_ref().err().cloned().unwrap_or_default());
        let retention = feedback::resolve_retention(&args.feedback);
        check(retention.is_ok(), retention.as_ref().err().cloned().unwrap_or_default());
        let mlflow = MlflowSettings::from_args(&args.mlflow);
        check(mlflow.is_ok(), mlflow.as_ref().err().cloned().unwrap_or_default());
        let devices = DeviceSettings::from_args(&args.device);
        check(devices.is_ok(), devices.as_ref().err().cloned().unwrap_or_default());
        check(args.models.is_dir(), format!("--models {}: there is no such directory", args.models.display()));
        let drift = DriftWindowSettings::from_args(&args.drift).map_err(|sentences| wrong.extend(sentences));
        let network = NetworkSettings::from_args(&args).map_err(|sentences| wrong.extend(sentences));
        let (Ok(mlflow), Ok(drift), Ok(network), true) = (mlflow, drift, network, wrong.is_empty()) else {
            return Err(wrong);
        };
        let traces = traces.unwrap_or_default();
        let (runs, patience, limits) =
            (BatchSettings::from_args(&args), ClientTimeouts::from_args(&args), RequestLimits::from_args(&args));
        let in_data = |name: &str| args.data_dir.join(name);
        Ok(Self {
            listen: network.listen,
            accept_mode: args.accept,
            admin_listen: network.admin_listen,
            admin_hosts: network.admin_hosts,
            cors_origins: network.cors_origins,
            allow_anonymous: args.allow_anonymous,
            is_key_file_explicit: keys.is_some(),
            key_file: keys.unwrap_or_else(|| in_data("keys.toml")),
            rate_limit: NonZeroU32::new(args.rate_limit),
            trusted_proxies: args.trusted_proxies,
            tls: tls_cert.zip(tls_key).map(|(cert, key)| TlsFiles { cert, key }),
            client_timeouts: patience,
            receipt_key_file: args.receipt_keys.and_then(set).unwrap_or_else(|| in_data("receipt.keys")),
            models_dir: args.models,
            default_model: args.default_model.filter(|name| !name.is_empty()),
            workers,
            is_workers_explicit: args.workers.is_some(),
            batching: runs,
            devices: devices.unwrap_or_default(),
            onnxruntime_path: args.onnxruntime.and_then(set).or_else(|| args.ort_dylib_path.and_then(set)),
            limits,
            cache_bytes: args.cache_bytes,
            response_memory: args.response_memory,
            memory_limit: args.memory_limit,
            max_queue_wait: args.max_queue_wait,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            text_defaults: TextPolicies { on_overflow: args.on_overflow, markup: args.markup },
            drift_window: drift,
            server_timing: args.server_timing,
            database_url: database.unwrap_or_default(),
            mlflow,
            feedback_retention: retention.unwrap_or_default(),
            log: args.log.into(),
            traces,
            data_dir: args.data_dir,
        })
    }
}
