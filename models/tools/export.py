"""A Hugging Face model as a directory that predictd serves: ONNX graph, tokenizer, configuration.

The graph has free batch and sequence axes. It is compared with PyTorch on texts, alone and in padded batches, and the
tokenizer with that of the checkpoint, before anything is written to the target. A graph that is right alone, and not
beside other texts, is written with `batching = false` in model.toml. Code that a model brings along is never run
(`trust_remote_code`).
"""

import argparse
import inspect
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from .checkpoint_tokenizer import first_line, read_tokenizer, write_tokenizer
from .export_graph import BATCH, Comparison, batch_of, write_graph
from .manifest import write_manifest
from .new_directory import new_directory
from .refused import Refused
from .text_model import OFFSET_POSITIONS
from .texts import Text, read_texts

FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
# Read by the server: the texts of this model never share a run.
RUN_ALONE = "batching = false"

# Where no texts are named: several scripts, lengths from one word to far beyond any limit.
TEXTS = [
    "ok", "Where is my new card?", "It was a bright cold day in April, and the clocks were striking thirteen.",
    "Ich hätte gern zwei Brötchen, bitte!", "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "この映画は本当に素晴らしかったです。", "这家餐厅的服务非常差，我们等了一个小时。", "الخدمة كانت ممتازة والطعام لذيذ",
    "שירות גרוע מאוד, לא אחזור", "यह किताब बहुत अच्छी है", "👩‍👩‍👧‍👦 loved it 🇨🇭!!! ❤️‍🔥", "naïve café — “quoted” … text",
    "e\u0301 combining, zero\u200bwidth, tab\tand\nline", "1,234.56 € on 2024-02-29 at 23:59:60", "a" * 300,
    "word " * 900, "Not one thing about this was good. " * 4,
]

CLASSES = {
    "sequence": ("ForSequenceClassification", AutoModelForSequenceClassification),
    "token": ("ForTokenClassification", AutoModelForTokenClassification),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument("model", help="a directory, or a name on the hub")
    parser.add_argument("target", type=Path, help="the version's directory, as models/NAME/1; must not exist")
    parser.add_argument("--task", choices=sorted(CLASSES), help="what its head does (default: as its config says)")
    parser.add_argument("--texts", type=Path, help="texts to compare on: one a line, or CSV with the column text, and text_pair for pairs")
    parser.add_argument("--pad-token", help="a token of the vocabulary that shall stand for padding")


def run(options: argparse.Namespace) -> None:
    """Exports, compares, and only then writes."""
    texts = read_texts(options.texts) if options.texts else TEXTS
    report = export(options.model, options.target, options.task, texts, options.pad_token)
    print("\n".join(f"{name:18} {value}" for name, value in report.items()))


def export(source: str, target: Path, task: str | None = None, texts: list[Text] | None = None,
           pad_token: str | None = None) -> dict[str, str]:
    """Writes the directory and says what is in it."""
    with new_directory(target) as made:
        report = write(source, made, task, texts or TEXTS, pad_token)
    return {"written": str(target), **report}


def write(source: str, made: Path, task: str | None, texts: list[Text], pad_token: str | None) -> dict[str, str]:
    """All files of the version, compared with PyTorch and with the checkpoint's tokenizer."""
    tokenizer = read_tokenizer(source, pad_token)
    config = read_config(source)
    config.pad_token_id = tokenizer.pad_token_id
    model = read_model(source, config, task_of(config, task))
    longest = limit_of(tokenizer, config)
    rows = [tokenizer(*([text] if isinstance(text, str) else text), truncation=True, max_length=longest) for text in texts]
    names = inputs_of(model, tokenizer)
    write_graph(model, names, batch_of(tokenizer, rows[:2], names), made / "model.onnx")
    comparison = Comparison(model, tokenizer, names, made / "model.onnx")
    found = comparison.compare(rows)
    model.config.save_pretrained(made)
    read = write_tokenizer(source, tokenizer, made, pad_token, texts)
    keep_what_is_served(made)
    if found.alone:
        write_manifest(made, [RUN_ALONE])
    report = {
        "inputs": ", ".join(comparison.names), **labels_in_words(config), "longest text": f"{longest} tokens",
        "size": f"{sum(p.stat().st_size for p in made.iterdir()) / 1e6:.1f} MB", "tokenizer": read,
        "compared": f"{len(texts)} texts, alone and in padded batches of {BATCH}; largest difference {found.difference:.1e}",
    }
    if found.alone:
        report["batches"] = f"each text runs alone ({RUN_ALONE} in model.toml): the graph differs {found.alone}"
    return report


def labels_in_words(config) -> dict[str, str]:
    """The labels, and a warning if they have no names."""
    labels = [str(label) for label in config.id2label.values()]
    said = {"labels": f"{len(labels)}: {', '.join(labels[:5])}{' …' if len(labels) > 5 else ''}"}
    if len(labels) > 1 and all(label.startswith("LABEL_") for label in labels):
        said["warning"] = "the labels are numbers: put their names into id2label of config.json"
    return said


def keep_what_is_served(made: Path) -> None:
    """Removes what transformers writes and the server does not read."""
    for path in list(made.iterdir()):
        if path.name not in FILES and not path.name.startswith("model.onnx"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
    absent = [name for name in FILES if not (made / name).exists()]
    if absent:
        raise Refused(f"the tokenizer cannot be written as {', '.join(absent)}; use a checkpoint with a tokenizer.json")


def read_config(source: str):
    """The checkpoint's config.json."""
    try:
        return AutoConfig.from_pretrained(source)
    # Values of any kind may stand in the file.
    except Exception as error:
        raise Refused(f"config.json of {source} cannot be read by transformers {transformers.__version__} ({type(error).__name__}: "
                      f"{first_line(error)}); a directory of save_pretrained is expected, or a name on the hub") from error


def read_model(source: str, config, task: str) -> torch.nn.Module:
    """The checkpoint in 32 bits, with the head that it was trained with."""
    ending, kind = CLASSES[task]
    try:
        model, found = kind.from_pretrained(source, config=config, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
    # Files of unknown content make it raise anything.
    except Exception as error:
        raise Refused(f"the weights of {source} cannot be loaded as {config.model_type}{ending} ({type(error).__name__}: {first_line(error)}); "
                      "the directory must hold model.safetensors that config.json describes") from error
    weights = {name for name, _ in model.named_parameters()}
    missing = sorted(weights & (set(found["missing_keys"]) | {entry[0] for entry in found["mismatched_keys"]}))
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise Refused(f"the checkpoint lacks weights of {type(model).__name__}: {', '.join(missing[:4])}{more}; they would be random. "
                      "Train this head and save the trained model, then export that")
    return model.eval()


def inputs_of(model: torch.nn.Module, tokenizer) -> list[str]:
    """The tensors that the graph takes."""
    taken = inspect.signature(model.forward).parameters
    names = [name for name in tokenizer.model_input_names if name in taken]
    if tokenizer.padding_side == "left" and "position_ids" in taken:
        # Else padding before a text would move it to other positions.
        names.append("position_ids")
    return names


def task_of(config, task: str | None) -> str:
    """What the head does, after the model's own words."""
    if task is not None:
        return task
    for architecture in config.architectures or []:
        for name, (ending, _) in CLASSES.items():
            if architecture.endswith(ending):
                return name
    raise Refused(f"{config.architectures} is no classifier: train a head first, as AutoModelForSequenceClassification has it, and save that")


def limit_of(tokenizer, config) -> int:
    """The longest text in tokens, as the server finds it."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit is not None and 0 < limit < 1e9]
    return min(limits, default=512)
