"""What is chosen and what is said, for figures that are given."""

import argparse
import contextlib
import csv
import io
import json
import tempfile
import unittest
from pathlib import Path

import transformers

from tiny import TEXTS, trained
from tools import golden, optimise
from tools.export import export
from tools.manifest import settings_of, write_manifest
from tools.optimise import choose, remarks
from tools.refused import Refused
from tools.text_model import Graph, TextModel, evenly, read_columns

transformers.utils.logging.disable_progress_bar()


def figures(**changed: dict) -> dict[str, dict]:
    base = {"accuracy": 0.9, "ratio": 1.0, "batch_labels_changed": 0, "batch_difference": 0.0}
    return {name: base | values for name, values in {"original": {}, **changed}.items()}


class Choice(unittest.TestCase):
    def test_fastest_within_the_loss(self) -> None:
        self.assertEqual(choose(figures(fused={"ratio": 0.8}, int8={"ratio": 0.4, "accuracy": 0.896}), 0.005, False), "int8")
        given = figures(fused={"ratio": 0.8}, int8={"ratio": 0.4, "accuracy": 0.894})
        self.assertEqual(choose(given, 0.005, False), "fused")
        self.assertIn("accuracy", given["int8"]["left"])

    def test_slower_forms_leave_the_original_and_it_is_said(self) -> None:
        given = figures(fused={"ratio": 1.2})
        chosen = choose(given, 0.005, False)
        self.assertEqual(chosen, "original")
        self.assertIn("fused: slower here than the original, 1.20 times its time", remarks(given, {}, chosen))

    def test_batch_influence_must_be_allowed(self) -> None:
        for influence in ({"batch_labels_changed": 1}, {"batch_difference": 0.1}):
            self.assertEqual(choose(figures(dynamic={"ratio": 0.3} | influence), 0.005, False), "original")
            self.assertEqual(choose(figures(dynamic={"ratio": 0.3} | influence), 0.005, True), "dynamic")


class EndToEnd(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        cls.folder = Path(place.name)
        cls.source = cls.folder / "tiny" / "1"
        # Narrower products are not worth rounding.
        export(str(trained(cls.folder / "trained", width=512)), cls.source, texts=TEXTS)
        golden.write(cls.source, TEXTS)
        # The model's own answers: whatever changes one of them loses accuracy.
        model = TextModel(cls.source)
        answers = Graph(model, model.graph).probabilities(model.encode(TEXTS), 1).argmax(axis=1)
        cls.validation = cls.folder / "validation.csv"
        with cls.validation.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *((t, model.labels[a]) for t, a in zip(TEXTS, answers))])

    def optimise(self, target: str, *options: str) -> Path:
        parser = argparse.ArgumentParser()
        optimise.add_arguments(parser)
        path = self.folder / "made" / target
        given = [str(self.source), str(path), "--validation", str(self.validation), *options]
        with contextlib.redirect_stdout(io.StringIO()):
            optimise.run(parser.parse_args(given))
        return path

    def test_the_fastest_form_is_written_with_its_figures(self) -> None:
        made = self.optimise("1", "--loss", "1", "--allow-batch-influence")
        report = json.loads((made / "optimisation.json").read_text())
        forms = report["forms"]
        self.assertLessEqual({"original", "static int8", "dynamic int8"}, set(forms), report["absent"])
        self.assertEqual(set(report["absent"]), {"original", "fused", "static int8", "dynamic int8", "fp16"} - set(forms))
        self.assertEqual(report["chosen"], min(forms, key=lambda name: forms[name]["ratio"]))
        for figure in forms.values():
            self.assertLessEqual({"ms_alone", "ms_batched", "ratio", "bytes", "accuracy", "answers_changed",
                                  "batch_labels_changed", "batch_difference", "batch_invariant", "left"}, set(figure))
            self.assertAlmostEqual(figure["accuracy"], 1 - figure["answers_changed"] / len(TEXTS))
        self.assertEqual((made / "model.onnx").stat().st_size, forms[report["chosen"]]["bytes"])
        self.assertEqual(forms["original"]["bytes"], (self.source / "model.onnx").stat().st_size)
        self.assertLess(forms["static int8"]["bytes"], forms["original"]["bytes"])
        self.assertTrue(forms["original"]["batch_invariant"])
        self.assertTrue(json.loads((made / "golden.json").read_text())["examples"])
        self.assertEqual(list(made.parent.glob(".*")), [])

    def test_no_form_may_lose_more_than_is_stated(self) -> None:
        made = self.optimise("2", "--loss", "-1")
        report = json.loads((made / "optimisation.json").read_text())
        self.assertEqual(report["chosen"], "original")
        self.assertTrue(all("loses" in form["left"] for name, form in report["forms"].items() if name != "original"))
        self.assertEqual((made / "model.onnx").read_bytes(), (self.source / "model.onnx").read_bytes())
        self.assertEqual(json.loads((made / "golden.json").read_text()), json.loads((self.source / "golden.json").read_text()))

    def test_what_cannot_be_measured_is_refused_first(self) -> None:
        for setting in ('task = "multi_label"', 'task = "regression"'):
            (self.source / "model.toml").rename(self.source / "model.keep")
            (self.source / "model.toml").write_text(setting)
            try:
                with self.assertRaisesRegex(Refused, "choose one label"):
                    self.optimise("3")
            finally:
                (self.source / "model.keep").rename(self.source / "model.toml")
        self.validation.write_text(self.validation.read_text() + "text,purple\n")
        with self.assertRaisesRegex(Refused, "no label 'purple'"):
            self.optimise("3")
        self.assertFalse((self.folder / "made" / "3").exists())


class Files(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)

    def test_settings_stay_and_digests_are_new(self) -> None:
        (self.folder / "model.toml").write_text('task = "classification"\n\n[sha256]\n"x" = "00"\n\n[other]\na = 1\n')
        (self.folder / "model.onnx").write_text("x")
        self.assertEqual(settings_of(self.folder / "model.toml"), ['task = "classification"', "", "[other]", "a = 1"])
        write_manifest(self.folder, settings_of(self.folder / "model.toml"))
        self.assertIn("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
                      (self.folder / "model.toml").read_text())

    def test_refuses_what_is_not_there(self) -> None:
        with self.assertRaisesRegex(Refused, "no model.onnx"):
            TextModel(self.folder)
        (self.folder / "v.csv").write_text("text,category\na,b\n")
        with self.assertRaisesRegex(Refused, "column label"):
            read_columns(self.folder / "v.csv", ("text", "label"))

    def test_evenly(self) -> None:
        self.assertEqual(evenly(list("abcdef"), 3), ["a", "c", "e"])
        self.assertEqual(len(evenly(["x"] * 10003, 256)), 251)


if __name__ == "__main__":
    unittest.main()
