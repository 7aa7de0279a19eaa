//! What commands print: names and labels out of a file, a model or a server never reach a terminal as commands to it.

use std::path::{Path, PathBuf};
use std::process::Output;

use predictd::check::report::CheckReport;
use serde_json::json;

use crate::support::answers::label;
use crate::support::daemon::{Daemon, predictd};
use crate::support::daemon_requests::post;
use crate::support::http_receiver::HttpReceiver;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Dim, ElementType, OnnxGraph};

/// Colours, the two-byte and the one-byte form; a new line that looks like another; text that runs backwards.
const CONTROL_SEQUENCES: &str = "x\u{1b}[31mred\u{9b}0m\u{7}\u{202e}gnp.\u{2066}\nok\r\u{7f}\u{2028}\u{200f}";

/// Characters that a terminal may take for something else than text.
fn is_terminal_control(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Both outputs of a command, which hold no such character, and no line of another writer.
#[track_caller]
fn escaped_output(output: &Output) -> String {
    let all = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap()).concat();
    let found: Vec<char> = all.chars().filter(|c| is_terminal_control(*c)).collect();
    assert!(found.is_empty(), "{found:?} in {all:?}");
    assert!(!all.contains("panicked"), "{all}");
    assert!(!all.lines().any(|line| line.starts_with("ok\\r")), "{all}");
    all
}

#[track_caller]
fn run_command(arguments: &[&str]) -> String {
    escaped_output(&predictd(arguments).output().unwrap())
}

