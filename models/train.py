#!/usr/bin/env python3
"""Makes the two models of this repository from BANKING77, and accepts them only if they are as good as promised.

    python models/train.py                              both models
    python models/train.py --only tfidf                 the small one, in a minute
    python models/train.py --only minilm --keep-checkpoint   export again without training again

Each model is built and checked in the work folder and then replaces `models/<name>/1`. If a check fails, the run ends
with a line that says which, and the model in the repository stays as it is.
"""

import argparse
import shutil
from pathlib import Path

from training import checks, data, export, golden, minilm, package, tfidf

MODELS = Path(__file__).resolve().parent
REPOSITORY = MODELS.parent
VERSION = "1"


def make_minilm(questions: data.Banking77, work: Path, epochs: int, keep_checkpoint: bool) -> dict[str, float]:
    """MiniLM-L6, fine-tuned and quantised to static int8."""
    name = "banking77-minilm"
    checkpoint = work / f"{name}.safetensors"
    if keep_checkpoint and checkpoint.is_file():
        print(f"no training: weights from {checkpoint}")
        model = minilm.restore(questions, checkpoint)
    else:
        model = minilm.fine_tune(questions, epochs, checkpoint)

    made = empty(work / name / VERSION)
    float_graph = work / f"{name}.float.onnx"
    export.export_float(model, questions.train.texts[:2], float_graph)
    export.quantise(float_graph, questions.train.texts, made / "model.onnx")
    export.write_companions(questions.intents, made)
    figures = checks.minilm(questions, model, float_graph, made / "model.onnx")
    examples = golden.examples(checks.Transformer(made / "model.onnx", questions.intents), questions)
    # Integer sums are the same on every CPU, but float rounding before them is not: a value at the edge between two
    # integers may fall to either side. Run without fused operators, one golden score moves by 0.017.
    finish(made, name, figures, examples, tolerance=0.05, settings={
        "description": "MiniLM-L6 fine-tuned to the 77 intents of BANKING77, static int8",
        "task": "classification",
        "max_tokens": minilm.MAX_TOKENS,
    })
    return figures


def make_tfidf(questions: data.Banking77, work: Path) -> dict[str, float]:
    """TF-IDF and logistic regression in one graph."""
    name = "banking77-tfidf"
    made = empty(work / name / VERSION)
    pipeline = tfidf.fit(questions.train)
    (made / "model.onnx").write_bytes(tfidf.export(pipeline))
    export.write_json(made / "labels.json", questions.intents)
    figures = checks.tfidf(questions, pipeline, made / "model.onnx")
    examples = golden.examples(checks.Pipeline(made / "model.onnx", questions.intents), questions)
    finish(made, name, figures, examples, tolerance=1e-4, settings={
        "description": "TF-IDF and logistic regression on the 77 intents of BANKING77, text in",
        "task": "classification",
        # No GPU reads text.
        "device": "cpu",
    })
    return figures


def empty(folder: Path) -> Path:
    """The folder without what an earlier run left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(made: Path, name: str, figures: dict[str, float], examples: list[dict], tolerance: float,
           settings: dict[str, str | int]) -> None:
    """Golden texts, card and manifest; then the model takes its place."""
    checks.golden(examples)
    package.write_golden(made, examples, tolerance)
    package.write_card(made, name, figures, examples)
    package.write_manifest(made, settings)
    package.install(made, MODELS / name / VERSION)


def main() -> None:
    """Reads the command line, makes what it asks for, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("minilm", "tfidf"), help="make one of the models")
    parser.add_argument("--data", type=Path, help="folder with BANKING77's train.csv and test.csv; without it, "
                                                  "../shared/data/banking77 or a download")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "target" / "models-work",
                        help="folder for downloads, checkpoints and unfinished models")
    parser.add_argument("--epochs", type=int, default=8, help="rounds of fine-tuning, 2 minutes each on two cores")
    parser.add_argument("--keep-checkpoint", action="store_true",
                        help="use the weights that an earlier run left in the work folder")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    beside = REPOSITORY.parent / "shared" / "data" / "banking77"
    questions = data.load(data.locate(options.data, beside, options.work))

    summary = {}
    if options.only != "minilm":
        summary["banking77-tfidf"] = make_tfidf(questions, options.work)
    if options.only != "tfidf":
        summary["banking77-minilm"] = make_minilm(questions, options.work, options.epochs, options.keep_checkpoint)
    for name, figures in summary.items():
        print(f"{name}: accepted")
        for figure, value in figures.items():
            print(f"  {figure:<22} {value:.6g}" if isinstance(value, float) else f"  {figure:<22} {value}")


if __name__ == "__main__":
    main()
