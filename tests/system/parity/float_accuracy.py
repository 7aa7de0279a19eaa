#!/usr/bin/env python3
"""Asks a server of the float32 twin of MiniLM the test questions of BANKING77, as models/evaluate.py does.

    python3 tests/system/parity/float_accuracy.py --predictd target/release/predictd target/float-twin
"""

import argparse
import subprocess
import sys
from pathlib import Path

from served import ROOT, Served


def main() -> None:
    """Starts the server, evaluates the model and ends with its exit status: 3 where the questions are not to be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("models", type=Path)
    options = parser.parse_args()
    server = Served(options.predictd.resolve(), options.models.resolve())
    try:
        command = [sys.executable, ROOT / "models/evaluate.py", f"http://{server.address}", "--model", "banking77-minilm-float"]
        sys.exit(subprocess.run(command).returncode)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
