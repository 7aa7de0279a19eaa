//! Models of an MLflow server: one that says what it should, and one that does not. A real one is asked in `make e2e`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::Model;
use crate::operator::{done, refused};
use crate::raw::{Wire, metric, request, until};
use crate::receiver::background;
use crate::storage::open_up;

const NAME: &str = "m";
const ROOT: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// What is answered: by method, path and query.
#[derive(Default)]
struct Kept {
    answers: BTreeMap<String, (u16, Vec<u8>)>,
    /// Bodies that were posted.
    posted: Vec<Value>,
    /// `Authorization` headers.
    authorised: Vec<String>,
}

/// A server that answers as MLflow 3.18 does, as far as it was told.
#[derive(Clone)]
struct Mlflow {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Mlflow {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), kept: Arc::default() };
        let kept = Arc::clone(&server.kept);
        background(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                background(move || serve(&stream.unwrap(), &kept));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.kept.lock().answers.insert(path.to_owned(), (status, body.into()));
    }

    fn say(&self, path: &str, body: &Value) {
        self.set(path, 200, body.to_string());
    }

    /// Keeps the model directory as a version of the registered model `M`.
    fn keep(&self, version: &str, directory: &Path, mlmodel: &str) {
        let (place, query) = (format!("1/models/m-{version}/artifacts"), format!("?name=M&version={version}"));
        self.say(&format!("/api/2.0/mlflow/model-versions/get{query}"), &described(version));
        let at = json!({ "artifact_uri": format!("mlflow-artifacts:/{place}") });
        self.say(&format!("/api/2.0/mlflow/model-versions/get-download-uri{query}"), &at);
        let mut listed = [Vec::new(), Vec::new()];
        let mut put = |extra: bool, name: &str, content: &[u8]| {
            listed[usize::from(extra)].push(json!({ "path": name, "is_dir": false, "file_size": content.len() }));
            let folder = if extra { "extra_files/" } else { "" };
            self.set(&format!("{ROOT}/{place}/{folder}{name}"), 200, content);
        };
        put(false, "MLmodel", mlmodel.as_bytes());
        put(false, "requirements.txt", b"onnx");
        for entry in std::fs::read_dir(directory).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().file_name());
            let name = name.to_str().unwrap();
            put(!["model.onnx", "input_example.json"].contains(&name), name, &std::fs::read(path).unwrap());
        }
        let [mut root, extra] = listed;
        root.push(json!({ "path": "extra_files", "is_dir": true }));
        self.say(&format!("{ROOT}?path={place}"), &json!({ "files": root }));
        self.say(&format!("{ROOT}?path={place}/extra_files"), &json!({ "files": extra }));
    }

    fn alias(&self, version: &str) {
        self.say("/api/2.0/mlflow/registered-models/alias?name=M&alias=champion", &described(version));
    }

    /// Tags that were set, as `version key=value`.
    fn tags(&self) -> Vec<String> {
        let text = |posted: &Value, field: &str| posted[field].as_str().unwrap().to_owned();
        let tag =
            |posted: &Value| format!("{} {}={}", text(posted, "version"), text(posted, "key"), text(posted, "value"));
        self.kept.lock().posted.iter().map(tag).collect()
    }
}

fn described(version: &str) -> Value {
    let source = format!("models:/m-{version}");
    json!({ "model_version": { "name": "M", "version": version, "source": source, "run_id": "r1", "status": "READY" } })
}

fn serve(stream: &TcpStream, kept: &Mutex<Kept>) {
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone().unwrap()), stream);
    loop {
        let (mut target, mut length, mut line) = (String::new(), 0, String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if target.is_empty() {
                line.split(' ').nth(1).unwrap().clone_into(&mut target);
            }
            let small = line.to_ascii_lowercase();
            if let Some(value) = small.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            } else if small.starts_with("authorization: ") {
                kept.lock().authorised.push(line[15..].trim().to_owned());
            }
            line.clear();
        }
        if target.is_empty() {
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (status, said) = {
            let mut kept = kept.lock();
            if let Ok(posted) = serde_json::from_slice(&body) {
                kept.posted.push(posted);
                (200, b"{}".to_vec())
            } else {
                let unknown = (404, br#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"not found"}"#.to_vec());
                kept.answers.get(&target.replace("%2F", "/")).cloned().unwrap_or(unknown)
            }
        };
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nLocation: /x\r\n\r\n", said.len());
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&said)).is_err() {
            return;
        }
    }
}

