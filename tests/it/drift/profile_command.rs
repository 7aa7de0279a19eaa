//! `predictd profile`: what it makes, of what, and what it refuses.

use std::path::Path;

use predictd::drift::Profile;
use predictd::drift::profile::ProfileAccuracy;
use predictd::drift_profile::report::ProfileReport;
use serde_json::{Value, json};

use crate::support::check_command::{check_report, run_check};
use crate::support::daemon::{predictd, run_to_exit};
use crate::support::drift_scene::DriftScene;
use crate::support::model_builder::TransformerBuilder;
use crate::support::snapshots::{TEMP_DIR, snapshot_settings, transcript};
use crate::support::test_server::{CHEAP_MODEL, shipped_models};

fn profile_command(directory: &Path, options: &[&str]) -> std::process::Command {
    predictd(&[&["profile", directory.to_str().unwrap()], options].concat())
}

/// The golden examples of the shipped model, again and again: text and label.
fn repeated_examples(count: usize) -> Vec<(String, String)> {
    let golden = shipped_models().join(CHEAP_MODEL).join("1/golden.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let examples = golden["examples"].as_array().unwrap().iter();
    let examples = examples.map(|one| [&one["text"], &one["label"]].map(|value| value.as_str().unwrap().to_owned()));
    examples.map(<(String, String)>::from).cycle().take(count).collect()
}

#[test]
fn profile_from_labelled_table_describes_model() {
    let place = tempfile::tempdir().unwrap();
    let table = place.path().join("texts.csv");
    let mut written = csv::Writer::from_path(&table).unwrap();
    written.write_record(["text", "category"]).unwrap();
    for (text, label) in repeated_examples(300) {
        written.write_record([text, label]).unwrap();
    }
    drop(written);
    let out = place.path().join("made.json");
    let texts = table.to_str().unwrap();
    let file = out.to_str().unwrap();
    let directory = shipped_models().join(CHEAP_MODEL).join("1");
    let output = profile_command(&directory, &["--texts", texts, "--out", file, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: ProfileReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.texts, report.refused, report.profile.as_str()), (300, 0, file));
    assert_eq!(report.accuracy, Some(ProfileAccuracy { texts: 300, correct: 300 }));
    assert_eq!(report.unknown, None, "the graph takes the text itself");
    assert_eq!(report.needed[3].texts, None);
    assert!(report.needed[1].texts.is_some_and(|texts| (100..1_000).contains(&texts)), "{report:?}");
    let warnings = report.warnings.concat();
    assert!(
        warnings.contains("texts that the model was trained on") && warnings.contains("300 texts are few"),
        "{report:?}"
    );
    let made: Profile = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((made.model.as_str(), made.model_version.as_str(), made.texts), (CHEAP_MODEL, "1", 300));
    assert_eq!((made.labels.len(), made.validate()), (77, Ok(())));
    assert!(humantime::parse_rfc3339(&made.made).is_ok(), "{}", made.made);
    // For people, and of lines without labels.
    let lines = place.path().join("texts");
    std::fs::write(&lines, repeated_examples(250).into_iter().map(|(text, _)| text + "\n").collect::<String>())
        .unwrap();
    let output = profile_command(&directory, &["--texts", lines.to_str().unwrap(), "--out", file]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for part in ["; 0 refused\n", "labels      ", " of 77: ", "windows     need texts: ", " for labels, "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("accuracy"), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 3, "no draft is left");
}

#[test]
fn profile_is_written_to_model_or_output_path() {
    let scene = DriftScene::with_profile();
    let made: Profile =
        serde_json::from_slice(&std::fs::read(scene.version_dir().join("profile.json")).unwrap()).unwrap();
    assert_eq!((made.labels[0].texts, made.labels[1].texts, made.other), (200, 200, 0));
    let accuracy = made.accuracy.unwrap();
    assert_eq!((accuracy.texts, accuracy.correct), (400, 300));
    // Of "10 20" in its special tokens, as of all texts, every token is known.
    let sums = made.unknown.unwrap();
    assert_eq!((sums.tokens, sums.unknown), (200 * 3 + 200 * 4, 0));
    // A check accepts a model with its profile. A second profile replaces the first.
    let report = check_report(&scene.version_dir(), &[], 0);
    let model = report.results.unwrap().model;
    let profile = model.profile.unwrap();
    assert_eq!((profile.texts, profile.accuracy), (400, Some(0.75)));
    assert!(model.files.iter().any(|file| file.name == "profile.json"), "{:?}", model.files);
    scene.write_profile(&scene.version_dir());
    // One of another graph serves, and is warned of.
    let path = scene.version_dir().join("profile.json");
    let mut profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(profile["graph"].as_str().map(str::len), Some(64));
    let warning = "profile.json was made with another graph";
    assert!(!report.warnings.iter().any(|said| said.contains(warning)), "{:?}", report.warnings);
    profile["graph"] = json!("0".repeat(64));
    std::fs::write(&path, profile.to_string()).unwrap();
    let report = check_report(&scene.version_dir(), &[], 0);
    assert!(report.warnings.iter().any(|said| said.contains(warning)), "{:?}", report.warnings);
    let log = scene.start(&[]).log();
    assert!(log.contains(warning), "{log}");
}

#[test]
fn profile_json_report_matches_snapshot() {
    let scene = DriftScene::with_profile();
    let [texts, again] = ["texts.jsonl", "again.json"].map(|name| scene.data.path().join(name));
    let options = ["--texts", texts.to_str().unwrap(), "--out", again.to_str().unwrap(), "--json"];
    let page = transcript(&["profile", "--json"], &mut profile_command(&scene.version_dir(), &options));
    snapshot_settings(&[TEMP_DIR]).bind(|| insta::assert_snapshot!("profile-json", page));
}

#[test]
fn profile_from_feedback_export_is_written() {
    let scene = DriftScene::new();
    let texts = scene.data.path().join("export.jsonl");
    let lines = [(Some("60"), &["a"][..]), (None, &["a"]), (Some("10"), &[])];
    let lines = lines.map(|(text, actual)| json!({ "text": text, "actual": actual }).to_string() + "\n");
    std::fs::write(&texts, lines.concat().repeat(100)).unwrap();
    let texts = texts.to_str().unwrap();
    let output = profile_command(&scene.version_dir(), &["--texts", texts, "--json"]).output().unwrap();
    let report: ProfileReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.texts, report.without_text), (200, 100));
    assert_eq!(report.accuracy, Some(ProfileAccuracy { texts: 200, correct: 100 }));
    for option in ["--texts", "--against"] {
        let (_, out, _) = run_check(&scene.version_dir(), &[option, texts]);
        assert!(out.contains("; 100 rows without a text"), "{out}");
    }
}

