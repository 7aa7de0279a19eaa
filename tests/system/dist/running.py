"""A server that is started, asked and stopped."""

import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60


def asked(url: str, body: dict | None = None) -> tuple[int, dict]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"}), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


class Server:
    def __init__(self, process: subprocess.Popen, path: Path) -> None:
        self.process, self.path = process, path
        self.address = self.admin = ""

    def log(self) -> str:
        return self.path.read_text()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server is not ready: {self.log()}")
            if found := re.search(r'"listening","address":"([^"]+)","admin":"([^"]+)"', self.log()):
                self.address, self.admin = found.groups()
                status, health = asked(f"http://{self.address}/health")
                if status == 200 and "loading" not in json.dumps(health):
                    return
            time.sleep(0.1)


@contextmanager
def served(command: list, folder: Path, environment: dict):
    """A server in a directory, with nothing but this in its environment. It ends with 0 when it is told to."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen([*map(str, command)], cwd=folder, stderr=log, env=environment | {"PREDICTD_LOG_FORMAT": "json"})
        server = Server(process, Path(log.name))
        try:
            server.wait_until_ready()
            yield server
            process.terminate()
            if (code := process.wait(30)) != 0:
                raise AssertionError(f"the server ended with {code}: {server.log()}")
        finally:
            process.kill()
            process.wait()
