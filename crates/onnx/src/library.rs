//! Where the ONNX Runtime library lies.

use std::path::{Path, PathBuf};

#[cfg(target_os = "macos")]
const LIBRARY_NAME_AFFIXES: (&str, &str) = ("libonnxruntime", ".dylib");
#[cfg(not(target_os = "macos"))]
const LIBRARY_NAME_AFFIXES: (&str, &str) = ("libonnxruntime.so", "");

/// Directories where systems keep shared libraries.
const SYSTEM_LIBRARY_DIRS: [&str; 8] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/opt/onnxruntime/lib",
    "/opt/homebrew/lib",
    "/usr/local/opt/onnxruntime/lib",
];

/// What to tell an operator whose machine has no usable library.
pub(super) const INSTALL_HINT: &str = "run `make onnxruntime`, or name a library with --onnxruntime";

/// The library to load.
///
/// The order: `named` (a file, or a directory that holds one), then `lib/` beside the
/// executable, then `target/onnxruntime/` here or beside the executable's folder, then the system's.
///
/// # Errors
/// One sentence with the command that cures it.
pub(super) fn find_library(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(named) = named {
        let found = if named.is_dir() { newest_library(named) } else { named.is_file().then(|| named.to_owned()) };
        return found.ok_or_else(|| format!("{} holds no ONNX Runtime library: {INSTALL_HINT}", named.display()));
    }
    let executable = std::env::current_exe().ok();
    let executable_dir = executable.as_deref().and_then(Path::parent);
    let directories = [
        executable_dir.map(|directory| directory.join("lib")),
        Some(PathBuf::from("target/onnxruntime")),
        // A binary in target/release, started from anywhere.
        executable_dir.and_then(Path::parent).map(|directory| directory.join("onnxruntime")),
    ];
    directories
        .into_iter()
        .flatten()
        .chain(SYSTEM_LIBRARY_DIRS.map(PathBuf::from))
        .find_map(|directory| newest_library(&directory))
        .ok_or_else(|| format!("no ONNX Runtime library was found on this machine: {INSTALL_HINT}"))
}

/// The library file of the highest version in a directory: `libonnxruntime.so.1.32.0` and its kind.
fn newest_library(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let versions = entries.filter_map(|entry| Some((library_version(entry.file_name().to_str()?)?, entry.path())));
    let library = versions.filter(|(_, path)| path.is_file()).max()?.1;
    // The loader looks relative paths up beside the executable first.
    std::path::absolute(library).ok()
}

fn library_version(name: &str) -> Option<Vec<u32>> {
    let (prefix, suffix) = LIBRARY_NAME_AFFIXES;
    let rest = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    rest.trim_start_matches('.').split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

#[cfg(all(test, not(target_os = "macos")))]
mod tests {
    use super::*;

    #[test]
    fn library_several_versions_newest_wins() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime.so",
            "libonnxruntime_providers_shared.so",
            "x.so",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(find_library(Some(directory.path())).unwrap(), directory.path().join("libonnxruntime.so.1.32.0"));
    }

    #[test]
    fn library_missing_names_install_hint() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none");
        let error = find_library(Some(&missing)).unwrap_err();
        assert!(error.contains("make onnxruntime") && error.contains("none"), "{error}");
        assert!(find_library(Some(directory.path())).is_err());
    }
}
