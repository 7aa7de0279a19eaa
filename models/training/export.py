"""From the float model to the files that are served: ONNX export, static int8, tokenizer and configuration."""

import json
from pathlib import Path

import numpy
import torch
from onnxruntime.quantization import (CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType,
                                      quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .bert import BertClassifier
from .minilm import PRETRAINED, encode, pad, tokenizer

OPSET = 17
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


class TrainingTexts(CalibrationDataReader):
    """Training questions one by one, so that no padding takes part in the ranges."""

    def __init__(self, texts: list[str]) -> None:
        self.rows = iter(encode(texts))

    def get_next(self) -> dict[str, numpy.ndarray] | None:
        row = next(self.rows, None)
        return row and {name: tensor.numpy() for name, tensor in pad([row]).items()}


def quantise(float_graph: Path, training_texts: list[str], target: Path) -> None:
    """Static int8: every range is fixed here, so an answer cannot depend on the texts batched with it.

    - `Gather` puts the embedding table into int8 too; without it the file is 59 MB instead of 24.
    - `MatMul` is left out: these are the two products inside attention, which have no weights. They stay in float, and
      results of `Gemm` are not rounded to int8: faster than rounding all of them, and closer to the float model.
    - `reduce_range` keeps weights to 7 bits. CPUs without VNNI add pairs of products in 16 bits; with 8-bit weights
      these sums can overflow, and the answers would depend on the CPU.
    """
    prepared = target.with_suffix(".prepared.onnx")
    # The symbolic pass gives up on this graph's reshapes; ONNX's own shape inference is enough.
    quant_pre_process(str(float_graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(target), TrainingTexts(training_texts[::CALIBRATION_STRIDE]),
        quant_format=QuantFormat.QDQ, op_types_to_quantize=["Gemm", "Gather"],
        per_channel=True, reduce_range=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )
    prepared.unlink()


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
