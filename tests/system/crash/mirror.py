"""What a client knows that must be recorded of a model, by the rules of the registry: it made all changes itself."""

import copy
import random
from pathlib import Path

import orders

# Versions that were active before, of which a rollback takes one.
REMEMBERED = 16
# Versions of a model at a time, beyond the operator's own.
MOST = 8


class Mirror:
    """A model as it must be."""

    def __init__(self, name: str, others: dict[str, Path]) -> None:
        """A model of which the server found version 1."""
        self.name, self.others = name, others
        self.revision, self.active, self.before = 2, "1", []
        self.versions: dict[str, dict] = {"1": {"pinned": True, "metrics": {}}}
        self.history: list[tuple] = [("find", None, None), ("activate", "1", None)]

    def after(self, order: orders.Order) -> "Mirror":
        """The model after a change."""
        changed = copy.copy(self)
        changed.before, changed.versions = list(self.before), copy.deepcopy(self.versions)
        changed.history = [*self.history, (order.action, self.about(order), (order.body or {}).get("reason"))]
        changed.revision += 1
        changed.apply(order)
        return changed

    def about(self, order: orders.Order) -> str:
        """The version that stands in the history."""
        return self.before[-1] if order.action == "roll back" else order.version

    def apply(self, order: orders.Order) -> None:
        """Does what the order says."""
        version = order.version
        match order.action:
            case "register":
                self.versions[version] = {"pinned": False, "metrics": {}}
            case "activate":
                self.before = [*self.before, self.active][-REMEMBERED:]
                self.active = version
            case "roll back":
                self.active = self.before.pop()
            case "measure":
                self.versions[version]["metrics"] |= order.body["metrics"]
            case "pin" | "unpin":
                self.versions[version]["pinned"] = order.body["pinned"]
            case "remove":
                self.forget(version)

    def forget(self, version: str) -> None:
        """No rollback leads to a version that is gone, nor to where one is."""
        del self.versions[version]
        without = [before for before in self.before if before != version]
        self.before = [one for one, earlier in zip(without, [None, *without]) if one != earlier]
        if self.before and self.before[-1] == self.active:
            self.before.pop()

    def some_order(self, chance: random.Random) -> orders.Order:
        """A change that is possible now."""
        uploaded = [version for version in self.versions if version != "1"]
        idle = [version for version in uploaded if version != self.active]
        new = [version for version in self.others if version not in self.versions]
        kind = chance.choices(["register", "activate", "roll back", "measure", "pin", "remove"], [3, 4, 3, 3, 1, 2])[0]
        if kind == "register" and len(uploaded) < MOST:
            version = chance.choice(new)
            return orders.register(version, self.others[version], self.name)
        if kind == "remove" and idle:
            return orders.remove(chance.choice(idle), self.revision, self.name)
        if kind == "roll back" and self.before:
            return orders.roll_back(self.revision, self.name)
        others = [version for version in self.versions if version != self.active]
        if kind == "activate" and others:
            return orders.activate(chance.choice(others), self.revision, self.name)
        version = chance.choice(list(self.versions))
        if kind == "pin" and version != "1":
            return orders.pin(version, not self.versions[version]["pinned"], self.revision, self.name)
        return orders.measure(version, {"f1": self.revision / 1_000}, self.revision, self.name)

    def differs(self, record: dict) -> str:
        """How what is recorded differs from it; nothing if it does not."""
        versions = {name: {key: version[key] for key in ("pinned", "metrics")}
                    for name, version in record["versions"].items()}
        found = (record["revision"], record["active"], record["previous"], versions)
        expected = (self.revision, self.active, self.before[-1] if self.before else None, self.versions)
        return "" if found == expected else f"recorded {found}, expected {expected}"
