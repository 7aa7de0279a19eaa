//! The `predictd` binary: parse, run, exit code.

use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};
use std::time::Duration;

use clap::Parser;
use predictd::cli::{Cli, Command};
use predictd::config::{self, EXIT_CONFIGURATION, LogFormat, Settings};
use predictd::shutdown::{FileSignals, Shutdown};
use predictd::telemetry::{self, Escape, Lines, LogFile};
use predictd::terminal::{escaped, escaped_json, escaped_log};
use predictd::watch::args::WatchCommand;
use predictd::{Listeners, RunError, Server};

/// Keeps memory steady over millions of requests of mixed sizes; speed is about the same as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// No name of others reaches a terminal as a command to it.
const ESCAPE: Escape = Escape { text: escaped, coloured: escaped_log, json: escaped_json };

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.into_command(),
        Err(error) => {
            let code = if error.use_stderr() { EXIT_CONFIGURATION } else { 0 };
            // Nothing is left to be done if standard error is closed.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let missing = config::missing_library_variables();
    if matches!(command, Command::Serve(_) | Command::Bench(_) | Command::Check(_) | Command::Profile(_))
        && !missing.is_empty()
    {
        return restart_with(missing);
    }
    let outcome = match command {
        Command::Serve(args) => serve(*args),
        Command::Bench(command) => quietly(|| command.run()),
        Command::Check(command) => quietly(|| command.run()),
        Command::Profile(command) => quietly(|| command.run()),
        Command::Watch(command) => watch(&command),
        Command::Health(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Feedback(command) => command.run(),
        Command::Experiments(command) => command.run(),
        Command::Database(command) => command.run().map_err(RunError::Failed),
        Command::Keys(command) => command.run().map_err(RunError::Failed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for sentence in error.sentences() {
                telemetry::say(format!("predictd: {}", escaped(sentence)));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Replaces this process by itself with variables that libraries read when they are loaded.
///
/// The official library, for one, opens a database in the user's home before it can be told not to. A process cannot
/// safely change its own environment once it has threads; starting anew can, and keeps the process id.
fn restart_with(variables: Vec<(&'static str, &'static str)>) -> ExitCode {
    let mut arguments = std::env::args_os();
    let name_of_program = arguments.next().unwrap_or_default();
    let error = match std::env::current_exe() {
        // `exec` returns only if it fails.
        Ok(program) => process::Command::new(program).arg0(name_of_program).args(arguments).envs(variables).exec(),
        Err(error) => error,
    };
    eprintln!(
        "predictd: the program could not start itself with {:?} ({error}): set these variables yourself",
        config::LIBRARY_VARIABLES
    );
    ExitCode::FAILURE
}

/// Runs a command whose answer is on standard output: what it loads is no news, and it says itself why a model could
/// not be loaded. Errors only are logged.
fn quietly(command: impl FnOnce() -> Result<(), RunError>) -> Result<(), RunError> {
    let lines = Lines { filter: "error,predictd::registry=off", json: Some(false), file: None, escape: ESCAPE };
    let _writers = telemetry::start(&lines).map_err(RunError::Configuration)?;
    command()
}

/// Runs the watcher, whose checks are in the log.
fn watch(command: &WatchCommand) -> Result<(), RunError> {
    let lines = Lines { filter: "info", json: None, file: None, escape: ESCAPE };
    let _writers = telemetry::start(&lines).map_err(RunError::Configuration)?;
    command.run()
}

/// Sees to it that the process ends: the libraries' own end waits for a GPU that hangs, as long as that does.
fn end_soon() {
    const LAST: Duration = Duration::from_secs(5);
    let end = || {
        std::thread::sleep(LAST);
        process::abort();
    };
    // Without it, whoever watches over the process has to kill it.
    std::thread::Builder::new().name("predictd-end".to_owned()).spawn(end).ok();
}

/// Installs the handlers of the signals of operators. Any runtime of the process tells of a signal: the one that they are
/// installed in is not needed afterwards.
fn file_signals() -> std::io::Result<FileSignals> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    FileSignals::new()
}

fn serve(args: predictd::config::Args) -> Result<(), RunError> {
    let failed = |error: std::io::Error| RunError::Failed(error.to_string());
    // Before anything that takes long, such as the resolution of a host name: an operator may send them at any time.
    let signals = file_signals().map_err(failed)?;
    let settings = Settings::resolve(args).map_err(RunError::Options)?;
    let json = match settings.log.format {
        LogFormat::Auto => None,
        LogFormat::Text => Some(false),
        LogFormat::Json => Some(true),
    };
    let (bytes, files) = (settings.log.file_bytes, settings.log.files);
    let file = settings.log.file.as_deref().map(|path| LogFile { path, bytes, files });
    // Until the end of this function: what is logged last is written too.
    let lines = Lines { filter: &settings.log.filter, json, file, escape: ESCAPE };
    let _writers = telemetry::start(&lines).map_err(RunError::Configuration)?;
    let settings = predictd::ceiling::fitted(settings);
    let runtime = predictd::http_threads(&settings).map_err(failed)?;
    let server = Server::prepare(&settings)?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(failed)?;
        server.follow(signals);
        let listeners = Listeners::bind(&settings)?;
        let (address, admin) = (listeners.data.to_string(), listeners.admin.to_string());
        let (tls, workers) = (settings.tls.is_some(), settings.workers);
        if listeners.data.is_open() {
            tracing::info!(%address, %admin, tls, workers, "listening");
        } else {
            tracing::info!(%address, %admin, tls, workers, "connections are accepted once the models are loaded");
        }
        server.run(listeners, &shutdown).await
    });
    // A load that still runs must not hold the process.
    runtime.shutdown_background();
    end_soon();
    outcome
}
