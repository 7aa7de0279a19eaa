"""The licence texts of the crates that are linked into the binary, in one file.

Most crates bring the same few texts: each text stands there once, below the names of all that use it.
"""

import re
from pathlib import Path

import sbom

# Also in folders: that of Oniguruma lies beside its C code.
NAMED = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.I)
ELSEWHERE = {"tests", "test", "benches", "examples", "node_modules"}

MIT = """MIT License

Copyright (c) {authors}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def of_crate(folder: Path) -> list[str]:
    """The texts that lie in a crate."""
    files = [path for path in sorted(folder.rglob("*"))
             if NAMED.match(path.name) and path.suffix not in (".rs", ".c", ".h", ".toml", ".py") and path.is_file()
             and not ELSEWHERE & set(path.relative_to(folder).parts[:-1])]
    return [path.read_text(errors="replace").strip() for path in files]


def instead(package: dict, apache: str) -> str:
    """The text for a crate that says its licence, and brings no text."""
    if "Apache-2.0" in package["license"]:
        return apache
    authors = ", ".join(re.sub(r"\s*<.*>", "", author) for author in package["authors"])
    if package["license"] == "MIT" and authors:
        return MIT.format(authors=authors).strip()
    raise sbom.Incomplete(f"{package['name']} {package['version']} brings no text of its licence, {package['license']}")


def text(root: Path) -> str:
    """All of them."""
    packages = sbom.described()
    apache = (root / "LICENSE").read_text().strip()
    users: dict[str, list[str]] = {}
    listed = []
    for crate in sorted(sbom.tree("normal,no-proc-macro")):
        if sbom.is_own(crate):
            # LICENSE is its text.
            continue
        package = packages[crate]
        name = " ".join(crate)
        listed.append(f"  {name}: {package['license']}")
        for found in of_crate(Path(package["manifest_path"]).parent) or [instead(package, apache)]:
            users.setdefault(found, []).append(name)
    line = "=" * 100
    parts = ["predictd contains these crates, under these licences. Where there is a choice (OR), any of them may be taken.\n"
             "SQLite, in libsqlite3-sys, is in the public domain. The standard library of Rust is under MIT OR Apache-2.0.\n", *listed]
    for found, names in sorted(users.items(), key=lambda item: (-len(item[1]), item[1], item[0])):
        parts += ["", line, ", ".join(dict.fromkeys(names)), line, "", found]
    return "\n".join(parts) + "\n"
