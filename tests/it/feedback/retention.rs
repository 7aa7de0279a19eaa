//! `--feedback-retention`: feedback that is older is deleted, and nothing else.

use serde_json::json;

use super::{Scene, asked, outcome, told};
use crate::raw::{metric, until};

const DELETED: &str = "predictd_feedback_deleted_total";

#[test]
fn feedback_older_than_its_retention_is_deleted_with_its_text_and_its_history() {
    let scene = Scene::new();
    let mut daemon = scene.start(&["--feedback-retention", "2s"]);
    let mut total = 0;
    for number in 0..30 {
        let text = format!("{} CANARY", number + 10);
        let (id, label) = asked(&daemon, &text);
        let other = if label == "a" { "b" } else { "a" };
        assert_eq!(outcome(&daemon, &json!({ "prediction_id": id, "actual": other, "text": text })), "stored");
        assert_eq!(outcome(&daemon, &json!({ "prediction_id": id, "actual": label, "text": text })), "corrected");
        total += 1;
    }
    until("all of it is deleted", || told(&daemon).is_empty() && metric(daemon.admin, DELETED) == total);
    let line = daemon.logged("feedback older than --feedback-retention was deleted");
    assert!(line["deleted"].as_u64().is_some_and(|deleted| (1..=total).contains(&deleted)), "{line}");
    let holds_text = |name: &str| {
        let file = std::fs::read(scene.data.path().join(name)).unwrap();
        file.windows(6).any(|bytes| bytes == b"CANARY")
    };
    until("no deleted text is left while the server runs", || {
        ["predictd.db", "predictd.db-wal"].iter().all(|name| !holds_text(name))
    });
    // What comes afterwards is kept until it is as old.
    let (id, label) = asked(&daemon, "40");
    assert_eq!(outcome(&daemon, &json!({ "prediction_id": id, "actual": label })), "stored");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    assert!(!holds_text("predictd.db"), "a deleted text is not left in the file");
    // Without a retention nothing is deleted.
    let daemon = scene.start(&[]);
    let kept = told(&daemon);
    assert!(kept.len() <= 1, "{kept:?}");
    let (id, label) = asked(&daemon, "41");
    assert_eq!(outcome(&daemon, &json!({ "prediction_id": id, "actual": label })), "stored");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!((told(&daemon).len(), metric(daemon.admin, DELETED)), (kept.len() + 1, 0));
}
