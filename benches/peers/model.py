"""The model as every Python server of the comparison runs it: tokenizers, ONNX Runtime, softmax, the best label.

The graph, the tokenizer and the cut at 512 tokens are those that predictd serves; what is timed is the server around
them.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """A sequence classifier in a directory of predictd's, on the CPU."""

    def __init__(self, directory: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        folder = Path(directory)
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(512)
        self.tokenizer.enable_padding()
        labels = json.loads((folder / "config.json").read_text())["id2label"]
        self.labels = [labels[str(index)] for index in range(len(labels))]

    @classmethod
    def from_environment(cls) -> "Model":
        """The model that compare.py names."""
        return cls(os.environ["PEER_MODEL"], int(os.environ["PEER_THREADS"]))

    def predict(self, texts: list[str]) -> list[dict]:
        """The best label of each text and its probability, from one run."""
        encoded = self.tokenizer.encode_batch(texts)
        arrays = {
            "input_ids": np.array([item.ids for item in encoded], dtype=np.int64),
            "attention_mask": np.array([item.attention_mask for item in encoded], dtype=np.int64),
            "token_type_ids": np.array([item.type_ids for item in encoded], dtype=np.int64),
        }
        logits = self.session.run(None, {name: arrays[name] for name in self.inputs})[0]
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        return [{"label": self.labels[i], "score": float(row[i])} for row, i in zip(probabilities, best)]
