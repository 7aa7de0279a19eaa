//! The invariants that `src/lib.rs` promises, checked in manifests and sources.

use std::collections::BTreeSet;
use std::path::Path;

/// A dependency, and the crates that may have it outside of tests.
const DEPENDENCY_OWNERS: &[(&str, &[&str])] = &[
    ("ort", &["onnx"]),
    ("tokenizers", &["text"]),
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("tower-http", &["http"]),
    ("utoipa", &["api", "http"]),
    ("utoipa-axum", &["http"]),
    ("sqlx", &["registry"]),
    ("opentelemetry", &["telemetry"]),
    ("rayon", &["engine"]),
    ("tokio", &["", "engine", "http", "inference", "registry"]),
    ("clap", &["", "http", "text"]),
];

/// Crates without clock, lock or async code.
const PURE_CRATES: &[&str] = &["drift", "stats", "text"];

/// A rule: the files it is about, the words it forbids there, and where they are allowed.
struct Rule {
    /// Beginnings of paths below the repository; an empty one is every file.
    within: &'static [&'static str],
    forbidden: &'static [&'static str],
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        within: &[
            "crates/drift/",
            "crates/engine/src/scheduler.rs",
            "crates/engine/src/scheduler/",
            "crates/engine/src/cost_model.rs",
            "crates/experiments/src/bucketing.rs",
            "crates/experiments/src/design.rs",
            "crates/experiments/src/experiment",
            "crates/experiments/src/results.rs",
            "crates/experiments/src/rollout.rs",
            "crates/stats/",
            "crates/text/",
        ],
        forbidden: &["Instant", "SystemTime", "Mutex", "RwLock", "Condvar", "async", "await", "tokio", "parking_lot"],
        except: &[],
    },
    Rule { within: &[""], forbidden: &["env::var", "env::vars", "env::var_os"], except: &["src/config.rs"] },
    Rule {
        within: &[""],
        forbidden: &["unbounded", "unbounded_channel", "mpsc::channel", "unsafe", "set_var"],
        except: &[],
    },
    // Times before 1970 make libraries panic: `clock` has none.
    Rule {
        within: &[""],
        forbidden: &["SystemTime::now", "UNIX_EPOCH.elapsed", "now_v7"],
        except: &["crates/platform/src/clock.rs", "crates/http/src/api_keys.rs", "crates/telemetry/src/spans.rs"],
    },
    // A route is listed with who may use it.
    Rule {
        within: &["crates/http/", "src/server.rs", "src/server/"],
        forbidden: &[".route(", ".nest(", ".merge("],
        except: &["crates/http/src/route_table.rs"],
    },
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

/// Paths of the repository with their sources.
fn source_files() -> Vec<(String, String)> {
    fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new("src"), &mut found);
    for name in crate_names() {
        collect(&Path::new("crates").join(name).join("src"), &mut found);
    }
    assert!(found.len() > 30, "the source was found: {}", found.len());
    found
}

/// The crates of the workspace that are ours.
fn crate_names() -> Vec<String> {
    let folders = std::fs::read_dir("crates").unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    // A patched dependency.
    names.filter(|name| name != "httpdate").collect()
}

/// Names of the dependencies of a crate outside of tests; the empty name is the root package.
fn dependencies(name: &str) -> BTreeSet<String> {
    let path = if name.is_empty() { "Cargo.toml".to_owned() } else { format!("crates/{name}/Cargo.toml") };
    let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn manifests_keep_dependencies_in_their_crates() {
    let names: Vec<String> = std::iter::once(String::new()).chain(crate_names()).collect();
    for (dependency, owners) in DEPENDENCY_OWNERS {
        let having: BTreeSet<&str> =
            names.iter().filter(|name| dependencies(name).contains(*dependency)).map(String::as_str).collect();
        let owners: BTreeSet<&str> = owners.iter().copied().collect();
        assert_eq!(having, owners, "crates with {dependency}; the empty name is the root package");
    }
    for name in PURE_CRATES {
        let impure = ["tokio", "parking_lot", "tracing", "rayon"].map(str::to_owned);
        assert!(dependencies(name).is_disjoint(&impure.into()), "{name} is pure");
    }
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
                    "" => "src/cli.rs".to_owned(),
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
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let modules: Vec<String> = modules.map(str::to_owned).chain(crate_names()).collect();
    assert!(modules.len() >= 20, "{modules:?}");
    for module in &modules {
        assert!(map.iter().any(|line| line.contains(&format!("[`{module}`]"))), "{module} is in the code map");
    }
    // Every file and folder at the top is one of them.
    for entry in std::fs::read_dir("src").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(["lib", "main"].contains(&name.as_str()) || modules.contains(&name), "{name}");
    }
}
