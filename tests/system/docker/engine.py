"""A Docker engine, and the project's own compose files in a copy of what a user has."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "predictd:latest"
PATIENCE = 180
# No command takes longer.
LONGEST = 900
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def check(holds: object, what: str) -> None:
    """Ends the script where something is not as it must be."""
    if not holds:
        raise AssertionError(what)


def until(what: str, found) -> object:
    """What is found at last. Ends the script where nothing is."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        check(time.monotonic() < end, f"not within {PATIENCE} seconds: {what}")
        time.sleep(0.2)
    return value


def docker(*arguments: str, **options: object) -> str:
    """What the command prints. Ends the script where it fails."""
    return run(["docker", *arguments], **options)


def run(command: list[str], **options: object) -> str:
    ended = subprocess.run(command, timeout=LONGEST, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    check(ended.returncode == 0, f"{' '.join(command)} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout.strip()


def logs(container: str) -> str:
    """What it wrote to standard output and standard error."""
    return subprocess.run(["docker", "logs", container], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def inspect(what: str, template: str) -> object:
    return json.loads(docker("inspect", "-f", "{{json " + template + "}}", what))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def asked(url: str, body: object = None, headers: dict[str, str] | None = None, method: str | None = None) -> tuple[int, dict]:
    """Status and JSON of an answer; 0 if nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    except OSError:
        return 0, {}
    try:
        return status, json.loads(content)
    except ValueError:
        return status, {"text": content.decode(errors="replace")}


class Project:
    """Containers of the compose files, in a directory of their own, with settings as a user's .env has them."""

    def __init__(self, name: str, files: list[str] = (), **settings: str) -> None:
        self.name = f"predictd-{name}-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        for part in ["docker-compose.yml", "nginx.conf", "deploy", "models"]:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.folder / part)
        # The container's user reads what is mounted, and the folder above was made for this one alone.
        self.folder.chmod(0o755)
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.options = [option for file in files for option in ("-f", file)]

    def __enter__(self) -> "Project":
        # Containers outlast the script: it ends as it does after Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            for container in self.compose("ps", "-q").split() if kind else []:
                print(container, logs(container)[-4000:], sep="\n", file=sys.stderr)
        finally:
            self.down()

    def down(self) -> None:
        self.compose("--profile", "monitoring", "down", "--volumes", "--timeout", "40")
        shutil.rmtree(self.folder)

    def compose(self, *arguments: str) -> str:
        return run([*COMPOSE, "-p", self.name, *self.options, *arguments], cwd=self.folder)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    def exec(self, container: str, *command: str) -> str:
        return docker("exec", container, *command)

    def healthy(self, service: str, count: int) -> list[str]:
        """So many containers, once all are healthy."""
        def all_are() -> list[str]:
            found = self.containers(service)
            states = [inspect(container, ".State.Health.Status") for container in found]
            return found if states == ["healthy"] * count else []

        return until(f"{count} healthy containers of {service}", all_are)
