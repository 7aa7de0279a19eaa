//! What stands in the place of a file when a download or a copy went wrong.

/// Says what a file is that is not the file it should be.
///
/// Only the beginning of the file is looked at.
pub(super) fn detect_wrong_content(bytes: &[u8]) -> Option<&'static str> {
    const SNIFFED_BYTES: usize = 512;
    const LFS_POINTER_PREFIX: &[u8] = b"version https://git-lfs.github.com/spec/";
    let beginning = bytes.get(..SNIFFED_BYTES).unwrap_or(bytes);
    if beginning.starts_with(LFS_POINTER_PREFIX) {
        return Some(
            "it is a Git LFS pointer, not the file itself: run `git lfs pull` in the repository, and copy the file again",
        );
    }
    let page = beginning.trim_ascii_start().to_ascii_lowercase();
    if page.starts_with(b"<!doctype html") || page.starts_with(b"<html") {
        return Some(
            "it is an HTML page, not the file itself: the download gave a web page (a log-in or an error): download the file again",
        );
    }
    None
}

/// Says in which encoding a text file is that must be UTF-8 without a byte order mark.
pub(super) fn detect_wrong_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xEF, 0xBB, 0xBF, ..] => {
            Some("it begins with a byte order mark (BOM), which does not belong there: save it as UTF-8 without BOM")
        }
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("it is UTF-16: save it as UTF-8 without BOM"),
        _ => None,
    }
}
