"""What log-mlflow logs is the directory, byte for byte, and what is no model is refused before anything is logged."""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy
import onnx
import transformers
import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

# A server is more than these tests need.
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

from tiny import ROOT, TEXTS, trained  # noqa: E402
from tools import from_sklearn, golden, log_mlflow  # noqa: E402
from tools.export import export  # noqa: E402
from tools.manifest import check_digests  # noqa: E402
from tools.refused import Refused  # noqa: E402
from tools.text_model import Graph, TextModel  # noqa: E402

# Loaded after it: what it sets is read then.
import mlflow  # noqa: E402

transformers.utils.logging.disable_progress_bar()


class LogMlflow(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.place.cleanup)
        cls.folder = Path(cls.place.name)
        export(str(trained(cls.folder / "trained")), cls.folder / "colours", texts=TEXTS)
        golden.write(cls.folder / "colours", TEXTS)

    def setUp(self) -> None:
        store = tempfile.TemporaryDirectory()
        self.addCleanup(store.cleanup)
        self.uri = Path(store.name).as_uri()
        self.copies = Path(store.name) / "copies"

    def run_tool(self, folder: Path, *options: str) -> list[str]:
        """What the command prints, in lines."""
        parser = argparse.ArgumentParser()
        log_mlflow.add_arguments(parser)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            log_mlflow.run(parser.parse_args([str(folder), "--experiment", "e", "--tracking-uri", self.uri, *options]))
        return said.getvalue().splitlines()

    def refused(self, what: str, folder: Path, *options: str) -> None:
        with self.assertRaisesRegex(Refused, what):
            self.run_tool(folder, *options)
        client = mlflow.MlflowClient(self.uri)
        self.assertIsNone(client.get_experiment_by_name("e"))

    def changed(self, name: str) -> Path:
        """A copy of the directory, without digests."""
        shutil.copytree(self.folder / "colours", self.copies / name)
        (self.copies / name / "model.toml").unlink()
        return self.copies / name

    def fetched(self, uri: str) -> tuple[Path, dict]:
        """The files of a logged model, and what its MLmodel says."""
        with contextlib.redirect_stderr(io.StringIO()):
            place = Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=self.uri))
        return place, yaml.safe_load((place / "MLmodel").read_text())

    def served(self, place: Path, described: dict) -> Path:
        """The directory that a server makes of it: the graph, its data, the extra files."""
        folder = self.copies / "served"
        folder.mkdir(parents=True)
        flavor = described["flavors"]["onnx"]
        beside = [path for path in place.iterdir() if path.name == flavor["data"] or path.suffix == ".data"]
        for path in [*beside, *(place / entry["path"] for entry in flavor["extra_files"])]:
            shutil.copy(path, folder)
        return folder

    def assert_same_files(self, found: Path, expected: Path) -> None:
        contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (found, expected)]
        self.assertEqual(contents[0].keys(), contents[1].keys())
        for name, content in contents[0].items():
            self.assertTrue(content == contents[1][name], name)

    def test_a_transformer(self) -> None:
        folder = self.folder / "colours"
        lines = self.run_tool(folder, "--run-name", "first", "--register", "colours", "--alias", "champion",
                              "--param", "epochs=3", "note=a=b", "--param", "seed=1", "--metric", "accuracy=0.93")
        run_id = lines[-1].removeprefix("run").strip()
        run = mlflow.MlflowClient(self.uri).get_run(run_id)
        self.assertEqual((run.info.run_name, run.info.status), ("first", "FINISHED"))
        config = json.loads((folder / "config.json").read_text())
        self.assertEqual(run.data.params, {
            "epochs": "3", "note": "a=b", "seed": "1", "labels": "3",
            "longest_text": str(config["max_position_embeddings"]),
            "graph_bytes": str((folder / "model.onnx").stat().st_size)})
        self.assertEqual(run.data.metrics, {"accuracy": 0.93})
        version = mlflow.MlflowClient(self.uri).get_model_version_by_alias("colours", "champion")
        self.assertEqual((version.version, version.run_id), (1, run_id))
        self.assertIn("colours version 1, alias champion", "\n".join(lines))

        place, described = self.fetched("models:/colours@champion")
        self.assert_same_files(self.served(place, described), folder)
        check_digests(self.copies / "served", "")
        self.assertEqual(json.loads(described["signature"]["inputs"]), [
            {"name": name, "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, -1]}}
            for name in [value.name for value in onnx.load(folder / "model.onnx").graph.input]])
        self.assertEqual(json.loads(described["signature"]["outputs"]), [
            {"name": "logits", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}])
        sizes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        self.assertLess(abs(described["model_size_bytes"] - sizes), 5_000)
        self.assertEqual(len(mlflow.onnx.load_model(str(place)).graph.output), 1)
        # The example is the shortest of the golden texts, and MLflow's own answer to it is the tool's.
        loaded = mlflow.pyfunc.load_model(str(place))
        examples = json.loads((folder / "golden.json").read_text())["examples"]
        texts = log_mlflow.shortest([entry["text"] for entry in examples])
        model = TextModel(folder)
        graph = Graph(model, model.graph)
        expected = graph.run(graph.feed(model.encode(texts)))
        numpy.testing.assert_allclose(loaded.predict(loaded.input_example)["logits"], expected, atol=1e-5)
        self.assertEqual((len(texts), texts[0]), (3, "x"))

    def test_weights_in_another_file(self) -> None:
        folder = self.changed("split")
        graph = onnx.load(folder / "model.onnx")
        onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location="weights.data",
                        size_threshold=0)
        # As in the cache of the hub.
        (folder / "config.json").rename(self.copies / "0123abcd")
        (folder / "config.json").symlink_to(self.copies / "0123abcd")
        (folder / ".DS_Store").write_bytes(b"left out")
        lines = self.run_tool(folder, "--quiet")
        (folder / ".DS_Store").unlink()
        self.assertEqual(len(lines), 1)
        run = mlflow.MlflowClient(self.uri).get_run(lines[0])
        held = (folder / "weights.data").stat().st_size + (folder / "model.onnx").stat().st_size
        self.assertEqual(run.data.params["graph_bytes"], str(held))
        place, described = self.fetched(f"runs:/{lines[0]}/model")
        self.assert_same_files(self.served(place, described), folder)
        self.assertEqual(len(mlflow.onnx.load_model(str(place)).graph.initializer), len(graph.graph.initializer))
        (folder / "weights.data").rename(folder / "elsewhere")
        with self.assertRaisesRegex(Refused, "weights.data, which is no file beside"):
            self.run_tool(folder)

    def test_a_pipeline(self) -> None:
        texts = ["lost card", "card stolen", "refund me", "a refund please"]
        labels = ["card", "card", "refund", "refund"]
        pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
        folder = self.copies / "pipeline"
        from_sklearn.write(pipeline, folder, texts, None)
        (self.copies / "texts.txt").write_text("card refund\nlost lost card\n")
        (run_id,) = self.run_tool(folder, "--quiet", "--texts", str(self.copies / "texts.txt"))
        place, described = self.fetched(f"runs:/{run_id}/model")
        self.assert_same_files(self.served(place, described), folder)
        self.assertEqual(json.loads(described["signature"]["inputs"]), [
            {"name": "text", "type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1, 1]}}])
        outputs = [entry["name"] for entry in json.loads(described["signature"]["outputs"])]
        self.assertEqual(outputs, ["label", "probabilities"])
        example = json.loads((place / "input_example.json").read_text())
        self.assertEqual(example, {"text": [["card refund"], ["lost lost card"]]})
        loaded = mlflow.pyfunc.load_model(str(place))
        expected = pipeline.predict_proba(["card refund", "lost lost card"])
        numpy.testing.assert_allclose(loaded.predict(loaded.input_example)["probabilities"], expected, atol=1e-5)
        self.assertEqual(mlflow.MlflowClient(self.uri).get_run(run_id).data.params["labels"], "2")
        (self.copies / "pairs.csv").write_text("text,text_pair\na,b\n")
        with self.assertRaisesRegex(Refused, "takes one text"):
            self.run_tool(folder, "--texts", str(self.copies / "pairs.csv"))

    def test_labels_of_tokens_and_no_labels_at_all(self) -> None:
        for name, labels, settings in (("tokens", {0: "O", 1: "B-X"}, {"head": "TokenClassification"}),
                                       ("number", {0: "LABEL_0"}, {"problem_type": "regression"})):
            source = trained(self.copies / name / "trained", labels, **settings)
            export(str(source), self.copies / name / "1", texts=TEXTS)
            (run_id,) = self.run_tool(self.copies / name / "1", "--quiet")
            _, described = self.fetched(f"runs:/{run_id}/model")
            shape = json.loads(described["signature"]["outputs"])[0]["tensor-spec"]["shape"]
            self.assertEqual(shape, [-1, -1, 2] if name == "tokens" else [-1, 1])

    def test_refuses_what_is_no_model(self) -> None:
        self.refused("has no model.onnx$", self.folder)
        nested = self.changed("nested")
        (nested / "onnx").mkdir()
        (nested / "model.onnx").rename(nested / "onnx/model.onnx")
        self.refused("move what is in onnx/ up", nested)
        half = self.changed("half")
        content = (half / "model.onnx").read_bytes()
        (half / "model.onnx").write_bytes(content[:len(content) // 2])
        self.refused("half does not work as a model", half)
        without = self.changed("without")
        (without / "tokenizer.json").unlink()
        self.refused("no tokenizer.json", without)
        unlabelled = self.changed("unlabelled")
        (unlabelled / "config.json").write_text("{}")
        self.refused("names no labels", unlabelled)
        other = self.copies / "other"
        shutil.copytree(self.folder / "colours", other)
        (other / "config.json").write_text((other / "config.json").read_text().replace("red", "pink"))
        self.refused("config.json is not the file whose digest", other)
        odd = self.changed("odd")
        (odd / "a#b.txt").write_text("cut")
        self.refused("a#b.txt.*rename it", odd)
        broken = self.changed("broken")
        (broken / "tokenizer.json").write_text("{}")
        self.refused("AutoTokenizer cannot read .*broken.*export the model again", broken)

    def test_refuses_what_it_is_told(self) -> None:
        folder = self.folder / "colours"
        self.refused("give --register too", folder, "--alias", "champion")
        self.refused("--metric accuracy=good", folder, "--metric", "accuracy=good")
        self.refused("finite", folder, "--metric", "accuracy=nan")
        self.refused("--param epochs: name=value", folder, "--param", "epochs")
        self.refused("cannot be read", folder, "--texts", str(self.folder / "none.txt"))
        with mock.patch.dict(os.environ), self.assertRaisesRegex(Refused, "MLFLOW_TRACKING_URI"):
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            log_mlflow.run(argparse.Namespace(tracking_uri=None))

    def test_says_what_mlflow_says(self) -> None:
        with self.assertRaisesRegex(Refused, r"MLflow at file:.*alias.*\(run \w+ is there, as failed\)"):
            self.run_tool(self.folder / "colours", "--register", "colours", "--alias", "latest")
        client = mlflow.MlflowClient(self.uri)
        runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
        self.assertEqual([run.info.status for run in runs], ["FAILED"])
        self.uri = "nonsense://host"
        with self.assertRaisesRegex(Refused, "MLflow at nonsense://host"):
            self.run_tool(self.folder / "colours")

    def test_needs_no_training_library(self) -> None:
        heavy = "'torch', 'transformers', 'sklearn'"
        code = f"import sys, tools.log_mlflow; print([name for name in ({heavy}) if name in sys.modules])"
        found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "models")},
                               capture_output=True, text=True, check=True)
        self.assertEqual(found.stdout, "[]\n")


if __name__ == "__main__":
    unittest.main()
