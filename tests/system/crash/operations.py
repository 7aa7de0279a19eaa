"""Operations that a server is killed in: how each begins, what is done, and what it must lead to."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orders
import tiny_model
from served import Lost, Server

# More than the time after which a server that has started looks for what nothing needs.
A_LOOK = 0.8
LONG_AGO = time.time() - 2 * 24 * 3_600
# Bytes of the database's log from which the next change, of about eight pages, makes it as long as it may be: at 1,000
# pages it is taken into the database.
NEARLY_FULL = 992 * 4_120


@dataclass
class Attempt:
    """What was asked of a server before it was killed, and what it acknowledged."""

    order: orders.Order | None = None
    acknowledged: bool = False
    uploaded: list[str] = field(default_factory=list)


@dataclass
class Operation:
    """One thing that a server does."""

    # Does it; an answer that does not come ends it.
    do: Callable[["Scene", Server, Attempt], None]
    # Changes the data directory before the server starts.
    prepare: Callable[["Scene", Path], None] = lambda scene, data: None
    # Brings a server that has started to where it begins.
    lead_to: Callable[["Scene", Server], None] = lambda scene, server: None
    # The start itself is watched.
    from_start: bool = False
    # A call without which it did not happen.
    made_of: str = ""


class Scene:
    """A directory with models, further versions, and a data directory from which every attempt begins."""

    def __init__(self, binary: Path, place: Path) -> None:
        self.binary, self.place, self.models = binary, place, place / "models"
        tiny_model.write(self.models / orders.NAME / "1", "1")
        for version in "234":
            tiny_model.write(self.other(version), version)
        server = Server(binary, self.models, place / "data").start()
        wire = server.to_admin()
        for version in "23":
            orders.upload(wire, self.other(version))
            done(orders.register(version, self.other(version)), wire)
        done(orders.activate("2", self.revision(wire)), wire)
        server.stop()

    def other(self, version: str) -> Path:
        """The files of a version that is to be registered."""
        return self.place / "others" / version

    def revision(self, wire) -> int:
        """The model's, now."""
        return orders.recorded(wire)["revision"]

    def copy(self, name: str) -> Path:
        """A data directory of its own."""
        data = self.place / name
        shutil.copytree(self.place / "data", data)
        return data


def done(order: orders.Order, wire) -> None:
    """What must succeed."""
    answer = order.send(wire)
    if not answer.ok:
        raise RuntimeError(f"{order.action} {order.version}: {answer}")


def ordered(make: Callable[[int], orders.Order]):
    """An operation that is one order."""
    def do(_: Scene, server: Server, attempt: Attempt) -> None:
        wire = server.to_admin()
        attempt.order = make(int(wire.ask("GET", f"/admin/models/{orders.NAME}").headers["ETag"].strip('"')))
        send(attempt, wire)
    return do


def send(attempt: Attempt, wire) -> None:
    """Sends the order of an attempt."""
    answer = attempt.order.send(wire)
    attempt.acknowledged = answer.ok
    if not answer.ok:
        raise RuntimeError(f"{attempt.order.action}: {answer}")


def register(scene: Scene, server: Server, attempt: Attempt) -> None:
    """Uploads files and makes a version of them."""
    wire, directory = server.to_admin(), scene.other("4")
    attempt.order = orders.register("4", directory)
    for file in orders.files_of(directory):
        if orders.put(wire, directory, file).ok:
            attempt.uploaded.append(file["sha256"])
    send(attempt, wire)


def begin(_: Scene, server: Server, __: Attempt) -> None:
    """Lets a server that is held start."""
    server.process.send_signal(signal.SIGCONT)
    end = time.monotonic() + 30
    while not server.is_ready():
        if server.process.poll() is not None or time.monotonic() > end:
            raise Lost(f"it ended while it started: {server.log()[-500:]}")
        time.sleep(0.003)


def stop(_: Scene, server: Server, __: Attempt) -> None:
    """Tells it to stop."""
    server.stop()


def wait(_: Scene, server: Server, __: Attempt) -> None:
    """Lets it look after itself."""
    end = time.monotonic() + A_LOOK
    while time.monotonic() < end and server.process.poll() is None:
        time.sleep(0.02)


def nothing_there(_: Scene, data: Path) -> None:
    """No data directory."""
    shutil.rmtree(data)


def crashed(scene: Scene, data: Path) -> None:
    """What is left when a server is killed: a log of the database, files and a version that are not whole."""
    server = Server(scene.binary, scene.models, data).start()
    wire = server.to_admin()
    for value in range(20):
        done(orders.measure("2", {"step": value}, scene.revision(wire)), wire)
    orders.upload(wire, scene.other("4"))
    server.kill()
    (data / "store/incoming/.half").write_bytes(b"half of a file")
    half = data / "store/versions/.half"
    shutil.copytree(scene.other("4"), half)
    half.chmod(0o500)


def forgotten(scene: Scene, data: Path) -> None:
    """A version and uploads that nothing has named for two days."""
    server = Server(scene.binary, scene.models, data).start()
    wire = server.to_admin()
    done(orders.remove("3", scene.revision(wire)), wire)
    server.kill()
    for entry in [*(data / "store/versions").iterdir(), *(data / "store/incoming").iterdir()]:
        os.utime(entry, (LONG_AGO, LONG_AGO))


def change(_: Scene, server: Server) -> None:
    """Any change: there is something in the log of the database."""
    wire = server.to_admin()
    done(orders.measure("2", {"step": 1}, orders.recorded(wire)["revision"]), wire)


def fill_log(_: Scene, server: Server) -> None:
    """Changes until the next ones have the database take in its log."""
    wire = server.to_admin()
    revision = orders.recorded(wire)["revision"]
    while (server.data / "predictd.db-wal").stat().st_size < NEARLY_FULL:
        done(orders.measure("2", {"step": revision}, revision), wire)
        revision += 1


def figures(revision: int) -> orders.Order:
    """Figures of the active version."""
    return orders.measure("2", {"f1": 0.5}, revision)


OPERATIONS = {
    "first-start": Operation(begin, prepare=nothing_there, from_start=True, made_of="unlink predictd.db-journal"),
    "start-after-crash": Operation(begin, prepare=crashed, from_start=True, made_of="unlink store/incoming/.half"),
    "register": Operation(register, made_of="rename store/versions/"),
    "activate": Operation(ordered(lambda revision: orders.activate("3", revision)), made_of="fsync predictd.db-wal"),
    "rollback": Operation(ordered(orders.roll_back), made_of="fsync predictd.db-wal"),
    "remove": Operation(ordered(lambda revision: orders.remove("3", revision)), made_of="fsync predictd.db-wal"),
    "measure": Operation(ordered(figures), made_of="fsync predictd.db-wal"),
    "pin": Operation(ordered(lambda revision: orders.pin("3", True, revision)), made_of="fsync predictd.db-wal"),
    "checkpoint": Operation(ordered(figures), lead_to=fill_log, made_of="pwrite64 predictd.db"),
    "collect": Operation(wait, prepare=forgotten, made_of="unlink store/versions/"),
    "stop": Operation(stop, lead_to=change, made_of="unlink predictd.db-wal"),
}
