//! `predictd keys`.

use crate::support::key_file::KeyFile;
use crate::support::snapshots::{TEMP_DIR, TIME, snapshot_settings, transcript};

#[test]
fn keys_command_list_refusals_and_revoke_match_snapshot() {
    let ring = KeyFile::new();
    let key = ring.create_key("web-site", "predict,feedback", &["--rate", "50/s"]);
    assert!(key.starts_with("pd_") && key.len() == 46, "{key}");
    ring.create_key("prometheus", "metrics", &[]);
    let steps = [
        &["list"][..],
        &["new", "--name", "web-site", "--scopes", "predict"],
        &["new", "--name", "a b", "--scopes", "predict"],
        &["new", "--name", "x", "--scopes", "root"],
        &["new", "--name", "x"],
        &["new", "--scopes", "predict"],
        &["new", "--name", "x", "--scopes", "predict", "--rate", "0/s"],
        &["new", "--name", "x", "--scopes", "predict", "--rate", "fast"],
        &["revoke", "nobody"],
        &["revoke"],
        &[],
        &["revoke", "web-site"],
        &["list"],
    ];
    let pages: String =
        steps.map(|step| transcript(&[&["keys"], step].concat(), &mut ring.keys_command(step))).concat();
    assert!(!pages.contains(&key[3..]) && !pages.contains("sha256"), "{pages}");
    snapshot_settings(&[TEMP_DIR, TIME]).bind(|| insta::assert_snapshot!("keys", pages));
}
