//! Snapshots: what people read of the server, compared with committed files in `snapshots/` beside the test.

use std::path::Path;

use insta::Settings;

/// A snapshot is named as the test says. What matches a pattern is replaced: it is another value in every run.
pub(crate) fn snapshot_settings(filters: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_filters(filters.to_vec());
    settings
}

/// What a snapshot holds below its head.
pub(crate) fn read_snapshot(path: impl AsRef<Path>) -> String {
    let file = std::fs::read_to_string(path).unwrap();
    file.splitn(3, "---\n").nth(2).unwrap().to_owned()
}
