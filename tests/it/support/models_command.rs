//! What an operator does to the models of a running server: `predictd models`.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{Daemon, predictd, run_to_exit};

/// `predictd models` of this server.
pub fn models_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let url = format!("http://{}", daemon.admin);
    predictd(&[&["models", "--admin-url", &url], arguments].concat())
}

fn json_models_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    models_command(daemon, &[&["--json"], arguments].concat())
}

/// What the command says, as JSON.
pub fn run_models_command(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = json_models_command(daemon, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why the server does not do it.
pub fn run_models_command_refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, said) = run_to_exit(&mut json_models_command(daemon, arguments));
    assert_eq!(code, 1, "{arguments:?}: {said}");
    said
}
