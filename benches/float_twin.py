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
    same: dict[str, str] = {}
    kept, floats = [], {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            # What follows is its DequantizeLinear: both together only round.
            same[node.output[0]] = node.input[0]
        elif node.op_type == "DequantizeLinear":
            if node.input[0] in constants:
                floats[node.output[0]] = of_integers(node, constants)
            else:
                same[node.output[0]] = node.input[0]
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
    del graph.node[:]
    graph.node.extend(kept)
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    initializers += [numpy_helper.from_array(values, name) for name, values in floats.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    del graph.value_info[:]


def of_integers(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> np.ndarray:
    """The floats that a DequantizeLinear makes of a constant."""
    integers, scale = constants[node.input[0]], constants[node.input[1]]
    zero = constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros_like(scale)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale.ndim == 1 and integers.ndim > 1:
        shape = [1] * integers.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((integers.astype(np.float32) - zero.astype(np.float32)) * scale).astype(np.float32)


def main() -> None:
    """Reads the shipped graph and writes its twin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="directory of models to make")
    version = parser.parse_args().target / NAME / "1"
    version.mkdir(parents=True, exist_ok=True)
    model = onnx.load(SHIPPED / "model.onnx")
    dequantised(model.graph)
    left = {node.op_type for node in model.graph.node if "Quantize" in node.op_type or "QLinear" in node.op_type}
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
