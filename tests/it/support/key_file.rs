//! A file of API keys.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::daemon::predictd;
use crate::support::test_server::TestServer;

/// A key file that `predictd keys` writes.
pub(crate) struct KeyFile {
    path: PathBuf,
    /// Where it lies, unless that is somebody else's.
    _directory: Option<TempDir>,
}

impl KeyFile {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("keys.toml"), _directory: Some(directory) }
    }

    /// The one that a server looks for by default.
    pub(crate) fn default_of(server: &TestServer) -> Self {
        Self { path: server.data.path().join("keys.toml"), _directory: None }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// `predictd keys` of this file.
    pub(crate) fn keys_command(&self, arguments: &[&str]) -> Command {
        let mut command = predictd(&["keys"]);
        command.args(arguments).arg("--keys").arg(&self.path);
        command
    }

    /// Runs `predictd keys`; its exit code, standard output and standard error.
    pub(crate) fn run_keys_command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.keys_command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Makes a key.
    pub(crate) fn create_key(&self, name: &str, scopes: &str, more: &[&str]) -> String {
        let mut arguments = vec!["new", "--name", name, "--scopes", scopes];
        arguments.extend(more);
        let (code, key, said) = self.run_keys_command(&arguments);
        assert_eq!((code, said.as_str()), (0, ""));
        key.trim().to_owned()
    }

    pub(crate) async fn start_server(&self, models: &Path, options: &[&str]) -> TestServer {
        let path = self.path();
        let mut all = vec!["--keys", path.to_str().unwrap()];
        all.extend(options);
        TestServer::start(models, &all).await
    }
}
