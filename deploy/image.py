#!/usr/bin/env python3
"""Puts what a base image would bring beside predictd, for an image that has nothing else.

    image.py --root /image --variant cpu     # runs in the Dockerfile, on Debian

For `cpu` these are the libraries that the binary and ONNX Runtime are linked against and the certificates that clients
trust, which go into the SBOM; for `cuda` the base image has them. For both: the locales that scikit-learn graphs ask
for, and the directory for data.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

# The image's own user. Any other works too, so nothing belongs to it.
USER = 10001

# Scikit-learn graphs that were exported on Linux ask for the first, unless told to ask for the second.
LOCALES = ["en_US.UTF-8", "C.UTF-8"]


def linked(program: Path) -> list[Path]:
    """The libraries that a program or library needs, and the loader."""
    printed = subprocess.run(["ldd", str(program)], check=True, stdout=subprocess.PIPE, text=True).stdout
    if "not found" in printed:
        raise ValueError(f"{program} needs a library that is not here: {printed}")
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", printed)]


def copy_libraries(root: Path) -> list[Path]:
    needed = {path for program in [root / "opt/predictd/predictd", *(root / "opt/predictd/lib").glob("*.so*")] for path in linked(program)}
    # Debian's /lib is a link to /usr/lib, and the loader's path goes through one.
    for name in ["lib", "lib64"]:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for path in needed:
        place = root / path.parent.resolve().relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), place / path.name)
    return sorted(needed)


def copy_system(root: Path) -> None:
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    (root / certificates).parent.mkdir(parents=True)
    shutil.copy("/" / certificates, root / certificates)
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def add_locales(root: Path) -> None:
    (root / "usr/lib/locale").mkdir(parents=True, exist_ok=True)
    for locale in LOCALES:
        source, charmap = locale.split(".")
        subprocess.run(["localedef", f"--prefix={root}", "-i", source, "-f", charmap, locale], check=True)


def add_to_sbom(sbom: Path, libraries: list[Path]) -> None:
    """Names the packages of Debian's that the files came from."""
    # By their names: Debian lists some of them below /lib, which is a link.
    owned = subprocess.run(["dpkg-query", "--search", *(f"*/{library.resolve().name}" for library in libraries)], check=True, stdout=subprocess.PIPE, text=True)
    packages = {line.split(":")[0] for line in owned.stdout.splitlines()} | {"ca-certificates", "locales"}
    shown = subprocess.run(["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n", *sorted(packages)],
                           check=True, stdout=subprocess.PIPE, text=True)
    document = json.loads(sbom.read_text())
    for name, version, architecture in (line.split() for line in shown.stdout.splitlines()):
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro=bookworm"
        document["components"].append({"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required", "purl": purl,
                                       "description": "package of Debian 12 that files of the image came from"})
        document["dependencies"].append({"ref": purl, "dependsOn": []})
    del document["serialNumber"]
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document))
    sbom.write_text(json.dumps({"serialNumber": f"urn:uuid:{number}"} | document, indent=1, ensure_ascii=False) + "\n")


def add_user(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/:/none\npredictd:x:{USER}:{USER}:predictd:/data:/none\n")
    (root / "etc/group").write_text(f"root:x:0:\npredictd:x:{USER}:\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the image's root directory, with predictd in opt/predictd")
    parser.add_argument("--variant", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    try:
        if options.variant == "cpu":
            libraries = copy_libraries(options.root)
            add_to_sbom(options.root / "opt/predictd/sbom.cdx.json", libraries)
            copy_system(options.root)
            add_user(options.root)
        add_locales(options.root)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"image.py: {error}")
    # Whoever runs the container may write here, and nobody else's files can be removed.
    for name in ["data", "tmp"]:
        folder = options.root / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o1777)


if __name__ == "__main__":
    main()
