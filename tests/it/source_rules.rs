//! The invariants that `src/lib.rs` promises, checked in the source itself.

use std::path::Path;

/// A rule: the files it is about, the words it forbids there, and where they are allowed.
struct Rule {
    /// Beginnings of paths below `src/`; an empty one is every file.
    within: &'static [&'static str],
    forbidden: &'static [&'static str],
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { within: &[""], forbidden: &["ort::", "use ort", "extern crate ort"], except: &["onnx.rs", "onnx/"] },
    Rule {
        within: &[""],
        forbidden: &["tokenizers::", "use tokenizers"],
        except: &["text/tokenizer.rs", "text/tokenizer/"],
    },
    Rule {
        within: &[""],
        forbidden: &["axum::", "use axum", "StatusCode", "hyper::", "tower_http::", "utoipa_axum"],
        except: &["http/"],
    },
    Rule { within: &[""], forbidden: &["opentelemetry"], except: &["telemetry/spans.rs"] },
    Rule {
        within: &[
            "drift/",
            "engine/scheduler.rs",
            "engine/scheduler/",
            "engine/cost_model.rs",
            "experiments/bucketing.rs",
            "experiments/design.rs",
            "experiments/experiment",
            "experiments/results.rs",
            "experiments/rollout.rs",
            "experiments/statistics",
            "text/",
        ],
        forbidden: &["Instant", "SystemTime", "Mutex", "RwLock", "Condvar", "async", "await", "tokio", "parking_lot"],
        except: &[],
    },
    Rule { within: &[""], forbidden: &["env::var", "env::vars", "env::var_os"], except: &["config.rs"] },
    Rule {
        within: &[""],
        forbidden: &["unbounded", "unbounded_channel", "mpsc::channel", "unsafe", "set_var"],
        except: &[],
    },
    // Times before 1970 make libraries panic: `clock` has none. What may not import it takes care by itself.
    Rule {
        within: &[""],
        forbidden: &["SystemTime::now", "UNIX_EPOCH.elapsed", "now_v7"],
        except: &["clock.rs", "api_keys.rs", "telemetry/spans.rs"],
    },
    // Who may import whom.
    Rule {
        within: &["config.rs", "telemetry.rs", "metrics.rs", "shutdown.rs"],
        forbidden: &["crate::", "super::"],
        except: &[],
    },
    Rule { within: &["config/", "telemetry/", "metrics/"], forbidden: &["crate::", "super::super"], except: &[] },
    Rule {
        within: &[
            "atomic_file.rs",
            "clock.rs",
            "fd_limit.rs",
            "memory.rs",
            "memory/",
            "terminal.rs",
            "file_watcher.rs",
        ],
        forbidden: &["crate::"],
        except: &[],
    },
    Rule { within: &["api_keys.rs"], forbidden: OUTSIDE_API_KEYS, except: &[] },
    // A route is listed with who may use it.
    Rule {
        within: &["http/", "server.rs", "server/"],
        forbidden: &[".route(", ".nest(", ".merge("],
        except: &["http/route_table.rs"],
    },
    // They run the server, or models as it does: nothing that is served depends on them.
    Rule {
        within: &["engine/", "experiments/", "http/", "onnx/", "registry/", "text/"],
        forbidden: &["crate::bench", "crate::check", "crate::drift_profile"],
        except: &[],
    },
    Rule { within: &["text/"], forbidden: OUTSIDE_TEXT, except: &[] },
    Rule { within: &["engine/"], forbidden: OUTSIDE_ENGINE, except: &[] },
    Rule { within: &["onnx.rs", "onnx/"], forbidden: OUTSIDE_ONNX, except: &[] },
    Rule { within: &["registry/"], forbidden: OUTSIDE_REGISTRY, except: &[] },
    Rule { within: &["experiments/"], forbidden: OUTSIDE_EXPERIMENTS, except: &[] },
    Rule {
        within: &[""],
        forbidden: &["crate::http", "predictd::http", "use http"],
        except: &["http/", "memory_budget.rs", "check/", "server.rs", "server/", "main.rs", "watch/"],
    },
];

const OUTSIDE_API_KEYS: &[&str] = &[
    "crate::admin_commands",
    "crate::bench",
    "crate::check",
    "crate::cli",
    "crate::clock",
    "crate::config",
    "crate::drift",
    "crate::engine",
    "crate::experiments",
    "crate::fd_limit",
    "crate::file_watcher",
    "crate::health_command",
    "crate::http",
    "crate::http_client",
    "crate::listeners",
    "crate::log_summary",
    "crate::memory",
    "crate::memory_budget",
    "crate::metrics",
    "crate::onnx",
    "crate::drift_profile",
    "crate::registry",
    "crate::server",
    "crate::shutdown",
    "crate::telemetry",
    "crate::terminal",
    "crate::text",
    "crate::watch",
    "crate::{",
    "crate::*",
];
const OUTSIDE_TEXT: &[&str] = &[
    "crate::memory_budget",
    "crate::cli",
    "crate::engine",
    "crate::experiments",
    "crate::http",
    "crate::metrics",
    "crate::onnx",
    "crate::registry",
    "crate::shutdown",
    "crate::telemetry",
    "crate::{",
    "crate::*",
];
const OUTSIDE_ENGINE: &[&str] = &[
    "crate::memory_budget",
    "crate::cli",
    "crate::experiments",
    "crate::http",
    "crate::onnx",
    "crate::registry",
    "crate::shutdown",
    "crate::telemetry",
    "crate::{",
    "crate::*",
];
const OUTSIDE_ONNX: &[&str] = &[
    "crate::memory_budget",
    "crate::cli",
    "crate::experiments",
    "crate::http",
    "crate::metrics",
    "crate::registry",
    "crate::shutdown",
    "crate::telemetry",
    "crate::{",
    "crate::*",
];
const OUTSIDE_EXPERIMENTS: &[&str] = &[
    "crate::memory_budget",
    "crate::cli",
    "crate::config",
    "crate::engine",
    "crate::http",
    "crate::metrics",
    "crate::onnx",
    "crate::registry",
    "crate::shutdown",
    "crate::telemetry",
    "crate::{",
    "crate::*",
];
const OUTSIDE_REGISTRY: &[&str] = &[
    "crate::memory_budget",
    "crate::cli",
    "crate::http",
    "crate::onnx",
    "crate::shutdown",
    "crate::telemetry",
    "crate::{",
    "crate::*",
];

