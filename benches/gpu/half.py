#!/usr/bin/env python3
"""Writes a model directory again with its weights as float16, for GPUs.

    half.py models/NAME/1 models/NAME-fp16/1

Needs onnx and onnxruntime in Python (`make tools` installs both).
"""

import argparse
import shutil
import sys
from pathlib import Path


def without_digest(manifest: str, name: str) -> str:
    """`model.toml` without the SHA-256 of a file that is another now."""
    return "".join(line for line in manifest.splitlines(keepends=True) if not line.startswith(f'"{name}"'))


def main() -> None:
    """Copies everything, and converts the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        sys.exit(f"half.py: {error}: `make tools` installs what is needed")
    if options.target.exists():
        sys.exit(f"half.py: {options.target} is there already")
    # What breaks off is not taken for a model.
    part = options.target.with_name(f".{options.target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(options.source, part)
    graph = part / "model.onnx"
    # The scores leave as float16 too: nothing is converted twice.
    onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=False), graph)
    manifest = part / "model.toml"
    if manifest.exists():
        manifest.write_text(without_digest(manifest.read_text(), "model.onnx"))
    # Scores of float16 are not those of the file: benches/gpu/measure.py compares them with a wider tolerance.
    (part / "golden.json").unlink(missing_ok=True)
    if manifest.exists():
        manifest.write_text(without_digest(manifest.read_text(), "golden.json"))
    part.rename(options.target)


if __name__ == "__main__":
    main()
