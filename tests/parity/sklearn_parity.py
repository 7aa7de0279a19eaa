#!/usr/bin/env python3
"""Compares the server's answers with scikit-learn's: eight pipelines, converted and served, and three that are refused.

    python tests/parity/sklearn_parity.py --predictd target/debug/predictd
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "models"), str(Path(__file__).parent)]
from served import Served  # noqa: E402
from tools import from_sklearn  # noqa: E402
from tools.odd_texts import ODD_TEXTS  # noqa: E402
from tools.refused import Refused  # noqa: E402
from training import data  # noqa: E402

INTENTS, TEXTS = 10, 200
SCORE_DIFFERENCE, TIE = 1e-5, 1e-6
# Exit status where there is no data to train on.
NO_DATA = 3

PIPELINES = {
    "word-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)),
    "count-multinomial": lambda: make_pipeline(CountVectorizer(stop_words="english"), MultinomialNB()),
    "char-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(2, 3), max_features=3000),
                                                 LogisticRegression(max_iter=1000)),
    "tfidf-calibrated-svm": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=3)),
    "binary-complement": lambda: make_pipeline(CountVectorizer(binary=True), ComplementNB()),
    "tfidf-forest": lambda: make_pipeline(TfidfVectorizer(max_features=500), RandomForestClassifier(30, random_state=1)),
    "multi-label": lambda: make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression(C=10))),
    "pairs-sgd": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier(loss="log_loss", random_state=1)),
}
REFUSED = {
    "char_wb": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb"), LogisticRegression()),
    "HashingVectorizer": lambda: make_pipeline(HashingVectorizer(n_features=256), LogisticRegression()),
    "sublinear_tf": lambda: make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression()),
}


def first_intents(split: data.Split) -> tuple[list[str], list[str]]:
    """Questions and intents of the first few intents."""
    intents = sorted(set(split.labels))[:INTENTS]
    chosen = [(text, label) for text, label in zip(*split) if label in intents]
    return [text for text, _ in chosen], [label for _, label in chosen]


def fit(name: str, pipeline: Pipeline, texts: list[str], labels: list[str]) -> Pipeline:
    """The fitted pipeline. For several labels, the intent and whether the text asks a question."""
    if name != "multi-label":
        return pipeline.fit(texts, labels)
    intents = sorted(set(labels))
    marks = [[label == intent for intent in intents] + ["?" in text] for text, label in zip(texts, labels)]
    return pipeline.fit(texts, numpy.array(marks, dtype=int))


def ask(served: Served, model: str, texts: list[str]) -> list[dict]:
    """The server's answers, with one score for each label."""
    results = served.ask("/batch_predict", {"texts": texts, "model": model, "return_probabilities": True})["results"]
    errors = [result for result in results if "error" in result]
    if errors or len(results) != len(texts):
        raise SystemExit(f"{model}: {len(results)} answers to {len(texts)} texts, {len(errors)} of them errors: {errors[:1]}")
    return results


def differences(name: str, pipeline: Pipeline, texts: list[str], results: list[dict]) -> tuple[int, int, float]:
    """Labels that differ, ties that are excepted, and the largest difference of a score."""
    expected = pipeline.predict_proba(texts)
    found = numpy.array([result["probabilities"] for result in results])
    if found.shape != expected.shape:
        raise SystemExit(f"{name}: the server answers {found.shape}, the pipeline {expected.shape}")
    predicted, classes = pipeline.predict(texts), [str(label) for label in pipeline.classes_]
    wrong = ties = 0
    for number, result in enumerate(results):
        if name == "multi-label":
            wrong += set(result["prediction"]) != {label for label, mark in zip(classes, predicted[number]) if mark}
        elif result["prediction"] != predicted[number]:
            second, first = numpy.sort(expected[number])[-2:]
            tied = name == "tfidf-forest" and first - second < TIE
            ties, wrong = ties + tied, wrong + (not tied)
    return int(wrong), int(ties), float(abs(found - expected).max())


def refusals(work: Path, texts: list[str], labels: list[str]) -> int:
    """How many of the pipelines that cannot be converted were not refused by name, or left something behind."""
    missed = 0
    for name, make in REFUSED.items():
        target = work / "refused" / name
        try:
            from_sklearn.write(make().fit(texts, labels), target, None, None)
            said = ""
        except Refused as refusal:
            said = str(refusal)
        left = list(target.parent.glob("*")) if target.parent.exists() else []
        right = name in said and not left
        missed += not right
        print(f"{name:<22} {'refused: ' + said if right else f'NOT REFUSED BY NAME: {said!r}, left {left}'}")
    return missed


def main() -> None:
    """Trains, converts, serves, compares. Status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd", help="the server")
    parser.add_argument("--data", type=Path, help="BANKING77 (default: beside this repository, else downloaded)")
    options = parser.parse_args()
    # scikit-learn warns of labels that no training text has, which folds of the calibration may lack.
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    try:
        folder = data.locate(options.data, ROOT.parent / "shared/data/banking77", ROOT / "target/models-work")
    except OSError as error:
        print(f"BANKING77 is not to be had: {error}")
        sys.exit(NO_DATA)
    known = data.load(folder)
    texts, labels = first_intents(known.train)
    asked = [*ODD_TEXTS, *first_intents(known.test)[0]][:TEXTS]
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        pipelines, given = {}, {}
        for name, make in PIPELINES.items():
            pipelines[name] = fit(name, make(), texts, labels)
            # Folded white space: what else the graph answers is told when a pipeline over characters is converted.
            given[name] = [" ".join(text.split()) for text in asked] if name.startswith("char") else asked
            from_sklearn.write(pipelines[name], work / "models" / name / "1", given[name], None)
        failed += refusals(work, texts, labels)
        served = Served(options.predictd, work / "models")
        try:
            for name, pipeline in pipelines.items():
                wrong, ties, difference = differences(name, pipeline, given[name], ask(served, name, given[name]))
                bad = bool(wrong) or not difference <= SCORE_DIFFERENCE
                failed += bad
                print(f"{name:<22} {len(asked)} texts: {wrong} labels differ, {ties} ties excepted, "
                      f"scores within {difference:.1e}{'  FAILED' if bad else ''}")
        finally:
            served.stop()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
