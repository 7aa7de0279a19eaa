//! What an operator does to the models of a running server: `predictd models`.

use std::process::Command;

use serde_json::Value;

use crate::daemon::{Daemon, ends, predictd};

fn models(daemon: &Daemon, arguments: &[&str]) -> Command {
    let url = format!("http://{}", daemon.admin);
    predictd(&[&["models", "--json", "--admin-url", &url], arguments].concat())
}

/// What the command says, as JSON.
pub fn done(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = models(daemon, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why the server does not do it.
pub fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, said) = ends(&mut models(daemon, arguments));
    assert_eq!(code, 1, "{arguments:?}: {said}");
    said
}
