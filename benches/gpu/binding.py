#!/usr/bin/env python3
"""Whether tensors that stay on the GPU, and CUDA graphs, pay: predictd has neither.

    binding.py models/NAME/1/model.onnx --device cuda:0

Called by measure.py; prints one line of JSON. Each shape is run in turns in three ways: as predictd does, with tensors
of the host; with inputs copied into tensors that lie on the GPU already, and scores copied from one; and so, with all
kernels of the run captured as one graph. Pinned memory of the host is not among them: onnxruntime makes none in Python. Needs
onnxruntime in Python, in its GPU build (`pip install 'onnxruntime-gpu[cuda,cudnn]'`).
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

SHAPES = ((1, 16), (1, 128), (8, 32), (32, 128), (128, 128), (32, 512))
ROUNDS = 5


def first_of(device: str) -> str:
    """The number of the first GPU of `cuda`, `cuda:1` or `cuda:0,1`."""
    return (device.partition(":")[2] or "0").split(",")[0]


def session_on(path: Path, device: str, graphs: bool):
    """A session as predictd makes it; with `graphs`, its runs are captured."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if device == "cpu":
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # CUDA's own libraries, out of NVIDIA's wheels where those are installed.
    onnxruntime.preload_dlls()
    cuda = {"device_id": first_of(device), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    cuda |= {"enable_cuda_graph": "1"} if graphs else {}
    session = onnxruntime.InferenceSession(path, options, providers=[("CUDAExecutionProvider", cuda)])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("this onnxruntime has no CUDA provider, or it cannot be used")
    return session


def feeds(session, rows: int, length: int) -> dict:
    """Any tokens."""
    import numpy
    kinds = {"tensor(int64)": numpy.int64, "tensor(int32)": numpy.int32}
    return {one.name: numpy.full((rows, length), 0 if one.name == "token_type_ids" else 1, kinds[one.type]) for one in session.get_inputs()}


def plain(session, given: dict):
    """Tensors of the host."""
    names = [session.get_outputs()[0].name]
    return lambda: session.run(names, given)[0]


def bound(session, given: dict, scores, device: str, number: int | None):
    """Tensors that stay on the device; `number` is that of the graph, where runs are captured."""
    import onnxruntime
    kind, place = device.partition(":")[0], int(first_of(device))
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value, kind, place) for name, value in given.items()}
    output = onnxruntime.OrtValue.ortvalue_from_numpy(scores, kind, place)
    binding, options = session.io_binding(), onnxruntime.RunOptions()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    if number is not None:
        options.add_run_config_entry("gpu_graph_id", str(number))

    def run():
        for name, value in values.items():
            value.update_inplace(given[name])
        session.run_with_iobinding(binding, options)
        return output.numpy()
    return run


def milliseconds(run, seconds: float) -> float:
    """The median of runs in so much time."""
    took, end = [], time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e3


def compared(ways: dict, seconds: float) -> dict:
    """All ways in turns; each must give the scores of the first."""
    import numpy
    expected = next(iter(ways.values()))()
    for name, run in ways.items():
        # The first runs of a graph are those that capture it.
        found = [run() for _ in range(3)][-1]
        if not numpy.allclose(found, expected, atol=1e-2):
            raise RuntimeError(f"{name}: other scores")
    rounds = [{name: milliseconds(run, seconds / ROUNDS / len(ways)) for name, run in ways.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(one[name] for one in rounds) for name in ways}


def measure(path: Path, device: str, seconds: float, shapes: tuple) -> list[dict]:
    """Every shape; a way that cannot be had says why."""
    session, found, why = session_on(path, device, False), [], None
    capturing = None
    if device != "cpu":
        try:
            capturing = session_on(path, device, True)
        except Exception as error:  # Of many kinds: a graph that is not on the GPU as a whole cannot be captured.
            why = str(error).splitlines()[0]
    for number, (rows, length) in enumerate(shapes):
        given = feeds(session, rows, length)
        scores = plain(session, given)()
        ways = {"host": plain(session, given), "bound": bound(session, given, scores, device, None)}
        case = {"rows": rows, "tokens": length}
        if capturing is not None:
            captured = bound(capturing, given, scores, device, number)
            try:
                captured()
                ways["graph"] = captured
            except Exception as error:  # As above.
                why = str(error).splitlines()[0]
        case |= {f"{name}_ms": took for name, took in compared(ways, seconds).items()}
        if why and "graph_ms" not in case:
            case["no_graph"] = why[:300]
        found.append(case)
    return found


def main() -> None:
    """Measures one graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each shape")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), metavar="N", help="only the N smallest")
    options = parser.parse_args()
    try:
        print(json.dumps(measure(options.graph, options.device, options.seconds, SHAPES[:options.shapes])))
    except (ImportError, RuntimeError) as error:
        sys.exit(f"binding.py: {error}")


if __name__ == "__main__":
    main()
