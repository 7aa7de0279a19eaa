//! What operators rely on: start and stop, metrics, logs, traces, deployment.

mod clock_before_1970;
mod deploy_files;
mod lifecycle;
mod log_injection;
mod logging;
mod metrics;
mod secret_leaks;
mod server_process;
mod traces;
