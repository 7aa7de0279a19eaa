"""`model.toml`: settings, and a digest of every file that the server may read."""

import hashlib
from pathlib import Path

# Not read by the server.
UNREAD = ("README.md", "model.toml", "optimisation.json")


def write_manifest(folder: Path, settings: list[str]) -> None:
    """Writes the lines of settings and the section `[sha256]` over the files that are there now."""
    lines = [*settings, "", "[sha256]"]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in UNREAD:
            lines.append(f'"{name}" = "{hashlib.sha256(path.read_bytes()).hexdigest()}"')
    (folder / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def settings_of(manifest: Path) -> list[str]:
    """The lines of a `model.toml` without its digests."""
    kept, skipping = [], False
    for line in manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []:
        if line.strip().startswith("["):
            skipping = line.strip() == "[sha256]"
        if not skipping:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept
