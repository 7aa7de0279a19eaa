"""The PostgreSQL of `tests/with-postgres`, stopped in the ways in which databases are."""

import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from invariants import EPOCH, EVENTS, MODELS, VERSIONS, Book

NO_POSTGRES = 3


def book(url: str) -> Book:
    """What is in a database, at one moment: a killed server's transaction may still be committing."""
    def rows(queries: tuple[str, ...]) -> dict[str, list[list]]:
        commands = [f"SELECT {number}, to_json(asked) FROM ({query}) AS asked" for number, query in enumerate(queries)]
        one_moment = ["BEGIN ISOLATION LEVEL REPEATABLE READ", *commands]
        arguments = [argument for command in one_moment for argument in ("-c", command)]
        found = subprocess.run(["psql", url, "-Atq", *arguments], check=True, capture_output=True, text=True)
        rows = {query: [] for query in queries}
        for line in found.stdout.splitlines():
            number, _, row = line.partition("|")
            rows[queries[int(number)]].append(list(json.loads(row).values()))
        return rows
    there = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'requests'"
    if rows((there,))[there] != [[1]]:
        return Book()
    return Book(rows((MODELS, VERSIONS, EVENTS, EPOCH)).__getitem__)


class Postgres:
    """A database server that is ours to stop."""

    def __init__(self) -> None:
        server, data = os.environ.get("PREDICTD_TEST_POSTGRES"), os.environ.get("PREDICTD_TEST_POSTGRES_DATA")
        if not server or not data:
            print("there is no PostgreSQL: run this by tests/with-postgres", file=sys.stderr)
            sys.exit(NO_POSTGRES)
        self.data = Path(data)
        # The program and its options, as it was started.
        self.command = shlex.split((self.data / "postmaster.opts").read_text(encoding="utf-8"))
        name = f"crash_{uuid.uuid4().hex}"
        subprocess.run([Path(self.command[0]).with_name("psql"), server, "-qc", f"CREATE DATABASE {name}"], check=True)
        self.url = f"{server.rsplit('/', 1)[0]}/{name}"

    def processes(self) -> list[int]:
        """The server and those that it started."""
        first = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        found = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True, check=False)
        return [first, *map(int, found.stdout.split())]

    def signal(self, number: signal.Signals) -> None:
        """Sends all processes a signal; the first before those that it would start."""
        for process in self.processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def freeze(self) -> None:
        """It stands still: connections stay open, and nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.signal(signal.SIGCONT)

    def crash(self) -> None:
        """It is gone, and refuses connections."""
        self.control("--mode=immediate", "stop")

    def start(self) -> None:
        """It is there again."""
        self.control(f"--log={self.data.parent}/log", "--wait", f"--options={shlex.join(self.command[3:])}", "start")

    def control(self, *arguments: str) -> None:
        """Its own program, as its own user: it does not run as root."""
        owner = pwd.getpwuid(self.data.stat().st_uid)
        program = Path(self.command[0]).with_name("pg_ctl")
        as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        subprocess.run([program, f"--pgdata={self.data}", *arguments], check=True, stdout=subprocess.DEVNULL,
                       cwd=self.data.parent, **as_owner)
