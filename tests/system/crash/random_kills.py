#!/usr/bin/env python3
"""A server is killed at random moments while two clients change its registry: what they know to be made is there.

    python3 tests/system/crash/random_kills.py --predictd target/debug/predictd [--kills 1000] [--seed 1] [--jobs 2]
    python3 tests/system/crash/random_kills.py --signal TERM --kills 200
    tests/with-postgres python3 tests/system/crash/random_kills.py --postgres

Each client registers, activates, rolls back, measures, pins and removes versions of a model of its own, one request
after another, each with an Idempotency-Key, and knows by the rules what must be recorded. The server is killed up to
150 ms after it is ready (one kill in five: while it starts), and started again. The request that got no answer was
made or not; repeated, it is made, and stands in the history once.

With TERM the server is told to stop instead: it must end by itself with exit status 0, and what it refuses meanwhile
counts as what got no answer. With --postgres it records in the database of `tests/with-postgres`.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import invariants
import orders
import postgres
import tiny_model
from mirror import Mirror
from planted import PLANTS
from served import ROOT, Lost, NoStart, Server, Wire

MODELS = ("m", "n")
VERSIONS = [str(version) for version in range(2, 14)]
# The longest that a server lives, in seconds; and one that is killed while it starts.
LIFE, BIRTH = 0.15, 0.12
KILLED_AT_START = 0.2


class Client:
    """Changes one model, and remembers what was acknowledged."""

    def __init__(self, mirror: Mirror, chance: random.Random) -> None:
        self.mirror, self.chance = mirror, chance
        self.pending: orders.Order | None = None
        self.uploaded: set[str] = set()
        self.counted: Counter = Counter()
        self.wrong: list[str] = []

    def work(self, wire: Wire, stopping: threading.Event) -> None:
        """Makes one change after another, until no answer comes."""
        try:
            while True:
                order = self.mirror.some_order(self.chance)
                if order.action == "register":
                    self.uploaded |= set(orders.upload(wire, self.mirror.others[order.version]))
                self.pending = order
                answer = order.send(wire)
                if not answer.ok and stopping.is_set():
                    self.counted[f"{answer.status} {answer.problem()} while it stopped"] += 1
                    return
                self.answered(order, answer)
        except Lost:
            return

    def answered(self, order: orders.Order, answer) -> None:
        """An acknowledged change is what the client knows from now on."""
        self.pending = None
        if not answer.ok:
            self.wrong.append(f"{order.action} {order.version}: {answer}")
            return
        self.mirror = self.mirror.after(order)
        self.counted["acknowledged"] += 1
        said = answer.json()
        if (said["revision"], said["active"]) != (self.mirror.revision, self.mirror.active):
            self.wrong.append(f"{order.action}: {said}, expected {self.mirror.revision}, {self.mirror.active}")

    def look(self, wire: Wire) -> None:
        """Compares what is recorded with what the client knows; repeats what got no answer."""
        name, pending, self.pending = self.mirror.name, self.pending, None
        record = orders.recorded(wire, name)
        for sha256 in self.uploaded:
            if not wire.ask("GET", f"/admin/store/{sha256}").ok:
                self.wrong.append(f"the upload {sha256} was acknowledged and is not there")
        if pending is None:
            self.compare(record)
            return
        made = not self.mirror.after(pending).differs(record)
        if not made:
            self.compare(record)
        self.counted["made without an answer" if made else "not made"] += 1
        if pending.action == "register":
            orders.upload(wire, self.mirror.others[pending.version])
        self.answered(pending, pending.send(wire))
        self.compare(orders.recorded(wire, name))

    def compare(self, record: dict) -> None:
        """What is recorded is what the client knows."""
        if differs := self.mirror.differs(record):
            self.wrong.append(f"{self.mirror.name}: {differs}")

    def compare_history(self, book: invariants.Book, wire: Wire) -> None:
        """The history is that of the client's changes, each of them once."""
        found = [event[2:] for event in book.events if event[1] == self.mirror.name]
        if found != self.mirror.history:
            differing = [pair for pair in zip(found, self.mirror.history) if pair[0] != pair[1]][:2]
            self.wrong.append(f"the history has {len(found)} changes, of {len(self.mirror.history)}; {differing}")
        shown = wire.ask("GET", f"/admin/models/{self.mirror.name}/history").json()
        told = [(done["action"], done["version"], done["reason"]) for done in reversed(shown)]
        if told != found[-len(told):]:
            self.wrong.append("GET /history says other things than the database")


