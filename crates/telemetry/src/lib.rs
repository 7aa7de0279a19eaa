//! Log lines: to standard error, and to a `file` that is rotated. And [`spans`] of requests.
//!
//! A line is handed to a thread that writes it. A writer that is too slow loses lines, which are counted; it never holds
//! a request up.

mod escaped_fields;
mod rotated_file;
pub mod spans;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

pub use escaped_fields::Escape;
use escaped_fields::EscapedFields;
pub use rotated_file::{LogFile, reopen_log_files};
use rotated_file::{RotatedFile, numbered_path};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// Lines that wait to be written; those that come then are lost.
const MAX_QUEUED_LINES: usize = 16_384;

/// Where lines go and which.
#[derive(Debug, Clone, Copy)]
pub struct LoggerConfig<'a> {
    /// A level, or a filter such as `predictd=debug`.
    pub filter: &'a str,
    /// JSON on standard error; if not said, unless that is a terminal.
    pub is_json: Option<bool>,
    /// The file they go to as well, as JSON.
    pub file: Option<LogFile<'a>>,
    /// What makes a line harmless for a terminal.
    pub escape: LogEscape,
}

/// What makes a line harmless for a terminal: names of models and texts of errors are others'.
#[derive(Debug, Clone, Copy)]
pub struct LogEscape {
    /// A line of text without colours, or the fields of one, without their end.
    pub text: Escape,
    /// A line of text whose fields are escaped; the formatter's own colours stay.
    pub coloured: Escape,
    /// A line of JSON.
    pub json: Escape,
}

/// Keeps the writers alive. Dropped, it waits for what they still have, but not for one that stands still.
#[derive(Debug)]
pub struct LogWriterGuard(Vec<WorkerGuard>);

impl Drop for LogWriterGuard {
    fn drop(&mut self) {
        let guards = std::mem::take(&mut self.0);
        run_with_timeout(move || drop(guards));
    }
}

/// Longest wait for the last lines: their reader may have stopped reading.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Does something that may be held up for ever, and waits for it for a moment.
fn run_with_timeout(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = sync_channel(1);
    let work = move || {
        work();
        done.send(()).ok();
    };
    if std::thread::Builder::new().name("predictd-log-end".to_owned()).spawn(work).is_ok() {
        is_done.recv_timeout(FLUSH_TIMEOUT).ok();
    }
}

/// Writes a sentence to standard error, if it can be written.
pub fn write_stderr(sentence: String) {
    run_with_timeout(move || {
        // There is nowhere to report a failure.
        writeln!(unlocked_stderr(), "{sentence}").ok();
    });
}

/// Standard error without the lock of the standard library, which a writer that stands still would hold.
fn unlocked_stderr() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(file) => Box::new(File::from(file)),
        Err(_) => Box::new(io::stderr()),
    }
}

struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    dropped_line_counters: Vec<ErrorCounter>,
}

/// Lines that could not be written.
static UNWRITTEN_LINES: AtomicU64 = AtomicU64::new(0);
/// One process has one log.
static LOG_CONTROL: OnceLock<LogControl> = OnceLock::new();

/// Starts logging. A second call in one process changes nothing.
///
/// # Errors
/// One sentence, if the filter is none or the file cannot be written.
pub fn start_logging(lines: &LoggerConfig<'_>) -> Result<LogWriterGuard, String> {
    let (filter_layer, filter) =
        reload::Layer::new(parse_filter(lines.filter).map_err(|error| format!("--log {error}"))?);
    let terminal = io::stderr().is_terminal();
    let as_json = lines.is_json.unwrap_or(!terminal);
    let escape = match (as_json, terminal) {
        (true, _) => lines.escape.json,
        (false, true) => lines.escape.coloured,
        (false, false) => lines.escape.text,
    };
    let (writer, guard) = start_writer(unlocked_stderr(), escape);
    let mut guards = vec![guard];
    let mut dropped_line_counters = vec![writer.error_counter()];
    let to_stderr = fmt::layer().with_writer(writer);
    let to_stderr: Box<dyn Layer<_> + Send + Sync> = if as_json {
        to_stderr.json().flatten_event(true).boxed()
    } else {
        to_stderr.with_ansi(terminal).fmt_fields(EscapedFields(lines.escape.text)).boxed()
    };
    let to_file = match lines.file {
        None => None,
        Some(file) => {
            let opened =
                open_log_file(&file).map_err(|error| format!("--log-file {}: {error}", file.path.display()))?;
            let (writer, guard) = start_writer(Box::new(opened), lines.escape.json);
            guards.push(guard);
            dropped_line_counters.push(writer.error_counter());
            Some(fmt::layer().json().flatten_event(true).with_writer(writer))
        }
    };
    // Only the first subscriber of a process can be set: tests start several servers.
    if registry().with(filter_layer).with(to_stderr).with(to_file).try_init().is_ok() {
        LOG_CONTROL.set(LogControl { filter, dropped_line_counters }).ok();
    }
    // The default hook prints a panic's message, which may quote a request's text.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(location, thread, "panic caught; panic message not logged");
    }));
    Ok(LogWriterGuard(guards))
}

