#!/usr/bin/env python3
"""Builds the binary that is given away: the same bytes wherever it is built, with the list of its dependencies inside.

    python3 deploy/build.py        # target/dist-build/release/predictd

`cargo auditable` puts the list into the binary, where `cargo audit bin` and scanners of images find it. Paths of this
machine (the checkout, cargo's registry, the target directory) would get into messages of panics and asserts: rustc and
the C compiler write other ones instead. So the same sources are the same bytes in every directory and on every day, by
the same Rust, C compiler, linker and cargo-auditable. These options make cargo build every dependency anew: the target
directory is one of its own, and `cargo build --release` keeps what it has.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# Another version may write the list differently, and the binary would have other bytes.
AUDITABLE = "0.7.7"


def cargo_auditable() -> str:
    """What is wrong with the tool, after installing it where it is missing or another."""
    found = shutil.which("cargo-auditable")
    told = subprocess.run([found, "auditable", "--version"], capture_output=True, text=True).stdout if found else ""
    if AUDITABLE not in told:
        install = ["cargo", "install", "--locked", "--quiet", "--force", "cargo-auditable", "--version", AUDITABLE]
        if subprocess.run(install).returncode != 0:
            return f"cargo-auditable {AUDITABLE} could not be installed: check the network and cargo's registry settings"
    return ""


def replaced_paths(target: Path) -> dict[str, str]:
    """The paths of this machine that compilers see, and what they shall write instead."""
    # One platform is enough to find the registry: crates of the others would be downloaded.
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    root = Path(metadata["workspace_root"])
    folders = {Path(package["manifest_path"]).parent.parent for package in metadata["packages"] if package["source"]}
    # Where two fit, compilers take the last one: the target directory usually lies in the checkout.
    return {str(folder): "/registry" for folder in sorted(folders)} | {str(root): "/predictd", str(target): "/target"}


def environment(paths: dict[str, str]) -> dict[str, str]:
    """The variables under which every compiler replaces these paths. Settings of the caller's would be other bytes."""
    kept = {name: text for name, text in os.environ.items() if name not in ("RUSTFLAGS", "CFLAGS")}
    rust = [f"--remap-path-prefix={old}={new}" for old, new in paths.items()]
    c = [f"-ffile-prefix-map={old}={new}" for old, new in paths.items()]
    return kept | {
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(rust),
        "CFLAGS": shlex.join(c),
        # A path may have a space in it.
        "CC_SHELL_ESCAPED_FLAGS": "1",
        # mimalloc says when it was compiled: __DATE__ and __TIME__ become this.
        "SOURCE_DATE_EPOCH": "0",
        "CARGO_INCREMENTAL": "0",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target-dir", type=Path, default=Path("target/dist-build"), help="where cargo builds (default: %(default)s)")
    parser.add_argument("--profile", default="release", help="what is given away is `release` (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="copy the binary there too")
    options = parser.parse_args()
    target = options.target_dir.resolve()
    if problem := cargo_auditable():
        sys.exit(f"build.py: {problem}")
    command = ["cargo", "auditable", "build", "--profile", options.profile, "--locked", "--target-dir", str(target), "--bin", "predictd"]
    try:
        status = subprocess.run(command, env=environment(replaced_paths(target))).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"build.py: cargo does not run: {error}")
    if status != 0:
        sys.exit(f"build.py: cargo ended with {status}")
    binary = target / ("debug" if options.profile == "dev" else options.profile) / "predictd"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(binary, options.output)
    print(binary)


if __name__ == "__main__":
    main()