class Run:
    """One data directory, and the servers that are killed on it."""

    def __init__(self, options: argparse.Namespace, place: Path, seed: int, url: str | None) -> None:
        self.end, self.plant, self.url = options.signal, PLANTS.get(options.plant), url
        self.chance = random.Random(seed)
        others = {}
        for name in MODELS:
            tiny_model.write(place / "models" / name / "1", "1")
        for version in VERSIONS:
            others[version] = tiny_model.write(place / "others" / version, version)
        arguments = ("--drain-timeout", "5s", *(("--database", url) if url else ()))
        self.server = Server(options.predictd.resolve(), place / "models", place / "data", arguments)
        self.clients = [Client(Mirror(name, others), random.Random(f"{seed} {name}")) for name in MODELS]
        self.wrong: list[str] = []
        self.kills = self.at_start = 0
        self.left_over: list[str] = []

    def kill_often(self, kills: int) -> None:
        """Kills and looks, again and again."""
        try:
            # The first start is complete: what it finds is where the clients begin.
            self.server.start()
            while self.kills < kills and len(self.wrong) < 20:
                self.live()
                self.kills += 1
                while self.chance.random() < KILLED_AT_START and self.kills < kills:
                    self.server.launch()
                    time.sleep(self.chance.uniform(0, BIRTH))
                    self.stop(young=True)
                    self.kills, self.at_start = self.kills + 1, self.at_start + 1
                self.look()
        except (NoStart, RuntimeError, Lost) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self.server.kill()
            self.left_over = invariants.left_over(self.server.data)

    def live(self) -> None:
        """Has the clients work until the server is killed."""
        stopping = threading.Event()
        threads = [threading.Thread(target=client.work, args=(self.server.to_admin(), stopping))
                   for client in self.clients]
        for thread in threads:
            thread.start()
        time.sleep(self.chance.uniform(0, LIFE))
        stopping.set()
        self.stop()
        for thread in threads:
            thread.join()

    def stop(self, young: bool = False) -> None:
        """Ends the server; one that has just begun knows no signals yet."""
        if self.end == "KILL":
            self.server.kill()
        elif (status := self.server.stop()) != 0 and not (young and status == -signal.SIGTERM):
            self.wrong.append(f"told to stop, it ended with {status}: {self.server.log()[-300:]}")

    def look(self) -> None:
        """Starts the server, and looks whether all is as it must be."""
        if self.plant and self.kills > 3:
            self.plant(self.server.data)
        found = self.book().wrong()
        self.server.start()
        found += invariants.wrong_with(self.server, MODELS, self.book())
        admin = self.server.to_admin()
        for client in self.clients:
            client.look(admin)
        book = self.book()
        for client in self.clients:
            client.compare_history(book, admin)
            found, client.wrong = found + client.wrong, []
        for violation in found:
            self.wrong.append(violation)
            print(f"    after {self.kills} kills: {violation}", flush=True)


    def book(self) -> invariants.Book:
        """What is in the database."""
        return postgres.book(self.url) if self.url else invariants.of_files(self.server.data)


def main() -> None:
    """Kills on two data directories at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--kills", type=int, default=1_000, metavar="N")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="servers at a time")
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--postgres", action="store_true", help="with the database of tests/with-postgres")
    parser.add_argument("--plant", choices=PLANTS, help="leave such damage on purpose, which must be found")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where data directories with violations are copied to")
    options = parser.parse_args()
    begun, jobs = time.monotonic(), options.jobs
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        runs = []
        for job in range(jobs):
            (Path(place) / str(job)).mkdir()
            url = postgres.Postgres().url if options.postgres else None
            runs.append(Run(options, Path(place) / str(job), options.seed * 1_000 + job, url))
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda run: run.kill_often(-(-options.kills // jobs)), runs))
        if options.keep and any(run.wrong for run in runs):
            shutil.copytree(place, options.keep, dirs_exist_ok=True)
    counted = sum((client.counted for run in runs for client in run.clients), Counter())
    kills, at_start = sum(run.kills for run in runs), sum(run.at_start for run in runs)
    wrong = sum(len(run.wrong) for run in runs)
    print(f"{kills} kills ({at_start} during a start), {counted['acknowledged']} changes acknowledged, of those "
          f"without an answer {counted['made without an answer']} made and {counted['not made']} not, {wrong} "
          f"violations, {time.monotonic() - begun:.0f} s")
    left = [name for run in runs for name in run.left_over]
    print(f"  {len(left)} files were left in the data directories that nobody looks for again: {left[:3]}")
    for what, times in sorted(counted.items()):
        if "while" in what:
            print(f"  {times} times {what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
