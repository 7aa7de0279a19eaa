"""A predictd of its own for a measurement, on ports that the system chooses."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

# Longest wait for a model to be loaded and measured.
PATIENCE = 600


class NotStarted(Exception):
    """What the server said instead."""


class Server:
    """A server with one model, started by entering it."""

    def __init__(self, program: Path, library: Path, models: Path, model: str, options: list[str]):
        self.program, self.model = program, model
        self.options = ["--models", str(models), "--default-model", model, "--onnxruntime", str(library), *options]
        self.place = tempfile.TemporaryDirectory(prefix="predictd-gpu-")
        self.log = Path(self.place.name) / "log"
        self.address = self.admin = ""
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        fixed = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--cache-bytes", "0",
                 "--log", "info,predictd::http=warn", "--data-dir", str(Path(self.place.name) / "data"), "--memory-limit", "0", "--max-connections", "1024", "--markup", "allow"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTD_")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(self.program), *fixed, *self.options], stderr=log, env=clean)
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                # A GPU that hangs may hold it.
                self.process.kill()
        self.place.cleanup()

    def wait_ready(self) -> None:
        """Reads the log until the model is ready, or the server has ended."""
        deadline = PATIENCE * 20
        for _ in range(deadline):
            for line in self.lines():
                if line.get("message") == "listening":
                    self.address, self.admin = line["address"], line["admin"]
            if self.address and self.ask("GET", "/readyz")[0] == 200:
                return
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise NotStarted(f"exit code {self.process.returncode}: {self.log.read_text().strip().splitlines()[-1]}")
        raise NotStarted(f"{self.model} was not ready after {PATIENCE} s")

    def lines(self) -> list[dict]:
        """What was logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]

    def ask(self, method: str, path: str, body: dict | None = None, headers: dict | None = None) -> tuple[int, str, dict]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        given = {"Content-Type": "application/json"} | (headers or {})
        connection.request(method, path, json.dumps(body) if body is not None else None, given)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.getheaders())

    def answers(self, texts: list[str], size: int = 256) -> list[dict]:
        """The answers to texts, in order; an error ends the measurement."""
        found = []
        for start in range(0, len(texts), size):
            status, body, _ = self.ask("POST", "/batch_predict", {"texts": texts[start:start + size], "return_probabilities": True})
            if status != 200:
                raise RuntimeError(f"/batch_predict: {status} {body[:300]}")
            found += json.loads(body)["results"]
        return found

    def facts(self) -> dict:
        """What the server says of its model."""
        return json.loads(self.ask("GET", f"/models/{self.model}")[1])["versions"][0]

    def metrics(self) -> dict[str, float]:
        """Every series by its name with labels."""
        connection = http.client.HTTPConnection(self.admin, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}
