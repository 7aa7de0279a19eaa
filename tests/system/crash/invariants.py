"""What must be true of a data directory and of the server that was started on it, whatever happened before."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import orders
import tiny_model
from served import Server

FILES = ("predictd.db", "predictd.db-wal")
# What a data directory holds.
KEPT = {*FILES, "predictd.db-shm", "predictd.lock", "store", "receipt.keys", "keys.toml", "registry.json"}
TABLES = {"registry", "models", "versions", "events", "requests"}
MODELS = "SELECT name, revision, active, earlier FROM models"
VERSIONS = "SELECT model, version, origin, files FROM versions"
EVENTS = "SELECT epoch, model, action, version, reason FROM events ORDER BY epoch"
EPOCH = "SELECT epoch FROM registry"


class Book:
    """What is in the database."""

    def __init__(self, ask: Callable[[str], Iterable[tuple]] | None = None) -> None:
        """`ask` gives the rows of a query; none: there is nothing."""
        self.problems, self.models, self.versions, self.events, self.epoch = [], {}, {}, [], 0
        if ask is None:
            return
        for name, revision, active, before in ask(MODELS):
            self.models[name] = (revision, active, json.loads(before))
        for name, version, origin, files in ask(VERSIONS):
            self.versions[name, version] = (json.loads(origin), json.loads(files))
        self.events = [tuple(row) for row in ask(EVENTS)]
        (self.epoch,), = ask(EPOCH)

    def wrong(self) -> list[str]:
        """What does not fit together."""
        wrong = list(self.problems)
        for name, (revision, active, before) in self.models.items():
            of_model = {version for model, version in self.versions if model == name}
            missing = {version for version in [active, *before] if version} - of_model
            if missing:
                wrong.append(f"{name}: {missing} is named and not there")
            if before and before[-1] == active:
                wrong.append(f"{name}: a rollback leads to {active}, which is active")
            changes = sum(1 for event in self.events if event[1] == name)
            if changes != revision:
                wrong.append(f"{name}: revision {revision}, and {changes} changes in the history")
        if self.events and self.events[-1][0] > self.epoch:
            wrong.append(f"the history has epoch {self.events[-1][0]}, and the last is {self.epoch}")
        return wrong


def of_files(data: Path) -> Book:
    """The database of a data directory, as a copy of its file and of its log shows it."""
    with tempfile.TemporaryDirectory(dir=data.parent) as place:
        for name in FILES:
            if (data / name).exists():
                shutil.copy(data / name, place)
        file = Path(place) / FILES[0]
        if not file.exists():
            return Book()
        connection, book, problems = sqlite3.connect(file), Book(), []
        try:
            for check in ("integrity_check", "foreign_key_check"):
                found = [row for row in connection.execute(f"PRAGMA {check}") if row != ("ok",)]
                if found:
                    problems.append(f"PRAGMA {check}: {found[:3]}")
            tables = {name for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables >= TABLES:
                book = Book(connection.execute)
        except sqlite3.Error as error:
            problems.append(f"the database cannot be read: {error}")
        finally:
            connection.close()
        book.problems = problems
        return book


def address(files: list[dict]) -> str:
    """The address of a version in the store."""
    listed = sorted((file["path"], file["bytes"], file["sha256"]) for file in files)
    return hashlib.sha256("".join(f"{sha256} {size} {path}\n" for path, size, sha256 in listed).encode()).hexdigest()


def store_wrong(data: Path, book: Book, shared: bool) -> list[str]:
    """What is in the store is whole, and all that is recorded is there. Where others may write, files may be begun."""
    wrong = []
    incoming, versions = data / "store/incoming", data / "store/versions"
    for place in () if shared else (incoming, versions):
        wrong += [f"{entry.relative_to(data)} was left" for entry in place.iterdir() if entry.name.startswith(".")]
    for file in incoming.iterdir():
        if not file.name.startswith(".") and hashlib.sha256(file.read_bytes()).hexdigest() != file.name:
            wrong.append(f"store/incoming/{file.name} is not whole")
    for directory in versions.iterdir():
        if not directory.name.startswith(".") and address(orders.files_of(directory)) != directory.name:
            wrong.append(f"store/versions/{directory.name} is not whole")
    for (name, version), (origin, files) in book.versions.items():
        if origin == "upload" and not (versions / address(files)).is_dir():
            wrong.append(f"{name}/{version} is recorded, and its files are not there")
    return wrong


def left_over(data: Path) -> list[str]:
    """Files in the data directory itself that were being written: nobody looks for them again."""
    return sorted(entry.name for entry in data.iterdir() if entry.name not in KEPT)


def wrong_with(server: Server, names: tuple[str, ...] = (orders.NAME,), book: Book | None = None) -> list[str]:
    """What is wrong with a server that has just been started, and with its data."""
    shared = book is not None and "--database" in server.command
    book = book or of_files(server.data)
    wrong = book.wrong() + store_wrong(server.data, book, shared)
    admin, data = server.to_admin(), server.to_data()
    for name in names:
        record = orders.recorded(admin, name)
        active = record["active"]
        if active is None or active not in record["versions"]:
            wrong.append(f"{name}: the active version is {active}, of {sorted(record['versions'])}")
            continue
        found, expected = orders.answers(data, name), (active, tiny_model.label(active))
        if found != expected:
            wrong.append(f"{name}: {found} answers, where {expected} should")
        if book.models[name][:2] != (record["revision"], active):
            wrong.append(f"{name}: the server says {record['revision']}, {active}; the file {book.models[name]}")
    return wrong
