"""LitServe with its own batching: up to 32 texts that come within 5 ms."""

import os

import litserve

from model import Model


class Classifier(litserve.LitAPI):
    """One text per request."""

    def setup(self, device: str) -> None:
        """Loads the model in its worker."""
        self.model = Model.from_environment()

    def decode_request(self, request: dict) -> str:
        """The text."""
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict]:
        """The best label of each text."""
        return self.model.predict(list(texts))

    def encode_response(self, output: dict) -> dict:
        """The answer."""
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.005)
    workers = int(os.environ["PEER_WORKERS"])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning", generate_client_file=False)
