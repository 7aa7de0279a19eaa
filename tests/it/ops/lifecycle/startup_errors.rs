//! Starts that cannot succeed: a code, one clear line, and no socket that was open meanwhile.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::Scene;
use crate::support::daemon::{Daemon, PREDICTD_PATH, predictd, run_to_exit};

/// A start whose two ports are taken: whoever gets as far as binding ends with 1.
struct FailingStart {
    scene: Scene,
    occupied_port: TcpListener,
}

impl FailingStart {
    fn new() -> Self {
        Self { scene: Scene::new(), occupied_port: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn options(&self, options: &[&str]) -> Vec<String> {
        let taken = self.occupied_port.local_addr().unwrap().to_string();
        let fixed = [
            ("--listen", taken.as_str()),
            ("--admin-listen", taken.as_str()),
            ("--models", self.scene.models().to_str().unwrap()),
            ("--data-dir", self.scene.data.path().to_str().unwrap()),
            ("--log", "error"),
        ];
        let fixed =
            fixed.into_iter().filter(|(name, _)| !options.contains(name)).flat_map(|(name, value)| [name, value]);
        ["serve"].into_iter().chain(fixed).chain(options.iter().copied()).map(str::to_owned).collect()
    }

    /// How it ends with these options: the code, and the one line that it says.
    fn run_to_exit(&self, options: &[&str]) -> (i32, String) {
        let arguments = self.options(options);
        let (code, said) = run_to_exit(&mut predictd(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_one_line(&said);
        (code, said)
    }

    fn assert_exits_64(&self, options: &[&str]) -> String {
        let (code, said) = self.run_to_exit(options);
        assert_eq!(code, 64, "{options:?}: {said}");
        said
    }

    fn write_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.scene.data.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

fn assert_one_line(said: &str) {
    assert!(said.starts_with("predictd: ") && said.lines().count() == 1 && said.len() < 400, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// A certificate of its own and its key, as PEM.
fn self_signed_certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn startup_port_in_use_exits_1() {
    let start = FailingStart::new();
    let address = start.occupied_port.local_addr().unwrap();
    for (option, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        // A free port for the other listener.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (code, said) = start.run_to_exit(&[option, &address.to_string(), other, &free]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{option} {address}: ")) && said.contains("in use"), "{said}");
        TcpListener::bind(&free).expect("nothing is left behind at the other port");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, said) = start.run_to_exit(&["--listen", &free, "--admin-listen", &free]);
    assert!(code == 1 && said.contains(&format!("--admin-listen {free}: ")), "both at one port: {said}");
}

#[test]
fn startup_unusable_certificate_exits_64() {
    let start = FailingStart::new();
    let (cert, key) = self_signed_certificate();
    let (_, other_key) = self_signed_certificate();
    let cert = start.write_file("cert.pem", cert);
    let key = start.write_file("key.pem", key);
    let damaged = std::fs::read_to_string(&key).unwrap().replace("PRIVATE", "PUBLIC");
    let cut = std::fs::read_to_string(&cert).unwrap();
    let nothing = start.scene.data.path().join("nothing.pem");
    for (cert, key, option, word) in [
        (&nothing, &key, "--tls-cert", "No such file"),
        (&cert, &nothing, "--tls-key", "No such file"),
        (&start.write_file("empty.pem", ""), &key, "--tls-cert", "no certificate"),
        (&start.write_file("text.pem", "SECRET"), &key, "--tls-cert", "no certificate"),
        (&start.write_file("bytes.pem", [0xff, 0, 0xfe]), &key, "--tls-cert", "no certificate"),
        (&start.write_file("cut.pem", &cut[..cut.len() / 2]), &key, "--tls-cert", ""),
        (&key, &key, "--tls-cert", "no certificate"),
        (&cert, &cert, "--tls-key", "private key"),
        (&cert, &start.write_file("public.pem", damaged), "--tls-key", "private key"),
        (&cert, &start.write_file("other.pem", other_key), "--tls-cert", "does not fit"),
        (&start.scene.data.path().to_path_buf(), &key, "--tls-cert", ""),
    ] {
        let said = start.assert_exits_64(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
        let named = if option == "--tls-cert" { cert } else { key };
        assert!(said.contains(&format!("{option} {}: ", named.display())) && said.contains(word), "{said}");
        assert!(!said.contains("SECRET") && !said.contains("BEGIN"), "what is in a file is not shown: {said}");
    }
    // The files themselves are good: with them the start gets as far as binding.
    let good = start.run_to_exit(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    assert!(good.0 == 1 && good.1.contains("in use"), "{good:?}");
}

#[test]
fn startup_unusable_key_file_exits_64() {
    let start = FailingStart::new();
    let hash = format!("sha256:{}", "a".repeat(64));
    let key = |name: &str, hash: &str, scopes: &str| {
        format!("[[key]]\nname = \"{name}\"\nhash = \"{hash}\"\nscopes = [{scopes}]\ncreated = \"now\"\n")
    };
    for (content, word) in [
        ("SECRET".to_owned(), "line 1"),
        ("[[key]]\nname = \"SECRET".to_owned(), "line 2"),
        (key("a", "SECRET", "\"predict\""), "hash"),
        (key("a", &hash, ""), "scopes"),
        (key("a", &hash, "\"SECRET\""), "line"),
        (key("a\\nSECRET", &hash, "\"predict\""), "name"),
        (key("a", &hash, "\"predict\"").repeat(2), "twice"),
        ("#".repeat((1 << 20) + 1), "larger"),
    ] {
        let said = start.assert_exits_64(&["--keys", start.write_file("keys.toml", content).to_str().unwrap()]);
        assert!(said.contains("--keys ") && said.contains("keys.toml: ") && said.contains(word), "{word}: {said}");
        assert!(!said.contains("SECRET") && !said.contains("aaaa"), "what is in it is not shown: {said}");
    }
    let bytes = start.write_file("keys.toml", [0xff, 0xfe, 0]);
    assert!(start.assert_exits_64(&["--keys", bytes.to_str().unwrap()]).contains("UTF-8"));
    assert!(start.assert_exits_64(&["--keys", start.scene.data.path().to_str().unwrap()]).contains("directory"));
}

#[test]
fn startup_unreadable_file_exits_64() {
    let start = FailingStart::new();
    let locked = start.scene.data.path().join("locked");
    std::fs::create_dir_all(locked.join("m/1")).unwrap();
    let keys = start.write_file("keys.toml", "");
    for path in [&locked, &keys] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Root may read everything, but not in a user namespace that knows no root.
    let isolated = std::fs::read_dir(&locked).is_ok();
    let (program, before): (_, &[&str]) =
        if isolated { ("unshare", &["--user", PREDICTD_PATH]) } else { (PREDICTD_PATH, &[]) };
    let works = Command::new("unshare").args(["--user", "true"]).output().is_ok_and(|output| output.status.success());
    if isolated && !works {
        eprintln!("SKIPPED: this user may read every file, and unshare cannot make one who may not");
    } else {
        for (option, path) in [("--models", &locked), ("--keys", &keys)] {
            let mut command = Command::new(program);
            command.args(before).args(start.options(&[option, path.to_str().unwrap()]));
            let (code, said) = run_to_exit(&mut command);
            assert_eq!(code, 64, "{said}");
            assert_one_line(&said);
            assert!(said.contains(&format!("{option} {}: ", path.display())) && said.contains("denied"), "{said}");
        }
    }
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn startup_public_listener_requires_keys() {
    let start = FailingStart::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let said = start.assert_exits_64(&["--listen", address]);
        assert!(said.contains(&format!("--listen {address} ")) && said.contains("predictd keys new"), "{said}");
        // Nothing opens the admin listener but keys.
        let said = start.assert_exits_64(&["--admin-listen", address, "--allow-anonymous"]);
        assert!(said.contains(&format!("--admin-listen {address} ")) && said.contains("predictd keys new"), "{said}");
    }
    let keys = start.scene.data.path().join("keys.toml");
    let (made, said) = run_to_exit(&mut predictd(&[
        "keys",
        "new",
        "--name",
        "a",
        "--scopes",
        "metrics",
        "--keys",
        keys.to_str().unwrap(),
    ]));
    assert_eq!(made, 0, "{said}");
    let (code, said) = start.run_to_exit(&["--admin-listen", "0.0.0.0:0"]);
    assert!(code == 1 && said.contains("--listen 127.0.0.1"), "with a key it gets as far as binding: {said}");
}

/// The most memory, in MiB, that a server with these options expects to use.
fn estimated_mib(start: &FailingStart, options: &[&str]) -> u64 {
    let mut daemon = Daemon::start_with(start.scene.models(), start.scene.data.path(), options);
    let line = daemon.wait_for_log("maximum memory use estimated");
    daemon.stop();
    line["max_mib"].as_u64().unwrap()
}

#[test]
fn startup_memory_budget_exceeded_lists_parts() {
    let start = FailingStart::new();
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let said = start.assert_exits_64(&[&free[..], &["--memory-limit", "150000000"]].concat());
    assert!(said.contains("and 144 MiB are allowed: ") && said.contains("--cache-bytes"), "{said}");
    // The parts can be made smaller; and an operator can start the server all the same.
    let small = ["--cache-bytes", "0", "--max-connections", "16", "--workers", "1", "--max-inflight-items", "64"];
    let fewer = ["--max-client-batch-size", "64"];
    let small = [&small[..], &fewer].concat();
    // Two parts are the same in all: they would be less where less is allowed.
    let unlimited = ["--memory-limit", "0", "--response-memory", "16777216", "--max-body", "8388608"];
    let usual = estimated_mib(&start, &unlimited);
    let little = estimated_mib(&start, &[&small[..], &unlimited].concat());
    assert!(little > 50 && little + 20 < usual, "{little} and {usual} MiB");
    // What the process itself needs differs between machines.
    let between = (u64::midpoint(usual, little) << 20).to_string();
    let limited = ["--memory-limit", between.as_str(), "--response-memory", "16777216", "--max-body", "8388608"];
    start.assert_exits_64(&[&free[..], &limited].concat());
    estimated_mib(&start, &[&small[..], &limited].concat());
}
