"""What export writes, and that it writes nothing where the graph or the tokenizer is not what it must be."""

import json
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path
from unittest import mock

import numpy
import onnx
import torch
import transformers
from onnx import numpy_helper

from tiny import TEXTS, altered, trained
from tools import export, export_graph
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
        self.assertEqual(list(self.target.parent.parent.iterdir()), [])

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
            torch.onnx.export(export_graph.Logits(model, ["input_ids"]).eval(), (sample["input_ids"],), str(path), dynamo=False,
                              opset_version=export_graph.OPSET, input_names=["input_ids"], output_names=["logits"])

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

    def test_a_head_that_the_checkpoint_lacks_is_refused(self) -> None:
        folder = Path(self.place.name) / "base"
        transformers.AutoModel.from_pretrained(self.source).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((self.source / name).read_bytes())
        self.assert_refused(folder, "is no classifier: train a head first")
        for task, name in (("sequence", "Sequence"), ("token", "Token")):
            self.assert_refused(folder, f"lacks weights of BertFor{name}Classification: classifier.bias, classifier.weight.*random", task=task)

    def test_a_checkpoint_without_weights_or_files_is_refused_in_a_sentence(self) -> None:
        folder = Path(self.place.name) / "damaged"
        self.assert_refused(folder, "AutoTokenizer cannot read the tokenizer of .*damaged")
        altered(self.source, folder, weights=b"no weights")
        self.assert_refused(folder, "the weights of .*damaged cannot be loaded")
        altered(self.source, folder, config={"model_type": "made-up", "architectures": ["MadeUpForSequenceClassification"]})
        self.assert_refused(folder, "damaged.*made-up")

    def test_a_model_without_types_of_tokens_works(self) -> None:
        for kind in ("Deberta", "deberta-v2", "deberta-v3"):
            source = trained(Path(self.place.name) / f"no-types-{kind}", kind=kind)
            target = self.target.parent / kind
            export.export(str(source), target, texts=TEXTS)
            inputs = [value.name for value in onnx.load(target / "model.onnx").graph.input]
            self.assertEqual(inputs, ["input_ids", "attention_mask"])

    def test_a_graph_that_is_right_alone_only_is_written_to_run_alone(self) -> None:
        for kind in ("MobileBert", "ConvBert"):
            source = trained(Path(self.place.name) / kind, kind=kind)
            target = self.target.parent / kind
            report = export.export(str(source), target, texts=TEXTS)
            manifest = tomllib.loads((target / "model.toml").read_text())
            self.assertIs(manifest["batching"], False)
            self.assertIn("config.json", manifest["sha256"])
            self.assertIn("each text runs alone", report["batches"])
        whole = export.export(str(self.source), self.target, texts=TEXTS)
        self.assertNotIn("batches", whole)
        self.assertFalse((self.target / "model.toml").exists())

    def test_a_difference_that_rounding_explains_is_allowed(self) -> None:
        source = trained(Path(self.place.name) / "rounded")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(source)
        with torch.no_grad():
            # Two large numbers that cancel each other out: what is left has few digits.
            model.bert.pooler.dense.weight[0] = 0
            model.bert.pooler.dense.bias[0] = 0.5
            model.classifier.weight[:, 0] += 2_000
            model.classifier.bias -= 2_000 * torch.tanh(torch.tensor(0.5))
        model.save_pretrained(source)
        report = export.export(str(source), self.target, texts=TEXTS)
        self.assertGreater(float(report["compared"].rpartition(" ")[2]), export_graph.TOLERANCE)
        self.assertNotIn("batches", report)

    def test_architectures_without_a_graph_are_refused_in_a_sentence(self) -> None:
        tokenizer = {path: path.read_bytes() for path in self.source.iterdir() if path.name.startswith("tokenizer")}
        small = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "hidden_size": 32, "vocab_size": 1_500}
        for name, settings in (
                ("FNet", small), ("Longformer", {**small, "attention_window": [8, 8]}),
                ("Funnel", {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "vocab_size": 1_500}),
                ("Reformer", {"attention_head_size": 8, "hidden_size": 32, "num_attention_heads": 4, "feed_forward_size": 64,
                              "axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8,
                              "is_decoder": False, "vocab_size": 1_500})):
            with self.subTest(name):
                folder = Path(self.place.name) / name
                config = getattr(transformers, f"{name}Config")(max_position_embeddings=66, pad_token_id=0, **settings)
                getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(folder)
                for path, content in tokenizer.items():
                    (folder / path.name).write_bytes(content)
                self.assert_refused(folder, rf"\A[^\n]*{name}ForSequenceClassification[^\n]*use a checkpoint of another architecture[^\n]*\Z")

    def test_the_command_prints_one_sentence(self) -> None:
        command = [sys.executable, "-m", "tools", "export", str(self.source / "none"), str(self.target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"refused: AutoTokenizer cannot read [^\n]*\n\Z")
        self.assertNotIn("Traceback", done.stderr)

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
