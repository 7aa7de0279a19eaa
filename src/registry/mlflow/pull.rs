//! Brings the files of a model from an MLflow server into the store.

use std::collections::BTreeMap;

use reqwest::Url;

use super::client::{AskError, Client};
use super::layout::{self, Listed, MLMODEL};
use super::uri::ModelUri;
use crate::registry::record::FileRecord;
use crate::registry::store::{MAX_FILE, Receiving, Store, StoreError, check};
use crate::text::mlmodel::MlModel;

/// Most files that are listed, those included that are not needed.
const MAX_LISTED: usize = 512;
/// Deepest directory that is looked into.
const MAX_DEPTH: usize = 3;
/// Most bytes of all files together.
const MAX_BYTES: u64 = 4 << 30;
/// Largest `MLmodel`.
const MAX_MLMODEL: usize = 1 << 20;
/// What a version was made of, in its metadata.
pub const SOURCE: &str = "mlflow.source";
/// How often a place may only say where the files really are.
const MAX_HOPS: usize = 4;

/// A model whose files are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Which it is, without an alias: the same files later too.
    pub uri: ModelUri,
    /// Its files, as a version has them.
    pub files: Vec<FileRecord>,
    /// What the server says of it.
    pub metadata: BTreeMap<String, String>,
}

/// Why a model is not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The server.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What it keeps cannot be served.
    #[error("{0}")]
    Unusable(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn unusable<T>(reason: impl Into<String>) -> Result<T, PullError> {
    Err(PullError::Unusable(reason.into()))
}

/// Where the files of a model are.
struct Found {
    uri: ModelUri,
    place: String,
    run: Option<String>,
    source: Option<String>,
}

/// Pulls a model.
///
/// # Errors
/// [`PullError`]; files that came until then are deleted from the store after a day.
pub async fn pull(client: &Client, store: &Store, uri: &ModelUri) -> Result<Pulled, PullError> {
    let Found { uri, place, run, source } = find(client, uri).await?;
    let root = proxied(client, place).await?;
    let presigned = client.presigns().await?;
    let listed = list(client, &root).await?;
    if !listed.iter().any(|file| file.path == MLMODEL) {
        return unusable("there is no model: the directory holds no MLmodel");
    }
    let described = small(client, &format!("{root}/{MLMODEL}"), presigned).await?;
    let model = MlModel::parse(&described).map_err(|reason| PullError::Unusable(format!("MLmodel: {reason}")))?;
    let placed = layout::of(&model.onnx().map_err(PullError::Unusable)?, &listed).map_err(PullError::Unusable)?;
    // Before anything large is had.
    let announced = |(to, from): (&String, &Listed)| FileRecord {
        path: to.clone(),
        bytes: from.bytes.unwrap_or_default(),
        sha256: "0".repeat(64),
    };
    let announced: Vec<FileRecord> = placed.iter().map(announced).collect();
    check(&announced).map_err(PullError::Unusable)?;
    let all = announced.iter().fold(0_u64, |all, file| all.saturating_add(file.bytes));
    if all > MAX_BYTES {
        return unusable(format!("its files have {all} bytes, where {MAX_BYTES} are possible"));
    }
    let (mut files, mut left) = (Vec::new(), MAX_BYTES);
    for (to, from) in placed {
        let mut file = Receiving::begin(store, MAX_FILE.min(left)).await?;
        let mut download = client.open(&format!("{root}/{}", from.path), presigned).await?;
        while let Some(data) = download.next().await? {
            file.add(data).await?;
        }
        let (sha256, bytes) = file.end(None).await?;
        if from.bytes.is_some_and(|announced| announced != bytes) {
            return Err(AskError::Away(format!("{:?} has {bytes} bytes, and others were announced", from.path)).into());
        }
        left = left.saturating_sub(bytes);
        files.push(FileRecord { path: to, bytes, sha256 });
    }
    let mut metadata = BTreeMap::from([("mlflow.uri".to_owned(), uri.to_string())]);
    for (key, value) in [("mlflow.run_id", run), (SOURCE, source)] {
        metadata.extend(value.filter(|value| !value.is_empty()).map(|value| (key.to_owned(), value)));
    }
    Ok(Pulled { uri, files, metadata })
}

async fn find(client: &Client, uri: &ModelUri) -> Result<Found, PullError> {
    let version = match uri {
        ModelUri::Logged(id) => {
            let place = client.files_of_logged(id).await?;
            return Ok(Found { uri: uri.clone(), place, run: None, source: None });
        }
        ModelUri::Run(run, path) => {
            let place = place_of_run(client, run, path).await?;
            return Ok(Found { uri: uri.clone(), place, run: Some(run.clone()), source: None });
        }
        ModelUri::Version(name, version) => client.version(name, version).await?,
        ModelUri::Alias(name, alias) => client.alias(name, alias).await?,
        ModelUri::Stage(name, stage) => client.latest(name, stage).await?,
    };
    let place = client.files_of_version(&version.name, &version.version).await?;
    let uri = ModelUri::Version(version.name, version.version);
    Ok(Found { uri, place, run: version.run_id, source: version.source })
}

/// Where the files of a model are that a run logged.
async fn place_of_run(client: &Client, run: &str, path: &str) -> Result<String, PullError> {
    let (root, experiment) = client.files_of_run(run).await?;
    let place = format!("{}/{path}", root.trim_end_matches('/'));
    // MLflow 3 keeps models beside the runs that made them.
    if let Ok(path) = path_of(client.base(), &place)
        && client.list(&path).await?.iter().any(|file| file.path == MLMODEL)
    {
        return Ok(place);
    }
    let name = path.split('/').next().unwrap_or_default();
    Ok(client.files_of_logged_by(&experiment, run, name).await?)
}

/// The path by which the server itself gives files away that are at a place.
async fn proxied(client: &Client, mut place: String) -> Result<String, PullError> {
    for _ in 0..MAX_HOPS {
        match place.parse::<ModelUri>() {
            Ok(ModelUri::Logged(id)) => place = client.files_of_logged(&id).await?,
            Ok(ModelUri::Version(name, version)) => place = client.files_of_version(&name, &version).await?,
            Ok(ModelUri::Run(run, path)) => place = place_of_run(client, &run, &path).await?,
            _ => return path_of(client.base(), &place).map_err(PullError::Unusable),
        }
    }
    unusable("where the files are leads from one place to another without an end")
}

/// The path that a place names on the server itself.
fn path_of(base: &Url, place: &str) -> Result<String, String> {
    let elsewhere = || {
        let scheme: String = place.split(':').next().unwrap_or_default().chars().take(16).collect();
        format!(
            "its files are not kept by the MLflow server itself but at {scheme:?}: have the server give them away (mlflow server --artifacts-destination)"
        )
    };
    let rest = if let Some(rest) = place.strip_prefix("mlflow-artifacts:") {
        match rest.strip_prefix("//") {
            None => rest.to_owned(),
            Some(rest) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let own = base.host_str().unwrap_or_default();
                let with_port = base.port_or_known_default().map(|port| format!("{own}:{port}"));
                // Nobody else is asked, whatever the server says.
                if host != own && Some(host) != with_port.as_deref() && !host.is_empty() {
                    return Err("its files are kept by another MLflow server".to_owned());
                }
                path.to_owned()
            }
        }
    } else {
        let own = format!("{}/api/2.0/mlflow-artifacts/artifacts/", base.as_str().trim_end_matches('/'));
        place.strip_prefix(&own).ok_or_else(elsewhere)?.to_owned()
    };
    let path = rest.trim_matches('/');
    if path.split('/').all(is_part) { Ok(path.to_owned()) } else { Err("where its files are is no path".to_owned()) }
}

