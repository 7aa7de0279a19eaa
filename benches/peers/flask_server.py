"""Flask behind gunicorn: one text per request."""

from flask import Flask, jsonify, request

from model import Model

model = Model.from_environment()
app = Flask(__name__)


@app.get("/health")
def health():
    """Answers once the model is loaded."""
    return jsonify(status="healthy")


@app.post("/predict")
def predict():
    """The best label."""
    return jsonify(model.predict([request.get_json()["text"]])[0])
