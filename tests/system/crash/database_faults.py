#!/usr/bin/env python3
"""The disk and the database of a running server fail: changes are refused or kept, questions answered, and it heals.

    python3 tests/system/crash/database_faults.py --predictd target/debug/predictd [--only disk-full,locked]

- calls: system calls fail with EIO, ENOSPC, EROFS or EMFILE (needs strace)
- disk-full: the data directory is on a file system without room (needs root, to mount a tmpfs)
- locked, locked-for-all: another process holds the database's locks
- damaged: the database's file is damaged at a start: questions are answered, changes and feedback refused, and nothing is
  written to it
"""

import argparse
import fcntl
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fault_scene import FaultScene
from served import ROOT, Faults, NoStart

EXIT_CONFIGURATION = 64
# A file that cannot be opened may be said to be the version's fault.
UNUSABLE = frozenset({(422, "version-unusable")})


@dataclass
class Fault:
    """Calls that fail."""

    name: str
    inject: str
    # Only if they are about one of these files of the data directory; otherwise all.
    files: tuple[str, ...] = ()
    allowed: frozenset[tuple[int, str]] = frozenset()


DATABASE = ("predictd.db", "predictd.db-wal", "predictd.db-shm", "predictd.db-journal")
WRITE, SYNC = "pwrite64,pwritev,write", "fsync,fdatasync"
FAULTS = [
    Fault("database: write EIO", f"{WRITE}:error=EIO", DATABASE),
    Fault("database: write ENOSPC", f"{WRITE}:error=ENOSPC", DATABASE),
    Fault("database: write EROFS", f"{WRITE}:error=EROFS", DATABASE),
    Fault("database: every third write EIO", f"{WRITE}:error=EIO:when=3+3", DATABASE),
    Fault("database: sync EIO", f"{SYNC}:error=EIO", DATABASE),
    Fault("database: every second sync EIO", f"{SYNC}:error=EIO:when=2+2", DATABASE),
    Fault("database: read EIO", "pread64:error=EIO", DATABASE),
    Fault("everywhere: sync EIO", f"{SYNC}:error=EIO"),
    Fault("everywhere: open EIO", "openat:error=EIO", allowed=UNUSABLE),
    Fault("everywhere: open EROFS", "openat:error=EROFS", allowed=UNUSABLE),
    Fault("everywhere: open EMFILE", "openat:error=EMFILE", allowed=UNUSABLE),
    Fault("everywhere: rename EIO", "rename,renameat,renameat2:error=EIO"),
    Fault("everywhere: mkdir ENOSPC", "mkdir,mkdirat:error=ENOSPC"),
    Fault("everywhere: chmod EROFS", "chmod,fchmod,fchmodat:error=EROFS"),
    Fault("everywhere: unlink EROFS", "unlink,unlinkat:error=EROFS"),
]
# Bytes of room that a file system has while it is full.
ROOM = (0, 20_000, 100_000, 300_000)


def calls(binary: Path, only: list[str]) -> int:
    """Calls fail for a while, under load."""
    wrong = 0
    for fault in FAULTS:
        if only and not any(fault.name.startswith(name) for name in only):
            continue
        with tempfile.TemporaryDirectory() as place:
            scene = FaultScene(binary, Path(place), Path(place) / "data", fault.allowed)
            files = [scene.server.data / name for name in fault.files]
            faults = Faults(scene.server.process.pid, [fault.inject], files)
            said = scene.tried()
            faults.end()
            wrong += scene.end(fault.name, f"{said}; {scene.heals()}")
    return wrong


def disk_full(binary: Path) -> int:
    """The data directory has no room for a while."""
    wrong = 0
    for room in ROOM:
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "data"
            data.mkdir()
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", data], check=False)
            if mounted.returncode:
                print("disk-full: left out, no tmpfs can be mounted")
                return 0
            try:
                scene = FaultScene(binary, Path(place), data)
                filler, free = data / "filler", os.statvfs(data).f_bavail * os.statvfs(data).f_frsize
                filler.write_bytes(b"x" * max(0, free - room))
                said = scene.tried()
                parts = [data / "store/incoming", data / "store/versions"]
                hidden = [entry.name for part in parts for entry in part.iterdir() if entry.name.startswith(".")]
                if hidden:
                    scene.wrong.append(f"{hidden} is left in the store")
                filler.unlink()
                wrong += scene.end(f"disk-full: {room >> 10} KiB of room", f"{said}; {scene.heals()}")
            finally:
                subprocess.run(["umount", "--lazy", data], check=False)
    return wrong


