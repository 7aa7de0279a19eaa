#!/usr/bin/env python3
"""Two servers share a PostgreSQL that stands still, crashes and comes back: questions are answered all the time.

    tests/with-postgres python3 tests/system/crash/outage.py --predictd target/debug/predictd [--seconds 60]

Meanwhile changes are refused within 5 seconds, and 5 seconds after the return the servers have caught up. Before and
after: an activation on one server is seen on the other within 2 seconds, two operators at once do not both win, and a
request that is repeated at the other server is made once. Exits with 3 where there is no PostgreSQL.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orders
import tiny_model
from mirror import Mirror
from postgres import Postgres
from served import NAME, ROOT, Answer, Asking, Lost, NoStart, Server

# Bounds, in seconds.
REFUSED_WITHIN = CAUGHT_UP_WITHIN = NOTICED_WITHIN = 5
SEEN_WITHIN = 2
# What the metrics say.
STALE = "predictd_registry_staleness_seconds"
REFUSED = (503, "registry-unavailable")


class Replicas:
    """Two servers with the files of both versions, and what is known to be recorded."""

    def __init__(self, binary: Path, place: Path, url: str) -> None:
        tiny_model.write(place / "models" / NAME / "1", "1")
        other = tiny_model.write(place / "others" / "2", "2")
        self.wrong: list[str] = []
        self.servers = [Server(binary, place / "models", place / name, ("--database", url)).start() for name in "ab"]
        self.mirror = Mirror(NAME, {"2": other})
        order = orders.register("2", other)
        for server in self.servers:
            # Each has a store of its own: uploaded to both, and registered twice, of which the second changes nothing.
            orders.upload(server.to_admin(), other)
            answer = order.send(server.to_admin())
            if not answer.ok:
                raise RuntimeError(repr(answer))
            order = orders.register("2", other)
        self.mirror = self.mirror.after(order)

    def change(self, order: orders.Order, server: Server) -> Answer:
        """Asks for a change, and keeps in mind whether it was made."""
        answer = order.send(server.to_admin())
        if answer.ok:
            self.mirror = self.mirror.after(order)
        return answer

    def some_change(self) -> orders.Order:
        """Figures that are others each time."""
        return orders.measure("1", {"f1": self.mirror.revision + 0.5}, self.mirror.revision)

    def until(self, what: str, holds, within: float) -> float:
        """How long it takes until something holds, which must not take longer than this."""
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > 4 * within:
                self.wrong.append(f"not within {4 * within} s: {what}")
                break
            time.sleep(0.005)
        took = time.monotonic() - begun
        if within < took <= 4 * within:
            self.wrong.append(f"{what}: only after {took:.1f} s")
        return took

    def seen(self, changes: int) -> list[float]:
        """How long after the acknowledgement of a switch at one server the other serves accordingly."""
        took = []
        for number in range(changes):
            at, other = self.servers[number % 4 // 2], self.servers[1 - number % 4 // 2]
            activated = self.mirror.active == "1"
            make = orders.activate("2", self.mirror.revision) if activated else orders.roll_back(self.mirror.revision)
            answer = self.change(make, at)
            if not answer.ok:
                self.wrong.append(f"{make.action}: {answer}")
                return took
            wire, expected = other.to_data(), (self.mirror.active, tiny_model.label(self.mirror.active))
            took.append(self.until("a switch is seen by the other server", lambda: orders.answers(wire) == expected,
                                   SEEN_WITHIN))
        return took

    def both_at_once(self, times: int) -> None:
        """Two operators change the same state at two servers: one of them wins."""
        for _ in range(times):
            made = [self.some_change(), self.some_change()]
            made[1].body = {"metrics": {"f1": -1.0 - self.mirror.revision}}
            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(lambda order, server: order.send(server.to_admin()), made, self.servers))
            if sorted(answer.status for answer in answers) != [200, 412]:
                self.wrong.append(f"two at once: {answers}")
            winners = [order for order, answer in zip(made, answers) if answer.ok]
            if len(winners) == 1:
                self.mirror = self.mirror.after(winners[0])
            self.until("both servers have heard of a change", self.caught_up, SEEN_WITHIN)

    def repeated(self) -> None:
        """A request whose answer is lost is repeated at the other server: made once."""
        order = self.some_change()
        first, again = self.change(order, self.servers[0]), order.send(self.servers[1].to_admin())
        if first.json() != again.json():
            self.wrong.append(f"repeated at the other server: {first}, then {again}")

    def refused(self) -> tuple[int, float]:
        """Asks both for changes that cannot be made now; how many, and the longest time to a refusal."""
        count, longest = 0, 0.0
        for server in self.servers:
            wire, revision = server.to_admin(), self.mirror.revision
            asked = [self.some_change(), orders.roll_back(revision), orders.pin("2", True, revision),
                     orders.activate("2" if self.mirror.active == "1" else "1", revision)]
            for order in asked:
                begun = time.monotonic()
                answer = order.send(wire)
                longest, count = max(longest, time.monotonic() - begun), count + 1
                if (answer.status, answer.problem() if not answer.ok else "") != REFUSED:
                    self.wrong.append(f"{order.action} while the database is away: {answer}")
        if longest > REFUSED_WITHIN:
            self.wrong.append(f"a refusal took {longest:.1f} s")
        return count, longest

    def stale(self) -> list[bool]:
        """Whether the servers say that what they know may be old."""
        return [server.to_admin().ask("GET", "/admin/models").json()["stale"] for server in self.servers]

    def told(self) -> str:
        """What else says that the database is away: all servers must."""
        said = []
        for server in self.servers:
            admin = server.to_admin()
            health, metrics = admin.ask("GET", "/health"), admin.ask("GET", "/metrics").body.decode()
            found = [line for line in metrics.splitlines() if line.startswith(STALE)]
            if not found or float(found[0].split()[-1]) <= 0:
                self.wrong.append(f"the metrics do not say that the registry is stale: {found}")
            says = "" if "stale" in health.body.decode() else " without a word of it"
            said.append(f"/health is {health.status}{says}, {', '.join(found)}")
        return "; ".join(said)

    def outage(self, name: str, begin, end, seconds: float) -> None:
        """Takes the database away for a while, under load."""
        asking = Asking([server.address for server in self.servers], clients=4, pause=0.005)
        begun = time.monotonic()
        begin()
        noticed = self.until("both say that it is away", lambda: all(self.stale()), NOTICED_WITHIN)
        count, longest, told = 0, 0.0, self.told()
        while time.monotonic() - begun < seconds:
            more, slowest = self.refused()
            count, longest = count + more, max(longest, slowest)
        active = [orders.answers(server.to_data())[0] for server in self.servers]
        if set(active) != {self.mirror.active}:
            self.wrong.append(f"{active} answered, and {self.mirror.active} was active")
        end()
        back = time.monotonic()
        made = self.until("a change is made again", self.is_made, CAUGHT_UP_WITHIN)
        self.until("both have caught up", self.caught_up, CAUGHT_UP_WITHIN)
        caught_up = time.monotonic() - back
        asked = asking.stop()
        self.wrong += [f"not answered: {failure}" for failure in asking.failures[:3]]
        print(f"{name}: {back - begun:.0f} s, noticed after {noticed:.1f} s, {count} changes refused within "
              f"{longest:.1f} s; back: a change is made after {made:.1f} s, caught up after {caught_up:.1f} s; "
              f"{asked}\n  meanwhile {told}", flush=True)

    def is_made(self) -> bool:
        """A change is made; one that was refused may have been made all the same."""
        record = orders.recorded(self.servers[0].to_admin())
        if record["revision"] != self.mirror.revision and not any(self.stale()):
            self.wrong.append(f"a change that was refused was made: {self.mirror.differs(record)}")
            self.mirror.revision = record["revision"]
        return self.change(self.some_change(), self.servers[0]).ok

    def caught_up(self) -> bool:
        """Both know what is recorded, and know that they do."""
        records = [orders.recorded(server.to_admin()) for server in self.servers]
        return not any(self.stale()) and not any(self.mirror.differs(record) for record in records)


def start_without(replicas: Replicas, away, back) -> None:
    """A server that is started while the database is away serves what it knew last, and catches up later."""
    server = replicas.servers[1]
    away()
    server.kill()
    begun = time.monotonic()
    try:
        server.start()
        active = orders.answers(server.to_data())
        said = f"after {time.monotonic() - begun:.1f} s it starts, and version {active[0]} answers"
        if active != (replicas.mirror.active, tiny_model.label(replicas.mirror.active)):
            replicas.wrong.append(f"started while the database is away: {active} answers, not {replicas.mirror.active}")
        replicas.until("both say that it is away", lambda: all(replicas.stale()), NOTICED_WITHIN)
        replicas.told()
        count, longest = replicas.refused()
        said += f"; {count} changes refused within {longest:.1f} s"
    except NoStart as error:
        said = "it does not"
        replicas.wrong.append(f"it does not start while the database is away: {error}")
    print(f"a server started while the database is away: {said}", flush=True)
    back()
    if server.process.poll() is not None:
        server.start()
    replicas.until("both have caught up", replicas.caught_up, CAUGHT_UP_WITHIN)


def run(replicas: Replicas, postgres: Postgres, seconds: float) -> None:
    """All of it."""
    def seen(when: str, changes: int) -> None:
        took = replicas.seen(changes)
        print(f"{when}: {len(took)} switches seen by the other server, median {statistics.median(took) * 1e3:.0f} ms, "
              f"longest {max(took) * 1e3:.0f} ms", flush=True)

    seen("before", 20)
    replicas.both_at_once(10)
    replicas.repeated()
    replicas.outage("it stands still", postgres.freeze, postgres.thaw, seconds)
    seen("after", 4)
    replicas.outage("it is gone", postgres.crash, postgres.start, seconds)
    seen("after", 4)
    replicas.both_at_once(4)
    # The version that was registered is active: a server that knew nothing would serve the other.
    seen("after", 1)
    start_without(replicas, postgres.crash, postgres.start)
    start_without(replicas, postgres.freeze, postgres.thaw)
    for server in replicas.servers:
        server.kill()
        server.start()
        if differs := replicas.mirror.differs(orders.recorded(server.to_admin())):
            replicas.wrong.append(f"after a crash of the server: {differs}")


def main() -> None:
    """Needs a PostgreSQL of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="length of an outage")
    options = parser.parse_args()
    postgres, begun = Postgres(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        replicas = Replicas(options.predictd.resolve(), Path(place), postgres.url)
        try:
            run(replicas, postgres, options.seconds)
        except (NoStart, Lost, RuntimeError) as error:
            replicas.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            for server in replicas.servers:
                server.kill()
    print(f"{len(replicas.wrong)} violations, {time.monotonic() - begun:.0f} s")
    for violation in replicas.wrong:
        print(f"    {violation[:400]}")
    sys.exit(1 if replicas.wrong else 0)


if __name__ == "__main__":
    main()
