"""What export writes, and that it writes nothing where the graph or the tokenizer is not what it must be."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy
import onnx
import torch
import transformers
from onnx import numpy_helper

from tiny import TEXTS, trained
from tools import export
from tools.refused import Refused
from tools.texts import read_texts


transformers.utils.logging.disable_progress_bar()


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.place.cleanup)
        cls.source = trained(Path(cls.place.name) / "trained")

    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.target = Path(place.name) / "name" / "1"

    def assert_refused(self, source: Path, what: str, **options: str) -> None:
        """With this sentence, and nothing is left behind."""
        with self.assertRaisesRegex(Refused, what):
            export.export(str(source), self.target, texts=TEXTS, **options)
        self.assertEqual([path for path in self.target.parent.parent.rglob("*") if path.is_file()], [])

    def test_writes_what_the_server_takes(self) -> None:
        report = export.export(str(self.source), self.target, texts=[*TEXTS, ("two texts", "of one pair")])
        self.assertEqual(sorted(path.name for path in self.target.iterdir()),
                         ["config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"])
        graph = onnx.load(self.target / "model.onnx").graph
        sizes = {value.name: [size.dim_param for size in value.type.tensor_type.shape.dim] for value in graph.input}
        self.assertEqual(sizes, dict.fromkeys(["input_ids", "token_type_ids", "attention_mask"],
                                              ["batch_size", "sequence_length"]))
        self.assertEqual([value.name for value in graph.output], ["logits"])
        self.assertEqual(json.loads((self.target / "config.json").read_text())["id2label"], {"0": "red", "1": "green", "2": "blue"})
        self.assertIn(f"{len(TEXTS) + 1} texts, alone and in padded batches", report["compared"])
        self.assertNotIn("warning", report)

    def test_a_version_is_written_once(self) -> None:
        self.target.mkdir(parents=True)
        (self.target / "mine").write_text("kept")
        with self.assertRaisesRegex(Refused, "exists"):
            export.export(str(self.source), self.target)
        self.assertEqual([path.name for path in self.target.iterdir()], ["mine"])

    def test_a_graph_that_differs_is_found(self) -> None:
        whole = export.write_graph

        def damaged(model: object, names: list[str], sample: dict, path: Path) -> None:
            whole(model, names, sample, path)
            graph = onnx.load(path)
            weight = next(tensor for tensor in graph.graph.initializer if tensor.name.endswith("classifier.bias"))
            moved = numpy_helper.to_array(weight) + numpy.float32([0, 0, 0.001])
            weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
            onnx.save(graph, path)

        with mock.patch.object(export, "write_graph", damaged):
            self.assert_refused(self.source, "differs from PyTorch by 1.00e-03")

    def test_a_graph_without_an_input_is_found(self) -> None:
        def constant(model: object, names: list[str], sample: dict, path: Path) -> None:
            torch.onnx.export(export.Logits(model, ["input_ids"]).eval(), (sample["input_ids"],), str(path), dynamo=False,
                              opset_version=export.OPSET, input_names=["input_ids"], output_names=["logits"])

        with mock.patch.object(export, "write_graph", constant):
            self.assert_refused(self.source, "does not take")

    def test_a_tokenizer_of_python_code_is_refused(self) -> None:
        folder = Path(self.place.name) / "canine"
        transformers.CanineTokenizer().save_pretrained(folder)
        config = transformers.CanineConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        transformers.CanineForSequenceClassification(config).save_pretrained(folder)
        self.assert_refused(folder, "CanineTokenizer has no fast form")

    def test_padding_needs_a_token(self) -> None:
        source = trained(Path(self.place.name) / "gpt", kind="GPT2")
        settings = json.loads((source / "tokenizer_config.json").read_text())
        settings.pop("pad_token")
        (source / "tokenizer_config.json").write_text(json.dumps(settings))
        self.assert_refused(source, "--pad-token '<.endoftext.>'")
        self.assert_refused(source, "no token <pad>", pad_token="<pad>")
        export.export(str(source), self.target, texts=TEXTS, pad_token="<|endoftext|>")
        inputs = [value.name for value in onnx.load(self.target / "model.onnx").graph.input]
        self.assertIn("position_ids", inputs)

    def test_what_is_no_classifier_is_refused(self) -> None:
        config = json.loads((self.source / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
        folder = Path(self.place.name) / "masked"
        folder.mkdir()
        for path in self.source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "config.json").write_text(json.dumps(config))
        self.assert_refused(folder, "BertForMaskedLM.* is no classifier")

    def test_numbers_for_labels_are_told(self) -> None:
        source = trained(Path(self.place.name) / "numbers", {0: "LABEL_0", 1: "LABEL_1"})
        self.assertIn("id2label", export.export(str(source), self.target, texts=TEXTS)["warning"])


class Texts(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)

    def read(self, name: str, content: str) -> list:
        (self.folder / name).write_text(content, encoding="utf-8", newline="")
        return read_texts(self.folder / name)

    def test_files(self) -> None:
        self.assertEqual(self.read("a.txt", "one\r\n\r\n \ntwo\u2028half\n"), ["one", "two\u2028half"])
        self.assertEqual(self.read("a.csv", 'id,text\r\n1,"one\r\ntwo"\r\n2,\r\n'), ["one\r\ntwo"])
        self.assertEqual(self.read("b.csv", "\ufefftext,text_pair\na,b\nc,\n"), [("a", "b")])
        self.assertEqual(self.read("a.json", '["one"]'), ["one"])
        for name, content, what in (("c.csv", "words\na\n", "no column text"), ("b.txt", "\n", "no texts"),
                                    ("b.json", '{"a": 1}', "no list"), ("c.json", "[1]", "no list"), ("d.json", "[", "no JSON")):
            with self.assertRaisesRegex(Refused, what):
                self.read(name, content)
        with self.assertRaisesRegex(Refused, "cannot be read"):
            read_texts(self.folder / "none")


if __name__ == "__main__":
    unittest.main()