const MLMODEL: &str = r#"
artifact_path: mlflow-artifacts:/1/models/m-1/artifacts
flavors:
  onnx: {code: null, data: model.onnx, onnx_version: 1.23.2, providers: [CPUExecutionProvider]}
  python_function: {data: model.onnx, loader_module: mlflow.onnx}
saved_input_example_info: {artifact_path: input_example.json, serving_input_path: serving_input_example.json, type: ndarray}
signature:
  inputs: '[{"name": "input_ids", "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, -1]}}, {"name": "attention_mask",
    "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, -1]}}]'
  outputs: '[{"name": "logits", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
  params: null
"#;

/// Versions of a model as they are logged, a server of another one, and the MLflow server.
struct Place {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
    logged: tempfile::TempDir,
    mlflow: Mlflow,
}

impl Place {
    fn new() -> Self {
        let [models, data, logged] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        Model::plain().write(models.path(), NAME, "own");
        Self { models, data, logged, mlflow: Mlflow::start() }
    }

    /// Logs a version that differs from the others.
    fn log(&self, version: &str, change: impl FnOnce(Model) -> Model) {
        let example = json!({ "input_ids": [[2, 10, 3], [2, 3, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]] });
        let model = Model::plain().file("notes.txt", version).file("input_example.json", example.to_string());
        let directory = change(model).write(self.logged.path(), NAME, version);
        self.mlflow.keep(version, &directory, MLMODEL);
    }

    fn start(&self, options: &[&str]) -> Daemon {
        let url = self.mlflow.url();
        let options = [&["--mlflow", &url, "--follow-interval", "1s"], options].concat();
        let mut daemon = Daemon::with(self.models.path(), self.data.path(), &options);
        daemon.logged("the server may need this much memory at most");
        daemon
    }

    fn stored(&self) -> usize {
        std::fs::read_dir(self.data.path().join("store/versions")).unwrap().count()
    }
}

fn answers(daemon: &Daemon, model: &str) -> String {
    let body = json!({ "text": "hello", "model": model }).to_string();
    let answer = Wire::to(daemon.address).ask(request("POST", "/predict", "", &body));
    if answer.status == 200 { answer.json()["model"]["version"].as_str().unwrap().to_owned() } else { answer.problem() }
}

#[test]
fn a_version_is_registered_from_mlflow() {
    let place = Place::new();
    place.log("1", |model| model);
    let daemon = place.start(&[]);
    let registered = done(&daemon, &["register", NAME, "1", "models:/M/1", "--metadata", "by=me"]);
    assert_eq!(registered["changed"], true);
    place.mlflow.alias("1");
    assert_eq!(done(&daemon, &["register", NAME, "1", "models:/M@champion"])["changed"], false);
    let shown = done(&daemon, &["show", NAME]);
    let versions = shown["versions"].as_array().unwrap();
    let version = versions.iter().find(|version| version["version"] == "1").unwrap();
    let metadata =
        json!({ "by": "me", "mlflow.uri": "models:/M/1", "mlflow.run_id": "r1", "mlflow.source": "models:/m-1" });
    assert_eq!((&version["origin"], &version["metadata"]), (&json!("mlflow"), &metadata));
    done(&daemon, &["activate", NAME, "1"]);
    assert_eq!(answers(&daemon, NAME), "1");
    // What is needed, and nothing else.
    let stored = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    let mut names: Vec<_> =
        std::fs::read_dir(stored).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["MLmodel", "config.json", "input_example.json", "model.onnx", "notes.txt", "tokenizer.json"]);
    assert!(refused(&daemon, &["register", NAME, "own", "models:/M/1"]).contains("a version never changes"));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // The files are gone, as they are on another replica: they are had again from where they are kept.
    let stored = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    open_up(&stored);
    std::fs::rename(&stored, place.logged.path().join("aside")).unwrap();
    let daemon = place.start(&[]);
    assert_eq!((answers(&daemon, NAME), stored.is_dir()), ("1".to_owned(), true));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // Others than those that were registered are not taken.
    open_up(&stored);
    std::fs::rename(&stored, place.logged.path().join("once more")).unwrap();
    place.log("1", |model| model.file("notes.txt", "others"));
    let daemon = place.start(&[]);
    assert_eq!((answers(&daemon, NAME), stored.is_dir()), ("own".to_owned(), false));
    assert!(daemon.log().contains("has other files now than those that were registered"));
}

