"""A real MLflow tracking server on this machine."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

# Of its first user, who may do everything. MLflow ships no password.
ADMIN, PASSWORD = "admin", "correct-horse-9"
PATIENCE = 180
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
SETTINGS = f"""[mlflow]
default_permission = READ
database_uri = sqlite:///{{}}
admin_username = {ADMIN}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Tracking:
    """The server, with an SQLite database and artifacts that it hands out itself. It keeps all of it in `work`."""

    def __init__(self, work: Path, auth: bool = False) -> None:
        self.work, self.auth, self.port = work, auth, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.artifacts = work / "artifacts"
        self.log = work / "mlflow.log"

    def __enter__(self) -> "Tracking":
        self.work.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, or starts it again with what it kept, at the same address."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                   "--workers", "1", "--backend-store-uri", f"sqlite:///{self.work}/mlflow.db",
                   "--artifacts-destination", str(self.artifacts)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | QUIET
        if self.auth:
            settings = self.work / "auth.ini"
            settings.write_text(SETTINGS.format(self.work / "auth.db"), encoding="utf-8")
            command += ["--app-name", "basic-auth"]
            environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test"}
        with self.log.open("ab") as log:
            # A group of its own: it starts others.
            self.process = subprocess.Popen(command, cwd=self.work, env=environment, stdout=log, stderr=log,
                                            start_new_session=True)
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Returns once it answers."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"MLflow does not answer:\n{self.log.read_text(encoding='utf-8', errors='replace')[-4000:]}")

    def stop(self) -> None:
        """Ends it and what it started."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, ending)
            except ProcessLookupError:
                break
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                continue

    def add_user(self, name: str, password: str) -> None:
        """A user who may read everything and change nothing."""
        body = json.dumps({"username": name, "password": password}).encode()
        basic = base64.b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
        headers = {"content-type": "application/json", "authorization": f"Basic {basic}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/2.0/mlflow/users/create", body, headers)):
            pass
