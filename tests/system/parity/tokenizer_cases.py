"""Tiny tokenizers of every class with odd files and settings, and odd texts to read with them.

    python tests/system/parity/tokenizer_cases.py tests/it/engine/model_kinds/tokenizer_classes.json

writes the ids that AutoTokenizer of transformers gives, for the tests in Rust.
"""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>", "<unk>", "<mask>", "<cls>", "<sep>",
           "<|endoftext|>", "<bos>", "<eos>"]
TEXTS = ["Good café", " good  bad ", "[CLS] good[SEP]", "<s>good </s>", "bad <mask> new", "it's NEW 2024!", "好天good",
         "a\u0301 ﬁne ＡＢ", "good\n\tbad", "NEWTOK newtok", "", "İ<unk>x", "good <|endoftext|>", "``bad''"]
PAIR = ("Good bad", "new")
WORDS = ["good", "bad", "new", "cafe", "café", "Good", "tok", "fine", "it", "2024", "NEW"]
CHARACTERS = list("abdefgiknotwxGNEWTOKABİ0245.!'`\"é")


def added(content: str, number: int, **flags) -> dict:
    """A token as `added_tokens` lists it."""
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **flags}


def tokenizer(model: dict, normalizer: dict | None, pre_tokenizer: dict | None) -> dict:
    """A whole tokenizer.json with the first special tokens and a template around texts."""
    part = lambda name, kind: {"SpecialToken": {"id": name, "type_id": kind}}  # noqa: E731
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}  # noqa: E731
    ids = {token: SPECIAL.index(token) for token in ("<cls>", "<sep>")}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(token, number) for number, token in enumerate(SPECIAL)],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [part("<cls>", 0), text("A", 0), part("<sep>", 0)],
            "pair": [part("<cls>", 0), text("A", 0), part("<sep>", 0), text("B", 1), part("<sep>", 1)],
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ids.items()}},
        "decoder": None, "model": model}


def numbered(tokens: list[str]) -> dict[str, int]:
    """Ids in the order of the tokens, each once."""
    return {token: number for number, token in enumerate(dict.fromkeys(SPECIAL + tokens))}


def merged(words: list[str], first: str) -> tuple[list[str], list[list[str]]]:
    """The tokens and merges that build each word from its characters, from the left."""
    tokens, merges = [], []
    for word in words:
        pieces = [first + word[0], *word[1:]] if first else list(word)
        left = pieces[0]
        for right in pieces[1:]:
            merges.append([left, right])
            left += right
            tokens.append(left)
    return tokens, merges