#[test]
fn what_an_mlflow_server_should_not_say_is_refused() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let (root, of_one) = (format!("{ROOT}?path=1/models/m-1/artifacts"), format!("{ROOT}/1/models/m-1/artifacts"));
    let (uri, model) = (
        "/api/2.0/mlflow/model-versions/get-download-uri?name=M&version=1",
        "/api/2.0/mlflow/model-versions/get?name=M&version=1",
    );
    let files = |files: Value| json!({ "files": files }).to_string();
    let at = |place: &str| json!({ "artifact_uri": place }).to_string();
    let many: Vec<Value> = (0..10_000).map(|i| json!({ "path": format!("f{i}") })).collect();
    let said: Vec<(&str, u16, Vec<u8>, &str)> = vec![
        (&root, 200, files(json!([{ "path": "MLmodel" }, { "path": "../../x" }])).into(), "is no name of a file"),
        (&root, 200, files(json!([{ "path": "MLmodel" }, { "path": ".." }])).into(), "is no name of a file"),
        (&root, 200, files(json!([{ "path": "/etc/passwd" }])).into(), "is no name of a file"),
        (
            &root,
            200,
            files(json!([{ "path": "MLmodel" }, { "path": "model.onnx", "file_size": 7 }])).into(),
            "others were announced",
        ),
        (&root, 200, files(json!(many)).into(), "more than 512 files"),
        (&root, 200, files(json!([{ "path": "x" }])).into(), "holds no MLmodel"),
        (&root, 200, files(json!([{ "path": "MLmodel" }])).into(), "is not there"),
        (&root, 200, files(json!("x")).into(), "answers what it should not"),
        (&root, 200, vec![b' '; 5 << 20], "more than 4194304 bytes"),
        (&root, 200, b"<html>".to_vec(), "no JSON"),
        (uri, 200, at("s3://bucket/x").into(), "\"s3\""),
        (uri, 200, at("file:///etc").into(), "\"file\""),
        (uri, 200, at("http://169.254.169.254/latest").into(), "\"http\""),
        (uri, 200, at("mlflow-artifacts://169.254.169.254/x").into(), "another MLflow server"),
        (uri, 200, at("mlflow-artifacts:/1/../../etc").into(), "no path"),
        (uri, 200, at("models:/M/1").into(), "without an end"),
        (uri, 302, Vec::new(), "says: 302"),
        (model, 401, br#"{"message":"who\nare you"}"#.to_vec(), "says: 401 who are you"),
        (model, 500, Vec::new(), "does not answer: 500"),
        (model, 200, b"{}".to_vec(), "model_version is not there"),
    ];
    let mlmodels = [
        ("flavors: {sklearn: {pickled_model: model.pkl}}".to_owned(), "from-sklearn"),
        ("flavors: [".to_owned(), "no YAML"),
        (format!("x: {}", "x".repeat(2 << 20)), "more than 1048576 bytes"),
        (MLMODEL.replace("data: model.onnx", "data: ../../model.onnx"), "is not there"),
        (MLMODEL.replace("[-1, 2]", "[-1, 3]"), "has the shape [-1, 3], the graph's [-1, 2]"),
        (MLMODEL.replace("int64", "int32"), "is of int32, the graph's of int64"),
        (MLMODEL.replace("input_example.json", "../model.onnx"), "is not a file beside it"),
        (MLMODEL.replace("\"input_ids\"", "\"ids\""), "which the graph has not"),
    ];
    let nothing_changed = || {
        assert_eq!((place.stored(), answers(&daemon, NAME)), (0, "own".to_owned()));
    };
    for (path, status, body, expected) in said {
        place.log("1", |model| model);
        place.mlflow.set(path, status, body);
        let why = refused(&daemon, &["register", NAME, "1", "models:/M/1"]);
        assert!(why.contains(expected), "{path}: {why}");
        nothing_changed();
    }
    for (mlmodel, expected) in mlmodels {
        place.log("1", |model| model);
        place.mlflow.keep("1", &place.logged.path().join(NAME).join("1"), &mlmodel);
        let why = refused(&daemon, &["register", NAME, "1", "models:/M/1"]);
        assert!(why.contains(expected), "{why}");
        nothing_changed();
    }
    place.log("1", |model| model.file("input_example.json", "{\"age\": 7}"));
    assert!(refused(&daemon, &["register", NAME, "1", "models:/M/1"]).contains("neither texts nor"));
    nothing_changed();
    place.log("1", |model| model);
    place.mlflow.set(&format!("{of_one}/model.onnx"), 404, "");
    assert!(refused(&daemon, &["register", NAME, "1", "models:/M/1"]).contains("says: 404"));
    assert!(refused(&daemon, &["register", NAME, "1", "models:/M@nobody"]).contains("says: 404 not found"));
    nothing_changed();
    // With nothing wrong it is taken.
    place.log("1", |model| model);
    done(&daemon, &["register", NAME, "1", "models:/M/1"]);
    assert_eq!(place.stored(), 1);
    let wrong = json!({ "version": "2", "source": "file:///etc/passwd" }).to_string();
    let answer = Wire::to(daemon.admin).ask(request("POST", "/admin/models/m/versions", "", &wrong));
    assert_eq!((answer.status, answer.problem()), (422, "invalid-request".to_owned()));
}

