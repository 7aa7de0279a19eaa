#!/usr/bin/env python3
"""Writes the float twin of the shipped MiniLM: the same graph with its weights as float32 and no quantisation.

    make float-twin                               into target/float-twin
    predictd --models target/float-twin

Benchmarks compare servers on both, and the slower checks ask it all test questions. Needs the packages of
benches/requirements.txt.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED = REPOSITORY / "models/banking77-minilm/1"
NAME = "banking77-minilm-float"


def dequantised(graph: onnx.GraphProto) -> None:
    """Replaces quantised weights by floats and takes the quantisation of everything else out."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tables = {node.output[0]: node for node in graph.node if node.op_type == "Gather" and node.input[0] in constants}
    same: dict[str, str] = {}
    kept, floats = [], {}

    def weights(name: str, scale: str, zero: str) -> str:
        """The name of a constant's floats."""
        values, scales = constants[name].astype(np.float32), constants[scale]
        zeros = constants[zero].astype(np.float32) if zero else np.float32(0)
        floats[f"{name}/float"] = ((values - zeros) * scales).astype(np.float32)
        return f"{name}/float"

    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            # What takes it gets floats now.
            same[node.output[0]] = node.input[0]
        elif node.op_type == "DequantizeLinear":
            # Rows of a quantised table: the table's floats are looked up instead.
            table = tables[node.input[0]]
            table.input[0] = weights(table.input[0], node.input[1], node.input[2])
            same[node.output[0]] = node.input[0]
        elif node.op_type == "MatMulIntegerToFloat":
            values, integers, _, scale, _, zero, *bias = node.input
            product = f"{node.output[0]}/product" if bias else node.output[0]
            floated = weights(integers, scale, zero)
            kept.append(onnx.helper.make_node("MatMul", [values, floated], [product], f"{node.name}/product"))
            if bias:
                kept.append(onnx.helper.make_node("Add", [product, bias[0]], [node.output[0]], node.name))
        else:
            kept.append(node)

    def origin(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    for node in kept:
        node.input[:] = [origin(name) for name in node.input]
    used = {name for node in kept for name in node.input}
    for output in graph.output:
        if origin(output.name) != output.name:
            raise SystemExit(f"the output {output.name} is quantised itself")
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    initializers += [numpy_helper.from_array(values, name) for name, values in floats.items()]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)


def main() -> None:
    """Reads the shipped graph and writes its twin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="directory of models to make")
    version = parser.parse_args().target / NAME / "1"
    version.mkdir(parents=True, exist_ok=True)
    model = onnx.load(SHIPPED / "model.onnx")
    dequantised(model.graph)
    left = {node.op_type for node in model.graph.node if "quantize" in node.op_type.lower() or "Integer" in node.op_type}
    if left:
        raise SystemExit(f"there are quantised operators left: {sorted(left)}")
    onnx.checker.check_model(model)
    onnx.save(model, version / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, version / name)
    toml = 'description = "The shipped MiniLM in float32, for comparison"\ntask = "classification"\nmax_tokens = 512\n'
    (version / "model.toml").write_text(toml)
    print(f"{version}: {(version / 'model.onnx').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
