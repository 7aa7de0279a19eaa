"""What from-sklearn refuses by name, that its advice works, what it writes, and that a wrong graph is found."""

import inspect
import json
import pickle
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
import warnings
from pathlib import Path
from unittest import mock

import joblib
import numpy
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import NMF, PCA, TruncatedSVD
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer, MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import all_estimators

from tools import from_sklearn, vectorizer_graph
from tools.refused import Refused
from tools.sessions import session
from tools.sklearn_steps import OTHERS, TRANSFORMERS, check_classifier

TEXTS = ["my card is lost", "my card did not arrive", "where is the refund", "a refund please", "card lost again", "refund me",
         "the card was stolen", "please refund the order", "new card", "refund of my money"]
LABELS = ["card", "card", "refund", "refund", "card", "refund", "card", "refund", "card", "refund"]
SEVERAL = numpy.array([["card" in text, "my" in text.split()] for text in TEXTS], dtype=int)


def fitted(*steps: object, labels: object = LABELS) -> Pipeline:
    """A pipeline of these steps; a lone vectorizer gets a classifier."""
    if len(steps) == 1:
        steps = (*steps, LogisticRegression())
    return make_pipeline(*steps).fit(TEXTS, labels)


def truncated() -> TruncatedSVD:
    return TruncatedSVD(3, random_state=0)


class FromSklearn(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)
        self.target = self.folder / "name" / "1"
        warnings.simplefilter("ignore")
        self.addCleanup(warnings.resetwarnings)

    def refused(self, pipeline: object, what: str, names: list[str] | None = None) -> None:
        """With this sentence, and nothing is left behind."""
        with self.assertRaisesRegex(Refused, what):
            from_sklearn.write(pipeline, self.target, TEXTS, names)
        self.assertFalse(self.target.parent.exists())

    def written(self, pipeline: object, labels: list[str], names: list[str] | None = None) -> dict:
        """Its graph gives these labels and the pipeline's probabilities. Returns model.toml."""
        target = self.folder / f"written-{len(list(self.folder.iterdir()))}"
        from_sklearn.write(pipeline, target, TEXTS, names)
        self.assertEqual(json.loads((target / "labels.json").read_text()), labels)
        column = numpy.array(TEXTS, dtype=object).reshape(-1, 1)
        found = session(target / "model.onnx").run(["probabilities"], {"text": column})[0]
        self.assertLess(abs(found - from_sklearn.scores_of(pipeline, TEXTS)).max(), 1e-5)
        return tomllib.loads((target / "model.toml").read_text())

    def test_the_advice_for_a_vectorizer_works(self) -> None:
        for vectorizer, what, advised in (
                (TfidfVectorizer(strip_accents="unicode"), "strip_accents=None", TfidfVectorizer(strip_accents=None)),
                (CountVectorizer(tokenizer=str.split, token_pattern=None), "tokenizer=None", CountVectorizer(tokenizer=None)),
                (CountVectorizer(preprocessor=str.upper), "preprocessor=None", CountVectorizer(preprocessor=None)),
                (CountVectorizer(analyzer=str.split), "analyzer='word'", CountVectorizer(analyzer="word")),
                (CountVectorizer(token_pattern=r"[^ ]+"), r"token_pattern.*\\b\\w\\w\+\\b", CountVectorizer(token_pattern=r"\b\w\w+\b")),
                (HashingVectorizer(n_features=16), "HashingVectorizer .*use CountVectorizer", CountVectorizer())):
            with self.subTest(what):
                self.refused(fitted(vectorizer), what)
                self.written(fitted(advised), ["card", "refund"])

    def test_the_advice_for_a_classifier_works(self) -> None:
        count = CountVectorizer
        regression = LogisticRegression
        for refused, what, advised in (
                (LinearSVC(), r"CalibratedClassifierCV\(LinearSVC", CalibratedClassifierCV(LinearSVC(), cv=2)),
                (RidgeClassifier(), r"CalibratedClassifierCV\(RidgeClassifier", CalibratedClassifierCV(RidgeClassifier(), cv=2)),
                (Perceptron(), r"CalibratedClassifierCV\(Perceptron", CalibratedClassifierCV(Perceptron(), cv=2)),
                (SVC(), r"CalibratedClassifierCV\(SVC", CalibratedClassifierCV(SVC(), cv=2)),
                (OneVsOneClassifier(regression()), r"CalibratedClassifierCV\(OneVsOneClassifier",
                 CalibratedClassifierCV(OneVsOneClassifier(regression()), cv=2)),
                (SGDClassifier(), "loss='log_loss'", SGDClassifier(loss="log_loss")),
                (VotingClassifier([("a", regression()), ("b", MultinomialNB())]), "voting='soft'",
                 VotingClassifier([("a", regression()), ("b", MultinomialNB())], voting="soft")),
                (CalibratedClassifierCV(LinearSVC(), cv=2, method="isotonic"), "'isotonic'.*method='sigmoid'",
                 CalibratedClassifierCV(LinearSVC(), cv=2, method="sigmoid")),
                (CalibratedClassifierCV(LinearSVC(), cv=2, method="temperature"), "'temperature'.*method='sigmoid'",
                 CalibratedClassifierCV(LinearSVC(), cv=2, method="sigmoid")),
                (NearestCentroid(), "NearestCentroid: .*LogisticRegression", regression()),
                (DummyClassifier(), "DummyClassifier: .*LogisticRegression", regression())):
            with self.subTest(what):
                self.refused(fitted(count(), refused), what)
                self.written(fitted(count(), advised), ["card", "refund"])

    def test_every_other_family_has_advice_that_works(self) -> None:
        families = dict(all_estimators(type_filter="classifier"))
        regression = LogisticRegression()
        remedies = {"use OneVsRestClassifier": OneVsRestClassifier(regression), "use LogisticRegression": regression,
                    "use OneVsRestClassifier(LogisticRegression())": OneVsRestClassifier(regression),
                    "use GradientBoostingClassifier": GradientBoostingClassifier(n_estimators=5),
                    "use SelfTrainingClassifier(LogisticRegression())": SelfTrainingClassifier(regression)}
        labels = numpy.array(LABELS, dtype=object)
        advised = {remedy for _, remedy in OTHERS.values()} - {"put its estimator_ in its place"}
        self.assertEqual(advised, set(remedies))
        for remedy, classifier in remedies.items():
            with self.subTest(remedy):
                self.written(fitted(CountVectorizer(), classifier, labels=labels), ["card", "refund"])
        for name, (reason, remedy) in OTHERS.items():
            kind = families[name]
            with self.subTest(name), self.assertRaisesRegex(Refused, re.escape(f"{name}: {reason}; {remedy}")):
                check_classifier(kind(regression) if "estimator" in inspect.signature(kind).parameters else kind())

    def test_every_step_between_is_converted_faithfully(self) -> None:
        steps = {"TfidfTransformer": [TfidfTransformer(norm="l1")], "TruncatedSVD": [truncated()], "PCA": [truncated(), PCA(2)],
                 "StandardScaler": [StandardScaler(with_mean=False)], "MaxAbsScaler": [MaxAbsScaler()],
                 "MinMaxScaler": [truncated(), MinMaxScaler()], "RobustScaler": [RobustScaler(with_centering=False)],
                 "Normalizer": [Normalizer("l1")], "Binarizer": [Binarizer()], "SelectKBest": [SelectKBest(k=5)],
                 "SelectPercentile": [SelectPercentile(percentile=50)], "VarianceThreshold": [VarianceThreshold(0.01)],
                 "SelectFromModel": [SelectFromModel(LogisticRegression())]}
        self.assertEqual(set(steps), TRANSFORMERS)
        for name, between in steps.items():
            with self.subTest(name):
                self.written(fitted(CountVectorizer(), *between, LogisticRegression()), ["card", "refund"])

    def test_the_advice_for_dense_classifiers_works(self) -> None:
        self.refused(fitted(CountVectorizer(), truncated(), HistGradientBoostingClassifier()), "use GradientBoostingClassifier")
        self.written(fitted(CountVectorizer(), truncated(), GradientBoostingClassifier()), ["card", "refund"])
        self.refused(fitted(CountVectorizer(), KNeighborsClassifier(3)), "put TruncatedSVD between")
        self.written(fitted(CountVectorizer(), truncated(), KNeighborsClassifier(3)), ["card", "refund"])

    def test_the_advice_for_several_labels_works(self) -> None:
        self.refused(fitted(CountVectorizer(), OneVsRestClassifier(LinearSVC()), labels=SEVERAL),
                     r"OneVsRestClassifier\(CalibratedClassifierCV\(LinearSVC\(\)\)\)")
        advised = fitted(CountVectorizer(), OneVsRestClassifier(CalibratedClassifierCV(LinearSVC(), cv=2)), labels=SEVERAL)
        self.assertEqual(self.written(advised, ["0", "1"])["task"], "multi_label")

    def test_the_advice_for_thresholds_works(self) -> None:
        pipeline = fitted(CountVectorizer(), FixedThresholdClassifier(LogisticRegression(), threshold=0.9))
        self.refused(pipeline, "put its estimator_ in its place")
        self.written(make_pipeline(pipeline.steps[0][1], pipeline.steps[1][1].estimator_), ["card", "refund"])

    def test_a_regressor_is_called_one(self) -> None:
        numbers = [float(label == "card") for label in LABELS]
        self.refused(fitted(CountVectorizer(), Ridge(), labels=numbers), "Ridge is a regressor.*LogisticRegression")
        self.refused(Pipeline([("count", CountVectorizer().fit(TEXTS))]), "CountVectorizer is no classifier")

    def test_a_step_that_no_graph_computes_is_named(self) -> None:
        self.refused(fitted(CountVectorizer(), BaggingClassifier(NearestCentroid(), 2)),
                     "cannot convert BaggingClassifier.*NearestCentroid.*no other classifier inside of it")
        self.written(fitted(CountVectorizer(), BaggingClassifier(n_estimators=2)), ["card", "refund"])
        self.refused(fitted(CountVectorizer(), NMF(2), LogisticRegression()), "NMF is not among the steps")
        self.refused(make_pipeline(CountVectorizer(), LogisticRegression()), "not fitted.*call fit")
        self.refused(make_pipeline("passthrough"), "no step that does something")
        self.refused(Pipeline([("model", LogisticRegression().fit([[0], [1]], [0, 1]))]), "has no vectorizer")
        self.refused(LogisticRegression(), "LogisticRegression, which is no Pipeline.*--vectorizer and --model")
        self.refused({"weights": 1}, "dict, which is no Pipeline.*joblib.dump")

    def test_searches_and_empty_steps_change_nothing(self) -> None:
        labels = ["card", "refund"]
        search = GridSearchCV(make_pipeline(CountVectorizer(), LogisticRegression()), {"logisticregression__C": [1, 10]}, cv=2)
        self.written(search.fit(TEXTS, LABELS), labels)
        self.refused(GridSearchCV(make_pipeline(CountVectorizer(), LogisticRegression()), {"logisticregression__C": [1]}, cv=2,
                                  refit=False).fit(TEXTS, LABELS), "refit=True")
        self.written(fitted(CountVectorizer(), GridSearchCV(LogisticRegression(), {"C": [1, 10]}, cv=2)), labels)
        counts = CountVectorizer().fit(TEXTS)
        frozen = FrozenEstimator(LinearSVC().fit(counts.transform(TEXTS), LABELS))
        self.written(fitted(counts, CalibratedClassifierCV(frozen, cv=2)), labels)
        self.written(fitted(CountVectorizer(), "passthrough", LogisticRegression()), labels)
        self.written(fitted(CountVectorizer(), make_pipeline(None, TfidfTransformer(sublinear_tf=True)), LogisticRegression()), labels)
        self.written(fitted(CountVectorizer(), SelfTrainingClassifier(LogisticRegression()), labels=numpy.array(LABELS, dtype=object)), labels)
        union = FeatureUnion([("a", TfidfVectorizer(sublinear_tf=True)), ("b", TfidfVectorizer(analyzer="char", ngram_range=(2, 3))),
                              ("c", make_pipeline(CountVectorizer(), "passthrough", MaxAbsScaler())), ("d", "drop")],
                             transformer_weights={"a": 0.5, "b": 2})
        self.written(fitted(union, SelectKBest(k=5), LogisticRegression()), labels)

    def test_labels_are_those_of_python(self) -> None:
        for values, labels in (([True, False], ["False", "True"]), ([1.0, -3.0], ["-3.0", "1.0"]), ([7, 2], ["2", "7"])):
            kinds = [values[label == "card"] for label in LABELS]
            for classifier in (LogisticRegression(), RandomForestClassifier(5), CalibratedClassifierCV(RidgeClassifier(), cv=2)):
                with self.subTest(f"{labels} {classifier}"):
                    self.written(fitted(CountVectorizer(), classifier, labels=kinds), labels)

    def test_fractions_that_fall_together_are_refused(self) -> None:
        pipeline = fitted(CountVectorizer(), LogisticRegression())
        pipeline.steps[-1][1].classes_ = numpy.array([0.2, 0.7])
        self.refused(pipeline, r"fractions.*str\(label\)")

    def test_several_labels_of_every_kind(self) -> None:
        for classifier in (OneVsRestClassifier(LogisticRegression()), MultiOutputClassifier(LogisticRegression()), RandomForestClassifier(5)):
            with self.subTest(str(classifier)):
                pipeline = fitted(CountVectorizer(), classifier, labels=SEVERAL)
                self.assertEqual(self.written(pipeline, ["card", "mine"], ["card", "mine"])["task"], "multi_label")
        self.refused(fitted(CountVectorizer(), MultiOutputClassifier(LogisticRegression()), labels=SEVERAL), "give --labels")
        three = numpy.stack([SEVERAL[:, 0], numpy.arange(len(TEXTS)) % 3], axis=1)
        self.refused(fitted(CountVectorizer(), MultiOutputClassifier(LogisticRegression()), labels=three), "has 3 classes", ["a", "b"])

    def test_writes_what_the_server_takes(self) -> None:
        from_sklearn.write(fitted(TfidfVectorizer()), self.target, TEXTS, None)
        self.assertEqual(json.loads((self.target / "labels.json").read_text()), ["card", "refund"])
        manifest = tomllib.loads((self.target / "model.toml").read_text())
        self.assertEqual(manifest["task"], "classification")
        self.assertEqual(set(manifest["sha256"]), {"golden.json", "labels.json", "model.onnx"})
        self.assertEqual([path.name for path in self.target.parent.iterdir()], ["1"])

    def test_finds_a_graph_of_another_pipeline(self) -> None:
        pipeline, other = fitted(TfidfVectorizer()), make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS[::-1])
        with self.assertRaisesRegex(Refused, "another label"):
            from_sklearn.compare(pipeline, from_sklearn.convert(other), dict.fromkeys(TEXTS, "words"))

    def test_finds_a_graph_that_folds_case_otherwise_by_its_own_texts(self) -> None:
        with mock.patch.object(vectorizer_graph, "lower_case", lower_by_character):
            self.refused(fitted(CountVectorizer()), "(another label|differs by).*İ, Σ and their like")

    def test_finds_stop_words_that_stay_between_the_words_of_an_n_gram(self) -> None:
        pipeline = fitted(CountVectorizer(stop_words=["the", "my"], ngram_range=(2, 2)))
        other = fitted(CountVectorizer(stop_words=["the", "my"], ngram_range=(2, 2)))
        other.steps[0][1].set_params(stop_words=None)
        with mock.patch.object(from_sklearn, "convert", lambda _: convert(other)):
            self.refused(pipeline, "another label|differs by")


convert = from_sklearn.convert


def lower_by_character(nodes: vectorizer_graph.Nodes, text: str) -> str:
    """As skl2onnx does it: "İ" becomes "i"."""
    return nodes.add("StringNormalizer", text, case_change_action="LOWER", is_case_sensitive=1, locale="C.UTF-8")


class Files(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)

    def said(self, *words: object) -> str:
        """What the command says on standard error. It ends with status 1."""
        done = subprocess.run([sys.executable, "-m", "tools", *map(str, words)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def test_unknown_files_are_refused_in_a_sentence(self) -> None:
        good = fitted(CountVectorizer())
        joblib.dump(good, self.folder / "good")
        (self.folder / "text").write_text("no pickle")
        (self.folder / "empty").write_bytes(b"")
        (self.folder / "cut").write_bytes((self.folder / "good").read_bytes()[:100])
        (self.folder / "other").write_bytes(pickle.dumps({"a": 1}))
        (self.folder / "needs").write_bytes(b"cno_such_package\nThing\n.")
        (self.folder / "older").write_bytes((self.folder / "good").read_bytes().replace(b"1.9.1", b"1.3.0"))
        for name, what in (("text", "no file of joblib or pickle"), ("empty", "no file of joblib or pickle"), ("cut", "no file of joblib"),
                           ("other", "the file holds a dict"), ("needs", "needs Python code.*no_such_package"), ("none", "cannot be read"),
                           ("older", "written by scikit-learn 1.3.0.*train it again")):
            with self.subTest(name), self.assertRaisesRegex(Refused, what):
                from_sklearn.write(from_sklearn.load(self.folder / name), self.folder / "target", None, None)
        said = self.said("from-sklearn", self.folder / "text", self.folder / "target")
        self.assertRegex(said, r"\Arefused: .*no file of joblib or pickle.*\n\Z")

    def test_unexpected_errors_end_in_a_sentence(self) -> None:
        joblib.dump(fitted(CountVectorizer()), self.folder / "good")
        (self.folder / "file").write_text("not a directory")
        words = ("from-sklearn", self.folder / "good", self.folder / "file" / "target")
        self.assertRegex(self.said(*words), r"\Afailed: \w+: .*--traceback.*\n\Z")
        self.assertIn("Traceback (most recent call last)", self.said(*words, "--traceback"))


if __name__ == "__main__":
    unittest.main()