fn assert_refused(directory: &Path, texts: &str, code: i32, word: &str) {
    let (found, said) = run_to_exit(&mut profile_command(directory, &["--texts", texts]));
    assert!(found == code && said.contains(word) && !said.contains("panicked"), "{texts}: {found} {said}");
}

#[test]
fn profile_unusable_texts_are_refused_with_reason() {
    let scene = DriftScene::new();
    let version = scene.version_dir();
    let few = "10\n".repeat(199);
    for (name, content, word) in [
        ("few", few.clone(), "199 texts are answered, where a profile needs 200"),
        (
            "unfit",
            format!("<script>alert(1)</script>\n{few}"),
            "needs 200 at least (1,000 are good): with fewer, chance hides every drift; line 1: ",
        ),
        ("t.csv", "text,label\n10,c\n".to_owned(), "line 2: the model has no label \"c\""),
        ("t.jsonl", "{".to_owned(), "line 1: "),
    ] {
        let texts = scene.data.path().join(name);
        std::fs::write(&texts, content).unwrap();
        assert_refused(&version, texts.to_str().unwrap(), 64, word);
    }
    assert_refused(&version, "/nonexistent", 64, "--texts /nonexistent: ");
    assert_refused(Path::new("/nonexistent"), "x", 64, "there is no such directory");
    assert!(!version.join("profile.json").exists());
    let enough = scene.data.path().join("enough");
    std::fs::write(&enough, "10\n".repeat(200)).unwrap();
    let enough = enough.to_str().unwrap();
    let (code, said) =
        run_to_exit(&mut profile_command(&version, &["--texts", enough, "--out", "/nonexistent/profile.json"]));
    assert!(code == 64 && said.contains("--out /nonexistent/profile.json: "), "{said}");
    std::fs::write(version.join("profile.json"), "{").unwrap();
    assert_refused(&version, enough, 1, "profile.json: EOF");
    assert_refused(&version, enough, 1, "move it away");
    let number = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).model();
    let number = number.write(scene.models.path(), "number", "1");
    assert_refused(&number, enough, 64, "its answers are not labels of texts");
    let (code, said) = run_to_exit(&mut profile_command(&version, &[]));
    assert!(code == 64 && said.contains("--texts"), "{said}");
}
