//! What is stored of registered versions, and what is not: files that cannot serve, damaged, gone, half sent, of odd names.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use predictd::text::manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::daemon::Daemon;
use crate::fixture::onnx::{Dim, Graph};
use crate::fixture::{Model, Transformer};
use crate::operator::{done, refused};
use crate::raw::{Wire, request, until};

const NAME: &str = "m";

/// A server with one version of a model, and a place for others.
struct Place {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
    others: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let [models, data, others] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        Model::plain().write(models.path(), NAME, "1");
        Self { models, data, others }
    }

    fn start(&self) -> Daemon {
        let mut daemon = Daemon::with(self.models.path(), self.data.path(), &[]);
        daemon.logged("the server may need this much memory at most");
        daemon
    }

    /// A directory that is no version yet, and differs from all others.
    fn other(&self, version: &str, model: &Model) -> PathBuf {
        let directory = model.write(self.others.path(), NAME, version);
        std::fs::write(directory.join("notes.txt"), version).unwrap();
        directory
    }

    fn register(&self, daemon: &Daemon, version: &str) {
        let directory = self.other(version, &Model::plain());
        done(daemon, &["register", NAME, version, directory.to_str().unwrap()]);
    }

    /// The directories of stored versions.
    fn stored(&self) -> Vec<PathBuf> {
        entries(&self.data.path().join("store/versions"))
    }

    /// The directory of the version with these notes.
    fn stored_as(&self, version: &str) -> PathBuf {
        let is = |directory: &PathBuf| {
            std::fs::read_to_string(directory.join("notes.txt")).is_ok_and(|text| text == version)
        };
        self.stored().into_iter().find(is).unwrap()
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn ask(daemon: &Daemon) -> Value {
    daemon.ask("POST", "/predict", &json!({ "text": "10 20", "return_probabilities": true }).to_string())
}

fn answers(daemon: &Daemon) -> String {
    ask(daemon)["model"]["version"].as_str().unwrap().to_owned()
}

fn of(last: fn(&mut Graph, &str) -> String) -> Model {
    let inputs = Transformer::new(&["input_ids", "attention_mask"]);
    inputs.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]).then(last).model().labels(&["a", "b"])
}

