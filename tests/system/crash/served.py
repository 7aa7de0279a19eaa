"""A server that may be killed at any moment and started again on what it left, and what it is asked over HTTP."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
# A server that is not ready by then does not start.
PATIENCE = 20
NAME = "m"


class Lost(Exception):
    """No answer came."""


class NoStart(Exception):
    """The server ended, or was not ready in time; with its log."""


class Answer:
    """The answer to a request."""

    def __init__(self, status: int, headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def ok(self) -> bool:
        """It was done."""
        return 200 <= self.status < 300

    def json(self):
        """The body; nothing if it is none."""
        return json.loads(self.body) if self.body else None

    def problem(self) -> str:
        """The kind of an error, such as `registry-unavailable`."""
        if not self.headers.get("Content-Type", "").startswith("application/problem+json"):
            return f"no problem+json: {self.body[:200]!r}"
        return self.json()["type"].rsplit("#", 1)[-1]

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


class Wire:
    """A connection that is opened again when it is gone."""

    def __init__(self, address: str, timeout: float = 30) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=timeout)

    def ask(self, method: str, path: str, body=None, headers: dict | None = None) -> Answer:
        """Sends a request; one that got no answer is not sent again."""
        data, sent = body, dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            data, sent = json.dumps(body).encode(), {"Content-Type": "application/json"} | sent
        try:
            self.connection.request(method, path, data, sent)
            answer = self.connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise Lost(f"{method} {path}: {type(error).__name__} {error}") from error


class Server:
    """One server process with its data directory."""

    def __init__(self, binary: Path, models: Path, data: Path, options: tuple[str, ...] = ()) -> None:
        self.data, self.log_path = data, data.with_name(f"{data.name}.log")
        self.command = [str(binary), "serve", "--models", str(models), "--data-dir", str(data), "--workers", "1",
                        "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
                        "--cache-bytes", "0", "--onnxruntime", str(ROOT / "target/onnxruntime"), *options]
        # With these it need not start itself anew.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTD_")}
        self.environment |= {"ORT_DISABLE_TELEMETRY": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
        self.process: subprocess.Popen | None = None
        self.address = self.admin = ""

    def launch(self, held: bool = False) -> None:
        """Starts the process, and waits for nothing. One that is held stands still before it begins."""
        hold = ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh"] if held else []
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(hold + self.command, cwd=ROOT, stderr=log, env=self.environment)

    def start(self) -> "Server":
        """Starts the process and waits until its models are loaded."""
        self.launch()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Until the models are loaded, or it ends."""
        end = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise NoStart(f"exit status {self.process.returncode}: {self.log()[-2_000:]}")
            time.sleep(0.003)

    def is_ready(self) -> bool:
        """Once it has said so."""
        said = self.log()
        found = re.search(r'"message":"listening","address":"([^"]*)","admin":"([^"]*)"', said)
        if found is None or '"maximum memory use estimated' not in said:
            return False
        self.address, self.admin = found[1], found[2]
        return True

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Ends it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Ends it as an operator does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def to_admin(self, timeout: float = 30) -> Wire:
        """A connection to its admin listener."""
        return Wire(self.admin, timeout)

    def to_data(self, timeout: float = 30) -> Wire:
        """A connection to its data listener."""
        return Wire(self.address, timeout)


class Trap:
    """A program that watches the calls of a process, and kills it at one of them (`at_call.py`)."""

    def __init__(self, pid: int, kill_at: int, calls: str, below: Path) -> None:
        command = [sys.executable, "-I", "-S", str(HERE / "at_call.py"), "--pid", str(pid), "--kill-at", str(kill_at),
                   "--calls", calls, "--below", str(below)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "attached\n":
            raise RuntimeError("the calls of the server could not be watched")

    def end(self) -> dict:
        """What it has seen, once the process has ended."""
        said, _ = self.process.communicate(timeout=30)
        return json.loads(said)


class Faults:
    """A strace that makes calls of a running process fail, until it is let go."""

    def __init__(self, pid: int, inject: list[str], paths: list[Path] = ()) -> None:
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
        command += [word for path in paths for word in ("-P", str(path))]
        command += [word for fault in inject for word in ("-e", f"inject={fault}")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        threads = Path(f"/proc/{pid}/task")
        end = time.monotonic() + 5
        while any("TracerPid:\t0" in (thread / "status").read_text() for thread in threads.iterdir()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"strace: {self.process.stderr.read() if self.process.poll() else 'not attached'}")
            time.sleep(0.01)

    def end(self) -> None:
        """Lets the process go."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)


class Asking:
    """Clients that ask one question after another, each of its own text, until they are told to stop."""

    def __init__(self, addresses: list[str], clients: int = 2, pause: float = 0.0) -> None:
        self.answered, self.failures, self.longest = 0, [], 0.0
        self.pause, self.stopped, self.lock = pause, threading.Event(), threading.Lock()
        asked = [addresses[number % len(addresses)] for number in range(clients)]
        self.threads = [threading.Thread(target=self.ask, args=who, daemon=True) for who in enumerate(asked)]
        for thread in self.threads:
            thread.start()

    def ask(self, number: int, address: str) -> None:
        """One client."""
        wire, asked = Wire(address), 0
        while not self.stopped.is_set():
            asked += 1
            begun = time.monotonic()
            try:
                answer = wire.ask("POST", "/predict", {"text": f"{number} {asked}"})
                failure = None if answer.ok else repr(answer)
            except Lost as error:
                failure = str(error)
            took = time.monotonic() - begun
            with self.lock:
                self.longest = max(self.longest, took)
                if failure is None:
                    self.answered += 1
                else:
                    self.failures.append(failure)
            time.sleep(self.pause)

    def stop(self) -> str:
        """Ends them; what came of it in a few words."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return f"{self.answered} answered, {len(self.failures)} not, the longest took {self.longest * 1e3:.0f} ms"
