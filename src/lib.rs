//! `predictd` serves text models over HTTP: one binary, ONNX Runtime inside.
//!
//! # A request's way
//!
//! A connection is accepted in `http::serve`; layers give the request an id, count it and
//! refuse bad bodies; a handler turns JSON into checked types and asks the registry which
//! model version answers: the one asked for, the active one, or that of an arm of an experiment. The engine looks for the answers of texts that it has answered before,
//! admits the others (one permit each), tokenises them and puts them into the model's queue. A
//! worker thread, which owns its session, takes the texts that are cheapest together, runs them
//! and decides. The handler seals a receipt and answers.
//!
//! One direction, one thread boundary: the queue.
//!
//! # Code map
//!
//! - `main.rs`: parse, run, exit code
//! - [`bench`](mod@bench): finds the options that suit a model on this machine
//! - [`check`]: what a model directory holds, whether it serves, and how it answers
//! - [`profile`]: how texts that a model is good for are spread, written down
//! - [`cli`]: the command line; [`config`]: options, checked before anything starts
//! - [`watch`]: checks servers and tells when one changes; [`health_command`]: asks one once; [`admin_commands`]: an operator's client
//! - [`api_keys`]: API keys; [`file_watcher`]: files that may change; [`atomic_file`]: files that are replaced as a whole; [`fd_limit`]: open files; [`memory`]: what there is of it
//! - [`listeners`]: sockets that wait for connections; [`http_client`]: what the program's own HTTP clients share
//! - [`clock`]: the time of day, also before 1970; [`terminal`]: names of others, as a terminal shows them
//! - [`memory_budget`]: the most memory that the server may need
//! - [`telemetry`]: log lines, spans; [`log_summary`]: one of them now and then; [`metrics`]: every metric; [`shutdown`]: signals
//! - [`server`]: puts everything together, runs and stops it
//! - [`error`]: why a command ends with an exit code other than 0
//! - [`http`]: routes, layers, wire types, errors
//! - [`engine`]: result cache, admission, queue, cost model, scheduler, execution groups with run permits, workers
//! - [`text`]: manifest, tokenizer, tensors, heads: pure
//! - [`onnx`]: ONNX Runtime, on cores and GPUs
//! - [`registry`]: models, versions, which of them answer; the database and the files that outlast the process
//! - [`experiments`]: receipts for predictions; what is compared on live traffic, who is in which arm, what that shows
//! - [`split_mix64`]: pseudorandom numbers
//! - [`drift`]: whether texts and answers are still like those of a profile: pure
//!
//! # Who may import whom
//!
//! `main` → `server` (the only module that sees everything, with `memory_budget`); `http` → `engine`, `registry`,
//! `experiments`; `registry` → `engine`, `experiments` and `drift`; `engine` → `text` and `drift`; `drift` →
//! `experiments::statistics`; `onnx` implements what
//! `engine::backend` declares. `bench` runs the server as `main` does, `check` loads models and reads
//! texts as the server does (and makes texts as `bench` does), `profile` asks as `check` does, `watch`, `health_command` and `admin_commands` are clients; `cli` alone imports them.
//! `atomic_file`, `clock`, `config`, `fd_limit`, `file_watcher`, `http_client`, `memory`, `metrics`, `shutdown`, `telemetry` and `terminal`
//! import nothing of the crate and may be imported by all; so may `api_keys`, which imports `atomic_file` alone.
//!
//! # Invariants
//!
//! A test reads `src/` and checks them.
//!
//! - `ort` is imported in `onnx.rs` and under `onnx/` only, `tokenizers` in `text/tokenizer.rs` and under
//!   `text/tokenizer/` only.
//! - axum and status codes stay under `http/`, `opentelemetry` in `telemetry/spans.rs`.
//! - No clock, no lock, nothing async in `engine/scheduler*`, `engine/cost_model.rs` and under `text/`, `drift/` and
//!   `experiments/`, but for `receipts` and `counters`.
//! - The environment is read in `config.rs` only, but for the variables of options, which clap reads.
//! - A route is added in `http/route_table.rs` only, with who may use it.
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
pub mod profile;
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
