"""What golden writes is what the model answers, for each kind of model."""

import hashlib
import json
import tempfile
import tomllib
import unittest
import unittest.mock
from pathlib import Path

import numpy
import transformers
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tiny import TEXTS, trained
from tools import from_sklearn, golden
from tools.export import export
from tools.refused import Refused
from tools.text_model import Graph, TextModel

transformers.utils.logging.disable_progress_bar()


class Golden(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.place.cleanup)
        cls.folder = Path(cls.place.name)

    def made(self, name: str, labels: dict[int, str] | None = None, **settings) -> Path:
        """The directory of an exported model."""
        source = trained(self.folder / name / "trained", labels, **settings)
        export(str(source), self.folder / name / "1", texts=TEXTS)
        return self.folder / name / "1"

    def written(self, folder: Path) -> list[dict]:
        """The examples of a directory whose digests are all right."""
        digests = tomllib.loads((folder / "model.toml").read_text())["sha256"]
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        self.assertEqual(digests, {name: digest for name, digest in found.items() if name != "model.toml"})
        return json.loads((folder / "golden.json").read_text())["examples"]

    def logits(self, folder: Path, text) -> numpy.ndarray:
        model = TextModel(folder)
        graph = Graph(model, model.graph)
        return graph.run(graph.feed(model.encode([text])))[0].astype(numpy.float64)

    def test_one_label(self) -> None:
        folder = self.made("one")
        (folder / "model.toml").write_text('description = "kept"\n')
        said = golden.write(folder, [*TEXTS, "x"], count=10)
        self.assertEqual(tomllib.loads((folder / "model.toml").read_text())["description"], "kept")
        self.assertRegex(said, f"^10 examples of {len(TEXTS)} texts")
        examples = self.written(folder)
        self.assertEqual(json.loads((folder / "golden.json").read_text())["tolerance"], 0.001)
        lengths = [len(example["text"]) for example in examples]
        # The longest is longer than the model takes.
        self.assertEqual((lengths, len(set(lengths)) > 3), (sorted(lengths), True))
        self.assertLess(lengths[-1], len("word " * 90))
        for example in examples:
            logits = self.logits(folder, example["text"])
            scores = numpy.exp(logits) / numpy.exp(logits).sum()
            label = ["red", "green", "blue"][int(scores.argmax())]
            self.assertEqual(example["label"], label)
            self.assertAlmostEqual(example["scores"][label], scores.max(), delta=1e-5)
            self.assertGreater(numpy.diff(numpy.sort(scores))[-1], 0.1)
        with self.assertRaisesRegex(Refused, "count"):
            golden.run(unittest.mock.Mock(count=0, tolerance=None))
        golden.write(folder, ["x"], tolerance=0.2)
        self.assertEqual(json.loads((folder / "golden.json").read_text())["tolerance"], 0.2)

    def test_pairs(self) -> None:
        folder = self.made("pairs")
        golden.write(folder, [("Where is it?", text) for text in TEXTS])
        for example in self.written(folder):
            logits = self.logits(folder, (example["text"], example["text_pair"]))
            self.assertEqual(example["label"], ["red", "green", "blue"][int(logits.argmax())])

    def test_many_labels(self) -> None:
        folder = self.made("many", problem_type="multi_label_classification")
        (folder / "model.toml").write_text("thresholds = { red = 0.3 }\n")
        golden.write(folder, TEXTS)
        for example in self.written(folder):
            scores = 1 / (1 + numpy.exp(-self.logits(folder, example["text"])))
            wanted = [label for label, score, least in zip(["red", "green", "blue"], scores, [0.3, 0.5, 0.5]) if score >= least]
            self.assertEqual(example["label"], wanted)

    def test_numbers(self) -> None:
        for name, settings in (("regression", {"problem_type": "regression"}), ("scoring", {})):
            folder = self.made(name, {0: "LABEL_0"}, **settings)
            golden.write(folder, TEXTS)
            examples = self.written(folder)
            self.assertEqual(len(examples), min(len(TEXTS) - 1, golden.COUNT))
            for example in examples:
                score = self.logits(folder, example["text"])[0]
                self.assertAlmostEqual(example["score"], score if settings else 1 / (1 + numpy.exp(-score)), delta=1e-5)

    def test_numbers_are_numbers_whatever_labels_there_are(self) -> None:
        folder = self.made("two", {0: "LABEL_0"}, problem_type="regression")
        config = json.loads((folder / "config.json").read_text())
        for labels in ({"0": "a", "1": "b"}, None):
            config["id2label"] = labels
            (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
            (folder / "model.toml").unlink(missing_ok=True)
            golden.write(folder, TEXTS)
            self.assertTrue(all("score" in example for example in self.written(folder)))

    def test_damaged_files_are_not_blessed(self) -> None:
        folder = self.made("damaged")
        golden.write(folder, TEXTS)
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace("red", "pink"))
        before = (folder / "golden.json").read_bytes(), (folder / "model.toml").read_bytes()
        with self.assertRaisesRegex(Refused, "config.json is not the file"):
            golden.write(folder, ["x"])
        self.assertEqual(((folder / "golden.json").read_bytes(), (folder / "model.toml").read_bytes()), before)
        # A heading that is written in another way is one nevertheless.
        (folder / "config.json").write_text(config)
        manifest = (folder / "model.toml").read_text()
        (folder / "model.toml").write_text(manifest.replace("[sha256]", "[ sha256 ] # of files"))
        golden.write(folder, ["x"])
        self.written(folder)

    def test_a_pipeline(self) -> None:
        texts, labels = ["lost card", "card stolen", "refund me", "a refund please"], ["card", "card", "refund", "refund"]
        pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
        folder = self.folder / "pipeline" / "1"
        from_sklearn.write(pipeline, folder, None, None)
        golden.write(folder, texts)
        found = {example["text"]: example["label"] for example in self.written(folder)}
        self.assertEqual(found, dict(zip(texts, labels)))
        # Its classes stand in the graph too.
        (folder / "labels.json").unlink()
        (folder / "model.toml").unlink()
        golden.write(folder, texts)
        self.assertEqual({example["text"]: example["label"] for example in self.written(folder)}, dict(zip(texts, labels)))
        with self.assertRaisesRegex(Refused, "takes one text"):
            golden.write(folder, [("a", "b")])

    def test_nothing_is_written_where_nothing_is_clear(self) -> None:
        folder = self.made("close")
        with unittest.mock.patch.object(golden, "CLEAR_MARGIN", 1.0), self.assertRaisesRegex(Refused, "clear answer"):
            golden.write(folder, TEXTS)
        self.assertFalse((folder / "golden.json").exists())
        self.assertFalse((folder / "model.toml").exists())

    def test_what_labels_tokens_is_refused(self) -> None:
        folder = self.made("tokens", {0: "O", 1: "B-X"}, head="TokenClassification")
        with self.assertRaisesRegex(Refused, "scores for each text"):
            golden.write(folder, TEXTS)


if __name__ == "__main__":
    unittest.main()
