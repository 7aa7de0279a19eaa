#!/usr/bin/env python3
"""Counts the Rust tokens of `src` and `crates`, without comments and tests.

    .ci/count_tokens.py [DIRECTORY]

Names, literals and punctuation count one each, so that neither long names nor line breaks do.
"""

import re
import sys
from pathlib import Path

TOKEN = re.compile(
    r"""(?P<skip>//[^\n]*|/\*.*?\*/|\s+)"""
    r"""|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'"""
    r"""|'[A-Za-z_]\w*|[A-Za-z_]\w*|\d[\w.]*|::|->|=>|\.\.=?|[-+*/%&|^!=<>]=|&&|\|\||.""",
    re.S,
)


TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def tokens(text):
    return [match.group(0) for match in TOKEN.finditer(text) if match.group("skip") is None]


def without_tests(found):
    """The tokens outside of items that stand below `#[cfg(test)]`."""
    kept, index = [], 0
    while index < len(found):
        if found[index : index + 6] == ["#", "[", "cfg", "(", "test", ")"]:
            index += 7
            # Further attributes, then the item: to its semicolon, or to the end of its braces.
            depth = 0
            while index < len(found):
                token = found[index]
                depth += (token in "{([") - (token in "})]")
                index += 1
                if depth == 0 and token in (";", "}"):
                    break
        else:
            kept.append(found[index])
            index += 1
    return kept


def test_modules(files):
    """The files of modules that are declared below `#[cfg(test)]`."""
    declared = ((file, name) for file in files for name in TEST_MODULE.findall(file.read_text()))
    return {directory / f"{name}.rs" for file, name in declared for directory in (file.parent, file.with_suffix(""))}


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    files = [file for part in ("src", "crates") for file in sorted((root / part).rglob("*.rs"))]
    # A patched dependency, which was never in `src`.
    files = [file for file in files if root / "crates/httpdate" not in file.parents]
    files = [file for file in files if "tests" not in file.relative_to(root).parts]
    excluded = test_modules(files)
    print(sum(len(without_tests(tokens(file.read_text()))) for file in files if file not in excluded))


if __name__ == "__main__":
    main()
