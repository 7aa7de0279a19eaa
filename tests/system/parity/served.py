"""A server of the models that a suite made."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[3]


class Served:
    """One server with all models."""

    def __init__(self, binary: Path, models: Path, may_fail: bool = False) -> None:
        self.settled = {"ready", "failed"} if may_fail else {"ready"}
        self.data = tempfile.TemporaryDirectory()
        command = [str(binary), "--models", str(models), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                   "--data-dir", self.data.name, "--cache-bytes", "0", "--markup", "allow", "--log-format", "json"]
        self.log = open(Path(self.data.name) / "log", "w+", encoding="utf-8")
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self.log, env=environment)
        try:
            self.address = self.wait()
        except BaseException:
            # Else it runs on, and holds what reads this program's output.
            self.process.kill()
            raise

    def wait(self) -> str:
        """The address, once no model is being loaded any more. One that failed ends the suite."""
        for _ in range(1_200):
            said = Path(self.log.name).read_text(encoding="utf-8")
            found = re.search(r'"message":"listening","address":"([^"]*)"', said)
            if found:
                with urllib.request.urlopen(f"http://{found[1]}/models") as models:
                    states = [version["state"] for model in json.load(models)["models"] for version in model["versions"]]
                if set(states) - self.settled == {"failed"}:
                    sys.exit(said)
                if states and set(states) <= self.settled:
                    return found[1]
            if self.process.poll() is not None:
                sys.exit(said)
            time.sleep(0.1)
        sys.exit("the models were not ready within two minutes")

    def ask(self, path: str, body: dict) -> dict:
        """The answer to a request."""
        request = urllib.request.Request(f"http://{self.address}{path}", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """Ends it as an operator does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
