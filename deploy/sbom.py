#!/usr/bin/env python3
"""Writes the list of what is shipped (CycloneDX 1.6): crates, the C code in them, ONNX Runtime, system libraries, models.

    python3 deploy/sbom.py --binary target/dist-build/release/predictd --library target/onnxruntime/libonnxruntime.so.1.32.0

`cargo tree` says which crates are in it: it resolves features as a build does. `cargo metadata`, which other tools ask
(cargo-cyclonedx, and cargo-auditable for what it puts into the binary), also has what only features of other platforms
or of tests would bring (sqlx-mysql). What runs during the build but is not linked has the scope `excluded`.
The same sources give the same bytes: the time is SOURCE_DATE_EPOCH.
"""

import argparse
import datetime
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
LICENCE = "Apache-2.0"

# Code in C that a crate brings along: name, header with the version, how it stands there, licence, package URL, CPE.
# BoringSSL has no versions, and ring changes what it takes.
C_CODE = {
    "onig_sys": ("oniguruma", "oniguruma/src/oniguruma.h", r"#define ONIGURUMA_VERSION_(?:MAJOR|MINOR|TEENY)\s+(\d+)", "BSD-2-Clause",
                 "pkg:github/kkos/oniguruma@v{}", "cpe:2.3:a:oniguruma_project:oniguruma:{}:*:*:*:*:*:*:*"),
    "libsqlite3-sys": ("sqlite", "sqlite3/sqlite3.h", r'#define SQLITE_VERSION\s+"([\d.]+)"', "blessing",
                       "pkg:generic/sqlite@{}", "cpe:2.3:a:sqlite:sqlite:{}:*:*:*:*:*:*:*"),
    "libmimalloc-sys": ("mimalloc", "c_src/mimalloc/v3/include/mimalloc.h", r"#define MI_MALLOC_VERSION\s+(\d)(\d\d)(\d\d)\b", "MIT",
                        "pkg:github/microsoft/mimalloc@v{}", "cpe:2.3:a:microsoft:mimalloc:{}:*:*:*:*:*:*:*"),
    "ring": ("boringssl", None, None, "Apache-2.0 AND ISC", None, None),
}

# What the shipped models were made from; their cards say how.
MODELS = {
    "banking77-minilm": ("1", "Apache-2.0", "sentence-transformers/all-MiniLM-L6-v2, fine-tuned"),
    "banking77-tfidf": ("1", "Apache-2.0", "no other model"),
}
DATA_SET = {"type": "dataset", "name": "BANKING77", "description": "PolyAI, arXiv 2003.04807, CC BY 4.0; not shipped"}


class Incomplete(Exception):
    """What the list would miss."""


def cargo(*arguments: str) -> str:
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Incomplete(f"`cargo {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def tree(edges: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Each crate, name and version, with those it uses."""
    listed = cargo("tree", "--locked", "--target", TARGET, "--edges", edges, "--prefix", "depth", "--format", "{p}")
    found, path = {}, []
    for depth, name, version in re.findall(r"^(\d+)(\S+) v(\S+)", listed, re.M):
        path[int(depth):] = [(name, version)]
        found.setdefault((name, version), set())
        if len(path) > 1:
            found[path[-2]].add((name, version))
    return found


@functools.cache
def described() -> dict[tuple[str, str], dict]:
    """What the crates' own manifests say."""
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    return {(package["name"], package["version"]): package for package in metadata["packages"]}


def checksums() -> dict[tuple[str, str], str]:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(package["name"], package["version"]): package["checksum"] for package in lock["package"] if "checksum" in package}


def component(kind: str, name: str, version: str | None, ref: str, **more: object) -> dict:
    """A component without what is not known."""
    made = {"type": kind, "bom-ref": ref, "name": name, "version": version, **more}
    return {key: value for key, value in made.items() if value is not None}


def licences(expression: str) -> list[dict]:
    # Older manifests write a slash.
    return [{"expression": re.sub(r"\s*/\s*", " OR ", expression)}]


def sha256(value: str) -> list[dict]:
    return [{"alg": "SHA-256", "content": value}]


def is_own(crate: tuple[str, str]) -> bool:
    """True for a crate of this repository, which no registry has."""
    return described()[crate]["source"] is None


def crate_ref(crate: tuple[str, str]) -> str:
    """Names a crate. An own crate is not the one that a registry has under its name and version."""
    return ("predictd/" if is_own(crate) else "pkg:cargo/") + "@".join(crate)


def crate_components(crates: dict, linked: dict) -> list[dict]:
    packages, locked, found = described(), checksums(), []
    for crate in crates:
        licence = packages[crate]["license"]
        # A crate of this repository has no checksum: it is part of the revision.
        own = is_own(crate)
        if not licence or (crate not in locked and not own):
            raise Incomplete(f"{crate[0]} {crate[1]} has no licence expression, or no checksum in Cargo.lock")
        scope = "required" if crate in linked else "excluded"
        origin = {"description": "part of predictd"} if own else {"hashes": sha256(locked[crate]), "purl": crate_ref(crate)}
        found.append(component("library", *crate, crate_ref(crate), scope=scope, licenses=licences(licence), **origin))
    return found


