"""An nginx with the configuration that is shipped, on ports and in directories of its own.

`NGINX_PROGRAM` in the environment names another nginx than the one on the path.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx")
# An nginx that does not listen by then does not start.
PATIENCE = 20
SERVER_LINE = "    server predictd:8000 max_fails=1 fail_timeout=1s"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def version() -> tuple[int, ...]:
    """Of the program that is tested."""
    said = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, re.search(r"nginx/([\d.]+)", said)[1].split(".")))


class Nginx:
    """One nginx. Nothing is changed of what is shipped but what the arguments say, paths and ports."""

    def __init__(self, upstreams: list[str], server: str = "http",
                 changes: dict[str, list[tuple[str, str]]] | None = None, certificates: Path | None = None) -> None:
        if PROGRAM is None:
            raise FileNotFoundError("there is no nginx: apt-get install nginx-light")
        self.upstreams, self.server, self.changes = upstreams, server, changes or {}
        self.certificates = certificates
        self.port, self.tls_port = free_port(), free_port()
        self.address, self.tls_address = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.tls_port}"
        self.place = Path(tempfile.mkdtemp(prefix="gateway-"))
        # Its workers are somebody else.
        self.place.chmod(0o755)
        self.process: subprocess.Popen | None = None

    def write(self) -> None:
        """Lays the shipped files there, with other paths and ports."""
        pieces, place = self.place / "predictd", str(self.place)
        shutil.copytree(ROOT / "deploy/nginx", pieces)
        shutil.copy(ROOT / "nginx.conf", self.place)
        for name in ("log", "tmp", "bin"):
            (self.place / name).mkdir()
        for file in (self.place / "nginx.conf", *pieces.iterdir()):
            text = file.read_text(encoding="utf-8").replace("/etc/nginx/predictd", str(pieces))
            file.write_text(text.replace("/run/predictd", f"{place}/run"), encoding="utf-8")
        replace(self.place / "nginx.conf", [("pid /run/nginx.pid", f"pid {place}/nginx.pid"),
                                            ("/tmp/nginx-", f"{place}/tmp/"), ("/var/log/nginx/", f"{place}/log/")])
        replace(pieces / "server-http.conf", [("listen 80 ", f"listen {self.address} ")])
        replace(pieces / "server-https.conf", [("listen 80 ", f"listen {self.address} "),
                                               ("listen 443 ", f"listen {self.tls_address} ")])
        if self.certificates:
            replace(pieces / "certificate.conf", [("/etc/nginx/certificates", str(self.certificates))])
        # The first is for `start` to write.
        more = "".join(f"\n{SERVER_LINE.replace('predictd:8000', upstream)};" for upstream in self.upstreams[1:])
        for kind in ("upstream", "upstream-resolve"):
            replace(pieces / f"{kind}.conf", [(SERVER_LINE, more.lstrip("\n") + "\n" * bool(more) + SERVER_LINE)])
        for name, changed in self.changes.items():
            replace(self.place / name if name == "nginx.conf" else pieces / name, changed)
        program = self.place / "bin/nginx"
        program.write_text(f"#!/bin/sh\nexec {PROGRAM} -p {place} -c {place}/nginx.conf \"$@\"\n", encoding="utf-8")
        program.chmod(0o755)

    def __enter__(self) -> "Nginx":
        try:
            self.write()
            environment = os.environ | {"PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
                                        "PREDICTD_UPSTREAM": self.upstreams[0], "PREDICTD_NGINX_SERVER": self.server}
            with (self.place / "said").open("wb") as said:
                self.process = subprocess.Popen([self.place / "predictd/start"], stdout=said, stderr=said,
                                                env=environment)
            end = time.monotonic() + PATIENCE
            while not self.listens():
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"nginx does not start: {self.said()}")
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.place)

    def listens(self) -> bool:
        """True once it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def reload(self) -> None:
        """As an operator does."""
        self.process.send_signal(signal.SIGHUP)

    def said(self) -> str:
        """What it wrote, and its error log."""
        log = self.place / "log/error.log"
        return (self.place / "said").read_text() + (log.read_text(errors="replace") if log.exists() else "")

    def log(self) -> list[dict]:
        """The access log: every line is JSON."""
        lines = (self.place / "log/access.log").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    def logged(self, count: int) -> list[dict]:
        """The access log once it has so many lines: they are written after the answers."""
        until(f"{count} requests are logged", lambda: len(self.log()) >= count)
        return self.log()


def until(what: str, holds: Callable[[], bool]) -> None:
    """Waits for what must happen, however long a busy machine takes over it."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE} seconds: {what}"
        time.sleep(0.01)


def replace(file: Path, changes: list[tuple[str, str]]) -> None:
    """Changes a file. What is to be changed must be there."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{file.name} has no {old!r}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
