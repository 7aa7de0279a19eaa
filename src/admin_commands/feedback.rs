//! `predictd feedback export`: answers with their true labels, for a notebook or a training.

use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand, ValueEnum};
use predictd_api::feedback::{ExportedFeedback, FeedbackPage};
use serde_json::Value;

use super::args;
use super::client::Client;
use super::render::{json_line, parse};
use super::server_args::ServerArgs;
use crate::ServerError;
use crate::terminal::escape_cell;

/// Columns of the table.
const CSV_COLUMNS: [&str; 12] =
    ["id", "made", "model", "version", "arm", "predicted", "confidence", "actual", "correct", "text", "who", "told"];

/// `predictd feedback`.
#[derive(Debug, Args)]
pub struct FeedbackCommand {
    #[command(subcommand)]
    action: FeedbackAction,

    /// Which server.
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum FeedbackAction {
    /// Write what was told of earlier answers, in the order it was told, to standard output.
    Export {
        /// Of this model only.
        #[arg(long, value_name = "NAME", value_parser = args::parse_name)]
        model: Option<String>,
        /// How.
        #[arg(long, value_enum, default_value_t = ExportFormat::Csv, value_name = "FORMAT")]
        format: ExportFormat,
    },
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A table; several labels are separated by line ends. No spreadsheet runs it: a cell that begins like a formula, or with ', has a ' before it, and control characters are written as in \u{1b}. The lines of JSON have everything as it was told.
    Csv,
    /// A line of JSON for each answer.
    Jsonl,
}

impl FeedbackCommand {
    /// Writes it to standard output.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer, or standard output is closed.
    pub fn run(self) -> Result<(), ServerError> {
        let FeedbackAction::Export { model, format } = self.action;
        export_feedback(&Client::new(&self.server)?, model, format).map_err(ServerError::Runtime)
    }
}

fn export_feedback(client: &Client, model: Option<String>, format: ExportFormat) -> Result<(), String> {
    let failed = |error: io::Error| format!("standard output: {error}");
    let mut out = BufWriter::new(io::stdout().lock());
    if format == ExportFormat::Csv {
        out.write_all(&csv_record(CSV_COLUMNS)?).map_err(failed)?;
    }
    let model = model.map(|model| format!("model={model}&")).unwrap_or_default();
    let mut after = String::new();
    loop {
        let page: FeedbackPage<Value> = parse(client.get(&format!("/admin/feedback?{model}{after}"))?)?;
        for entry in page.feedback {
            let line = match format {
                ExportFormat::Csv => csv_record(csv_cells(parse(entry)?))?,
                ExportFormat::Jsonl => json_line(&entry).into_bytes(),
            };
            out.write_all(&line).map_err(failed)?;
        }
        match page.next {
            Some(next) => after = format!("after={next}"),
            None => return out.flush().map_err(failed),
        }
    }
}

fn csv_record(fields: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Vec<u8>, String> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(fields).map_err(|error| error.to_string())?;
    table.into_inner().map_err(|error| error.to_string())
}

/// Characters with which a spreadsheet may take a cell for a formula; some skip white space before it. The quote marks cells
/// that had one put before them: it is one of them itself.
const FORMULA_PREFIXES: [char; 12] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\'', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// An entry in the order of [`CSV_COLUMNS`].
fn csv_cells(entry: ExportedFeedback) -> [String; 12] {
    [
        csv_cell(&entry.id),
        csv_cell(&entry.made),
        csv_cell(&entry.model),
        csv_cell(&entry.version),
        csv_cell(&entry.arm),
        csv_cell(&entry.predicted.join("\n")),
        serde_json::to_string(&entry.confidence).unwrap_or_default(),
        csv_cell(&entry.actual.join("\n")),
        entry.correct.to_string(),
        csv_cell(&entry.text.unwrap_or_default()),
        csv_cell(&entry.who),
        csv_cell(&entry.told),
    ]
}

/// A text for the table: what others wrote is no formula there, and no command to a terminal.
fn csv_cell(text: &str) -> String {
    let text = escape_cell(text);
    let quote = if text.starts_with(FORMULA_PREFIXES) { "'" } else { "" };
    format!("{quote}{text}")
}
