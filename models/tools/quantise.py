"""Static int8 for the float graph of a transformer.

Every range is fixed here, from calibration texts, so an answer cannot depend on the texts batched with it.

- Products with constant weights (`Gemm`, `MatMul` with or without a bias after it) multiply integers; their inputs are
  rounded, their results are not. Everything between them stays in float, also the two products inside attention, which
  have no weights: faster than rounding all of them, and closer to the float model.
- Large tables of embeddings are int8 too; in a small model they are most of the file.
- Weights have 7 bits. CPUs without VNNI add pairs of products in 16 bits; with 8-bit weights these sums can overflow,
  and the answers would depend on the CPU.
"""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from .refused import Refused
from .sessions import session

# ONNX Runtime's own operators.
RUNTIME_DOMAIN = "com.microsoft"
# 7 bits.
WEIGHT_LIMIT = 64
# Below this many weights, to round the input costs what the integers save.
SMALLEST_PRODUCT = 1 << 14
# Below this many numbers, a table is nothing beside the rest of the file.
SMALLEST_TABLE = 1 << 20

Ranges = dict[str, tuple[float, float]]


class Product(NamedTuple):
    """A product with constant weights, and the bias after it, as one node computes them."""

    value: str
    weight: str
    bias: str
    output: str
    # The weights are stored as one row for each column of the result.
    transposed: bool


