"""BANKING77: 13,083 questions of bank customers with 77 intents (arXiv 2003.04807, CC BY 4.0)."""

import csv
import urllib.request
from pathlib import Path
from typing import NamedTuple

SOURCE = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data"
FILES = ("train.csv", "test.csv")


class Split(NamedTuple):
    """Texts and their labels, in the order of the file."""

    texts: list[str]
    labels: list[str]


class Banking77(NamedTuple):
    """The official training and test questions, and the intents in score order."""

    train: Split
    test: Split
    intents: list[str]


def locate(given: Path | None, beside: Path, work: Path) -> Path:
    """The folder with the data: the one given, the one beside the repository, or a download kept in `work`."""
    if given is not None:
        return given
    if all((beside / name).is_file() for name in FILES):
        return beside
    downloaded = work / "banking77"
    downloaded.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        target = downloaded / name
        if not target.is_file():
            print(f"downloading {SOURCE}/{name}")
            # Renamed only when complete, so that a broken download is not taken for the file next time.
            partial = target.with_suffix(".partial")
            urllib.request.urlretrieve(f"{SOURCE}/{name}", partial)
            partial.rename(target)
    return downloaded


def load(folder: Path) -> Banking77:
    """Reads both files. Intents are sorted as scikit-learn sorts classes, so both models share one order."""
    train, test = (read_split(folder / name) for name in FILES)
    intents = sorted(set(train.labels))
    if (len(train.texts), len(test.texts), len(intents)) != (10003, 3080, 77):
        raise SystemExit(f"{folder} does not hold BANKING77: {len(train.texts)} training questions, "
                         f"{len(test.texts)} test questions, {len(intents)} intents")
    return Banking77(train, test, intents)


def read_split(path: Path) -> Split:
    """One CSV file with the columns `text` and `category`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Split([row["text"] for row in rows], [row["category"] for row in rows])
