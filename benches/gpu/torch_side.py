#!/usr/bin/env python3
"""What PyTorch does on the same GPU with a model of the same size and the same texts: float16, SDPA, sorted batches.

Called by measure.py; prints one line of JSON. Weights are random: they cost as much as any. Also multiplies large
matrices: the most that this GPU does, in the same run. With `--serve PORT` it is a server (FastAPI) instead, one text a
request, to which the same load is sent.
"""

import argparse
import json
import sys
import time
from pathlib import Path

BATCH_TOKENS = 16_384
SIZE = 8_192


def timed(work, seconds: float, device: str) -> tuple[int, float]:
    """How often it was done, and in what time."""
    import torch
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    work()
    wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        count += 1
        if count % 8 == 0:
            wait()
    wait()
    return count, time.perf_counter() - start


def ceiling(device: str, seconds: float, size: int) -> dict:
    """TFLOP/s of matrix products."""
    import torch
    found = {}
    for name, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
        if name == "fp16" and device == "cpu":
            continue
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        count, took = timed(lambda: a @ b, seconds, device)
        found[name] = 2 * size ** 3 * count / took / 1e12
    return found


def model_of(folder: Path, device: str):
    """The model of a directory's config.json, with random weights, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModelForSequenceClassification
    config = AutoConfig.from_pretrained(folder)
    kind = torch.float32 if device == "cpu" else torch.float16
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").to(device, kind).eval()
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def scores(model, rows: list, device: str):
    """The logits of encoded texts, padded to the longest and to a multiple of 8."""
    import torch
    length = -(-max(len(row.ids) for row in rows) // 8) * 8
    ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in rows], device=device)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits.softmax(-1).cpu()


def offline(folder: Path, texts: list[str], device: str, seconds: float) -> dict:
    """Texts a second, tokenising included, sorted by length into batches of so many tokens."""
    model, tokenizer = model_of(folder, device)

    def once() -> None:
        rows, batch = sorted(tokenizer.encode_batch(texts), key=lambda row: len(row.ids)), []
        for row in rows:
            if batch and (len(batch) + 1) * len(row.ids) > BATCH_TOKENS:
                scores(model, batch, device)
                batch = []
            batch.append(row)
        scores(model, batch, device)
    count, took = timed(once, seconds, device)
    return {"texts_per_s": count * len(texts) / took}


def serve(folder: Path, device: str, port: int) -> None:
    """The usual server: FastAPI, one run for each request."""
    import uvicorn
    from fastapi import FastAPI
    model, tokenizer = model_of(folder, device)
    app = FastAPI()

    @app.post("/predict")
    def predict(request: dict) -> dict:
        row = scores(model, [tokenizer.encode(request["text"])], device)[0]
        return {"label": int(row.argmax()), "score": float(row.max())}
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def main() -> None:
    """Measures, or serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=Path, help="JSON: texts by the name of their kind")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=SIZE, help="of the matrices")
    parser.add_argument("--serve", type=int, metavar="PORT")
    options = parser.parse_args()
    try:
        if options.serve:
            serve(options.folder, options.device, options.serve)
            return
        import torch
        found = {"torch": torch.__version__, "tflops": ceiling(options.device, options.seconds, options.size), "offline": {}}
        for name, texts in json.loads(options.texts.read_text()).items():
            found["offline"][name] = offline(options.folder, texts, options.device, options.seconds)
        print(json.dumps(found))
    except ImportError as error:
        sys.exit(f"torch_side.py: {error}")


if __name__ == "__main__":
    main()
