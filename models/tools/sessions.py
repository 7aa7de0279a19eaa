"""ONNX Runtime sessions as the server opens them."""

from pathlib import Path

import onnxruntime


def session(graph: Path | bytes, provider: str = "CPUExecutionProvider") -> onnxruntime.InferenceSession:
    """One thread, and no denormal numbers: the layout that the server uses. The graph is a file or its content."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, providers=[provider])
