//! What is stored of registered versions, and what is not: files that cannot serve, damaged, gone, half sent, of odd names.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use predictd::api::predictions::Prediction;
use predictd::text::manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{answering_version, post_ok};
use crate::support::files::{dir_entries, make_writable};
use crate::support::model_builder::onnx_graph::{Dim, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::models_command::{change_model, change_model_refused, recorded_active_version, show_model};
use crate::support::raw_client::{RawClient, request};
use crate::support::waiting::block_until;

const MODEL: &str = "m";

/// A server with one version of a model, and a place for others.
struct Scene {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
    others: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let [models, data, others] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().write(models.path(), MODEL, "1");
        Self { models, data, others }
    }

    fn start(&self) -> Daemon {
        let mut daemon = Daemon::start_with(self.models.path(), self.data.path(), &[]);
        daemon.wait_for_log("maximum memory use estimated");
        daemon
    }

    /// A directory that is no version yet, and differs from all others.
    fn write_other_version(&self, version: &str, model: &ModelBuilder) -> PathBuf {
        let directory = model.write(self.others.path(), MODEL, version);
        std::fs::write(directory.join("notes.txt"), version).unwrap();
        directory
    }

    fn register_version(&self, daemon: &Daemon, version: &str) {
        let directory = self.write_other_version(version, &ModelBuilder::plain());
        change_model(daemon, &["register", MODEL, version, directory.to_str().unwrap()]);
    }

    /// The directories of stored versions.
    fn stored_versions(&self) -> Vec<PathBuf> {
        dir_entries(&self.data.path().join("store/versions"))
    }

    /// The directory of the version with these notes.
    fn stored_version(&self, version: &str) -> PathBuf {
        let is = |directory: &PathBuf| {
            std::fs::read_to_string(directory.join("notes.txt")).is_ok_and(|text| text == version)
        };
        self.stored_versions().into_iter().find(is).unwrap()
    }
}

fn predict(daemon: &Daemon) -> Prediction {
    post_ok(daemon.address, "/predict", &json!({ "text": "10 20", "return_probabilities": true }))
}

