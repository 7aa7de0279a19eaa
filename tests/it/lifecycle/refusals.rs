//! Starts that cannot succeed: a code, one clear line, and no socket that anybody could have met.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;
use crate::daemon::{Daemon, PROGRAM, ends, predictd, serving};

/// A start whose two ports are taken: whoever gets as far as binding ends with 1.
struct Start {
    place: Place,
    taken: TcpListener,
}

impl Start {
    fn new() -> Self {
        Self { place: Place::new(), taken: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn options(&self, options: &[&str]) -> Vec<String> {
        let taken = self.taken.local_addr().unwrap().to_string();
        let fixed = [
            ("--listen", taken.as_str()),
            ("--admin-listen", taken.as_str()),
            ("--models", self.place.models().to_str().unwrap()),
            ("--data-dir", self.place.data.path().to_str().unwrap()),
            ("--log", "error"),
        ];
        let fixed =
            fixed.into_iter().filter(|(name, _)| !options.contains(name)).flat_map(|(name, value)| [name, value]);
        ["serve"].into_iter().chain(fixed).chain(options.iter().copied()).map(str::to_owned).collect()
    }

    /// How it ends with these options: the code, and the one line that it says.
    fn ends(&self, options: &[&str]) -> (i32, String) {
        let arguments = self.options(options);
        let (code, said) = ends(&mut predictd(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        one_line(&said);
        (code, said)
    }

    fn refuses(&self, options: &[&str]) -> String {
        let (code, said) = self.ends(options);
        assert_eq!(code, 64, "{options:?}: {said}");
        said
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.place.data.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

fn one_line(said: &str) {
    assert!(said.starts_with("predictd: ") && said.lines().count() == 1 && said.len() < 400, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// A certificate of its own and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn a_port_in_use_is_1_at_either_listener() {
    let start = Start::new();
    let address = start.taken.local_addr().unwrap();
    for (option, other) in [("--listen", "--admin-listen"), ("--admin-listen", "--listen")] {
        // A port of its own that nobody has.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (code, said) = start.ends(&[option, &address.to_string(), other, &free]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{option} {address}: ")) && said.contains("in use"), "{said}");
        TcpListener::bind(&free).expect("nothing is left behind at the other port");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, said) = start.ends(&["--listen", &free, "--admin-listen", &free]);
    assert!(code == 1 && said.contains(&format!("--admin-listen {free}: ")), "both at one port: {said}");
}

#[test]
fn certificates_that_cannot_be_used_are_64() {
    let start = Start::new();
    let ((cert, key), (_, other_key)) = (certificate(), certificate());
    let (cert, key) = (start.file("cert.pem", cert), start.file("key.pem", key));
    let damaged = std::fs::read_to_string(&key).unwrap().replace("PRIVATE", "PUBLIC");
    let cut = std::fs::read_to_string(&cert).unwrap();
    let nothing = start.place.data.path().join("nothing.pem");
    for (cert, key, option, word) in [
        (&nothing, &key, "--tls-cert", "No such file"),
        (&cert, &nothing, "--tls-key", "No such file"),
        (&start.file("empty.pem", ""), &key, "--tls-cert", "no certificate"),
        (&start.file("text.pem", "SECRET"), &key, "--tls-cert", "no certificate"),
        (&start.file("bytes.pem", [0xff, 0, 0xfe]), &key, "--tls-cert", "no certificate"),
        (&start.file("cut.pem", &cut[..cut.len() / 2]), &key, "--tls-cert", ""),
        (&key, &key, "--tls-cert", "no certificate"),
        (&cert, &cert, "--tls-key", "private key"),
        (&cert, &start.file("public.pem", damaged), "--tls-key", "private key"),
        (&cert, &start.file("other.pem", other_key), "--tls-cert", "does not fit"),
        (&start.place.data.path().to_path_buf(), &key, "--tls-cert", ""),
    ] {
        let said = start.refuses(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
        let named = if option == "--tls-cert" { cert } else { key };
        assert!(said.contains(&format!("{option} {}: ", named.display())) && said.contains(word), "{said}");
        assert!(!said.contains("SECRET") && !said.contains("BEGIN"), "what is in a file is not shown: {said}");
    }
    // The files themselves are good: with them the start gets as far as binding.
    let good = start.ends(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    assert!(good.0 == 1 && good.1.contains("in use"), "{good:?}");
}

#[test]
fn key_files_that_cannot_be_used_are_64() {
    let start = Start::new();
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
        let said = start.refuses(&["--keys", start.file("keys.toml", content).to_str().unwrap()]);
        assert!(said.contains("--keys ") && said.contains("keys.toml: ") && said.contains(word), "{word}: {said}");
        assert!(!said.contains("SECRET") && !said.contains("aaaa"), "what is in it is not shown: {said}");
    }
    let bytes = start.file("keys.toml", [0xff, 0xfe, 0]);
    assert!(start.refuses(&["--keys", bytes.to_str().unwrap()]).contains("UTF-8"));
    assert!(start.refuses(&["--keys", start.place.data.path().to_str().unwrap()]).contains("directory"));
}

#[test]
fn files_that_may_not_be_read_are_64() {
    let start = Start::new();
    let locked = start.place.data.path().join("locked");
    std::fs::create_dir_all(locked.join("m/1")).unwrap();
    let keys = start.file("keys.toml", "");
    let close = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    close(&locked, 0o000);
    close(&keys, 0o000);
    // Root may read everything, but not in a user namespace that knows no root.
    let isolated = std::fs::read_dir(&locked).is_ok();
    let (program, before): (_, &[&str]) = if isolated { ("unshare", &["--user", PROGRAM]) } else { (PROGRAM, &[]) };
    let works = Command::new("unshare").args(["--user", "true"]).output().is_ok_and(|output| output.status.success());
    if isolated && !works {
        eprintln!("SKIPPED: this user may read every file, and unshare cannot make one who may not");
    } else {
        for (option, path) in [("--models", &locked), ("--keys", &keys)] {
            let mut command = Command::new(program);
            command.args(before).args(start.options(&[option, path.to_str().unwrap()]));
            let (code, said) = ends(&mut command);
            assert_eq!(code, 64, "{said}");
            one_line(&said);
            assert!(said.contains(&format!("{option} {}: ", path.display())) && said.contains("denied"), "{said}");
        }
    }
    close(&locked, 0o755);
}

#[test]
fn other_machines_are_let_in_with_keys_only() {
    let start = Start::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let said = start.refuses(&["--listen", address]);
        assert!(said.contains(&format!("--listen {address} ")) && said.contains("predictd keys new"), "{said}");
        // Nothing opens the admin listener but keys.
        let said = start.refuses(&["--admin-listen", address, "--allow-anonymous"]);
        assert!(said.contains(&format!("--admin-listen {address} ")) && said.contains("predictd keys new"), "{said}");
    }
    let keys = start.place.data.path().join("keys.toml");
    let (made, said) =
        ends(&mut predictd(&["keys", "new", "--name", "a", "--scopes", "metrics", "--keys", keys.to_str().unwrap()]));
    assert_eq!(made, 0, "{said}");
    let (code, said) = start.ends(&["--admin-listen", "0.0.0.0:0"]);
    assert!(code == 1 && said.contains("--listen 127.0.0.1"), "with a key it gets as far as binding: {said}");
}

#[test]
fn more_memory_than_is_allowed_is_refused_with_its_parts() {
    let start = Start::new();
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let said = start.refuses(&[&free[..], &["--memory-limit", "250000000"]].concat());
    assert!(said.contains("and 239 MiB are allowed: ") && said.contains("--cache-bytes"), "{said}");
    // The parts can be made smaller; and whoever says so starts it all the same.
    let small = ["--cache-bytes", "0", "--max-connections", "16", "--workers", "1", "--max-inflight-texts", "64"];
    let fewer = ["--max-batch-texts", "64"];
    let small = [&small[..], &fewer].concat();
    let most = |options: &[&str]| {
        let mut daemon = Daemon::start(&mut serving(start.place.models(), start.place.data.path(), options));
        let line = daemon.logged("the server may need this much memory at most");
        daemon.signal("TERM");
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
        line["most_mib"].as_u64().unwrap()
    };
    // One part is the same in all: it would be less where less is allowed.
    let unlimited = ["--memory-limit", "0", "--response-memory", "16777216"];
    let (usual, little) = (most(&unlimited), most(&[&small[..], &unlimited].concat()));
    assert!(little > 50 && little + 20 < usual, "{little} and {usual} MiB");
    // What the process itself needs differs between machines.
    let between = (u64::midpoint(usual, little) << 20).to_string();
    let limited = ["--memory-limit", between.as_str(), "--response-memory", "16777216"];
    start.refuses(&[&free[..], &limited].concat());
    most(&[&small[..], &limited].concat());
}
