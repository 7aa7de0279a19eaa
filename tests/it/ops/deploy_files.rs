//! The files for operators: what they ask of metrics is there.

use std::collections::{BTreeMap, BTreeSet};

use predictd::http::error::{Code, GATEWAY_PROBLEMS};
use serde_json::Value;

use crate::support::snapshots::read_snapshot;

/// The metrics of a server with their labels, and those of the watcher and of a GPU by their names in the source.
fn known_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::new();
    for line in read_snapshot("tests/it/ops/snapshots/metrics.snap").lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (kind, rest) = rest.split_once(" {").unwrap();
        let labels: BTreeSet<String> =
            rest.split_once('}').unwrap().0.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for part in parts {
            let more = (*part == "_bucket").then(|| "le".to_owned());
            known.insert(format!("{name}{part}"), labels.iter().cloned().chain(more).collect());
        }
    }
    for file in ["crates/metrics/src/system_sampler.rs", "src/watch/metrics.rs"] {
        let source = std::fs::read_to_string(file).unwrap();
        let names =
            source.split('"').filter(|part| part.starts_with("predictd_gpu_") || part.starts_with("predictd_watch_"));
        known.extend(
            names.map(|name| (name.to_owned(), ["gpu", "name", "result", "state", "url"].map(str::to_owned).into())),
        );
    }
    known.insert("up".to_owned(), BTreeSet::new());
    known
}

/// Labels that Prometheus itself adds.
const PROMETHEUS_LABELS: [&str; 2] = ["instance", "job"];

/// Every metric of an expression is there, with the labels that are asked for.
fn count_known_metrics(place: &str, expression: &str, known: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = 0;
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let end = rest[start..].find(|c| !word(c)).map_or(rest.len(), |end| start + end);
        let name = &rest[start..end];
        rest = &rest[end..];
        if !(name.starts_with("predictd_") || name.starts_with("process_") || name == "up") {
            // Text in quotes is none of ours.
            continue;
        }
        found += 1;
        let labels = known.get(name).unwrap_or_else(|| panic!("{place}: there is no metric {name}: {expression}"));
        if let Some(selected) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(labels, _)| labels) {
            for label in
                selected.split(", ").filter_map(|part| part.split_once(['=', '!']).map(|(label, _)| label.trim()))
            {
                assert!(
                    labels.contains(label) || PROMETHEUS_LABELS.contains(&label),
                    "{place}: {name} has no label {label}"
                );
            }
        }
    }
    found
}

#[test]
fn dashboard_queries_use_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string("deploy/grafana/predictd.json").unwrap()).unwrap();
    let known = known_metrics();
    let mut asked = 0;
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(places.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's too");
        for target in panel["targets"].as_array().unwrap() {
            let found = count_known_metrics(title, target["expr"].as_str().unwrap(), &known);
            assert!(found > 0, "{title} asks for nothing");
            asked += found;
        }
    }
    assert!(asked > 40, "{asked}");
}

#[test]
fn alert_rules_use_existing_metrics_and_are_tested() {
    let (rules, tests) = ["alerts.yml", "alerts_test.yml"]
        .map(|file| std::fs::read_to_string(format!("deploy/prometheus/{file}")).unwrap())
        .into();
    let known = known_metrics();
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let expression = rule.split_once("expr:").unwrap().1.split("\n        labels:").next().unwrap();
        assert!(count_known_metrics(name, expression.split("\n        for:").next().unwrap(), &known) > 0, "{name}");
        assert!(rule.contains("summary:") && rule.contains("action:"), "{name} says nothing");
        // promtool runs these; each alert must be seen to fire.
        let fires = tests
            .split(&format!("alertname: {name}\n"))
            .skip(1)
            .any(|test| test.trim_start().starts_with("exp_alerts:\n"));
        assert!(fires, "no test has {name} fire");
        alerts += 1;
    }
    assert!(alerts >= 12, "{alerts}");
}

/// What nginx says in the server's stead are kinds that the documentation page lists, with their statuses and titles.
#[test]
fn gateway_problem_kinds_are_documented() {
    let listed: Vec<(String, u64, &str)> = Code::ALL
        .iter()
        .map(|code| (code.kind().to_owned(), u64::from(code.status().as_u16()), code.title()))
        .chain(GATEWAY_PROBLEMS.iter().map(|&(kind, status, title)| (kind.to_owned(), u64::from(status), title)))
        .collect();
    let file = std::fs::read_to_string("deploy/nginx/problems.conf").unwrap();
    let written = file.lines().filter_map(|line| Some(line.split_once("'\"type\"")?.1.rsplit_once("';")?.0));
    let problems: Vec<Value> =
        written.map(|rest| serde_json::from_str(&format!("{{\"type\"{rest}}}")).unwrap()).collect();
    assert!(problems.len() > 10);
    for problem in problems {
        let kind = problem["type"].as_str().unwrap().strip_prefix("/docs#").unwrap().to_owned();
        let said = (kind, problem["status"].as_u64().unwrap(), problem["title"].as_str().unwrap());
        assert!(listed.contains(&said), "{said:?} is not listed");
    }
}

/// Row P9 of the catalogue: what a release is built with.
#[test]
fn release_profile_checks_overflow_and_unwinds() {
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string("Cargo.toml").unwrap()).unwrap();
    let release = manifest["profile"]["release"].as_table().unwrap();
    assert_eq!(release["overflow-checks"].as_bool(), Some(true));
    assert_eq!(release["panic"].as_str(), Some("unwind"));
    assert_eq!(manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    // What this very program was built with: the tests have the same kind of panic.
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
}
