"""Every family of classifiers that scikit-learn has, fitted to texts; and graphs of skl2onnx with each of its options."""

import json
import warnings
from collections.abc import Iterator

import numpy
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer
from sklearn.utils import all_estimators

from tools.sklearn_steps import CALIBRATED

INTENTS, EACH = 4, 30
# Of texts with several labels: whether a question is asked, and whether it is about a card.
OUTPUTS = ["question", "card"]
# Each takes another classifier.
AROUND = {"ClassifierChain", "FixedThresholdClassifier", "MultiOutputClassifier", "OneVsOneClassifier", "OneVsRestClassifier",
          "OutputCodeClassifier", "SelfTrainingClassifier", "TunedThresholdClassifierCV"}
SEVERAL = {"ClassifierChain", "MultiOutputClassifier"}
OF_TWO = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
# Else they give no probabilities, or take long.
SETTINGS = {
    "AdaBoostClassifier": {"n_estimators": 10, "random_state": 1}, "BaggingClassifier": {"n_estimators": 5, "random_state": 1},
    "ExtraTreeClassifier": {"random_state": 1}, "ExtraTreesClassifier": {"n_estimators": 20, "random_state": 1},
    "GradientBoostingClassifier": {"n_estimators": 10, "random_state": 1}, "DecisionTreeClassifier": {"random_state": 1},
    "HistGradientBoostingClassifier": {"max_iter": 5}, "LogisticRegressionCV": {"Cs": 2, "cv": 2},
    "MLPClassifier": {"hidden_layer_sizes": (16,), "max_iter": 50, "random_state": 1}, "NuSVC": {"nu": 0.2, "probability": True, "random_state": 1},
    "QuadraticDiscriminantAnalysis": {"reg_param": 0.5}, "RadiusNeighborsClassifier": {"radius": 5.0}, "RandomForestClassifier": {"n_estimators": 20, "random_state": 1},
    "SGDClassifier": {"loss": "log_loss", "random_state": 1}, "SVC": {"probability": True, "random_state": 1},
}
TOKENS = {"tokenexp": r"[\p{L}\p{N}_][\p{L}\p{N}_]+", "locale": "C.UTF-8"}


def few(texts: list[str], labels: list[str]) -> tuple[list[str], list[str]]:
    """Some texts of some labels: enough to tell families apart, and few enough for the slow ones."""
    kept: list[tuple[str, str]] = []
    for intent in sorted(set(labels))[:INTENTS]:
        kept += [(text, label) for text, label in zip(texts, labels) if label == intent][:EACH]
    return [text for text, _ in kept], [label for _, label in kept]


def marks(texts: list[str]) -> numpy.ndarray:
    """Several labels of each text."""
    return numpy.array([["?" in text, "card" in text.lower()] for text in texts], dtype=int)


def classifier_of(name: str, kind: type) -> object:
    """A classifier of the family."""
    if name in AROUND:
        return kind(LogisticRegression())
    if name in ("StackingClassifier", "VotingClassifier"):
        more = {"voting": "soft"} if name == "VotingClassifier" else {"cv": 2}
        return kind([("a", LogisticRegression()), ("b", MultinomialNB())], **more)
    return kind(**SETTINGS.get(name, {}))


def fitted(texts: list[str], labels: list[str], refused: dict[str, str]) -> Iterator[tuple[str, Pipeline]]:
    """Every family with a pipeline, and those without probabilities once more as the advice says. Why one cannot be fitted
    is put into `refused`."""
    for name, kind in all_estimators(type_filter="classifier"):
        answers: object = numpy.array(labels, dtype=object)
        if name in SEVERAL:
            answers = marks(texts)
        elif name in OF_TWO:
            answers = numpy.array([label == labels[0] for label in labels])
        try:
            yield name, fit_either_way(classifier_of(name, kind), texts, answers)
        # Each family says in its own way what it cannot learn from texts.
        except Exception as error:
            refused[name] = f"{name} cannot be fitted to texts: {error}"
            continue
        if name in CALIBRATED and name not in SETTINGS and name not in ("OneVsRestClassifier",):
            yield f"{name}-calibrated", fit_either_way(CalibratedClassifierCV(classifier_of(name, kind), cv=2), texts, answers)


def fit_either_way(classifier: object, texts: list[str], answers: object) -> Pipeline:
    """The pipeline over counts of words, or over a few dense columns for what needs them."""
    name = type(classifier).__name__
    if name in ("KNeighborsClassifier", "RadiusNeighborsClassifier"):
        return make_pipeline(TfidfVectorizer(max_features=200), TruncatedSVD(20, random_state=1), classifier).fit(texts, answers)
    try:
        return make_pipeline(TfidfVectorizer(max_features=200), classifier).fit(texts, answers)
    except TypeError:
        columns = [TruncatedSVD(20, random_state=1)] + ([Binarizer()] if name == "CategoricalNB" else [])
        return make_pipeline(TfidfVectorizer(max_features=200), *columns, classifier).fit(texts, answers)


def unnamed(refused: dict[str, str]) -> list[str]:
    """Families whose refusal does not name them."""
    return [name for name, reason in refused.items() if name.removesuffix("-calibrated") not in reason]


def graphs(texts: list[str], labels: list[str]) -> dict[str, tuple[Pipeline, bytes, dict[str, str]]]:
    """Graphs as people bring them, without `from-sklearn`, and the files that lie beside them."""
    made = {}
    single = make_pipeline(TfidfVectorizer(max_features=200), MultinomialNB()).fit(texts, labels)
    several = make_pipeline(TfidfVectorizer(max_features=200), MultiOutputClassifier(LogisticRegression())).fit(texts, marks(texts))
    named = {"labels.json": json.dumps(OUTPUTS), "model.toml": 'task = "multi_label"\n'}
    for name, pipeline, options, files in (
            ("zipmap", single, {}, {}), ("zipmap-false", single, {"zipmap": False}, {}),
            ("zipmap-columns", single, {"zipmap": "columns"}, {}),
            ("class-labels", single, {"zipmap": False, "output_class_labels": True}, {}),
            ("multi-output", several, {"zipmap": False}, named)):
        vectorizer, classifier = (step for _, step in pipeline.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], target_opset=17,
                            options={id(vectorizer): TOKENS, id(classifier): options})
        made[name] = (pipeline, graph.SerializeToString(), files)
    return made
