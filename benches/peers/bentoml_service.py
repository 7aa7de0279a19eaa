"""BentoML with its adaptive batching."""

import os

import bentoml

from model import Model


@bentoml.service(workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 60, "max_concurrency": 256})
class Classifier:
    """Texts come in a list, which BentoML joins with the lists of other requests."""

    def __init__(self) -> None:
        self.model = Model.from_environment()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, texts: list[str]) -> list[dict]:
        """The best label of each text."""
        return self.model.predict(texts)
