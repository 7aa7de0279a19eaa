//! Snapshots: what people read of the server, compared with committed files in `snapshots/` beside the test.

use std::path::Path;
use std::process::Command;

use insta::Settings;
use serde_json::Value;

/// Digests, of files and of keys.
pub(crate) const DIGEST: (&str, &str) = (r"\b[0-9a-f]{64}\b", "[digest]");

/// A directory that the test has made.
pub(crate) const TEMP_DIR: (&str, &str) = (r"/\S*/\.tmp\w+", "[directory]");

/// Times as the commands print them.
pub(crate) const TIME: (&str, &str) = (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?", "[time]");

/// An address of a listener on a port that the system chose.
pub(crate) const ADDRESS: (&str, &str) = (r"127\.0\.0\.1:\d+", "127.0.0.1:[port]");

/// A snapshot is named as the test says. What matches a pattern is replaced: it is another value in every run.
pub(crate) fn snapshot_settings(filters: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_filters(filters.to_vec());
    settings
}

/// What a snapshot holds below its head.
pub(crate) fn read_snapshot(path: impl AsRef<Path>) -> String {
    let file = std::fs::read_to_string(path).unwrap();
    file.splitn(3, "---\n").nth(2).unwrap().to_owned()
}

/// A command as typed, without options that say where something is, and what it printed. JSON is indented, for diffs.
pub(crate) fn transcript(arguments: &[&str], command: &mut Command) -> String {
    let output = command.env("COLUMNS", "100").output().unwrap();
    let [mut printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(&printed) {
        printed = format!("{json:#}\n");
    }
    let said = match output.status.code().unwrap() {
        0 if said.is_empty() => said,
        code => format!("exit code {code}, standard error:\n{said}"),
    };
    format!("$ predictd {}\n{printed}{said}\n", arguments.join(" "))
}
