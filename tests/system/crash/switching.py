#!/usr/bin/env python3
"""Versions are activated and rolled back again and again while clients ask: no request fails, no memory is lost.

    python3 tests/system/crash/switching.py --predictd target/debug/predictd [--switches 1000]

Every answer names version 1 or 2 and has the label of that version; who asks after a change was acknowledged is
answered by the version of the change. Memory, open files and threads at the end are compared with those after the
first 50 switches.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import orders
import tiny_model
from served import ROOT, Lost, Server, Wire

CLIENTS = 4
# Switches after which memory is as it stays.
FIRST = 50
# How much more memory there may be at the end, and how many more files and threads: some come and go.
MORE = 1.05
SOME = 10
# The longest rollback, in seconds.
LONGEST = 1.0


class Asker:
    """A client that asks one new text after another, each once it has the answer to the one before."""

    def __init__(self, server: Server, number: int, switches: "Switches") -> None:
        self.server, self.number, self.switches = server, number, switches
        self.asked, self.stale_possible, self.wrong, self.longest = 0, 0, [], 0.0
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self) -> None:
        """Until the switches are over."""
        wire = self.server.to_data()
        while not self.switches.over.is_set():
            self.asked += 1
            # What was acknowledged when the question was put, and what was asked for until its answer came.
            changes, version = self.switches.acknowledged
            begun = time.monotonic()
            try:
                answer = wire.ask("POST", "/predict", {"text": f"{self.number} {self.asked}"})
            except Lost as error:
                self.wrong.append(str(error))
                continue
            self.longest = max(self.longest, time.monotonic() - begun)
            if not answer.ok:
                self.wrong.append(repr(answer))
                continue
            said = answer.json()
            found = said["model"]["version"]
            if found not in ("1", "2") or said["prediction"] != tiny_model.label(found):
                self.wrong.append(f"an answer of {found} with the label {said['prediction']}")
            if found != version:
                # A change that was asked for meanwhile may have been made.
                self.stale_possible += 1
                if self.switches.asked_for == changes:
                    self.wrong.append(f"version {found} answered after version {version} was acknowledged")


class Switches:
    """Changes of the active version, one after another."""

    def __init__(self, server: Server) -> None:
        self.wire, self.over = server.to_admin(), threading.Event()
        self.asked_for, self.acknowledged = 0, (0, "1")
        self.took: dict[str, list[float]] = {"activate": [], "roll back": []}
        self.revision = orders.recorded(self.wire)["revision"]

    def make(self, order: orders.Order, version: str) -> None:
        """Asks for a change, which must be made."""
        self.asked_for += 1
        begun = time.monotonic()
        answer = order.send(self.wire)
        self.took[order.action].append(time.monotonic() - begun)
        if not answer.ok:
            raise RuntimeError(f"{order.action}: {answer}")
        self.acknowledged = (self.asked_for, version)
        self.revision = answer.json()["revision"]

    def there_and_back(self) -> None:
        """Version 2, and version 1 again."""
        self.make(orders.activate("2", self.revision), "2")
        self.make(orders.roll_back(self.revision), "1")


def footprint(server: Server) -> dict[str, int]:
    """What the process has: KiB of memory, open files, threads."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    return {"KiB": int(lines["VmRSS"].split()[0]), "files": files, "threads": int(lines["Threads"])}


def failures(wire: Wire) -> float:
    """Answers to predictions that the server counts as failures."""
    lines = wire.ask("GET", "/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines
               if line.startswith("predictd_http_requests_ended_total{") and 'outcome="failure"' in line)


def switch(server: Server, count: int) -> list[str]:
    """Switches under load; what went wrong."""
    switches = Switches(server)
    askers = [Asker(server, number, switches) for number in range(CLIENTS)]
    begun, first, wrong = time.monotonic(), None, []
    try:
        for made in range(0, count, 2):
            switches.there_and_back()
            if first is None and made + 2 >= min(FIRST, count // 2):
                first = footprint(server)
    except (RuntimeError, Lost) as error:
        wrong.append(str(error))
    seconds = time.monotonic() - begun
    last = footprint(server)
    switches.over.set()
    for asker in askers:
        asker.thread.join()
        wrong += asker.wrong[:5]
    asked, failed = sum(asker.asked for asker in askers), sum(len(asker.wrong) for asker in askers)
    across = sum(asker.stale_possible for asker in askers)
    longest = max(asker.longest for asker in askers)
    print(f"{switches.asked_for} switches in {seconds:.0f} s, {asked} requests, {failed} of them failed or wrong, "
          f"{across} across a change, the longest took {longest * 1e3:.0f} ms")
    for action, took in switches.took.items():
        print(f"{action:10} median {statistics.median(took) * 1e3:.1f} ms, longest {max(took) * 1e3:.0f} ms")
    print(f"after {min(FIRST, count // 2)} switches {first}, at the end {last}")
    bounds = {"KiB": first["KiB"] * MORE, "files": first["files"] + SOME, "threads": first["threads"] + SOME}
    wrong += [f"{unit}: {first[unit]} grew to {last[unit]}" for unit in last if last[unit] > bounds[unit]]
    if max(switches.took["roll back"]) > LONGEST:
        wrong.append(f"a rollback took more than {LONGEST} s")
    if count_failed := failures(server.to_admin()):
        wrong.append(f"the server counts {count_failed:.0f} failures")
    return wrong


def main() -> None:
    """Starts a server with two versions, and switches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--switches", type=int, default=1_000, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        models, other = Path(place) / "models", Path(place) / "2"
        tiny_model.write(models / orders.NAME / "1", "1")
        tiny_model.write(other, "2")
        server = Server(options.predictd.resolve(), models, Path(place) / "data").start()
        try:
            wire = server.to_admin()
            orders.upload(wire, other)
            if not (answer := orders.register("2", other).send(wire)).ok:
                sys.exit(f"register: {answer}")
            wrong = switch(server, options.switches)
        finally:
            server.kill()
    for violation in wrong:
        print(f"    {violation}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
