"""The forms in which a graph can be run: as it is, fused, int8, fp16."""

import logging
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from . import quantise
from .refused import Refused
from .text_model import Graph, TextModel, evenly

# What the runtime's optimiser calls the architectures that it knows.
FUSED_AS = {"bert": "bert", "distilbert": "bert", "roberta": "bert", "xlm-roberta": "bert", "camembert": "bert",
            "electra": "bert", "albert": "bert", "mpnet": "bert", "gpt2": "gpt2", "bart": "bart"}
CALIBRATION_TEXTS = 256
CUDA = "CUDAExecutionProvider"


class NotMade(Exception):
    """Why there is no such candidate."""


def fused(model: TextModel, target: Path) -> None:
    """Attention, GELU and normalisation as single operators, where the runtime's optimiser recognises them."""
    family = FUSED_AS.get(model.config.get("model_type", ""))
    if family is None:
        raise NotMade(f"the optimiser does not know the model type {model.config.get('model_type')!r}")
    from onnxruntime.transformers import optimizer
    heads = model.config.get("num_attention_heads") or model.config.get("n_heads") or 0
    width = model.config.get("hidden_size") or model.config.get("dim") or 0
    made = optimizer.optimize_model(str(model.graph), family, num_heads=heads, hidden_size=width, opt_level=0)
    found = {name: count for name, count in made.get_fused_operator_statistics().items() if count}
    if not found:
        raise NotMade("the optimiser found nothing to fuse")
    made.save_model_to_file(str(target))


def static_int8(model: TextModel, target: Path, texts: list[str]) -> None:
    """Ranges from the calibration texts, one text at a time."""
    reader = Graph(model, model.graph)
    rows = model.encode(evenly(texts, CALIBRATION_TEXTS))
    quantise.quantise(model.graph, (reader.feed([row]) for row in rows), target)


def dynamic_int8(model: TextModel, target: Path) -> None:
    """Ranges from the texts that are run together. Weights of 7 bits, so that answers do not depend on the CPU."""
    quantize_dynamic(model.graph, target, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def fp16(model: TextModel, target: Path, device: str) -> None:
    """Half precision, which is made for GPUs."""
    if device != "cuda":
        raise NotMade("half precision is for GPUs; --device cuda measures it")
    from onnxruntime.transformers.float16 import convert_float_to_float16
    onnx.save(convert_float_to_float16(onnx.load(model.graph), keep_io_types=True), target)


def make(model: TextModel, folder: Path, calibration: list[str], device: str) -> tuple[dict[str, Path], dict[str, str]]:
    """The graphs that could be made, and why the others could not."""
    if device == "cuda" and CUDA not in onnxruntime.get_available_providers():
        raise Refused("this ONNX Runtime has no CUDA provider; install onnxruntime-gpu or measure with --device cpu")
    logging.disable(logging.WARNING)
    graphs, absent = {"original": model.graph}, {}
    makers: dict[str, Callable[[Path], None]] = {
        "fused": lambda target: fused(model, target),
        "static int8": lambda target: static_int8(model, target, calibration),
        "dynamic int8": lambda target: dynamic_int8(model, target),
        "fp16": lambda target: fp16(model, target, device),
    }
    for name, maker in makers.items():
        target = folder / f"{name.replace(' ', '-')}.onnx"
        try:
            maker(target)
        except (NotMade, Refused) as reason:
            absent[name] = str(reason)
        # The runtime's tools raise anything on a graph they do not know. It is said, and there is no such form.
        except Exception as reason:
            absent[name] = f"{type(reason).__name__}: {reason}"
        else:
            graphs[name] = target
    logging.disable(logging.NOTSET)
    return graphs, absent
