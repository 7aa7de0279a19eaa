"""Makes the two models that this repository ships: see `models/train.py`."""
