"""What from-sklearn refuses by name, what it writes, and that a wrong graph is found."""

import json
import tempfile
import tomllib
import unittest
from pathlib import Path

import numpy
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from tools import from_sklearn
from tools.refused import Refused
from tools.sessions import session

TEXTS = ["my card is lost", "my card did not arrive", "where is the refund", "a refund please", "card lost again", "refund me"]
LABELS = ["card", "card", "refund", "refund", "card", "refund"]


def fitted(vectorizer: object, classifier: object | None = None) -> Pipeline:
    return make_pipeline(vectorizer, classifier or LogisticRegression()).fit(TEXTS, LABELS)


class FromSklearn(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.target = Path(place.name) / "name" / "1"

    def refused(self, pipeline: object, what: str) -> None:
        with self.assertRaisesRegex(Refused, what):
            from_sklearn.write(pipeline, self.target, TEXTS, None)
        self.assertEqual(list(self.target.parent.parent.rglob("*.onnx")), [])

    def test_refuses_by_name(self) -> None:
        self.refused(fitted(TfidfVectorizer(analyzer="char_wb")), "char_wb")
        self.refused(fitted(TfidfVectorizer(sublinear_tf=True)), "sublinear_tf")
        self.refused(fitted(TfidfVectorizer(strip_accents="unicode")), "strip_accents")
        self.refused(fitted(CountVectorizer(tokenizer=str.split, token_pattern=None)), "tokenizer")
        self.refused(fitted(CountVectorizer(preprocessor=str.upper)), "preprocessor")
        self.refused(fitted(CountVectorizer(analyzer=str.split)), "analyzer")
        self.refused(fitted(CountVectorizer(token_pattern=r"[^ ]+")), "token_pattern")
        self.refused(fitted(CountVectorizer(), LinearSVC()), "CalibratedClassifierCV")
        self.refused(make_pipeline(CountVectorizer(), LogisticRegression()), "not fitted")
        self.refused(LogisticRegression(), "no Pipeline")
        self.refused(make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True), LogisticRegression())
                     .fit(TEXTS, LABELS), "sublinear_tf")

    def test_writes_what_the_server_takes(self) -> None:
        from_sklearn.write(fitted(TfidfVectorizer()), self.target, TEXTS, None)
        self.assertEqual(json.loads((self.target / "labels.json").read_text()), ["card", "refund"])
        manifest = tomllib.loads((self.target / "model.toml").read_text())
        self.assertEqual(manifest["task"], "classification")
        self.assertEqual(set(manifest["sha256"]), {"golden.json", "labels.json", "model.onnx"})
        self.assertEqual([path.name for path in self.target.parent.iterdir()], ["1"])

    def test_finds_a_graph_of_another_pipeline(self) -> None:
        pipeline, other = fitted(TfidfVectorizer()), make_pipeline(TfidfVectorizer(), LogisticRegression())
        other.fit(TEXTS, LABELS[::-1])
        graph = from_sklearn.convert(other, [other.steps[0][1]])
        with self.assertRaisesRegex(Refused, "another label"):
            from_sklearn.compare(pipeline, graph, TEXTS)

    def test_one_letter_words(self) -> None:
        pipeline = fitted(CountVectorizer(token_pattern=r"(?u)\b\w+\b"))
        graph = from_sklearn.convert(pipeline, [pipeline.steps[0][1]])
        found = session(graph).run(["probabilities"], {"text": numpy.array([["a"]], dtype=object)})[0]
        self.assertLess(abs(found - pipeline.predict_proba(["a"])).max(), 1e-5)


if __name__ == "__main__":
    unittest.main()
