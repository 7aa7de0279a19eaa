//! `predictd check`: what it says of a directory is true, and its exit code can be relied on.

use std::path::{Path, PathBuf};

use predictd::check::accuracy::AccuracyReport;
use predictd::check::eval_set::CaseUnit;
use predictd::check::report::CheckResults;
use predictd::check::version_comparison::VersionComparison;
use serde_json::json;
use tempfile::TempDir;

use crate::support::check_command::{check_report, run_check};
use crate::support::cli_options::count_options_with_env_var_and_default;
use crate::support::daemon::predictd;
use crate::support::model_builder::onnx_graph::{Attribute, OnnxGraph};
use crate::support::model_builder::sample_models::{summing_pair_model, threshold_model, token_labelling_model};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::snapshots::{TEMP_DIR, snapshot_settings, transcript};
use crate::support::test_server::shipped_models;

/// Directories to check, and files to check them with.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A version of a model; `threshold` if it says nothing else.
    fn write_version(&self, version: &str, model: &ModelBuilder) -> PathBuf {
        model.write(self.0.path(), "small", version)
    }

    fn write_file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn assert_exits_64(directory: &Path, options: &[&str]) -> String {
    let (code, out, said) = run_check(directory, options);
    assert_eq!((code, out.as_str()), (64, ""), "{options:?}: {said}");
    assert!(said.starts_with("predictd: ") || said.starts_with("error: "), "{said}");
    said
}

/// What was found of a model that loads.
fn check_results(directory: &Path, options: &[&str], code: i32) -> CheckResults {
    check_report(directory, options, code).results.unwrap()
}

/// How the answers compare with those that `--against` expects.
fn check_against(directory: &Path, table: &str, options: &[&str]) -> AccuracyReport {
    check_results(directory, &[&["--against", table], options].concat(), 0).against.unwrap()
}

/// How the version of `--compare` answers.
fn check_compare(directory: &Path, other: &Path, options: &[&str]) -> VersionComparison {
    check_results(directory, &[&["--compare", other.to_str().unwrap()], options].concat(), 0).compare.unwrap()
}

#[test]
fn check_shipped_models_pass() {
    for (name, head, max_tokens) in
        [("banking77-minilm", "softmax", Some(512)), ("banking77-tfidf", "probabilities", None)]
    {
        let report = check_report(&shipped_models().join(name).join("1"), &[], 0);
        assert_eq!(report.warnings, [""; 0]);
        let found = report.results.unwrap();
        let model = &found.model;
        assert_eq!((model.task.as_str(), model.head.as_str()), ("single_label_classification", head));
        assert_eq!((model.device.as_str(), model.golden_examples), ("cpu", 50));
        assert_eq!((model.labels.len(), model.tokens.as_ref().map(|tokens| tokens.max_tokens)), (77, max_tokens));
        assert!(model.shares_runs && !model.batch_dependent, "{model:?}");
        let graph = model.files.iter().find(|file| file.name == "model.onnx").unwrap();
        assert_eq!((graph.digest, graph.bytes), (true, model.graph_bytes));
        let invariance = &found.invariance;
        assert_eq!((invariance.texts, invariance.changed, &invariance.failed), (306, 0, &None));
        assert!((33..=64).contains(&invariance.most_texts), "{invariance:?}");
        assert!(invariance.largest_score_difference < 1e-5, "{invariance:?}");
        assert_eq!((found.texts.refused, found.texts.failed), (0, 0));
        let memory = &found.memory;
        assert!(memory.model_bytes.unwrap() > 0 && memory.server_most_bytes.unwrap() > 0, "{memory:?}");
        assert!(found.cost.run_ms > 0.0, "{:?}", found.cost);
        assert!(found.against.is_none() && found.compare.is_none(), "{found:?}");
    }
}

