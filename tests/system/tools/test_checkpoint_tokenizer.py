"""That what export writes is read as the checkpoint's author had it: the file's own rules, and the settings beside it."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import transformers
from tokenizers import Tokenizer

from tiny import TEXTS, altered, trained
from tools import checkpoint_tokenizer, export
from tools.refused import Refused

transformers.utils.logging.disable_progress_bar()

# Digits in groups of three, as later models split them.
OWN_REGEX = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|[^\s\p{N}]+|\s+"}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
# As the files of DeBERTa-v3 have it.
NFKC = {"type": "Sequence", "normalizers": [
    {"type": "Replace", "pattern": {"Regex": "\\s{2,}|[\\n\\r\\t]"}, "content": " "}, {"type": "NFKC"},
    {"type": "Strip", "strip_left": False, "strip_right": True}]}


class CheckpointTokenizer(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.place.cleanup)
        cls.folder = Path(cls.place.name)
        cls.sources = {kind: trained(cls.folder / kind, kind=kind) for kind in ("Bert", "Roberta", "GPT2", "DebertaV2")}

    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.target = Path(place.name) / "1"

    def exported(self, kind: str, name: str, **changes: dict) -> tuple[Path, str]:
        """The changed checkpoint, and what is told of its tokenizer."""
        source = altered(self.sources[kind], self.folder / name, **changes)
        report = export.export(str(source), self.target, texts=TEXTS)
        self.assertEqual((self.target / "tokenizer.json").read_bytes(), (source / "tokenizer.json").read_bytes())
        return source, report["tokenizer"]

    def test_rules_that_the_class_does_not_know_are_kept(self) -> None:
        for kind, tokenizer_class, rules, text in (
                ("DebertaV2", "DebertaV2Tokenizer", {"normalizer": NFKC}, "Ｆｕｌｌ ½ ﬁ"),
                ("GPT2", "GPT2Tokenizer", {"pre_tokenizer": OWN_REGEX}, "1234567 don't"),
                ("Roberta", "RobertaTokenizer", {"pre_tokenizer": OWN_REGEX}, "1234567 don't")):
            with self.subTest(kind):
                self.target = self.target.parent / kind
                source, said = self.exported(kind, f"rules-{kind}", tokenizer=rules, tokenizer_config={"tokenizer_class": tokenizer_class})
                wanted = Tokenizer.from_file(str(source / "tokenizer.json")).encode(text).ids
                rebuilt = transformers.AutoTokenizer.from_pretrained(source)(text)["input_ids"]
                self.assertNotEqual(rebuilt, wanted)
                self.assertEqual(transformers.AutoTokenizer.from_pretrained(self.target)(text)["input_ids"], wanted)
                self.assertRegex(said, f"as tokenizer.json says; AutoTokenizer, as {tokenizer_class}, loses a rule of the file")

    def test_settings_are_applied_as_autotokenizer_applies_them(self) -> None:
        for kind, settings, text in (
                ("Bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}, "CARD Card"),
                ("Bert", {"tokenizer_class": "BertTokenizer", "strip_accents": False}, "café"),
                ("Roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}, "card")):
            with self.subTest(settings):
                self.target = self.target.parent / f"settings-{len(list(self.target.parent.iterdir()))}"
                source, said = self.exported(kind, self.target.name, tokenizer_config=settings)
                wanted = transformers.AutoTokenizer.from_pretrained(source)(text)["input_ids"]
                self.assertNotEqual(Tokenizer.from_file(str(source / "tokenizer.json")).encode(text).ids, wanted)
                self.assertEqual(transformers.AutoTokenizer.from_pretrained(self.target)(text)["input_ids"], wanted)
                self.assertEqual((self.target / "tokenizer_config.json").read_bytes(), (source / "tokenizer_config.json").read_bytes())
                self.assertRegex(said, "as AutoTokenizer reads the checkpoint")

    def test_a_setting_that_contradicts_the_file_is_refused_where_rules_are_lost(self) -> None:
        with self.assertRaisesRegex(Refused, "says do_lower_case=True, tokenizer.json does the contrary.*make the two agree"):
            self.exported("DebertaV2", "contradicted", tokenizer={"normalizer": NFKC},
                          tokenizer_config={"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": True})

    def test_a_difference_is_refused_with_the_text_and_the_ids(self) -> None:
        with mock.patch.object(checkpoint_tokenizer, "set_members"), self.assertRaisesRegex(
                Refused, r"reads texts with [a-z ]+ otherwise: '.+' gets the ids \[.*\], where \[.*\] are expected"):
            self.exported("GPT2", "different", tokenizer={"pre_tokenizer": OWN_REGEX}, tokenizer_config={"tokenizer_class": "GPT2Tokenizer"})
        self.assertFalse(self.target.exists())

    def test_a_token_for_padding_is_the_only_change(self) -> None:
        source = altered(self.sources["GPT2"], self.folder / "padded", tokenizer_config={"pad_token": None})
        export.export(str(source), self.target, texts=TEXTS, pad_token="<|endoftext|>")
        before, after = (json.loads((folder / "tokenizer_config.json").read_text()) for folder in (source, self.target))
        self.assertEqual(after, before | {"pad_token": "<|endoftext|>"})

    def test_a_checkpoint_without_the_file_gets_one(self) -> None:
        source = altered(self.sources["Bert"], self.folder / "slow", tokenizer_config={"tokenizer_class": "BertTokenizer", "do_lower_case": False})
        vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
        (source / "tokenizer.json").unlink()
        (source / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf-8")
        export.export(str(source), self.target, texts=TEXTS)
        for text in ("CARD Card", "naïve ½", "[CLS] x"):
            self.assertEqual(transformers.AutoTokenizer.from_pretrained(self.target)(text)["input_ids"],
                             transformers.AutoTokenizer.from_pretrained(source)(text)["input_ids"])


if __name__ == "__main__":
    unittest.main()
