"""What an operator asks of the registry, in a form that can be sent again word by word."""

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from served import NAME, Answer, Wire


@dataclass
class Order:
    """A change of a model that is asked for."""

    action: str
    version: str | None
    method: str
    path: str
    body: dict | None
    revision: int | None
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def send(self, wire: Wire) -> Answer:
        """Asks for it."""
        headers = {"Idempotency-Key": self.key}
        if self.revision is not None:
            headers["If-Match"] = f'"{self.revision}"'
        return wire.ask(self.method, self.path, self.body, headers)


def files_of(directory: Path) -> list[dict]:
    """The list of a version's files."""
    def record(path: Path) -> dict:
        content = path.read_bytes()
        return {"path": path.relative_to(directory).as_posix(), "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest()}
    return [record(path) for path in sorted(directory.rglob("*")) if path.is_file()]


def upload(wire: Wire, directory: Path) -> list[str]:
    """Uploads the files of a version; the SHA-256 of those that were taken."""
    taken = []
    for file in files_of(directory):
        if put(wire, directory, file).ok:
            taken.append(file["sha256"])
    return taken


def put(wire: Wire, directory: Path, file: dict) -> Answer:
    """Uploads one file."""
    content = (directory / file["path"]).read_bytes()
    headers = {"Content-Type": "application/octet-stream"}
    return wire.ask("PUT", f"/admin/store/{file['sha256']}", content, headers)


def register(version: str, directory: Path, name: str = NAME) -> Order:
    """A new version, of files that were uploaded."""
    body = {"version": version, "files": files_of(directory), "metadata": {"of": version},
            "reason": f"register {version}"}
    return Order("register", version, "POST", f"/admin/models/{name}/versions", body, None)


def activate(version: str, revision: int, name: str = NAME) -> Order:
    """A version that shall answer."""
    body = {"version": version, "reason": f"activate {version}"}
    return Order("activate", version, "POST", f"/admin/models/{name}/activate", body, revision)


def roll_back(revision: int, name: str = NAME) -> Order:
    """The version before shall answer."""
    return Order("roll back", None, "POST", f"/admin/models/{name}/rollback", {"reason": "back"}, revision)


def remove(version: str, revision: int, name: str = NAME) -> Order:
    """A version that shall be forgotten."""
    return Order("remove", version, "DELETE", f"/admin/models/{name}/versions/{version}", None, revision)


def measure(version: str, metrics: dict[str, float], revision: int, name: str = NAME) -> Order:
    """Figures of a version."""
    path = f"/admin/models/{name}/versions/{version}/metrics"
    return Order("measure", version, "PUT", path, {"metrics": metrics}, revision)


def pin(version: str, pinned: bool, revision: int, name: str = NAME) -> Order:
    """A version that shall be kept loaded, or no longer."""
    path = f"/admin/models/{name}/versions/{version}/pin"
    return Order("pin" if pinned else "unpin", version, "PUT", path, {"pinned": pinned}, revision)


def recorded(wire: Wire, name: str = NAME) -> dict:
    """What is recorded of a model, without what is not: which versions are loaded."""
    answer = wire.ask("GET", f"/admin/models/{name}")
    if not answer.ok:
        raise RuntimeError(f"/admin/models/{name}: {answer}")
    model = answer.json()
    versions = {version.pop("version"): version for version in model.pop("versions")}
    for version in versions.values():
        del version["state"]
    return model | {"versions": versions}


def answers(wire: Wire, name: str = NAME) -> tuple[str, str]:
    """The version that answers, as it says, and the label, which says from whose files it was computed."""
    answer = wire.ask("POST", "/predict", {"text": f"{uuid.uuid4()}", "model": name})
    if not answer.ok:
        raise RuntimeError(f"/predict: {answer}")
    said = answer.json()
    return said["model"]["version"], said["prediction"]
