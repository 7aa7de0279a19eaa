//! `predictd check`: what it says of a directory is true, and its exit code can be relied on.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli_options::count_options_with_env_var_and_default;
use crate::support::daemon::predictd;
use crate::support::model_builder::onnx_graph::{Attribute, OnnxGraph};
use crate::support::model_builder::sample_models::{summing_pair_model, threshold_model, token_labelling_model};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::snapshots::{snapshot_settings, transcript};
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

/// Exit code, standard output, standard error.
fn run_check(directory: &Path, options: &[&str]) -> (i32, String, String) {
    let fixed = ["check", directory.to_str().unwrap()];
    let output = predictd(&fixed.into_iter().chain(options.iter().copied()).collect::<Vec<_>>()).output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), out, said)
}

/// The JSON of a check that ends with this code.
fn check_report(directory: &Path, options: &[&str], code: i32) -> Value {
    let (found, out, said) = run_check(directory, &options.iter().copied().chain(["--json"]).collect::<Vec<_>>());
    assert_eq!(found, code, "{out}{said}");
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}"));
    assert_eq!(report["ok"], code == 0, "{report}");
    match report["failures"].as_array().unwrap().first() {
        None => assert_eq!((code, said.as_str()), (0, "")),
        Some(first) => {
            let first = first.as_str().unwrap();
            // The library may have said something before.
            assert!(code == 1 && said.ends_with(&format!("predictd: {}: {first}\n", directory.display())), "{said}");
        }
    }
    report
}

fn assert_exits_64(directory: &Path, options: &[&str]) -> String {
    let (code, out, said) = run_check(directory, options);
    assert_eq!((code, out.as_str()), (64, ""), "{options:?}: {said}");
    assert!(said.starts_with("predictd: ") || said.starts_with("error: "), "{said}");
    said
}

