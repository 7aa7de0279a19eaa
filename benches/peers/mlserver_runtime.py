"""MLServer with its adaptive batching: the settings are in compare.py."""

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from model import Model


class Classifier(MLModel):
    """One text per request, in the V2 inference protocol."""

    async def load(self) -> bool:
        """Loads the model in its worker."""
        self.model = Model.from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The best label of each text, and its score."""
        answers = self.model.predict(StringCodec.decode_input(payload.inputs[0]))
        labels = StringCodec.encode_output("label", [answer["label"] for answer in answers])
        scores = StringCodec.encode_output("score", [repr(answer["score"]) for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[labels, scores])
