//! `predictd` serves text models over HTTP: one binary, ONNX Runtime inside.
//!
//! `ARCHITECTURE.md` shows the whole, walks through a request and defines the terms.
//!
//! # Code map
//!
//! - `main.rs`: parse, run, exit code
//! - [`server`]: puts everything together, runs and stops it; [`memory_budget`]: the most memory that it may need
//! - [`http`]: connections, middleware, routes, wire types, errors
//! - [`engine`]: result cache, admission, tokenization, queue, scheduler, run permits, workers, cost model
//! - [`onnx`]: the backend: ONNX Runtime on CPUs and GPUs
//! - [`text`]: manifest, text policy, tokenizer, tensors, heads; pure
//! - [`registry`]: models and versions: database, store, reconciler, MLflow, spool
//! - [`experiments`]: arms, bucketing, counters, receipts, statistics
//! - [`drift`]: profiles, windows, divergence; pure
//! - [`metrics`]: every metric; [`telemetry`]: log lines and spans; [`log_summary`]: a periodic summary of traffic
//! - [`cli`]: the command line; [`config`]: options, checked before anything starts; [`error`]: errors with an exit code
//! - [`check`]: inspects a model directory; [`drift_profile`]: builds a drift profile; [`bench`](mod@bench): tunes options for a machine
//! - [`watch`], [`health_command`], [`admin_commands`]: clients of running servers; [`http_client`]: what they share
//! - [`listeners`]: TCP and Unix sockets; [`api_keys`]: the key file; [`shutdown`]: signals
//! - [`atomic_file`]: replaces files atomically; [`file_watcher`]: notices changed files; [`fd_limit`]: the limit of open files
//! - [`memory`]: memory and its limits; [`clock`]: the time of day; [`terminal`]: escapes foreign text; [`split_mix64`]: random numbers
//!
//! # Who may import whom
//!
//! `main` → `server` → `http` → `registry` → `engine` → `text`, and each of them what is further right; `http` and `registry` →
//! `experiments`; `registry` and `engine` → `drift` → `experiments::statistics`. `onnx` implements the traits of
//! `engine::backend`. `bench` starts a server, `check` and `drift_profile` load models; `cli` alone imports the commands.
//! `atomic_file`, `clock`, `config`, `fd_limit`, `file_watcher`, `http_client`, `memory`, `metrics`, `shutdown`, `telemetry` and
//! `terminal` import nothing of the crate, `api_keys` only `atomic_file`. Files do not import each other in circles.
//!
//! # Invariants
//!
//! `tests/it/source_rules.rs` checks them in the sources.
//!
//! - `ort` is imported in `onnx` only, `tokenizers` in `text::tokenizer` only, `opentelemetry` in `telemetry::spans` only.
//! - axum and status codes stay in `http`.
//! - No clock, lock or async code in `engine::scheduler`, `engine::cost_model`, `text`, `drift` and `experiments`, except
//!   `receipts` and `counters`.
//! - Only `config.rs` and clap read the environment.
//! - A route is added in `http/route_table.rs` only, with the scope it needs.
//! - No unbounded channel. No `unsafe`.

pub mod admin_commands;
pub mod api_keys;
pub mod atomic_file;
pub mod bench;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drift;
pub mod drift_profile;
pub mod engine;
pub mod error;
pub mod experiments;
pub mod fd_limit;
pub mod file_watcher;
pub mod health_command;
pub mod http;
pub mod http_client;
pub mod listeners;
pub mod log_summary;
pub mod memory;
pub mod memory_budget;
pub mod metrics;
pub mod onnx;
pub mod registry;
pub mod server;
pub mod shutdown;
pub mod split_mix64;
pub mod telemetry;
pub mod terminal;
pub mod text;
pub mod watch;

pub use error::ServerError;
pub use listeners::Listeners;
pub use server::{Server, http_runtime, scheduler_config};
