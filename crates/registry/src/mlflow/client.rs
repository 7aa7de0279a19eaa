//! What is asked of an MLflow server (REST API 2.0, as of MLflow 2.9 to 3.18).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http_client::{self, root_cause};
use crate::mlflow::server_settings::MlflowServer;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a whole answer that is no file.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest answer that is no file.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Longest name or source of a version that is recorded, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Most pages of logged models of one name that are looked through.
const MAX_SEARCH_PAGES: usize = 40;
/// Longest sentence of the server's that is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why something is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    /// The server does not answer, or not now: it may later.
    #[error("the MLflow server does not answer: {0}")]
    Unavailable(String),
    /// It says no.
    #[error("the MLflow server says: {0}")]
    Rejected(String),
    /// It says what cannot be understood.
    #[error("the MLflow server answers what it should not: {0}")]
    InvalidResponse(String),
}

/// A client of one MLflow server.
#[derive(Debug, Clone)]
pub struct MlflowClient {
    http: reqwest::Client,
    /// The server's address, to compare others with.
    pub(super) base_url: Url,
    /// The headers with the credentials.
    credentials: HeaderMap,
}

/// A version of a registered model.
#[derive(Debug, Clone, Deserialize)]
pub struct MlflowVersion {
    /// Name of the model.
    pub name: String,
    /// Its number.
    pub version: String,
    /// The run that made it.
    pub run_id: Option<String>,
    /// What it was made of: other files have another source, whatever their version's number.
    pub source: Option<String>,
}

/// A file or a directory.
#[derive(Debug, Deserialize)]
pub struct Artifact {
    /// Its name within the directory that was listed.
    pub path: String,
    /// It is a directory.
    #[serde(default)]
    pub is_dir: bool,
    /// Its length, as far as the server knows.
    pub file_size: Option<u64>,
}

/// Where a file can be had without the server's help.
#[derive(Debug, Deserialize)]
struct PresignedUrl {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl MlflowClient {
    /// A client of this server.
    ///
    /// # Errors
    /// If there are no certificates to trust.
    pub fn new(server: &MlflowServer) -> Result<Self, String> {
        let http = http_client::client_builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("predictd/", env!("CARGO_PKG_VERSION")));
        let mut credentials = HeaderMap::new();
        if let Some(given) = &server.credentials {
            let mut value =
                HeaderValue::from_str(&given.authorization_header()).map_err(|_| "the credentials are no header")?;
            value.set_sensitive(true);
            credentials.insert(AUTHORIZATION, value);
        }
        Ok(Self { http: http.build().map_err(|error| error.to_string())?, base_url: server.url.clone(), credentials })
    }