#[test]
fn check_unloadable_directory_fails_naming_file() {
    let place = Scene::new();
    let golden = |label: &str| json!({ "examples": [{ "text": "60", "label": label }] }).to_string();
    let model = threshold_model().model().labels(&["a", "b"]);
    let digest = "0".repeat(64);
    for (number, broken, file) in [
        (1, model.clone().file("golden.json", golden("b")), "golden.json: example 1"),
        (2, model.clone().manifest_toml(&format!("[sha256]\n\"config.json\" = \"{digest}\"")), "config.json"),
        (3, model.clone().file("labels.json", r#"["a","b","c"]"#), "labels: 3 labels need 3 scores"),
        (4, model.clone().with_graph("no graph"), "model.onnx"),
        (5, model.clone().manifest_toml("tasks = \"regression\""), "model.toml"),
    ] {
        let report = check_report(&place.write_version(&number.to_string(), &broken), &[], 1);
        assert!(report.failures[0].starts_with(file), "{report:?}");
        assert!(report.results.is_none(), "{report:?}");
    }
    let empty = place.0.path().join("small");
    let (code, out, _) = run_check(&empty, &[]);
    assert!(code == 1 && out.ends_with("\nnot ok\n") && out.contains("failed: model.onnx: "), "{out}");
    // It would serve, but not with so little memory.
    let fine = place.write_version("6", &model);
    let little = check_report(&fine, &["--memory-limit", "1000000"], 1);
    assert!(little.failures[0].contains("1000000 are allowed"), "{little:?}");
}

/// What a machine measures, in the report and in its JSON.
const MEASURED: [(&str, &str); 4] = [
    (r"\n(cost|memory) .*", "\n$1 [measured]"),
    (r"runs of up to \d+:", "runs of up to [measured]:"),
    (r"scores by at most \S+", "scores by at most [measured]"),
    (
        r#""((?:allowed|largest_run|model|server_most)_bytes|\w+_ms|\w+_[nu]s|free_padding_tokens|largest_score_difference|most_texts)": [^,\n]+"#,
        "\"$1\": \"[measured]\"",
    ),
];

#[test]
fn check_shipped_model_report_matches_snapshots() {
    let directory = "models/banking77-tfidf/1";
    for (name, options) in [("check", &[][..]), ("check-json", &["--json"])] {
        let arguments = [&["check", directory], options].concat();
        let page = transcript(&arguments, &mut predictd(&arguments));
        snapshot_settings(&MEASURED).bind(|| insta::assert_snapshot!(name, page));
    }
}

#[test]
fn check_comparison_and_failure_json_match_snapshot() {
    let place = Scene::new();
    let directory = place.write_version("1", &batch_dependent_model());
    let other = place.write_version("2", &threshold_model().model().labels(&["a", "b"]));
    let table = place.write_file("table.csv", LABELLED_TABLE);
    let options = ["--against", &table, "--compare", other.to_str().unwrap(), "--max-flips", "0", "--json"];
    let arguments = [&["check", directory.to_str().unwrap()], &options[..]].concat();
    let page = transcript(&["check", "--json"], &mut predictd(&arguments));
    let figures = [
        TEMP_DIR,
        (r#""(score|\w*bytes|size_ratio|time_ratio|mean_score_difference)": \d[^,\n]*"#, "\"$1\": \"[measured]\""),
    ];
    let filters = [&MEASURED[..], &figures].concat();
    snapshot_settings(&filters).bind(|| insta::assert_snapshot!("check-compare-json", page));
}

/// Four texts of which the model gets three right; lines end as on other systems, and one text has two.
const LABELLED_TABLE: &str = "id,category,TEXT\r\n1,b,10 20\r\n2,a,\"40\r\n30\"\r\n3,b,60\r\n4,a,\"70, 5\"\r\n";

#[test]
fn check_labelled_table_reports_accuracy() {
    let place = Scene::new();
    let directory = place.write_version("1", &threshold_model().model().labels(&["a", "b"]));
    let table = place.write_file("table.csv", LABELLED_TABLE);
    let right = check_results(&directory, &["--against", &table, "--min-accuracy", "0.75"], 0);
    let against = right.against.unwrap();
    assert_eq!((against.texts, against.right, against.accuracy), (4, Some(3), Some(0.75)));
    let [difference] = &against.first_differences[..] else { panic!("{against:?}") };
    assert_eq!((difference.number, &difference.expected[..]), (5, &["b".to_owned()][..]));
    let given = difference.given.as_ref().unwrap();
    assert_eq!(given.labels, ["a"]);
    // 60 and the special tokens make 65: 6.5 - 5.45 against 0.
    let score = given.score.unwrap();
    assert!((score - 1.0 / (1.0 + (-1.05_f32).exp())).abs() < 1e-6, "{score}");
    assert_eq!(right.texts.unit, CaseUnit::Line);
    assert_eq!(against.mean_absolute_error, None);

    let wrong = check_report(&directory, &["--against", &table, "--min-accuracy", "0.76"], 1);
    assert_eq!(wrong.failures, ["the accuracy is 0.750000, where --min-accuracy is 0.76"]);
    // The page names the row, and not its text.
    let (_, out, _) = run_check(&directory, &["--against", &table]);
    assert!(out.contains("\nagainst     3 of 4 right: 75.00 %\n  line 5: expected b, got a (0.7408)\n"), "{out}");
    assert!(out.ends_with("\nok\n") && !out.contains("70, 5"), "{out}");
    // The texts of a golden.json count by their answers, scores included.
    let examples = json!([
        { "text": "60", "label": "a", "scores": { "a": 0.7408 } },
        { "text": "60", "label": "a", "scores": { "a": 0.7 } },
        { "text": "<script>", "label": "a" },
    ]);
    let golden = place.write_file("other.json", json!({ "tolerance": 0.001, "examples": examples }).to_string());
    let graded = check_report(&directory, &["--against", &golden], 0);
    let refused = "1 of 3 texts are refused; example 3: ";
    assert!(graded.warnings.iter().any(|warning| warning.contains(refused)), "{graded:?}");
    let found = graded.results.unwrap();
    let against = found.against.unwrap();
    assert_eq!((against.right, found.texts.refused), (Some(2), 1));
    assert_eq!((against.reproduced, against.unanswered), (Some(1), 1));
    let numbers: Vec<usize> = against.first_differences.iter().map(|difference| difference.number).collect();
    assert_eq!((numbers, found.texts.unit), (vec![2, 3], CaseUnit::Example));
}

#[test]
fn check_pairs_and_entities_are_compared() {
    let place = Scene::new();
    // Numbers are near or far.
    let summing = place.write_version("1", &summing_pair_model());
    let pairs = place.write_file("pairs.csv", "text,text_pair,label\n10 20,30,2067\n10,20,2040\n");
    let numbers = check_against(&summing, &pairs, &[]);
    // 10 + 20 + 30 and 10 + 20; the special tokens of a pair add 8, and each of two tokens of the second segment 1,000.
    assert_eq!((numbers.mean_absolute_error, numbers.largest_error), (Some(1.5), Some(2.0)));
    assert!(numbers.accuracy.is_none() && numbers.first_differences.is_empty(), "{numbers:?}");
    let refused = check_report(&summing, &["--against", &pairs, "--min-accuracy", "0.5"], 1);
    assert!(refused.failures[0].starts_with("--min-accuracy: "), "{refused:?}");
    assert!(
        assert_exits_64(&summing, &["--against", &place.write_file("no.csv", "text,label\n10,ten\n")])
            .contains("line 2")
    );

    // Several labels are right if all are.
    let several =
        threshold_model().model().labels(&["a", "b"]).config("problem_type", json!("multi_label_classification"));
    let several = place.write_version("2", &several);
    let table = place.write_file("several.csv", "text,label\n60,b|a\n60,a\n10,b\n");
    let found = check_results(&several, &["--against", &table], 0);
    assert_eq!((found.against.unwrap().right, found.model.thresholds), (Some(2), vec![0.5, 0.5]));

    // Entities are where they are.
    let labelling = place.write_version("3", &token_labelling_model());
    let examples =
        [8, 5].map(|end| json!({ "text": "10 40 60", "entities": [{ "label": "N", "start": 3, "end": end }] }));
    let golden = json!({ "examples": examples }).to_string();
    let found = check_results(&labelling, &["--against", &place.write_file("entities.json", golden)], 0);
    let against = found.against.unwrap();
    assert_eq!((against.right, found.model.task.as_str()), (Some(1), "token_classification"));
    assert_eq!(against.first_differences[0].given.as_ref().unwrap().labels, ["N 3..8"]);
    let invariance = &found.invariance;
    assert_eq!((invariance.texts, invariance.changed, &invariance.failed), (2, 0, &None));
    assert!(assert_exits_64(&labelling, &["--against", &table]).contains("golden.json"));
}

#[test]
fn check_against_version_compares_by_label_name() {
    let place = Scene::new();
    let model = threshold_model().model();
    let first = place.write_version("1", &model.clone().labels(&["a", "b"]));
    let table = place.write_file("table.csv", LABELLED_TABLE);
    let compare = check_compare(&first, &first, &["--against", &table, "--max-flips", "0"]);
    assert_eq!((compare.texts, compare.flips, compare.accuracy), (4, 0, Some(0.75)));
    let ratios = [compare.flip_share, compare.largest_score_difference, compare.size_ratio];
    assert_eq!(ratios.map(Some), [0.0, 0.0, 1.0].map(Some));
    assert!(compare.first_flips.is_empty() && compare.time_ratio > 0.0, "{compare:?}");

    // The same labels in another order, each with its own score.
    let turned = TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("bias", 0.0)])
        .logit(&[("input_ids", 0.1), ("bias", -5.45)]);
    let turned = place.write_version("2", &turned.model().labels(&["b", "a"]));
    let compare = check_compare(&first, &turned, &["--max-flips", "0"]);
    assert_eq!(compare.flips, 0);
    assert!(compare.largest_score_difference < 1e-6, "{compare:?}");

    // The same scores under exchanged names.
    let exchanged = place.write_version("3", &model.clone().labels(&["b", "a"]));
    let compare = check_compare(&first, &exchanged, &["--against", &table]);
    assert_eq!((compare.flips, Some(compare.flip_share), compare.accuracy), (4, Some(1.0), Some(0.25)));
    let flip = &compare.first_flips[2];
    let labels = [&flip.this, &flip.other].map(|answer| &answer.as_ref().unwrap().labels[..]);
    assert_eq!((flip.number, labels), (5, [&["a".to_owned()][..], &["b".to_owned()]]));
    let options = ["--compare", exchanged.to_str().unwrap(), "--against", &table, "--max-flips", "3"];
    let failure = &check_report(&first, &options, 1).failures[0];
    assert!(
        failure.starts_with("4 answers differ from those of ") && failure.ends_with("--max-flips is 3"),
        "{failure}"
    );

    // Names that only one of them has.
    let renamed = place.write_version("4", &model.clone().labels(&["a", "c"]));
    let compare = check_compare(&first, &renamed, &["--against", &table]);
    assert_eq!([&compare.labels_here_only[..], &compare.labels_there_only], [["b"], ["c"]]);
    assert_eq!(compare.flips, 1, "{compare:?}");
    // What cannot be compared, or not be loaded.
    for (number, other) in [(5, summing_pair_model()), (6, model.with_graph("no graph"))] {
        let other = place.write_version(&number.to_string(), &other);
        let failed = check_report(&first, &["--compare", other.to_str().unwrap(), "--max-flips", "9999"], 1);
        assert!(failed.failures[0].starts_with(other.to_str().unwrap()), "{failed:?}");
        assert!(failed.results.unwrap().compare.is_none());
    }
}

/// The last id of a row is padding where another text is longer.
fn batch_dependent_model() -> ModelBuilder {
    let last = TransformerBuilder::new(&["input_ids"]).logit(&[("last", 1.0)]).logit(&[("bias", 2.0)]);
    last.model().labels(&["a", "b"])
}

#[test]
fn check_batch_influence_is_measured() {
    let place = Scene::new();
    let directory = place.write_version("1", &batch_dependent_model());
    let texts = place.write_file("texts", "10\n\n10 20 30\n10 20\n");
    let found = check_results(&directory, &["--texts", &texts], 0);
    assert_eq!((found.model.shares_runs, found.texts.count), (false, 3));
    assert!(found.model.unbatchable_reason.is_some_and(|reason| !reason.is_empty()));
    let invariance = found.invariance;
    assert_eq!((invariance.texts, invariance.changed), (3, 2));
    let numbers: Vec<usize> = invariance.first_changed.iter().map(|change| change.number).collect();
    assert_eq!(numbers, [1, 4]);
    assert_eq!(invariance.first_changed[0].alone.labels, ["a"]);
    assert_eq!(invariance.first_changed[0].together.labels, ["b"]);
    let (_, out, _) = run_check(&directory, &["--texts", &texts]);
    assert!(out.contains("\nruns        one text each: ") && out.contains(": 2 labels differ, "), "{out}");
}

/// Logits that grow with each text beyond the sixteenth of a run, which is what a load tries; or a run that fails then.
fn changes_beyond_sixteen_texts(fails: bool) -> TransformerBuilder {
    let more: fn(&mut OnnxGraph, &str) -> String = |graph, logits| {
        let first = graph.integers(&[], &[0]);
        let sixteen = graph.floats(&[], &[16.0]);
        let shape = graph.node("Shape", &[logits], &[]);
        let rows = graph.node("Gather", &[&shape, &first], &[("axis", Attribute::Int(0))]);
        let rows = graph.node("Cast", &[&rows], &[("to", Attribute::Int(1))]);
        let beyond = graph.node("Sub", &[&rows, &sixteen], &[]);
        let beyond = graph.node("Relu", &[&beyond], &[]);
        graph.node("Add", &[logits, &beyond], &[])
    };
    let failing: fn(&mut OnnxGraph, &str) -> String = |graph, logits| {
        let first = graph.integers(&[], &[0]);
        let zeros = graph.floats(&[17], &[0.0; 17]);
        let shape = graph.node("Shape", &[logits], &[]);
        let rows = graph.node("Gather", &[&shape, &first], &[("axis", Attribute::Int(0))]);
        let nothing = graph.node("Gather", &[&zeros, &rows], &[("axis", Attribute::Int(0))]);
        graph.node("Add", &[logits, &nothing], &[])
    };
    TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).append_nodes(if fails {
        failing
    } else {
        more
    })
}

