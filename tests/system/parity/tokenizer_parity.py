#!/usr/bin/env python3
"""Compares the tokens that the server reads with AutoTokenizer's: every class, its settings, odd texts.

    python tests/system/parity/tokenizer_parity.py --predictd target/debug/predictd

Each model's scores are sums over its ids and their places, so they tell the ids and their order.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from served import Served
from tokenizer_cases import PAIR, TEXTS, read, shown

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LABELS = ["places", "mixed", "types"]


def write_graph(path: Path) -> None:
    """Three scores: ids times their places, ids times other numbers of their places, and types times places."""
    constants = {"one": [1], "seven": [7], "eleven": [11]}
    nodes = [
        helper.make_node("CumSum", ["attention_mask", "axis"], ["counted"]),
        helper.make_node("Mul", ["counted", "attention_mask"], ["places"]),
        helper.make_node("Mul", ["places", "seven"], ["scattered"]),
        helper.make_node("Mod", ["scattered", "eleven"], ["mixed"]),
        helper.make_node("Mul", ["input_ids", "places"], ["by_place"]),
        helper.make_node("Mul", ["input_ids", "mixed"], ["by_mixed"]),
        helper.make_node("Mul", ["token_type_ids", "places"], ["by_type"]),
        *[helper.make_node("ReduceSum", [name, "one"], [f"{name}_sum"]) for name in ("by_place", "by_mixed", "by_type")],
        helper.make_node("Concat", ["by_place_sum", "by_mixed_sum", "by_type_sum"], ["sums"], axis=1),
        helper.make_node("Cast", ["sums"], ["logits"], to=TensorProto.FLOAT),
    ]
    tensors = [numpy_helper.from_array(numpy.array(value, dtype=numpy.int64), name) for name, value in constants.items()]
    tensors.append(numpy_helper.from_array(numpy.array(1, dtype=numpy.int64), "axis"))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    graph = helper.make_graph(nodes, "ids", inputs, [output], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def expected(ids: list[int], types: list[int]) -> list[float]:
    """The scores of these ids."""
    places = numpy.arange(1, len(ids) + 1)
    ids, types = numpy.array(ids, dtype=int), numpy.array(types or [0] * len(ids), dtype=int)
    return [float((ids * places).sum()), float((ids * (places * 7 % 11)).sum()), float((types * places).sum())]


def compare(served: Served, name: str, answers: dict) -> list[str]:
    """What differs."""
    request = {"model": name, "return_probabilities": True, "raw_scores": True}
    asked = [number for number, text in enumerate(TEXTS) if text.strip()]
    found = served.ask("/batch_predict", {**request, "texts": [TEXTS[number] for number in asked]})["results"]
    found.append(served.ask("/predict", {**request, "text": PAIR[0], "text_pair": PAIR[1]}))
    differences = []
    for number, answer in zip([*asked, len(TEXTS)], found, strict=True):
        ids, types = answers["ids"][number], answers["types"][number]
        scores, tokens = answer.get("probabilities"), answer.get("tokens")
        if scores != expected(ids, types) or tokens != len(ids):
            differences.append(f"{name}, text {number}: {tokens} tokens, scores {scores}, not {expected(ids, types)} of {ids}")
    return differences


def main() -> None:
    """Serves all cases, and exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictd", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        answers = {}
        for case in shown():
            folder = Path(work) / "models" / case.name / "1"
            answers[case.name] = read(case, folder)
            if "refused" in answers[case.name]:
                sys.exit(f"{case.name}: AutoTokenizer refuses it: {answers[case.name]['refused']}")
            config = {**case.config, "id2label": dict(enumerate(LABELS))}
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            write_graph(folder / "model.onnx")
        served = Served(options.predictd.resolve(), Path(work) / "models")
        try:
            differences = [line for name, answer in answers.items() for line in compare(served, name, answer)]
        finally:
            served.stop()
    print("\n".join(differences) or f"{len(answers)} tokenizers, {len(TEXTS)} texts each: all tokens are AutoTokenizer's")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
