"""The command line: `python -m tools COMMAND`."""

import argparse
import importlib
import sys

# Loaded when they are needed only: torch alone takes seconds.
COMMANDS = {
    "export": ("export", "a Hugging Face model as a directory that predictd serves"),
    "optimise": ("optimise", "the fastest form of a model that keeps its accuracy"),
    "golden": ("golden", "texts with the answers that a model gives now, for the server to check at each load"),
    "from-sklearn": ("from_sklearn", "a scikit-learn pipeline as a directory that predictd serves"),
    "log-mlflow": ("log_mlflow", "a model directory as a run and a model in MLflow"),
}


def main() -> None:
    """Finds the command and runs it. Every error ends the program with one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="python -m tools", description="Makes model directories for predictd.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            loaded = importlib.import_module(f".{module}", __package__)
            command.description = loaded.__doc__
            loaded.add_arguments(command)
            command.add_argument("--traceback", action="store_true", help="show where in the code an error was raised")
            command.set_defaults(run=loaded.run)
    options = parser.parse_args()
    from .refused import Refused
    try:
        options.run(options)
    except Refused as refusal:
        if options.traceback:
            raise
        sys.exit(f"refused: {refusal}")
    # Each library has errors of its own. The first line says what, and --traceback shows the rest.
    except Exception as error:
        if options.traceback:
            raise
        lines = str(error).strip().splitlines() or ["no reason is given"]
        sys.exit(f"failed: {type(error).__name__}: {lines[0]} (--traceback shows where; nothing was written)")


if __name__ == "__main__":
    main()
