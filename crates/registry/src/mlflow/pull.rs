//! Brings the files of a model from an MLflow server into the store.

use std::collections::BTreeMap;
use std::time::Duration;

use predictd_text::mlmodel::MlModel;
use reqwest::Url;
use tokio::time::timeout;

use super::client::{MlflowClient, MlflowError, next_chunk};
use super::file_layout::{self, MLMODEL_FILE_NAME, RemoteFile};
use super::uri::ModelUri;
use crate::record::{FileRecord, Origin, VersionRecord};
use crate::store::{MAX_FILE_BYTES, Store, StoreError, UploadWriter, check_file_list};

/// Most files that are listed, those included that are not needed.
const MAX_LISTED_FILES: usize = 512;
/// Deepest directory that is looked into.
const MAX_DIRECTORY_DEPTH: usize = 3;
/// Most bytes of all files together.
const MAX_TOTAL_BYTES: u64 = 4 << 30;
/// Largest `MLmodel`.
const MAX_MLMODEL_BYTES: usize = 1 << 20;
/// What a version was made of, in its metadata.
pub const SOURCE_METADATA_KEY: &str = "mlflow.source";
/// How often the URI of an artifact may only name another URI.
const MAX_URI_HOPS: usize = 5;

/// A model to pull as a new version.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Where its files are.
    pub uri: ModelUri,
    /// What the operator says of it.
    pub metadata: BTreeMap<String, String>,
}