fn to_strs(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn check_shipped_models_pass() {
    for (name, head, tokens) in
        [("banking77-minilm", "softmax", json!(512)), ("banking77-tfidf", "probabilities", Value::Null)]
    {
        let report = check_report(&shipped_models().join(name).join("1"), &[], 0);
        let model = &report["model"];
        assert_eq!((&model["task"], &model["head"]), (&json!("single_label_classification"), &json!(head)));
        assert_eq!((&model["device"], &model["golden_examples"]), (&json!("cpu"), &json!(50)));
        assert_eq!((to_strs(&model["labels"]).len(), &model["tokens"]["max_tokens"]), (77, &tokens));
        assert_eq!((&model["shares_runs"], &model["batch_dependent"]), (&json!(true), &json!(false)));
        let graph = model["files"].as_array().unwrap().iter().find(|file| file["name"] == "model.onnx").unwrap();
        assert_eq!((&graph["digest"], &graph["bytes"]), (&json!(true), &model["graph_bytes"]));
        let invariance = &report["invariance"];
        assert_eq!((&invariance["changed"], &invariance["failed"]), (&json!(0), &Value::Null));
        assert_eq!(invariance["texts"], 306);
        assert!((33..=64).contains(&invariance["most_texts"].as_u64().unwrap()), "{invariance}");
        assert!(invariance["largest_score_difference"].as_f64().unwrap() < 1e-5, "{invariance}");
        assert_eq!((&report["texts"]["refused"], &report["texts"]["failed"]), (&json!(0), &json!(0)));
        for number in ["/memory/model_bytes", "/memory/server_most_bytes", "/cost/run_ms"] {
            assert!(report.pointer(number).and_then(Value::as_f64).is_some_and(|n| n > 0.0), "{number}: {report}");
        }
        assert_eq!((&report["against"], &report["compare"]), (&Value::Null, &Value::Null));
        assert_eq!(to_strs(&report["warnings"]), [""; 0]);
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
        assert!(report["failures"][0].as_str().unwrap().starts_with(file), "{report}");
        assert_eq!(report.get("model"), None, "{report}");
    }
    let empty = place.0.path().join("small");
    let (code, out, _) = run_check(&empty, &[]);
    assert!(code == 1 && out.ends_with("\nnot ok\n") && out.contains("failed: model.onnx: "), "{out}");
    // It would serve, but not with so little memory.
    let fine = place.write_version("6", &model);
    let little = check_report(&fine, &["--memory-limit", "1000000"], 1);
    assert!(little["failures"][0].as_str().unwrap().contains("1000000 are allowed"), "{little}");
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

/// Four texts of which the model gets three right; lines end as on other systems, and one text has two.
const LABELLED_TABLE: &str = "id,category,TEXT\r\n1,b,10 20\r\n2,a,\"40\r\n30\"\r\n3,b,60\r\n4,a,\"70, 5\"\r\n";

#[test]
fn check_labelled_table_reports_accuracy() {
    let place = Scene::new();
    let directory = place.write_version("1", &threshold_model().model().labels(&["a", "b"]));
    let table = place.write_file("table.csv", LABELLED_TABLE);
    let right = check_report(&directory, &["--against", &table, "--min-accuracy", "0.75"], 0);
    let against = &right["against"];
    assert_eq!((&against["texts"], &against["right"], &against["accuracy"]), (&json!(4), &json!(3), &json!(0.75)));
    let [difference] = &against["first_differences"].as_array().unwrap()[..] else { panic!("{against}") };
    assert_eq!((&difference["number"], &difference["expected"]), (&json!(5), &json!(["b"])));
    assert_eq!(difference["given"]["labels"], json!(["a"]));
    // 60 and the special tokens make 65: 6.5 - 5.45 against 0.
    let score = difference["given"]["score"].as_f64().unwrap();
    assert!((score - 1.0 / (1.0 + (-1.05_f64).exp())).abs() < 1e-6, "{score}");
    assert_eq!(right["texts"]["unit"], "line");
    assert_eq!(right["against"]["mean_absolute_error"], Value::Null);

    let wrong = check_report(&directory, &["--against", &table, "--min-accuracy", "0.76"], 1);
    assert_eq!(to_strs(&wrong["failures"]), ["the accuracy is 0.750000, where --min-accuracy is 0.76"]);
    // People are told of rows, not of texts.
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
    assert_eq!((&graded["against"]["right"], &graded["texts"]["refused"]), (&json!(2), &json!(1)));
    assert_eq!((&graded["against"]["reproduced"], &graded["against"]["unanswered"]), (&json!(1), &json!(1)));
    let numbers = graded["against"]["first_differences"].as_array().unwrap().iter().map(|d| d["number"].as_u64());
    assert_eq!((numbers.collect::<Vec<_>>(), &graded["texts"]["unit"]), (vec![Some(2), Some(3)], &json!("example")));
    assert!(
        to_strs(&graded["warnings"]).iter().any(|w| w.contains("1 of 3 texts are refused; example 3: ")),
        "{graded}"
    );
}

#[test]
fn check_pairs_and_entities_are_compared() {
    let place = Scene::new();
    // Numbers are near or far.
    let summing = place.write_version("1", &summing_pair_model());
    let pairs = place.write_file("pairs.csv", "text,text_pair,label\n10 20,30,2067\n10,20,2040\n");
    let numbers = check_report(&summing, &["--against", &pairs], 0);
    // 10 + 20 + 30 and 10 + 20; the special tokens of a pair add 8, and each of two tokens of the second segment 1,000.
    assert_eq!(numbers["against"]["mean_absolute_error"], 1.5);
    assert_eq!(numbers["against"]["largest_error"], 2.0);
    assert_eq!((&numbers["against"]["accuracy"], &numbers["against"]["first_differences"]), (&Value::Null, &json!([])));
    let refused = check_report(&summing, &["--against", &pairs, "--min-accuracy", "0.5"], 1);
    assert!(refused["failures"][0].as_str().unwrap().starts_with("--min-accuracy: "), "{refused}");
    assert!(
        assert_exits_64(&summing, &["--against", &place.write_file("no.csv", "text,label\n10,ten\n")])
            .contains("line 2")
    );

    // Several labels are right if all are.
    let several =
        threshold_model().model().labels(&["a", "b"]).config("problem_type", json!("multi_label_classification"));
    let several = place.write_version("2", &several);
    let table = place.write_file("several.csv", "text,label\n60,b|a\n60,a\n10,b\n");
    let found = check_report(&several, &["--against", &table], 0);
    assert_eq!((&found["against"]["right"], &found["model"]["thresholds"]), (&json!(2), &json!([0.5, 0.5])));

    // Entities are where they are.
    let labelling = place.write_version("3", &token_labelling_model());
    let entity = |start, end| json!({ "text": "10 40 60", "entities": [{ "label": "N", "start": start, "end": end }] });
    let golden = json!({ "examples": [entity(3, 8), entity(3, 5)] }).to_string();
    let found = check_report(&labelling, &["--against", &place.write_file("entities.json", golden)], 0);
    assert_eq!((&found["against"]["right"], &found["model"]["task"]), (&json!(1), &json!("token_classification")));
    assert_eq!(found["against"]["first_differences"][0]["given"]["labels"], json!(["N 3..8"]));
    let invariance = &found["invariance"];
    assert_eq!(
        (&invariance["texts"], &invariance["changed"], &invariance["failed"]),
        (&json!(2), &json!(0), &Value::Null)
    );
    assert!(assert_exits_64(&labelling, &["--against", &table]).contains("golden.json"));
}

#[test]
fn check_against_version_compares_by_label_name() {
    let place = Scene::new();
    let model = threshold_model().model();
    let first = place.write_version("1", &model.clone().labels(&["a", "b"]));
    let table = place.write_file("table.csv", LABELLED_TABLE);
    let same =
        check_report(&first, &["--compare", first.to_str().unwrap(), "--against", &table, "--max-flips", "0"], 0);
    let compare = &same["compare"];
    assert_eq!((&compare["texts"], &compare["flips"], &compare["flip_share"]), (&json!(4), &json!(0), &json!(0.0)));
    assert_eq!((&compare["largest_score_difference"], &compare["size_ratio"]), (&json!(0.0), &json!(1.0)));
    assert_eq!((&compare["accuracy"], &compare["first_flips"]), (&json!(0.75), &json!([])));
    assert!(compare["time_ratio"].as_f64().unwrap() > 0.0);

    // The same labels in another order, each with its own score.
    let turned = TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("bias", 0.0)])
        .logit(&[("input_ids", 0.1), ("bias", -5.45)]);
    let turned = place.write_version("2", &turned.model().labels(&["b", "a"]));
    let compare = &check_report(&first, &["--compare", turned.to_str().unwrap(), "--max-flips", "0"], 0)["compare"];
    assert_eq!(compare["flips"], 0);
    assert!(compare["largest_score_difference"].as_f64().unwrap() < 1e-6, "{compare}");

    // The same scores under exchanged names.
    let exchanged = place.write_version("3", &model.clone().labels(&["b", "a"]));
    let options = ["--compare", exchanged.to_str().unwrap(), "--against", &table];
    let compare = &check_report(&first, &options, 0)["compare"];
    assert_eq!(
        (&compare["flips"], &compare["flip_share"], &compare["accuracy"]),
        (&json!(4), &json!(1.0), &json!(0.25))
    );
    let flip = &compare["first_flips"][2];
    assert_eq!(
        (&flip["number"], &flip["this"]["labels"], &flip["other"]["labels"]),
        (&json!(5), &json!(["a"]), &json!(["b"]))
    );
    let failed = check_report(&first, &[&options[..], &["--max-flips", "3"]].concat(), 1);
    let failure = failed["failures"][0].as_str().unwrap();
    assert!(
        failure.starts_with("4 answers differ from those of ") && failure.ends_with("--max-flips is 3"),
        "{failure}"
    );

    // Names that only one of them has.
    let renamed = place.write_version("4", &model.clone().labels(&["a", "c"]));
    let compare = &check_report(&first, &["--compare", renamed.to_str().unwrap(), "--against", &table], 0)["compare"];
    assert_eq!((&compare["labels_here_only"], &compare["labels_there_only"]), (&json!(["b"]), &json!(["c"])));
    assert_eq!(compare["flips"], 1, "{compare}");
    // What cannot be compared, or not be loaded.
    for (number, other) in [(5, summing_pair_model()), (6, model.with_graph("no graph"))] {
        let other = place.write_version(&number.to_string(), &other);
        let failed = check_report(&first, &["--compare", other.to_str().unwrap(), "--max-flips", "9999"], 1);
        assert!(failed["failures"][0].as_str().unwrap().starts_with(other.to_str().unwrap()), "{failed}");
        assert_eq!(failed["compare"], Value::Null);
    }
}

