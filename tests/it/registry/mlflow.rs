//! Models of an MLflow server: one that says what it should, and one that does not. A real one is asked in `make e2e`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use predictd::api::predictions::Prediction;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, run_to_exit, serve_command};
use crate::support::daemon_requests::post;
use crate::support::files::make_writable;
use crate::support::http_receiver::spawn_thread;
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::{change_model, change_model_refused, model_history, show_model};
use crate::support::raw_client::metric;
use crate::support::waiting::block_until;

const MODEL: &str = "m";
const ARTIFACTS_PATH: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// What is answered: by method, path and query.
#[derive(Default)]
struct MlflowState {
    responses: BTreeMap<String, (u16, Vec<u8>)>,
    /// Bodies that were posted.
    posted_bodies: Vec<Value>,
    /// `Authorization` headers.
    authorization_headers: Vec<String>,
}

/// A server that answers as MLflow 3.18 does, with the answers of its script.
#[derive(Clone)]
struct FakeMlflow {
    address: SocketAddr,
    state: Arc<Mutex<MlflowState>>,
}

impl FakeMlflow {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let kept = Arc::clone(&server.state);
        spawn_thread(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                spawn_thread(move || serve_connection(&stream.unwrap(), &kept));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set_response(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.state.lock().responses.insert(path.to_owned(), (status, body.into()));
    }

    fn set_json(&self, path: &str, body: &Value) {
        self.set_response(path, 200, body.to_string());
    }

    /// Keeps the model directory as a version of the registered model `M`.
    fn add_version(&self, version: &str, directory: &Path, mlmodel: &str) {
        let place = format!("1/models/m-{version}/artifacts");
        let query = format!("?name=M&version={version}");
        self.set_json(&format!("/api/2.0/mlflow/model-versions/get{query}"), &version_json(version));
        let at = json!({ "artifact_uri": format!("mlflow-artifacts:/{place}") });
        self.set_json(&format!("/api/2.0/mlflow/model-versions/get-download-uri{query}"), &at);
        let mut listed = [Vec::new(), Vec::new()];
        let mut put = |extra: bool, name: &str, content: &[u8]| {
            listed[usize::from(extra)].push(json!({ "path": name, "is_dir": false, "file_size": content.len() }));
            let folder = if extra { "extra_files/" } else { "" };
            self.set_response(&format!("{ARTIFACTS_PATH}/{place}/{folder}{name}"), 200, content);
        };
        put(false, "MLmodel", mlmodel.as_bytes());
        put(false, "requirements.txt", b"onnx");
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.as_ref().unwrap().path();
            let name = entry.as_ref().unwrap().file_name();
            let name = name.to_str().unwrap();
            put(!["model.onnx", "input_example.json"].contains(&name), name, &std::fs::read(path).unwrap());
        }
        let [mut root, extra] = listed;
        root.push(json!({ "path": "extra_files", "is_dir": true }));
        self.set_json(&format!("{ARTIFACTS_PATH}?path={place}"), &json!({ "files": root }));
        self.set_json(&format!("{ARTIFACTS_PATH}?path={place}/extra_files"), &json!({ "files": extra }));
    }

    fn set_alias(&self, version: &str) {
        self.set_json("/api/2.0/mlflow/registered-models/alias?name=M&alias=champion", &version_json(version));
    }

    /// Tags that were set, as `version key=value`.
    fn tags(&self) -> Vec<String> {
        let tag = |posted: &Value| {
            let [version, key, value] = ["version", "key", "value"].map(|field| posted[field].as_str().unwrap());
            format!("{version} {key}={value}")
        };
        self.state.lock().posted_bodies.iter().map(tag).collect()
    }
}

fn version_json(version: &str) -> Value {
    let source = format!("models:/m-{version}");
    json!({ "model_version": { "name": "M", "version": version, "source": source, "run_id": "r1", "status": "READY" } })
}

