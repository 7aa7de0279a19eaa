//! Log lines: to standard error, and to a file that is rotated. And [`spans`] of requests.
//!
//! A line is handed to a thread that writes it. A writer that is too slow loses lines, which are counted; it never holds
//! a request up.

pub mod spans;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// Lines that wait to be written; those that come then are lost.
const WAITING_LINES: usize = 16_384;

/// Where lines go and which.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    /// A level, or a filter such as `predictd=debug`.
    pub filter: &'a str,
    /// JSON on standard error; if not said, unless that is a terminal.
    pub json: Option<bool>,
    /// The file they go to as well, as JSON.
    pub file: Option<LogFile<'a>>,
}

/// A file that is rotated: `PATH` becomes `PATH.1`, that `PATH.2`, and so on.
#[derive(Debug, Clone, Copy)]
pub struct LogFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// It is rotated once it has so many bytes.
    pub bytes: u64,
    /// Older files that are kept.
    pub files: usize,
}

/// Keeps the writers alive. Dropped, it waits for what they still have, but not for one that stands still.
#[derive(Debug)]
pub struct Writers(Vec<WorkerGuard>);

impl Drop for Writers {
    fn drop(&mut self) {
        let guards = std::mem::take(&mut self.0);
        patiently(move || drop(guards));
    }
}

/// Longest wait for the last lines: whoever reads them may have stopped reading.
const LAST_LINES: Duration = Duration::from_millis(1_500);

/// Does something that may be held up for ever, and waits for it for a moment.
fn patiently(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = sync_channel(1);
    let work = move || {
        work();
        done.send(()).ok();
    };
    if std::thread::Builder::new().name("predictd-log-end".to_owned()).spawn(work).is_ok() {
        is_done.recv_timeout(LAST_LINES).ok();
    }
}

/// Writes a sentence to standard error, if somebody takes it.
pub fn say(sentence: String) {
    patiently(move || {
        // Nobody is left to be told if this fails.
        writeln!(standard_error(), "{sentence}").ok();
    });
}

/// Standard error without the lock of the standard library, which a writer that stands still would hold.
fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(file) => Box::new(File::from(file)),
        Err(_) => Box::new(io::stderr()),
    }
}

struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    lost: Vec<ErrorCounter>,
}

/// Lines that could not be written.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
/// One process has one log.
static CONTROL: OnceLock<Control> = OnceLock::new();

/// Starts logging. A second call in one process changes nothing.
///
/// # Errors
/// One sentence, if the filter is none or the file cannot be written.
pub fn start(lines: &Lines<'_>) -> Result<Writers, String> {
    let (filter, control) = reload::Layer::new(parse(lines.filter).map_err(|error| format!("--log {error}"))?);
    let (mut guards, mut lost) = (Vec::new(), Vec::new());
    let mut writer = |output: Box<dyn Write + Send>| -> NonBlocking {
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
        let (writer, guard) = builder.thread_name("predictd-log").finish(Counted(output));
        guards.push(guard);
        lost.push(writer.error_counter());
        writer
    };
    let terminal = io::stderr().is_terminal();
    let to_stderr = fmt::layer().with_writer(writer(standard_error()));
    let to_stderr: Box<dyn Layer<_> + Send + Sync> = if lines.json.unwrap_or(!terminal) {
        to_stderr.json().flatten_event(true).boxed()
    } else {
        to_stderr.with_ansi(terminal).boxed()
    };
    let to_file = match lines.file {
        None => None,
        Some(file) => {
            let opened = open(&file).map_err(|error| format!("--log-file {}: {error}", file.path.display()))?;
            Some(fmt::layer().json().flatten_event(true).with_writer(writer(Box::new(opened))))
        }
    };
    // Only the first subscriber of a process can be set: tests start several servers.
    if registry().with(filter).with(to_stderr).with(to_file).try_init().is_ok() {
        CONTROL.set(Control { filter: control, lost }).ok();
    }
    // The default hook prints a panic's message, which may quote a request's text.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(place, thread, "a panic was caught; its message is not logged");
    }));
    Ok(Writers(guards))
}

/// Counts writes that fail, which nobody hears of otherwise.
struct Counted(Box<dyn Write + Send>);

impl Write for Counted {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.0.write(line);
        if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        // One at least.
        self.0.flush().inspect_err(|_| _ = UNWRITTEN.fetch_add(1, Ordering::Relaxed))
    }
}

fn open(file: &LogFile<'_>) -> io::Result<BasicRollingFileAppender> {
    if file.path.metadata().map_or(true, |metadata| metadata.is_file()) {
        check_rotation(file)?;
    }
    BasicRollingFileAppender::new(file.path, RollingConditionBasic::new().max_size(file.bytes), file.files)
}

/// An error if the file could not be rotated: it would grow without an end.
fn check_rotation(file: &LogFile<'_>) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = file.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if let Some(number) = (1..=file.files).find(|number| numbered(*number).is_dir()) {
        return Err(io::Error::other(format!("{} is a directory", numbered(number).display())));
    }
    // Names can be given in its directory.
    let mut draft = file.path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    File::create_new(&draft)?;
    std::fs::remove_file(&draft)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    // A word that is no level would be taken for the name of a part of the program, and all else be silent.
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_plain = |word: &&str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric());
    if let Some(word) =
        filter.split(',').map(str::trim).filter(is_plain).find(|word| !is_level(word) && *word != "predictd")
    {
        return Err(format!("{word:?} is no level: error, warn, info, debug, trace, off"));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("{filter:?}: {error}"))
}

/// What is logged now; nothing if logging was not started.
#[must_use]
pub fn filter() -> Option<String> {
    CONTROL.get()?.filter.with_current(ToString::to_string).ok()
}

/// Logs something else from now on, after a last word by the old filter.
///
/// # Errors
/// One sentence, if this is no filter, or logging was not started.
pub fn set_filter(filter: &str, last_word: impl FnOnce()) -> Result<(), String> {
    let parsed = parse(filter)?;
    let control = CONTROL.get().ok_or("logging was not started")?;
    last_word();
    control.filter.reload(parsed).map_err(|error| error.to_string())
}

/// Lines that were lost because a writer was too slow, or its disk full.
#[must_use]
pub fn lost_lines() -> u64 {
    let dropped: u64 =
        CONTROL.get().map_or(0, |control| control.lost.iter().map(|lost| lost.dropped_lines() as u64).sum());
    dropped + UNWRITTEN.load(Ordering::Relaxed)
}
