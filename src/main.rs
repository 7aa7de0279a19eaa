//! The `predictd` binary: parse, run, exit code.

use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};
use std::time::Duration;

use clap::Parser;
use predictd::cli::{Cli, Command};
use predictd::config::{self, EXIT_CONFIGURATION, LogFormat, LogSettings, ServeArgs, ServerSettings};
use predictd::http::listeners::Listeners;
use predictd::shutdown::{FileSignals, Shutdown};
use predictd::telemetry::{self, LogEscape, LogFile, LogWriterGuard, LoggerConfig};
use predictd::terminal::{escape, escape_json, escape_log};
use predictd::watch::args::WatchCommand;
use predictd::{Server, ServerError, memory_budget};

/// Keeps memory steady over millions of requests of mixed sizes; speed is about the same as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// No name of others reaches a terminal as a command to it.
const LOG_ESCAPES: LogEscape = LogEscape { text: escape, coloured: escape_log, json: escape_json };

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
        return reexec_with_env(missing);
    }
    let outcome = match command {
        Command::Serve(args) => run_server(*args),
        Command::Bench(command) => run_with_error_log(|| command.run()),
        Command::Check(command) => run_with_error_log(|| command.run()),
        Command::Profile(command) => run_with_error_log(|| command.run()),
        Command::Watch(command) => run_watch(*command),
        Command::Health(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Feedback(command) => command.run(),
        Command::Experiments(command) => command.run(),
        Command::Database(command) => command.run(),
        Command::Keys(command) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for sentence in error.messages() {
                telemetry::write_stderr(format!("predictd: {}", escape(sentence)));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Replaces this process by itself with variables that libraries read when they are loaded.
///
/// The official library, for one, opens a database in the user's home before it can be configured. A process cannot
/// safely change its own environment once it has threads; `exec` can, and keeps the process id.
fn reexec_with_env(variables: Vec<(&'static str, &'static str)>) -> ExitCode {
    let mut arguments = std::env::args_os();
    let name_of_program = arguments.next().unwrap_or_default();
    let error = match std::env::current_exe() {
        // `exec` returns only if it fails.
        Ok(program) => process::Command::new(program).arg0(name_of_program).args(arguments).envs(variables).exec(),
        Err(error) => error,
    };
    eprintln!(
        "predictd: could not re-execute with {:?} ({error}); set these variables manually",
        config::LIBRARY_VARIABLES
    );
    ExitCode::FAILURE
}

/// Starts the log. It is written until the guard is dropped.
fn start_log(filter: &str, is_json: Option<bool>, file: Option<LogFile<'_>>) -> Result<LogWriterGuard, ServerError> {
    let config = LoggerConfig { filter, is_json, file, escape: LOG_ESCAPES };
    telemetry::start_logging(&config).map_err(ServerError::Configuration)
}

/// Runs a command whose answer is on standard output: what it loads is no news, and it says itself why a model could
/// not be loaded. Errors only are logged.
fn run_with_error_log(command: impl FnOnce() -> Result<(), ServerError>) -> Result<(), ServerError> {
    let _writers = start_log("error,predictd_registry=off", Some(false), None)?;
    command()
}

/// Runs the watcher, whose checks are in the log.
fn run_watch(command: WatchCommand) -> Result<(), ServerError> {
    let _writers = start_log("info", None, None)?;
    command.run()
}

/// Sees to it that the process ends: the libraries' own end waits for a GPU that hangs, as long as that does.
fn abort_after_timeout() {
    const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
    // Without this thread, a supervisor has to kill the process.
    std::thread::Builder::new()
        .name("predictd-exit".to_owned())
        .spawn(|| {
            std::thread::sleep(EXIT_TIMEOUT);
            process::abort();
        })
        .ok();
}

/// Installs the handlers of the signals of operators. Any runtime of the process reports a signal: the one that they are
/// installed in is not needed afterwards.
fn install_file_signals() -> std::io::Result<FileSignals> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    FileSignals::new()
}

fn run_server(args: ServeArgs) -> Result<(), ServerError> {
    // Before anything that takes long, such as the resolution of a host name: an operator may send them at any time.
    let signals = install_file_signals().map_err(ServerError::runtime)?;
    let settings = ServerSettings::resolve(args).map_err(ServerError::ConfigurationList)?;
    let LogSettings { filter, log_file, log_file_max_bytes, log_max_files, log_format, .. } = &settings.log;
    let is_json = match log_format {
        LogFormat::Auto => None,
        LogFormat::Text => Some(false),
        LogFormat::Json => Some(true),
    };
    let file = log_file.as_deref().map(|path| LogFile {
        path,
        max_bytes: *log_file_max_bytes,
        max_files: (*log_max_files).into(),
    });
    // Until the end of this function: what is logged last is written too.
    let _writers = start_log(filter, is_json, file)?;
    let settings = memory_budget::fit_workers(settings);
    let runtime = predictd::http_runtime(&settings).map_err(ServerError::runtime)?;
    let server = Server::prepare(&settings)?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::from_signals().map_err(ServerError::runtime)?;
        server.watch_file_signals(signals);
        let listeners = Listeners::bind(&settings.access).map_err(ServerError::Runtime)?;
        tracing::info!(
            address = %listeners.data,
            admin = %listeners.admin,
            tls = settings.tls.is_some(),
            workers = settings.workers,
            "{}",
            if listeners.data.is_open() { "listening" } else { "data listener opens once the models are loaded" }
        );
        server.run(listeners, &shutdown).await
    });
    // A load that still runs must not hold the process.
    runtime.shutdown_background();
    abort_after_timeout();
    outcome
}
