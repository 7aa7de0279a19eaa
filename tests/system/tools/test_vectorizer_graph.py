"""That the graphs of vectorizers count what scikit-learn counts, on texts that show each of their steps."""

import itertools
import random
import unittest

import numpy
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.pipeline import make_pipeline

from tools.sessions import session
from tools.sklearn_texts import WHITE, probe_texts
from tools.vectorizer_graph import OPSET, converters

TEXTS = ["my card is lost", "my card did not arrive", "where is the refund", "İstanbul i̇stanbul istanbul", "ΟΔΟΣ οδος οδοσ",
         "ΣΟΦΟΣ ΑΣ'Β ΑΣ.Β", "card lost again 42", "a b c", "x_1 é e\u0301", "refund  of the\tcard"]


def difference(step: object, texts: list[str], fitted_on: list[str] = TEXTS) -> numpy.ndarray:
    """How far the graph is from the step, for each text, in one run and alone."""
    step.fit(fitted_on)
    graph = convert_sklearn(step, initial_types=[("text", StringTensorType([None, 1]))], target_opset=OPSET, **converters())
    runner = session(graph.SerializeToString())
    expected = step.transform(texts).toarray()
    column = numpy.array(texts, dtype=object).reshape(-1, 1)
    together = runner.run(None, {"text": column})[0]
    found = abs(together - expected).max(axis=1)
    for place in range(0, len(texts), 5):
        alone = runner.run(None, {"text": column[[place]]})[0][0]
        found[place] = max(found[place], abs(alone - expected[place]).max())
    return found


class VectorizerGraph(unittest.TestCase):
    def assert_same(self, step: object, texts: list[str], allowed: float = 0) -> None:
        found = difference(step, texts)
        worst = int(found.argmax())
        self.assertLessEqual(found[worst], allowed, f"{step}: {texts[worst]!r}")

    def test_every_setting_counts_as_python_does(self) -> None:
        texts = list(probe_texts([CountVectorizer(ngram_range=(1, 2)).fit(TEXTS)]))
        for settings in ({}, {"lowercase": False}, {"binary": True}, {"ngram_range": (1, 3)}, {"ngram_range": (2, 2)},
                         {"stop_words": "english"}, {"stop_words": ["the", "is", "card"], "ngram_range": (1, 3)},
                         {"stop_words": ["of"], "ngram_range": (2, 3)}, {"token_pattern": r"(?u)\b\w+\b"}, {"min_df": 2},
                         {"vocabulary": ["card", "New York", "lost again", "of the"], "ngram_range": (1, 2)},
                         {"vocabulary": ["card lost", "card"]}, {"vocabulary": {"the": 1, "card": 0}, "stop_words": ["the"]},
                         {"analyzer": "char_wb"}, {"analyzer": "char_wb", "ngram_range": (1, 4)}, {"analyzer": "char_wb", "ngram_range": (4, 6)},
                         {"analyzer": "char_wb", "ngram_range": (2, 3), "vocabulary": ["a ", " a", " a ", "ca", "  ", "card"]},
                         {"analyzer": "char"}, {"analyzer": "char", "ngram_range": (1, 4)},
                         {"analyzer": "char", "ngram_range": (2, 3), "lowercase": False}):
            with self.subTest(settings):
                self.assert_same(CountVectorizer(**settings), texts)

    def test_weights_are_those_of_tfidf(self) -> None:
        for settings in ({}, {"sublinear_tf": True}, {"norm": "l1"}, {"norm": None}, {"use_idf": False}, {"smooth_idf": False}):
            with self.subTest(settings):
                self.assert_same(TfidfVectorizer(**settings), TEXTS, 1e-6)
                self.assert_same(make_pipeline(CountVectorizer(), TfidfTransformer(**settings)), TEXTS, 1e-6)

    def test_sigma_depends_on_its_neighbours_as_in_python(self) -> None:
        texts = ["".join(letters) for letters in itertools.product(["Σ", "Α", "α", ".", "'", "\u0301", "ʰ", " ", "1"], repeat=4)]
        self.assert_same(CountVectorizer(analyzer="char", ngram_range=(1, 3)).set_params(vocabulary=None), texts)
        found = difference(CountVectorizer(token_pattern=r"\b\w+\b"), texts, fitted_on=texts)
        self.assertEqual(found.max(), 0)

    def test_dotted_capital_i_becomes_two_characters(self) -> None:
        texts = ["".join(letters) for letters in itertools.product(["İ", "I", "i", "s", " ", "\u0307"], repeat=4)]
        found = [difference(CountVectorizer(analyzer=kind, **more), texts, fitted_on=texts).max()
                 for kind, more in (("word", {"token_pattern": r"\b\w+\b"}), ("char", {"ngram_range": (1, 3)}))]
        self.assertEqual(found, [0, 0])

    def test_every_character_of_python_is_in_the_same_class(self) -> None:
        characters = [chr(number) for number in range(1, 0x110000) if not 0xD800 <= number < 0xE000]
        texts = [f"card{character}lost ab{character}" for character in characters[::7]] + [f"card{white}{white}lost" for white in WHITE]
        found = difference(CountVectorizer(ngram_range=(1, 2)), texts)
        self.assertEqual([text for text, wrong in zip(texts, found) if wrong], [])

    def test_random_texts(self) -> None:
        chance = random.Random(1)
        parts = [*"ΑΣσςİIi'.·ab", "the ", "card ", "lost ", "\u0301", " ", "\t", "\n", "\xa0", "  ", "\u2028 "]
        texts = ["".join(chance.choices(parts, k=chance.randint(0, 14))) for _ in range(2_000)]
        for vectorizer in (CountVectorizer(stop_words="english", ngram_range=(1, 2)), CountVectorizer(analyzer="char", ngram_range=(1, 3)),
                           CountVectorizer(analyzer="char_wb", ngram_range=(3, 5))):
            self.assert_same(vectorizer, texts)


if __name__ == "__main__":
    unittest.main()
