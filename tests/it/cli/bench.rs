//! `predictd bench`: what it prints is true of the model, and `serve` takes what it recommends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;

use predictd::api::health::HealthReport;
use predictd::bench::report::BenchReport;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::cli_options::count_options_with_env_var_and_default;
use crate::support::daemon::{Daemon, predictd, run_to_exit, send_signal};
use crate::support::daemon_requests::get_ok;
use crate::support::model_builder::ModelBuilder;
use crate::support::snapshots::snapshot_settings;
use crate::support::test_server::{CHEAP_MODEL, cheap_models, shipped_models};

/// A benchmark of so short measurements that its figures mean nothing.
fn short_bench_command(models: &Path, options: &[&str]) -> Command {
    let fixed = ["bench", "--seconds", "0.1", "--models", models.to_str().unwrap()];
    predictd(&fixed.into_iter().chain(options.iter().copied()).collect::<Vec<_>>())
}

fn stdout_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code 64 and what is said with it.
fn assert_exits_64(models: &Path, options: &[&str]) -> String {
    let (code, said) = run_to_exit(&mut short_bench_command(models, options));
    assert_eq!(code, 64, "{options:?}: {said}");
    assert!(said.starts_with("predictd: ") && !said.contains("panicked"), "{said}");
    said
}

#[track_caller]
fn assert_positive(number: f64) {
    assert!(number > 0.0 && number.is_finite(), "{number}");
}

/// Measures a shipped model, and serves it with the options that were found.
fn bench_and_serve_recommendation(model: &str, caps: usize) -> BenchReport {
    let json = stdout_of(&mut short_bench_command(shipped_models(), &[model, "--json", "--clients", "4"]));
    let report: BenchReport = serde_json::from_str(&json).unwrap();
    let subject = &report.subject;
    let results = &report.results;
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!((subject.model.as_str(), subject.cores.usable), (model, cores));
    let setups = if cores == 1 { 1 } else { 1 + cores.ilog2().min(3) as usize + 1 };
    assert_eq!(results.tried.len(), setups + caps, "{report:?}");
    for trial in results.tried.iter().chain([&results.best]) {
        let workers = trial.setup.workers;
        let threads = trial.setup.intra_op_threads;
        assert!(workers >= 1 && threads >= 1 && workers * threads <= cores, "{trial:?}");
        assert!((0.0..1.0).contains(&trial.measurement.padding), "{trial:?}");
        assert_eq!(trial.measurement.unanswered, 0, "{trial:?}");
    }
    let limit = &results.limit;
    assert!([limit.lowest, limit.texts_per_second, limit.highest].is_sorted(), "{limit:?}");
    let best = &results.best.measurement;
    let [p50, p99] = [best.p50_ms, best.p99_ms].map(Option::unwrap);
    assert!(p50 <= p99, "{best:?}");
    for number in [limit.lowest, limit.texts_per_second, limit.highest, limit.cpu_seconds_per_1000, p50, p99] {
        assert_positive(number);
    }
    for number in [best.texts_per_second, best.cpu_seconds_per_1000, results.share] {
        assert_positive(number);
    }
    // The server runs the same texts and more beside them; measurements as short as these are that far off.
    assert!(results.share < 3.0, "{report:?}");
    assert_eq!(subject.texts.count, 512);

    let options: Vec<&str> = results.options.iter().map(String::as_str).collect();
    assert_eq!([options[0], options[2], options[4]], ["--workers", "--intra-op-threads", "--max-batch-tokens"]);
    let data = tempfile::tempdir().unwrap();
    let models = cheap_models();
    let daemon = Daemon::start_with(models.path(), data.path(), &options);
    assert_eq!(get_ok::<HealthReport>(daemon.address, "/health").status, "healthy");
    report
}

#[test]
fn bench_transformer_is_measured_at_every_batch_cap() {
    let subject = bench_and_serve_recommendation("banking77-minilm", 5).subject;
    assert!(subject.shares_runs && subject.cost.of_tokens, "{subject:?}");
    assert_positive(subject.cost.run_ms);
    assert_positive(subject.cost.token_us);
    // Half of the texts are short, and some are long.
    let texts = &subject.texts;
    assert!((15..30).contains(&texts.tokens_p50) && (50..80).contains(&texts.tokens_p90), "{texts:?}");
    assert!(texts.tokens_most > 100, "{texts:?}");
}

#[test]
fn bench_inline_model_has_no_batch_caps() {
    let report = bench_and_serve_recommendation(CHEAP_MODEL, 0);
    let padding = report.results.best.measurement.padding;
    assert!(padding == 0.0, "{padding}");
    assert!(!report.subject.cost.of_tokens);
}

/// A small transformer of the newest version, and one that is older and broken.
fn two_version_models() -> TempDir {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "small", "10");
    ModelBuilder::plain().with_graph("broken").write(models.path(), "small", "9");
    models
}

