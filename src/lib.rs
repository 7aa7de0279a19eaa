//! `predictd` serves text models over HTTP: one binary, ONNX Runtime inside.
//!
//! `ARCHITECTURE.md` shows the whole, walks through a request and defines the terms.
//!
//! # Code map
//!
//! This package is the binary: options, commands, and the server that is put together from the crates of the workspace.
//!
//! - `main.rs`: parse, run, exit code
//! - [`cli`]: the command line; [`config`]: options, checked before anything starts; [`error`]: errors with an exit code
//! - [`server`]: puts everything together, runs and stops it; [`memory_budget`]: the most memory that it may need
//! - [`check`]: inspects a model directory; [`drift_profile`]: builds a drift profile; [`bench`](mod@bench): tunes options for a machine
//! - [`watch`], [`health_command`], [`admin_commands`]: clients of running servers
//! - [`log_summary`]: a periodic summary of traffic; [`shutdown`]: signals; [`fd_limit`]: the limit of open files
//! - [`terminal`]: escapes foreign text
//!
//! Crates, under `crates/`:
//!
//! - [`api`]: the wire types of answers and of the admin API, for the server and its clients
//! - [`http`]: connections, middleware, routes, wire types, errors; the key file
//! - [`inference`]: from a checked request to recorded answers: arms, fallback, shadows, receipts, feedback
//! - [`engine`]: result cache, admission, tokenization, queue, scheduler, run permits, workers, cost model
//! - [`onnx`]: the backend: ONNX Runtime on CPUs and GPUs
//! - [`text`]: manifest, text policy, tokenizer, tensors, heads; pure
//! - [`registry`]: models and versions: database, store, reconciler, MLflow, spool
//! - [`experiments`]: arms, bucketing, counters, receipts, results
//! - [`stats`]: the statistics of experiments, random numbers; pure
//! - [`drift`]: profiles, windows, divergence; pure
//! - [`metrics`]: every metric; [`telemetry`]: log lines and spans
//! - [`platform`]: time, files, memory: what the operating system gives
//!
//! # Who may import whom
//!
//! The manifests say it: http → inference → registry → engine → text → drift → stats; onnx → engine; registry → experiments → stats;
//! metrics → stats. `api`, `platform`, `telemetry` and `stats` import no other crate of the workspace. `bench` starts a server, `check` and
//! `drift_profile` load models; `cli` alone imports the commands. Files do not import each other in circles.
//!
//! # Invariants
//!
//! `tests/it/source_rules.rs` checks them in the sources.
//!
//! - A library is a dependency of one crate: `ort` of `onnx`, `tokenizers` of `text`, axum and tower-http of `http`, sqlx of
//!   `registry`, `opentelemetry` of `telemetry`.
//! - No clock, lock or async code in `engine::scheduler`, `engine::cost_model`, `text`, `drift` and `experiments`, except
//!   `receipts` and `counters`.
//! - Only `config.rs` and clap read the environment.
//! - A route is added in `http/route_table.rs` only, with the scope it needs.
//! - No unbounded channel. No `unsafe`.

pub mod admin_commands;
pub mod bench;
pub mod check;
pub mod cli;
pub mod config;
pub mod drift_profile;
pub mod error;
pub mod fd_limit;
pub mod health_command;
pub mod log_summary;
pub mod memory_budget;
pub mod server;
pub mod shutdown;
pub mod terminal;
pub mod watch;

pub use predictd_api as api;
pub use predictd_drift as drift;
pub use predictd_engine as engine;
pub use predictd_experiments as experiments;
pub use predictd_http as http;
pub use predictd_inference as inference;
pub use predictd_metrics as metrics;
pub use predictd_onnx as onnx;
pub use predictd_platform as platform;
pub use predictd_registry as registry;
pub use predictd_stats as stats;
pub use predictd_telemetry as telemetry;
pub use predictd_text as text;

pub use error::ServerError;
pub use server::{Server, http_runtime, scheduler_config};
