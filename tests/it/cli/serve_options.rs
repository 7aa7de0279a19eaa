//! The real binary: options, refusals and their exit codes.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use predictd::cli::Cli;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, predictd, run_to_exit};
use crate::support::test_server::cheap_models;

/// Directories, and a port that is taken: a server that reaches `bind` ends with 1, not 64.
struct Scene {
    models: TempDir,
    data: TempDir,
    occupied_port: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let models = cheap_models();
        let data = tempfile::tempdir().unwrap();
        Self { models, data, occupied_port: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn serve_command(&self, options: &[&str]) -> Command {
        let listen = self.occupied_port.local_addr().unwrap().to_string();
        let paths = [self.models.path().to_str().unwrap(), self.data.path().to_str().unwrap()];
        let mut fixed = vec!["serve", "--log", "error"];
        // What a test names itself is not named twice.
        for (name, value) in [
            ("--listen", listen.as_str()),
            ("--admin-listen", listen.as_str()),
            ("--models", paths[0]),
            ("--data-dir", paths[1]),
        ] {
            if !options.contains(&name) {
                fixed.extend([name, value]);
            }
        }
        fixed.extend(options);
        predictd(&fixed)
    }

    /// Asserts that the configuration is refused, before a socket is bound; what is said.
    fn assert_exits_64(&self, options: &[&str]) -> String {
        let (code, said) = run_to_exit(&mut self.serve_command(options));
        assert_eq!(code, 64, "{options:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

#[test]
fn help_lists_every_option() {
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let output = predictd(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let shown: Vec<_> = serve.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
        assert!(shown.len() >= 20, "{}", shown.len());
        for argument in shown {
            let name = argument.get_long().unwrap();
            let part =
                help.split(&format!("--{name}")).find(|part| part.starts_with([' ', '\n', '['])).unwrap_or_default();
            let part = part.split("\n      --").next().unwrap();
            // Those that may be secrets are not shown.
            let end = if argument.is_hide_env_values_set() { ']' } else { '=' };
            let variable = format!("[env: PREDICTD_{}{end}", name.to_uppercase().replace('-', "_"));
            assert!(part.contains(&variable), "{name} has a variable: {part}");
            // A switch is off unless it is given.
            let switch = !argument.get_action().takes_values();
            assert!(switch || part.contains("[default: "), "{name} has a default: {part}");
        }
        assert!(!help.contains("ORT_DYLIB_PATH"));
    }
}

#[test]
fn version_flag_prints_version() {
    let output = predictd(&["--version"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("predictd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn options_unparsable_exit_64() {
    let place = Scene::new();
    for options in [
        &["--colour", "red"][..],
        &["extra"],
        &["--workers", "many"],
        &["--workers=-1"],
        &["--workers"],
        &["--timeout", "soon"],
        &["--max-body", "99999999999999999999999"],
        &["--on-overflow", "panic"],
        &["--log-format", "xml"],
        &["--listen", "localhost"],
        &["--admin-listen", "8001"],
        &["--trusted-proxies", "10.0.0.0/33"],
        &["--rate-limit=-1"],
        &["--listen", "127.0.0.1:65536"],
        &["--workers", "1", "--workers", "2"],
    ] {
        let said = place.assert_exits_64(options);
        assert!(said.contains(options[0].trim_end_matches("=-1")), "{options:?}: {said}");
    }
    let (code, said) = run_to_exit(&mut predictd(&["train"]));
    assert_eq!((code, said.contains("train")), (64, true), "{said}");
}

#[test]
fn options_invalid_values_are_all_listed() {
    let place = Scene::new();
    let bad = [
        ("--workers", "0"),
        ("--max-body", "1"),
        ("--max-headers", "97"),
        ("--max-header-bytes", "50000"),
        ("--max-uri", "0"),
        ("--max-text-chars", "0"),
        ("--max-client-batch-size", "5000"),
        ("--max-inflight-items", "0"),
        ("--max-connections", "0"),
        ("--timeout", "0s"),
        ("--max-timeout", "25h"),
        ("--max-queue-wait", "0s"),
        ("--drain-delay", "25h"),
        ("--drain-timeout", "25h"),
        ("--first-byte-timeout", "0s"),
        ("--header-timeout", "0s"),
        ("--body-idle-timeout", "0s"),
        ("--body-timeout", "25h"),
        ("--write-timeout", "0s"),
        ("--keep-alive", "25h"),
        ("--tls-cert", "cert.pem"),
        ("--models", "/nonexistent"),
    ];
    let all: Vec<&str> = bad.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let said = place.assert_exits_64(&all);
    assert_eq!(said.lines().count(), bad.len(), "a line each: {said}");
    for (name, value) in bad {
        let begin = format!("predictd: {name} ");
        assert!(said.lines().any(|line| line.starts_with(&begin)), "{name}: {said}");
        let alone = place.assert_exits_64(&[name, value]);
        assert!(alone.contains(name), "{alone}");
    }
    assert!(place.assert_exits_64(&["--timeout", "61s"]).contains("--max-timeout"));
    assert!(
        place
            .assert_exits_64(&["--max-client-batch-size", "9", "--max-inflight-items", "8"])
            .contains("--max-client-batch-size 9")
    );
    assert!(place.assert_exits_64(&["--log", "predictd=loud"]).contains("--log"));
    assert!(place.data.path().read_dir().unwrap().next().is_none(), "nothing was made");
}

#[test]
fn listen_public_address_needs_keys_or_allow_anonymous() {
    let place = Scene::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let said = place.assert_exits_64(&["--listen", address]);
        assert!(said.contains(address) && said.contains("--allow-anonymous"), "{said}");
    }
    let options = ["--listen", "0.0.0.0:0", "--allow-anonymous", "--log", "info", "--log-format", "json"];
    let mut command = predictd(&["--models", place.models.path().to_str().unwrap()]);
    command.args(options).arg("--data-dir").arg(place.data.path());
    let daemon = Daemon::start(&mut command);
    assert!(daemon.address.ip().is_unspecified());
}

#[test]
fn models_directory_missing_exits_64() {
    let place = Scene::new();
    let empty = tempfile::tempdir().unwrap();
    let file = empty.path().join("file");
    let said = place.assert_exits_64(&["--models", empty.path().to_str().unwrap()]);
    assert!(said.contains("--models") && said.contains("NAME/VERSION"), "{said}");
    std::fs::write(&file, "").unwrap();
    assert!(place.assert_exits_64(&["--models", file.to_str().unwrap()]).contains("no such directory"));
    let said = place.assert_exits_64(&["--default-model", "nothing"]);
    assert!(said.contains("\"nothing\"") && said.contains("--default-model"), "{said}");
}

#[test]
fn onnxruntime_unusable_library_exits_64_with_remedy() {
    let place = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    let refuses = |path: &Path| {
        let path = path.to_str().unwrap();
        let said = place.assert_exits_64(&["--onnxruntime", path]);
        assert!(said.contains(path) && said.contains("make onnxruntime"), "{said}");
        assert_eq!(said.lines().count(), 1, "one sentence: {said}");
        said
    };
    refuses(Path::new("/nonexistent"));
    refuses(directory.path());
    refuses(&text);
    // The name that other programs use is heard too.
    let (code, said) = run_to_exit(place.serve_command(&[]).env("ORT_DYLIB_PATH", &text));
    assert_eq!((code, said.contains("text.so")), (64, true), "{said}");

    let source = directory.path().join("old.c");
    let program = r#"
        static const char* version(void) { return "1.20.0"; }
        static const void* api(unsigned number) { (void)number; return 0; }
        static const struct { const void* (*api)(unsigned); const char* (*version)(void); } base = { api, version };
        const void* OrtGetApiBase(void) { return &base; }"#;
    std::fs::write(&source, program).unwrap();
    let library = directory.path().join("libonnxruntime.so.1.20.0");
    match Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("SKIPPED: no library of an old version was tried, there is no C compiler ({error})");
            return;
        }
    }
    assert!(refuses(&library).contains("1.20.0"));
    // A directory that holds nothing better.
    let said = place.assert_exits_64(&["--onnxruntime", directory.path().to_str().unwrap()]);
    assert!(said.contains("libonnxruntime.so.1.20.0") && said.contains("make onnxruntime"), "{said}");
}

#[test]
fn listen_port_in_use_exits_1() {
    let place = Scene::new();
    let (code, said) = run_to_exit(&mut place.serve_command(&[]));
    assert_eq!(code, 1, "{said}");
    let address = place.occupied_port.local_addr().unwrap();
    assert!(said.contains(&format!("predictd: --listen {address}: ")) && said.contains("in use"), "{said}");
}