#[test]
fn check_finds_batch_faults_beyond_load_checks() {
    let place = Scene::new();
    let regression = |model: &TransformerBuilder| model.model().config("problem_type", json!("regression"));
    let moving = place.write_version("1", &regression(&changes_beyond_sixteen_texts(false)));
    let found = check_report(&moving, &[], 1);
    let failure = &found.failures[0];
    assert!(
        failure.starts_with("answers depend on the texts that share their run: 0 have other labels, "),
        "{failure}"
    );
    assert!(found.results.unwrap().invariance.moved > 100);
    let failing = place.write_version("2", &regression(&changes_beyond_sixteen_texts(true)));
    let found = check_report(&failing, &[], 1);
    assert!(found.failures[0].starts_with("a run of several texts fails: "), "{found:?}");

    let fine = place.write_version("3", &threshold_model().model().labels(&["a", "b"]));
    let refused = check_report(&fine, &["--texts", &place.write_file("refused", "<script>x</script>\n\0\n")], 1);
    assert!(refused.failures[0].contains("nothing was measured"), "{refused:?}");
    // A link that leads nowhere is nothing that a load reads.
    std::os::unix::fs::symlink("/nonexistent", fine.join("notes.txt")).unwrap();
    check_report(&fine, &[], 0);
    // Numbers have no labels to flip.
    let numbers = place.write_version("4", &summing_pair_model());
    let failed = check_report(&numbers, &["--compare", numbers.to_str().unwrap(), "--max-flips", "0"], 1);
    assert!(failed.failures[0].starts_with("--max-flips: "), "{failed:?}");
}

