"""FastAPI behind uvicorn: one text per request, in the thread pool that FastAPI gives a plain function."""

from fastapi import FastAPI
from pydantic import BaseModel

from model import Model

model = Model.from_environment()
app = FastAPI()


class Request(BaseModel):
    """What is asked."""

    text: str


@app.get("/health")
def health() -> dict:
    """Answers once the model is loaded."""
    return {"status": "healthy"}


@app.post("/predict")
def predict(request: Request) -> dict:
    """The best label."""
    return model.predict([request.text])[0]
