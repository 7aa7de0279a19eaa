#!/usr/bin/env python3
"""A server is killed at every system call of every operation of its registry: nothing acknowledged is lost or half.

    python3 tests/system/crash/every_system_call.py --predictd target/debug/predictd [--stride 5] [--operations register,stop]

For K = 1, 2, ...: a server on a fresh copy of the same data directory begins the operation and dies just before the
K-th call that is about its data directory or about a socket (`at_call.py`). It is started again; then the database
must be whole, one version active, all files of all versions there, the active version must answer, and what is
recorded must be what it was before the operation or what it is after it; if the operation was acknowledged, the
latter. The same request with the same Idempotency-Key then leads there, and stands in the history once.
"""

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import at_call
import invariants
import orders
from operations import OPERATIONS, Attempt, Operation, Scene
from planted import PLANTS
from served import ROOT, Lost, NoStart, Server, Trap

# Calls beyond those of the first run at which it is tried as well: no two runs are alike.
BEYOND = 20


@dataclass
class Outcome:
    """What came of one attempt."""

    killed: bool = False
    calls: list[str] = field(default_factory=list)
    # Requests that were acknowledged before the kill: uploads, and the change.
    acknowledged: int = 0
    # What was recorded after the start, as it was "before" the operation or "after" it.
    found: str = ""
    violations: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)


def timeless(record: dict) -> dict:
    """What is recorded, without times."""
    versions = {name: {key: value for key, value in version.items() if key != "registered_at"}
                for name, version in record["versions"].items()}
    return record | {"versions": versions}


class Trial:
    """An operation, tried again and again."""

    def __init__(self, scene: Scene, name: str, calls: str, plant: str | None) -> None:
        self.scene, self.name, self.calls, self.plant = scene, name, calls, PLANTS.get(plant)
        self.operation: Operation = OPERATIONS[name]
        self.before: dict | None = None
        self.after: dict | None = None

    def attempt(self, kill_at: int) -> Outcome:
        """One attempt, on a data directory of its own."""
        data = self.scene.copy(f"{self.name}-{kill_at}")
        try:
            return self.attempt_on(data, kill_at)
        finally:
            shutil.rmtree(data)
            data.with_name(f"{data.name}.log").unlink(missing_ok=True)

    def attempt_on(self, data: Path, kill_at: int) -> Outcome:
        """Begins the operation, has the server killed, and looks what is left."""
        outcome, tried = Outcome(), Attempt()
        self.operation.prepare(self.scene, data)
        server = Server(self.scene.binary, self.scene.models, data)
        if self.operation.from_start:
            server.launch(held=True)
            time.sleep(0.02)
        else:
            server.start()
            self.operation.lead_to(self.scene, server)
            if kill_at == 0:
                self.before = timeless(orders.recorded(server.to_admin()))
        trap = Trap(server.process.pid, kill_at, self.calls, data)
        try:
            self.operation.do(self.scene, server, tried)
        except Lost as error:
            if server.process.poll() is None and not dies(server):
                outcome.violations.append(f"no answer, and nobody killed it: {error}")
        if kill_at == 0 and self.name != "stop":
            self.after = timeless(orders.recorded(server.to_admin()))
        server.kill()
        seen = trap.end()
        outcome.killed, outcome.calls = seen["killed"], seen["calls"]
        outcome.acknowledged = len(tried.uploaded) + tried.acknowledged
        if kill_at > 0:
            if self.plant:
                self.plant(data)
            outcome.violations += invariants.of_files(data).wrong()
        else:
            self.before, self.after = self.before or self.after, self.after or self.before
        try:
            self.look(server, tried, outcome)
        except (NoStart, Lost, RuntimeError) as error:
            outcome.violations.append(f"{type(error).__name__}: {error}")
        server.kill()
        return outcome

    def look(self, server: Server, tried: Attempt, outcome: Outcome) -> None:
        """Starts the server again, and looks whether all is as it must be."""
        server.start()
        admin = server.to_admin()
        outcome.violations += invariants.wrong_with(server)
        outcome.left_over = invariants.left_over(server.data)
        for sha256 in tried.uploaded:
            if not admin.ask("GET", f"/admin/store/{sha256}").ok:
                outcome.violations.append(f"the upload {sha256} was acknowledged and is not there")
        record = timeless(orders.recorded(admin))
        outcome.found = "after" if record == self.after else "before" if record == self.before else "neither"
        if outcome.found == "neither":
            outcome.violations.append(f"what is recorded is half done: {record}")
        elif tried.acknowledged and outcome.found != "after":
            outcome.violations.append("it was acknowledged and is lost")
        if tried.order is not None:
            self.again(server, tried, outcome)

    def again(self, server: Server, tried: Attempt, outcome: Outcome) -> None:
        """Asks for the same once more, as a client does that got no answer."""
        wire = server.to_admin()
        if tried.order.action == "register":
            orders.upload(wire, self.scene.other("4"))
        answer = tried.order.send(wire)
        if not answer.ok or timeless(orders.recorded(wire)) != self.after:
            outcome.violations.append(f"the same request again: {answer}")
        revision = self.after["revision"]
        made = [event for event in invariants.of_files(server.data).events if event[1] == orders.NAME]
        if len(made) != revision or made[-1][2] != tried.order.action:
            outcome.violations.append(f"{tried.order.action} is not once in the history: {made[-3:]}")
        outcome.violations += [f"after the repetition: {wrong}" for wrong in invariants.wrong_with(server)]


