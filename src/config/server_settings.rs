//! What the server runs with: all options, checked together.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use ipnet::IpNet;
use predictd_drift::WindowSettings;
use predictd_http::cors_origins::CorsOrigins;
use predictd_http::settings::{AccessSettings, ClientTimeouts, RequestLimits, ServerTimingMode, TlsFiles};
use predictd_onnx::runtime_settings::RuntimeSettings;
use predictd_text::text_policies::TextPolicies;

use super::batching::BatchSettings;
use super::database;
use super::device::resolve_devices;
use super::drift::resolve_drift_window;
use super::feedback::resolve_retention;
use super::mlflow::MlflowSettings;
use super::network::resolve_access;
use super::option_ranges::{MAX_THREADS, range_errors};
use super::parsers::is_set;
use super::serve_args::ServeArgs;
use super::telemetry::{LogSettings, TraceSettings};

/// What the server runs with: checked.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where the server listens, and who may use it.
    pub access: AccessSettings,
    /// Origins of web pages that may use the data listener.
    pub cors_origins: CorsOrigins,
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
    /// What ONNX Runtime is started with: its library, threads, and where models run.
    pub onnx_runtime: RuntimeSettings,
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
    pub drift_window: WindowSettings,
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
    /// Which responses have a Server-Timing header.
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
    pub fn resolve(args: ServeArgs) -> Result<Self, Vec<String>> {
        let workers = args.workers.unwrap_or_else(|| available_parallelism().map_or(1, usize::from).min(MAX_THREADS));
        let mut errors = range_errors(&args, workers);
        // In the order in which errors are listed.
        let tls = value_or_error(resolve_tls_files(&args), &mut errors);
        let traces = value_or_error(TraceSettings::from_args(&args.traces), &mut errors);
        let database_url = value_or_error(database::resolve_url(&args.database), &mut errors);
        let feedback_retention = value_or_error(resolve_retention(args.feedback_retention), &mut errors);
        let mlflow = value_or_error(MlflowSettings::from_args(&args.mlflow), &mut errors);
        let devices = value_or_error(resolve_devices(&args.device), &mut errors);
        if !args.models.is_dir() {
            errors.push(format!("--models {}: there is no such directory", args.models.display()));
        }
        let drift_window = resolve_drift_window(&args.drift, &mut errors);
        let access = resolve_access(&args, &mut errors);
        let cors_origins = value_or_error(CorsOrigins::parse(&args.cors_origins), &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            access,
            cors_origins,
            rate_limit: NonZeroU32::new(args.rate_limit),
            tls,
            client_timeouts: client_timeouts(&args),
            limits: request_limits(&args),
            workers,
            is_workers_explicit: args.workers.is_some(),
            batching: BatchSettings::from_args(&args),
            onnx_runtime: RuntimeSettings {
                library: args.onnxruntime.filter(is_set).or(args.ort_dylib_path.filter(is_set)),
                threads_per_batch: args.intra_op_threads,
                devices,
                profile_dir: args.data_dir.clone(),
            },
            receipt_key_file: args.receipt_keys.filter(is_set).unwrap_or_else(|| args.data_dir.join("receipt.keys")),
            cache_bytes: args.cache_bytes,
            response_memory: args.response_memory,
            memory_limit: args.memory_limit,
            max_queue_wait: args.max_queue_wait,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            text_defaults: TextPolicies { on_overflow: args.on_overflow, markup: args.markup },
            drift_window,
            server_timing: args.server_timing,
            database_url,
            mlflow,
            feedback_retention,
            traces,
            trusted_proxies: args.trusted_proxies,
            models_dir: args.models,
            default_model: args.default_model.filter(|name| !name.is_empty()),
            log: LogSettings { log_file: args.log.log_file.filter(is_set), ..args.log },
            data_dir: args.data_dir,
        })
    }
}

/// The value of a group of options. If the group cannot be used, its error is appended to `errors`, and the value, which is
/// not used then, is the default.
fn value_or_error<T: Default>(group: Result<T, String>, errors: &mut Vec<String>) -> T {
    group.unwrap_or_else(|error| {
        errors.push(error);
        T::default()
    })
}

/// Takes the two files from the options; nothing if neither is named.
///
/// # Errors
/// A sentence with the options' names if only one is named.
fn resolve_tls_files(args: &ServeArgs) -> Result<Option<TlsFiles>, String> {
    match (args.tls_cert.clone().filter(is_set), args.tls_key.clone().filter(is_set)) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => Err("--tls-cert and --tls-key belong together: one of them is missing".to_owned()),
    }
}

fn request_limits(args: &ServeArgs) -> RequestLimits {
    RequestLimits {
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

fn client_timeouts(args: &ServeArgs) -> ClientTimeouts {
    ClientTimeouts {
        first_byte: args.first_byte_timeout,
        header: args.header_timeout,
        body_idle: args.body_idle_timeout,
        body: args.body_timeout,
        write: args.write_timeout,
        keep_alive: args.keep_alive,
    }
}
