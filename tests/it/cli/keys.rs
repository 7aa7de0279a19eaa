//! `predictd keys`.

use crate::support::key_file::KeyFile;

#[test]
fn keys_command_new_list_revoke_report_results() {
    let ring = KeyFile::new();
    let key = ring.create_key("web-site", "predict,feedback", &["--rate", "50/s"]);
    assert!(key.starts_with("pd_") && key.len() == 46, "{key}");
    ring.create_key("prometheus", "metrics", &[]);
    let (code, list, _) = ring.run_keys_command(&["list"]);
    assert_eq!(code, 0);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..3], ["web-site", "predict,feedback", "50/s"]);
    assert_eq!(lines[2][..3], ["prometheus", "metrics", "-"]);
    assert!(!list.contains(&key[3..]) && !list.contains("sha256"), "{list}");
    for (arguments, expected, word) in [
        (&["new", "--name", "web-site", "--scopes", "predict"][..], 1, "already"),
        (&["new", "--name", "a b", "--scopes", "predict"], 1, "name"),
        (&["new", "--name", "x", "--scopes", "root"], 64, "--scopes"),
        (&["new", "--name", "x"], 64, "--scopes"),
        (&["new", "--scopes", "predict"], 64, "--name"),
        (&["new", "--name", "x", "--scopes", "predict", "--rate", "0/s"], 64, "--rate"),
        (&["new", "--name", "x", "--scopes", "predict", "--rate", "fast"], 64, "--rate"),
        (&["revoke", "nobody"], 1, "nobody"),
        (&["revoke"], 64, "NAME"),
        (&[], 64, "new"),
    ] {
        let (code, printed, said) = ring.run_keys_command(arguments);
        assert_eq!((code, printed.as_str()), (expected, ""), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(ring.run_keys_command(&["revoke", "web-site"]), (0, "web-site is revoked\n".to_owned(), String::new()));
    assert_eq!(ring.run_keys_command(&["list"]).1.lines().count(), 2);
}
