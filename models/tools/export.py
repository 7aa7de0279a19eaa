"""A Hugging Face model as a directory that predictd serves: ONNX graph, tokenizer, configuration.

The graph has free batch and sequence axes. It is compared with PyTorch on texts, alone and in padded batches, before
anything is written to the target. Code that a model brings along is never run (`trust_remote_code`).
"""

import argparse
import inspect
import shutil
import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from transformers import (AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification,
                          AutoTokenizer)

from .refused import Refused
from .texts import Text, read_texts

OPSET = 17
# Largest difference of a logit, for each unit of its size.
TOLERANCE = 1e-4
BATCH = 8
# Protocol buffers end at 2 GiB.
MOST_BYTES_IN_GRAPH = 1_900_000_000
FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")

# For whoever names no texts: several scripts, lengths from one word to far beyond any limit.
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


class Logits(torch.nn.Module):
    """A model that takes its tensors by position and gives its logits alone."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits of each text, or of each token."""
        return self.model(**dict(zip(self.names, tensors)), return_dict=True).logits


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
    if target.exists():
        raise Refused(f"{target} exists: a version is written once")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        made = Path(folder) / "model"
        made.mkdir()
        report = write(source, made, task, texts or TEXTS, pad_token)
        made.rename(target)
    return {"written": str(target), **report}


def write(source: str, made: Path, task: str | None, texts: list[Text], pad_token: str | None) -> dict[str, str]:
    """All files of the version, compared with PyTorch."""
    tokenizer = read_tokenizer(source, pad_token)
    config = AutoConfig.from_pretrained(source)
    config.pad_token_id = tokenizer.pad_token_id
    kind = AutoModelForTokenClassification if task_of(config, task) == "token" else AutoModelForSequenceClassification
    model = kind.from_pretrained(source, config=config, attn_implementation="eager", dtype=torch.float32).eval()
    taken = inspect.signature(model.forward).parameters
    names = [name for name in tokenizer.model_input_names if name in taken]
    if tokenizer.padding_side == "left" and "position_ids" in taken:
        # Else padding before a text would move it to other positions.
        names.append("position_ids")
    longest = limit_of(tokenizer, config)
    rows = [tokenizer(*([text] if isinstance(text, str) else text), truncation=True, max_length=longest) for text in texts]
    write_graph(model, names, batch_of(tokenizer, rows[:2], names), made / "model.onnx")
    model.config.save_pretrained(made)
    tokenizer.save_pretrained(made)
    for path in list(made.iterdir()):
        if path.name not in FILES and not path.name.startswith("model.onnx"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
    absent = [name for name in FILES if not (made / name).exists()]
    if absent:
        raise Refused(f"the tokenizer cannot be written as {', '.join(absent)}")
    difference = compare(model, tokenizer, names, rows, made / "model.onnx")
    labels = list(config.id2label.values())
    report = {
        "inputs": ", ".join(names), "labels": f"{len(labels)}: {', '.join(labels[:5])}{' …' if len(labels) > 5 else ''}",
        "longest text": f"{longest} tokens", "size": f"{sum(p.stat().st_size for p in made.iterdir()) / 1e6:.1f} MB",
        "compared": f"{len(texts)} texts, alone and in padded batches of {BATCH}; largest difference {difference:.1e}",
    }
    if len(labels) > 1 and all(label.startswith("LABEL_") for label in labels):
        report["warning"] = "the labels are numbers: put their names into id2label of config.json"
    return report


def read_tokenizer(source: str, pad_token: str | None):
    """The fast tokenizer, which tokenizer.json describes in full, with a token for padding."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not getattr(tokenizer, "is_fast", False):
        raise Refused(f"{type(tokenizer).__name__} has no fast form: its rules are Python code, which no tokenizer.json holds")
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise Refused(f"the vocabulary has no token {pad_token}")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        raise Refused(f"the tokenizer names no token for padding: say one, as --pad-token '{tokenizer.eos_token}'")
    return tokenizer


def task_of(config, task: str | None) -> str:
    """What the head does, after the model's own words."""
    if task is not None:
        return task
    for architecture in config.architectures or []:
        for name, (ending, _) in CLASSES.items():
            if architecture.endswith(ending):
                return name
    raise Refused(f"{config.architectures} is no classifier: train a head first, or say --task")


def limit_of(tokenizer, config) -> int:
    """The longest text in tokens, as the server finds it."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= config.pad_token_id + 1
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit is not None and 0 < limit < 1e9]
    return min(limits, default=512)


def batch_of(tokenizer, rows: list, names: list[str]) -> dict[str, torch.Tensor]:
    """One padded batch."""
    padded = tokenizer.pad([{name: row[name] for name in names if name in row} for row in rows], return_tensors="pt")
    if "position_ids" in names:
        padded["position_ids"] = (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {name: padded[name] for name in names}


def write_graph(model: torch.nn.Module, names: list[str], sample: dict[str, torch.Tensor], path: Path) -> None:
    """The graph, with its weights in a file beside it where it is too large for one."""
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in names}
    with torch.no_grad():
        logits = model(**sample, return_dict=True).logits
    of_tokens = {1: "sequence_length"} if logits.dim() == 3 else {}
    torch.onnx.export(
        Logits(model, names).eval(), tuple(sample[name] for name in names), str(path), dynamo=False, opset_version=OPSET,
        input_names=names, output_names=["logits"], dynamic_axes={**axes, "logits": {0: "batch_size", **of_tokens}})
    if sum(weight.numel() * weight.element_size() for weight in model.parameters()) > MOST_BYTES_IN_GRAPH:
        graph = onnx.load(path)
        for part in path.parent.iterdir():
            part.unlink()
        onnx.save_model(graph, path, save_as_external_data=True, location="model.onnx.data")


def compare(model: torch.nn.Module, tokenizer, names: list[str], rows: list, path: Path) -> float:
    """The largest difference from PyTorch's logits of each text alone, where the graph runs it alone and in company."""
    graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {entry.name for entry in graph.get_inputs()}
    if given != set(names):
        raise Refused(f"the graph does not take {sorted(set(names) - given)}: the exporter found no use for it")
    worst = 0.0
    for batch in [[row] for row in rows] + [rows[start:start + BATCH] for start in range(0, len(rows), BATCH)]:
        tensors = {name: tensor.numpy() for name, tensor in batch_of(tokenizer, batch, names).items()}
        found = graph.run(["logits"], tensors)[0]
        for row, logits in zip(batch, found):
            with torch.no_grad():
                alone = batch_of(tokenizer, [row], names)
                expected = model(**alone, return_dict=True).logits[0].numpy()
            if expected.ndim == 2:
                side = slice(len(logits) - len(expected), None) if tokenizer.padding_side == "left" else slice(len(expected))
                logits = logits[side]
            if expected.shape != logits.shape or not numpy.isfinite(logits).all():
                raise Refused(f"the graph gives {logits.shape} scores where PyTorch gives {expected.shape}, or no numbers")
            worst = max(worst, float((numpy.abs(expected - logits) / numpy.maximum(1, numpy.abs(expected))).max()))
            if worst > TOLERANCE or not (expected.argmax(-1) == logits.argmax(-1)).all():
                raise Refused(f"the graph differs from PyTorch by {worst:.2e} on a text of {len(row['input_ids'])} tokens "
                              f"in a batch of {len(batch)}, where {TOLERANCE:.0e} is allowed")
    return worst

