#!/usr/bin/env python3
"""Looks at an archive of `make dist` as someone who got it: checksums, list of parts, the server in it, its hardening.

    PYTHON tests/system/dist/check.py            # target/dist/predictd-*.tar.gz
    PYTHON tests/system/dist/check.py --rebuild  # also builds the binary twice, in two places: half an hour on two cores

PYTHON has what tests/system/dist/requirements.txt says. It takes a minute and a half.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from running import asked, served

ROOT = Path(__file__).resolve().parents[3]
CONFINED = Path(__file__).with_name("confined.py")
# What every Debian has; ONNX Runtime is C++.
OF_THE_SYSTEM = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
OF_THE_RUNTIME = OF_THE_SYSTEM | {"libstdc++.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}


def check(holds: object, what: str) -> None:
    """Ends the script where something is not as it must be."""
    if not holds:
        raise AssertionError(what)


def ran(*command: object, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    check(done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpacks what the digest beside it says, and compares every file."""
    ran("sha256sum", "--check", "--strict", f"{archive.name}.sha256", cwd=archive.parent)
    with tarfile.open(archive) as tar:
        check({(entry.uid, entry.gid) for entry in tar} == {(0, 0)}, "all is root's")
    folder.mkdir()
    ran("tar", "xzf", archive, "--directory", folder)
    (tree,) = folder.iterdir()
    verify = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    ran(*verify, cwd=tree)
    listed = {line.split("  ", 1)[1] for line in (tree / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    check(listed == there - {"SHA256SUMS"}, f"not in SHA256SUMS, or not there: {listed ^ there}")
    binary, content = tree / "predictd", (tree / "predictd").read_bytes()
    binary.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    check(subprocess.run(verify, cwd=tree, capture_output=True).returncode != 0, "one bit of the binary is noticed")
    binary.write_bytes(content)
    return tree


def needs(file: Path) -> set[str]:
    """Shared libraries, those of libraries too."""
    printed = ran("ldd", file)
    check("not found" not in printed, printed)
    names = {Path(line.split()[0]).name for line in printed.splitlines()}
    return {name for name in names if not name.startswith("linux-vdso")}


def check_parts(tree: Path) -> None:
    """The list of parts is valid, and that of what is there."""
    text = (tree / "sbom.cdx.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    check((wrong := validator.validate_str(text)) is None, f"the schema: {wrong}")
    check(validator.validate_str(text.replace('"bom-ref"', '"bom-reference"', 1)) is not None, "a wrong field is noticed")
    made = json.loads(text)
    parts = {part["bom-ref"]: part for part in made["components"]}

    def digest(part: dict) -> str:
        return part["hashes"][0]["content"]

    (library,) = (tree / "lib").iterdir()
    (runtime,) = (part for part in parts.values() if part["name"] == "onnxruntime")
    check(digest(made["metadata"]["component"]) == sha256(tree / "predictd"), "the digest of the binary")
    check(digest(runtime) == sha256(library) and library.name.endswith(runtime["version"]), "the digest of ONNX Runtime")
    models = [part for part in parts.values() if part["type"] == "machine-learning-model"]
    check({part["name"] for part in models} == {path.name for path in (tree / "models").iterdir()}, "the models")
    for part in models:
        check(digest(part) == sha256(tree / "models" / part["name"] / part["version"] / "model.onnx"), part["name"])

    of_binary, of_library = needs(tree / "predictd"), needs(library)
    check(of_binary <= OF_THE_SYSTEM, f"the binary needs {of_binary}")
    check(of_library <= OF_THE_RUNTIME, f"ONNX Runtime needs {of_library}")
    system = {ref.removeprefix("system:") for ref in parts if ref.startswith("system:")}
    check(system == of_binary | of_library, f"ldd: {of_binary | of_library}, listed: {system}")
    print(f"parts: {len(parts)}, valid; the binary needs {' '.join(sorted(of_binary))}")
    check_inside(tree, parts)


def crate_ref(crate: dict, is_own: bool) -> str:
    """Names a crate as the list of parts does: one of the repository is not the one that a registry has."""
    return f"{'predictd' if is_own else 'pkg:cargo'}/{crate['name']}@{crate['version']}"


def check_inside(tree: Path, parts: dict[str, dict]) -> None:
    """The list inside the binary has the same crates."""
    with tempfile.NamedTemporaryFile() as section:
        # `--dump-section` alone would write the binary anew.
        ran("objcopy", "--dump-section", f".dep-v0={section.name}", tree / "predictd", "/dev/null")
        packed = Path(section.name).read_bytes()
    check(packed, "the binary has no list of its dependencies inside")
    inside = json.loads(zlib.decompress(packed))["packages"]
    listed = {ref: part["scope"] for ref, part in parts.items() if ref.startswith(("pkg:cargo/", "predictd/")) and "#" not in ref}
    kinds = {crate_ref(part, part["source"] == "local"): part.get("kind", "runtime") for part in inside if not part.get("root")}
    linked = {ref for ref, scope in listed.items() if scope == "required"}
    check(linked <= {ref for ref, kind in kinds.items() if kind == "runtime"}, "all that is linked is in the list inside")
    more = set(kinds) - set(listed)
    # cargo-auditable asks `cargo metadata`, which has crates of features that no build of this target turns on.
    metadata = json.loads(ran("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu", cwd=ROOT))
    known = {crate_ref(package, package["source"] is None) for package in metadata["packages"]}
    check(more <= known and len(more) <= 8, f"only in the list inside: {more}")
    names = ran("strings", "--all", tree / "predictd")
    for ref in more:
        check(f"/registry/{re.sub('@', '-', ref.removeprefix('pkg:cargo/'))}/" not in names, f"{ref} is linked after all")
    print(f"inside the binary: {len(kinds)} crates, {len(linked)} of them linked; not built at all: {', '.join(sorted(more)) or 'none'}")
    for path in (f"{ROOT}/", f"{Path.home()}/", ".cargo/registry", "target/dist-build"):
        check(path not in names, f"a path of the machine that built it is in the binary: {path}")


def label_of_readme(tree: Path) -> tuple[dict, str]:
    """The first question of the README, and its answer."""
    found = re.search(r"curl -d '(\{.*?\})' .*localhost:8000/predict\n(\{.*\})", (tree / "README.md").read_text())
    return json.loads(found[1]), json.loads(found[2])["prediction"]


def check_answer(address: str, tree: Path) -> None:
    question, label = label_of_readme(tree)
    for model in (None, "banking77-tfidf"):
        status, answer = asked(f"http://{address}/predict", question | ({"model": model} if model else {}))
        check((status, answer.get("prediction")) == (200, label), f"{question}: {status}, {answer}")


def check_server(tree: Path, work: Path) -> None:
    """It serves from elsewhere with nothing in its environment, and where it was unpacked with no option."""
    data = work / "data"
    options = ["serve", "--models", tree / "models", "--data-dir", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with served([tree / "predictd", *options], work, {}) as server:
        check(str(tree / "lib") in server.log(), "the library beside the binary is the one that is loaded")
        check_answer(server.address, tree)
    with served(["./predictd"], tree, {"PREDICTD_LISTEN": "127.0.0.1:0", "PREDICTD_ADMIN_LISTEN": "127.0.0.1:0"}) as server:
        check_answer(server.address, tree)
    shutil.rmtree(tree / "data")
    print("the server answers as README.md says, and ends with 0")


def check_hardening(tree: Path, work: Path) -> None:
    """It serves, and takes a new version, under what the unit file forbids."""
    if os.getuid() != 0 or not shutil.which("systemd-analyze"):
        print("\n!! SKIPPED: the server under the limits of its unit file: this needs root, and systemd-analyze")
        return
    unit, state = tree / "deploy/systemd/predictd.service", work / "state"
    state.mkdir()
    # The other user has to come through.
    work.chmod(0o755)
    confined = [sys.executable, CONFINED, unit, state]
    allowed = json.loads(ran(*confined, "--probe"))
    (state / "probe").unlink()
    can = [what for what, holds in allowed.items() if holds]
    check(can == ["write in its directory", "use TCP"] and len(allowed) == 8, f"under these limits one can {', '.join(can)}")
    lax = work / "lax.service"
    lax.write_text(unit.read_text().replace("MemoryDenyWriteExecute=yes", "").replace("~@privileged @resources", "@resources"))
    check(sum(json.loads(ran(sys.executable, CONFINED, lax, state, "--probe")).values()) == 6, "limits that are left out are noticed")
    (state / "probe").unlink()
    options = ["serve", "--models", tree / "models", "--data-dir", state, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    for more in ([], ["--workers", "2", "--intra-op-threads", "2"]):
        with served([*confined, tree / "predictd", *options, *more], work, {}) as server:
            check_answer(server.address, tree)
            if not more:
                admin = [tree / "predictd", "models", "--admin-url", f"http://{server.admin}"]
                ran(*admin, "register", "banking77-tfidf", "2", tree / "models/banking77-tfidf/1", "--reason", "check", cwd=work)
                ran(*admin, "activate", "banking77-tfidf", "2", "--reason", "check", cwd=work)
            check_answer(server.address, tree)
    print("the server answers and takes a version under system call filter, no executable memory, no rights, a read-only system")


@contextmanager
def another_umask():
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def check_packing(archive: Path, args: argparse.Namespace, work: Path) -> None:
    """Packed again, by another user's habits, it has the same bytes; a library with one other bit is not packed."""
    command = [sys.executable, ROOT / "deploy/dist.py", "--binary", args.binary, "--output"]
    with another_umask():
        ran(*command, work / "again", "--onnxruntime", args.onnxruntime, cwd="/", env=os.environ | {"TZ": "Asia/Tokyo", "LC_ALL": "C"})
    check(sha256(work / "again" / archive.name) == sha256(archive), f"{archive} and the same packed again differ")
    shutil.copytree(args.onnxruntime, work / "tampered")
    (library,) = (work / "tampered").glob("libonnxruntime.so.*")
    with library.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    done = subprocess.run([*map(str, command), str(work / "none"), "--onnxruntime", str(work / "tampered")], capture_output=True, text=True)
    check(done.returncode != 0 and "is not the pinned file" in done.stderr, f"a tampered library: {done.stdout}{done.stderr}")
    check(not list((work / "none").iterdir()), "nothing is left of it")
    print(f"packed twice: {sha256(archive)}")


def check_building(work: Path) -> None:
    """Built in two places it is the same binary."""
    digests = []
    for place in ("one", "somewhere/else, a longer path"):
        root = work / place
        files = ran("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
        for name in filter(None, files):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        subprocess.run([sys.executable, "deploy/build.py"], cwd=root, check=True)
        digests.append(sha256(root / "target/dist-build/release/predictd"))
        shutil.rmtree(root)
    check(len(set(digests)) == 1, f"two builds of the same sources differ: {digests}")
    print(f"built twice: {digests[0]}")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, help="the archive (default: the one in target/dist)")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/dist-build/release/predictd", help="what was packed")
    parser.add_argument("--onnxruntime", type=Path, default=ROOT / "target/onnxruntime", help="directory of what was packed")
    parser.add_argument("--rebuild", action="store_true", help="build the binary twice too")
    args = parser.parse_args()
    args.binary, args.onnxruntime = args.binary.resolve(), args.onnxruntime.resolve()
    found = [args.archive] if args.archive else sorted((ROOT / "target/dist").glob("predictd-*.tar.gz"))
    check(len(found) == 1, f"there is not one archive: {found}; run `make dist`, or name it")
    archive = found[0].resolve()
    with tempfile.TemporaryDirectory(prefix="predictd-dist-") as folder:
        work = Path(folder)
        tree = unpacked(archive, work / "unpacked")
        print(f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
        check_parts(tree)
        check_server(tree, work)
        check_hardening(tree, work)
        check_packing(archive, args, work)
        if args.rebuild:
            check_building(work)


if __name__ == "__main__":
    main()
