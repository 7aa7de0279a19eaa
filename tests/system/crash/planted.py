"""Damage that a killed server might leave, done on purpose: whoever checks must find it (`--plant`)."""

import shutil
import sqlite3
from pathlib import Path


def lost(data: Path) -> None:
    """The last change is not there, as if it had never been made."""
    change(data, "DELETE FROM events WHERE epoch = (SELECT max(epoch) FROM events)", -1)


def twice(data: Path) -> None:
    """The last change is there twice."""
    again = "SELECT epoch + 1, at, who, action, model, version, reason FROM events ORDER BY epoch DESC LIMIT 1"
    change(data, f"INSERT INTO events {again}", 1)


def change(data: Path, statement: str, revisions: int) -> None:
    """Changes the last change, and what counts them."""
    connection = sqlite3.connect(data / "predictd.db", isolation_level=None)
    last = "SELECT model FROM events ORDER BY epoch DESC LIMIT 1"
    connection.execute(f"UPDATE models SET revision = revision + {revisions} WHERE name = ({last})")
    connection.execute(statement)
    connection.execute("UPDATE registry SET epoch = (SELECT max(epoch) FROM events)")
    connection.close()


def half(data: Path) -> None:
    """One file of every version is gone."""
    for version in (data / "store/versions").glob("[0-9a-f]*"):
        version.chmod(0o700)
        (version / "notes.txt").unlink(missing_ok=True)


def unnamed(data: Path) -> None:
    """The store has lost all versions."""
    shutil.rmtree(data / "store/versions")


PLANTS = {"lost": lost, "twice": twice, "half": half, "unnamed": unnamed}