#[test]
fn what_cannot_serve_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let daemon = place.start();
    let (plain, two) = (Model::plain, Transformer::new(&["input_ids", "attention_mask"]));
    let two = two.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]);
    let graph = |bytes: &[u8]| plain().with_graph(bytes);
    let golden = json!({ "examples": [{ "text": "10 20", "label": "a", "scores": { "a": 0.5 } }] }).to_string();
    let whole = plain();
    let cut = |part: usize| plain().with_graph(&whole.graph()[..whole.graph().len() * part / 8]);
    let mut refusals: Vec<(String, Model, &str)> = vec![
        ("zeros".to_owned(), graph(&[0; 4_096]), "model.onnx"),
        ("text".to_owned(), graph(b"not a graph"), "model.onnx"),
        ("a page".to_owned(), graph(b"<!DOCTYPE html><html><head><title>404</title></head></html>"), "model.onnx"),
        ("a pickle".to_owned(), graph(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."), "model.onnx"),
        ("an archive".to_owned(), graph(b"PK\x03\x04\x14\x00\x00\x00\x08\x00"), "model.onnx"),
        ("ort's own".to_owned(), graph(b"\x28\x00\x00\x00ORTM\x00\x00\x00\x00"), "model.onnx"),
        ("other labels".to_owned(), plain().labels(&["a", "b", "c"]), "labels"),
        (
            "an input more".to_owned(),
            Transformer::new(&["input_ids", "pixel_values"])
                .logit(&[("input_ids", 1.0)])
                .logit(&[])
                .model()
                .labels(&["a", "b"]),
            "pixel_values",
        ),
        (
            "fixed axes".to_owned(),
            two.clone().dims([Dim::Fixed(8), Dim::Open("n")]).model().labels(&["a", "b"]),
            "model.onnx",
        ),
        ("no tokenizer".to_owned(), plain().without("tokenizer.json"), "tokenizer.json"),
        ("another answer".to_owned(), plain().file("golden.json", golden), "golden.json"),
        (
            "no numbers".to_owned(),
            of(|graph, logits| {
                let negative = graph.node("Neg", &[logits], &[]);
                graph.node("Log", &[&negative], &[])
            }),
            "warm-up",
        ),
        (
            "an operator of nobody's".to_owned(),
            of(|graph, logits| graph.node("com.example.Evil", &[logits], &[])),
            "model.onnx",
        ),
        (
            "an operator of Python's".to_owned(),
            of(|graph, logits| graph.node("com.microsoft.PyOp", &[logits], &[])),
            "model.onnx",
        ),
        (
            "weights elsewhere".to_owned(),
            two.clone().external(&[("location", "../../../../etc/passwd")]).model().labels(&["a", "b"]),
            "the directory of the graph",
        ),
        (
            "weights of the system".to_owned(),
            two.external(&[("location", "/proc/self/environ")]).model().labels(&["a", "b"]),
            "the directory of the graph",
        ),
        ("options of nobody's".to_owned(), plain().options("colour = 1"), "model.toml"),
    ];
    refusals.extend((1..8).map(|part| (format!("{part}/8 of a graph"), cut(part), "model.onnx")));
    for (number, (what, model, expected)) in refusals.iter().enumerate() {
        let directory = place.other(&format!("bad{number}"), model);
        let why = refused(&daemon, &["register", NAME, &format!("bad{number}"), directory.to_str().unwrap()]);
        assert!(why.contains("cannot serve") && why.contains(expected), "{what}: {why}");
        assert!(!why.contains("root:"), "{what}: {why}");
    }
    assert_eq!((place.stored(), answers(&daemon)), (Vec::<PathBuf>::new(), "1".to_owned()));
    assert_eq!(done(&daemon, &["show", NAME])["versions"].as_array().unwrap().len(), 1);
    // Empty files are not even taken.
    let directory = place.other("empty", &graph(b""));
    assert!(refused(&daemon, &["register", NAME, "empty", directory.to_str().unwrap()]).contains("empty"));
}

#[test]
fn no_flipped_bit_of_a_registered_file_is_overlooked() {
    let directory = tempfile::tempdir().unwrap();
    let version = Model::plain().write(directory.path(), NAME, "1");
    let files: BTreeMap<String, Vec<u8>> = entries(&version)
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    let registered: BTreeMap<String, String> =
        files.iter().map(|(name, content)| (name.clone(), hex::encode(Sha256::digest(content)))).collect();
    assert!(Manifest::read_registered(&version, registered.clone()).is_ok());
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
                let error = Manifest::read_registered(&version, registered.clone()).unwrap_err();
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

/// Makes files of the store writable, as only their owner could.
pub fn open_up(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in std::iter::once(directory.to_owned()).chain(entries(directory)) {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn what_is_served_does_not_change_with_its_files() {
    let place = Place::new();
    let daemon = place.start();
    place.register(&daemon, "2");
    done(&daemon, &["activate", NAME, "2"]);
    let expected = ask(&daemon)["probabilities"].clone();
    let stored = place.stored_as("2");
    open_up(&stored);
    let (graph, other) = (stored.join("model.onnx"), stored.join("other"));
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
            let answer = ask(&daemon);
            assert_eq!((&answer["probabilities"], &answer["model"]["version"]), (&expected, &json!("2")));
        }
    }
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // After a restart it cannot be loaded: what was active before answers, and the record says which should.
    let daemon = place.start();
    assert_eq!((answers(&daemon), &done(&daemon, &["show", NAME])["active"]), ("1".to_owned(), &json!("2")));
}

#[test]
fn nobody_is_rolled_back_to_what_cannot_serve() {
    let place = Place::new();
    let daemon = place.start();
    for version in ["2", "3"] {
        place.register(&daemon, version);
        done(&daemon, &["activate", NAME, version]);
    }
    // It is kept loaded: files that are gone do no harm.
    let stored = place.stored_as("2");
    let aside = place.others.path().join("aside");
    open_up(&stored);
    std::fs::rename(&stored, &aside).unwrap();
    done(&daemon, &["rollback", NAME]);
    assert_eq!(answers(&daemon), "2");
    done(&daemon, &["activate", NAME, "3"]);
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = place.start();
    assert_eq!(answers(&daemon), "3");
    let why = refused(&daemon, &["rollback", NAME]);
    assert!(why.contains("version 2 cannot serve: "), "{why}");
    assert_eq!((answers(&daemon), &done(&daemon, &["show", NAME])["active"]), ("3".to_owned(), &json!("3")));
    std::fs::rename(&aside, &stored).unwrap();
    done(&daemon, &["rollback", NAME]);
    assert_eq!(answers(&daemon), "2");
}

#[test]
fn what_does_not_fit_into_the_memory_is_not_loaded() {
    let place = Place::new();
    let mut daemon = Daemon::with(place.models.path(), place.data.path(), &[]);
    let most = daemon.logged("the server may need this much memory at most");
    let most = most["most_mib"].as_u64().unwrap_or_else(|| panic!("{most}"));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // As much as it needs now, and 96 MiB: with a file of 128 MiB there is not enough room.
    let limit = ((most + 96) << 20).to_string();
    let mut daemon = Daemon::with(place.models.path(), place.data.path(), &["--memory-limit", &limit]);
    daemon.logged("the server may need this much memory at most");
    let directory = place.other("2", &Model::plain().file("large.bin", vec![7; 128 << 20]));
    let why = refused(&daemon, &["register", NAME, "2", directory.to_str().unwrap()]);
    assert!(why.contains("version 2 is not loaded: with it the server may need"), "{why}");
    assert_eq!((place.stored().len(), answers(&daemon)), (0, "1".to_owned()));
    place.register(&daemon, "3");
    done(&daemon, &["activate", NAME, "3"]);
}

#[test]
fn half_an_upload_is_gone() {
    let place = Place::new();
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
        until("it is on its way", || !entries(&incoming).is_empty());
        stream
    };
    drop(begin(&daemon));
    until("who leaves leaves nothing", || entries(&incoming).is_empty());
    let _stream = begin(&daemon);
    daemon.signal("KILL");
    daemon.wait();
    assert_eq!(entries(&incoming).len(), 1);
    let daemon = place.start();
    assert_eq!((entries(&incoming), answers(&daemon)), (Vec::<PathBuf>::new(), "1".to_owned()));
}

#[test]
fn no_name_leads_elsewhere() {
    let place = Place::new();
    let daemon = place.start();
    let before = entries(place.data.path()).len();
    let file = json!([{ "path": "model.onnx", "bytes": 1, "sha256": "0".repeat(64) }]);
    let send = |method: &str, path: &str, body: &Value| {
        let headers = "If-Match: \"2\"\r\n";
        Wire::to(daemon.admin).ask(request(method, path, headers, &body.to_string())).status
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
    assert_eq!((place.stored().len(), entries(place.data.path()).len()), (0, before));
    assert_eq!((answers(&daemon), done(&daemon, &["show", NAME])["revision"].clone()), ("1".to_owned(), json!(2)));
}
