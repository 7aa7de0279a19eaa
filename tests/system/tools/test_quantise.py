"""Static int8 of small graphs: what is rewritten, what stays, and how close the answers are."""

import tempfile
import unittest
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.quantise import quantise
from tools.refused import Refused
from tools.sessions import session

RANDOM = numpy.random.default_rng(1)
WIDTH = 160


def weights(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(RANDOM.normal(size=shape).astype(numpy.float32), name)


def save(folder: Path, nodes: list, constants: list, inputs: list) -> Path:
    shape = ["a", "b", "c"] if inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT else ["a", "b"]
    graph = helper.make_graph(nodes, "small", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "float.onnx")
    return folder / "float.onnx"


class Quantised(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)
        self.feed = {"x": RANDOM.normal(size=(3, 5, WIDTH)).astype(numpy.float32)}
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", WIDTH])]

    def kinds(self, nodes: list, constants: list) -> tuple[list[str], float, int]:
        """Operators of the rewritten graph, the relative error of its answers, and its size in bytes."""
        source = save(self.folder, [helper.make_node("Relu", ["x"], ["r"]), *nodes], constants, self.inputs)
        target = self.folder / "q"
        quantise(source, [self.feed], target)
        expected, found = (session(path).run(["y"], self.feed)[0] for path in (source, target))
        error = float(abs(expected - found).mean() / abs(expected).mean())
        return [node.op_type for node in onnx.load(target).graph.node], error, target.stat().st_size

    def test_product_and_bias_become_one_node(self) -> None:
        kinds, error, _ = self.kinds(
            [helper.make_node("MatMul", ["r", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["y"])],
            [weights("w", WIDTH, WIDTH), weights("b", WIDTH)])
        self.assertEqual(kinds, ["Relu", "QuantizeLinear", "MatMulIntegerToFloat"])
        self.assertLess(error, 0.03)
        self.assertGreater(error, 0)

    def test_addition_of_something_else_stays(self) -> None:
        kinds, error, _ = self.kinds(
            [helper.make_node("MatMul", ["r", "w"], ["p"]), helper.make_node("Add", ["p", "r"], ["y"])],
            [weights("w", WIDTH, WIDTH)])
        self.assertEqual(kinds, ["Relu", "QuantizeLinear", "MatMulIntegerToFloat", "Add"])
        self.assertLess(error, 0.03)

    def test_shared_weights_are_written_once(self) -> None:
        nodes = [helper.make_node("Identity", ["w"], ["again"]), helper.make_node("MatMul", ["r", "w"], ["p"]),
                 helper.make_node("MatMul", ["p", "again"], ["y"])]
        kinds, error, size = self.kinds(nodes, [weights("w", WIDTH, WIDTH)])
        self.assertEqual(kinds.count("MatMulIntegerToFloat"), 2)
        self.assertNotIn("Identity", kinds)
        self.assertLess(size, 1.3 * WIDTH * WIDTH)
        self.assertLess(error, 0.05)

    def test_column_of_zeros_stays_zero(self) -> None:
        values = RANDOM.normal(size=(WIDTH, WIDTH)).astype(numpy.float32)
        values[:, 3] = 0
        self.kinds([helper.make_node("MatMul", ["r", "w"], ["y"])], [numpy_helper.from_array(values, "w")])
        found = session(self.folder / "q").run(["y"], self.feed)[0]
        self.assertTrue((found[..., 3] == 0).all() and numpy.isfinite(found).all())

    def test_small_product_alone_is_refused(self) -> None:
        with self.assertRaisesRegex(Refused, "large enough to be quantised"):
            self.kinds([helper.make_node("MatMul", ["r", "w"], ["y"])], [weights("w", WIDTH, 4)])
        self.assertFalse((self.folder / "q").exists())

    def test_large_table_is_looked_up_as_integers(self) -> None:
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, ["a"])]
        self.feed = {"x": numpy.array([0, 7, 8191])}
        source = save(self.folder, [helper.make_node("Gather", ["t", "x"], ["y"])], [weights("t", 8192, 128)], self.inputs)
        quantise(source, [self.feed], self.folder / "q")
        expected, found = (session(path).run(["y"], self.feed)[0] for path in (source, self.folder / "q"))
        largest = abs(numpy_helper.to_array(onnx.load(source).graph.initializer[0])).max()
        self.assertLess(abs(expected - found).max(), largest / 127)
        self.assertLess((self.folder / "q").stat().st_size, 1.1 * 8192 * 128)


if __name__ == "__main__":
    unittest.main()