def dies(server: Server) -> bool:
    """True if it ends within a moment: its last answer may be lost before the process is gone."""
    for _ in range(500):
        if server.process.poll() is not None:
            return True
        time.sleep(0.01)
    return False


def run(trial: Trial, stride: int, jobs: int) -> tuple[int, int]:
    """Tries every call of an operation; how many kills there were, and how many violations."""
    begun = time.monotonic()
    first = trial.attempt(0)
    wrong = [f"without a kill: {violation}" for violation in first.violations]
    made_of = trial.operation.made_of
    if not any(call == made_of or call.startswith(made_of) and made_of.endswith("/") for call in first.calls):
        wrong.append(f"it did not happen: no {made_of} among {first.calls}")
    points, outcomes = list(range(1, len(first.calls) + 1, stride)), []
    with ThreadPoolExecutor(jobs) as pool:
        outcomes += zip(points, pool.map(trial.attempt, points))
    for beyond in range(len(first.calls) + 1, len(first.calls) + BEYOND):
        if stride > 1 or not outcomes[-1][1].killed:
            break
        outcomes.append((beyond, trial.attempt(beyond)))
    for kill_at, outcome in outcomes:
        at = outcome.calls[-1] if outcome.killed else "no call"
        wrong += [f"K = {kill_at} ({at}): {violation}" for violation in outcome.violations]
    killed = [outcome for _, outcome in outcomes if outcome.killed]
    kinds: dict[str, list[Outcome]] = {}
    for outcome in killed:
        kinds.setdefault(outcome.calls[-1].split(" ")[0], []).append(outcome)
    for kind, of_kind in sorted(kinds.items()):
        print(f"  {trial.name:18} {kind:12} {summary(of_kind)}")
    left = sum(1 for outcome in killed if outcome.left_over)
    print(f"{trial.name:20} {'all':12} {summary(killed)}; {len(outcomes) - len(killed)} more kills at the end; "
          f"{left} left a file over; {time.monotonic() - begun:.0f} s", flush=True)
    for violation in wrong:
        print(f"    {violation}", flush=True)
    return len(killed), len(wrong)


def summary(outcomes: list[Outcome]) -> str:
    """Kill points in a few words."""
    acknowledged = sum(outcome.acknowledged for outcome in outcomes)
    done = sum(1 for outcome in outcomes if outcome.found == "after")
    broken = sum(1 for outcome in outcomes if outcome.violations)
    return f"{len(outcomes):4} kills, {acknowledged:3} acknowledged, {done:4} done, {broken:3} violations"


def main() -> None:
    """Goes through the operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--operations", default=",".join(OPERATIONS), help="some of them, with commas between")
    parser.add_argument("--calls", default=",".join(at_call.KINDS), help="kinds of calls, with commas between")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every N-th call only")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="servers at a time")
    parser.add_argument("--plant", choices=PLANTS, help="leave such damage on purpose, which must be found")
    options = parser.parse_args()
    begun, kills, wrong = time.monotonic(), 0, 0
    # A process that is killed leaves the system's memory of files as it is: a disk is not needed.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        scene = Scene(options.predictd.resolve(), Path(place))
        for name in options.operations.split(","):
            killed, violations = run(Trial(scene, name, options.calls, options.plant), options.stride, options.jobs)
            kills, wrong = kills + killed, wrong + violations
    print(f"{kills} kills, {wrong} violations, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