def locked(binary: Path, for_all: bool) -> int:
    """Another process holds a lock: that of writers, or all of them."""
    with tempfile.TemporaryDirectory() as place:
        scene = FaultScene(binary, Path(place), Path(place) / "data")
        release = lock_all(scene.server.data) if for_all else lock_writers(scene.server.data)
        said, admin = scene.tried(), scene.server.to_admin()
        stale, history = admin.ask("GET", "/admin/models").json()["stale"], admin.ask("GET", "/admin/models/m/history")
        release()
        said += f"; meanwhile stale: {stale}, history: {history.status}"
        return scene.end("locked for all" if for_all else "locked", f"{said}; {scene.heals()}")


def lock_writers(data: Path):
    """As somebody does who works on the file."""
    other = sqlite3.connect(data / "predictd.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other.close


def lock_all(data: Path):
    """The locks of readers of the log too, which are bytes 120 to 127 of the file that the processes share."""
    shared = (data / "predictd.db-shm").open("r+b")
    while True:
        try:
            fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 120)
            return shared.close
        except BlockingIOError:
            time.sleep(0.001)


def zeroed(file: Path) -> None:
    """All zeros."""
    file.write_bytes(bytes(file.stat().st_size))


def garbage(file: Path) -> None:
    """Anything."""
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


def halved(file: Path) -> None:
    """Its second half is gone."""
    os.truncate(file, file.stat().st_size // 2)


def spoilt(file: Path) -> None:
    """All pages after the second are others; the header is whole."""
    content = bytearray(file.read_bytes())
    content[2 * 4096:] = random.Random(2).randbytes(len(content) - 2 * 4096)
    file.write_bytes(content)


def emptied(file: Path) -> None:
    """Nothing is in it."""
    os.truncate(file, 0)


def missing(file: Path) -> None:
    """There is none, beside a store with versions."""
    file.unlink()


def a_directory(file: Path) -> None:
    """Something else has its name."""
    file.unlink()
    file.mkdir()


def keeps_nothing(scene: FaultScene) -> list[str]:
    """What a server that has started on a damaged file does wrong."""
    data, admin, found = scene.server.to_data(), scene.server.to_admin(), []
    answer = data.ask("POST", "/predict", {"text": "2 3"})
    if not answer.ok:
        return [f"a question got {answer}"]
    told = {"prediction_id": answer.json()["prediction_id"], "actual": answer.json()["prediction"]}
    for what, refused in [("feedback", data.ask("POST", "/feedback", told)), ("a change", scene.a_measure().send(admin))]:
        if refused.status != 503:
            found.append(f"{what} got {refused}")
    state = admin.ask("GET", "/health").json()["registry"]
    return found if state == "damaged" else [*found, f"/health says {state}"]


def damaged(binary: Path) -> int:
    """Starts on damaged files."""
    wrong = 0
    for damage in (zeroed, garbage, halved, spoilt, emptied, missing, a_directory):
        with tempfile.TemporaryDirectory() as place:
            scene = FaultScene(binary, Path(place), Path(place) / "data")
            scene.asking.stop()
            scene.server.stop()
            file = scene.server.data / "predictd.db"
            damage(file)
            before = file.read_bytes() if file.is_file() else None
            try:
                scene.server.start()
                found = keeps_nothing(scene)
            except NoStart as error:
                # What cannot be opened at all may be a mistake of the operator's.
                is_refused = damage is a_directory and scene.server.process.returncode == EXIT_CONFIGURATION
                found = [] if is_refused else [str(error)]
            said = " ".join(line for line in scene.server.log().splitlines() if line.startswith("predictd: "))
            scene.server.kill()
            if (file.read_bytes() if file.is_file() else None) != before:
                found.append("the file was changed")
            said = said.replace(place, "") or "it starts"
            print(f"damaged: {damage.__name__:25} {said}; {len(found)} violations", flush=True)
            for violation in found:
                print(f"    {violation}")
            wrong += len(found)
    return wrong


def main() -> None:
    """One fault after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    everything = "calls,disk-full,locked,locked-for-all,damaged"
    parser.add_argument("--only", default=everything, help="some of them, with commas between")
    parser.add_argument("--fault", action="append", default=[], help="of the calls: those whose name begins so")
    options = parser.parse_args()
    binary, begun, wrong = options.predictd.resolve(), time.monotonic(), 0
    parts = {"calls": lambda: calls(binary, options.fault), "disk-full": lambda: disk_full(binary),
             "locked": lambda: locked(binary, False), "locked-for-all": lambda: locked(binary, True),
             "damaged": lambda: damaged(binary)}
    for name in options.only.split(","):
        wrong += parts[name]()
    print(f"{wrong} violations, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
