//! `predictd feedback export`: answers with their true labels, for a notebook or a training.

use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::client::Client;
use super::server_args::ServerArgs;
use super::{args, field, json_line};
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
    pub fn run(&self) -> Result<(), ServerError> {
        let FeedbackAction::Export { model, format } = &self.action;
        let client = self.server.client()?;
        let mut out = BufWriter::new(io::stdout().lock());
        export_feedback(&client, model.as_deref(), *format, &mut out).map_err(ServerError::Runtime)
    }
}

fn export_feedback(
    client: &Client,
    model: Option<&str>,
    format: ExportFormat,
    out: &mut impl Write,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("standard output: {error}");
    if format == ExportFormat::Csv {
        out.write_all(&csv_record(CSV_COLUMNS)?).map_err(failed)?;
    }
    let model = model.map(|model| format!("model={model}&")).unwrap_or_default();
    let mut after = String::new();
    loop {
        let part = client.get(&format!("/admin/feedback?{model}{after}"))?;
        for entry in field(&part, "feedback").as_array().into_iter().flatten() {
            let line = match format {
                ExportFormat::Csv => csv_record(CSV_COLUMNS.map(|column| csv_cell(field(entry, column))))?,
                ExportFormat::Jsonl => json_line(entry).into_bytes(),
            };
            out.write_all(&line).map_err(failed)?;
        }
        match field(&part, "next").as_str() {
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

/// A value for the table: what others wrote is no formula there, and no command to a terminal.
fn csv_cell(value: &Value) -> String {
    let text = plain_text(value);
    // Numbers are the server's own.
    if !matches!(value, Value::String(_) | Value::Array(_)) {
        return text;
    }
    let text = escape_cell(&text);
    let quote = if text.starts_with(FORMULA_PREFIXES) { "'" } else { "" };
    format!("{quote}{text}")
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(labels) => labels.iter().map(plain_text).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}
