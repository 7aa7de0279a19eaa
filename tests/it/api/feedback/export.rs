//! The table of `predictd feedback export`: no spreadsheet runs what a client wrote, and no terminal obeys it.

use predictd::api::feedback::ExportedFeedback;
use serde_json::json;

use super::{Scene, feedback_outcome, predict_for_receipt};
use crate::support::daemon::{Daemon, predictd};

fn export_feedback(daemon: &Daemon, format: &str) -> String {
    let url = format!("http://{}", daemon.admin);
    let output = predictd(&["feedback", "export", "--admin-url", &url, "--format", format]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn feedback_export_escapes_formulas_and_control_chars() {
    let scene = Scene::new();
    let daemon = scene.start(&["--markup", "allow"]);
    let cells = [
        ("=HYPERLINK(\"http://x\",\"y\")", "'=HYPERLINK(\"http://x\",\"y\")"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r\n=1", "'\r\n=1"),
        ("\r=1", "\\u{d}=1"),
        ("\u{ff1d}1", "'\u{ff1d}1"),
        ("'=1", "''=1"),
        ("1 = 1", "1 = 1"),
        ("a \u{1b}[31mred\u{9b}0m \u{202e}b\u{7f}", "a \\u{1b}[31mred\\u{9b}0m \\u{202e}b\\u{7f}"),
        ("two\r\nlines,\t\"x\"", "two\r\nlines,\t\"x\""),
    ];
    for (text, _) in cells {
        let (id, label) = predict_for_receipt(&daemon, text);
        assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label, "text": text })), "stored");
    }
    let table = export_feedback(&daemon, "csv");
    assert!(!table.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')), "{table:?}");
    let mut table = csv::Reader::from_reader(table.as_bytes());
    let found: Vec<String> = table.records().map(|row| row.unwrap()[9].to_owned()).collect();
    assert_eq!(found, cells.map(|(_, cell)| cell));
    // The lines of JSON have every text as it was sent, and hold no raw control character either.
    let lines = export_feedback(&daemon, "jsonl");
    assert!(!lines.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{lines:?}");
    let texts: Vec<String> =
        lines.lines().map(|line| serde_json::from_str::<ExportedFeedback>(line).unwrap().text.unwrap()).collect();
    assert_eq!(texts, cells.map(|(text, _)| text));
}
