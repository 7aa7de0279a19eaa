#!/usr/bin/env python3
"""Gets the ONNX Runtime library that predictd is tested with.

The library is taken out of the PyPI wheel, fetched by pip, so that the user's own index
settings hold. Its SHA-256 is pinned here. A download that breaks off or was tampered with
leaves no library behind; a library that is already there is checked and kept. Its licence
and those of what is in it come along: who gives the library away gives them too.
"""

import argparse
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

VERSION = "1.32.0"

# (system, machine): wheel platform, library, SHA-256 of the library.
# Only Linux on x86-64 is tested; the other two are pinned from the published wheels.
BUILDS = {
    ("Linux", "x86_64"): (
        "manylinux_2_28_x86_64",
        f"libonnxruntime.so.{VERSION}",
        "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_28_aarch64",
        f"libonnxruntime.so.{VERSION}",
        "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
    ),
    ("Darwin", "arm64"): (
        "macosx_14_0_arm64",
        f"libonnxruntime.{VERSION}.dylib",
        "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
    ),
}

# The same in the wheels of all platforms.
LICENCES = {
    "LICENSE": "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
    "ThirdPartyNotices.txt": "d8696258afcf9df7827a5e01d6b6d55ee9b461b4e82020f5f48242deb9cc2270",
}

# The build for NVIDIA's CUDA 13 and cuDNN 9, which are not in it. Its newest version is older than the other's.
CUDA_VERSION = "1.31.1"
CUDA_PLATFORM = "manylinux_2_28_x86_64"
CUDA_LIBRARIES = {
    "libonnxruntime_providers_shared.so": "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
    "libonnxruntime_providers_cuda.so": "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52",
    f"libonnxruntime.so.{CUDA_VERSION}": "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
}
CUDA_LICENCES = LICENCES | {"ThirdPartyNotices.txt": "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3"}

# Folders of unfinished downloads begin like this.
DRAFTS = ".download-"

# Wheels differ by Python version, the library inside does not: the host's Python does not matter.
PYTHON = "3.12"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()


class Build(NamedTuple):
    """What is taken out of which wheel: names of files with their SHA-256."""

    requirement: str
    platform: str
    libraries: dict[str, str]
    licences: dict[str, str]


def chosen(variant: str) -> Build | None:
    """The build for this machine, if there is one."""
    machine = (platform.system(), platform.machine())
    if variant == "cuda":
        build = Build(f"onnxruntime-gpu=={CUDA_VERSION}", CUDA_PLATFORM, CUDA_LIBRARIES, CUDA_LICENCES)
        return build if machine == ("Linux", "x86_64") else None
    if machine not in BUILDS:
        return None
    tag, library, expected = BUILDS[machine]
    return Build(f"onnxruntime=={VERSION}", tag, {library: expected}, LICENCES)


def download(build: Build, folder: Path) -> Path:
    tag = "cp" + PYTHON.replace(".", "")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, "--abi", tag,
         "--platform", build.platform, "--dest", str(folder), build.requirement],
        check=True,
    )
    return next(folder.glob("*.whl"))


def extract(wheel: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(f"onnxruntime/{member}") as source, target.open("wb") as copy:
        while chunk := source.read(1 << 20):
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())


def remove_leftovers(directory: Path) -> None:
    """Removes what a killed run left. Another run may be at work: only what is old is taken."""
    for leftover in directory.glob(f"{DRAFTS}*"):
        if time.time() - leftover.stat().st_mtime > 3600:
            shutil.rmtree(leftover, ignore_errors=True)


def is_pinned(path: Path, expected: str) -> bool:
    return path.is_file() and digest(path) == expected


def install(directory: Path, licences: bool = False, variant: str = "cpu") -> str:
    """What went wrong. A library without its licences is enough, unless they are asked for: it may have been put there by hand."""
    build = chosen(variant)
    if build is None:
        return f"there is no ONNX Runtime wheel for {platform.system()} on {platform.machine()}: build the library and name it with --onnxruntime"
    told = build.requirement.replace("==", " ")
    wanted = build.libraries | (build.licences if licences else {})
    if all(is_pinned(directory / name, pinned) for name, pinned in wanted.items()):
        return ""
    directory.mkdir(parents=True, exist_ok=True)
    remove_leftovers(directory)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=DRAFTS, dir=directory) as folder:
        try:
            wheel = download(build, Path(folder))
        except (subprocess.CalledProcessError, StopIteration):
            return f"pip could not download {told}: check the network and pip's index settings"
        for name, pinned in (build.libraries | build.licences).items():
            draft = Path(folder) / name
            try:
                extract(wheel, f"capi/{name}" if name in build.libraries else name, draft)
            except (KeyError, EOFError, zlib.error, zipfile.BadZipFile):
                return f"{wheel.name} is not the wheel of {told}"
            if digest(draft) != pinned:
                return f"{name} in {wheel.name} is not the pinned one: its SHA-256 is {digest(draft)}"
            draft.chmod(0o755 if name in build.libraries else 0o644)
        # The library that is looked for comes last: a run that is killed here has installed nothing yet.
        for name in (*build.licences, *build.libraries):
            (Path(folder) / name).replace(directory / name)
    print(f"{told} is in {directory}")
    return ""


def main() -> None:
    # Ends like Ctrl-C does: with the unfinished download removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("target/onnxruntime"), help="where the library goes (default: %(default)s)")
    parser.add_argument("--licences", action="store_true", help="get its licences too where only the library is there")
    parser.add_argument("--variant", choices=["cpu", "cuda"], default="cpu", help="cuda is 310 MB, and needs CUDA 13 and cuDNN 9 (default: %(default)s)")
    args = parser.parse_args()
    problem = install(args.directory, args.licences, args.variant)
    if problem:
        sys.exit(f"onnxruntime.py: {problem}")


if __name__ == "__main__":
    main()