/// One part of a path, which leads nowhere but into a directory.
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && !matches!(part, "." | "..")
        && !part.contains(['/', '\\', '?', '#', '%'])
        && !part.chars().any(char::is_control)
}

/// All files below a directory.
async fn list(client: &Client, root: &str) -> Result<Vec<Listed>, PullError> {
    let (mut files, mut directories, mut seen) = (Vec::new(), vec![String::new()], 0);
    while let Some(directory) = directories.pop() {
        let within = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let at = if directory.is_empty() { root.to_owned() } else { format!("{root}/{directory}") };
        for entry in client.list(&at).await? {
            seen += 1;
            if seen > MAX_LISTED {
                return unusable(format!("the directory holds more than {MAX_LISTED} files"));
            }
            if !is_part(&entry.path) {
                return unusable(format!("{:?} is no name of a file", entry.path.chars().take(64).collect::<String>()));
            }
            let path = within(&entry.path);
            if !entry.is_dir {
                files.push(Listed { path, bytes: entry.file_size });
            } else if path.split('/').count() < MAX_DEPTH {
                directories.push(path);
            }
        }
    }
    Ok(files)
}

/// The content of a small file.
async fn small(client: &Client, path: &str, presigned: bool) -> Result<Vec<u8>, PullError> {
    let (mut download, mut content) = (client.open(path, presigned).await?, Vec::new());
    while let Some(data) = download.next().await? {
        content.extend_from_slice(&data);
        if content.len() > MAX_MLMODEL {
            return unusable(format!("MLmodel has more than {MAX_MLMODEL} bytes"));
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_from_the_server_itself_only() {
        let base = Url::parse("https://mlflow.example.com/team").unwrap();
        for (place, path) in [
            ("mlflow-artifacts:/1/models/m-1/artifacts", "1/models/m-1/artifacts"),
            ("mlflow-artifacts:///1/x", "1/x"),
            ("mlflow-artifacts://mlflow.example.com/1/x/", "1/x"),
            ("mlflow-artifacts://mlflow.example.com:443/1/x", "1/x"),
            ("https://mlflow.example.com/team/api/2.0/mlflow-artifacts/artifacts/1/x", "1/x"),
        ] {
            assert_eq!(path_of(&base, place).as_deref(), Ok(path), "{place}");
        }
        for place in [
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
            assert!(path_of(&base, place).is_err(), "{place}");
        }
        assert!(path_of(&base, "s3://bucket/x").unwrap_err().contains("\"s3\""));
    }
}
