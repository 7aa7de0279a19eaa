#!/usr/bin/env python3
"""Compares the server's answers with scikit-learn's: pipelines of many settings, every family of classifiers that
scikit-learn has, and graphs that skl2onnx wrote without `from-sklearn`. Those that are refused are listed with the reason.

    python tests/system/parity/sklearn_parity.py --predictd target/debug/predictd
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "models"), str(Path(__file__).parent)]
import families  # noqa: E402
from served import Served  # noqa: E402
from tools import from_sklearn  # noqa: E402
from tools.odd_texts import ODD_TEXTS  # noqa: E402
from tools.refused import Refused  # noqa: E402
from tools.sklearn_texts import probe_texts  # noqa: E402
from training import data  # noqa: E402

INTENTS, TEXTS, PROBES = 10, 150, 100
# Rounding to 32 bits, of probabilities.
SCORE_DIFFERENCE, TIE = 1e-5, 2e-5
# Of texts in which a word stands dozens of times, so that sums are large.
LONG_DIFFERENCE = 1e-4
# Characters of a text that is asked.
LONGEST = 1_000
# Exit status where there is no data to train on.
NO_DATA = 3

PIPELINES = {
    "word-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)),
    "count-multinomial": lambda: make_pipeline(CountVectorizer(stop_words="english"), MultinomialNB()),
    "char-tfidf-logistic": lambda: make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(2, 3), max_features=3000),
                                                 LogisticRegression(max_iter=1000)),
    "char-wb-logistic": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=3000),
                                              LogisticRegression(max_iter=1000)),
    "tfidf-calibrated-svm": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=3)),
    "binary-complement": lambda: make_pipeline(CountVectorizer(binary=True), ComplementNB()),
    "tfidf-forest": lambda: make_pipeline(TfidfVectorizer(max_features=500), RandomForestClassifier(30, random_state=1)),
    "multi-label": lambda: make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression(C=10))),
    "pairs-sgd": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier(loss="log_loss", random_state=1)),
    "stop-words-pairs": lambda: make_pipeline(TfidfVectorizer(stop_words="english", ngram_range=(1, 2), sublinear_tf=True),
                                              LogisticRegression(C=10, max_iter=1000)),
}
REFUSED = {
    "HashingVectorizer": lambda: make_pipeline(HashingVectorizer(n_features=256), LogisticRegression()),
    "strip_accents": lambda: make_pipeline(TfidfVectorizer(strip_accents="unicode"), LogisticRegression()),
}


class Row(NamedTuple):
    """A pipeline that is served under a name, and the texts that are asked."""

    pipeline: Pipeline
    texts: list[str]
    labels: list[str]
    several: bool


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


def probes(pipeline: Pipeline, count: int) -> list[str]:
    """Texts of the pipeline's own vocabulary, of each kind some."""
    vectorizer = pipeline.steps[0][1]
    texts = [text for text in probe_texts([vectorizer]) if text.strip() and len(text) <= LONGEST and "\0" not in text]
    return texts[::max(1, len(texts) // count)][:count]


def ask(served: Served, model: str, texts: list[str]) -> list[dict]:
    """The server's answers, with one score for each label."""
    results = served.ask("/batch_predict", {"texts": texts, "model": model, "return_probabilities": True})["results"]
    errors = [result for result in results if "error" in result]
    if errors or len(results) != len(texts):
        raise SystemExit(f"{model}: {len(results)} answers to {len(texts)} texts, {len(errors)} of them errors: {errors[:1]}")
    return results


def differences(row: Row, results: list[dict]) -> tuple[int, int, float]:
    """Labels that differ, ties that are excepted, and by how much the scores differ, as a share of what is allowed."""
    expected = from_sklearn.scores_of(row.pipeline, row.texts)
    found = numpy.array([result["probabilities"] for result in results])
    if found.shape != expected.shape:
        raise SystemExit(f"the server answers {found.shape}, the pipeline {expected.shape}")
    predicted = row.pipeline.predict(row.texts)
    wrong = ties = 0
    for number, result in enumerate(results):
        if row.several:
            clear = (abs(expected[number] - 0.5) > TIE).all()
            right = set(result["prediction"]) == {label for label, mark in zip(row.labels, predicted[number]) if mark}
        else:
            second, first = numpy.sort(expected[number])[-2:]
            clear = first - second > TIE
            right = result["prediction"] == str(predicted[number])
        ties, wrong = ties + (not right and not clear), wrong + (not right and clear)
    allowed = numpy.array([LONG_DIFFERENCE if len(text) > 300 else SCORE_DIFFERENCE for text in row.texts])
    return int(wrong), int(ties), float((abs(found - expected).max(axis=1) / allowed).max())


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


def settings_rows(work: Path, texts: list[str], labels: list[str], questions: list[str]) -> dict[str, Row]:
    """The pipelines of many settings, written by `from-sklearn`."""
    rows = {}
    for name, make in PIPELINES.items():
        pipeline = fit(name, make(), texts, labels)
        asked = [*probes(pipeline, PROBES), *ODD_TEXTS, *questions][:PROBES + TEXTS]
        from_sklearn.write(pipeline, work / "models" / name / "1", asked, None)
        rows[name] = Row(pipeline, asked, [str(label) for label in pipeline.classes_], name == "multi-label")
    return rows


def family_rows(work: Path, texts: list[str], labels: list[str], questions: list[str]) -> tuple[dict[str, Row], dict[str, str]]:
    """Every family of classifiers: those that are served, by `from-sklearn` and as the graph alone, and why not the others."""
    rows: dict[str, Row] = {}
    refused: dict[str, str] = {}
    vectorizer = TfidfVectorizer(max_features=200).fit(texts)
    asked = [*probes(make_pipeline(vectorizer), 40), *questions][:80]
    for name, pipeline in families.fitted(texts, labels, refused):
        target = work / "models" / name.lower() / "1"
        try:
            several = from_sklearn.multi_label(pipeline)
            names = families.OUTPUTS if several else None
            from_sklearn.write(pipeline, target, None, names)
        except Refused as refusal:
            refused[name] = str(refusal)
            continue
        rows[name.lower()] = Row(pipeline, asked, names or [str(label) for label in pipeline.classes_], several)
        if not several:
            # As skl2onnx gives it: no file names the labels.
            alone = work / "models" / f"{name.lower()}-graph" / "1"
            alone.mkdir(parents=True)
            (alone / "model.onnx").write_bytes((target / "model.onnx").read_bytes())
            rows[f"{name.lower()}-graph"] = rows[name.lower()]
    return rows, refused


def graph_rows(work: Path, texts: list[str], labels: list[str], questions: list[str]) -> dict[str, Row]:
    """Graphs that skl2onnx wrote with each of its options for the outputs."""
    rows = {}
    for name, (pipeline, graph, files) in families.graphs(texts, labels).items():
        folder = work / "models" / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(graph)
        for file, content in files.items():
            (folder / file).write_text(content, encoding="utf-8")
        several = from_sklearn.multi_label(pipeline)
        rows[name] = Row(pipeline, questions[:80], families.OUTPUTS if several else [str(label) for label in pipeline.classes_], several)
    return rows


def main() -> None:
    """Trains, converts, serves, compares. Status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd", help="the server")
    parser.add_argument("--data", type=Path, help="BANKING77 (default: beside this repository, else downloaded)")
    options = parser.parse_args()
    # scikit-learn warns of labels that no training text has, which folds of the calibration may lack, and of settings.
    warnings.filterwarnings("ignore", module="sklearn")
    try:
        folder = data.locate(options.data, ROOT.parent / "shared/data/banking77", ROOT / "target/models-work")
    except OSError as error:
        print(f"BANKING77 is not to be had: {error}")
        sys.exit(NO_DATA)
    started, known = time.time(), data.load(folder)
    texts, labels = first_intents(known.train)
    questions = first_intents(known.test)[0]
    few = families.few(texts, labels)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        rows = settings_rows(work, texts, labels, questions)
        failed = refusals(work, texts, labels)
        family, refused = family_rows(work, *few, questions)
        rows |= family | graph_rows(work, *few, questions)
        served = Served(options.predictd, work / "models")
        try:
            for name, row in rows.items():
                wrong, ties, share = differences(row, ask(served, name, row.texts))
                bad = bool(wrong) or not share <= 1
                failed += bad
                print(f"{name:<32} {len(row.texts)} texts: {wrong} labels differ, {ties} ties excepted, scores within "
                      f"{share * 100:.0f} % of what is allowed{'  FAILED' if bad else ''}")
        finally:
            served.stop()
    for name, reason in refused.items():
        print(f"{name:<32} refused: {reason}")
    unsaid = families.unnamed(refused)
    for name in unsaid:
        print(f"{name:<32} is refused without its name  FAILED")
    print(f"{len(rows)} models, {len(refused)} families refused, {failed + len(unsaid)} failed, {time.time() - started:.0f} s")
    sys.exit(1 if failed or unsaid else 0)


if __name__ == "__main__":
    main()