def word_pieces() -> dict:
    tokens = WORDS + [f"##{character}" for character in CHARACTERS] + CHARACTERS + ["好", "天"]
    return tokenizer({"type": "WordPiece", "vocab": numbered(tokens), "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100}, {"type": "Lowercase"}, {"type": "WhitespaceSplit"})


def character_pairs(characters: list[str], words: list[str], first: str, **model) -> dict:
    tokens, merges = merged(words, first)
    vocabulary = numbered(characters + ([first] if first else []) + [first + c for c in characters if first] + tokens)
    merges = [[first, c] for c in characters if first] + merges
    return tokenizer({"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                      "merges": merges, **model}, {"type": "Lowercase"}, {"type": "Whitespace"})


def byte_pairs() -> dict:
    signs = [chr(number) for number in range(33, 127)] + list("ÃĀĂ©Ċĉ")
    base = character_pairs(signs, ["good", "bad", "new"], "Ġ")
    return {**base, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}


def piece_pairs() -> dict:
    return character_pairs(CHARACTERS + ["<0x0A>", "<0x09>"], ["good", "bad", "new"], "▁", unk_token="<unk>")


def end_pairs() -> dict:
    ends = [f"{character}</w>" for character in CHARACTERS]
    return character_pairs(CHARACTERS + ends, ["goo", "ba"], "", unk_token="<unk>", end_of_word_suffix="</w>")


def unigram() -> dict:
    tokens = list(dict.fromkeys(SPECIAL + [f"▁{word}" for word in WORDS] + ["▁", *CHARACTERS, "好"]))
    vocabulary = [[token, 0.0 if number < len(SPECIAL) else -1.0 - number / 50] for number, token in enumerate(tokens)]
    return tokenizer({"type": "Unigram", "unk_id": 8, "vocab": vocabulary}, {"type": "NFKC"},
                     {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True})


BASES = {"word_pieces": word_pieces(), "byte_pairs": byte_pairs(), "piece_pairs": piece_pairs(), "end_pairs": end_pairs(),
         "unigram": unigram()}
# Every token of the vocabulary, as newer tokenizer_config.json files list them.
LISTED = {str(number): {key: value for key, value in added(token, number).items() if key != "id"}
          for number, token in enumerate(SPECIAL)}


@dataclass(frozen=True)
class Case:
    """One directory: a base with some parts in another form, and the other files."""

    name: str
    base: str
    settings: dict | None
    parts: dict = field(default_factory=dict)
    config: dict = field(default_factory=lambda: {"model_type": "bert"})
    files: dict = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes tokenizer.json and what stands beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {"tokenizer.json": {**BASES[self.base], **self.parts}, "config.json": self.config, **self.files}
        if self.settings is not None:
            files["tokenizer_config.json"] = self.settings
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


BERT = [{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}]
PREFIX = [{"add_prefix_space": True}, {"add_prefix_space": False}]
CLASSES = {
    "BertTokenizer": ("word_pieces", BERT),
    "ElectraTokenizer": ("word_pieces", BERT[:1]),
    "DistilBertTokenizerFast": ("word_pieces", BERT),
    "ConvBertTokenizer": ("word_pieces", BERT[:1]),
    "MobileBertTokenizer": ("word_pieces", BERT[:1]),
    "MPNetTokenizer": ("word_pieces", BERT),
    "FunnelTokenizer": ("word_pieces", BERT),
    "HerbertTokenizer": ("end_pairs", [{"do_lower_case": True}]),
    "OpenAIGPTTokenizer": ("end_pairs", [{"do_lower_case": False}]),
    "RobertaTokenizer": ("byte_pairs", [*PREFIX, {"trim_offsets": False}]),
    "BartTokenizer": ("byte_pairs", PREFIX[:1]),
    "LongformerTokenizerFast": ("byte_pairs", PREFIX[:1]),
    "GPT2Tokenizer": ("byte_pairs", PREFIX),
    "DebertaTokenizer": ("byte_pairs", PREFIX),
    "LukeTokenizer": ("byte_pairs", [*PREFIX, {"entity_1_token": "<cls>"}]),
    "BlenderbotTokenizer": ("byte_pairs", PREFIX),
    "CodeGenTokenizer": ("byte_pairs", PREFIX),
    "GPTNeoXTokenizer": ("byte_pairs", PREFIX),
    "CohereTokenizer": ("byte_pairs", PREFIX),
    "Qwen2Tokenizer": ("byte_pairs", PREFIX),
    "Qwen3_5Tokenizer": ("byte_pairs", PREFIX),
    "LlamaTokenizer": ("piece_pairs", [*PREFIX, {"legacy": True}, {"legacy": False}]),
    "GemmaTokenizer": ("piece_pairs", []),
    "ReformerTokenizer": ("piece_pairs", []),
    "XLMRobertaTokenizer": ("unigram", PREFIX),
    "MBartTokenizer": ("unigram", [{"src_lang": "de_DE", "tgt_lang": "en_XX"}]),
    "CamembertTokenizer": ("unigram", PREFIX),
    "BarthezTokenizer": ("unigram", PREFIX),
    "AlbertTokenizer": ("unigram", [*PREFIX, {"do_lower_case": False}, {"keep_accents": True}]),
    "FNetTokenizer": ("unigram", [{"do_lower_case": False}]),
    "DebertaV2Tokenizer": ("unigram", [*PREFIX, {"do_lower_case": True}, {"split_by_punct": True}, {"unk_id": 3}]),
    "T5Tokenizer": ("unigram", [{"extra_ids": 2}, {"additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"],
                                                  "extra_ids": 2}]),
    "BigBirdTokenizer": ("unigram", PREFIX),
    "RemBertTokenizer": ("unigram", [*PREFIX, {"do_lower_case": True}, {"keep_accents": False}]),
    "XLNetTokenizer": ("unigram", [{"do_lower_case": True}, {"unk_id": 8}]),
    "XGLMTokenizer": ("unigram", PREFIX),
    "PegasusTokenizer": ("unigram", [{"offset": 5}]),
    "TokenizersBackend": ("word_pieces", BERT[:1] + PREFIX[:1]),
    "PreTrainedTokenizerFast": ("unigram", []),
}
# What any class may be told of special tokens.
COMMON = [
    {"split_special_tokens": True},
    {"added_tokens_decoder": LISTED},
    {"added_tokens_decoder": {"4": {**LISTED["4"], "lstrip": True, "rstrip": True},
                              "900": {**LISTED["0"], "content": "newtok", "special": False, "normalized": True}}},
    {"additional_special_tokens": ["newtok"], "mask_token": {**LISTED["9"], "__type": "AddedToken", "lstrip": True}},
    {"unk_token": "<pad>", "cls_token": "<sep>", "sep_token": "<cls>"},
    {"add_bos_token": True, "add_eos_token": True, "bos_token": "<bos>", "eos_token": "<eos>"},
    {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
    {"image_token": "newtok", "clean_up_tokenization_spaces": True, "model_max_length": 1e30},
]
# Parts of tokenizer.json that classes keep or replace.
PARTS = [{"post_processor": None}, {"added_tokens": []},
         {"padding": {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 6,
                      "pad_type_id": 0, "pad_token": "<pad>"}}]
LEGACY = {"special_tokens_map.json": {"cls_token": "<sep>", "mask_token": {**LISTED["9"], "rstrip": True},
                                      "additional_special_tokens": ["newtok"]},
          "added_tokens.json": {"tok": 901}}


def cases() -> list[Case]:
    """All of them."""
    found = []
    for name, (base, settings) in CLASSES.items():
        named = {"tokenizer_class": name}
        for number, setting in enumerate([{}, *settings, *COMMON]):
            found.append(Case(f"{name.lower()}-{number}", base, {**named, **setting}))
        for number, parts in enumerate(PARTS):
            found.append(Case(f"{name.lower()}-parts-{number}", base, named, parts))
        found.append(Case(f"{name.lower()}-legacy", base, named, files=LEGACY))
    for model_type, base in (("distilbert", "word_pieces"), ("roberta", "byte_pairs"), ("xlm-roberta", "unigram"),
                             ("deberta-v2", "unigram"), ("modernbert", "byte_pairs"), ("qwen2", "byte_pairs")):
        found.append(Case(f"type-{model_type}", base, None, config={"model_type": model_type}))
        other = {"tokenizer_class": "GPT2Tokenizer" if base == "byte_pairs" else "AlbertTokenizer"}
        if base != "word_pieces":
            found.append(Case(f"type-{model_type}-named", base, other, config={"model_type": model_type}))
    found.append(Case("in-config", "word_pieces", {"do_lower_case": False},
                      config={"model_type": "roberta", "tokenizer_class": "BertTokenizer"}))
    llama = {"tokenizer_class": "LlamaTokenizer"}
    found.append(Case("llama-of-bytes", "byte_pairs", llama, config={"model_type": "llama"}))
    return found


# Classes that are read with everything that any class may be told.
SHOWN = ("bert", "roberta", "xlmroberta", "tokenizersbackend")


def shown() -> list[Case]:
    """A part of the cases: each class with its own settings, and a few with all others."""
    own = {f"{name.lower()}-{number}" for name, (_, settings) in CLASSES.items() for number in range(len(settings) + 1)}
    everything = {f"{name}tokenizer" if not name.endswith("backend") else name for name in SHOWN}
    return [case for case in cases()
            if case.name in own or case.name.split("-")[0] in everything or "tokenizer" not in case.name]


def read(case: Case, folder: Path) -> dict:
    """What AutoTokenizer makes of the texts, or its refusal."""
    from transformers import AutoTokenizer
    case.write(folder)
    try:
        made = AutoTokenizer.from_pretrained(folder)
        rows = [made(text) for text in TEXTS] + [made(*PAIR)]
    except Exception as error:  # noqa: BLE001
        return {"refused": f"{type(error).__name__}: {error}"[:200]}
    types = [row.get("token_type_ids", [0] * len(row["input_ids"])) for row in rows]
    return {"ids": [row["input_ids"] for row in rows], "types": [kinds if any(kinds) else [] for kinds in types],
            "left": made.padding_side == "left", "pad": made.pad_token_id}


def main() -> None:
    """Writes all answers into a file."""
    written = []
    with tempfile.TemporaryDirectory() as work:
        for case in shown():
            answers = read(case, Path(work) / case.name)
            files = {name: content for name, content in case.files.items()}
            written.append({"name": case.name, "base": case.base, "settings": case.settings, "parts": case.parts,
                            "config": case.config, "files": files, **answers})
    whole = {"texts": TEXTS, "pair": PAIR, "bases": BASES}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in written)
    head = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:-1]
    Path(sys.argv[1]).write_text(f'{head},"cases":[\n{lines}\n]}}\n', encoding="utf-8")
    print(len(written), "cases,", sum("refused" in case for case in written), "refused")


if __name__ == "__main__":
    main()
