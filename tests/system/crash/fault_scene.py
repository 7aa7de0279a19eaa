"""A server under load that is at fault for a while: what it refuses meanwhile, and whether it heals."""

import time
from pathlib import Path

import invariants
import orders
import tiny_model
from mirror import Mirror
from served import Answer, Asking, Lost, NoStart, Server

# The longest time to a refusal, in seconds.
REFUSED_WITHIN = 5
# The longest time to the first change after a fault, in seconds.
HEALED_WITHIN = 5
VERSIONS = "23456789"
# Bytes of notes that a version has besides: it needs room.
PADDING = 200_000
ALLOWED = {(503, "registry-unavailable"), (507, "insufficient-storage")}


class FaultScene:
    """A server with three versions, what is known of them, and clients that ask."""

    def __init__(self, binary: Path, place: Path, data: Path, allowed: set[tuple[int, str]] = frozenset()) -> None:
        self.others = {version: tiny_model.write(place / "others" / version, version, PADDING) for version in VERSIONS}
        tiny_model.write(place / "models" / orders.NAME / "1", "1")
        self.server = Server(binary, place / "models", data).start()
        self.mirror, self.wrong = Mirror(orders.NAME, self.others), []
        self.allowed = ALLOWED | allowed
        # Changes that were refused: what could not be brought to the disk may be found there all the same, later.
        self.refused: list[orders.Order] = []
        self.late = 0
        for make in (self.a_new_version, self.a_new_version, self.a_switch):
            answer, _ = self.sent(make())
            if not answer.ok:
                raise RuntimeError(repr(answer))
        self.asking = Asking([self.server.address], pause=0.005)

    def a_measure(self) -> orders.Order:
        """Figures of a version."""
        return orders.measure("2", {"f1": self.mirror.revision + 0.5}, self.mirror.revision)

    def a_new_version(self) -> orders.Order:
        """A version that is not there."""
        version = next(version for version in self.others if version not in self.mirror.versions)
        return orders.register(version, self.others[version])

    def a_switch(self) -> orders.Order:
        """Another version."""
        return orders.activate("3" if self.mirror.active == "2" else "2", self.mirror.revision)

    def a_rollback(self) -> orders.Order:
        """The version before."""
        return orders.roll_back(self.mirror.revision)

    def a_pin(self) -> orders.Order:
        """Pinned, or no longer."""
        return orders.pin("3", not self.mirror.versions["3"]["pinned"], self.mirror.revision)

    def a_removal(self) -> orders.Order:
        """The last version that was registered."""
        idle = [version for version in self.mirror.versions if version not in ("1", "2", "3", self.mirror.active)]
        return orders.remove(idle[-1], self.mirror.revision)

    def sent(self, order: orders.Order) -> tuple[Answer, float]:
        """Asks for a change, with its uploads; the first refusal, or the last answer, and the longest time."""
        wire, longest = self.server.to_admin(), 0.0
        files = order.body["files"] if order.action == "register" else []
        steps = [lambda file=file: orders.put(wire, self.others[order.version], file) for file in files]
        for step in [*steps, lambda: order.send(wire)]:
            begun = time.monotonic()
            answer = step()
            longest = max(longest, time.monotonic() - begun)
            if not answer.ok:
                break
        else:
            self.mirror = self.mirror.after(order)
        return answer, longest

    def tried(self) -> str:
        """Asks for one change of every kind while something is at fault; what came of it in a few words."""
        refused, kept, longest = 0, 0, 0.0
        for make in (self.a_measure, self.a_new_version, self.a_switch, self.a_rollback, self.a_pin):
            answer, took = self.sent(order := make())
            longest = max(longest, took)
            refused, kept = refused + (not answer.ok), kept + answer.ok
            # One that was refused has been made since, and the server has not heard of it yet.
            is_stale = answer.status == 412 and self.refused
            if not answer.ok:
                self.refused.append(order)
            self.compare(order)
            if not answer.ok and not is_stale and (answer.status, answer.problem()) not in self.allowed:
                self.wrong.append(f"{order.action}: {answer}")
        if longest > REFUSED_WITHIN:
            self.wrong.append(f"an answer took {longest:.1f} s")
        return f"{refused} refused, {kept} made, the longest took {longest:.1f} s"

    def compare(self, order: orders.Order | None = None) -> None:
        """What the server says is recorded is what is known; what was refused was perhaps made all the same."""
        record = orders.recorded(self.server.to_admin())
        if not (differs := self.mirror.differs(record)):
            return
        for refused in self.refused:
            if refused.revision in (None, self.mirror.revision) and not self.mirror.after(refused).differs(record):
                self.mirror, self.late = self.mirror.after(refused), self.late + 1
                return
        self.wrong.append(f"after {order.action if order else 'the fault'}: {differs}")

    def heals(self) -> str:
        """How long it takes until a change is made again."""
        begun, answer = time.monotonic(), None
        while time.monotonic() - begun < 4 * HEALED_WITHIN:
            self.compare()
            answer, _ = self.sent(self.a_measure())
            if answer.ok:
                took = time.monotonic() - begun
                if took > HEALED_WITHIN:
                    self.wrong.append(f"it takes {took:.1f} s until changes are made again")
                return f"changes are made again after {took:.1f} s"
            time.sleep(0.1)
        self.wrong.append(f"no change is made after the fault: {answer}")
        return "it does not heal"

    def is_as_before(self) -> None:
        """Changes of every kind are made again, and refused where they must be, on whatever connection."""
        for _ in range(3):
            stale = orders.measure("2", {"f1": -1.0}, 1).send(self.server.to_admin())
            if stale.status != 412:
                self.wrong.append(f"a change of another state is not refused as such after the fault: {stale}")
        for make in 2 * (self.a_new_version, self.a_switch, self.a_rollback, self.a_removal):
            answer, _ = self.sent(order := make())
            if not answer.ok:
                self.wrong.append(f"{order.action} is not made after the fault: {answer}")
                return

    def outlasts_a_crash(self) -> None:
        """After a kill and a start all that is known is there."""
        self.server.kill()
        self.server.start()
        self.wrong += invariants.wrong_with(self.server)
        if differs := self.mirror.differs(orders.recorded(self.server.to_admin())):
            self.wrong.append(f"after a crash: {differs}")

    def end(self, what: str, said: str) -> int:
        """Ends the clients and the server; prints what came of it; how much went wrong."""
        try:
            self.is_as_before()
            asked = self.asking.stop()
            self.wrong += [f"not answered: {failure}" for failure in self.asking.failures[:3]]
            self.outlasts_a_crash()
        except (NoStart, Lost, RuntimeError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        self.server.kill()
        late = f"{self.late} of those that were refused made later; " if self.late else ""
        print(f"{what:34} {said}; {late}{asked}; {len(self.wrong)} violations", flush=True)
        for violation in self.wrong:
            print(f"    {violation[:400]}", flush=True)
        return len(self.wrong)
