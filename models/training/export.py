"""From the float model to the files that are served: ONNX export, static int8, tokenizer and configuration."""

import json
from pathlib import Path

import numpy
import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from .bert import BertClassifier
from .minilm import PRETRAINED, encode, pad, tokenizer
from .runtime import session

OPSET = 20
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
CALIBRATION_STRIDE = 40
# ONNX Runtime's own operators.
RUNTIME_DOMAIN = "com.microsoft"
WORDS = "bert.embeddings.word_embeddings.weight"
# 7 bits.
WEIGHT_LIMIT = 64


def export_float(model: BertClassifier, texts: list[str], target: Path) -> None:
    """Writes the fp32 graph with free batch and sequence axes. The texts only show the exporter a shape."""
    inputs = pad(encode(texts))
    free = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        model, tuple(inputs[name] for name in INPUTS), str(target), dynamo=False, opset_version=OPSET,
        input_names=INPUTS, output_names=["logits"],
        dynamic_axes={**{name: free for name in INPUTS}, "logits": {0: "batch_size"}},
    )


def observe(float_graph: Path, names: list[str], texts: list[str]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each named tensor. Texts run one by one, so that no padding takes part."""
    watched = onnx.load(float_graph)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    runner = session(watched.SerializeToString())
    lowest, highest = numpy.full(len(names), numpy.inf), numpy.full(len(names), -numpy.inf)
    for row in encode(texts):
        values = runner.run(names, {name: tensor.numpy() for name, tensor in pad([row]).items()})
        lowest = numpy.minimum(lowest, [value.min() for value in values])
        highest = numpy.maximum(highest, [value.max() for value in values])
    return dict(zip(names, zip(lowest.tolist(), highest.tolist())))


class Quantiser:
    """Rewrites the float graph node by node.

    The runtime's own quantisation tool is not used, since what it writes is slower: it rounds the residuals as well, and
    gives every column of the weights a zero point, which costs time at each product although all of them are 0.
    """

    def __init__(self, graph: GraphProto, ranges: dict[str, tuple[float, float]]) -> None:
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.ranges = ranges
        self.nodes: list[NodeProto] = []
        self.rounded: set[str] = set()
        self.add("weight_zero", numpy.int8(0))
        for node in graph.node:
            self.rewrite(node)

    def add(self, name: str, values: numpy.ndarray | numpy.generic) -> str:
        """One more constant."""
        self.weights[name] = numpy_helper.from_array(numpy.asarray(values), name)
        return name

    def take(self, name: str) -> numpy.ndarray:
        """The values of a constant that is replaced by others."""
        return numpy_helper.to_array(self.weights.pop(name))

    def rewrite(self, node: NodeProto) -> None:
        """One node of the float graph as nodes of the new one."""
        if node.op_type == "Gemm":
            self.product(node)
        elif node.op_type == "Gather" and node.input[0] == WORDS:
            self.words(node)
        else:
            self.nodes.append(node)

    def product(self, node: NodeProto) -> None:
        """Integers are multiplied and summed; scales and bias are applied to the sums, which leave as floats."""
        value, weight, bias = node.input
        columns = self.take(weight).T
        scale = abs(columns).max(axis=0) / WEIGHT_LIMIT
        self.add(f"{weight}_int8", numpy.rint(columns / scale).astype(numpy.int8))
        self.add(f"{weight}_scale", scale)
        self.nodes.append(helper.make_node(
            "MatMulIntegerToFloat",
            [self.round(value), f"{weight}_int8", f"{value}_scale", f"{weight}_scale", f"{value}_zero", "weight_zero", bias],
            node.output, node.name, domain=RUNTIME_DOMAIN))

    def round(self, value: str) -> str:
        """The tensor as integers from 0 to 255; once, however many products read it."""
        integers = f"{value}_uint8"
        if integers not in self.rounded:
            self.rounded.add(integers)
            # Zero must be among the 256 values.
            lowest, highest = min(self.ranges[value][0], 0.0), max(self.ranges[value][1], 0.0)
            scale = (highest - lowest) / 255
            constants = [self.add(f"{value}_scale", numpy.float32(scale)),
                         self.add(f"{value}_zero", numpy.uint8(round(-lowest / scale)))]
            self.nodes.append(helper.make_node("QuantizeLinear", [value, *constants], [integers], integers))
        return integers

    def words(self, node: NodeProto) -> None:
        """Rows are looked up as integers and become floats again. Nothing is summed, so all 8 bits are used."""
        table, numbers = node.input
        values = self.take(table)
        scale = abs(values).max() / 127
        constants = [self.add(f"{table}_scale", scale), "weight_zero"]
        self.add(f"{table}_int8", numpy.rint(values / scale).astype(numpy.int8))
        found = f"{node.output[0]}_int8"
        self.nodes += [helper.make_node("Gather", [f"{table}_int8", numbers], [found], node.name, axis=0),
                       helper.make_node("DequantizeLinear", [found, *constants], node.output, f"{node.name}/float")]


def quantise(float_graph: Path, training_texts: list[str], target: Path) -> None:
    """Static int8: every range is fixed here, so an answer cannot depend on the texts batched with it.

    - Linear layers multiply integers; their inputs are rounded, their results are not. Everything between them stays
      in float, also the two products inside attention, which have no weights: faster than rounding all of them, and
      closer to the float model.
    - The table of words is int8 too; without it the file is 58 MB instead of 23.
    - Weights have 7 bits. CPUs without VNNI add pairs of products in 16 bits; with 8-bit weights these sums can
      overflow, and the answers would depend on the CPU.
    """
    model = onnx.load(float_graph)
    products = [node for node in model.graph.node if node.op_type == "Gemm"]
    names = list(dict.fromkeys(node.input[0] for node in products))
    rewritten = Quantiser(model.graph, observe(float_graph, names, training_texts[::CALIBRATION_STRIDE]))
    for field, content in (("node", rewritten.nodes), ("initializer", rewritten.weights.values())):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(content)
    del model.graph.value_info[:]
    model.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    onnx.checker.check_model(model)
    onnx.save(model, target)


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
