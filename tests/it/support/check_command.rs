//! `predictd check`.

use std::path::Path;

use predictd::check::report::CheckReport;
use serde_json::Value;

use crate::support::daemon::predictd;

/// Exit code, standard output, standard error.
pub(crate) fn run_check(directory: &Path, options: &[&str]) -> (i32, String, String) {
    let fixed = ["check", directory.to_str().unwrap()];
    let output = predictd(&fixed.into_iter().chain(options.iter().copied()).collect::<Vec<_>>()).output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), out, said)
}

/// What a check finds that ends with this code.
pub(crate) fn check_report(directory: &Path, options: &[&str], code: i32) -> CheckReport {
    let (found, out, said) = run_check(directory, &options.iter().copied().chain(["--json"]).collect::<Vec<_>>());
    assert_eq!(found, code, "{out}{said}");
    let report: CheckReport = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}"));
    // What does not parse as results would be taken for none.
    let fields: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report.results.is_some(), fields.get("model").is_some(), "{fields}");
    assert_eq!(report.ok, code == 0, "{report:?}");
    match report.failures.first() {
        None => assert_eq!((code, said.as_str()), (0, "")),
        // The library may have said something before.
        Some(first) => {
            assert!(code == 1 && said.ends_with(&format!("predictd: {}: {first}\n", directory.display())), "{said}");
        }
    }
    report
}