/// Starts a thread that writes lines, and drops those that do not fit in its queue.
fn start_writer(output: Box<dyn Write + Send>, escape: Escape) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_QUEUED_LINES);
    builder.thread_name("predictd-log").finish(EscapingWriter { output, escape })
}

/// Writes lines, escaped. Counts failed writes: nothing else reports them.
struct EscapingWriter {
    output: Box<dyn Write + Send>,
    escape: Escape,
}

impl Write for EscapingWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // It comes as a whole.
        let text = String::from_utf8_lossy(line);
        let escaped = match text.strip_suffix('\n') {
            Some(text) => format!("{}\n", (self.escape)(text)).into(),
            None => (self.escape)(&text),
        };
        // Unlike `write`, this goes on where it was interrupted.
        self.output.write_all(escaped.as_bytes()).inspect_err(count_unwritten_line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // One at least.
        self.output.flush().inspect_err(count_unwritten_line)
    }
}

fn count_unwritten_line(_: &io::Error) {
    UNWRITTEN_LINES.fetch_add(1, Ordering::Relaxed);
}

fn open_log_file(file: &LogFile<'_>) -> io::Result<RotatedFile> {
    if file.path.metadata().map_or(true, |metadata| metadata.is_file()) {
        check_rotation(file)?;
    }
    RotatedFile::open(file)
}

/// An error if the file could not be rotated: it would grow without an end.
fn check_rotation(file: &LogFile<'_>) -> io::Result<()> {
    if let Some(taken) = (1..=file.max_files).map(|number| numbered_path(file.path, number)).find(|path| path.is_dir())
    {
        return Err(io::Error::other(format!("{} is a directory", taken.display())));
    }
    // Names can be given in its directory.
    let draft = numbered_path(file.path, std::process::id() as usize);
    File::create_new(&draft)?;
    std::fs::remove_file(&draft)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    // A word that is no level would be taken for the name of a part of the program, and all else be silent.
    let is_plain = |word: &&str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric());
    if let Some(word) = filter
        .split(',')
        .map(str::trim)
        .filter(is_plain)
        .find(|word| word.parse::<LevelFilter>().is_err() && *word != "predictd")
    {
        return Err(format!("{word:?} is no level: error, warn, info, debug, trace, off"));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("{filter:?}: {error}"))
}

/// What is logged now; nothing if logging was not started.
#[must_use]
pub fn current_filter() -> Option<String> {
    LOG_CONTROL.get()?.filter.with_current(ToString::to_string).ok()
}

/// Logs something else from now on, after a last word by the old filter.
///
/// # Errors
/// One sentence, if this is no filter, or logging was not started.
pub fn set_filter(filter: &str, last_word: impl FnOnce()) -> Result<(), String> {
    let parsed = parse_filter(filter)?;
    let control = LOG_CONTROL.get().ok_or("logging was not started")?;
    last_word();
    control.filter.reload(parsed).map_err(|error| error.to_string())
}

/// Lines that were lost because a writer was too slow, or its disk full.
#[must_use]
pub fn dropped_lines() -> u64 {
    let dropped: u64 = LOG_CONTROL
        .get()
        .map_or(0, |control| control.dropped_line_counters.iter().map(|lost| lost.dropped_lines() as u64).sum());
    dropped + UNWRITTEN_LINES.load(Ordering::Relaxed)
}