fn model_with_nodes(last: fn(&mut OnnxGraph, &str) -> String) -> ModelBuilder {
    let inputs = TransformerBuilder::new(&["input_ids", "attention_mask"]);
    inputs.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]).append_nodes(last).model().labels(&["a", "b"])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn store_unloadable_upload_is_refused_and_removed() {
    let place = Scene::new();
    let daemon = place.start();
    let plain = ModelBuilder::plain;
    let two = TransformerBuilder::new(&["input_ids", "attention_mask"]);
    let two = two.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]);
    let graph = |bytes: &[u8]| plain().with_graph(bytes);
    let golden = json!({ "examples": [{ "text": "10 20", "label": "a", "scores": { "a": 0.5 } }] }).to_string();
    let whole = plain();
    let cut = |part: usize| plain().with_graph(&whole.graph_bytes()[..whole.graph_bytes().len() * part / 8]);
    let mut refusals: Vec<(String, ModelBuilder, &str)> = vec![
        ("zeros".to_owned(), graph(&[0; 4_096]), "model.onnx"),
        ("text".to_owned(), graph(b"not a graph"), "model.onnx"),
        ("a page".to_owned(), graph(b"<!DOCTYPE html><html><head><title>404</title></head></html>"), "model.onnx"),
        ("a pickle".to_owned(), graph(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."), "model.onnx"),
        ("an archive".to_owned(), graph(b"PK\x03\x04\x14\x00\x00\x00\x08\x00"), "model.onnx"),
        ("ort's own".to_owned(), graph(b"\x28\x00\x00\x00ORTM\x00\x00\x00\x00"), "model.onnx"),
        ("other labels".to_owned(), plain().labels(&["a", "b", "c"]), "labels"),
        (
            "an input more".to_owned(),
            TransformerBuilder::new(&["input_ids", "pixel_values"])
                .logit(&[("input_ids", 1.0)])
                .logit(&[])
                .model()
                .labels(&["a", "b"]),
            "pixel_values",
        ),
        (
            "fixed axes".to_owned(),
            two.clone().input_dims([Dim::Fixed(8), Dim::Open("n")]).model().labels(&["a", "b"]),
            "model.onnx",
        ),
        ("no tokenizer".to_owned(), plain().without_file("tokenizer.json"), "tokenizer.json"),
        ("another answer".to_owned(), plain().file("golden.json", golden), "golden.json"),
        (
            "no numbers".to_owned(),
            model_with_nodes(|graph, logits| {
                let negative = graph.node("Neg", &[logits], &[]);
                graph.node("Log", &[&negative], &[])
            }),
            "warm-up",
        ),
        (
            "an operator of nobody's".to_owned(),
            model_with_nodes(|graph, logits| graph.node("com.example.Evil", &[logits], &[])),
            "model.onnx",
        ),
        (
            "an operator of Python's".to_owned(),
            model_with_nodes(|graph, logits| graph.node("com.microsoft.PyOp", &[logits], &[])),
            "model.onnx",
        ),
        (
            "weights elsewhere".to_owned(),
            two.clone().external_weights(&[("location", "../../../../etc/passwd")]).model().labels(&["a", "b"]),
            "the directory of the graph",
        ),
        (
            "weights of the system".to_owned(),
            two.external_weights(&[("location", "/proc/self/environ")]).model().labels(&["a", "b"]),
            "the directory of the graph",
        ),
        ("unknown options".to_owned(), plain().manifest_toml("colour = 1"), "model.toml"),
    ];
    refusals.extend((1..8).map(|part| (format!("{part}/8 of a graph"), cut(part), "model.onnx")));
    for (number, (what, model, expected)) in refusals.iter().enumerate() {
        let directory = place.write_other_version(&format!("bad{number}"), model);
        let why =
            change_model_refused(&daemon, &["register", MODEL, &format!("bad{number}"), directory.to_str().unwrap()]);
        assert!(why.contains("cannot serve") && why.contains(expected), "{what}: {why}");
        assert!(!why.contains("root:"), "{what}: {why}");
    }
    assert_eq!((place.stored_versions(), answering_version(&daemon)), (Vec::<PathBuf>::new(), "1".to_owned()));
    assert_eq!(show_model(&daemon, MODEL).versions.len(), 1);
    // Empty files are not even taken.
    let directory = place.write_other_version("empty", &graph(b""));
    assert!(
        change_model_refused(&daemon, &["register", MODEL, "empty", directory.to_str().unwrap()]).contains("empty")
    );
}

#[test]
fn store_flipped_bit_is_detected() {
    let directory = tempfile::tempdir().unwrap();
    let version = ModelBuilder::plain().write(directory.path(), MODEL, "1");
    let files: BTreeMap<String, Vec<u8>> = dir_entries(&version)
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    let registered: BTreeMap<String, String> =
        files.iter().map(|(name, content)| (name.clone(), hex::encode(Sha256::digest(content)))).collect();
    assert!(Manifest::load_registered(&version, registered.clone()).is_ok());
    let bits: usize = files.values().map(|content| content.len() * 8).sum();
    let mut seen = 0;
    // 10,000 of them, over all files.
    for number in 0..10_000 {
        let mut bit = number * bits / 10_000;
        for (name, content) in &files {
            if bit < content.len() * 8 {
                let mut flipped = content.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(version.join(name), flipped).unwrap();
                let error = Manifest::load_registered(&version, registered.clone()).unwrap_err();
                assert!(error.reason.contains("not the file that was registered"), "{name}, bit {bit}: {error}");
                std::fs::write(version.join(name), content).unwrap();
                seen += 1;
                break;
            }
            bit -= content.len() * 8;
        }
    }
    assert_eq!(seen, 10_000);
}

#[test]
fn served_version_is_unaffected_by_file_changes() {
    let place = Scene::new();
    let daemon = place.start();
    place.register_version(&daemon, "2");
    change_model(&daemon, &["activate", MODEL, "2"]);
    let expected = predict(&daemon).probabilities.unwrap();
    let stored = place.stored_version("2");
    make_writable(&stored);
    let graph = stored.join("model.onnx");
    let other = stored.join("other");
    let damages: [&dyn Fn(); 5] = [
        // In place, as no program of ours does.
        &|| std::fs::OpenOptions::new().write(true).open(&graph).unwrap().write_all(&[0x5a; 64]).unwrap(),
        &|| std::fs::OpenOptions::new().write(true).open(&graph).unwrap().set_len(10).unwrap(),
        &|| {
            std::fs::write(&other, "another graph").unwrap();
            std::fs::rename(&other, &graph).unwrap();
        },
        &|| std::fs::remove_file(&graph).unwrap(),
        &|| std::fs::remove_dir_all(&stored).unwrap(),
    ];
    for damage in damages {
        damage();
        for _ in 0..20 {
            let answer = predict(&daemon);
            assert_eq!((answer.probabilities.as_ref(), answer.model.version.as_str()), (Some(&expected), "2"));
        }
    }
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // After a restart it cannot be loaded: what was active before answers, and the record says which should.
    let daemon = place.start();
    assert_eq!(
        (answering_version(&daemon), recorded_active_version(&daemon, MODEL).as_deref()),
        ("1".to_owned(), Some("2"))
    );
}

#[test]
fn rollback_to_unloadable_version_is_refused() {
    let place = Scene::new();
    let daemon = place.start();
    for version in ["2", "3"] {
        place.register_version(&daemon, version);
        change_model(&daemon, &["activate", MODEL, version]);
    }
    // It is kept loaded: files that are gone do no harm.
    let stored = place.stored_version("2");
    let aside = place.others.path().join("aside");
    make_writable(&stored);
    std::fs::rename(&stored, &aside).unwrap();
    change_model(&daemon, &["rollback", MODEL]);
    assert_eq!(answering_version(&daemon), "2");
    change_model(&daemon, &["activate", MODEL, "3"]);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = place.start();
    assert_eq!(answering_version(&daemon), "3");
    let why = change_model_refused(&daemon, &["rollback", MODEL]);
    assert!(why.contains("version 2 cannot serve: "), "{why}");
    assert_eq!(
        (answering_version(&daemon), recorded_active_version(&daemon, MODEL).as_deref()),
        ("3".to_owned(), Some("3"))
    );
    std::fs::rename(&aside, &stored).unwrap();
    change_model(&daemon, &["rollback", MODEL]);
    assert_eq!(answering_version(&daemon), "2");
}

#[test]
fn load_beyond_memory_limit_is_refused() {
    let place = Scene::new();
    let mut daemon = Daemon::start_with(place.models.path(), place.data.path(), &[]);
    let most = daemon.wait_for_log("maximum memory use estimated");
    let most = most["max_mib"].as_u64().unwrap_or_else(|| panic!("{most}"));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // As much as it needs now, and 96 MiB: with a file of 128 MiB there is not enough room.
    let limit = ((most + 96) << 20).to_string();
    let mut daemon = Daemon::start_with(place.models.path(), place.data.path(), &["--memory-limit", &limit]);
    daemon.wait_for_log("maximum memory use estimated");
    let directory = place.write_other_version("2", &ModelBuilder::plain().file("large.bin", vec![7; 128 << 20]));
    let why = change_model_refused(&daemon, &["register", MODEL, "2", directory.to_str().unwrap()]);
    assert!(why.contains("version 2 is not loaded: with it the server may need"), "{why}");
    assert_eq!((place.stored_versions().len(), answering_version(&daemon)), (0, "1".to_owned()));
    place.register_version(&daemon, "3");
    change_model(&daemon, &["activate", MODEL, "3"]);
}

#[test]
fn store_partial_upload_is_removed() {
    let place = Scene::new();
    let daemon = place.start();
    let incoming = place.data.path().join("store/incoming");
    let begin = |daemon: &Daemon| {
        let mut stream = TcpStream::connect(daemon.admin).unwrap();
        let head = format!(
            "PUT /admin/store/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n",
            "0".repeat(64)
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![7; 2 << 20]).unwrap();
        block_until("it is on its way", || !dir_entries(&incoming).is_empty());
        stream
    };
    drop(begin(&daemon));
    block_until("who leaves leaves nothing", || dir_entries(&incoming).is_empty());
    let _stream = begin(&daemon);
    daemon.signal("KILL");
    daemon.wait();
    assert_eq!(dir_entries(&incoming).len(), 1);
    let daemon = place.start();
    assert_eq!((dir_entries(&incoming), answering_version(&daemon)), (Vec::<PathBuf>::new(), "1".to_owned()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn store_path_traversal_names_are_refused() {
    let place = Scene::new();
    let daemon = place.start();
    let before = dir_entries(place.data.path()).len();
    let file = json!([{ "path": "model.onnx", "bytes": 1, "sha256": "0".repeat(64) }]);
    let send = |method: &str, path: &str, body: &Value| {
        let headers = "If-Match: \"2\"\r\n";
        RawClient::connect(daemon.admin).request(request(method, path, headers, &body.to_string())).status
    };
    let long = "a".repeat(65);
    let names = [
        "..",
        "...",
        "../x",
        "..\\x",
        "a/b",
        "a\\b",
        ".hidden",
        "A",
        "M",
        "CON",
        "a b",
        "a\u{0}",
        "a\n",
        "m\u{202e}",
        "\u{43c}",
        "a..b",
        "-a",
        "%2e%2e",
        "",
        "file:///etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "\\\\host\\x",
        "x#/../y",
        "x?/../y",
        &long,
    ];
    for name in names {
        let escaped = name.bytes().fold(String::new(), |whole, byte| format!("{whole}%{byte:02X}"));
        let register = json!({ "version": name, "files": file });
        assert_eq!(send("POST", "/admin/models/m/versions", &register), 422, "{name:?}");
        assert_eq!(send("POST", "/admin/models/m/activate", &json!({ "version": name })), 404, "{name:?}");
        let good = json!({ "version": "2", "files": file });
        // What is no path of a route at all is not found.
        let of_model = send("POST", &format!("/admin/models/{escaped}/versions"), &good);
        assert!([404, 422].contains(&of_model), "{name:?}: {of_model}");
        for path in ["", "/history"] {
            let shown = send("GET", &format!("/admin/models/{escaped}{path}"), &Value::Null);
            assert!(
                [404, 200].contains(&shown) && (shown == 404 || name.is_empty() || path == "/history"),
                "{name:?}: {shown}"
            );
        }
        for (method, path) in [("PUT", "/pin"), ("PUT", "/metrics"), ("DELETE", "")] {
            let body = if path == "/pin" { json!({ "pinned": true }) } else { json!({ "metrics": { "f1": 1.0 } }) };
            assert_eq!(
                send(method, &format!("/admin/models/m/versions/{escaped}{path}"), &body),
                404,
                "{method} {name:?}"
            );
        }
        let at = send("PUT", &format!("/admin/store/{escaped}"), &Value::Null);
        assert!([404, 405, 422].contains(&at), "{name:?}: {at}");
        let files = json!([{ "path": name, "bytes": 1, "sha256": "0".repeat(64) }]);
        let listed = send("POST", "/admin/models/m/versions", &json!({ "version": "2", "files": files }));
        assert_eq!(listed, 422, "{name:?}");
    }
    assert_eq!((place.stored_versions().len(), dir_entries(place.data.path()).len()), (0, before));
    assert_eq!((answering_version(&daemon), show_model(&daemon, MODEL).revision), ("1".to_owned(), 2));
}