def observe(model: onnx.ModelProto, names: list[str], feeds: Iterable[dict[str, numpy.ndarray]]) -> Ranges:
    """The smallest and largest value of each named tensor. Each feed is one text, so that no padding takes part."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    inner = [name for name in names if name not in inputs]
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    runner = session(watched.SerializeToString())
    lowest, highest = numpy.full(len(inner), numpy.inf), numpy.full(len(inner), -numpy.inf)
    texts = 0
    for feed in feeds:
        values = runner.run(inner, feed)
        lowest = numpy.minimum(lowest, [value.min() for value in values])
        highest = numpy.maximum(highest, [value.max() for value in values])
        texts += 1
    if texts == 0:
        raise Refused("there are no calibration texts; name a file that has some")
    return dict(zip(inner, zip(lowest.tolist(), highest.tolist())))


class Quantiser:
    """Rewrites the float graph node by node.

    The runtime's own quantisation tool is not used, since what it writes is slower: it rounds the residuals as well, and
    gives every column of the weights a zero point, which costs time at each product although all of them are 0.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        # An exporter that finds a weight shared writes `Identity` of it.
        self.sources = {node.output[0]: node.input[0] for node in graph.node
                        if node.op_type == "Identity" and node.input[0] in self.weights}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        kept = {value.name for value in graph.output} | set(inner_names(graph))
        self.kept = kept | {self.source(name) for name in kept}
        # By their first output, the one name of a node that is never shared.
        self.products = {node.output[0]: product for node in graph.node if (product := self.product_of(node))}
        self.tables = self.large_tables()
        self.ranges: Ranges = {}
        self.nodes: list[NodeProto] = []
        self.rounded: set[str] = set()
        self.shared: set[str] = set()

    def source(self, name: str) -> str:
        """The constant behind a name."""
        return self.sources.get(name, name)

    def shape(self, name: str) -> list[int]:
        """The shape of a float constant; empty for everything else."""
        tensor = self.weights.get(self.source(name))
        return list(tensor.dims) if tensor is not None and tensor.data_type == TensorProto.FLOAT else []

    def product_of(self, node: NodeProto) -> Product | None:
        """What the node multiplies, if it is worth to do so with integers."""
        if node.op_type not in ("Gemm", "MatMul") or node.domain or self.source(node.input[0]) in self.weights:
            return None
        value, weight, *rest = node.input
        shape = self.shape(weight)
        if len(shape) != 2 or math.prod(shape) < SMALLEST_PRODUCT:
            return None
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        transposed = bool(settings.get("transB", 0))
        columns = shape[0] if transposed else shape[1]
        if node.op_type == "Gemm":
            plain = (settings.get("alpha", 1.0), settings.get("beta", 1.0), settings.get("transA", 0)) == (1.0, 1.0, 0)
            bias = rest[0] if rest else ""
            if not plain or (bias and self.shape(bias) != [columns]):
                return None
            return Product(value, weight, bias, node.output[0], transposed)
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Add" and node.output[0] not in self.kept:
            addition = readers[0]
            others = [name for name in addition.input if name != node.output[0]]
            if len(others) == 1 and self.shape(others[0]) == [columns]:
                return Product(value, weight, others[0], addition.output[0], False)
        return Product(value, weight, "", node.output[0], False)

    def large_tables(self) -> set[str]:
        """Tables that are only looked up, row by row."""
        found = set()
        for name in self.weights:
            names = [name, *(alias for alias, source in self.sources.items() if source == name)]
            readers = [node for each in names for node in self.readers.get(each, []) if node.op_type != "Identity"]
            shape = self.shape(name)
            if len(shape) == 2 and math.prod(shape) >= SMALLEST_TABLE and name not in self.kept and readers and all(
                    node.op_type == "Gather" and self.source(node.input[0]) == name and axis(node) == 0
                    for node in readers):
                found.add(name)
        return found

    def watched(self) -> list[str]:
        """The tensors whose ranges are needed."""
        return list(dict.fromkeys(product.value for product in self.products.values()))

    def rewrite(self, ranges: Ranges) -> None:
        """The whole graph. A product whose input has no usable range stays as it is."""
        self.ranges = ranges
        self.products = {name: product for name, product in self.products.items()
                         if usable(ranges.get(product.value))}
        if not self.products and not self.tables:
            raise Refused("no product and no table of this graph is float32 and large enough to be quantised")
        self.add("weight_zero", numpy.int8(0))
        absorbed = {product.output for name, product in self.products.items() if product.output != name}
        for node in self.graph.node:
            if node.output[0] in self.products:
                self.product(node, self.products[node.output[0]])
            elif node.op_type == "Gather" and self.source(node.input[0]) in self.tables:
                self.words(node)
            elif node.output[0] not in absorbed:
                self.nodes.append(node)
        self.sweep()
        for field, content in (("node", self.nodes), ("initializer", self.weights.values())):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(content)
        del self.graph.value_info[:]

    def sweep(self) -> None:
        """Leaves out what nothing reads any more: replaced constants and `Identity` of them."""
        while True:
            read = {name for node in self.nodes for name in node.input} | self.kept
            left = [node for node in self.nodes
                    if not (node.op_type == "Identity" and node.output[0] in self.sources and node.output[0] not in read)]
            if len(left) == len(self.nodes):
                break
            self.nodes = left
        self.weights = {name: tensor for name, tensor in self.weights.items() if name in read}

    def add(self, name: str, values: numpy.ndarray | numpy.generic) -> str:
        """One more constant."""
        self.weights[name] = numpy_helper.from_array(numpy.asarray(values), name)
        return name

    def product(self, node: NodeProto, product: Product) -> None:
        """Integers are multiplied and summed; scales and bias are applied to the sums, which leave as floats."""
        weight = self.source(product.weight)
        # Layers may share their weights, and may read them in two ways.
        name = weight if product.transposed else f"{weight}/columns"
        if name not in self.shared:
            self.shared.add(name)
            columns = numpy_helper.to_array(self.weights[weight])
            columns = columns.T if product.transposed else columns
            scale = abs(columns).max(axis=0) / WEIGHT_LIMIT
            # A column of zeros has no scale of its own.
            scale = numpy.where(scale == 0, numpy.float32(1), scale)
            self.add(f"{name}_int8", numpy.rint(columns / scale).astype(numpy.int8))
            self.add(f"{name}_scale", scale)
        self.nodes.append(helper.make_node(
            "MatMulIntegerToFloat",
            [self.round(product.value), f"{name}_int8", f"{product.value}_scale", f"{name}_scale",
             f"{product.value}_zero", "weight_zero", *([product.bias] if product.bias else [])],
            [product.output], node.name, domain=RUNTIME_DOMAIN))

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
        table, numbers = self.source(node.input[0]), node.input[1]
        if table not in self.shared:
            self.shared.add(table)
            values = numpy_helper.to_array(self.weights[table])
            scale = abs(values).max() / 127
            self.add(f"{table}_scale", scale)
            self.add(f"{table}_int8", numpy.rint(values / scale).astype(numpy.int8))
        found = f"{node.output[0]}_int8"
        self.nodes += [helper.make_node("Gather", [f"{table}_int8", numbers], [found], node.name, axis=0),
                       helper.make_node("DequantizeLinear", [found, f"{table}_scale", "weight_zero"], node.output,
                                        f"{node.name}/float")]


def inner_names(graph: GraphProto) -> Iterable[str]:
    """What the graphs inside of nodes (`If`, `Loop`) read."""
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                for inner in item.g.node:
                    yield from inner.input
                yield from inner_names(item.g)


def axis(node: NodeProto) -> int:
    """Where a `Gather` looks up."""
    return next((item.i for item in node.attribute if item.name == "axis"), 0)


def usable(found: tuple[float, float] | None) -> bool:
    """A range of numbers, and not of zeros only."""
    return found is not None and all(map(math.isfinite, found)) and min(found[0], 0.0) < max(found[1], 0.0)


def quantise(float_graph: Path, feeds: Iterable[dict[str, numpy.ndarray]], target: Path) -> Counter[str]:
    """Writes the int8 graph and returns how many nodes of each kind are new."""
    model = onnx.load(float_graph)
    quantiser = Quantiser(model.graph)
    quantiser.rewrite(observe(model, quantiser.watched(), feeds) if quantiser.products else {})
    if all(known.domain != RUNTIME_DOMAIN for known in model.opset_import):
        model.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return Counter(node.op_type for node in model.graph.node
                   if node.op_type in ("MatMulIntegerToFloat", "QuantizeLinear", "DequantizeLinear"))
