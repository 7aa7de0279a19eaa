//! What the server runs with: all options, checked together.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use predictd_http::cors_origins::CorsOrigins;
use predictd_http::settings::{AccessSettings, ClientTimeouts, RequestLimits, ServerTimingMode, TlsFiles};
use predictd_onnx::runtime_settings::{DeviceSettings, RuntimeSettings};
use predictd_text::text_policies::TextPolicies;

use super::batching::BatchSettings;
use super::device::resolve_devices;
use super::drift::DriftWindowSettings;
use super::mlflow::MlflowSettings;
use super::network::resolve_access;
use super::option_ranges::{MAX_THREADS, range_errors};
use super::parsers::non_empty_path;
use super::request_limits::{client_timeouts, request_limits};
use super::serve_args::ServeArgs;
use super::telemetry::{LogSettings, TraceSettings};
use super::tls_files::resolve_tls_files;
use super::{database, feedback};

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

/// The groups of options that are checked one by one.
struct CheckedGroups {
    tls: Option<TlsFiles>,
    traces: Option<TraceSettings>,
    database_url: Option<String>,
    feedback_retention: Option<Duration>,
    mlflow: MlflowSettings,
    devices: DeviceSettings,
    drift_window: DriftWindowSettings,
    access: AccessSettings,
    cors_origins: CorsOrigins,
}

impl ServerSettings {
    /// Checks every option and every pair of options that must fit each other.
    ///
    /// # Errors
    /// All that is wrong, a sentence each, with the option's name.
    pub fn resolve(args: ServeArgs) -> Result<Self, Vec<String>> {
        let workers = args.workers.unwrap_or_else(default_workers);
        let groups = CheckedGroups::from_args(&args, workers)?;
        Ok(Self::from_checked(args, workers, groups))
    }

    /// What ONNX Runtime is started with.
    #[must_use]
    pub fn onnx_runtime(&self) -> RuntimeSettings {
        RuntimeSettings {
            library: self.onnxruntime_path.clone(),
            threads_per_batch: self.batching.threads_per_batch,
            devices: self.devices.clone(),
            profile_dir: self.data_dir.clone(),
        }
    }

    fn from_checked(args: ServeArgs, workers: usize, groups: CheckedGroups) -> Self {
        let receipt_key_file = non_empty_path(args.receipt_keys.as_ref());
        Self {
            access: groups.access,
            cors_origins: groups.cors_origins,
            rate_limit: NonZeroU32::new(args.rate_limit),
            tls: groups.tls,
            client_timeouts: client_timeouts(&args),
            receipt_key_file: receipt_key_file.unwrap_or_else(|| args.data_dir.join("receipt.keys")),
            workers,
            is_workers_explicit: args.workers.is_some(),
            batching: BatchSettings::from_args(&args),
            devices: groups.devices,
            onnxruntime_path: non_empty_path(args.onnxruntime.as_ref())
                .or_else(|| non_empty_path(args.ort_dylib_path.as_ref())),
            limits: request_limits(&args),
            cache_bytes: args.cache_bytes,
            response_memory: args.response_memory,
            memory_limit: args.memory_limit,
            max_queue_wait: args.max_queue_wait,
            drain_delay: args.drain_delay,
            drain_timeout: args.drain_timeout,
            text_defaults: TextPolicies { on_overflow: args.on_overflow, markup: args.markup },
            drift_window: groups.drift_window,
            server_timing: args.server_timing,
            database_url: groups.database_url,
            mlflow: groups.mlflow,
            feedback_retention: groups.feedback_retention,
            traces: groups.traces,
            trusted_proxies: args.trusted_proxies,
            models_dir: args.models,
            default_model: args.default_model.filter(|name| !name.is_empty()),
            log: args.log.into(),
            data_dir: args.data_dir,
        }
    }
}

impl CheckedGroups {
    /// Checks the ranges of all options, then each group.
    ///
    /// # Errors
    /// All that is wrong, a sentence each, with the option's name.
    fn from_args(args: &ServeArgs, workers: usize) -> Result<Self, Vec<String>> {
        let tls = resolve_tls_files(args).map_err(one_error);
        let traces =
            TraceSettings::from_args(&args.traces).map_err(|error| one_error(format!("--otlp-endpoint: {error}")));
        let database_url = database::resolve_url(&args.database).map_err(one_error);
        let feedback_retention = feedback::resolve_retention(&args.feedback).map_err(one_error);
        let mlflow = MlflowSettings::from_args(&args.mlflow).map_err(one_error);
        let devices = resolve_devices(&args.device).map_err(one_error);
        let models_dir = check_models_dir(args).map_err(one_error);
        let drift_window = DriftWindowSettings::from_args(&args.drift);
        let network = resolve_access(args);
        let errors = [
            range_errors(args, workers),
            errors_of(&tls),
            errors_of(&traces),
            errors_of(&database_url),
            errors_of(&feedback_retention),
            errors_of(&mlflow),
            errors_of(&devices),
            errors_of(&models_dir),
            errors_of(&drift_window),
            errors_of(&network),
        ]
        .concat();
        if !errors.is_empty() {
            return Err(errors);
        }
        let (access, cors_origins) = network?;
        Ok(Self {
            tls: tls?,
            traces: traces?,
            database_url: database_url?,
            feedback_retention: feedback_retention?,
            mlflow: mlflow?,
            devices: devices?,
            drift_window: drift_window?,
            access,
            cors_origins,
        })
    }
}

/// Returns the usable cores, or the most threads if there are more.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

fn check_models_dir(args: &ServeArgs) -> Result<(), String> {
    if args.models.is_dir() {
        return Ok(());
    }
    Err(format!("--models {}: there is no such directory", args.models.display()))
}

fn one_error(sentence: String) -> Vec<String> {
    vec![sentence]
}

/// Returns the sentences of a group that cannot be used.
fn errors_of<T>(group: &Result<T, Vec<String>>) -> Vec<String> {
    group.as_ref().err().cloned().unwrap_or_default()
}