    /// The version that an alias of a registered model stands for.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn version_by_alias(&self, name: &str, alias: &str) -> Result<MlflowVersion, MlflowError> {
        let query = [("name", name), ("alias", alias)];
        check_version(self.get_field("2.0/mlflow/registered-models/alias", &query, "model_version").await?)
    }

    /// A version of a registered model.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn registered_version(&self, name: &str, version: &str) -> Result<MlflowVersion, MlflowError> {
        let query = [("name", name), ("version", version)];
        check_version(self.get_field("2.0/mlflow/model-versions/get", &query, "model_version").await?)
    }

    /// The highest version of a registered model that is in a stage, or at all for `latest`.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn latest_version(&self, name: &str, stage: &str) -> Result<MlflowVersion, MlflowError> {
        let mut query = vec![("name", name)];
        if !stage.eq_ignore_ascii_case("latest") {
            query.push(("stages", stage));
        }
        let found: Vec<MlflowVersion> =
            self.get_field("2.0/mlflow/registered-models/get-latest-versions", &query, "model_versions").await?;
        let found = found.into_iter().max_by_key(|found| found.version.parse::<u64>().unwrap_or_default());
        check_version(found.ok_or_else(|| MlflowError::Rejected("there is no such version".to_owned()))?)
    }

    /// Where the files of a version are.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn version_artifact_uri(&self, name: &str, version: &str) -> Result<String, MlflowError> {
        let query = [("name", name), ("version", version)];
        self.get_field("2.0/mlflow/model-versions/get-download-uri", &query, "artifact_uri").await
    }

    /// Where the files of a logged model are.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn logged_model_artifact_uri(&self, id: &str) -> Result<String, MlflowError> {
        parse_artifact_uri(&self.get_field(&format!("2.0/mlflow/logged-models/{id}"), &[], "model").await?)
    }

    /// Where the files of a run are, and the experiment that it belongs to.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn run_artifact_uri(&self, run: &str) -> Result<(String, String), MlflowError> {
        let run: Value = self.get_field("2.0/mlflow/runs/get", &[("run_id", run)], "run").await?;
        let experiment = run.pointer("/info/experiment_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok((parse_artifact_uri(&run)?, experiment))
    }

    /// Where the files of a model are that a run logged under a name, as MLflow 3 has it.
    ///
    /// # Errors
    /// [`MlflowError`], also if there is none.
    pub async fn run_model_artifact_uri(&self, experiment: &str, run: &str, name: &str) -> Result<String, MlflowError> {
        let quoted = name.replace('\'', "");
        let mut models = Vec::new();
        let mut page = Value::Null;
        for _ in 0..MAX_SEARCH_PAGES {
            let body = json!({
                "experiment_ids": [experiment], "filter": format!("name = '{quoted}'"), "max_results": 50, "page_token": page,
            });
            let mut found = self.post_json("2.0/mlflow/logged-models/search", &body).await?;
            if let Some(Value::Array(more)) = found.get_mut("models").map(Value::take) {
                models.extend(more);
            }
            page = found.get_mut("next_page_token").map(Value::take).unwrap_or_default();
            if page.as_str().is_none_or(str::is_empty) {
                break;
            }
        }
        let of_run = models.iter().filter(|model| model.pointer("/info/source_run_id").is_some_and(|of| of == run));
        let found = of_run.max_by_key(|model| {
            let created = model.pointer("/info/creation_timestamp_ms")?;
            created.as_i64().or_else(|| created.as_str()?.parse().ok())
        });
        parse_artifact_uri(found.ok_or_else(|| MlflowError::Rejected(format!("the run has no model {name:?}")))?)
    }

    /// What is in a directory that the server keeps itself.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn list_artifacts(&self, path: &str) -> Result<Vec<Artifact>, MlflowError> {
        let listed = self.get_json("2.0/mlflow-artifacts/artifacts", &[("path", path)]).await?;
        // It is not said at all that a directory is empty, or is none.
        listed.get("files").map_or(Ok(Vec::new()), Vec::deserialize).map_err(invalid_response)
    }

    /// True if the server gives files away by presigned addresses only.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn is_presigned_only(&self) -> Result<bool, MlflowError> {
        match self.get_json("3.0/mlflow/server-info", &[]).await {
            Ok(response) => Ok(response.get("artifacts_presigned_only").is_some_and(|only| only == true)),
            // Older servers know no such question.
            Err(MlflowError::Rejected(_) | MlflowError::InvalidResponse(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to read a file.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn download(&self, path: &str, presigned: bool) -> Result<Response, MlflowError> {
        if !presigned {
            let path = format!("2.0/mlflow-artifacts/artifacts/{path}");
            return send_checked(self.build_request(Method::GET, &path, &[])?).await;
        }
        let response = self.get_json(&format!("2.0/mlflow-artifacts/presigned/{path}"), &[]).await?;
        let presigned: PresignedUrl = serde_json::from_value(response).map_err(invalid_response)?;
        let url = Url::parse(&presigned.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| invalid_response("a presigned address that is no URL of HTTP"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &presigned.headers {
            let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
                return Err(invalid_response("a presigned address with headers that are none"));
            };
            headers.insert(name, value);
        }
        // The credentials are the MLflow server's only.
        send_checked(self.http.get(url).headers(headers)).await
    }

    /// Writes a note to a version of a registered model.
    ///
    /// # Errors
    /// [`MlflowError`]
    pub async fn set_version_tag(&self, name: &str, version: &str, key: &str, value: &str) -> Result<(), MlflowError> {
        let body = json!({ "name": name, "version": version, "key": key, "value": value });
        self.post_json("2.0/mlflow/model-versions/set-tag", &body).await.map(|_| ())
    }

    async fn get_field<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        name: &str,
    ) -> Result<T, MlflowError> {
        let response = self.get_json(path, query).await?;
        T::deserialize(response.get(name).unwrap_or_default())
            .map_err(|_| invalid_response(format!("{name} is not there, or not as it should be")))
    }

    async fn get_json(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, MlflowError> {
        receive_json(self.build_request(Method::GET, path, query)?).await
    }

    async fn post_json(&self, path: &str, body: &Value) -> Result<Value, MlflowError> {
        receive_json(self.build_request(Method::POST, path, &[])?.json(body)).await
    }

    fn build_request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<RequestBuilder, MlflowError> {
        let mut url = self.base_url.clone();
        // The server's own address may have a path, with or without a slash at its end.
        url.path_segments_mut()
            .map_err(|()| invalid_response("no address of HTTP"))?
            .pop_if_empty()
            .push("api")
            .extend(path.split('/'));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url).headers(self.credentials.clone()))
    }
}

/// The next bytes of a file that is being read; none at the end.
pub(super) async fn next_chunk(download: &mut Response) -> Result<Option<Bytes>, MlflowError> {
    download.chunk().await.map_err(|error| connect_error(&error))
}

fn invalid_response(reason: impl Display) -> MlflowError {
    MlflowError::InvalidResponse(reason.to_string())
}

/// A version whose words can be recorded.
fn check_version(version: MlflowVersion) -> Result<MlflowVersion, MlflowError> {
    let MlflowVersion { name, version: number, run_id, source } = &version;
    let is_number = (1..=20).contains(&number.len()) && number.bytes().all(|c| c.is_ascii_digit());
    let mut texts = iter::once(name).chain(run_id).chain(source);
    if is_number && texts.all(|text| text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)) {
        return Ok(version);
    }
    Err(invalid_response("a version that is no number, or of words that are too long"))
}

