"""What is chosen and what is said, for figures that are given."""

import tempfile
import unittest
from pathlib import Path

from tools.manifest import settings_of, write_manifest
from tools.optimise import choose, remarks
from tools.refused import Refused
from tools.text_model import TextModel, evenly, read_columns


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
