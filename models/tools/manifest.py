"""`model.toml`: settings, and a digest of every file that the server may read."""

import hashlib
import os
import re
import tomllib
from pathlib import Path

from .refused import Refused

# The heading of the digests, however it is spaced, and whatever is said behind it.
DIGESTS = re.compile(r"""\s*\[\s*["']?sha256["']?\s*\]""")
# Not read by the server.
UNREAD = ("README.md", "model.toml", "optimisation.json")


def write_manifest(folder: Path, settings: list[str]) -> None:
    """Writes the lines of settings and the section `[sha256]` over the files that are there now."""
    lines = [*settings, "", "[sha256]"]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in UNREAD:
            lines.append(f'"{name}" = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')
    # Renamed when complete: nobody reads half of it.
    partial = folder / "model.toml.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(partial, folder / "model.toml")


def check_digests(folder: Path, but: str) -> None:
    """Refuses a directory with a file that is not what `model.toml` says, except for one that is to be replaced."""
    manifest = folder / "model.toml"
    named = tomllib.loads(manifest.read_text(encoding="utf-8")).get("sha256", {}) if manifest.is_file() else {}
    for name, digest in named.items():
        path = folder / name
        if name != but and (not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest.lower()):
            raise Refused(f"{path} is not the file whose digest stands in model.toml")


def settings_of(manifest: Path) -> list[str]:
    """The lines of a `model.toml` without its digests."""
    kept, skipping = [], False
    for line in manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []:
        if line.strip().startswith("["):
            skipping = DIGESTS.match(line) is not None
        if not skipping:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept
