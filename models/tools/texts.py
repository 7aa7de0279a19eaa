"""Texts from the files that authors have them in."""

import csv
import io
import json
from pathlib import Path

from .refused import Refused

# One text, or two that belong together.
Text = str | tuple[str, str]


def read_texts(path: Path) -> list[Text]:
    """One text a line, a JSON list, or CSV with the column text, and text_pair for pairs. Blank texts are left out."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content, newline=""))
        names = rows.fieldnames or []
        if "text" not in names:
            raise Refused(f"{path} has no column text")
        pairs = "text_pair" in names
        texts = [(row["text"], row["text_pair"]) if pairs else row["text"] for row in rows]
    elif path.suffix == ".json":
        try:
            texts = json.loads(content)
        except json.JSONDecodeError as error:
            raise Refused(f"{path} is no JSON: {error}") from error
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refused(f"{path} is no list of texts")
    else:
        texts = content.replace("\r\n", "\n").split("\n")
    texts = [text for text in texts if all(part and part.strip() for part in ([text] if isinstance(text, str) else text))]
    if not texts:
        raise Refused(f"{path} has no texts")
    return texts
