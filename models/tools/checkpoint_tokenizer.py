"""The tokenizer of a checkpoint, written so that the server reads texts as the checkpoint's author did.

AutoTokenizer takes only the vocabulary out of `tokenizer.json` for many classes, and builds the class's own rules around
it: settings of `tokenizer_config.json` are applied that way, and rules that the class does not know are lost (NFKC of
DeBERTa-v3, regular expressions of GPT-2 and RoBERTa descendants). The file itself is kept, byte for byte. Where
AutoTokenizer loses rules of the file, `tokenizer_class` is set to the class that takes a file as it is.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.utils import cached_file

from .refused import Refused
from .texts import Text
from .tokenizer_texts import tokenizer_texts

FILES = ("tokenizer.json", "tokenizer_config.json")
# The class whose rules are those of the file.
AS_IN_FILE = "PreTrainedTokenizerFast"
# Members of a normalizer or pre-tokenizer that settings of tokenizer_config.json stand for.
OF_SETTINGS = {"lowercase", "strip_accents", "handle_chinese_chars", "add_prefix_space", "prepend_scheme", "trim_offsets"}
# Whole steps that they stand for.
STEPS_OF_SETTINGS = {"Lowercase", "StripAccents", "NFD"}

# Token and segment numbers.
Reading = tuple[list[int], list[int]]


def read_tokenizer(source: str, pad_token: str | None):
    """AutoTokenizer's own, with a token for padding."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    # Files of unknown content make it raise anything.
    except Exception as error:
        raise Refused(f"AutoTokenizer cannot read the tokenizer of {source} ({type(error).__name__}: {first_line(error)}); "
                      "a directory with tokenizer.json and config.json is expected, or a name on the hub") from error
    if not getattr(tokenizer, "is_fast", False):
        raise Refused(f"{type(tokenizer).__name__} has no fast form: its rules are Python code, which no tokenizer.json holds; "
                      "use a checkpoint with a tokenizer.json")
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise Refused(f"the vocabulary has no token {pad_token}; name one of it")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        raise Refused(f"the tokenizer names no token for padding: say one, as --pad-token '{tokenizer.eos_token}'")
    return tokenizer


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or ["no reason is given"])[0][:300]


def write_tokenizer(source: str, tokenizer, made: Path, pad_token: str | None, more: list[Text]) -> str:
    """Writes the files into a directory that holds config.json. Returns what to tell; refuses other readings."""
    tokenizer.save_pretrained(made)
    settings = made / "tokenizer_config.json"
    saved = settings.read_bytes()
    own = {name: file_of(source, name) for name in FILES}
    for name, path in own.items():
        if path is not None:
            (made / name).write_bytes(path.read_bytes())
    if pad_token is not None:
        set_members(settings, pad_token=pad_token)
    texts = tokenizer_texts(tokenizer, more)
    wanted = {text: by_auto(tokenizer, text) for text in texts}
    said = "as AutoTokenizer reads the checkpoint"
    lost = loses_rules(made / "tokenizer.json", tokenizer, texts, wanted) if own["tokenizer.json"] else None
    if lost is not None:
        kept = from_file(made / "tokenizer.json")
        refuse_other_case(kept, settings)
        wanted = {text: by_file(kept, text) for text in texts}
        said = f"as tokenizer.json says; AutoTokenizer, as {type(tokenizer).__name__}, loses a rule of the file and reads {lost}"
    # As the checkpoint has it; with what its other files say, as transformers puts it in; and with the class of the file.
    for content, members in ((settings.read_bytes(), {}), (saved, {}), (settings.read_bytes(), {"tokenizer_class": AS_IN_FILE})):
        settings.write_bytes(content)
        if members:
            set_members(settings, **members)
        difference = first_difference(made, texts, wanted)
        if difference is None:
            return f"{len(texts)} texts {said}"
    raise Refused(f"the written tokenizer reads {difference}; save the checkpoint with "
                  "AutoTokenizer.from_pretrained(…).save_pretrained(…), compare the ids, and export that")


def refuse_other_case(kept: Tokenizer, settings: Path) -> None:
    """Refuses a setting that contradicts the file, where the file is read as it is and no class applies the setting."""
    lowers = kept.encode("CARD").ids == kept.encode("card").ids
    named = json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case")
    if named is not None and bool(named) != lowers:
        raise Refused(f"tokenizer_config.json says do_lower_case={named}, tokenizer.json does the contrary, and AutoTokenizer loses "
                      "other rules of it; make the two agree, by what the model was trained with")


def file_of(source: str, name: str) -> Path | None:
    """A file of the checkpoint, if it has one."""
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False)
    return Path(found) if found else None


def set_members(path: Path, **members: str) -> None:
    """Changes these members of a JSON object, and no others."""
    settings = json.loads(path.read_text(encoding="utf-8")) | members
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def by_auto(tokenizer, text: Text) -> Reading:
    """How a tokenizer of transformers reads a text or a pair."""
    given = tokenizer(*([text] if isinstance(text, str) else text), return_token_type_ids=True, truncation=False, verbose=False)
    return given["input_ids"], given["token_type_ids"]


def from_file(path: Path) -> Tokenizer:
    """The tokenizer that a file describes, which cuts and pads nothing."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def by_file(tokenizer: Tokenizer, text: Text) -> Reading:
    """How the file's own rules read a text or a pair."""
    encoding = tokenizer.encode(*([text] if isinstance(text, str) else text))
    return encoding.ids, encoding.type_ids


def first_difference(made: Path, texts: dict[Text, str], wanted: dict[Text, Reading]) -> str | None:
    """A text that AutoTokenizer, and so the server, reads otherwise from the written files; in words."""
    served = AutoTokenizer.from_pretrained(made)
    for text, kind in texts.items():
        found = by_auto(served, text)
        if found != wanted[text]:
            return in_words(text, kind, found, wanted[text])
    return None


def in_words(text: Text, kind: str, found: Reading, wanted: Reading) -> str:
    """Where two readings begin to differ."""
    which = 0 if found[0] != wanted[0] else 1
    names = ("ids", "type ids")
    return (f"texts with {kind} otherwise: {text!r:.80} gets the {names[which]} {found[which][:16]}, "
            f"where {wanted[which][:16]} are expected")


def loses_rules(path: Path, tokenizer, texts: dict[Text, str], readings: dict[Text, Reading]) -> str | None:
    """Which texts AutoTokenizer reads otherwise than the file, where no setting explains it; in words."""
    own, rebuilt = json.loads(path.read_text(encoding="utf-8")), json.loads(tokenizer.backend_tokenizer.to_str())
    rules = ("normalizer", "pre_tokenizer")
    if all(without_settings(own.get(rule)) == without_settings(rebuilt.get(rule)) for rule in rules):
        return None
    kept = from_file(path)
    for text, kind in texts.items():
        wanted = by_file(kept, text)
        if readings[text] != wanted:
            return in_words(text, kind, readings[text], wanted)
    return None


def without_settings(rule):
    """A normalizer or pre-tokenizer as a list of steps, without what settings change."""
    if rule is None:
        return []
    inner = rule.get("normalizers") or rule.get("pretokenizers") if rule["type"] == "Sequence" else None
    if inner is not None:
        return [step for one in inner for step in without_settings(one)]
    if rule["type"] in STEPS_OF_SETTINGS:
        return []
    return [{name: value for name, value in rule.items() if name not in OF_SETTINGS}]
