#!/usr/bin/env python3
"""Packs what is given away: the binary, ONNX Runtime, the models, what runs them, licences, checksums, the list of parts.

    python3 deploy/dist.py --binary target/dist-build/release/predictd --onnxruntime target/onnxruntime --output target/dist

What is packed is checked first: the library and its licences against the digests that are pinned in onnxruntime.py, the
models against those in their model.toml. The same pieces give the same bytes: files are sorted, belong to root and are
as old as the last commit, or SOURCE_DATE_EPOCH.
"""

import argparse
import gzip
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

import licences
import onnxruntime
import sbom

ROOT = Path(__file__).resolve().parent.parent

# What lies in the checkout: where, and where it goes. A pattern without a file is an error.
CONTENTS = [
    ("LICENSE", "."),
    ("README.md", "."),
    ("CHANGELOG.md", "."),
    ("nginx.conf", "."),
    ("deploy/README.md", "deploy"),
    ("deploy/onnxruntime.py", "deploy"),
    ("docker-compose.yml", "."),
    (".env.example", "."),
    ("deploy/compose/*", "deploy/compose"),
    ("deploy/systemd/*", "deploy/systemd"),
    ("deploy/nginx/*", "deploy/nginx"),
    ("deploy/prometheus/alerts.yml", "deploy/prometheus"),
    ("deploy/prometheus/alertmanager.yml", "deploy/prometheus"),
    ("deploy/prometheus/prometheus.yml", "deploy/prometheus"),
    ("deploy/grafana/predictd.json", "deploy/grafana"),
]
SUMS, PARTS = "SHA256SUMS", "sbom.cdx.json"


class Refused(Exception):
    """Why nothing is packed."""


def require(path: Path, remedy: str) -> Path:
    if not path.is_file():
        raise Refused(f"{path} is missing: {remedy}")
    return path


def pinned(path: Path, expected: str, remedy: str) -> Path:
    """The file, if it is the one whose SHA-256 is known."""
    found = onnxruntime.digest(require(path, remedy))
    if found != expected:
        raise Refused(f"{path} is not the pinned file: its SHA-256 is {found}, not {expected}")
    return path


def put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def put_binary(binary: Path, target: Path) -> None:
    """The program without the names of its functions, and with the list of its dependencies."""
    put(require(binary, "run deploy/build.py"), target, 0o755)
    for command in (["strip", "--strip-all", str(target)], ["readelf", "--section-headers", "--wide", str(target)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise Refused(f"`{command[0]}` is not installed: it comes with binutils") from None
        if done.returncode != 0:
            raise Refused(f"{binary}: `{command[0]}` failed: {done.stderr.strip()}")
    if ".dep-v0" not in done.stdout:
        raise Refused(f"{binary} has no list of its dependencies inside: build it with deploy/build.py")


def put_runtime(source: Path, target: Path) -> Path:
    """ONNX Runtime with its licences; where the library is now."""
    build = onnxruntime.BUILDS.get((platform.system(), platform.machine()))
    if build is None:
        raise Refused(f"no ONNX Runtime library is pinned for {platform.system()} on {platform.machine()}")
    remedy = "run deploy/onnxruntime.py --licences"
    library = target / "lib" / build[1]
    put(pinned(source / build[1], build[2], remedy), library, 0o755)
    for name, expected in onnxruntime.LICENCES.items():
        put(pinned(source / name, expected, remedy), target / "licences/onnxruntime" / name)
    return library


def put_models(source: Path, target: Path) -> None:
    for name, (version, _, _) in sbom.MODELS.items():
        folder = source / name / version
        manifest = require(folder / "model.toml", "it is part of the repository")
        for file in ("README.md", "model.toml"):
            put(require(folder / file, "it is part of the repository"), target / name / version / file)
        # Nothing else: what else may lie there was not checked.
        for file, expected in tomllib.loads(manifest.read_text())["sha256"].items():
            put(pinned(folder / file, expected, "it is part of the repository"), target / name / version / file)


def put_contents(root: Path, target: Path, contents: list = CONTENTS) -> None:
    for pattern, folder in contents:
        files = [path for path in sorted(root.glob(pattern)) if path.is_file()]
        if not files:
            raise Refused(f"{root / pattern} is missing: it is part of the repository")
        for path in files:
            # A script stays one.
            put(path, target / folder / path.name, 0o755 if path.stat().st_mode & 0o100 else 0o644)


def write_sums(tree: Path) -> None:
    """Digests of all files, as `sha256sum --check` reads them."""
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    lines = [f"{onnxruntime.digest(tree / name)}  {name}\n" for name in files if name != SUMS]
    (tree / SUMS).write_text("".join(lines))
    (tree / SUMS).chmod(0o644)


def archive(tree: Path, target: Path, epoch: int) -> None:
    """Packs a directory; nothing but names, modes, contents and the time goes in."""
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = epoch
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    # No name and no time in the head of gzip either.
    with target.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in [tree, *sorted(tree.rglob("*"))]:
            tar.add(path, str(path.relative_to(tree.parent)), recursive=False, filter=plain)


def time_of_sources() -> int:
    set_time = os.environ.get("SOURCE_DATE_EPOCH")
    if set_time is None:
        done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
        set_time = done.stdout.strip() if done is not None and done.returncode == 0 else ""
    if not set_time.isdigit():
        raise Refused("when were the sources made? Set SOURCE_DATE_EPOCH (seconds) where this is no clone")
    return int(set_time)


def pack(binary: Path, runtime: Path, output: Path) -> Path:
    """Makes the archive and its digest; both are there whole, or not at all."""
    epoch = time_of_sources()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    name = f"predictd-{version}-linux-{platform.machine()}"
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=output) as folder:
        tree = Path(folder) / name
        tree.mkdir()
        put_binary(binary, tree / "predictd")
        library = put_runtime(runtime, tree)
        put_models(ROOT / "models", tree / "models")
        put_contents(ROOT, tree)
        (tree / "licences/crates.txt").write_text(licences.text(ROOT))
        (tree / PARTS).write_text(sbom.text(sbom.document(epoch, tree / "predictd", library, tree / "models")))
        write_sums(tree)
        draft = Path(folder) / f"{name}.tar.gz"
        archive(tree, draft, epoch)
        made = output / draft.name
        sums = draft.with_name(f"{draft.name}.sha256")
        sums.write_text(f"{onnxruntime.digest(draft)}  {draft.name}\n")
        draft.replace(made)
        sums.replace(output / sums.name)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/dist-build/release/predictd"), help="what deploy/build.py built (default: %(default)s)")
    parser.add_argument("--onnxruntime", type=Path, default=Path("target/onnxruntime"), help="directory of the library and its licences (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("target/dist"), help="where the archive goes (default: %(default)s)")
    args = parser.parse_args()
    try:
        made = pack(args.binary, args.onnxruntime, args.output)
    except (Refused, sbom.Incomplete, OSError, ValueError, KeyError) as error:
        sys.exit(f"dist.py: {error}")
    print(f"{made} has {made.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