#[test]
fn files_are_had_from_where_the_server_says_if_it_gives_none_away_itself() {
    let place = Place::new();
    place.log("1", |model| model);
    let elsewhere = Mlflow::start();
    place.mlflow.say("/api/3.0/mlflow/server-info", &json!({ "artifacts_presigned_only": true }));
    let moved: Vec<String> = {
        let kept = place.mlflow.kept.lock();
        kept.answers.keys().filter(|path| path.starts_with(&format!("{ROOT}/"))).cloned().collect()
    };
    for (number, path) in moved.iter().enumerate() {
        let (_, content) = place.mlflow.kept.lock().answers.remove(path).unwrap();
        elsewhere.set(&format!("/bucket/{number}?signature=CANARY"), 200, content);
        let at = json!({ "url": format!("{}/bucket/{number}?signature=CANARY", elsewhere.url()), "headers": { "X-Key": "7" } });
        place.mlflow.say(&path.replace("/artifacts/1/", "/presigned/1/"), &at);
    }
    let mut command =
        crate::daemon::serving(place.models.path(), place.data.path(), &["--mlflow", &place.mlflow.url()]);
    let mut daemon =
        Daemon::start(command.env("MLFLOW_TRACKING_USERNAME", "me").env("MLFLOW_TRACKING_PASSWORD", "secret"));
    daemon.logged("the server may need this much memory at most");
    done(&daemon, &["register", NAME, "1", "models:/M/1"]);
    done(&daemon, &["activate", NAME, "1"]);
    assert_eq!(answers(&daemon, NAME), "1");
    assert!(!place.mlflow.kept.lock().authorised.is_empty());
    // They are nobody else's to know.
    assert_eq!(elsewhere.kept.lock().authorised, Vec::<String>::new());
    for (url, expected) in
        [("file:///etc/passwd", "no URL of HTTP"), ("http://127.0.0.1:1/x?CANARY", "does not answer")]
    {
        for path in &moved {
            place.mlflow.say(&path.replace("/artifacts/1/", "/presigned/1/"), &json!({ "url": url }));
        }
        let why = refused(&daemon, &["register", NAME, "2", "models:/M/1"]);
        assert!(why.contains(expected) && !why.contains("CANARY"), "{why}");
    }
    assert!(!daemon.log().contains("CANARY"));
}

#[test]
fn an_alias_is_followed_and_what_operators_do_stays() {
    let place = Place::new();
    for version in ["1", "2"] {
        place.log(version, |model| model);
    }
    place.log("3", |model| {
        model.file("golden.json", json!({ "examples": [{ "text": "1", "label": "none" }] }).to_string())
    });
    place.mlflow.alias("1");
    let follow = ["--follow", "followed=models:/M@champion"];
    let daemon = place.start(&follow);
    until("what the alias stands for answers", || answers(&daemon, "followed") == "1");
    until("it is told", || place.mlflow.tags().contains(&"1 predictd.state=active".to_owned()));
    place.mlflow.alias("2");
    until("the server switches", || answers(&daemon, "followed") == "2");
    until("the other is told of too", || place.mlflow.tags().contains(&"1 predictd.state=replaced".to_owned()));
    place.mlflow.alias("3");
    until("it is refused", || place.mlflow.tags().contains(&"3 predictd.state=refused".to_owned()));
    let reason = place.mlflow.tags().into_iter().find(|tag| tag.starts_with("3 predictd.reason=")).unwrap();
    assert!(reason.contains("golden.json: example 1"), "{reason}");
    assert_eq!(answers(&daemon, "followed"), "2");
    let shown = done(&daemon, &["show", "followed"]);
    assert_eq!((&shown["active"], &shown["followed"]), (&json!("2"), &json!("models:/M@champion -> 3 (models:/m-3)")));
    let refusals = r#"predictd_follow_looks_total{model="followed",outcome="refused"}"#;
    until("it is counted", || metric(daemon.admin, refusals) == 1);
    // An operator goes back: so it stays, over a restart too, until the alias moves.
    done(&daemon, &["rollback", "followed"]);
    assert_eq!(answers(&daemon, "followed"), "1");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = place.start(&follow);
    let unchanged = r#"predictd_follow_looks_total{model="followed",outcome="unchanged"}"#;
    until("it has looked", || metric(daemon.admin, unchanged) > 1);
    assert_eq!(answers(&daemon, "followed"), "1");
    place.mlflow.alias("2");
    until("the server switches", || answers(&daemon, "followed") == "2");
    let history = done(&daemon, &["history", "followed"]);
    let told: Vec<_> = history.as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["activate", "roll back", "refuse", "activate", "register", "activate", "register"]);
}

#[test]
fn a_server_without_models_waits_for_what_it_follows() {
    let place = Place::new();
    std::fs::remove_dir_all(place.models.path().join(NAME)).unwrap();
    place.log("1", |model| model);
    let url = place.mlflow.url();
    let options = ["--mlflow", &url, "--follow-interval", "1s", "--follow", "followed=models:/M@champion"];
    let mut command = crate::daemon::serving(place.models.path(), place.data.path(), &options);
    command.env("MLFLOW_TRACKING_TOKEN", "CANARYtoken");
    let daemon = Daemon::launch(&mut command);
    let ask = || Wire::to(daemon.address).ask(request("POST", "/predict", "", &json!({ "text": "hello" }).to_string()));
    let answer = ask();
    assert_eq!((answer.status, answer.problem()), (503, "model-not-ready".to_owned()));
    let failed = r#"predictd_follow_looks_total{model="followed",outcome="failed"}"#;
    until("there is no such alias", || metric(daemon.admin, failed) > 0);
    place.mlflow.alias("1");
    until("it answers", || ask().status == 200);
    assert!(place.mlflow.kept.lock().authorised.iter().all(|header| header == "Bearer CANARYtoken"));
    assert!(!place.mlflow.kept.lock().authorised.is_empty());
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success() && !log.contains("CANARY"), "{log}");
}

#[test]
fn options_for_mlflow_that_cannot_work_are_refused() {
    let place = Place::new();
    let refuses = |options: &[&str], words: &str| {
        let (code, said) =
            crate::daemon::ends(&mut crate::daemon::serving(place.models.path(), place.data.path(), options));
        assert!(code == 64 && said.contains(words), "{options:?}: {said}");
    };
    refuses(&["--mlflow", "http://user:CANARY@127.0.0.1"], "must have no user");
    refuses(&["--follow", "m=models:/M@champion"], "there is no --mlflow");
    refuses(&["--mlflow", "http://127.0.0.1:1", "--follow", "m=models:/M/1"], "models:/NAME@ALIAS");
    refuses(&["--mlflow", "http://127.0.0.1:1", "--follow", "m=models:/M@x,m=models:/M@y"], "cannot follow two");
    let daemon = Daemon::with(place.models.path(), place.data.path(), &[]);
    assert!(refused(&daemon, &["register", NAME, "1", "models:/M/1"]).contains("--mlflow"));
}