/// The rules that one file breaks: `path: word`, once each.
fn broken_rules(path: &str, source: &str) -> Vec<String> {
    let code = strip_comments_and_strings(source);
    let concerns = |beginnings: &[&str]| beginnings.iter().any(|beginning| path.starts_with(beginning));
    let rules = RULES.iter().filter(|rule| concerns(rule.within) && !concerns(rule.except));
    let words = rules.flat_map(|rule| rule.forbidden).filter(|word| has_word(&code, word));
    words.map(|word| format!("{path}: {word}")).collect()
}

/// True if `word` stands in `code` and no longer name does in its place.
fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back().is_some_and(is_name);
        let after = code[start + word.len()..].chars().next().is_some_and(is_name);
        !(before || (after && word.ends_with(is_name)))
    })
}

/// Source without comments and without what is in string literals.
fn strip_comments_and_strings(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(quote) = raw_string_prefix_len(rest) {
            let end = format!("\"{}", "#".repeat(quote - 2));
            rest[quote..].find(&end).map_or(rest.len(), |at| quote + at + end.len())
        } else if first == '"' {
            1 + literal_end(&rest[1..], '"')
        } else if first == '\'' {
            // A character, or a lifetime, which has no second quote.
            let length = 1 + literal_end(&rest[1..], '\'');
            let is_character = rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'');
            if is_character { length } else { 1 }
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// Length of the opening of a raw string: `r"`, `r#"` and so on, without a `b` before it.
fn raw_string_prefix_len(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].starts_with('"').then_some(count + 2)
}

/// Where a literal ends, its closing quote included.
fn literal_end(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices() {
        if c == quote && !escaped {
            return index + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// Paths below `src/` with their sources.
fn source_files() -> Vec<(String, String)> {
    fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix("src").unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new("src"), &mut found);
    assert!(found.len() > 30, "the source was found: {}", found.len());
    found
}

#[test]
fn source_keeps_module_rules() {
    let found: Vec<String> = source_files().iter().flat_map(|(path, source)| broken_rules(path, source)).collect();
    assert_eq!(found, Vec::<String>::new());
}

/// Every word of every rule is found where it is planted, and not where it is allowed.
#[test]
fn source_rules_detect_planted_violations() {
    for rule in RULES {
        for word in rule.forbidden {
            for within in rule.within {
                let path = match *within {
                    "" => "cli.rs".to_owned(),
                    directory if directory.ends_with('/') => format!("{directory}planted.rs"),
                    file => file.to_owned(),
                };
                let source = format!("//! Says nothing.\nfn f() {{}}\n{word} x;\n");
                assert!(broken_rules(&path, &source).contains(&format!("{path}: {word}")), "{path}: {word}");
                let comment = format!("//! {word} is not used.\n/* {word} */ const X: &str = \"{word}\"; // {word}\n");
                assert_eq!(broken_rules(&path, &comment), Vec::<String>::new(), "{word} in a comment");
            }
            for except in rule.except {
                let path = if except.ends_with('/') { format!("{except}planted.rs") } else { (*except).to_owned() };
                assert!(!broken_rules(&path, word).contains(&format!("{path}: {word}")), "{word} is allowed in {path}");
            }
        }
    }
}

#[test]
fn source_rules_ignore_comments_and_strings() {
    let source = "fn a<'a>(x: &'a str) { b(\"un\\\"safe // no\", '\"', '\\'', r#\"x \" unsafe\"#); } // unsafe\nlet unsafely = 1;";
    assert!(!has_word(&strip_comments_and_strings(source), "unsafe"), "{}", strip_comments_and_strings(source));
    assert!(has_word(&strip_comments_and_strings("let c = '\"'; unsafe { x() } // \""), "unsafe"));
    assert!(has_word("ort::init()", "ort::") && !has_word("import::x", "ort::"));
}

#[test]
fn code_map_names_every_module() {
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    let map: Vec<&str> = lib.lines().filter(|line| line.starts_with("//! - ")).collect();
    let modules: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() >= 10, "{modules:?}");
    for module in &modules {
        assert!(map.iter().any(|line| line.contains(&format!("[`{module}`]"))), "{module} is in the code map");
    }
    // Every file and folder at the top is one of them.
    for entry in std::fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(["lib", "main"].contains(&name.as_str()) || modules.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn release_profile_checks_overflow_and_unwinds() {
    let manifest: toml::Table = std::fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    let release = &manifest["profile"]["release"];
    assert_eq!((release["panic"].as_str(), release["overflow-checks"].as_bool()), (Some("unwind"), Some(true)));
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}
