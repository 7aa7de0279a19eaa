//! Names, texts and messages that others choose, in the log: escaped, on one line, short, or not there at all.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, run_to_exit, serve_command};
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::raw_client::{RawClient, request};

/// No line is longer, in bytes.
const MAX_LOG_LINE_BYTES: usize = 8 << 10;

/// Ends a line, begins another that looks like the server's own, and paints it red.
const FORGED_LINE: &str = "odd\n{\"level\":\"ERROR\",\"message\":\"forged\"}\r\u{1b}[31m";

/// The lines as JSON: one object each, none of them long.
fn parse_log_lines(log: &str) -> Vec<Value> {
    let parsed = log.lines().map(|line| {
        assert!(line.len() < MAX_LOG_LINE_BYTES, "{} bytes: {line:.500}…", line.len());
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message", "target"] {
            assert!(parsed[field].is_string(), "{field}: {line}");
        }
        parsed
    });
    parsed.collect()
}

/// A transformer whose tokenizer panics on a row of forty x.
fn panicking_tokenizer_model() -> ModelBuilder {
    ModelBuilder::plain().tokenizer(|file| {
        file["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Whitespace" },
            { "type": "Split", "pattern": { "Regex": "(x+x+)+y" }, "behavior": "Isolated", "invert": false },
        ]});
    })
}

/// A graph that takes the text itself and fails on one of them, in nodes of this name.
fn failing_graph_model(text: &str, node: &str) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.name_nodes(node);
    graph.input("text", ElementType::Text, &[Dim::Open("batch")]);
    let words = [
        ("keys_strings", Attribute::Texts(&[text])),
        ("values_strings", Attribute::Texts(&[text])),
        ("default_string", Attribute::Text("0.5")),
    ];
    let word = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &words);
    let axis = graph.integers(&[1], &[1]);
    let column = graph.node("Unsqueeze", &[&word, &axis], &[]);
    let number = graph.node("Cast", &[&column], &[("to", Attribute::Int(1))]);
    let scores = graph.node("Concat", &[&number, &number], &[("axis", Attribute::Int(1))]);
    graph.rename_value(&scores, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    ModelBuilder::from_graph(&graph).labels(&["a", "b"])
}

fn predict(daemon: &Daemon, body: &Value) -> String {
    let answer = RawClient::connect(daemon.address).request(request("POST", "/predict", "", &body.to_string()));
    assert!(!answer.body.contains("CANARY"), "{answer:?}");
    answer.problem_kind()
}

#[test]
fn log_directory_names_cannot_forge_lines() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    for (name, version) in [("good", "1"), ("good", FORGED_LINE), (FORGED_LINE, "1"), ("good", &"9".repeat(200))] {
        ModelBuilder::plain().write(models.path(), name, version);
    }
    // The start ends by itself once the directories have been read.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for format in ["json", "text"] {
        let mut command = predictd(&["serve", "--log", "trace", "--log-format", format, "--listen", &address]);
        command.arg("--models").arg(models.path()).arg("--data-dir").arg(data.path());
        let (code, said) = run_to_exit(&mut command);
        assert_eq!(code, 1, "{said}");
        let log: String = said.split_inclusive('\n').filter(|line| !line.starts_with("predictd: ")).collect();
        assert_eq!(log.matches("directory skipped").count(), 3, "{log}");
        assert!(log.lines().all(|line| !line.starts_with("{\"level\"") && !line.contains(char::is_control)), "{log:?}");
        if format == "json" {
            let odd = |line: &Value| line["version"] == FORGED_LINE || line["model"] == FORGED_LINE;
            assert_eq!(parse_log_lines(&log).iter().filter(|line| odd(line)).count(), 2, "{log}");
        }
    }
}

#[test]
fn log_failing_text_is_not_logged() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    panicking_tokenizer_model().write(models.path(), "panicking", "1");
    failing_graph_model("CANARY fails", "").write(models.path(), "failing", "1");
    let mut daemon = Daemon::start(&mut serve_command(models.path(), data.path(), &["--log", "trace"]));
    daemon.wait_for_log("model version loaded");
    let text = format!("CANARY {}", "x".repeat(40));
    assert_eq!(predict(&daemon, &json!({ "text": text, "model": "panicking" })), "unusable-text");
    assert_eq!(predict(&daemon, &json!({ "text": "CANARY fails", "model": "failing" })), "inference-failed");
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("CANARY"), "{log}");
    let lines = parse_log_lines(&log);
    for message in ["panic caught", "tokenizer panicked", "inference failed"] {
        let logged = |line: &&Value| line["message"].as_str().unwrap().contains(message);
        assert!(lines.iter().any(|line| logged(&line)), "{message} is not there: {log}");
    }
}

#[test]
fn log_library_messages_are_truncated() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let name = "n".repeat(20_000);
    failing_graph_model("one short text", &name).write(models.path(), "broken", "1");
    failing_graph_model("now", &name).write(models.path(), "good", "1");
    let options = ["--log", "trace", "--default-model", "good"];
    let daemon = Daemon::start(&mut serve_command(models.path(), data.path(), &options));
    assert_eq!(predict(&daemon, &json!({ "text": "now" })), "inference-failed");
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log:.2000}");
    assert!(log.contains("nnnn"), "the library has named its node: the test is blind");
    assert!(parse_log_lines(&log).len() > 5);
}
