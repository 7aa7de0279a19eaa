"""The outputs of a classifier's graph, as the server reads them."""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from .refused import Refused


def one_score_a_label(graph: onnx.ModelProto) -> None:
    """Leaves the output `probabilities` alone, [n, labels]: the choice is the server's, by its thresholds.

    skl2onnx gives [labels, n, 2], or a sequence of [n, 2], where each label has a classifier or an output of its own.
    """
    output = next(output for output in graph.graph.output if output.name == "probabilities")
    del graph.graph.output[:]
    sequence = output.type.HasField("sequence_type")
    if not sequence and len(output.type.tensor_type.shape.dim) == 2:
        graph.graph.output.append(output)
        return
    inner = rename(graph.graph, "probabilities")
    nodes = []
    if sequence:
        nodes.append(helper.make_node("ConcatFromSequence", [inner], [f"{inner}_stacked"], axis=0, new_axis=1))
        inner = f"{inner}_stacked"
    graph.graph.initializer.append(numpy_helper.from_array(numpy.int64(1), "place_of_yes"))
    nodes += [helper.make_node("Gather", [inner, "place_of_yes"], ["scores_of_yes"], axis=2),
              helper.make_node("Transpose", ["scores_of_yes"], ["probabilities"], perm=[1, 0])]
    graph.graph.node.extend(nodes)
    graph.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, None]))


def name_labels(graph: onnx.ModelProto, classes: numpy.ndarray) -> None:
    """Makes the output `label` say what Python says. skl2onnx turns booleans and fractions into whole numbers."""
    output = next(output for output in graph.graph.output if output.name == "label")
    if classes.dtype.kind in "bf":
        numbers = [int(value) for value in classes]
        if len(set(numbers)) < len(numbers):
            raise Refused(f"the classes {', '.join(map(str, classes))} are numbers with fractions, which skl2onnx cuts off; "
                          "train with their names, as [str(label) for label in labels]")
        inner = rename(graph.graph, "label")
        graph.graph.node.append(helper.make_node("LabelEncoder", [inner], ["label"], domain="ai.onnx.ml", keys_int64s=numbers,
                                                 values_strings=[str(value) for value in classes]))
        output.type.tensor_type.elem_type = TensorProto.STRING
    elif len(output.type.tensor_type.shape.dim) == 2:
        # Some say [1, n].
        inner = rename(graph.graph, "label")
        graph.graph.initializer.append(numpy_helper.from_array(numpy.int64([-1]), "shape_of_labels"))
        graph.graph.node.append(helper.make_node("Reshape", [inner, "shape_of_labels"], ["label"]))
    else:
        return
    graph.graph.output[list(graph.graph.output).index(output)].CopyFrom(
        helper.make_tensor_value_info("label", output.type.tensor_type.elem_type, [None]))


def rename(graph: onnx.GraphProto, name: str) -> str:
    """Gives a value of the graph another name, which it returns."""
    other = f"{name}_of_skl2onnx"
    for node in graph.node:
        for names in (node.input, node.output):
            for place, value in enumerate(names):
                if value == name:
                    names[place] = other
    return other