def c_components(linked: dict, crates: dict) -> tuple[list[dict], dict[str, str]]:
    """C code, and which crate brings it."""
    packages, found, brought = described(), [], {}
    for crate in linked:
        compiles = any(name in ("cc", "cmake") for name, _ in crates[crate])
        if not compiles:
            continue
        if crate[0] not in C_CODE:
            raise Incomplete(f"{crate[0]} compiles C code which C_CODE in deploy/sbom.py does not name")
        name, header, pattern, licence, purl, cpe = C_CODE[crate[0]]
        version = None
        if header is not None:
            numbers = re.findall(pattern, (Path(packages[crate]["manifest_path"]).parent / header).read_text())
            if not numbers:
                raise Incomplete(f"{header} of {crate[0]} {crate[1]} does not say the version of {name}")
            parts = numbers[0] if isinstance(numbers[0], tuple) else numbers
            version = ".".join(part if "." in part else str(int(part)) for part in parts)
        ref = f"{crate_ref(crate)}#{name}"
        brought[crate_ref(crate)] = ref
        found.append(component("library", name, version, ref, scope="required", licenses=licences(licence),
                               purl=purl and purl.format(version), cpe=cpe and cpe.format(version),
                               description=f"C code in the crate {crate[0]}, linked statically"))
    return found, brought


def needed(file: Path) -> list[str]:
    """The shared libraries that the loader gets for a file."""
    listed = subprocess.run(["readelf", "--dynamic", "--wide", str(file)], capture_output=True, text=True)
    if listed.returncode != 0 or "Dynamic section" not in listed.stdout:
        raise Incomplete(f"{file} is no program and no library: {listed.stderr.strip()}")
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listed.stdout)


def wheel_of(library: Path | None) -> tuple[str, str]:
    """Name and version of the wheel that the library came out of."""
    if library is None:
        return "onnxruntime", onnxruntime.VERSION
    version = re.search(r"\.so\.([\d.]+)$", library.name)
    if version is None:
        raise Incomplete(f"{library.name} does not say its version")
    return "onnxruntime-gpu" if (library.parent / "libonnxruntime_providers_cuda.so").exists() else "onnxruntime", version[1]


def model_components(models: Path) -> list[dict]:
    found = []
    for name, (version, licence, origin) in MODELS.items():
        folder = models / name / version
        says = tomllib.loads((folder / "model.toml").read_text())
        found.append(component("machine-learning-model", name, version, f"model:{name}@{version}", hashes=sha256(onnxruntime.digest(folder / "model.onnx")),
                               licenses=licences(licence), description=f"{says['description']}; from {origin}",
                               modelCard={"modelParameters": {"task": says.get("task", "classification"), "datasets": [DATA_SET]}}))
    return found


def document(epoch: int, binary: Path | None, library: Path | None, models: Path) -> dict:
    """The whole list. Without the binary and the library it lacks their digests, and what the system provides."""
    crates, linked = tree("normal,build"), tree("normal,no-proc-macro")
    (root,) = (crate for crate in crates if crate[0] == "predictd")
    crates_of = {crate: uses for crate, uses in sorted(crates.items()) if crate != root}
    c_code, brought = c_components({crate: linked[crate] for crate in sorted(linked) if crate != root}, crates)
    rust = re.search(r"^release: (\S+)", subprocess.run(["rustc", "-vV"], cwd=ROOT, capture_output=True, text=True).stdout, re.M)
    if rust is None:
        raise Incomplete("`rustc -vV` does not say its version")
    std = component("library", "rust-std", rust[1], "rust-std", scope="required", licenses=licences("MIT OR Apache-2.0"),
                    purl=f"pkg:generic/rust@{rust[1]}", description="Rust's standard library, linked statically")
    wheel, version = wheel_of(library)
    runtime = component("library", "onnxruntime", version, f"pkg:pypi/{wheel}@{version}", scope="required",
                        licenses=licences("MIT"), purl=f"pkg:pypi/{wheel}@{version}",
                        hashes=sha256(onnxruntime.digest(library)) if library else None,
                        description="the shared library of the wheel; ThirdPartyNotices.txt names what is in it")
    wants = {"predictd": needed(binary) if binary else [], "onnxruntime": needed(library) if library else []}
    system = [component("library", name, None, f"system:{name}", scope="required", description="shared library that the system provides")
              for name in sorted({name for names in wants.values() for name in names})]
    found_models = model_components(models)
    components = [*crate_components(crates_of, linked), *c_code, std, runtime, *system, *found_models]
    ref = f"predictd@{root[1]}"
    uses = {ref: [*map(crate_ref, crates[root]), std["bom-ref"], runtime["bom-ref"], *(model["bom-ref"] for model in found_models),
                  *(f"system:{name}" for name in wants["predictd"])]}
    uses |= {made["bom-ref"]: [] for made in components}
    for crate, others in crates_of.items():
        uses[crate_ref(crate)] = [*map(crate_ref, others), *([brought[crate_ref(crate)]] if crate_ref(crate) in brought else [])]
    uses[runtime["bom-ref"]] = [f"system:{name}" for name in wants["onnxruntime"]]
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component("application", "predictd", root[1], ref, licenses=licences(LICENCE),
                                   hashes=sha256(onnxruntime.digest(binary)) if binary else None),
        },
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": sorted(set(others))} for name, others in uses.items()],
    }
    # A number of its own for each content, and no chance in it.
    content = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"} | made


def text(made: dict) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, help="the binary as it is shipped")
    parser.add_argument("--library", type=Path, help="the ONNX Runtime library")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="directory of the models")
    parser.add_argument("--output", type=Path, help="where the list goes (default: standard output)")
    args = parser.parse_args()
    try:
        written = text(document(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), args.binary, args.library, args.models))
        args.output.write_text(written) if args.output else sys.stdout.write(written)
    except (Incomplete, OSError, KeyError, ValueError) as error:
        sys.exit(f"sbom.py: {error}")


if __name__ == "__main__":
    main()
