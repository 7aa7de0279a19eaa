#!/usr/bin/env python3
"""Many operators change one model at once: what is acknowledged is one history, where each change saw the one before.

    python3 tests/system/crash/contention.py --predictd target/debug/predictd [--operators 8] [--changes 1000]

Each looks at the model, decides on a change and asks for it, If-Match what it saw. Losers are told 409, 412 or 404,
and that nothing was changed. The acknowledged changes, in the order of the revisions that their answers name, must
lead from the first state to the last by the rules, in no other order than that in which they were asked for and
acknowledged.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import invariants
import orders
import tiny_model
from mirror import Mirror
from served import NAME, ROOT, Answer, Asking, Server

LOST = {(409, "conflict"), (412, "precondition-failed"), (404, "model-not-found")}
VERSIONS = [str(version) for version in range(2, 10)]


@dataclass
class Made:
    """A change that was acknowledged, and when it was asked for and acknowledged."""

    order: orders.Order
    revision: int
    asked: float
    acknowledged: float


class Operator:
    """One of many."""

    def __init__(self, server: Server, others: dict[str, Path], chance: random.Random) -> None:
        self.wire, self.others, self.chance = server.to_admin(), others, chance
        self.made: list[Made] = []
        self.told: Counter = Counter()
        self.wrong: list[str] = []

    def work(self, stop: threading.Event) -> None:
        """Until there are changes enough."""
        while not stop.is_set():
            record = orders.recorded(self.wire)
            # What it believes is only as much as it was shown.
            seen = Mirror(NAME, self.others)
            seen.revision, seen.active = record["revision"], record["active"]
            seen.before = [record["previous"]] if record["previous"] else []
            seen.versions = record["versions"]
            self.ask(seen.some_order(self.chance))

    def ask(self, order: orders.Order) -> None:
        """Asks for a change."""
        begun = time.monotonic()
        answer: Answer = order.send(self.wire)
        if not answer.ok:
            told = (answer.status, answer.problem())
            self.told[told] += 1
            if told not in LOST:
                self.wrong.append(f"{order.action} {order.version}: {answer}")
        elif answer.json()["changed"]:
            self.told["made"] += 1
            self.made.append(Made(order, answer.json()["revision"], begun, time.monotonic()))
        else:
            self.told["as it was"] += 1


def check(start: Mirror, made: list[Made], server: Server) -> list[str]:
    """Whether the acknowledged changes are one history that leads to what is recorded."""
    wrong, mirror, latest = [], start, 0.0
    for change in sorted(made, key=lambda change: change.revision):
        if change.revision != mirror.revision + 1:
            wrong.append(f"revision {change.revision} was acknowledged after {mirror.revision}")
            break
        if change.order.revision not in (None, mirror.revision):
            wrong.append(f"{change.order.action} saw {change.order.revision}, and made {change.revision}")
        if change.acknowledged < latest:
            wrong.append(f"revision {change.revision} was acknowledged before an earlier one was asked for")
        latest = max(latest, change.asked)
        mirror = mirror.after(change.order)
    if differs := mirror.differs(orders.recorded(server.to_admin())):
        wrong.append(differs)
    history = [event[2:] for event in invariants.of_files(server.data).events]
    if history != mirror.history:
        wrong.append("the history is another one")
    return wrong + invariants.wrong_with(server)


def main() -> None:
    """Sets them to work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--operators", type=int, default=8, metavar="N")
    parser.add_argument("--changes", type=int, default=1_000, metavar="N", help="changes that are made at least")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N")
    options = parser.parse_args()
    begun = time.monotonic()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        tiny_model.write(Path(place) / "models" / NAME / "1", "1")
        others = {version: tiny_model.write(Path(place) / "others" / version, version) for version in VERSIONS}
        server = Server(options.predictd.resolve(), Path(place) / "models", Path(place) / "data").start()
        try:
            for directory in others.values():
                orders.upload(server.to_admin(), directory)
            chances = [random.Random(f"{options.seed} {number}") for number in range(options.operators)]
            operators = [Operator(server, others, chance) for chance in chances]
            stop, asking = threading.Event(), Asking([server.address], clients=1, pause=0.005)
            threads = [threading.Thread(target=operator.work, args=(stop,), daemon=True) for operator in operators]
            for thread in threads:
                thread.start()
            while any(map(threading.Thread.is_alive, threads)):
                if sum(operator.told["made"] for operator in operators) >= options.changes:
                    break
                time.sleep(0.05)
            stop.set()
            for thread in threads:
                thread.join()
            asked = asking.stop()
            made = [change for operator in operators for change in operator.made]
            wrong = [wrong for operator in operators for wrong in operator.wrong] + asking.failures
            wrong += check(Mirror(NAME, others), made, server)
        finally:
            server.kill()
    told = sum((operator.told for operator in operators), Counter())
    counted = ", ".join(f"{count} {what}" for what, count in told.most_common())
    print(f"{options.operators} operators: {counted}; predictions: {asked}; {len(wrong)} violations, "
          f"{time.monotonic() - begun:.0f} s")
    for violation in wrong[:20]:
        print(f"    {violation[:400]}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