#[test]
fn bench_text_output_ends_with_serve_options() {
    let models = two_version_models();
    let place = tempfile::tempdir().unwrap();
    let texts = place.path().join("texts");
    std::fs::write(&texts, "10 20\n\n10 20 30 40\nhello\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = short_bench_command(models.path(), &["--texts", texts.to_str().unwrap(), "--clients", "2"]);
    // What would keep a server from starting, or from answering, does not concern the benchmark.
    let address = taken.local_addr().unwrap().to_string();
    command.current_dir(place.path()).env("PREDICTD_LISTEN", &address).env("PREDICTD_ADMIN_LISTEN", &address);
    command
        .env("PREDICTD_RATE_LIMIT", "1")
        .env("PREDICTD_KEYS", "/nonexistent")
        .env("PREDICTD_TLS_CERT", "/nonexistent");
    let said = stdout_of(&mut command);
    assert!(said.starts_with("small/10 on cpu, ") && said.contains("\n3 texts from "), "{said}");
    for part in ["usable cores", "a run costs ", "limit L1: ", " of L1's texts/s", "p99 ms", "padding"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.lines().last().unwrap().starts_with("predictd serve --workers "), "{said}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left but the texts");
}

#[test]
fn bench_json_matches_snapshot() {
    let models = two_version_models();
    let options = ["--clients", "2", "--latency-target", "1h", "--json"];
    let mut report: Value =
        serde_json::from_str(&stdout_of(&mut short_bench_command(models.path(), &options))).unwrap();
    // How many are tried depends on the cores.
    report["tried"].as_array_mut().unwrap().truncate(1);
    let figures = [
        (r#""(machine|quota|others_cores|free_padding_tokens)": [^,\n]+"#, "\"$1\": \"[measured]\""),
        (r#"": -?\d[^,\n]*"#, "\": \"[measured]\""),
        (r#"\n    "\d+""#, "\n    \"[measured]\""),
    ];
    snapshot_settings(&figures).bind(|| insta::assert_snapshot!("bench-json", format!("{report:#}")));
}

#[test]
fn bench_unreachable_target_is_reported() {
    let models = two_version_models();
    let said = stdout_of(&mut short_bench_command(models.path(), &["--clients", "2", "--latency-target", "1ns"]));
    assert!(said.contains("no set-up answers 99 of 100") && said.contains("lowest p99"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("predictd serve --workers "), "{said}");
}

#[test]
fn bench_unusable_model_or_texts_exits_64() {
    let models = two_version_models();
    let place = tempfile::tempdir().unwrap();
    let said = assert_exits_64(models.path(), &["large"]);
    assert!(said.contains("\"large\"") && said.contains("those it holds: small"), "{said}");
    assert!(assert_exits_64(place.path(), &[]).contains("NAME/VERSION"));
    assert!(assert_exits_64(&place.path().join("none"), &[]).contains("no such directory"));
    assert!(assert_exits_64(models.path(), &["--onnxruntime", "/nonexistent"]).contains("make onnxruntime"));
    let broken = tempfile::tempdir().unwrap();
    ModelBuilder::plain().with_graph("broken").write(broken.path(), "broken", "1");
    assert!(assert_exits_64(broken.path(), &[]).contains("broken/1: model.onnx"));

    let file = place.path().join("texts");
    let texts = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let said = assert_exits_64(models.path(), &["--texts", file.to_str().unwrap()]);
        assert!(said.contains(&format!("--texts {}", file.display())), "{said}");
        said
    };
    assert!(texts(b"").contains("no text") && texts(b" \n\t\n").contains("no text"));
    assert!(texts(b"\xff\n").contains("UTF-8"));
    assert!(texts(b"10\n\n<script>x</script>\n").contains("line 3: "));
    assert!(texts("1 ".repeat(20_000).as_bytes()).contains("more than 32768 characters"));
    assert!(assert_exits_64(models.path(), &["--texts", "/nonexistent"]).contains("--texts /nonexistent: "));
}

#[test]
fn bench_invalid_option_exits_64() {
    let models = two_version_models();
    for options in [
        &["--clients", "0"][..],
        &["--clients", "1025"],
        &["--seconds", "0"],
        &["--seconds", "soon"],
        &["--latency-target", "50"],
        &["--json=perhaps"],
    ] {
        let fixed = ["bench", "--models", models.path().to_str().unwrap()];
        let (code, said) =
            run_to_exit(&mut predictd(&fixed.into_iter().chain(options.iter().copied()).collect::<Vec<_>>()));
        let name = options[0].split('=').next().unwrap();
        assert!(code == 64 && said.contains(name), "{options:?}: {code} {said}");
    }
}

#[test]
fn bench_every_option_has_env_var_and_default() {
    assert_eq!(count_options_with_env_var_and_default("bench"), 8);
    // Set to nothing is not set.
    let models = two_version_models();
    let mut command = short_bench_command(models.path(), &["--clients", "1"]);
    stdout_of(command.env("PREDICTD_TEXTS", "").env("PREDICTD_ONNXRUNTIME", "").env("PREDICTD_DEFAULT_MODEL", ""));
}

#[test]
fn bench_interrupt_stops_it() {
    let models = two_version_models();
    let mut command = predictd(&["bench", "--seconds", "60", "--models", models.path().to_str().unwrap()]);
    let mut child = command.spawn().unwrap();
    // The measurements begin: they would take half an hour.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("workers") {}
    send_signal(child.id(), "INT");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(1), "predictd: the benchmark was interrupted\n"));
}