/// A model whose every name is evil.
fn write_evil_model(place: &Path, version: &str) -> PathBuf {
    let labels = [format!("a{CONTROL_SEQUENCES}"), format!("b{CONTROL_SEQUENCES}")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let options = format!("description = {}\n", toml::Value::from(CONTROL_SEQUENCES));
    let directory = ModelBuilder::plain().labels(&labels).manifest_toml(&options).write(place, "m", version);
    std::fs::write(directory.join(CONTROL_SEQUENCES.replace('\n', "")), "x").unwrap();
    directory
}

#[test]
fn terminal_check_escapes_model_names() {
    let place = tempfile::tempdir().unwrap();
    let directory = write_evil_model(place.path(), "1");
    let path = directory.to_str().unwrap();
    let said = run_command(&["check", path]);
    assert!(said.contains("about       x\\u{1b}[31mred\\u{9b}0m"), "{said}");
    assert!(said.contains("labels      2: ax\\u{1b}[31m"), "{said}");
    let json = run_command(&["check", path, "--json"]);
    let report: CheckReport = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    let labels = report.results.unwrap().model.labels;
    assert_eq!(labels[0], format!("a{CONTROL_SEQUENCES}"), "the JSON has the label as it is");
    // Its errors name what they are about.
    let texts = place.path().join("texts.csv");
    std::fs::write(&texts, format!("text,label\n10,{CONTROL_SEQUENCES:?}\n20,none\n")).unwrap();
    let other = write_evil_model(place.path(), "2");
    std::fs::write(other.join("labels.json"), json!([CONTROL_SEQUENCES, CONTROL_SEQUENCES]).to_string()).unwrap();
    run_command(&["check", path, "--against", texts.to_str().unwrap()]);
    run_command(&["check", path, "--compare", other.to_str().unwrap()]);
    run_command(&["check", other.to_str().unwrap()]);
    let odd = place.path().join(format!("dir{}", CONTROL_SEQUENCES.replace('\n', "")));
    run_command(&["check", odd.to_str().unwrap()]);
    std::fs::create_dir(&odd).unwrap();
    run_command(&["check", odd.to_str().unwrap()]);
    run_command(&["check", path, "--texts", odd.to_str().unwrap()]);
}

#[test]
fn terminal_profile_and_bench_escape_model_names() {
    let place = tempfile::tempdir().unwrap();
    let directory = write_evil_model(place.path(), "1");
    let texts: Vec<String> = (0..300).map(|number| format!("{} {}", number % 90 + 4, number % 7 + 4)).collect();
    let file = place.path().join(format!("texts{}.txt", CONTROL_SEQUENCES.replace('\n', "")));
    std::fs::write(&file, texts.join("\n")).unwrap();
    let said = run_command(&["profile", directory.to_str().unwrap(), "--texts", file.to_str().unwrap()]);
    assert!(said.contains("\\u{1b}[31m"), "{said}");
    run_command(&["profile", directory.to_str().unwrap(), "--texts", "/no\u{1b}where"]);
    run_command(&["bench", "m\u{1b}[31m", "--models", place.path().to_str().unwrap()]);
    run_command(&["bench", "m", "--models", place.path().to_str().unwrap(), "--texts", "/no\u{1b}where"]);
}

/// A server of an evil model, with feedback on its answer.
fn start_evil_server(place: &Path) -> Daemon {
    let models = place.join("models");
    let data = place.join("data");
    write_evil_model(&models, "1");
    let daemon = Daemon::start_with(&models, &data, &["--markup", "allow"]);
    let answer = daemon.predict(CONTROL_SEQUENCES);
    let truth = json!({ "prediction_id": answer.prediction_id, "actual": label(&answer), "text": CONTROL_SEQUENCES });
    let response = post(daemon.address, "/feedback", &truth);
    assert_eq!(response.status, 200, "{response:?}");
    daemon
}

#[test]
fn terminal_admin_commands_escape_server_names() {
    let place = tempfile::tempdir().unwrap();
    let daemon = start_evil_server(place.path());
    let url = format!("http://{}", daemon.admin);
    let at = |arguments: &[&str]| run_command(&[arguments, &["--admin-url", &url]].concat());
    let other = write_evil_model(&place.path().join("other"), "2");
    // A file of such a name is not even taken.
    assert!(at(&["models", "register", "m", "2", other.to_str().unwrap()]).contains("x\\u{1b}[31mred"));
    std::fs::remove_file(other.join(CONTROL_SEQUENCES.replace('\n', ""))).unwrap();
    let reason = format!("why {CONTROL_SEQUENCES}");
    at(&[
        "models",
        "register",
        "m",
        "2",
        other.to_str().unwrap(),
        "--reason",
        &reason,
        "--metadata",
        &format!("by={CONTROL_SEQUENCES}"),
    ]);
    at(&["models", "activate", "m", "2", "--reason", &reason]);
    assert!(at(&["models", "history", "m"]).contains("why x\\u{1b}[31mred"));
    at(&["experiments", "create", "e", "--on", "m", "--arm", "x=m/1:50", "--arm", "y=m/2:50", "--reason", &reason]);
    assert!(at(&["experiments", "history", "e"]).contains("why x\\u{1b}[31mred"));
    for arguments in [
        &["models", "list"][..],
        &["models", "show", "m"],
        &["models", "show", "m", "--json"],
        &["models", "history", "m", "--json"],
        &["models", "show", "none"],
        &["experiments", "list"],
        &["experiments", "show", "e"],
        &["experiments", "show", "e", "--json"],
        &["experiments", "results", "e"],
        &["feedback", "export", "--format", "jsonl"],
    ] {
        at(arguments);
    }
    let odd = format!("dir{}", CONTROL_SEQUENCES.replace('\n', ""));
    at(&["models", "register", "m", "3", &odd]);
    run_command(&["database", "backup", &odd, "--data-dir", &odd]);
    run_command(&["keys", "list", "--keys", &odd]);
    let keys = place.path().join("keys.toml");
    run_command(&["keys", "revoke", &odd, "--keys", keys.to_str().unwrap()]);
}

#[test]
fn terminal_admin_commands_escape_malicious_server() {
    let evil = json!({ "detail": CONTROL_SEQUENCES, "epoch": 1, "stale": false,
        "models": [{ "name": CONTROL_SEQUENCES, "revision": 1, "active": CONTROL_SEQUENCES, "previous": CONTROL_SEQUENCES, "versions": [] }],
        "experiments": [{ "name": CONTROL_SEQUENCES, "revision": 1, "state": CONTROL_SEQUENCES, "on": CONTROL_SEQUENCES, "control": CONTROL_SEQUENCES, "arms": [{ "name": CONTROL_SEQUENCES }], "phases": [], "created": "" }],
        "feedback": [{ "id": CONTROL_SEQUENCES, "predicted": [CONTROL_SEQUENCES], "text": CONTROL_SEQUENCES }], "next": null })
    .to_string();
    for status in [200, 503] {
        let server = HttpReceiver::new(&[(status, &evil)]);
        let url = server.url("");
        for arguments in [
            &["models", "list", "--admin-url", &url][..],
            &["models", "list", "--json", "--admin-url", &url],
            &["experiments", "list", "--admin-url", &url],
            &["feedback", "export", "--format", "jsonl", "--admin-url", &url],
            &["health", "--url", &url],
        ] {
            let said = run_command(arguments);
            assert!(!said.contains("cannot be read"), "{arguments:?}: {said}");
            assert!(status == 200 || said.contains("\\u{1b}[31m"), "{arguments:?}: {said}");
        }
    }
}

/// A valid file of a model with a node of an evil kind: the runtime's error has its name.
fn evil_graph() -> Vec<u8> {
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let output = graph.node("Evil\u{1b}[31mPWNED\u{1b}]0;title\u{7}", &["input_ids"], &[]);
    graph.rename_value(&output, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    graph.encode()
}

#[test]
fn terminal_log_lines_escape_names() {
    let place = tempfile::tempdir().unwrap();
    let server =
        HttpReceiver::new(&[(503, &json!({ "detail": CONTROL_SEQUENCES, "status": CONTROL_SEQUENCES }).to_string())]);
    let url = server.url("");
    run_command(&["watch", "--once", &url]);
    let models = place.path().join("models");
    write_evil_model(&models, "1");
    std::fs::create_dir_all(models.join(format!("dir{CONTROL_SEQUENCES}"))).unwrap();
    std::fs::write(models.join("m/1/config.json"), format!("{{\"id2label\": {{\"{CONTROL_SEQUENCES}\"")).unwrap();
    ModelBuilder::plain().with_graph(evil_graph()).write(&models, "other", "1");
    let data = place.path().join("data");
    for format in ["text", "json"] {
        let paths = [&models, &data].map(|path| path.to_str().unwrap());
        let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let options = ["serve", "--models", paths[0], "--data-dir", paths[1], "--log-format", format];
        let mut command = predictd(&[&options[..], &listeners].concat());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3));
        crate::support::daemon::send_signal(child.id(), "TERM");
        child.wait().ok();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert!(said.contains("dirx"), "{said}");
        let escape = if format == "json" { "\\u001b" } else { "\\u{1b}" };
        assert!(said.contains(&format!("Evil{escape}[31mPWNED{escape}]0;title")), "{said}");
        let found: Vec<char> = said.chars().filter(|c| is_terminal_control(*c)).collect();
        assert!(found.is_empty(), "{format}: {found:?} in {said:?}");
    }
}
