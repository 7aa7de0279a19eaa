//! What commands print: names and labels out of a file, a model or a server never reach a terminal as commands to it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::{Daemon, predictd};
use crate::fixture::Model;
use crate::fixture::onnx::{Dim, Element, Graph};
use crate::raw::{Wire, request};
use crate::receiver::Receiver;

/// Colours, the two-byte and the one-byte form; a new line that looks like another; text that runs backwards.
const EVIL: &str = "x\u{1b}[31mred\u{9b}0m\u{7}\u{202e}gnp.\u{2066}\nok\r\u{7f}\u{2028}\u{200f}";

/// Characters that a terminal may take for something else than text.
fn is_evil(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Both outputs of a command, which hold no such character, and no line that was written by somebody else.
#[track_caller]
fn tame(output: &Output) -> String {
    let all = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap()).concat();
    let found: Vec<char> = all.chars().filter(|c| is_evil(*c)).collect();
    assert!(found.is_empty(), "{found:?} in {all:?}");
    assert!(!all.contains("panicked"), "{all}");
    assert!(!all.lines().any(|line| line.starts_with("ok\\r")), "{all}");
    all
}

#[track_caller]
fn run(arguments: &[&str]) -> String {
    tame(&predictd(arguments).output().unwrap())
}

/// A model whose every name is evil.
fn evil(place: &Path, version: &str) -> PathBuf {
    let labels = [format!("a{EVIL}"), format!("b{EVIL}")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let options = format!("description = {}\n", toml::Value::from(EVIL));
    let directory = Model::plain().labels(&labels).options(&options).write(place, "m", version);
    std::fs::write(directory.join(EVIL.replace('\n', "")), "x").unwrap();
    directory
}

#[test]
fn check_prints_names_of_a_model_escaped() {
    let place = tempfile::tempdir().unwrap();
    let directory = evil(place.path(), "1");
    let path = directory.to_str().unwrap();
    let said = run(&["check", path]);
    assert!(said.contains("about       x\\u{1b}[31mred\\u{9b}0m"), "{said}");
    assert!(said.contains("labels      2: ax\\u{1b}[31m"), "{said}");
    let report: Value = serde_json::from_str(run(&["check", path, "--json"]).lines().next().unwrap()).unwrap();
    assert_eq!(report["model"]["labels"][0], format!("a{EVIL}"), "the JSON has the label as it is");
    // Its errors name what they are about.
    let texts = place.path().join("texts.csv");
    std::fs::write(&texts, format!("text,label\n10,{EVIL:?}\n20,none\n")).unwrap();
    let other = evil(place.path(), "2");
    std::fs::write(other.join("labels.json"), json!([EVIL, EVIL]).to_string()).unwrap();
    run(&["check", path, "--against", texts.to_str().unwrap()]);
    run(&["check", path, "--compare", other.to_str().unwrap()]);
    run(&["check", other.to_str().unwrap()]);
    let odd = place.path().join(format!("dir{}", EVIL.replace('\n', "")));
    run(&["check", odd.to_str().unwrap()]);
    std::fs::create_dir(&odd).unwrap();
    run(&["check", odd.to_str().unwrap()]);
    run(&["check", path, "--texts", odd.to_str().unwrap()]);
}

#[test]
fn profile_and_bench_print_names_of_a_model_escaped() {
    let place = tempfile::tempdir().unwrap();
    let directory = evil(place.path(), "1");
    let texts: Vec<String> = (0..300).map(|number| format!("{} {}", number % 90 + 4, number % 7 + 4)).collect();
    let file = place.path().join(format!("texts{}.txt", EVIL.replace('\n', "")));
    std::fs::write(&file, texts.join("\n")).unwrap();
    let said = run(&["profile", directory.to_str().unwrap(), "--texts", file.to_str().unwrap()]);
    assert!(said.contains("\\u{1b}[31m"), "{said}");
    run(&["profile", directory.to_str().unwrap(), "--texts", "/no\u{1b}where"]);
    run(&["bench", "m\u{1b}[31m", "--models", place.path().to_str().unwrap()]);
    run(&["bench", "m", "--models", place.path().to_str().unwrap(), "--texts", "/no\u{1b}where"]);
}

/// A server of an evil model, of which feedback was told.
fn served(place: &Path) -> Daemon {
    let (models, data) = (place.join("models"), place.join("data"));
    evil(&models, "1");
    let daemon = Daemon::with(&models, &data, &["--markup", "allow"]);
    let body = json!({ "text": EVIL }).to_string();
    let answer = Wire::to(daemon.address).ask(request("POST", "/predict", "", &body)).json();
    let truth = json!({ "prediction_id": answer["prediction_id"], "actual": answer["prediction"], "text": EVIL });
    let told = Wire::to(daemon.address).ask(request("POST", "/feedback", "", &truth.to_string()));
    assert_eq!(told.status, 200, "{told:?}");
    daemon
}

#[test]
fn commands_of_an_operator_print_what_a_server_says_escaped() {
    let place = tempfile::tempdir().unwrap();
    let daemon = served(place.path());
    let url = format!("http://{}", daemon.admin);
    let at = |arguments: &[&str]| run(&[arguments, &["--admin-url", &url]].concat());
    let other = evil(&place.path().join("other"), "2");
    // A file of such a name is not even taken.
    assert!(at(&["models", "register", "m", "2", other.to_str().unwrap()]).contains("x\\u{1b}[31mred"));
    std::fs::remove_file(other.join(EVIL.replace('\n', ""))).unwrap();
    let reason = format!("why {EVIL}");
    at(&[
        "models",
        "register",
        "m",
        "2",
        other.to_str().unwrap(),
        "--reason",
        &reason,
        "--metadata",
        &format!("by={EVIL}"),
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
    let odd = format!("dir{}", EVIL.replace('\n', ""));
    at(&["models", "register", "m", "3", &odd]);
    run(&["database", "backup", &odd, "--data-dir", &odd]);
    run(&["keys", "list", "--keys", &odd]);
    let keys = place.path().join("keys.toml");
    run(&["keys", "revoke", &odd, "--keys", keys.to_str().unwrap()]);
}

#[test]
fn an_evil_server_cannot_write_to_the_terminal_of_who_asks_it() {
    let evil = json!({ "detail": EVIL, "models": [{ "name": EVIL, "active": EVIL, "previous": EVIL, "versions": [] }],
        "experiments": [{ "name": EVIL, "state": EVIL, "on": EVIL, "control": EVIL, "arms": [{ "name": EVIL }] }],
        "feedback": [{ "id": EVIL, "predicted": [EVIL], "text": EVIL }], "next": null })
    .to_string();
    for status in [200, 503] {
        let server = Receiver::new(&[(status, &evil)]);
        let url = server.url("");
        for arguments in [
            &["models", "list", "--admin-url", &url][..],
            &["models", "list", "--json", "--admin-url", &url],
            &["experiments", "list", "--admin-url", &url],
            &["feedback", "export", "--format", "jsonl", "--admin-url", &url],
            &["health", "--url", &url],
        ] {
            let said = run(arguments);
            assert!(status == 200 || said.contains("\\u{1b}[31m"), "{arguments:?}: {said}");
        }
    }
}

/// A valid file of a model with a node of an evil kind: the runtime's error has its name.
fn evil_graph() -> Vec<u8> {
    let mut graph = Graph::default();
    graph.input("input_ids", Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let output = graph.node("Evil\u{1b}[31mPWNED\u{1b}]0;title\u{7}", &["input_ids"], &[]);
    graph.rename(&output, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    graph.encode()
}

#[test]
fn a_watcher_and_a_server_log_names_escaped() {
    let place = tempfile::tempdir().unwrap();
    let server = Receiver::new(&[(503, &json!({ "detail": EVIL, "status": EVIL }).to_string())]);
    let url = server.url("");
    run(&["watch", "--once", &url]);
    let models = place.path().join("models");
    evil(&models, "1");
    std::fs::create_dir_all(models.join(format!("dir{EVIL}"))).unwrap();
    std::fs::write(models.join("m/1/config.json"), format!("{{\"id2label\": {{\"{EVIL}\"")).unwrap();
    Model::plain().with_graph(evil_graph()).write(&models, "other", "1");
    let data = place.path().join("data");
    for format in ["text", "json"] {
        let paths = [&models, &data].map(|path| path.to_str().unwrap());
        let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let options = ["serve", "--models", paths[0], "--data-dir", paths[1], "--log-format", format];
        let mut command = predictd(&[&options[..], &listeners].concat());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3));
        crate::daemon::signal(child.id(), "TERM");
        child.wait().ok();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert!(said.contains("dirx"), "{said}");
        let escape = if format == "json" { "\\u001b" } else { "\\u{1b}" };
        assert!(said.contains(&format!("Evil{escape}[31mPWNED{escape}]0;title")), "{said}");
        let found: Vec<char> = said.chars().filter(|c| is_evil(*c)).collect();
        assert!(found.is_empty(), "{format}: {found:?} in {said:?}");
    }
}