fn serve_connection(stream: &TcpStream, kept: &Mutex<MlflowState>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut target = String::new();
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if target.is_empty() {
                line.split(' ').nth(1).unwrap().clone_into(&mut target);
            }
            let small = line.to_ascii_lowercase();
            if let Some(value) = small.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            } else if small.starts_with("authorization: ") {
                kept.lock().authorization_headers.push(line[15..].trim().to_owned());
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
                kept.posted_bodies.push(posted);
                (200, b"{}".to_vec())
            } else {
                let unknown = (404, br#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"not found"}"#.to_vec());
                kept.responses.get(&target.replace("%2F", "/")).cloned().unwrap_or(unknown)
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
struct Scene {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
    logged_models: tempfile::TempDir,
    mlflow: FakeMlflow,
}

impl Scene {
    fn new() -> Self {
        let [models, data, logged] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().write(models.path(), MODEL, "own");
        Self { models, data, logged_models: logged, mlflow: FakeMlflow::start() }
    }

    /// Logs a version that differs from the others.
    fn log_version(&self, version: &str, change: impl FnOnce(ModelBuilder) -> ModelBuilder) {
        let example = json!({ "input_ids": [[2, 10, 3], [2, 3, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]] });
        let model = ModelBuilder::plain().file("notes.txt", version).file("input_example.json", example.to_string());
        let directory = change(model).write(self.logged_models.path(), MODEL, version);
        self.mlflow.add_version(version, &directory, MLMODEL);
    }

    fn start(&self, options: &[&str]) -> Daemon {
        let url = self.mlflow.url();
        let options = [&["--mlflow", &url, "--follow-interval", "1s"], options].concat();
        Daemon::start_recorded(self.models.path(), self.data.path(), &options)
    }

    fn assert_unchanged(&self, daemon: &Daemon) {
        assert_eq!((self.stored_version_count(), version_or_problem(daemon, MODEL)), (0, "own".to_owned()));
    }

    fn stored_version_count(&self) -> usize {
        std::fs::read_dir(self.data.path().join("store/versions")).unwrap().count()
    }
}

/// The version of a model that answers, or the kind of the problem.
fn version_or_problem(daemon: &Daemon, model: &str) -> String {
    let answer = post(daemon.address, "/predict", &json!({ "text": "hello", "model": model }));
    if answer.status == 200 { answer.ok::<Prediction>().model.version } else { answer.problem_kind() }
}

#[test]
fn mlflow_version_is_registered() {
    let place = Scene::new();
    place.log_version("1", |model| model);
    let daemon = place.start(&[]);
    let registered = change_model(&daemon, &["register", MODEL, "1", "models:/M/1", "--metadata", "by=me"]);
    assert!(registered.changed);
    place.mlflow.set_alias("1");
    assert!(!change_model(&daemon, &["register", MODEL, "1", "models:/M@champion"]).changed);
    let shown = show_model(&daemon, MODEL);
    let version = shown.versions.iter().find(|found| found.version == "1").unwrap();
    let metadata =
        [("by", "me"), ("mlflow.uri", "models:/M/1"), ("mlflow.run_id", "r1"), ("mlflow.source", "models:/m-1")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((version.origin.as_str(), &version.metadata), ("mlflow", &metadata.into()));
    change_model(&daemon, &["activate", MODEL, "1"]);
    assert_eq!(version_or_problem(&daemon, MODEL), "1");
    // What is needed, and nothing else.
    let stored = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    let mut names: Vec<_> =
        std::fs::read_dir(stored).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["MLmodel", "config.json", "input_example.json", "model.onnx", "notes.txt", "tokenizer.json"]);
    assert!(
        change_model_refused(&daemon, &["register", MODEL, "own", "models:/M/1"]).contains("a version never changes")
    );
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // The files are gone, as they are on another replica: they are had again from where they are kept.
    let stored = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    make_writable(&stored);
    std::fs::rename(&stored, place.logged_models.path().join("aside")).unwrap();
    let daemon = place.start(&[]);
    assert_eq!((version_or_problem(&daemon, MODEL), stored.is_dir()), ("1".to_owned(), true));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // Others than those that were registered are not taken.
    make_writable(&stored);
    std::fs::rename(&stored, place.logged_models.path().join("once more")).unwrap();
    place.log_version("1", |model| model.file("notes.txt", "others"));
    let daemon = place.start(&[]);
    assert_eq!((version_or_problem(&daemon, MODEL), stored.is_dir()), ("own".to_owned(), false));
    assert!(daemon.log().contains("has other files now than those that were registered"));
}

fn file_list(files: &Value) -> Vec<u8> {
    json!({ "files": files }).to_string().into_bytes()
}

fn artifact_uri(uri: &str) -> Vec<u8> {
    json!({ "artifact_uri": uri }).to_string().into_bytes()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn mlflow_invalid_response_is_refused() {
    let place = Scene::new();
    let daemon = place.start(&[]);
    let root = format!("{ARTIFACTS_PATH}?path=1/models/m-1/artifacts");
    let of_one = format!("{ARTIFACTS_PATH}/1/models/m-1/artifacts");
    let uri = "/api/2.0/mlflow/model-versions/get-download-uri?name=M&version=1";
    let model = "/api/2.0/mlflow/model-versions/get?name=M&version=1";
    let many: Vec<Value> = (0..10_000).map(|i| json!({ "path": format!("f{i}") })).collect();
    let said: Vec<(&str, u16, Vec<u8>, &str)> = vec![
        (&root, 200, file_list(&json!([{ "path": "MLmodel" }, { "path": "../../x" }])), "is no name of a file"),
        (&root, 200, file_list(&json!([{ "path": "MLmodel" }, { "path": ".." }])), "is no name of a file"),
        (&root, 200, file_list(&json!([{ "path": "/etc/passwd" }])), "is no name of a file"),
        (
            &root,
            200,
            file_list(&json!([{ "path": "MLmodel" }, { "path": "model.onnx", "file_size": 7 }])),
            "others were announced",
        ),
        (&root, 200, file_list(&json!(many)), "more than 512 files"),
        (&root, 200, file_list(&json!([{ "path": "x" }])), "holds no MLmodel"),
        (&root, 200, file_list(&json!([{ "path": "MLmodel" }])), "is not there"),
        (&root, 200, file_list(&json!("x")), "answers what it should not"),
        (&root, 200, vec![b' '; 5 << 20], "more than 4194304 bytes"),
        (&root, 200, b"<html>".to_vec(), "no JSON"),
        (uri, 200, artifact_uri("s3://bucket/x"), "\"s3\""),
        (uri, 200, artifact_uri("file:///etc"), "\"file\""),
        (uri, 200, artifact_uri("http://169.254.169.254/latest"), "\"http\""),
        (uri, 200, artifact_uri("mlflow-artifacts://169.254.169.254/x"), "another MLflow server"),
        (uri, 200, artifact_uri("mlflow-artifacts:/1/../../etc"), "no path"),
        (uri, 200, artifact_uri("models:/M/1"), "without an end"),
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
    for (path, status, body, expected) in said {
        place.log_version("1", |model| model);
        place.mlflow.set_response(path, status, body);
        let why = change_model_refused(&daemon, &["register", MODEL, "1", "models:/M/1"]);
        assert!(why.contains(expected), "{path}: {why}");
        place.assert_unchanged(&daemon);
    }
    for (mlmodel, expected) in mlmodels {
        place.log_version("1", |model| model);
        place.mlflow.add_version("1", &place.logged_models.path().join(MODEL).join("1"), &mlmodel);
        let why = change_model_refused(&daemon, &["register", MODEL, "1", "models:/M/1"]);
        assert!(why.contains(expected), "{why}");
        place.assert_unchanged(&daemon);
    }
    place.log_version("1", |model| model.file("input_example.json", "{\"age\": 7}"));
    assert!(change_model_refused(&daemon, &["register", MODEL, "1", "models:/M/1"]).contains("neither texts nor"));
    place.assert_unchanged(&daemon);
    place.log_version("1", |model| model);
    place.mlflow.set_response(&format!("{of_one}/model.onnx"), 404, "");
    assert!(change_model_refused(&daemon, &["register", MODEL, "1", "models:/M/1"]).contains("says: 404"));
    assert!(
        change_model_refused(&daemon, &["register", MODEL, "1", "models:/M@missing"]).contains("says: 404 not found")
    );
    place.assert_unchanged(&daemon);
    // With nothing wrong it is taken.
    place.log_version("1", |model| model);
    change_model(&daemon, &["register", MODEL, "1", "models:/M/1"]);
    assert_eq!(place.stored_version_count(), 1);
    let wrong = json!({ "version": "2", "source": "file:///etc/passwd" });
    let answer = post(daemon.admin, "/admin/models/m/versions", &wrong);
    assert_eq!((answer.status, answer.problem_kind()), (422, "invalid-request".to_owned()));
}

#[test]
fn mlflow_presigned_artifacts_are_downloaded() {
    let place = Scene::new();
    place.log_version("1", |model| model);
    let elsewhere = FakeMlflow::start();
    place.mlflow.set_json("/api/3.0/mlflow/server-info", &json!({ "artifacts_presigned_only": true }));
    let moved: Vec<String> = {
        let kept = place.mlflow.state.lock();
        kept.responses.keys().filter(|path| path.starts_with(&format!("{ARTIFACTS_PATH}/"))).cloned().collect()
    };
    for (number, path) in moved.iter().enumerate() {
        let (_, content) = place.mlflow.state.lock().responses.remove(path).unwrap();
        elsewhere.set_response(&format!("/bucket/{number}?signature=CANARY"), 200, content);
        let at = json!({ "url": format!("{}/bucket/{number}?signature=CANARY", elsewhere.url()), "headers": { "X-Key": "7" } });
        place.mlflow.set_json(&path.replace("/artifacts/1/", "/presigned/1/"), &at);
    }
    let mut command = serve_command(place.models.path(), place.data.path(), &["--mlflow", &place.mlflow.url()]);
    let mut daemon =
        Daemon::start(command.env("MLFLOW_TRACKING_USERNAME", "me").env("MLFLOW_TRACKING_PASSWORD", "secret"));
    daemon.wait_for_log("maximum memory use estimated");
    change_model(&daemon, &["register", MODEL, "1", "models:/M/1"]);
    change_model(&daemon, &["activate", MODEL, "1"]);
    assert_eq!(version_or_problem(&daemon, MODEL), "1");
    assert!(!place.mlflow.state.lock().authorization_headers.is_empty());
    // No other server gets the credentials.
    assert_eq!(elsewhere.state.lock().authorization_headers, Vec::<String>::new());
    for (url, expected) in
        [("file:///etc/passwd", "no URL of HTTP"), ("http://127.0.0.1:1/x?CANARY", "does not answer")]
    {
        for path in &moved {
            place.mlflow.set_json(&path.replace("/artifacts/1/", "/presigned/1/"), &json!({ "url": url }));
        }
        let why = change_model_refused(&daemon, &["register", MODEL, "2", "models:/M/1"]);
        assert!(why.contains(expected) && !why.contains("CANARY"), "{why}");
    }
    assert!(!daemon.log().contains("CANARY"));
}

#[test]
fn mlflow_follow_alias_activates_and_keeps_manual_changes() {
    let place = Scene::new();
    for version in ["1", "2"] {
        place.log_version(version, |model| model);
    }
    place.log_version("3", |model| {
        model.file("golden.json", json!({ "examples": [{ "text": "1", "label": "none" }] }).to_string())
    });
    place.mlflow.set_alias("1");
    let follow = ["--follow", "followed=models:/M@champion"];
    let daemon = place.start(&follow);
    block_until("what the alias stands for answers", || version_or_problem(&daemon, "followed") == "1");
    block_until("the tag is set", || place.mlflow.tags().contains(&"1 predictd.state=active".to_owned()));
    place.mlflow.set_alias("2");
    block_until("the server switches", || version_or_problem(&daemon, "followed") == "2");
    block_until("the tag of the other is set", || {
        place.mlflow.tags().contains(&"1 predictd.state=replaced".to_owned())
    });
    place.mlflow.set_alias("3");
    block_until("it is refused", || place.mlflow.tags().contains(&"3 predictd.state=refused".to_owned()));
    let reason = place.mlflow.tags().into_iter().find(|tag| tag.starts_with("3 predictd.reason=")).unwrap();
    assert!(reason.contains("golden.json: example 1"), "{reason}");
    assert_eq!(version_or_problem(&daemon, "followed"), "2");
    let shown = show_model(&daemon, "followed");
    assert_eq!(
        (shown.active.as_deref(), shown.followed.as_deref()),
        (Some("2"), Some("models:/M@champion -> 3 (models:/m-3)"))
    );
    let refusals = r#"predictd_mlflow_alias_polls_total{model="followed",outcome="refused"}"#;
    block_until("it is counted", || metric(daemon.admin, refusals) == 1);
    // An operator goes back: so it stays, over a restart too, until the alias moves.
    change_model(&daemon, &["rollback", "followed"]);
    assert_eq!(version_or_problem(&daemon, "followed"), "1");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    let daemon = place.start(&follow);
    let unchanged = r#"predictd_mlflow_alias_polls_total{model="followed",outcome="unchanged"}"#;
    block_until("it has looked", || metric(daemon.admin, unchanged) > 1);
    assert_eq!(version_or_problem(&daemon, "followed"), "1");
    place.mlflow.set_alias("2");
    block_until("the server switches", || version_or_problem(&daemon, "followed") == "2");
    let history = model_history(&daemon, "followed");
    let actions: Vec<&str> = history.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["activate", "roll back", "refuse", "activate", "register", "activate", "register"]);
}

#[test]
fn mlflow_follow_without_models_waits_for_first() {
    let place = Scene::new();
    std::fs::remove_dir_all(place.models.path().join(MODEL)).unwrap();
    place.log_version("1", |model| model);
    let url = place.mlflow.url();
    let options = ["--mlflow", &url, "--follow-interval", "1s", "--follow", "followed=models:/M@champion"];
    let mut command = serve_command(place.models.path(), place.data.path(), &options);
    command.env("MLFLOW_TRACKING_TOKEN", "CANARYtoken");
    let daemon = Daemon::launch(&mut command);
    let question = json!({ "text": "hello" });
    let answer = post(daemon.address, "/predict", &question);
    assert_eq!((answer.status, answer.problem_kind()), (503, "model-not-ready".to_owned()));
    let failed = r#"predictd_mlflow_alias_polls_total{model="followed",outcome="failed"}"#;
    block_until("there is no such alias", || metric(daemon.admin, failed) > 0);
    place.mlflow.set_alias("1");
    block_until("it answers", || post(daemon.address, "/predict", &question).status == 200);
    assert!(place.mlflow.state.lock().authorization_headers.iter().all(|header| header == "Bearer CANARYtoken"));
    assert!(!place.mlflow.state.lock().authorization_headers.is_empty());
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success() && !log.contains("CANARY"), "{log}");
}

#[test]
fn mlflow_invalid_options_are_refused() {
    let place = Scene::new();
    for (options, words) in [
        (&["--mlflow", "http://user:CANARY@127.0.0.1"][..], "must have no user"),
        (&["--follow", "m=models:/M@champion"], "there is no --mlflow"),
        (&["--mlflow", "http://127.0.0.1:1", "--follow", "m=models:/M/1"], "models:/NAME@ALIAS"),
        (&["--mlflow", "http://127.0.0.1:1", "--follow", "m=models:/M@x,m=models:/M@y"], "cannot follow two"),
    ] {
        let (code, said) = run_to_exit(&mut serve_command(place.models.path(), place.data.path(), options));
        assert!(code == 64 && said.contains(words), "{options:?}: {said}");
    }
    let daemon = Daemon::start_with(place.models.path(), place.data.path(), &[]);
    assert!(change_model_refused(&daemon, &["register", MODEL, "1", "models:/M/1"]).contains("--mlflow"));
}
