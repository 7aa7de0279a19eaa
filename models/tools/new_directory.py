"""A directory that is written as a whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .refused import Refused


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` at the end. After an error, no file and no directory is left of it."""
    if target.exists():
        raise Refused(f"{target} exists: a version is written once; name a directory that is not there")
    missing = [parent for parent in target.absolute().parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
            made = Path(work) / "made"
            made.mkdir()
            yield made
            made.rename(target)
    except BaseException:
        # The deepest first. Another program may have put something there.
        for parent in missing:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
