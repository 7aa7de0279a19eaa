"""Draws panels of the dashboard from what a Prometheus has recorded. Needs matplotlib."""

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[3] / "deploy/grafana/predictd.json"
PANELS = ["Requests by outcome", "Time of a request", "Where the time of a text goes (means)", "Queue",
          "Predictions by model", "Busy threads by model", "Labels", "Confidence", "Processor"]
COLUMNS = 3
STEP = 2
# Longest name of a series in a legend.
NAME = 34


def legend(target: dict, labels: dict[str, str]) -> str:
    """What Grafana would write beside this series."""
    text = re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), target.get("legendFormat", "")).strip()
    return text if len(text) <= NAME else text[: NAME - 1] + "…"


def series(url: str, expression: str, start: float, end: float) -> list[dict]:
    """The series of a query between two times."""
    expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": STEP})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def draw(url: str, start: float, end: float, path: Path) -> None:
    """Writes a picture of PANELS, seconds since `start` from left to right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {panel["title"]: panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]}
    rows = -(-len(PANELS) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(5 * COLUMNS, 2.6 * rows), layout="constrained", sharex=True)
    for axis, title in zip(axes.flat, PANELS):
        panel = panels[title]
        for target in panel["targets"]:
            for found in series(url, target["expr"], start, end):
                times, values = zip(*((at - start, float(value)) for at, value in found["values"]))
                axis.plot(times, values, label=legend(target, found["metric"]), linewidth=1.2)
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
        axis.set_title(f"{title} [{unit}]" if unit else title, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, loc="upper left")
    figure.savefig(path, dpi=80)