/// The JSON that a request is answered with; null for an answer of nothing.
async fn receive_json(request: RequestBuilder) -> Result<Value, MlflowError> {
    let response = send_checked(request.timeout(RESPONSE_TIMEOUT)).await?;
    let body = http_client::read_body(response, MAX_RESPONSE_BYTES).await.map_err(invalid_response)?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| invalid_response("no JSON"))
}

/// The answer to a request; an error if it is one.
async fn send_checked(request: RequestBuilder) -> Result<Response, MlflowError> {
    let answer = request.send().await.map_err(|error| connect_error(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = http_client::read_body(answer, MAX_RESPONSE_BYTES).await.unwrap_or_default();
    let response = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let sentence = response.get("message").and_then(Value::as_str).map(truncate_message).unwrap_or_default();
    let sentence = format!("{} {sentence}", status.as_u16());
    let mut sentence = sentence.trim_end().to_owned();
    if status == 401 {
        sentence += " (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, say who asks)";
    }
    let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    Err(if may_pass { MlflowError::Unavailable(sentence) } else { MlflowError::Rejected(sentence) })
}

/// What is wrong with a connection, without its URL: a presigned one is a secret.
fn connect_error(error: &reqwest::Error) -> MlflowError {
    MlflowError::Unavailable(if error.is_timeout() {
        "it takes too long".to_owned()
    } else {
        truncate_message(&root_cause(error))
    })
}

/// The beginning of a sentence, on one line.
fn truncate_message(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}

/// Where the files are of a run or a logged model.
fn parse_artifact_uri(described: &Value) -> Result<String, MlflowError> {
    let uri = described.pointer("/info/artifact_uri").and_then(Value::as_str);
    uri.map(str::to_owned).ok_or_else(|| invalid_response("artifact_uri is not there"))
}
