"""From the float model to the files that are served: ONNX export, static int8, tokenizer and configuration."""

import json
from pathlib import Path

import torch
from tools import quantise as static_int8

from .bert import BertClassifier
from .minilm import PRETRAINED, encode, pad, tokenizer

OPSET = 20
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
CALIBRATION_STRIDE = 40


def export_float(model: BertClassifier, texts: list[str], target: Path) -> None:
    """Writes the fp32 graph with free batch and sequence axes. The texts only show the exporter a shape."""
    inputs = pad(encode(texts))
    free = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        model, tuple(inputs[name] for name in INPUTS), str(target), dynamo=False, opset_version=OPSET,
        input_names=INPUTS, output_names=["logits"],
        dynamic_axes={**{name: free for name in INPUTS}, "logits": {0: "batch_size"}},
    )


def quantise(float_graph: Path, training_texts: list[str], target: Path) -> None:
    """Static int8, with ranges from every 40th training question. Texts run one by one, so that no padding takes part."""
    feeds = ({name: tensor.numpy() for name, tensor in pad([row]).items()}
             for row in encode(training_texts[::CALIBRATION_STRIDE]))
    static_int8.quantise(float_graph, feeds, target)


def write_companions(intents: list[str], target: Path) -> None:
    """The tokenizer and configuration files that a Hugging Face export has beside its graph."""
    tokenizer().save(str(target / "tokenizer.json"), pretty=False)
    write_json(target / "tokenizer_config.json", json.loads((PRETRAINED / "tokenizer_config.json").read_text()))
    write_json(target / "config.json", {
        **json.loads((PRETRAINED / "config.json").read_text()),
        "_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(intents)),
        "label2id": {label: number for number, label in enumerate(intents)},
    })


def write_json(path: Path, value: object) -> None:
    """One style for every JSON file of a model."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
