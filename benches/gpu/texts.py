"""The texts that are asked: those of a file, and texts of an exact number of tokens made of their words."""

import csv
import json
import random
import re
from pathlib import Path

from server import Server

SEED = 20260101
# `[CLS]` and `[SEP]`.
AROUND = 2
WORDS = 400


def of_file(path: Path) -> list[str]:
    """The column `text` of a CSV file, or the lines of another, in an order that has nothing to do with labels."""
    with path.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)] if path.suffix == ".csv" else [line.strip() for line in file if line.strip()]
    random.Random(SEED).shuffle(texts)
    return texts


def of_one_token(server: Server, texts: list[str]) -> list[str]:
    """Words that the model's tokenizer takes as one token: the server tells."""
    words = sorted({word.lower() for text in texts for word in re.findall(r"[A-Za-z]{2,}", text)})
    random.Random(SEED).shuffle(words)
    words = words[:WORDS]
    return [word for word, answer in zip(words, server.answers(words)) if answer["tokens"] == AROUND + 1]


def of_length(words: list[str], tokens: int, count: int) -> list[str]:
    """Texts of so many tokens."""
    chance = random.Random(SEED + tokens)
    return [" ".join(chance.choices(words, k=tokens - AROUND)) for _ in range(count)]


def requests(texts: list[str], path: Path, batch: int = 0) -> Path:
    """A file of requests as the load generator reads it: one text each, or so many."""
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, len(texts), max(batch, 1)):
            some = texts[start:start + max(batch, 1)]
            body = {"texts": some} if batch else {"text": some[0]}
            line = {"path": "/batch_predict" if batch else "/predict", "body": json.dumps(body), "texts": len(some)}
            file.write(json.dumps(line) + "\n")
    return path