/// Why a model is not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The server.
    #[error(transparent)]
    Mlflow(#[from] MlflowError),
    /// What it keeps cannot be served.
    #[error("{0}")]
    InvalidModel(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn invalid_model<T>(reason: impl Into<String>) -> Result<T, PullError> {
    Err(PullError::InvalidModel(reason.into()))
}

/// Pulls a model within `limit`: the version that it makes, whose origin means the same files later too.
///
/// # Errors
/// [`PullError`]; files that came until then are deleted from the store after a day.
pub async fn pull_model(
    client: &MlflowClient,
    store: &Store,
    request: PullRequest,
    limit: Duration,
) -> Result<VersionRecord, PullError> {
    timeout(limit, pull(client, store, request))
        .await
        .map_err(|_| MlflowError::Unavailable("it takes too long".to_owned()))?
}

async fn pull(client: &MlflowClient, store: &Store, request: PullRequest) -> Result<VersionRecord, PullError> {
    let (uri, run, source) = pin_version(client, &request.uri).await?;
    let root = resolve_proxied_path(client, uri.clone()).await?;
    let presigned = client.is_presigned_only().await?;
    let listed = list_files(client, &root).await?;
    if !listed.iter().any(|file| file.path == MLMODEL_FILE_NAME) {
        return invalid_model("there is no model: the directory holds no MLmodel");
    }
    let described = download_small_file(client, &format!("{root}/{MLMODEL_FILE_NAME}"), presigned).await?;
    let model = MlModel::parse(&described).or_else(|reason| invalid_model(format!("MLmodel: {reason}")))?;
    let onnx = model.onnx_flavor().or_else(invalid_model)?;
    let placed = file_layout::version_files(&onnx, &listed).or_else(invalid_model)?;
    // Before anything large is had.
    let announced: Vec<_> = placed
        .iter()
        .map(|(path, from)| FileRecord {
            path: path.clone(),
            bytes: from.bytes.unwrap_or_default(),
            sha256: "0".repeat(64),
        })
        .collect();
    check_file_list(&announced).or_else(invalid_model)?;
    let all = announced.iter().fold(0_u64, |all, file| all.saturating_add(file.bytes));
    if all > MAX_TOTAL_BYTES {
        return invalid_model(format!("its files have {all} bytes, where {MAX_TOTAL_BYTES} are possible"));
    }
    let mut files = Vec::new();
    let mut left = MAX_TOTAL_BYTES;
    for (path, from) in placed {
        let mut file = UploadWriter::open(store, MAX_FILE_BYTES.min(left)).await?;
        let mut download = client.download(&format!("{root}/{}", from.path), presigned).await?;
        while let Some(data) = next_chunk(&mut download).await? {
            file.write_chunk(data).await?;
        }
        let (sha256, bytes) = file.finish(None).await?;
        if from.bytes.is_some_and(|announced| announced != bytes) {
            let reason = format!("{:?} has {bytes} bytes, and others were announced", from.path);
            return Err(MlflowError::Unavailable(reason).into());
        }
        left = left.saturating_sub(bytes);
        files.push(FileRecord { path, bytes, sha256 });
    }
    let uri = uri.to_string();
    let mut metadata = BTreeMap::from([("mlflow.uri".to_owned(), uri.clone())]);
    for (key, value) in [("mlflow.run_id", run), (SOURCE_METADATA_KEY, source)] {
        metadata.extend(value.filter(|value| !value.is_empty()).map(|value| (key.to_owned(), value)));
    }
    metadata.extend(request.metadata);
    Ok(VersionRecord::new(Origin::Mlflow(uri), files, metadata))
}

/// A URI that always means the same files, the run that made them, and what they were made of, as far as these are known.
async fn pin_version(
    client: &MlflowClient,
    uri: &ModelUri,
) -> Result<(ModelUri, Option<String>, Option<String>), MlflowError> {
    let version = match uri {
        ModelUri::LoggedModel(_) => return Ok((uri.clone(), None, None)),
        ModelUri::Run(run, _) => return Ok((uri.clone(), Some(run.clone()), None)),
        ModelUri::Version(name, version) => client.registered_version(name, version).await?,
        ModelUri::Alias(name, alias) => client.version_by_alias(name, alias).await?,
        ModelUri::Stage(name, stage) => client.latest_version(name, stage).await?,
    };
    Ok((ModelUri::Version(version.name, version.version), version.run_id, version.source))
}

/// Where the files of a model are that a run logged.
async fn run_model_uri(client: &MlflowClient, run: &str, path: &str) -> Result<String, PullError> {
    let (root, experiment) = client.run_artifact_uri(run).await?;
    let artifact_uri = format!("{}/{path}", root.trim_end_matches('/'));
    // MLflow 3 keeps models beside the runs that made them.
    if let Ok(path) = proxied_path(&client.base_url, &artifact_uri)
        && client.list_artifacts(&path).await?.iter().any(|file| file.path == MLMODEL_FILE_NAME)
    {
        return Ok(artifact_uri);
    }
    let name = path.split('/').next().unwrap_or_default();
    Ok(client.run_model_artifact_uri(&experiment, run, name).await?)
}

/// The path by which the server itself gives away the files of a model.
async fn resolve_proxied_path(client: &MlflowClient, model: ModelUri) -> Result<String, PullError> {
    let mut artifact_uri = String::new();
    let mut uri = Ok(model);
    for _ in 0..MAX_URI_HOPS {
        artifact_uri = match uri {
            Ok(ModelUri::LoggedModel(id)) => client.logged_model_artifact_uri(&id).await?,
            Ok(ModelUri::Version(name, version)) => client.version_artifact_uri(&name, &version).await?,
            Ok(ModelUri::Run(run, path)) => run_model_uri(client, &run, &path).await?,
            _ => return proxied_path(&client.base_url, &artifact_uri).or_else(invalid_model),
        };
        uri = artifact_uri.parse::<ModelUri>();
    }
    invalid_model("where the files are leads from one place to another without an end")
}

/// The path that the URI of an artifact names on the server itself.
fn proxied_path(base: &Url, artifact_uri: &str) -> Result<String, String> {
    let rest = if let Some(rest) = artifact_uri.strip_prefix("mlflow-artifacts:") {
        match rest.strip_prefix("//") {
            None => rest,
            Some(rest) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let own = base.host_str().unwrap_or_default();
                let with_port = base.port_or_known_default().map(|port| format!("{own}:{port}"));
                // Files are pulled from the configured server only.
                if host != own && Some(host) != with_port.as_deref() && !host.is_empty() {
                    return Err("its files are kept by another MLflow server".to_owned());
                }
                path
            }
        }
    } else {
        let own = format!("{}/api/2.0/mlflow-artifacts/artifacts/", base.as_str().trim_end_matches('/'));
        artifact_uri.strip_prefix(&own).ok_or_else(|| {
            let scheme: String = artifact_uri.split(':').next().unwrap_or_default().chars().take(16).collect();
            format!(
                "its files are not kept by the MLflow server itself but at {scheme:?}: have the server give them away (mlflow server --artifacts-destination)"
            )
        })?
    };
    let path = rest.trim_matches('/');
    if path.split('/').all(is_path_part) {
        Ok(path.to_owned())
    } else {
        Err("where its files are is no path".to_owned())
    }
}

/// One part of a path, which leads nowhere but into a directory.
fn is_path_part(part: &str) -> bool {
    !part.is_empty()
        && !matches!(part, "." | "..")
        && !part.contains(['/', '\\', '?', '#', '%'])
        && !part.chars().any(char::is_control)
}

/// All files below a directory.
async fn list_files(client: &MlflowClient, root: &str) -> Result<Vec<RemoteFile>, PullError> {
    let mut files = Vec::new();
    // Each ends with a slash, but for the one at the root.
    let mut directories = vec![String::new()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for entry in client.list_artifacts(format!("{root}/{directory}").trim_end_matches('/')).await? {
            seen += 1;
            if seen > MAX_LISTED_FILES {
                return invalid_model(format!("the directory holds more than {MAX_LISTED_FILES} files"));
            }
            if !is_path_part(&entry.path) {
                let name: String = entry.path.chars().take(64).collect();
                return invalid_model(format!("{name:?} is no name of a file"));
            }
            let path = format!("{directory}{}", entry.path);
            if !entry.is_dir {
                files.push(RemoteFile { path, bytes: entry.file_size });
            } else if path.split('/').count() < MAX_DIRECTORY_DEPTH {
                directories.push(path + "/");
            }
        }
    }
    Ok(files)
}

/// The content of a small file.
async fn download_small_file(client: &MlflowClient, path: &str, presigned: bool) -> Result<Vec<u8>, PullError> {
    let mut download = client.download(path, presigned).await?;
    let mut content = Vec::new();
    while let Some(data) = next_chunk(&mut download).await? {
        content.extend_from_slice(&data);
        if content.len() > MAX_MLMODEL_BYTES {
            return invalid_model(format!("MLmodel has more than {MAX_MLMODEL_BYTES} bytes"));
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxied_path_of_other_server_is_refused() {
        let base = Url::parse("https://mlflow.example.com/team").unwrap();
        for (artifact_uri, path) in [
            ("mlflow-artifacts:/1/models/m-1/artifacts", "1/models/m-1/artifacts"),
            ("mlflow-artifacts:///1/x", "1/x"),
            ("mlflow-artifacts://mlflow.example.com/1/x/", "1/x"),
            ("mlflow-artifacts://mlflow.example.com:443/1/x", "1/x"),
            ("https://mlflow.example.com/team/api/2.0/mlflow-artifacts/artifacts/1/x", "1/x"),
        ] {
            assert_eq!(proxied_path(&base, artifact_uri).as_deref(), Ok(path), "{artifact_uri}");
        }
        for artifact_uri in [
            "mlflow-artifacts://169.254.169.254/1/x",
            "mlflow-artifacts://mlflow.example.com:81/x",
            "mlflow-artifacts:/1/../x",
            "mlflow-artifacts:/1/%2e%2e/x",
            "mlflow-artifacts:/",
            "mlflow-artifacts:/1\\x",
            "mlflow-artifacts:/1?x",
            "mlflow-artifacts:/1#x",
            "s3://bucket/x",
            "file:///etc",
            "/etc/passwd",
            "http://169.254.169.254/x",
            "https://mlflow.example.com/team/x",
            "",
            "mlflow-artifacts://user@mlflow.example.com/x",
        ] {
            assert!(proxied_path(&base, artifact_uri).is_err(), "{artifact_uri}");
        }
        assert!(proxied_path(&base, "s3://bucket/x").unwrap_err().contains("\"s3\""));
    }
}