#[test]
fn check_batch_influence_is_measured() {
    let place = Scene::new();
    // The last id of a row is padding where another text is longer.
    let last = TransformerBuilder::new(&["input_ids"]).logit(&[("last", 1.0)]).logit(&[("bias", 2.0)]);
    let directory = place.write_version("1", &last.model().labels(&["a", "b"]));
    let texts = place.write_file("texts", "10\n\n10 20 30\n10 20\n");
    let report = check_report(&directory, &["--texts", &texts], 0);
    assert_eq!((&report["model"]["shares_runs"], &report["texts"]["count"]), (&json!(false), &json!(3)));
    assert!(report["model"]["unbatchable_reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let invariance = &report["invariance"];
    assert_eq!((&invariance["texts"], &invariance["changed"]), (&json!(3), &json!(2)));
    let numbers: Vec<_> =
        invariance["first_changed"].as_array().unwrap().iter().map(|c| c["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(4)]);
    assert_eq!(invariance["first_changed"][0]["alone"]["labels"], json!(["a"]));
    assert_eq!(invariance["first_changed"][0]["together"]["labels"], json!(["b"]));
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
    let failure = found["failures"][0].as_str().unwrap();
    assert!(
        failure.starts_with("answers depend on the texts that share their run: 0 have other labels, "),
        "{failure}"
    );
    assert!(found["invariance"]["moved"].as_u64().unwrap() > 100, "{found}");
    let failing = place.write_version("2", &regression(&changes_beyond_sixteen_texts(true)));
    let found = check_report(&failing, &[], 1);
    assert!(found["failures"][0].as_str().unwrap().starts_with("a run of several texts fails: "), "{found}");

    let fine = place.write_version("3", &threshold_model().model().labels(&["a", "b"]));
    let refused = check_report(&fine, &["--texts", &place.write_file("refused", "<script>x</script>\n\0\n")], 1);
    assert!(refused["failures"][0].as_str().unwrap().contains("nothing was measured"), "{refused}");
    // A link that leads nowhere is nothing that a load reads.
    std::os::unix::fs::symlink("/nonexistent", fine.join("notes.txt")).unwrap();
    check_report(&fine, &[], 0);
    // Numbers have no labels to flip.
    let numbers = place.write_version("4", &summing_pair_model());
    let failed = check_report(&numbers, &["--compare", numbers.to_str().unwrap(), "--max-flips", "0"], 1);
    assert!(failed["failures"][0].as_str().unwrap().starts_with("--max-flips: "), "{failed}");
}

#[test]
fn check_warns_author_of_incomplete_model() {
    let place = Scene::new();
    let model = threshold_model().model().labels(&["LABEL_0", "LABEL_1"]).config("max_position_embeddings", json!(8));
    let directory = place.write_version("1", &model);
    let texts = place.write_file("texts", "1 2 3 4 5 6 7 8 9\n10\n<script>x</script>\n");
    let report = check_report(&directory, &["--texts", &texts, "--on-overflow", "truncate"], 0);
    let warnings = to_strs(&report["warnings"]);
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
    let tokens = &report["model"]["tokens"];
    assert_eq!((&tokens["max_tokens"], &tokens["max_tokens_named"]), (&json!(8), &json!(true)));
    let without = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).logit(&[]);
    let report = self::check_report(&place.write_version("2", &without.model().labels(&["a", "b"])), &[], 0);
    assert!(to_strs(&report["warnings"]).iter().any(|warning| warning.contains("512 are taken")), "{report}");
    assert_eq!(report["texts"]["from"], "plain sentences and texts of their words");
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
    let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let class = "tokenizer.json has another normalizer and pre_tokenizer than BertTokenizer of transformers 5 builds";
    assert!(warnings.iter().any(|warning| warning.starts_with(class)), "{warnings:?}");
    let problem = "config.json: problem_type is \"multi_class\", which is none of";
    assert!(warnings.iter().any(|warning| warning.starts_with(problem)), "{warnings:?}");
}
