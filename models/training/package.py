"""Writes what lies beside a graph: golden texts, `model.toml` with the digests, and the model card."""

import shutil
from pathlib import Path
from string import Template

from tools import manifest

from .export import write_json

CARDS = Path(__file__).parent / "cards"


def write_golden(folder: Path, examples: list[dict], tolerance: float) -> None:
    """Texts, labels and scores that the server compares at each load."""
    write_json(folder / "golden.json", {"tolerance": tolerance, "examples": examples})


def write_card(folder: Path, name: str, figures: dict[str, float], examples: list[dict]) -> None:
    """The card, with the figures that were measured on exactly these files."""
    values = {
        **{key: f"{value:.2g}" for key, value in figures.items()},
        **{key: f"{100 * value:.2f} %" for key, value in figures.items() if key.endswith("accuracy")},
        "microseconds": f"{figures['microseconds']:.0f}",
        "megabytes": f"{figures['bytes'] / 1e6:.1f} MB",
        "golden": str(len(examples)),
    }
    card = Template((CARDS / f"{name}.md").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(card.substitute(values), encoding="utf-8")


def write_manifest(folder: Path, settings: dict[str, str | int]) -> None:
    """`model.toml`: the settings, and a digest of every file that the server may read."""
    lines = [f'{key} = {value}' if isinstance(value, int) else f'{key} = "{value}"' for key, value in settings.items()]
    manifest.write_manifest(folder, lines)


def install(made: Path, target: Path) -> None:
    """Replaces the model in the repository, once everything about the new one is known to be right."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made, target)