#[test]
fn check_warns_author_of_incomplete_model() {
    let place = Scene::new();
    let model = threshold_model().model().labels(&["LABEL_0", "LABEL_1"]).config("max_position_embeddings", json!(8));
    let directory = place.write_version("1", &model);
    let texts = place.write_file("texts", "1 2 3 4 5 6 7 8 9\n10\n<script>x</script>\n");
    let report = check_report(&directory, &["--texts", &texts, "--on-overflow", "truncate"], 0);
    let warnings = &report.warnings;
    for part in [
        "LABEL_0",
        "no golden.json",
        "SHA-256 of config.json, model.onnx, ",
        "problem_type",
        "1 of 3 texts are longer",
        "1 of 3 texts are refused; line 3: ",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:?}");
    }
    let tokens = report.results.unwrap().model.tokens.unwrap();
    assert_eq!((tokens.max_tokens, tokens.max_tokens_named), (8, true));
    let without = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).logit(&[]);
    let report = check_report(&place.write_version("2", &without.model().labels(&["a", "b"])), &[], 0);
    assert!(report.warnings.iter().any(|warning| warning.contains("512 are taken")), "{report:?}");
    assert_eq!(report.results.unwrap().texts.from, "plain sentences and texts of their words");
}

#[test]
fn check_wrong_usage_exits_64() {
    let place = Scene::new();
    let directory = place.write_version("1", &threshold_model().model().labels(&["a", "b"]));
    let table = |content: &str| {
        let path = place.write_file("wrong.csv", content);
        let said = assert_exits_64(&directory, &["--against", &path]);
        assert!(said.contains(&format!("--against {path}: ")), "{said}");
        said
    };
    assert!(table("text,label\n10,a\n20,z\n").contains("line 3: the model has no label \"z\""));
    assert!(table("words,label\n10,a\n").contains("no column text"));
    assert!(table("text,words\n10,a\n").contains("no column label"));
    assert!(table("text,label\n").contains("no text"));
    assert!(table("text,label\n10\n").contains("line: 2"));
    let golden = json!({ "examples": [{ "text": "10", "label": "z" }] }).to_string();
    assert!(
        assert_exits_64(&directory, &["--against", &place.write_file("wrong.json", golden)])
            .contains("example 1: the model has no label")
    );
    let path = place.write_file("table.txt", LABELLED_TABLE);
    assert!(assert_exits_64(&directory, &["--against", &path]).contains(".json"));
    assert!(assert_exits_64(&directory, &["--texts", "/dev/zero"]).contains("no regular file"));
    assert!(assert_exits_64(&directory, &["--against", "/nonexistent.csv"]).contains("--against /nonexistent.csv: "));
    assert!(assert_exits_64(&directory, &["--texts", "/nonexistent"]).contains("--texts /nonexistent: "));
    assert!(assert_exits_64(&directory, &["--texts", &path, "--against", &path]).contains("one of them"));
    assert!(assert_exits_64(&directory, &["--min-accuracy", "0.5"]).contains("--against"));
    assert!(assert_exits_64(&directory, &["--max-flips", "5"]).contains("--compare"));
    assert!(
        assert_exits_64(&directory, &["--compare", "/nonexistent"])
            .contains("--compare /nonexistent: there is no such")
    );
    assert!(assert_exits_64(Path::new("/nonexistent"), &[]).contains("/nonexistent: there is no such directory"));
    assert!(assert_exits_64(&directory, &["--min-accuracy", "93", "--against", &path]).contains("between 0 and 1"));
    assert!(assert_exits_64(&directory, &["--onnxruntime", "/nonexistent"]).contains("make onnxruntime"));
}

#[test]
fn check_every_option_has_env_var_and_default() {
    assert_eq!(count_options_with_env_var_and_default("check"), 15);
}

#[test]
fn check_warns_of_tokenizer_class_and_problem_type() {
    let place = Scene::new();
    let model = ModelBuilder::plain()
        .tokenizer(|file| {
            file["model"] = json!({ "type": "WordPiece", "vocab": file["model"]["vocab"], "unk_token": "[UNK]",
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
        })
        .tokenizer_config("tokenizer_class", json!("BertTokenizer"))
        .config("problem_type", json!("multi_class"));
    let report = check_report(&place.write_version("1", &model), &[], 0);
    let warnings = &report.warnings;
    let class = "tokenizer.json has another normalizer and pre_tokenizer than BertTokenizer of transformers 5 builds";
    assert!(warnings.iter().any(|warning| warning.starts_with(class)), "{warnings:?}");
    let problem = "config.json: problem_type is \"multi_class\", which is none of";
    assert!(warnings.iter().any(|warning| warning.starts_with(problem)), "{warnings:?}");
}
