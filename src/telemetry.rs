//! Log lines to standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. A second call in one process changes nothing.
///
/// # Errors
/// If `filter` is not a filter.
pub fn start(filter: &str, json: Option<bool>) -> Result<(), String> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter:?}: {error}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    // Only the first subscriber of a process can be set: tests start several servers.
    if json.unwrap_or(!terminal) {
        lines.json().flatten_event(true).try_init().ok();
    } else {
        lines.with_ansi(terminal).try_init().ok();
    }
    // The default hook prints a panic's message, which may quote a request's text.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(place, thread, "a panic was caught; its message is not logged");
    }));
    Ok(())
}
