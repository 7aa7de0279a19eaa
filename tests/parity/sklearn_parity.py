#!/usr/bin/env python3
"""Compares the server's answers with scikit-learn's: eight pipelines, converted and served, and three that are refused.

    python tests/parity/sklearn_parity.py --predictd target/release/predictd
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path

import numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "models"))
from tools import from_sklearn  # noqa: E402
from tools.odd_texts import ODD_TEXTS  # noqa: E402
from tools.refused import Refused  # noqa: E402

INTENTS, TEXTS, START_SECONDS = 10, 200, 60
SCORE_DIFFERENCE, TIE = 1e-5, 1e-6

PIPELINES = {
    "word-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)),
    "count-multinomial": lambda: make_pipeline(CountVectorizer(stop_words="english"), MultinomialNB()),
    "char-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(2, 3), max_features=3000),
                                                 LogisticRegression(max_iter=1000)),
    "tfidf-calibrated-svm": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=3)),
    "binary-bernoulli": lambda: make_pipeline(CountVectorizer(binary=True, max_features=500), BernoulliNB()),
    "tfidf-forest": lambda: make_pipeline(TfidfVectorizer(max_features=500), RandomForestClassifier(30, random_state=1)),
    "multi-label": lambda: make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression(C=10))),
    "pairs-sgd": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier(loss="log_loss", random_state=1)),
}
REFUSED = {
    "char_wb": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb"), LogisticRegression()),
    "HashingVectorizer": lambda: make_pipeline(HashingVectorizer(n_features=256), LogisticRegression()),
    "sublinear_tf": lambda: make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression()),
}


def questions(folder: Path, name: str) -> tuple[list[str], list[str]]:
    """Questions and intents of the first few intents."""
    with (folder / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    intents = sorted({row["category"] for row in rows})[:INTENTS]
    chosen = [row for row in rows if row["category"] in intents]
    return [row["text"] for row in chosen], [row["category"] for row in chosen]


def fit(name: str, pipeline: Pipeline, texts: list[str], labels: list[str]) -> Pipeline:
    """The fitted pipeline. For several labels, the intent and whether the text asks a question."""
    if name != "multi-label":
        return pipeline.fit(texts, labels)
    intents = sorted(set(labels))
    marks = [[label == intent for intent in intents] + ["?" in text] for text, label in zip(texts, labels)]
    return pipeline.fit(texts, numpy.array(marks, dtype=int))


def start(predictd: Path, models: Path, work: Path) -> tuple[subprocess.Popen, str]:
    """The server and its address, once every model is loaded."""
    log = work / "log"
    command = [predictd, "serve", "--models", models, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir",
               work / "data", "--cache-bytes", "0", "--markup", "allow", "--onnxruntime", REPOSITORY / "target/onnxruntime",
               "--log-format", "json"]
    with log.open("wb") as file:
        server = subprocess.Popen(list(map(str, command)), stderr=file)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"message":"listening"' in line:
                address = f"http://{json.loads(line)['address']}"
                with urllib.request.urlopen(f"{address}/health") as answer:
                    if b"loading" not in answer.read():
                        return server, address
        time.sleep(0.1)
    server.kill()
    server.wait()
    raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')}")


def ask(address: str, model: str, texts: list[str]) -> list[dict]:
    """The server's answers, with the scores of all labels."""
    body = json.dumps({"texts": texts, "model": model, "top_k": 1000}).encode()
    request = urllib.request.Request(f"{address}/predict/batch", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())["results"]
